"""Make the body of a chat completion that the openai package accepts, whatever the server sent.

The form is that of OpenAI's API reference, "The chat completion object". A member with another form is kept under its
name with the prefix server_.
"""

import time
from typing import Any

_REASONS = ("stop", "length", "tool_calls", "content_filter", "function_call")
_PREFIX = "server_"

# The forms of values, as `_fits` takes them: a type; the value itself; a tuple of alternatives; a list with the form of
# each item; an object with the form of each member, or under `...` that of all members.
_Forms = dict[str, object]
_DETAILS = ({...: (int, None)}, None)
_TOKEN = {"token": str, "logprob": (int, float), "bytes": ([int], None)}
_TOKENS = ([_TOKEN | {"top_logprobs": [_TOKEN]}], None)
_LINK = {"start_index": int, "end_index": int, "title": str, "url": str}
_OF_MESSAGE: _Forms = {
    "annotations": [{"type": "url_citation", "url_citation": _LINK}],
    "audio": {"id": str, "data": str, "transcript": str, "expires_at": int},
}
_OF_CHOICE: _Forms = {"logprobs": {"content": _TOKENS, "refusal": _TOKENS}}
_OF_COMPLETION: _Forms = {
    "id": str,
    "created": int,
    "metadata": {...: str},
    "moderation": (),
    "service_tier": ("auto", "default", "flex", "scale", "priority"),
    "system_fingerprint": str,
    "usage": {
        "prompt_tokens": int,
        "completion_tokens": int,
        "total_tokens": int,
        "prompt_tokens_details": _DETAILS,
        "completion_tokens_details": _DETAILS,
    },
}


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


def _check_members(members: dict[str, Any], forms: _Forms) -> dict[str, Any]:
    """Return members; those without the form of the API get the prefix."""
    return {
        name if name not in forms or _fits(value, forms[name]) else f"{_PREFIX}{name}": value
        for name, value in members.items()
    }


def _fits(value: Any, form: object) -> bool:
    """Return whether a value has the form."""
    if isinstance(form, tuple):
        return any(_fits(value, one) for one in form)
    if isinstance(form, list):
        return isinstance(value, list) and all(_fits(item, form[0]) for item in value)
    if isinstance(form, dict):
        names = value if isinstance(value, dict) and ... in form else form
        return isinstance(value, dict) and all(_fits(value.get(name), form.get(name, form.get(...))) for name in names)
    return type(value) is form if isinstance(form, type) else bool(value == form)
