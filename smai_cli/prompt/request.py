"""What is asked: a model, messages and options, before any dialect and any server."""

import json
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

from smai_cli.errors import UsageError


class _NumberError(ValueError):
    """A number that smai does not take; `msg` says so, as that of the parser's own errors does."""

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


# What there is to say where the parser of JSON gives no place.
TOO_LARGE = "a number is too large, or the nesting is too deep"
# JSON as users give it: by the standard, without NaN and infinity (RFC 8259, section 6).
JSON = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)
_NOTHING: Mapping[str, Any] = MappingProxyType({})
# The names of one parameter: of the chat API, older and newer, and of the Responses API.
TOKEN_LIMITS = frozenset(("max_tokens", "max_completion_tokens", "max_output_tokens"))


class Message(NamedTuple):
    """One message of a conversation.

    `role` is system, developer, user, assistant or tool. `content` is its text, a list of parts in the form of
    the chat API, or None beside tool calls. `fields` are the others (name, tool_calls, tool_call_id).
    """

    role: str
    content: str | list[dict[str, Any]] | None
    fields: Mapping[str, Any] = _NOTHING

    def as_json(self) -> dict[str, Any]:
        """Return the object that the chat API has for it."""
        return {"role": self.role, "content": self.content, **self.fields}


class Request(NamedTuple):
    """One request for one answer.

    `options` are parameters by the names of the chat API (temperature, top_p, max_tokens), which a dialect may
    call otherwise; `extra_body` are members of the body as the server is to get them. `stream` asks for the answer
    delta by delta, `include_usage` for the server's token counts in the stream. `token_limit_name` is what the chat
    API calls max_tokens for this model; empty: as its name says.
    """

    model: str
    messages: tuple[Message, ...]
    options: Mapping[str, Any] = _NOTHING
    stream: bool = True
    include_usage: bool = False
    extra_body: Mapping[str, Any] = _NOTHING
    token_limit_name: str = ""


def choices_in(extra_body: Mapping[str, Any]) -> int:
    """Return how many answers the members of a request ask for."""
    n = extra_body.get("n")
    return int(n) if isinstance(n, int | float) and n > 1 else 1


def encode(body: dict[str, Any], extra_body: Mapping[str, Any]) -> bytes:
    """Return `body` as JSON in UTF-8, with the members of `extra_body` in it: objects are merged, all else replaced.

    Raises UsageError for what JSON or UTF-8 cannot say.
    """
    try:
        text = json.dumps(_merged(body, extra_body), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode()
    except UnicodeEncodeError as exc:
        raise UsageError("the request contains half of a surrogate pair", r"check the \u escapes in the JSON") from exc
    except RecursionError as exc:
        raise UsageError("the request is nested too deep", "check the JSON that was given") from exc


def _merged(old: Any, new: Any) -> Any:
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return new
    return {**old, **{name: _merged(old.get(name), value) for name, value in new.items()}}


def conversation(
    content: str | list[dict[str, Any]] | None, system: str | None, earlier: tuple[Message, ...] = ()
) -> tuple[Message, ...]:
    """Return the messages to send: the system text, those from before, and what is asked now, as far as given.

    Raises UsageError for a system text beside another one in the earlier messages.
    """
    before = [message.content for message in earlier if message.role in ("system", "developer")]
    if system is not None and before and before != [system]:
        raise UsageError(
            "-s/--system differs from the system message of the conversation", "drop it, or begin another conversation"
        )
    first = () if system is None or before else (Message("system", system),)
    return (*first, *earlier, *(() if content is None else (Message("user", content),)))
