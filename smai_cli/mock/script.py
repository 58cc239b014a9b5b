"""Make the answers of the mock, as events or in one piece, from a request and a script. Pure functions.

They have the form of the real service (API reference), so that other clients can use the mock too.
"""

import json
import re
import time
from collections.abc import Iterator
from typing import Any

from smai_cli.common.frozen import Frozen

POEM = """Spring comes in by the kitchen door,
mud on its boots, and light on the floor.
It asks for nothing, it stays for tea,
and hangs a green coat on the apple tree.
"""
# How real servers and gateways misreport an answer, see smai-servers(7).
LIES = {
    "buffer": "all events of a stream are sent at its end",
    "choices": "only the first of several answers has a finish_reason",
    "close": "the end of a streamed body is marked only by closing the connection",
    "errors": "an unknown model is an error with HTTP status 200",
    "limit": "an answer that the token limit truncated has the finish_reason stop",
    "numbers": "pieces of text that look like numbers are JSON numbers",
    "responses": "a response that the token limit truncated has the status completed",
    "tools": "the finish_reason is tool_calls, and the call is missing",
    "usage": "no token counts are sent",
}
MODELS = ("gpt-4.1", "gpt-4.1-mini", "gpt-4o", "gpt-4o-mini", "o3-mini", "o3-pro")
DELAY_S = 0.015
# Made once: json.dumps with arguments makes an encoder for each call.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_ERROR_CODES = {
    400: ("invalid_request_error", "invalid_request", "smai mock was set to refuse"),
    401: ("authentication_error", "invalid_api_key", "Incorrect API key provided"),
    403: ("permission_error", "permission_denied", "the key may not do this"),
    404: ("invalid_request_error", "model_not_found", "The model does not exist"),
    429: ("rate_limit_error", "rate_limit_exceeded", "Rate limit reached"),
    500: ("server_error", "server_error", "The server had an error"),
    503: ("server_error", "model_overloaded", "The model is overloaded"),
}


class Script(Frozen):
    """The settings of the mock. Counts of deltas are counts of `delta.content`; None: no such fault.

    `tape` replaces the scripted events by recorded bytes. `status` answers the first `fail_first` requests
    (None: all) with that HTTP status. `finish_reason` "none" sends null. The mock closes after `max_requests`.
    With `echo` the reply is the prompt. `flaky` has kinds of failures and the share of requests that each befalls,
    `seed` says which. `limit_per_s` is a rate limit. Bodies are written in pieces of `split_bytes`. Pages of
    `allow_origins` may read the answers. `lies` are words of LIES: how the mock misreports an answer. `choices` is the
    number of answers, and `tool` the function to call instead of an answer (empty: none); a request asks for them.
    """

    reply: str = POEM
    echo: bool = False
    tape: bytes | None = None
    delay_s: float = DELAY_S
    require_key: str | None = None
    max_requests: int | None = None
    status: int | None = None
    retry_after: str | None = None
    fail_first: int | None = None
    cut_after: int | None = None
    stall_after: int | None = None
    error_after: int | None = None
    done: bool = True
    finish_reason: str = "stop"
    flaky: tuple[tuple[str, float], ...] = ()
    seed: int = 0
    limit_per_s: float | None = None
    split_bytes: int | None = None
    allow_origins: tuple[str, ...] = ()
    lies: frozenset[str] = frozenset()
    choices: int = 1
    tool: str = ""


def prompt_of(request: dict[str, Any]) -> str:
    """Return the text of the last user message of a request to either API; text parts are joined."""
    asked = request.get("messages", request.get("input"))
    if isinstance(asked, str):
        return asked
    contents = [message.get("content") for message in asked or () if message.get("role") == "user"]
    return _text(contents[-1]) if contents else ""


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return "".join(text for text in texts if isinstance(text, str))


def reply_deltas(reply: str) -> list[str]:
    """Return `reply` in pieces like those of a model: each at most a short word."""
    return re.findall(r"\s?\w{1,8}|\W", reply)


def chat_events(script: Script, request: dict[str, Any]) -> Iterator[bytes]:
    """Yield the events of a streamed answer to `request` (its JSON body): one event, then the deltas, then the end."""
    base = _base(request, "chat.completion.chunk")
    usage = bool((request.get("stream_options") or {}).get("include_usage")) and "usage" not in script.lies
    if usage:
        base["usage"] = None
    indexes = range(script.choices)
    for index in indexes:
        yield event({**base, "choices": [_choice({"role": "assistant", "content": ""}, None, index)]})
    for delta in _chat_deltas(script):
        for index in indexes:
            yield event({**base, "choices": [_choice(delta, None, index)]})
    for index in indexes if "choices" not in script.lies else (0,):
        yield event({**base, "choices": [_choice({}, _finish_reason(script), index)]})
    if usage:
        yield event({**base, "choices": [], "usage": count_usage(script, request)})
    if script.done:
        yield b"data: [DONE]\n\n"


def chat_lead(script: Script) -> int:
    """Return how many events come before the first delta: the role of each choice."""
    return script.choices


def count_deltas(script: Script) -> int:
    """Return how many deltas an answer has."""
    return script.choices * len(_chat_deltas(script))


def chat_whole(script: Script, request: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to `request` in one piece."""
    message: dict[str, Any] = {"role": "assistant", "content": None if script.tool else script.reply}
    if script.tool and "tools" not in script.lies:
        message["tool_calls"] = [_chat_call(script.tool)]
    choices = [
        {"index": index, "message": message, "finish_reason": _finish_reason(script)} for index in range(script.choices)
    ]
    usage = {} if "usage" in script.lies else {"usage": count_usage(script, request)}
    return {**_base(request, "chat.completion"), "choices": choices, **usage}


def _chat_deltas(script: Script) -> list[dict[str, Any]]:
    """Return the deltas of an answer of the chat API: its text, or a call in two parts."""
    if not script.tool:
        return [{"content": _content(script, delta)} for delta in reply_deltas(script.reply)]
    if "tools" in script.lies:
        return []
    call = _chat_call(script.tool)
    begun = {**call, "index": 0, "function": {**call["function"], "arguments": ""}}
    return [{"tool_calls": [part]} for part in (begun, {"index": 0, "function": {"arguments": "{}"}})]


def _chat_call(tool: str) -> dict[str, Any]:
    return {"id": "call-mock", "type": "function", "function": {"name": tool, "arguments": "{}"}}


def _content(script: Script, delta: str) -> str | int:
    is_number = re.fullmatch(r"0|[1-9]\d*", delta, re.ASCII)
    return int(delta) if is_number and "numbers" in script.lies else delta


def _finish_reason(script: Script) -> str | None:
    if script.tool and script.finish_reason == "stop":
        return "tool_calls"
    return None if script.finish_reason == "none" else script.finish_reason


def _base(request: dict[str, Any], kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-mock", "object": kind, "created": int(time.time()), "model": request.get("model")}


def _choice(delta: dict[str, Any], finish_reason: str | None, index: int) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": finish_reason}


def event(payload: dict[str, Any]) -> bytes:
    """Return an event; in the Responses API, it starts with its name."""
    name = f"event: {payload['type']}\n" if "type" in payload else ""
    # A request may contain half a surrogate pair, which UTF-8 cannot hold.
    return f"{name}data: {_ENCODER.encode(payload)}\n\n".encode(errors="replace")


def count_usage(script: Script, request: dict[str, Any]) -> dict[str, int]:
    """Return token counts by the mock's own rule: a delta is a token."""
    messages = request.get("messages") or request.get("input") or []
    texts = [messages] if isinstance(messages, str) else [_text(message.get("content")) for message in messages]
    asked = sum(len(reply_deltas(text)) for text in [*texts, request.get("instructions") or ""])
    answered = count_deltas(script)
    return {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}


def invalid_url(method: str, path: str) -> dict[str, Any]:
    """Return the error object of OpenAI's API for an unknown path."""
    message = f"Invalid URL ({method} {path.partition('?')[0]})"
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


def error_object(code: int) -> dict[str, Any]:
    """Return the body of an HTTP error."""
    kind, name, message = _ERROR_CODES.get(code, ("server_error", "mock_error", "smai mock was set to fail"))
    return {"error": {"message": message, "type": kind, "param": None, "code": name}}


def limit_object(per_s: float, wait_ms: int) -> dict[str, Any]:
    """Return the error object of OpenAI's API for a request beyond the rate limit."""
    message = f"Rate limit reached on requests per second: Limit {per_s:g}. Please try again in {wait_ms}ms."
    return {"error": {"message": message, "type": "requests", "param": None, "code": "rate_limit_exceeded"}}
