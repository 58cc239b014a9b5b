"""The /responses dialect (OpenAI API reference): a request's body, and an event's data -> Chunk.

Exactly one of its events completed, incomplete, failed, cancelled, done and error ends the stream. `[DONE]`, which some
gateways send, is ignored.
"""

import re
from typing import Any

from smai_cli.answer.api_error import MARKS, api_error_of, error_in
from smai_cli.answer.chunk import (
    Chunk,
    PendingCall,
    Place,
    Repetition,
    UnreadKind,
    UnreadPart,
    text_chunk,
    usage_of,
)
from smai_cli.answer.completeness import worst
from smai_cli.common.text import one_line
from smai_cli.prompt.request import Request, encode
from smai_cli.stream.content import read_arguments, read_content, read_thoughts, text_of
from smai_cli.stream.dialects.response_input import input_items
from smai_cli.stream.dialects.response_output import read_item, read_output, read_part
from smai_cli.stream.json_text import (
    EXACT,
    NumberAsTextError,
    foreign_json_error,
    load_body,
    load_event,
    parse_error_event,
)
from smai_cli.stream.sse import DONE

PATH = "/responses"
# The finish reasons of the chat API, which smai uses, for the reasons of an incomplete response.
_FINISH_REASONS = {"max_output_tokens": "length", "content_filter": "content_filter"}
_REASONING = ("response.reasoning_summary_text.delta", "response.reasoning_text.delta")
_PREFIX = "response."
_DONE = "response.done"
_ENDS = ("response.completed", "response.incomplete", "response.failed", "response.cancelled", _DONE)
_ERRORS = ("error", "response.error")
_DELTA = "response.output_text.delta"
_PLAIN_NAMES = (_DELTA, "message")
# What the API sends while nothing happens.
_SIGNS_OF_LIFE = ("response.queued", "response.in_progress")
# Events of calls that are read from their item once it is done.
_CALL_EVENTS = (
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.custom_tool_call_input.delta",
    "response.custom_tool_call_input.done",
)
_AUDIO = ("response.audio.", "response.output_audio.")
# Their deltas are not part of the answer, or are read from the event at their end.
_NOT_TEXT = r"\.(refusal|reasoning)|_call"


def encode_request(request: Request) -> bytes:
    """Return the request as the JSON body of a POST to PATH, in UTF-8. The server always sends token counts."""
    options = dict(request.options)
    body: dict[str, Any] = {"model": request.model}
    system = [text_of(message.content) for message in request.messages if message.role == "system"]
    if system:
        body["instructions"] = "\n\n".join(system)
    body["input"] = [item for message in request.messages if message.role != "system" for item in input_items(message)]
    if "max_tokens" in options:
        body[token_limit_name(request.model)] = options.pop("max_tokens")
    if "reasoning_effort" in options:
        body["reasoning"] = {"effort": options.pop("reasoning_effort"), "summary": "auto"}
    if "response_format" in options:
        form = dict(options.pop("response_format"))
        schema = form.pop("json_schema", {})
        body["text"] = {"format": {**form, **schema}}
    body |= {**options, "stream": request.stream}
    return encode(body, request.extra_body)


def output_limit(request: Request) -> int | None:
    """Return the token limit of a request, None if it has none.

    An answer of that many tokens was cut, whatever its status says: llama.cpp, transformers serve and Ollama never
    send `incomplete`.
    """
    for value in (request.extra_body.get("max_output_tokens"), request.options.get("max_tokens")):
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def token_limit_name(model: str) -> str:  # noqa: ARG001  # the same for all models
    """Return the name of the parameter that limits the answer's tokens."""
    return "max_output_tokens"


def parse_event(data: str, name: str = "message") -> Chunk:
    """Return the Chunk in one event's data; `name` is the event's name, in case the data does not repeat it.

    Raises BrokenError for data that is not a JSON object.
    """
    if not data.startswith("{") and data.strip() == DONE:
        return Chunk()
    if name not in _PLAIN_NAMES and name.lower() in _ERRORS:
        return parse_error_event(data)
    loaded = load_event(data, "message" if name.startswith(_PREFIX) else name)
    if loaded is None:
        return Chunk()
    payload, line = loaded
    if payload.get("type") == _DELTA and name in _PLAIN_NAMES and (plain := _plain(payload, line)):
        return plain
    try:
        return _view(payload, line, name)
    except NumberAsTextError:
        return _view(EXACT.decode(data), line, name)


def parse_body(data: str) -> Chunk:
    """Return the Chunk of a response in one piece; one that is queued or in progress is not complete.

    Raises BrokenError for JSON that was cut, ForeignAnswerError for an object that is not a response.
    """
    payload, line = load_body(data)
    if payload.get("object") != "response" and (api_error := error_in(payload)):
        return Chunk(line, api_error=api_error)
    if not isinstance(payload.get("output"), list) and payload.get("object") != "response":
        raise foreign_json_error(line)
    try:
        return _end([], {"response": payload}, line)
    except NumberAsTextError:
        return _end([], {"response": EXACT.decode(data.strip())}, line)


def _plain(payload: dict[str, Any], line: str) -> Chunk | None:
    """Return the Chunk of a payload that is only a delta of ASCII text, as most are; None for others."""
    text = payload.get("delta")
    if not text or not isinstance(text, str) or not text.isascii():
        return None
    if not MARKS.isdisjoint(payload) or payload.get("object") == "error":
        return None
    item, part = payload.get("output_index"), payload.get("content_index")
    if not isinstance(item, int) or not isinstance(part, int):
        return None
    return text_chunk(line, text, "", 0, False, True, (item, part))


def _view(payload: dict[str, Any], line: str, name: str) -> Chunk:
    """Return the Chunk of an event's payload."""
    kind = payload.get("type")
    if kind in _ERRORS:
        return Chunk(line, api_error=error_in(payload) or api_error_of(payload))
    ends = [word for word in (kind, name) if word in _ENDS]
    if ends:
        return _end(ends, payload, line)
    kind = kind if isinstance(kind, str) and kind.startswith(_PREFIX) else name if name.startswith(_PREFIX) else kind
    if api_error := error_in(payload):
        return Chunk(line, api_error=api_error)
    kind = kind if isinstance(kind, str) else ""
    is_text = kind == _DELTA
    delta = payload.get("delta", payload.get("text") if is_text else None)
    read = read_content(delta, "the delta", is_alone=True) if is_text else read_content(None, "")
    repeated = _completed_part(kind, payload)
    refusal = text_of(delta) if kind == "response.refusal.delta" else ""
    return Chunk(
        line,
        read.text,
        refusal=refusal,
        reasoning=read.reasoning + (read_thoughts(delta) if kind in _REASONING else ""),
        model=_model(payload.get("response")),
        choice_index=0 if kind.startswith(_PREFIX) and kind not in _SIGNS_OF_LIFE else None,
        repeated=None if read.text or refusal else repeated,
        unread=read.unread + (repeated.unread if repeated else ()) + _unread_in_event(kind, payload),
        part=_place(payload) if read.text else None,
    )


def _unread_in_event(kind: str, payload: dict[str, Any]) -> tuple[UnreadPart, ...]:
    """Return the unreadable parts of an event: audio, and text in a delta of an unknown type."""
    if kind.startswith(_AUDIO) and payload.get("delta"):
        return (UnreadPart(UnreadKind.MEDIA, "audio"),)
    delta = payload.get("delta")
    is_unknown = kind.endswith(".delta") and kind != _DELTA and not re.search(_NOT_TEXT, kind)
    if is_unknown and isinstance(delta, str):
        return (UnreadPart(UnreadKind.STRAY, f"text in an event of type {one_line(kind, 60)}", len(delta)),)
    return ()


def _completed_part(kind: str, payload: dict[str, Any]) -> Repetition | None:
    """Return the content of an event about an entire part, item or call; None for any other event.

    The API sends these events after the deltas; some servers send nothing else.
    """
    item, part = place = _place(payload)
    if kind == "response.output_text.done":
        read = read_content(payload.get("text"), "the text")
        return Repetition(parts=((place, read.text),), unread=read.unread)
    if kind == "response.content_part.done":
        return read_part(payload.get("part"), item, part)
    if kind == "response.output_item.done":
        return read_item(payload.get("item"), item)
    if kind in ("response.output_item.added", "response.content_part.added"):
        is_item = kind == "response.output_item.added"
        output = read_item(payload.get("item"), item) if is_item else read_part(payload.get("part"), item, part)
        announced = tuple(where for where, text in output.parts if text)
        calls = tuple(PendingCall(_call_names(payload), is_new=True) for _ in output.calls)
        foreign_calls, unread = output.foreign_calls, output.unread
        return Repetition(announced=announced, pending_calls=calls, foreign_calls=foreign_calls, unread=unread)
    if kind == "response.refusal.done":
        return Repetition(refusal=text_of(payload.get("refusal")))
    return Repetition(pending_calls=(_pending_call(kind, payload),)) if kind in _CALL_EVENTS else None


def _pending_call(kind: str, payload: dict[str, Any]) -> PendingCall:
    """Return what an event about the arguments of a call says."""
    is_whole = kind.endswith(".done")
    given = payload.get("arguments", payload.get("input")) if is_whole else payload.get("delta")
    return PendingCall(_call_names(payload), read_arguments(given) or "", is_whole=is_whole)


def _call_names(payload: dict[str, Any]) -> tuple[int | str, ...]:
    """Return the identifiers of a call in an event."""
    item = payload.get("item")
    item = item if isinstance(item, dict) else {}
    names = (payload.get("output_index"), payload.get("item_id"), item.get("id"), item.get("call_id"))
    return tuple(name for name in names if isinstance(name, (int, str)) and name != "") or ("",)


def _end(ends: list[str], payload: dict[str, Any], line: str) -> Chunk:
    """Return the Chunk that ends an answer: of the event's type, its name and the status, the worst counts.

    `ends` are the first two; it is empty for a response in one piece. There, and in `response.done`, only the status
    can say that the answer is complete.
    """
    response = payload.get("response")
    output = response if isinstance(response, str) else None  # the text, from some gateways
    response = response if isinstance(response, dict) else payload
    words = {word.removeprefix(_PREFIX) for word in ends if word != _DONE}
    if response.get("status"):
        words.add(str(response["status"]).lower())
    output = output or response.get("output") or response.get("output_text")
    items = output if isinstance(output, list) else [] if output is None else [output]
    if _details(response, "incomplete_details").get("reason"):
        words.add("incomplete")
    api_error = error_in(response) or error_in(payload) or error_in(_details(response))
    if api_error or "failed" in words:
        return Chunk(line, api_error=api_error or api_error_of("the response failed"))
    usage, limit = response.get("usage"), response.get("max_output_tokens")
    read = read_output(items)
    return Chunk(
        line,
        finish_reason=worst(_finish_reason(word, response) for word in words) if words else None,
        usage=usage_of(usage, "input_tokens", "output_tokens") if usage else None,
        model=_model(response),
        done=True,
        choice_index=0,
        repeated=read,
        reasoning=read.reasoning if not ends else "",
        unread=read.unread,
        output_limit=limit if isinstance(limit, int) and not isinstance(limit, bool) else None,
    )


def _finish_reason(word: str, response: dict[str, Any]) -> str:
    """Return the finish_reason of the chat API for the end of a response, or for its status."""
    if word != "incomplete":
        return "stop" if word == "completed" else word
    reason = _details(response, "incomplete_details").get("reason") or _details(response).get("reason")
    return _FINISH_REASONS.get(str(reason), str(reason or word))


def _details(response: dict[str, Any], name: str = "status_details") -> dict[str, Any]:
    """Return the details of a response's status; some servers send their reason alone.

    `response.done` comes from the Realtime API, which has them in `status_details` (API reference, Realtime).
    """
    details = response.get(name)
    return details if isinstance(details, dict) else {"reason": details} if isinstance(details, str) else {}


def _place(payload: dict[str, Any]) -> Place:
    """Return the place of a part in the output, according to its event."""
    item, part = payload.get("output_index"), payload.get("content_index")
    return (item if isinstance(item, int) else None, part if isinstance(part, int) else 0)


def _model(response: Any) -> str:
    model = response.get("model") if isinstance(response, dict) else None
    return model if isinstance(model, str) else ""
