"""What the mock says in the Responses API: a request and a script -> the events of a response, or all of it. Pure."""

import time
from collections.abc import Iterator
from typing import Any

from smai_cli.mock.script import Script, count_usage, event, reply_deltas


def responses_events(script: Script, request: dict[str, Any]) -> Iterator[bytes]:
    """Yield the events of a streamed response to `request`: four, then the deltas, then the end.

    The finish reason "none" leaves out the last event, by which the API ends an answer.
    """
    whole = responses_whole(script, request)
    begun = {**whole, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    items = _call_payloads(whole) if script.tool else _text_payloads(script, whole)
    payloads: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        *items,
    ]
    if script.finish_reason != "none":
        payloads.append({"type": f"response.{whole['status']}", "response": whole})
    for number, payload in enumerate(payloads):
        yield event({**payload, "sequence_number": number})


def responses_lead(script: Script) -> int:
    """Return how many events come before the first delta."""
    if not script.tool:
        return 4
    return 3 if "tools" not in script.lies else 2


def _text_payloads(script: Script, response: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the events of a message, from its announcement to its end."""
    item = {"id": "msg-mock", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    part = {"type": "output_text", "text": "", "annotations": []}
    place = {"item_id": "msg-mock", "output_index": 0, "content_index": 0}
    done = {**part, "text": script.reply}
    return [
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.content_part.added", **place, "part": part},
        *(
            {"type": "response.output_text.delta", **place, "delta": delta, "logprobs": []}
            for delta in reply_deltas(script.reply)
        ),
        {"type": "response.output_text.done", **place, "text": script.reply, "logprobs": []},
        {"type": "response.content_part.done", **place, "part": done},
        {"type": "response.output_item.done", "output_index": 0, "item": response["output"][0]},
    ]


def _call_payloads(response: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the events of the tool calls in a response."""
    payloads: list[dict[str, Any]] = []
    for item in response["output"]:
        place = {"item_id": item["id"], "output_index": 0}
        arguments = item["arguments"]
        payloads += [
            {"type": "response.output_item.added", "output_index": 0, "item": {**item, "arguments": ""}},
            {"type": "response.function_call_arguments.delta", **place, "delta": arguments},
            {"type": "response.function_call_arguments.done", **place, "arguments": arguments},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
        ]
    return payloads


def _output(script: Script, status: str) -> list[dict[str, Any]]:
    if script.tool:
        call = {"id": "fc-mock", "type": "function_call", "call_id": "call-mock", "name": script.tool}
        return [] if "tools" in script.lies else [{**call, "arguments": "{}", "status": status}]
    part = {"type": "output_text", "text": script.reply, "annotations": []}
    return [{"id": "msg-mock", "type": "message", "role": "assistant", "status": status, "content": [part]}]


def responses_whole(script: Script, request: dict[str, Any]) -> dict[str, Any]:
    """Return the response to `request` in one piece."""
    reasons = {"length": "max_output_tokens", "content_filter": "content_filter"}
    reason = reasons.get(script.finish_reason)
    status = "incomplete" if reason else "completed"
    usage = count_usage(script, request)
    return {
        "id": "resp-mock",
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "error": None,
        "incomplete_details": {"reason": reason} if reason else None,
        "instructions": request.get("instructions"),
        "model": request.get("model"),
        "output": _output(script, status),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": None
        if "usage" in script.lies
        else {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        },
    }
