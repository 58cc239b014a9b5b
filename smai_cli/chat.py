"""The /chat/completions dialect (OpenAI API reference): a request's body, and an event's data -> Chunk."""

from typing import Any

from smai_cli.chunk import CallPart, Chunk, arguments_of, load_body, load_object, text_of, usage_of
from smai_cli.errors import BrokenError, RefusedError
from smai_cli.problem import Problem, problem_of
from smai_cli.request import Request, encode
from smai_cli.sse import DONE
from smai_cli.text import one_line

PATH = "/chat/completions"
_FIRST = (None, 0, "0")


def encode_request(request: Request) -> bytes:
    """Return the request as the JSON body of a POST to PATH, in UTF-8."""
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [message.as_json() for message in request.messages],
        **request.options,
        "stream": request.stream,
    }
    if request.stream and request.include_usage:
        body["stream_options"] = {"include_usage": True}
    return encode(body, request.extra)


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
    choice, others = _choices(payload.get("choices"))
    delta = choice.get(part)
    if not isinstance(delta, dict):
        delta = {"content": choice.get("text")}  # as in the API before chat
    content, usage, model = delta.get("content"), payload.get("usage"), payload.get("model")
    refusal, reasoning, calls = ("", "", ()) if len(delta) == ("content" in delta) else _rest(delta)
    return Chunk(
        line,
        content if isinstance(content, str) else text_of(content),
        _finish_reason(choice),
        usage_of(usage, "prompt_tokens", "completion_tokens") if usage else None,
        model if isinstance(model, str) else "",
        refusal,
        reasoning,
        calls,
        others,
    )


def _rest(delta: dict[str, Any]) -> tuple[str, str, tuple[CallPart, ...]]:
    """Return what few deltas have beside a content: a refusal, reasoning, parts of tool calls."""
    reasoning = delta.get("reasoning_content") or delta.get("reasoning")
    return text_of(delta.get("refusal")), text_of(reasoning), _calls(delta)


def _calls(delta: dict[str, Any]) -> tuple[CallPart, ...]:
    """Return the parts of tool calls in a delta, or of the one function call of the API before tools."""
    calls = delta.get("tool_calls")
    if not isinstance(calls, list):
        calls = [{"function": delta.get("function_call")}]
    parts = []
    for place, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            index = call.get("index")
            number = index if isinstance(index, int) else place
            arguments = arguments_of(function.get("arguments"))
            parts.append(CallPart(number, text_of(call.get("id")), text_of(function.get("name")), arguments))
    return tuple(parts)


def _error_event(data: str) -> Chunk:
    try:
        payload, line = load_object(data, "an event")
    except BrokenError:  # whatever an error event holds, it is an error
        return Chunk(problem=Problem(data))
    return Chunk(line, problem=problem_of(payload.get("error") or payload))


def _choices(choices: Any) -> tuple[dict[str, Any], tuple[tuple[int, str | None], ...]]:
    """Return choice 0, and index and finish_reason of the others; a server with one may leave its index out."""
    if isinstance(choices, list) and len(choices) == 1 and isinstance(choices[0], dict):  # nearly all there are
        choice = choices[0]
        if choice.get("index") in _FIRST:
            return choice, ()
    first: dict[str, Any] = {}
    others = []
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            index = choice.get("index")
            if index in _FIRST:
                first = first or choice
            elif isinstance(index, int):
                others.append((index, _finish_reason(choice)))
    return first, tuple(others)


def _finish_reason(choice: dict[str, Any]) -> str | None:
    reason = choice.get("finish_reason")
    return reason if reason and isinstance(reason, str) else None
