"""Make the body of a chat completion that the openai package accepts, whatever the server sent.

The form is that of OpenAI's API reference, "The chat completion object". A member with another form is kept under its
name with the prefix server_.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

_REASONS = ("stop", "length", "tool_calls", "content_filter", "function_call")
_TIERS = ("auto", "default", "flex", "scale", "priority")
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
_PREFIX = "server_"
# Returns whether a value has the form of the API.
_Check = Callable[[Any], bool]


def completion_body(  # noqa: PLR0913  # the parts of a completion, by name
    *,
    number: int,
    model: str,
    completion: dict[str, Any],
    choice: dict[str, Any],
    message: dict[str, Any],
    logprobs: dict[str, Any] | None,
    usage: dict[str, Any] | None,
    finish_reason: str | None,
    is_withheld: bool,
) -> dict[str, Any]:
    """Return the body. `number` is the number of the line; the other names are those of the API."""
    choice = dict(choice)
    reason = finish_reason
    if reason not in _REASONS:
        if reason:
            choice.setdefault("native_finish_reason", reason)
        reason = _reason_like(reason, message, is_withheld=is_withheld)
    choice |= {
        "index": 0,
        "message": {"role": "assistant", **_check_members(message, _OF_MESSAGE)},
        "finish_reason": reason,
        **_check_members({"logprobs": logprobs} if logprobs else {}, _OF_CHOICE),
    }
    made = {"id": f"smai-{number}", "created": int(time.time())}
    body = {**made, **_check_members(completion, _OF_COMPLETION), "object": "chat.completion", "model": model}
    body["choices"] = [choice]
    return body | _check_members({"usage": usage} if usage else {}, _OF_COMPLETION)


def _reason_like(reason: str | None, message: dict[str, Any], *, is_withheld: bool) -> str:
    """Return the closest finish_reason that the API has. A broken answer has no reason."""
    if is_withheld:
        return "content_filter"
    if not reason:
        return "length"
    return "tool_calls" if message.get("tool_calls") else "stop"


def _check_members(members: dict[str, Any], forms: Mapping[str, _Check]) -> dict[str, Any]:
    """Return members; those without the form of the API get the prefix."""
    return {
        name if name not in forms or forms[name](value) else f"{_PREFIX}{name}": value
        for name, value in members.items()
    }


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return type(value) is int


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_optional_count(value: Any) -> bool:
    return value is None or _is_count(value)


def _is_usage(value: Any) -> bool:
    details = (value.get("prompt_tokens_details"), value.get("completion_tokens_details"))
    return all(_is_count(value.get(name)) for name in _COUNTS) and all(
        one is None or (isinstance(one, dict) and all(map(_is_optional_count, one.values()))) for one in details
    )


def _is_token(value: Any) -> bool:
    if not isinstance(value, dict) or not _is_text(value.get("token")) or not _is_number(value.get("logprob")):
        return False
    data = value.get("bytes")
    return data is None or (isinstance(data, list) and all(map(_is_count, data)))


def _is_token_with_others(value: Any) -> bool:
    others = value.get("top_logprobs") if _is_token(value) else None
    return isinstance(others, list) and all(map(_is_token, others))


def _is_logprobs(value: Any) -> bool:
    lists = (value.get("content"), value.get("refusal"))
    return all(one is None or (isinstance(one, list) and all(map(_is_token_with_others, one))) for one in lists)


def _is_citation(value: Any) -> bool:
    cited = value.get("url_citation") if isinstance(value, dict) and value.get("type") == "url_citation" else None
    return isinstance(cited, dict) and all(
        isinstance(cited.get(name), kind)
        for name, kind in (("start_index", int), ("end_index", int), ("title", str), ("url", str))
    )


def _is_annotations(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_citation, value))


def _is_audio(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and all(_is_text(value.get(name)) for name in ("id", "data", "transcript"))
        and _is_count(value.get("expires_at"))
    )


def _is_metadata(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


_OF_MESSAGE = {"annotations": _is_annotations, "audio": _is_audio}
_OF_CHOICE = {"logprobs": _is_logprobs}
_OF_COMPLETION = {
    "id": _is_text,
    "created": _is_count,
    "metadata": _is_metadata,
    "moderation": lambda _: False,
    "service_tier": lambda value: value in _TIERS,
    "system_fingerprint": _is_text,
    "usage": _is_usage,
}
