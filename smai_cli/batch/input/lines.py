"""A line of the input -> what is asked in it: JSON Lines in three forms, or text."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from smai_cli.apis import APIS, CHAT
from smai_cli.batch.input.template import Template
from smai_cli.common.files import utf8_in
from smai_cli.common.frozen import Frozen
from smai_cli.common.text import one_line
from smai_cli.errors import UsageError
from smai_cli.prompt.messages import parse_message
from smai_cli.prompt.request import JSON, TOKEN_LIMITS, TOO_LARGE, Message, Request, build_messages, choices_in

# Members of a line that go into its request, beside prompt and messages: parameters of both APIs, and what servers
# that people run know besides. All others are the user's own, and come back in the result.
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
# Parameters that the APIs call by different names: a dialect translates them.
_PARAMETERS = ("temperature", "max_tokens", "top_p", "reasoning_effort", "seed", "stop", "response_format")
# What smai sets itself.
_OWN = ("stream", "stream_options")
# The forms of the result.
FLAT, OPENAI = "flat", "openai"
_FLAT_MEMBERS = ("prompt", "messages", "system", *_OWN)
_OPENAI_MEMBERS = ("body", "method", "url")
_NONE: frozenset[str] = frozenset()
_LINE_ENDS = ("", "\n", "\r\n")
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_PATHS = {prefix + api.path: api.name for api in APIS for prefix in ("", "/v1")}
_MODEL_HINT = "name one with -m; smai models lists them"
_HINT = 'a line is "text", {"prompt": "text"}, {"messages": [...]} or {"custom_id": "...", "body": {...}}'


class Defaults(Frozen):
    """What the options say of every request, and how the lines are to be read.

    `model` is empty where each line has to name its own. `api` is auto, chat or responses. `is_text` says that a line
    is the prompt itself, and not JSON. `form` is that of the results; None: as that of the line.
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
    """What one line asks: its number from 1, its name if it has one, and the request.

    `api` is as in Defaults, or the one that the line names. `handed` are members that come back in the result,
    `form` is that of the result.
    """

    number: int
    id: str | int | None
    request: Request
    api: str
    form: str
    handed: Mapping[str, Any]


class LineError(UsageError):
    """A line that cannot be asked; `name` is its id, if that could be read, and `form` that of its result."""

    def __init__(self, what: str, hint: str, name: str | int | None, form: str) -> None:
        super().__init__(what, hint)
        self.name = name
        self.form = form


class NoModelError(UsageError):
    """A line names no model, and nor do the options: that is a mistake in the command, not in the line alone."""


def is_blank(data: bytes) -> bool:
    """Return whether a line has nothing but white space, and is to be skipped."""
    return not data or data.isspace()


def read_line(number: int, data: bytes, defaults: Defaults) -> Line:
    """Return what the bytes of a line ask, without a line end at their end. Raises LineError or NoModelError."""
    head = _Head(number, None, defaults.form or FLAT, _NOTHING)
    try:
        text = utf8_in(data, "it")
        if number == 1:
            text = text.removeprefix("\ufeff")
        if defaults.is_text:
            return _of_text(head, text.removesuffix("\n").removesuffix("\r"), defaults)
        value = _decoded(text)
        if isinstance(value, str):
            return _of_text(head, value, defaults)
        if not isinstance(value, dict):
            raise UsageError("it is JSON, but neither a string nor an object", _HINT)  # noqa: TRY301  # as all others
        is_openai = "body" in value
        head = _Head(number, None, defaults.form or (OPENAI if is_openai else FLAT), _NOTHING)
        head = _Head(number, _name(value), head.form, _NOTHING)
        return (_of_openai if is_openai else _of_object)(head, value, text, defaults)
    except NoModelError:
        raise
    except UsageError as error:
        raise LineError(error.what, error.hint, head.id, head.form) from error


class _Head(NamedTuple):
    """What a line is called, and what comes back in its result, as in a Line."""

    number: int
    id: str | int | None
    form: str
    handed: Mapping[str, Any]


def _decoded(text: str) -> Any:
    try:
        value, end = JSON.raw_decode(text)  # which looks for no white space
        return value if text[end:] in _LINE_ENDS else JSON.decode(text)
    except (ValueError, RecursionError):
        pass  # it begins with white space, or its place in the line is to be told
    try:
        return JSON.decode(text)
    except (ValueError, RecursionError) as exc:
        raise UsageError(f"it is not JSON: {getattr(exc, 'msg', TOO_LARGE)}", _HINT) from exc


def _name(value: dict[str, Any]) -> str | int | None:
    """Return the id of a line, None without one. Raises UsageError for what cannot be one."""
    key = "id" if value.get("custom_id") is None else "custom_id"
    name: Any = value.get(key)
    if name is not None and type(name) is not str and type(name) is not int:
        raise UsageError(f"its {key} is neither a string nor a whole number", "give each line its own id")
    return name


def _names_of_line(value: dict[str, Any]) -> tuple[str, ...]:
    """Return the members that are for the name of a line; where both are there, id is the user's own."""
    has_both = value.get("custom_id") is not None and value.get("id") is not None
    return ("custom_id",) if has_both else ("custom_id", "id")


def _of_text(head: _Head, text: str, defaults: Defaults) -> Line:
    if defaults.template:
        text = defaults.template.filled(text, {})
    return _line(head, _prompt(text, defaults), {}, defaults)


def _of_object(head: _Head, value: dict[str, Any], text: str, defaults: Defaults) -> Line:
    template = defaults.template
    # Members that the template uses are what the user asks with, whatever an API calls by that name.
    names = template.names if template else _NONE
    given, handed = _divided(value, names)
    head = _Head(head.number, head.id, head.form, handed)
    if "system" in value and "system" not in names:
        if not isinstance(value["system"], str):
            raise UsageError("its system is not a string", _HINT)
        defaults = defaults.replaced(system=value["system"])
    if "messages" in value and "messages" not in names:
        if template or "prompt" in value:
            beside = "--template" if template else "prompt"
            raise UsageError(f"it has messages as well as {beside}", "leave one of them out")
        return _line(head, _messages(value["messages"], defaults), given, defaults)
    prompt = template.filled(text, value) if template else value.get("prompt")
    if not isinstance(prompt, str):
        raise UsageError("its prompt is not a string" if "prompt" in value else "it has no prompt", _HINT)
    return _line(head, _prompt(prompt, defaults), given, defaults)


def _divided(value: dict[str, Any], names: frozenset[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a line sets itself in its request, and what comes back in its result."""
    given, handed = {}, {}
    not_own = (*_FLAT_MEMBERS, *_names_of_line(value))
    for key, member in value.items():
        if key in names:
            handed[key] = member
        elif key in MEMBERS:
            given[key] = member
        elif key not in not_own:
            handed[key] = member
    return given, handed


def _prompt(text: str, defaults: Defaults) -> tuple[Message, ...]:
    if not text or text.isspace():
        raise UsageError("its prompt is empty", _HINT)
    return (Message("user", text),) if defaults.system is None else build_messages(text, defaults.system)


def _of_openai(head: _Head, value: dict[str, Any], _: str, defaults: Defaults) -> Line:
    """Return what a line of OpenAI's batch file asks (API reference, "The request input object")."""
    if defaults.template:
        raise UsageError("it has a body, but --template was given", "leave one of them out")
    body = value["body"]
    if not isinstance(body, dict):
        raise UsageError("its body is not an object", _HINT)
    if value.get("method", "POST") != "POST":
        raise UsageError(f"its method is {one_line(str(value['method']), 20)}", "it must be POST")
    not_own = (*_OPENAI_MEMBERS, *_names_of_line(value))
    head = head._replace(handed={key: member for key, member in value.items() if key not in not_own})
    defaults = defaults.replaced(api=_api_of(value.get("url"), body, defaults))
    given = {key: member for key, member in body.items() if key not in ("messages", *_OWN)}
    messages: tuple[Message, ...] = ()
    if "messages" in body:
        messages = _messages(body["messages"], defaults)
    elif "input" not in body:
        raise UsageError("its body has no messages", _HINT)
    elif defaults.system is not None:
        given.setdefault("instructions", defaults.system)
    return _line(head, messages, given, defaults)


def _api_of(url: Any, body: dict[str, Any], defaults: Defaults) -> str:
    """Return the API that a line names. Its url is a path, and never chooses the server. Raises UsageError."""
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


def _line(head: _Head, messages: tuple[Message, ...], given: dict[str, Any], defaults: Defaults) -> Line:
    """Return the line, with what it sets itself in place of the defaults. Raises UsageError."""
    request = Request(
        defaults.model, messages, defaults.parameters, stream=defaults.stream, extra_body=defaults.extra_body
    )
    if given:  # in few lines
        request = _with_members(request, given)
    if not request.model:
        raise NoModelError(f"{shown_line(head.number, head.id)} names no model, and no option does", _MODEL_HINT)
    return Line(head.number, head.id, request, defaults.api, head.form, head.handed)


def _with_members(request: Request, given: dict[str, Any]) -> Request:
    model = given.pop("model", request.model)
    if not isinstance(model, str) or not model:
        raise UsageError("its model is not a string", _HINT)
    parameters, extra_body = dict(request.options), dict(request.extra_body)
    if not given.keys().isdisjoint(TOKEN_LIMITS):  # a line that sets one does not get the default of the others
        for key in TOKEN_LIMITS:
            parameters.pop(key, None)
            extra_body.pop(key, None)
    more = given.pop("extra_body", None)
    for key, member in (given | (more if isinstance(more, dict) else {})).items():
        extra_body.pop(key, None)
        (parameters if key in _PARAMETERS else extra_body)[key] = member
    if choices_in(extra_body) > 1:
        raise UsageError("it requests several answers, but a result has one", "leave n out, or repeat the line")
    return request._replace(model=model, options=parameters, extra_body=extra_body)


def shown_line(number: int, name: str | int | None) -> str:
    """Return what messages call a line."""
    return f"line {number}" if name is None else f"line {number} ({one_line(json.dumps(name, ensure_ascii=False), 60)})"
