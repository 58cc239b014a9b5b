"""A request: a model, messages and options, independent of the API and the server."""

import json
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

from smai_cli.errors import UsageError


class _NumberError(ValueError):
    """A number that smai does not accept; `msg` is the message, as in a JSONDecodeError."""

    def __init__(self, msg: str) -> None:
        super().__init__(msg)
        self.msg = msg


def _refuse(constant: str) -> NoReturn:
    raise _NumberError(f"{constant} is not a number")


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise _NumberError(f"{number[:20]} is too large a number")
    return value


# The message for JSON that Python's parser cannot read for lack of a better one.
TOO_LARGE = "a number is too large, or the nesting is too deep"
# The parser for JSON from users: strict, without NaN and infinity (RFC 8259, section 6).
JSON = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)
# Python's messages are followed by a position: "Unterminated string starting at: line 1 column 1 (char 0)".
_BEFORE_POSITION = (" starting at", " at")
_NOTHING: Mapping[str, Any] = MappingProxyType({})
# The names of one parameter: of the chat API, older and newer, and of the Responses API.
TOKEN_LIMITS = frozenset(("max_tokens", "max_completion_tokens", "max_output_tokens"))


class Message(NamedTuple):
    """One message of a conversation.

    `role` is system, developer, user, assistant or tool. `content` is its text, a list of parts in the form of
    the chat API, or None with tool calls. `fields` are all others (name, tool_calls, tool_call_id).
    """

    role: str
    content: str | list[dict[str, Any]] | None
    fields: Mapping[str, Any] = _NOTHING

    def as_json(self) -> dict[str, Any]:
        """Return the message in the form of the chat API."""
        return {"role": self.role, "content": self.content, **self.fields}


class Request(NamedTuple):
    """One request for one answer.

    `options` are parameters under their names in the chat API (temperature, top_p, max_tokens), which a dialect may
    rename; `extra_body` are members of the body, sent unchanged. `stream` asks for the answer delta by delta,
    `include_usage` for the server's token counts in the stream. `token_limit_name` is the name of max_tokens for this
    server and model; empty: the dialect chooses it by the model.
    """

    model: str
    messages: tuple[Message, ...]
    options: Mapping[str, Any] = _NOTHING
    stream: bool = True
    include_usage: bool = False
    extra_body: Mapping[str, Any] = _NOTHING
    token_limit_name: str = ""


def choices_in(extra_body: Mapping[str, Any]) -> int:
    """Return how many answers the members of a request ask for: `n`, or 1."""
    n = extra_body.get("n")
    return int(n) if isinstance(n, int | float) and n > 1 else 1


def json_fault(exc: Exception) -> str:
    """Return what is wrong with JSON that the parser has refused with `exc`, without the position."""
    fault: str = getattr(exc, "msg", TOO_LARGE)
    for end in _BEFORE_POSITION:
        fault = fault.removesuffix(end)
    return fault


def encode(body: dict[str, Any], extra_body: Mapping[str, Any]) -> bytes:
    """Return `body` with the members of `extra_body` as JSON in UTF-8: objects are merged, other values replaced.

    Raises UsageError for a lone surrogate, and for too deep a nesting.
    """
    try:
        text = json.dumps(_merge(body, extra_body), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode()
    except UnicodeEncodeError as exc:
        raise UsageError("the request contains half of a surrogate pair", r"check the \u escapes in the JSON") from exc
    except RecursionError as exc:
        raise UsageError("the request is nested too deep", "check the JSON that was given") from exc


def _merge(old: Any, new: Any) -> Any:
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return new
    return {**old, **{name: _merge(old.get(name), value) for name, value in new.items()}}


def build_messages(
    content: str | list[dict[str, Any]] | None, system: str | None, earlier: tuple[Message, ...] = ()
) -> tuple[Message, ...]:
    """Return the messages to send: the system text, the earlier messages, and the new `content`, if given.

    Raises UsageError if the system text differs from that in the earlier messages.
    """
    before = [message.content for message in earlier if message.role in ("system", "developer")]
    if system is not None and before and before != [system]:
        raise UsageError(
            "-s/--system differs from the system message of the conversation", "drop it, or begin another conversation"
        )
    first = () if system is None or before else (Message("system", system),)
    return (*first, *earlier, *(() if content is None else (Message("user", content),)))
