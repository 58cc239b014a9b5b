"""The /chat/completions dialect (OpenAI API reference): a request's body, and an event's data -> Chunk."""

import json
from collections.abc import Mapping
from typing import Any

from smai_cli.answer.api_error import MARKS, ApiError, api_error_of, error_in, unmarked_error_in
from smai_cli.answer.chunk import ChoicePart, Chunk, UnreadKind, UnreadPart, text_chunk, usage_in
from smai_cli.prompt.request import Request, encode
from smai_cli.stream.dialects.chat_choice import list_choices, read_choice
from smai_cli.stream.json_text import (
    EXACT,
    NumberAsTextError,
    foreign_json_error,
    load_body,
    load_event,
    load_object,
    parse_error_event,
)
from smai_cli.stream.sse import DONE

PATH = "/chat/completions"
# The names of models that accept only max_completion_tokens begin so.
_NEW_MODELS = ("o1", "o3", "o4", "gpt-5")
# Members of a choice that a simple delta does not have.
_ODD = frozenset({"error", "finishReason", "message", "text", "usage"})
_TEXT_AND_ROLE = 2
_SIGNS_OF_LIFE = ("ping", "keepalive", "heartbeat")
_FOREIGN = (UnreadPart(UnreadKind.FOREIGN, "an event that is not of this API"),)
_UNREAD_CHOICES = (UnreadPart(UnreadKind.TEXT, "choices that are not a list"),)


def encode_request(request: Request) -> bytes:
    """Return the request as the JSON body of a POST to PATH, in UTF-8."""
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [message.as_json() for message in request.messages],
        **_rename_token_limit(request),
        "stream": request.stream,
    }
    if request.stream and request.include_usage:
        body["stream_options"] = {"include_usage": True}
    return encode(body, request.extra_body)


def output_limit(request: Request) -> int | None:  # noqa: ARG001  # as every dialect has it
    """Return None: in this API the finish_reason says whether the token limit cut the answer."""
    return None


def token_limit_name(model: str) -> str:
    """Return the name of the parameter that limits the answer's tokens (API reference, max_completion_tokens).

    OpenAI's reasoning models refuse the older name (anomalyco/opencode#37964), and many other servers do not know the
    newer one (BerriAI/litellm#9583).
    """
    name = model.removeprefix("openai/")
    return "max_completion_tokens" if name.startswith(_NEW_MODELS) else "max_tokens"


def _rename_token_limit(request: Request) -> Mapping[str, Any]:
    """Return the parameters of a request under the names that its server knows."""
    options = request.options
    name = request.token_limit_name or token_limit_name(request.model)
    if "max_tokens" not in options or name == "max_tokens":
        return options
    return {(name if key == "max_tokens" else key): value for key, value in options.items()}


def parse_event(data: str, name: str = "message") -> Chunk:
    """Return the Chunk in one event's data; `name` is the event's name, and `error` marks an error object.

    Raises BrokenError for data that is not a JSON object. Servers send chunks without choices, null contents,
    and members unknown to the API: all are accepted.
    """
    if name == "message" and data.startswith("{"):  # nearly all events
        payload, line = load_object(data, "an event")
    elif data.strip() == DONE:
        return Chunk(done=True)
    elif name.lower() == "error":
        return parse_error_event(data)
    else:
        loaded = load_event(data, name)
        if loaded is None:
            return Chunk()
        payload, line = loaded
    simple = _plain(payload, line)
    if simple is not None:
        return simple
    try:
        return _chunk(payload, line, "delta", is_message=name == "message")
    except NumberAsTextError:
        return _chunk(EXACT.decode(data), line, "delta", is_message=name == "message")


def parse_body(data: str) -> Chunk:
    """Return the Chunk of an answer in one piece; nothing follows it.

    Raises BrokenError for JSON that was cut, ForeignAnswerError for an object that is not a completion.
    """
    whole, line = load_body(data)
    payload = _unwrapped(whole)
    line = line if payload is whole else json.dumps(payload)
    try:
        chunk = _chunk(payload, line, "message")
    except NumberAsTextError:
        chunk = _chunk(_unwrapped(EXACT.decode(data.strip())), line, "message")
    if chunk.api_error is None and not _is_of_choices(payload.get("choices")):
        raise foreign_json_error(line)
    return chunk._replace(done=True)


def _unwrapped(payload: dict[str, Any]) -> dict[str, Any]:
    """Return the completion in `data`, into which Cline's server puts it if it does not stream (cline/cline#12647)."""
    data = payload.get("data")
    if not isinstance(data, dict) or "choices" in payload or "choices" not in data:
        return payload
    return payload if error_in(payload) or unmarked_error_in(payload) else data


def _plain(payload: dict[str, Any], line: str) -> Chunk | None:
    """Return the Chunk of a payload that is only a delta of text, perhaps with its role, as most are; None for others.

    The result must equal that of _chunk, which takes twice as long: tests/stream/test_fast_path.py.
    """
    choices = payload.get("choices")
    if not (isinstance(choices, list) and len(choices) == 1 and MARKS.isdisjoint(payload) and not payload.get("usage")):
        return None
    choice = choices[0]
    if not isinstance(choice, dict) or choice.get("finish_reason") is not None or not _ODD.isdisjoint(choice):
        return None
    delta = choice.get("delta")
    if not isinstance(delta, dict) or "type" in payload or payload.get("object") == "error":
        return None
    has_role = len(delta) > 1
    if has_role and (len(delta) > _TEXT_AND_ROLE or delta.get("role") != "assistant"):
        return None
    text, index, model = delta.get("content"), choice.get("index"), payload.get("model")
    if not (text and isinstance(text, str) and isinstance(index, int) and isinstance(model, str)):
        return None
    is_plain = not has_role and text.isascii()
    return text_chunk(line, text, model, index, has_role, is_plain, None)


def _chunk(payload: dict[str, Any], line: str, part: str, *, is_message: bool = True) -> Chunk:
    """Return the Chunk of a payload whose choices have their text under `part`; `is_message`: see _without_choice."""
    api_error = error_in(payload)
    model = payload.get("model")
    choices = list_choices(payload.get("choices"))
    if not choices or not isinstance(choices, list):
        return _without_choice(payload, line, api_error, is_message=is_message)
    first, others = _read_choices(choices, part)
    return Chunk(
        data=line,
        usage=usage_in(payload),
        model=model if isinstance(model, str) else "",
        others=others,
        api_error=api_error or _error_of(choices),
        **first._asdict(),
    )


def _read_choices(choices: list[Any], part: str) -> tuple[ChoicePart, tuple[ChoicePart, ...]]:
    """Return the content of the choice with the lowest index, and that of the others."""
    if len(choices) == 1 and choices[0] is not None:  # nearly all events
        return read_choice(choices[0], part), ()
    read = [read_choice(choice, part) for choice in choices if choice is not None] or [ChoicePart()]
    first = min(range(len(read)), key=lambda number: read[number].choice_index)
    return read.pop(first), tuple(read)


def _without_choice(payload: dict[str, Any], line: str, api_error: ApiError | None, *, is_message: bool) -> Chunk:
    """Return the Chunk of a payload without choices. Outside of a `message` event, only a marked error counts."""
    usage, model = usage_in(payload), payload.get("model")
    is_odd = is_message and "choices" not in payload
    is_known = usage or payload.get("usage") or payload.get("type") in _SIGNS_OF_LIFE
    is_foreign = is_odd and not is_known
    return Chunk(
        line,
        usage=usage,
        model=model if isinstance(model, str) else "",
        api_error=api_error or (unmarked_error_in(payload) if is_odd else None),
        unread=_FOREIGN if is_foreign else _UNREAD_CHOICES if payload.get("choices") else (),
    )


def _error_of(choices: list[Any]) -> ApiError | None:
    """Return the ApiError in a choice (OpenRouter) or in its delta; None without one."""
    for choice in choices:
        for holder in (choice, choice.get("delta") if isinstance(choice, dict) else None):
            error = holder.get("error") if isinstance(holder, dict) else None
            if error or error == {}:
                return api_error_of(error)
    return None


def _is_of_choices(choices: Any) -> bool:
    return isinstance(choices, list) or (isinstance(choices, dict) and bool(choices))
