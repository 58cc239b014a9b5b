"""The /chat/completions dialect (OpenAI API reference): a request's body, and an event's data -> Chunk."""

import json
from typing import Any

from smai_cli.chunk import Chunk, load_body, load_object, text_of, usage_of
from smai_cli.errors import BrokenError, RefusedError
from smai_cli.problem import Problem, problem_of
from smai_cli.request import Request
from smai_cli.sse import DONE
from smai_cli.text import one_line

PATH = "/chat/completions"
_FIRST = (None, 0, "0")


def encode_request(request: Request) -> bytes:
    """Return the request as the JSON body of a POST to PATH, in UTF-8."""
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
        **request.options,
        "stream": request.stream,
    }
    if request.stream and request.include_usage:
        body["stream_options"] = {"include_usage": True}
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def parse_event(data: str, name: str = "message") -> Chunk:
    """Return the Chunk in one event's data; `name` is the event's name, and `error` marks an error object.

    Raises BrokenError for data that is not a JSON object. Servers send chunks without choices, null contents,
    and fields unknown to us: all taken.
    """
    if data.strip() == DONE:
        return Chunk(done=True)
    if name == "error":
        return _error_event(data)
    payload, line = load_object(data, "an event")
    return _chunk(payload, line, "delta")


def parse_body(data: str) -> Chunk:
    """Return the Chunk that an answer in one piece is, which is done by being whole.

    Raises BrokenError for JSON that was cut, RefusedError for an object that is no completion.
    """
    payload, line = load_body(data)
    if not payload.get("error") and not isinstance(payload.get("choices"), list):
        raise RefusedError(f"the server answered JSON that is no completion: {one_line(line, 80)}", "check --base-url")
    return _chunk(payload, line, "message")._replace(done=True)


def _chunk(payload: dict[str, Any], line: str, part: str) -> Chunk:
    """Return the view of a payload whose choices carry their text under `part`."""
    if error := payload.get("error"):
        return Chunk(line, problem=problem_of(error))
    choice = _first_choice(payload.get("choices"))
    delta = choice.get(part)
    if not isinstance(delta, dict):
        delta = {"content": choice.get("text")}  # as in the API before chat
    content, refusal = delta.get("content"), delta.get("refusal")
    reasoning = delta.get("reasoning_content") or delta.get("reasoning")
    finish_reason, usage, model = choice.get("finish_reason"), payload.get("usage"), payload.get("model")
    return Chunk(
        line,
        content if isinstance(content, str) else text_of(content),
        finish_reason if finish_reason and isinstance(finish_reason, str) else None,
        usage_of(usage, "prompt_tokens", "completion_tokens") if usage else None,
        model if isinstance(model, str) else "",
        text_of(refusal) if refusal else "",
        text_of(reasoning) if reasoning else "",
    )


def _error_event(data: str) -> Chunk:
    try:
        payload, line = load_object(data, "an event")
    except BrokenError:  # whatever an error event holds, it is an error
        return Chunk(problem=Problem(data))
    return Chunk(line, problem=problem_of(payload.get("error") or payload))


def _first_choice(choices: Any) -> dict[str, Any]:
    """Return choice 0; several choices come interleaved, and a server with one may leave its index out."""
    if isinstance(choices, list):
        for choice in choices:
            if isinstance(choice, dict) and choice.get("index") in _FIRST:
                return choice
    return {}
