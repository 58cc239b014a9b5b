"""The /responses dialect (OpenAI API reference): a request's body, and an event's data -> Chunk.

Reasoning models are asked in it. Its events are named, and the name is repeated in `type`; exactly one of
completed, incomplete, failed and error ends the stream, and no `[DONE]` is owed.
"""

from typing import Any

from smai_cli.chunk import CallPart, Chunk, arguments_of, load_body, load_object, text_of, usage_of
from smai_cli.errors import RefusedError
from smai_cli.problem import problem_of
from smai_cli.request import Message, Request, encode
from smai_cli.sse import DONE
from smai_cli.text import one_line

PATH = "/responses"
# What the reasons of an incomplete response are called in the other dialect, and in smai's statuses.
_FINISH_REASONS = {"max_output_tokens": "length", "content_filter": "content_filter"}
_REASONING = ("response.reasoning_summary_text.delta", "response.reasoning_text.delta")
_ENDS = ("response.completed", "response.incomplete", "response.failed")


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
    return encode(body, request.extra)


def parse_event(data: str, name: str = "message") -> Chunk:
    """Return the Chunk in one event's data; `name` is the event's name, for data that does not repeat it.

    Raises BrokenError for data that is not a JSON object.
    """
    if data.strip() == DONE:
        return Chunk(done=True)
    payload, line = load_object(data, "an event")
    kind = payload.get("type") or name
    if kind in _ENDS:
        return _end(payload.get("response"), line)
    if kind == "error" or payload.get("error"):
        return Chunk(line, problem=problem_of(payload.get("error") or payload))
    delta = text_of(payload.get("delta"))
    return Chunk(
        line,
        delta if kind == "response.output_text.delta" else "",
        refusal=delta if kind == "response.refusal.delta" else "",
        reasoning=delta if kind in _REASONING else "",
        calls=_calls([payload.get("item")]) if kind == "response.output_item.done" else (),
        model=_model(payload.get("response")),
    )


def parse_body(data: str) -> Chunk:
    """Return the Chunk that a response in one piece is.

    Raises BrokenError for JSON that was cut, RefusedError for an object that is no response.
    """
    payload, line = load_body(data)
    if payload.get("error"):
        return Chunk(line, problem=problem_of(payload["error"]))
    if not isinstance(payload.get("output"), list):
        raise RefusedError(f"the server answered JSON that is no response: {one_line(line, 80)}", "check --base-url")
    return _end(payload, line)._replace(
        text=_output(payload, "text"), refusal=_output(payload, "refusal"), calls=_calls(payload["output"])
    )


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


def _kept(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {name: values[name]} if name in values else {}


def _end(response: Any, line: str) -> Chunk:
    """Return the Chunk that ends an answer; its text came in deltas."""
    if not isinstance(response, dict):
        response = {}
    if response.get("error") or response.get("status") == "failed":
        return Chunk(line, problem=problem_of(response.get("error") or "the response failed"))
    finish_reason = "stop"
    if response.get("status") == "incomplete":
        details = response.get("incomplete_details")
        reason = str(details.get("reason")) if isinstance(details, dict) else "incomplete"
        finish_reason = _FINISH_REASONS.get(reason, reason)
    usage = response.get("usage")
    return Chunk(
        line,
        finish_reason=finish_reason,
        usage=usage_of(usage, "input_tokens", "output_tokens") if usage else None,
        model=_model(response),
        done=True,
    )


def _output(response: dict[str, Any], part: str) -> str:
    """Return the text, or the refusal, of all messages in a response; a content is a string or a list of parts."""
    contents = [item.get("content") for item in response["output"] if isinstance(item, dict) and "content" in item]
    found = []
    for content in contents:
        if isinstance(content, str):
            found.append(content if part == "text" else "")
        elif isinstance(content, list):
            found += [text_of(piece.get(part)) for piece in content if isinstance(piece, dict)]
    return "".join(found)


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
