"""The /responses dialect (OpenAI API reference): a request's body, and an event's data -> Chunk.

Reasoning models are asked in it. Its events are named, and the name is repeated in `type`; exactly one of
completed, incomplete, failed and error ends the stream, and no `[DONE]` is owed.
"""

from typing import Any

from smai_cli.errors import RefusedError
from smai_cli.http.api_error import MARKS, api_error_of, error_in
from smai_cli.prompt.request import Message, Request, encode
from smai_cli.stream.chunk import (
    CallPart,
    Chunk,
    Part,
    Whole,
    arguments_of,
    is_unread,
    load_body,
    load_event,
    text_of,
    usage_of,
)
from smai_cli.stream.completeness import worst
from smai_cli.stream.sse import DONE
from smai_cli.text import one_line

PATH = "/responses"
# What the reasons of an incomplete response are called in the other dialect, and in smai's statuses.
_FINISH_REASONS = {"max_output_tokens": "length", "content_filter": "content_filter"}
_REASONING = ("response.reasoning_summary_text.delta", "response.reasoning_text.delta")
_PREFIX = "response."
_ENDS = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")
_ERRORS = ("error", "response.error")
_DELTA = "response.output_text.delta"
_PLAIN_NAMES = (_DELTA, "message")
# Items of an output, beside messages, that are no answer; what of another kind is in one, smai cannot read.
_BESIDE_ANSWER = (
    "reasoning",
    "function_call",
    "function_call_output",
    "web_search_call",
    "file_search_call",
    "code_interpreter_call",
    "mcp_call",
    "mcp_list_tools",
    "compaction",
)
# Parts of a content that are thoughts.
_THOUGHTS = ("reasoning", "reasoning_text", "summary_text", "thinking")
# What the API sends while nothing happens.
_SIGNS_OF_LIFE = ("response.queued", "response.in_progress")


def encode_request(request: Request) -> bytes:
    """Return the request as the JSON body of a POST to PATH, in UTF-8. The server counts tokens unasked."""
    options = dict(request.options)
    body: dict[str, Any] = {"model": request.model}
    system = [text_of(message.content) for message in request.messages if message.role == "system"]
    if system:
        body["instructions"] = "\n\n".join(system)
    body["input"] = [item for message in request.messages if message.role != "system" for item in _items(message)]
    if "max_tokens" in options:
        body["max_output_tokens"] = options.pop("max_tokens")
    if "reasoning_effort" in options:
        body["reasoning"] = {"effort": options.pop("reasoning_effort"), "summary": "auto"}
    if "response_format" in options:
        form = dict(options.pop("response_format"))
        schema = form.pop("json_schema", {})
        body["text"] = {"format": {**form, **schema}}
    body |= {**options, "stream": request.stream}
    return encode(body, request.extra_body)


def parse_event(data: str, name: str = "message") -> Chunk:
    """Return the Chunk in one event's data; `name` is the event's name, for data that does not repeat it.

    Raises BrokenError for data that is not a JSON object. `[DONE]`, which some gateways send, means nothing here.
    """
    if data.strip() == DONE:
        return Chunk()
    loaded = load_event(data, name if name in ("message", "error") or not name.startswith(_PREFIX) else "message")
    return Chunk() if loaded is None else _view(*loaded, name)


def _view(payload: dict[str, Any], line: str, name: str) -> Chunk:
    """Return the view of an event's payload."""
    kind = payload.get("type")
    if kind == _DELTA and name in _PLAIN_NAMES and (plain := _plain(payload, line)):
        return plain
    if name.lower() in _ERRORS or kind in _ERRORS:
        return Chunk(line, api_error=error_in(payload) or api_error_of(payload))
    ends = [word for word in (kind, name) if word in _ENDS]
    if ends:
        return _end(ends, payload, line)
    kind = kind if isinstance(kind, str) and kind.startswith(_PREFIX) else name if name.startswith(_PREFIX) else kind
    if api_error := error_in(payload):
        return Chunk(line, api_error=api_error)
    delta = text_of(payload.get("delta"))
    is_text = bool(delta) and kind == _DELTA
    return Chunk(
        line,
        delta if is_text else "",
        refusal=delta if kind == "response.refusal.delta" else "",
        reasoning=delta if kind in _REASONING else "",
        calls=_calls([payload.get("item")]) if kind == "response.output_item.done" else (),
        model=_model(payload.get("response")),
        choice_index=0 if isinstance(kind, str) and kind.startswith(_PREFIX) and kind not in _SIGNS_OF_LIFE else None,
        whole=None if delta else _part_done(kind, payload),
        part=_place(payload) if is_text else None,
    )


def _plain(payload: dict[str, Any], line: str) -> Chunk | None:
    """Return the view of a payload that is a delta of ASCII text and nothing else, as most are; None for another."""
    text = payload.get("delta")
    if not isinstance(text, str) or not text or not text.isascii() or not MARKS.isdisjoint(payload):
        return None
    place = _place(payload)
    return Chunk._make((line, text, None, None, "", "", "", (), (), None, False, 0, False, None, False, True, place))


def parse_body(data: str) -> Chunk:
    """Return the Chunk that a response in one piece is; one that is queued or in progress is no answer.

    Raises BrokenError for JSON that was cut, RefusedError for an object that is no response.
    """
    payload, line = load_body(data)
    if payload.get("object") != "response" and (api_error := error_in(payload)):
        return Chunk(line, api_error=api_error)
    if not isinstance(payload.get("output"), list) and payload.get("object") != "response":
        raise RefusedError(f"the server answered JSON that is no response: {one_line(line, 80)}", "check --base-url")
    return _end([], {"response": payload}, line)


def _end(ends: list[str], payload: dict[str, Any], line: str) -> Chunk:
    """Return the Chunk that ends an answer: of the event's type, its name and the status, the worst counts.

    `ends` has the first two, and nothing where the response came in one piece: its status alone can complete it.
    """
    response = payload.get("response")
    output = response if isinstance(response, str) else None  # some gateway's text
    response = response if isinstance(response, dict) else payload
    words = {word.removeprefix(_PREFIX) for word in ends}
    if response.get("status"):
        words.add(str(response["status"]))
    output = output or response.get("output") or response.get("output_text")
    if _is_incomplete(response, output):
        words.add("incomplete")
    api_error = error_in(response) or error_in(payload)
    if api_error or "failed" in words:
        return Chunk(line, api_error=api_error or api_error_of("the response failed"))
    usage = response.get("usage")
    return Chunk(
        line,
        finish_reason=worst(_finish_reason(word, response) for word in words) if words else None,
        usage=usage_of(usage, "input_tokens", "output_tokens") if usage else None,
        model=_model(response),
        done=True,
        choice_index=0,
        whole=_whole(_listed(output), is_all=True),
    )


def _is_incomplete(response: dict[str, Any], output: Any) -> bool:
    """Return whether a response says, beside its status, that something is missing in it."""
    details = response.get("incomplete_details")
    items = (item for item in _listed(output) if isinstance(item, dict))
    return bool(isinstance(details, dict) and details.get("reason")) or any(
        item.get("status") == "incomplete" for item in items
    )


def _finish_reason(word: str, response: dict[str, Any]) -> str:
    """Return what the end of a response, or its status, is called in the other dialect, and in smai's statuses."""
    if word != "incomplete":
        return "stop" if word == "completed" else word
    details = response.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    return _FINISH_REASONS.get(str(reason), str(reason or word))


def _part_done(kind: Any, payload: dict[str, Any]) -> Whole | None:
    """Return the whole text of a part, or of an item, with which the API ends its deltas, and some servers begin."""
    place = _place(payload)
    if kind == "response.output_text.done":
        text = payload.get("text")
        return Whole(parts=((place, text_of(text)),), is_unread=is_unread(text))
    if kind == "response.content_part.done":
        return _whole([{"content": [payload.get("part")]}], place)
    if kind == "response.output_item.done":
        return _whole([payload.get("item")], place)
    if kind == "response.refusal.done":
        return Whole(refusal=text_of(payload.get("refusal")))
    # What follows is read where it is done, as a rule; until then it is something that there is.
    if kind == "response.output_item.added":
        item = _whole([payload.get("item")])
        return Whole(is_unread=item.is_unread or any(text for _, text in item.parts))
    return Whole(is_unread=True) if kind == "response.function_call_arguments.done" else None


def _items(message: Message) -> list[dict[str, Any]]:
    """Return the items of the input that stand for one message: itself, and its tool calls or a tool's answer."""
    if message.role == "tool":
        return [
            {
                "type": "function_call_output",
                "call_id": message.fields.get("tool_call_id"),
                "output": text_of(message.content),
            }
        ]
    items: list[dict[str, Any]] = []
    if message.content is not None:
        kind = "output_text" if message.role == "assistant" else "input_text"
        content = message.content
        items.append(
            {
                "role": message.role,
                "content": content if isinstance(content, str) else [_part(part, kind) for part in content],
            }
        )
    calls = message.fields.get("tool_calls")
    items += [
        {"type": "function_call", "call_id": call.get("id"), **call["function"]}
        for call in (calls if isinstance(calls, list) else ())
        if isinstance(call, dict) and isinstance(call.get("function"), dict)
    ]
    return items


def _part(part: dict[str, Any], text_kind: str) -> dict[str, Any]:
    """Return what this API calls a part of a content of the chat API."""
    if part["type"] == "text":
        return {**part, "type": text_kind}
    if part["type"] == "image_url" and isinstance(part.get("image_url"), dict):
        image = part["image_url"]
        return {"type": "input_image", "image_url": image.get("url"), **_kept(image, "detail")}
    return part


def _kept(part: dict[str, Any], name: str) -> dict[str, Any]:
    return {name: part[name]} if name in part else {}


def _whole(items: list[Any], start: Part = (0, 0), *, is_all: bool = False) -> Whole:
    """Return what the items of an output say, the first of them being at `start`."""
    parts = []
    refusal = ""
    found_unread = False
    for at, item in enumerate(items):
        content = _content(item)
        for number, part in enumerate(_listed(content)):
            if isinstance(part, dict) and part.get("type") in _THOUGHTS:
                continue
            first, first_number = start
            parts.append(((None if first is None else first + at, first_number + number), text_of(part)))
            refusal += text_of(part.get("refusal")) if isinstance(part, dict) else ""
            found_unread = found_unread or is_unread(part)
    return Whole(
        refusal=refusal,
        calls=_calls(items) if is_all else (),
        is_unread=found_unread,
        parts=tuple(parts),
        is_all=is_all,
    )


def _content(item: Any) -> Any:
    """Return what is the answer in an item of an output: in a message its content, a string or a list of parts."""
    if not isinstance(item, dict):
        return item
    kind = item.get("type", "message")
    if kind == "message":
        return item.get("content", item.get("text"))
    return None if kind in _BESIDE_ANSWER else item


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _place(payload: dict[str, Any]) -> Part:
    """Return the place of a part in the output, as its event says it."""
    item, part = payload.get("output_index"), payload.get("content_index")
    return (item if isinstance(item, int) else None, part if isinstance(part, int) else 0)


def _calls(items: list[Any]) -> tuple[CallPart, ...]:
    """Return the tool calls among the items of an output, each in one piece."""
    calls = (item for item in items if isinstance(item, dict) and item.get("type") == "function_call")
    return tuple(
        CallPart(None, text_of(call.get("call_id")), text_of(call.get("name")), arguments_of(call.get("arguments")))
        for call in calls
    )


def _model(response: Any) -> str:
    model = response.get("model") if isinstance(response, dict) else None
    return model if isinstance(model, str) else ""
