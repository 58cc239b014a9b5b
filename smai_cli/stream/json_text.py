"""JSON as servers write it -> objects; numbers in place of a text can keep their characters."""

import json
import math
from typing import Any, NoReturn

from smai_cli.answer.api_error import ApiError, api_error_of, error_in, error_of_array
from smai_cli.answer.chunk import Chunk, ForeignAnswerError
from smai_cli.common.text import one_line
from smai_cli.errors import BrokenError, RefusedError

# `null` is what a gateway makes of no chunk at all (decolua/9router#1052).
_SIGNS_OF_LIFE = ("", "ping", "pong", "keepalive", "keep-alive", "heartbeat", "null")
# Some gateways put comments into data (mnfst/llm-gateway#2053): no word and no JSON begins so.
_COMMENT = ":"
_SERVER = "the server does not speak the chat API as documented"


class MalformedEventError(BrokenError):
    """An event begins like JSON but is not JSON, so a part of the answer may be lost."""


class NumberAsTextError(Exception):
    """A number is in place of a text, and its characters are not known: decode the JSON with EXACT, and read again."""


class WrittenInt(int):
    """An integer with its text as `written`."""

    def __init__(self, text: str) -> None:
        self.written = text


class WrittenFloat(float):
    """A number with a fraction or an exponent, NaN or Infinity, with its text as `written`."""

    def __init__(self, text: str) -> None:
        self.written = text


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


class _NotJsonError(Exception):
    pass


def _refuse(constant: str) -> NoReturn:
    raise _NotJsonError(constant)


_STRICT = json.JSONDecoder(parse_constant=_refuse)
# NaN and Infinity become null: JSON has neither (RFC 8259, section 6).
LENIENT = json.JSONDecoder(parse_constant=lambda _: None, parse_float=_finite)
# Several times slower than _STRICT: only for an answer with a number in place of a text.
EXACT = json.JSONDecoder(parse_int=WrittenInt, parse_float=WrittenFloat, parse_constant=WrittenFloat)


def is_number(value: Any) -> bool:
    """Return whether a decoded value is a JSON number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def number_text(number: float) -> str:
    """Return the characters of a JSON number, as sent. Raises NumberAsTextError if they are not known."""
    if isinstance(number, (WrittenInt, WrittenFloat)):
        return number.written
    raise NumberAsTextError


def dump_exact(value: Any) -> str:
    """Return a decoded value as JSON, each number as it was sent.

    Raises NumberAsTextError for a number that was not decoded by EXACT, RecursionError for too many levels.
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)}: {dump_exact(member)}" for name, member in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(dump_exact, value)) + "]"
    if is_number(value):
        return number_text(value)
    return json.dumps(value)


def load_object(data: str, what: str) -> tuple[dict[str, Any], str]:
    """Parse one JSON object; return it, and its text on one line. `what` is its name in messages.

    NaN and Infinity, which Python servers write for log probabilities, become null in the text. For an array that
    begins with an error, as Gemini sends them, the first object is returned.
    Raises BrokenError for anything else that is not a JSON object: MalformedEventError if it begins like one.
    """
    try:
        payload, end = _STRICT.raw_decode(data)
        is_plain = end == len(data) and "\n" not in data
    except (ValueError, RecursionError, _NotJsonError):
        is_plain = False
    if not is_plain:
        payload, data = _load_odd(data, what)
    if not isinstance(payload, dict):
        first = error_of_array(payload)
        if first is None:
            raise BrokenError(f"{what} is not a JSON object: {one_line(data, 80)}", _SERVER)
        payload, data = first, json.dumps(first)
    return payload, data


def load_event(data: str, name: str) -> tuple[dict[str, Any], str] | None:
    """Parse the data of the event `name`, as load_object does; None for an event without a part of an answer.

    Empty data and a word such as `keepalive` keep the connection alive (Cloudflare, OpenRouter and others send them).
    An event named neither message nor error may have data that is not JSON, unless it begins like JSON.
    """
    try:
        return load_object(data, "an event")
    except MalformedEventError:
        raise
    except BrokenError:
        word = data.strip().lower()
        if name not in ("message", "error") or word in _SIGNS_OF_LIFE or word.startswith(_COMMENT):
            return None
        raise


def parse_error_event(data: str) -> Chunk:
    """Return the Chunk of an event that is named error: it is an error whatever its data is, even if empty."""
    try:
        payload, line = load_object(data, "an event")
    except BrokenError:
        return Chunk(api_error=ApiError(data))
    return Chunk(line, api_error=error_in(payload) or api_error_of(payload))


def load_body(data: str) -> tuple[dict[str, Any], str]:
    """Parse the body of an answer in one piece, as load_object does.

    Raises RefusedError if more JSON follows, as in the streams of other APIs, BrokenError if the end is missing.
    """
    data = data.strip()
    try:
        _, end = LENIENT.raw_decode(data)
    except (ValueError, RecursionError):
        end = len(data)
    if end < len(data):
        raise RefusedError(f"the server answered more than one JSON object: {one_line(data, 80)}", "check --base-url")
    return load_object(data, "the answer")


def begins_like_json(data: str) -> bool:
    """Return whether data begins like a JSON object or array."""
    return data.lstrip().startswith(("{", "["))


def _load_odd(data: str, what: str) -> tuple[Any, str]:
    """Parse JSON with surrounding white space, several lines or NaN. Raises BrokenError for anything else."""
    try:
        try:
            payload, is_json = _STRICT.decode(data), True
        except _NotJsonError:
            payload, is_json = EXACT.decode(data), False
        line = data if is_json and "\n" not in data else json.dumps(LENIENT.decode(data), allow_nan=False)
    except (ValueError, RecursionError) as exc:
        error = MalformedEventError if begins_like_json(data) else BrokenError
        raise error(f"{what} is not JSON: {one_line(data, 80)}", _SERVER) from exc
    return payload, line


def foreign_json_error(line: str) -> ForeignAnswerError:
    """Return the failure for a body in one piece that is JSON, but not an answer."""
    shown = one_line(line, 80)
    return ForeignAnswerError(
        f"the response is JSON that is not from a chat API: {shown}",
        "check --base-url",
        f"the input is JSON that is not from a chat API: {shown}",
    )
