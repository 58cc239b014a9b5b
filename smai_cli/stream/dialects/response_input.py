"""Messages -> the items of the input of a request to the Responses API."""

from typing import Any

from smai_cli.prompt.request import Message
from smai_cli.stream.content import text_of


def input_items(message: Message) -> list[dict[str, Any]]:
    """Return the input items for one message: the message and its tool calls, or the output of a tool."""
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
    """Return a content part of the chat API in the form of this API."""
    if part["type"] == "text":
        return {**part, "type": text_kind}
    if part["type"] == "image_url" and isinstance(part.get("image_url"), dict):
        image = part["image_url"]
        detail = {"detail": image["detail"]} if "detail" in image else {}
        return {"type": "input_image", "image_url": image.get("url"), **detail}
    return part
