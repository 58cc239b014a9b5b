"""Parse a line of the input: JSON Lines in three forms, or text."""

import json
from collections.abc import Mapping
from json.encoder import encode_basestring
from types import MappingProxyType
from typing import Any, NamedTuple

from smai_cli.apis import APIS, CHAT
from smai_cli.batch.input.template import Template
from smai_cli.common.files import utf8_in
from smai_cli.common.frozen import Frozen
from smai_cli.common.text import one_line
from smai_cli.errors import UsageError
from smai_cli.prompt.messages import parse_message
from smai_cli.prompt.request import JSON, TOKEN_LIMITS, Message, Request, build_messages, choices_in, json_fault

# Members of a line that go into its request, in addition to prompt and messages: parameters of both APIs, and of common
# self-hosted servers. All other members are the user's own, and are copied to the result.
MEMBERS = frozenset(
    (  # noqa: SIM905  # words, to be read
        "cache_prompt chat_template_kwargs enable_thinking extra_body frequency_penalty function_call "
        "functions grammar guided_choice guided_grammar guided_json guided_regex keep_alive logit_bias "
        "logprobs max_completion_tokens max_output_tokens max_tokens min_p min_tokens modalities model n "
        "parallel_tool_calls prediction presence_penalty previous_response_id prompt_cache_key reasoning "
        "reasoning_effort repetition_penalty response_format safe_prompt safety_identifier seed service_tier "
        "stop stop_token_ids store temperature thinking tool_choice tools top_k top_logprobs top_p truncation "
        "user verbosity web_search_options"
    ).split()
)
# Parameters whose names differ between the APIs: a dialect translates them.
_PARAMETERS = ("temperature", "max_tokens", "top_p", "reasoning_effort", "seed", "stop", "response_format")
# Parameters that smai sets itself.
_OWN = ("stream", "stream_options")
# The forms of the result.
FLAT, OPENAI = "flat", "openai"
_FLAT_MEMBERS = ("prompt", "messages", "system", *_OWN)
_OPENAI_MEMBERS = ("body", "method", "url")
_PLAIN_MEMBERS = frozenset(("id", "prompt"))
_ID_TYPES = (str, int, type(None))
_NONE: frozenset[str] = frozenset()
_LINE_ENDS = ("", "\n", "\r\n")
_NOTHING: Mapping[str, Any] = MappingProxyType({})
# The request of a line, its API, and the members that are copied to its result, as in Line.
_Parsed = tuple[Request, str, Mapping[str, Any]]
_PATHS = {prefix + api.path: api.name for api in APIS for prefix in ("", "/v1")}
_MODEL_HINT = "name one with -m; smai models lists them"
_HINT = 'a line is "text", {"prompt": "text"}, {"messages": [...]} or {"custom_id": "...", "body": {...}}'


class Defaults(Frozen):
    """What the options set for every request, and how to read the lines.

    `model` is empty if each line must name its own. `api` is auto, chat or responses. `is_text`: each line is a prompt,
    not JSON. `form` is the form of the results; None: the form of the line.
    """

    model: str
    api: str
    system: str | None
    parameters: dict[str, Any]
    extra_body: dict[str, Any]
    stream: bool = True
    is_text: bool = False
    form: str | None = None
    template: Template | None = None


class Line(NamedTuple):
    """A parsed line: its number from 1, its id if it has one, and the request.

    `api` is as in Defaults, or the one that the line names. `user_members` are the members that are copied to the
    result, `form` is the form of the result.
    """

    number: int
    id: str | int | None
    request: Request
    api: str
    form: str
    user_members: Mapping[str, Any]


class LineError(UsageError):
    """A line that cannot be sent, because of `error`.

    `name` is its id, if that could be read, and `form` the form of its result.
    """

    def __init__(self, error: UsageError, name: str | int | None, form: str) -> None:
        super().__init__(error.describe(), error.hint)
        self.name = name
        self.form = form


class NotJsonError(UsageError):
    """A line is not JSON. If all lines are not, the input is probably plain text."""


class NoModelError(UsageError):
    """Neither a line nor the options name a model: a mistake in the command, not only in the line."""


def is_blank(data: bytes) -> bool:
    """Return whether a line is only white space, and is skipped."""
    return not data or data.isspace()


def read_line(number: int, data: bytes, defaults: Defaults) -> Line:
    """Parse the bytes of a line, with or without its line end. Raises LineError or NoModelError."""
    name, form = None, defaults.form or FLAT
    try:
        text = utf8_in(data, "it")
        if number == 1:
            text = text.removeprefix("\ufeff")
        value = text.removesuffix("\n").removesuffix("\r") if defaults.is_text else _decode(text)
        if isinstance(value, str):
            request, api, user_members = _of_text(value, defaults)
        elif not isinstance(value, dict):
            raise UsageError("it is JSON, but neither a string nor an object", _HINT)  # noqa: TRY301  # as all others
        else:
            is_openai = "body" in value
            form = defaults.form or (OPENAI if is_openai else FLAT)
            name = _name(value)
            request, api, user_members = (_of_openai if is_openai else _of_object)(value, text, defaults)
    except UsageError as error:
        raise LineError(error, name, form) from error
    if not request.model:
        raise NoModelError(f"{describe_line(number, name)} names no model, and no option does", _MODEL_HINT)
    return Line(number, name, request, api, form, user_members)


def read_plain_line(data: bytes) -> tuple[str | int | None, bytes] | None:
    """Return the id and the prompt, as JSON, of a line that has nothing else; None for a line that read_line must read.

    It makes no request, and so takes half of the time.
    """
    try:
        text = data.decode()
        value, end = JSON.raw_decode(text)
        if type(value) is not dict or not value.keys() <= _PLAIN_MEMBERS or text[end:] not in _LINE_ENDS:
            return None
        name: str | int | None = value.get("id")
        prompt = value["prompt"]
        if not isinstance(prompt, str) or not prompt or prompt.isspace() or type(name) not in _ID_TYPES:
            return None
        return name, b'"%b"' % prompt.encode() if b"\\" not in data else encode_basestring(prompt).encode()
    except (ValueError, KeyError, RecursionError):
        return None


def _decode(text: str) -> Any:
    try:
        return JSON.decode(text)
    except (ValueError, RecursionError) as exc:
        raise NotJsonError(f"it is not JSON: {json_fault(exc)}", _HINT) from exc


def _name(value: dict[str, Any]) -> str | int | None:
    """Return the id of a line; None if there is none. Raises UsageError if it is not valid."""
    key = "id" if value.get("custom_id") is None else "custom_id"
    name: str | int | None = value.get(key)
    if type(name) not in _ID_TYPES:
        raise UsageError(f"its {key} is neither a string nor a whole number", "give each line its own id")
    return name


def _names_of_line(value: dict[str, Any]) -> tuple[str, ...]:
    """Return the members that hold the id of a line; if both are there, `id` is the user's own."""
    has_both = value.get("custom_id") is not None and value.get("id") is not None
    return ("custom_id",) if has_both else ("custom_id", "id")


def _of_text(text: str, defaults: Defaults) -> _Parsed:
    if defaults.template:
        text = defaults.template.fill(text, {})
    return _request(_prompt(text, defaults), {}, defaults), defaults.api, _NOTHING


def _of_object(value: dict[str, Any], text: str, defaults: Defaults) -> _Parsed:
    template = defaults.template
    # Members that the template uses are the user's own, even if an API has a parameter of that name.
    names = template.names if template else _NONE
    given, user_members = _divide(value, names)
    if "system" in value and "system" not in names:
        if not isinstance(value["system"], str):
            raise UsageError("its system is not a string", _HINT)
        defaults = defaults.replaced(system=value["system"])
    if "messages" in value and "messages" not in names:
        if template or "prompt" in value:
            other = "--template" if template else "prompt"
            raise UsageError(f"it has messages as well as {other}", "leave one of them out")
        return _request(_messages(value["messages"], defaults), given, defaults), defaults.api, user_members
    prompt = template.fill(text, value) if template else value.get("prompt")
    if not isinstance(prompt, str):
        raise UsageError("its prompt is not a string" if "prompt" in value else "it has no prompt", _HINT)
    return _request(_prompt(prompt, defaults), given, defaults), defaults.api, user_members


def _divide(value: dict[str, Any], names: frozenset[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split the members of a line into those for the request and those copied to the result."""
    given, user_members = {}, {}
    not_own = _names_of_line(value)
    for key, member in value.items():
        if key in names:
            user_members[key] = member
        elif key in MEMBERS:
            given[key] = member
        elif key not in not_own and key not in _FLAT_MEMBERS:
            user_members[key] = member
    return given, user_members


def _prompt(text: str, defaults: Defaults) -> tuple[Message, ...]:
    if not text or text.isspace():
        raise UsageError("its prompt is empty", _HINT)
    return (Message("user", text),) if defaults.system is None else build_messages(text, defaults.system)


def _of_openai(value: dict[str, Any], _: str, defaults: Defaults) -> _Parsed:
    """Parse a line of OpenAI's batch file (API reference, "The request input object")."""
    if defaults.template:
        raise UsageError("it has a body, but --template was given", "leave one of them out")
    body = value["body"]
    if not isinstance(body, dict):
        raise UsageError("its body is not an object", _HINT)
    if value.get("method") not in (None, "POST"):
        raise UsageError(f"its method is {one_line(str(value['method']), 20)}", "it must be POST")
    not_own = (*_OPENAI_MEMBERS, *_names_of_line(value))
    user_members = {key: member for key, member in value.items() if key not in not_own}
    defaults = defaults.replaced(api=_api_of(value.get("url"), body, defaults))
    given = {key: member for key, member in body.items() if key not in ("messages", *_OWN)}
    messages: tuple[Message, ...] = ()
    if "messages" in body:
        messages = _messages(body["messages"], defaults)
    elif "input" not in body or defaults.api == CHAT.name:
        raise UsageError("its body has no messages", _HINT)
    elif defaults.system is not None:
        given.setdefault("instructions", defaults.system)
    return _request(messages, given, defaults), defaults.api, user_members


def _api_of(url: Any, body: dict[str, Any], defaults: Defaults) -> str:
    """Return the API that a line names. Its `url` is only a path and never selects a server. Raises UsageError."""
    if url is None:
        named = [api.name for api in APIS if api.prompt_member in body]
        return named[0] if named and CHAT.prompt_member not in body else defaults.api
    if isinstance(url, str) and url in _PATHS:
        return _PATHS[url]
    hint = f"a url is {' or '.join(f'/v1{api.path}' for api in APIS)}; --base-url names the server"
    raise UsageError(f"its url is {one_line(str(url), 60)}", hint)


def _messages(value: Any, defaults: Defaults) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise UsageError("its messages are not a list, or the list is empty", _HINT)
    messages = tuple(parse_message(item, f"its message {number}") for number, item in enumerate(value, 1))
    has_system = any(message.role in ("system", "developer") for message in messages)
    return messages if has_system else build_messages(None, defaults.system, messages)


def _request(messages: tuple[Message, ...], given: dict[str, Any], defaults: Defaults) -> Request:
    """Return the request of a line, with its own settings in place of the defaults. Raises UsageError."""
    request = Request(
        defaults.model, messages, defaults.parameters, stream=defaults.stream, extra_body=defaults.extra_body
    )
    return _with_members(request, given) if given else request


def _with_members(request: Request, given: dict[str, Any]) -> Request:
    given = given | _more_of(given.pop("extra_body", None))
    model = given.pop("model", request.model)
    if not isinstance(model, str) or not model:
        raise UsageError("its model is not a string", _HINT)
    parameters, extra_body = dict(request.options), dict(request.extra_body)
    if not given.keys().isdisjoint(TOKEN_LIMITS):  # a line that sets one gets none of the default limits
        for key in TOKEN_LIMITS:
            parameters.pop(key, None)
            extra_body.pop(key, None)
    for key, member in given.items():
        extra_body.pop(key, None)
        (parameters if key in _PARAMETERS else extra_body)[key] = member
    if choices_in(extra_body) > 1:
        raise UsageError("it requests several answers, but a result has one", "leave n out, or repeat the line")
    return request._replace(model=model, options=parameters, extra_body=extra_body)


def _more_of(extra_body: Any) -> dict[str, Any]:
    """Return the parameters in the member extra_body, without those that smai sets itself. Raises UsageError."""
    if not isinstance(extra_body, dict | None):
        raise UsageError("its extra_body is not an object", "it holds further parameters of the request")
    more = {key: member for key, member in (extra_body or {}).items() if key not in _OWN}
    for api in APIS:
        if api.prompt_member in more:
            raise UsageError(f"its extra_body has {api.prompt_member}", _HINT)
    return more


def describe_line(number: int, name: str | int | None) -> str:
    """Return the name of a line for messages."""
    return f"line {number}" if name is None else f"line {number} ({one_line(json.dumps(name, ensure_ascii=False), 60)})"
