"""The /chat/completions dialect (OpenAI API reference): a request's body, and an event's data -> Chunk."""

from typing import Any

from smai_cli.errors import BrokenError, RefusedError
from smai_cli.http.api_error import MARKS, ApiError, api_error_of, error_in, unmarked_error_in
from smai_cli.prompt.request import Request, encode
from smai_cli.stream.chunk import (
    CallPart,
    Chunk,
    Other,
    Whole,
    arguments_of,
    is_unread,
    load_body,
    load_event,
    load_object,
    text_of,
    usage_in,
)
from smai_cli.stream.sse import DONE
from smai_cli.text import one_line

PATH = "/chat/completions"
# Members of a choice that a plain delta has not.
_ODD = frozenset({"error", "finishReason", "message", "usage"})
# Members of a delta that may be an answer, and that smai does not print: calls that could not be read, media.
_NO_TEXT = ("tool_calls", "audio", "images")
_REASON_LIMIT = 100
# What servers write where an answer goes on, beside null (DashScope).
_NO_REASON = ("", "null", "none")
# The words of servers for an answer that broke off: vLLM, SGLang, DeepSeek, Zhipu, Mistral, Anthropic, Gemini.
_FAILED_BEHIND = frozenset(
    {
        "abort",
        "error",
        "insufficient_system_resource",
        "malformed_function_call",
        "malformed_response",
        "missing_thought_signature",
        "model_context_window_exceeded",
        "model_length",
        "network_error",
        "pause_turn",
        "repetition",
        "too_many_tool_calls",
        "unexpected_tool_call",
    }
)
_SIGNS_OF_LIFE = ("ping", "keepalive", "heartbeat")


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
    return encode(body, request.extra_body)


def parse_event(data: str, name: str = "message") -> Chunk:
    """Return the Chunk in one event's data; `name` is the event's name, and `error` marks an error object.

    Raises BrokenError for data that is not a JSON object. Servers send chunks without choices, null contents,
    and fields unknown to us: all taken.
    """
    if not data.startswith("{") and data.strip() == DONE:
        return Chunk(done=True)
    if name != "message" and name.lower() == "error":
        return _error_event(data)
    loaded = load_event(data, name)
    if loaded is None:
        return Chunk()
    payload, line = loaded
    return _plain(payload, line) or _chunk(payload, line, "delta", is_message=name == "message")


def parse_body(data: str) -> Chunk:
    """Return the Chunk that an answer in one piece is, which is done by being whole.

    Raises BrokenError for JSON that was cut, RefusedError for an object that is no completion.
    """
    payload, line = load_body(data)
    chunk = _chunk(payload, line, "message")
    if chunk.api_error is None and not _is_of_choices(payload.get("choices")):
        raise RefusedError(f"the server answered JSON that is no completion: {one_line(line, 80)}", "check --base-url")
    return chunk._replace(done=True)


def _plain(payload: dict[str, Any], line: str) -> Chunk | None:
    """Return the view of a payload that is a delta of ASCII text and nothing else, as most are; None for another."""
    choices = payload.get("choices")
    if not (isinstance(choices, list) and len(choices) == 1 and MARKS.isdisjoint(payload) and not payload.get("usage")):
        return None
    choice = choices[0]
    if not isinstance(choice, dict) or choice.get("finish_reason") is not None or not _ODD.isdisjoint(choice):
        return None
    delta = choice.get("delta")
    if not isinstance(delta, dict) or len(delta) != 1:
        return None
    text, index, model = delta.get("content"), choice.get("index"), payload.get("model")
    if not (isinstance(text, str) and text.isascii() and isinstance(index, int) and isinstance(model, str)):
        return None
    return Chunk._make(
        (line, text, None, None, model, "", "", (), (), None, False, index, False, None, False, True, None)
    )


def _chunk(payload: dict[str, Any], line: str, part: str, *, is_message: bool = True) -> Chunk:
    """Return the view of a payload whose choices carry their text under `part`, in a `message` event or in another."""
    api_error = error_in(payload)
    model = payload.get("model")
    choices = payload.get("choices")
    if isinstance(choices, dict) and choices:  # a lone one
        choices = [choices]
    if not choices or not isinstance(choices, list):
        return _without_choice(payload, line, api_error, is_message=is_message)
    choice, others = _choices(choices)
    delta = choice.get(part)
    whole = None
    if not isinstance(delta, dict) or "message" in choice:
        delta, whole = _elsewhere(choice, delta, part)
    content, index = delta.get("content"), choice.get("index")
    if not isinstance(content, str):
        whole = Whole(is_unread=True) if is_unread(content) else whole
        content = text_of(content)
    refusal, reasoning, calls = ("", "", ()) if len(delta) == ("content" in delta) else _rest(delta)
    if whole is None and not calls and _is_unread_beside(delta):
        whole = Whole(is_unread=True)
    role = delta.get("role")
    if role == "tool" or (role and "extra_content" in delta):
        content, reasoning = _thoughts(delta, content, reasoning)
    return Chunk(
        line,
        content,
        _reason(choice) if role != "tool" else None,
        usage_in(payload),
        model if isinstance(model, str) else "",
        refusal,
        reasoning,
        calls,
        others,
        api_error or _error_of(choices, delta),
        False,
        index if isinstance(index, int) else 0,
        bool(role),
        whole,
    )


def _without_choice(payload: dict[str, Any], line: str, api_error: ApiError | None, *, is_message: bool) -> Chunk:
    """Return the view of a payload that is about no choice. What is not in a message says nothing but marked errors."""
    usage, model = usage_in(payload), payload.get("model")
    is_odd = is_message and "choices" not in payload
    return Chunk(
        line,
        usage=usage,
        model=model if isinstance(model, str) else "",
        api_error=api_error or (unmarked_error_in(payload) if is_odd else None),
        is_foreign=is_odd and not usage and payload.get("type") not in _SIGNS_OF_LIFE,
    )


def _thoughts(delta: dict[str, Any], content: str, reasoning: str) -> tuple[str, str]:
    """Return what of a content is the answer, and what are thoughts on the way to it.

    Gemini marks thoughts in `extra_content`; MiniMax sends what a search found as a delta of the role `tool`.
    """
    extra = delta.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    is_thought = isinstance(google, dict) and google.get("thought")
    return ("", content or reasoning) if is_thought else ("" if delta.get("role") == "tool" else content, reasoning)


def _elsewhere(choice: dict[str, Any], delta: Any, part: str) -> tuple[dict[str, Any], Whole | None]:
    """Return the delta, and the whole text, of a choice that has not a delta alone.

    A gateway may put the answer into `message`, beside its deltas (Perplexity) or instead of them; `text` is its place
    in the API before chat, and some servers make a string of the delta itself.
    """
    whole = None
    if part == "delta" and "message" in choice:
        message = choice["message"]
        fields = message if isinstance(message, dict) else {"content": message}
        refusal, _, calls = _rest(fields)
        is_odd = is_unread(fields.get("content")) or (not calls and _is_unread_beside(fields))
        whole = Whole(text=text_of(fields.get("content")), refusal=refusal, calls=calls, is_unread=is_odd)
    if delta is None:
        delta = choice.get("delta", choice.get("text"))
    return (delta if isinstance(delta, dict) else {"content": delta}), whole


def _is_unread_beside(delta: dict[str, Any]) -> bool:
    """Return whether there is an answer beside the content that is no text, or tool calls of an unknown form."""
    return any(delta.get(name) for name in _NO_TEXT)


def _error_of(choices: list[Any], delta: dict[str, Any]) -> ApiError | None:
    """Return the ApiError that a choice is (OpenRouter), or its delta."""
    for holder in (*choices, delta):
        error = holder.get("error") if isinstance(holder, dict) else None
        if error or error == {}:
            return api_error_of(error)
    return None


def _rest(delta: dict[str, Any]) -> tuple[str, str, tuple[CallPart, ...]]:
    """Return what few deltas have beside a content: a refusal, reasoning, parts of tool calls."""
    reasoning = delta.get("reasoning_content") or delta.get("reasoning")
    return text_of(delta.get("refusal")), text_of(reasoning), _calls(delta)


def _calls(delta: dict[str, Any]) -> tuple[CallPart, ...]:
    """Return the parts of tool calls in a delta, or of the one function call of the API before tools."""
    calls = delta.get("tool_calls")
    if not isinstance(calls, list):
        # Some servers put an empty one into every delta.
        function = delta.get("function_call")
        calls = [{"function": function}] if isinstance(function, dict) and any(function.values()) else []
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
        return Chunk(api_error=ApiError(data))
    return Chunk(line, api_error=error_in(payload) or api_error_of(payload))


def _is_of_choices(choices: Any) -> bool:
    return isinstance(choices, list) or (isinstance(choices, dict) and bool(choices))


def _choices(choices: list[Any]) -> tuple[dict[str, Any], tuple[Other, ...]]:
    """Return the first choice by its index, and of the others what is said. A lone one may have none."""
    if len(choices) == 1 and isinstance(choices[0], dict):  # nearly all there are
        return choices[0], ()
    known = [choice if isinstance(choice, dict) else {"delta": choice} for choice in choices if choice is not None]
    first = min(known, key=_index, default={})
    return first, tuple(_other(choice) for choice in known if choice is not first)


def _index(choice: dict[str, Any]) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else 0


def _other(choice: dict[str, Any]) -> Other:
    delta = choice.get("delta") or choice.get("message") or {"content": choice.get("text")}
    fields = delta if isinstance(delta, dict) else {"content": delta}
    refusal, reasoning, calls = _rest(fields)
    brings_text = bool(text_of(fields.get("content")) or refusal or calls)
    brings = brings_text or bool(reasoning)
    return Other(
        choice_index=_index(choice),
        finish_reason=_reason(choice),
        brings=brings,
        brings_text=brings_text,
        opens=bool(fields.get("role")),
    )


def _reason(choice: dict[str, Any]) -> str | None:
    """Return the finish_reason of a choice; None for what stands in its place where there is none."""
    reason = choice.get("finish_reason")
    if reason is None and "finishReason" in choice:  # Google's compatible API, for a while
        reason = choice["finishReason"]
    if not isinstance(reason, str):
        return None
    if reason == "stop" and choice.get("provider_specific_fields"):
        reason = _word_behind(choice["provider_specific_fields"]) or reason
    return None if reason.strip().lower() in _NO_REASON else one_line(reason, _REASON_LIMIT)


def _word_behind(fields: Any) -> str | None:
    """Return the finish_reason that LiteLLM had from the server behind it, where that means a failure.

    LiteLLM makes stop of those words, and of all that it does not know (litellm_core_utils/core_helpers.py,
    map_finish_reason); in an answer in one piece it keeps them (types/utils.py, Choices). Others are not looked at:
    OpenRouter's words of its providers come in the same place, such as completed.
    """
    word = fields.get("native_finish_reason") if isinstance(fields, dict) else None
    return word if isinstance(word, str) and word.lower() in _FAILED_BEHIND else None
