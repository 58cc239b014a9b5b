"""The types of an answer: what smai needs to see of it, beside the payload as the server sent it."""

import json
import math
from typing import Any, NamedTuple, NoReturn

from smai_cli.errors import BrokenError, RefusedError
from smai_cli.frozen import Frozen
from smai_cli.http.api_error import ApiError
from smai_cli.text import one_line


class Usage(NamedTuple):
    """Token counts; None where nobody counted."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    reasoning_tokens: int | None = None


class CallPart(NamedTuple):
    """A part of a tool call: the number of the call in its answer (None: a whole call), and what is added to it."""

    number: int | None
    id: str = ""
    name: str = ""
    arguments: str = ""


class Other(Frozen):
    """What one event says of a choice that is not the answer, as in a Chunk: whether it has reasoning, text or a call.

    `brings` is for any of them, `brings_text` for all but reasoning.
    """

    choice_index: int
    finish_reason: str | None = None
    brings: bool = False
    brings_text: bool = False
    opens: bool = False


# The place of a part in an output of several: the number of its item (None: the server does not say), and its own.
Part = tuple[int | None, int]


class Whole(Frozen):
    """What one event says of the whole answer, or of a whole part, which deltas may have brought before.

    `is_unread` says that there is something in place of a text, in a form that smai does not know. Where an answer has
    parts, `parts` are their texts, and `is_all` says that these are all of them.
    """

    text: str = ""
    refusal: str = ""
    calls: tuple[CallPart, ...] = ()
    is_unread: bool = False
    parts: tuple[tuple[Part, str], ...] = ()
    is_all: bool = False


class Chunk(NamedTuple):
    """One step of an answer: the view of one event that every dialect gives.

    `data` is the event's JSON on one line, the server's own characters where they were one line already
    (empty for text that no event of its own brought). `choice_index` is the choice that the event is about; it is None
    for one that carries nothing of an answer: a ping, usage alone. `text` is its delta, `refusal` the model's words
    instead of an answer, `reasoning` its thoughts before one, `calls` parts of the tools it asks for, `opens` that its
    role is named, `whole` what it says once more or for the first time of the whole answer. `others` are the other
    choices in the event; their text and all that smai does not know stay in `data`. `api_error` is an error in place
    of a chunk, `is_foreign` marks what is no chunk of this API at all, `done` that nothing follows. `is_plain` says
    that there is nothing but ASCII text, as in most of them. `part` is where the text belongs in an answer of parts.
    """

    data: str = ""
    text: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    model: str = ""
    refusal: str = ""
    reasoning: str = ""
    calls: tuple[CallPart, ...] = ()
    others: tuple[Other, ...] = ()
    api_error: ApiError | None = None
    done: bool = False
    choice_index: int | None = None
    opens: bool = False
    whole: Whole | None = None
    is_foreign: bool = False
    is_plain: bool = False
    part: Part | None = None


# Parts of a content that are no text and are not meant to be one.
_BESIDE_TEXT = ("thinking", "reasoning", "refusal")


def text_of(content: Any) -> str:
    """Return the text of a content: a string, null, an object with a text in it, or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        content = [content]
    if isinstance(content, list):
        return "".join(filter(None, map(_part_text, content)))
    return ""


def is_unread(content: Any) -> bool:
    """Return whether a content holds something that text_of cannot read, and that may be the answer."""
    if isinstance(content, str) or not content:
        return False
    parts = content if isinstance(content, list) else [content]
    return any(
        _part_text(part) is None and not (isinstance(part, dict) and part.get("type") in _BESIDE_TEXT) for part in parts
    )


def _part_text(part: Any) -> str | None:
    """Return the text of one part, None where there is none to be found."""
    if isinstance(part, dict):
        part = part.get("text", part.get("content"))
    return part if isinstance(part, str) else None


def arguments_of(arguments: Any) -> str:
    """Return the arguments of a tool call as JSON text: a string of it, or the object that some servers send."""
    return json.dumps(arguments) if isinstance(arguments, dict) else text_of(arguments)


def usage_of(usage: Any, prompt: str, completion: str) -> Usage | None:
    """Return the counts in a server's usage object, whose dialect calls them `prompt` and `completion`."""
    if not isinstance(usage, dict):
        return None
    details = usage.get(f"{completion}_details")
    reasoning = details.get("reasoning_tokens") if isinstance(details, dict) else None
    counts = (usage.get(prompt), usage.get(completion), usage.get("total_tokens"), reasoning)
    return Usage(*map(_count, counts))


def usage_in(payload: dict[str, Any]) -> Usage | None:
    """Return the counts in a chat completion or a chunk of one, wherever its server puts them; None for no count.

    The API has them under `usage`; Moonshot streams them in the choice, Groq under `x_groq`. The look into all three
    takes as long as a tenth of parsing a delta: make it where the word is in the line.
    """
    choices, groq = payload.get("choices"), payload.get("x_groq")
    choice = choices[0] if isinstance(choices, list) and choices else None
    for place in (payload, choice, groq):
        counts = place.get("usage") if isinstance(place, dict) else None
        usage = usage_of(counts, "prompt_tokens", "completion_tokens") if counts else None
        if usage and usage != _NOTHING:
            return usage
    return None


_NOTHING = Usage()
# JSON of another language may write a whole number as 12.0; above this a float is none any more.
_EXACT = 2.0**53


def _count(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def load_object(data: str, what: str) -> tuple[dict[str, Any], str]:
    """Parse one JSON object; return it, and its text on one line. A message calls it `what`.

    NaN and Infinity, which Python servers write for log probabilities, become null: JSON has neither
    (RFC 8259, section 6). Raises BrokenError for anything that is not a JSON object.
    """
    try:
        payload, end = _STRICT.raw_decode(data)
        is_plain = end == len(data) and "\n" not in data
    except (ValueError, RecursionError, _NotJsonError):
        is_plain = False
    if not is_plain:
        payload, data = _load_odd(data, what)
    if not isinstance(payload, dict):
        raise BrokenError(f"{what} is no JSON object: {one_line(data, 80)}", _SERVER)
    return payload, data


def load_event(data: str, name: str) -> tuple[dict[str, Any], str] | None:
    """Parse the data of the event `name`, as load_object does; None where there is nothing to be parsed.

    Empty data and a word such as `keepalive` are signs of life (Cloudflare, OpenRouter and others send them), and what
    an event of another name than `message` holds need not be JSON.
    """
    try:
        return load_object(data, "an event")
    except BrokenError:
        if name not in ("message", "error") or data.strip().lower() in _SIGNS_OF_LIFE:
            return None
        raise


def load_body(data: str) -> tuple[dict[str, Any], str]:
    """Parse the body of an answer in one piece, as load_object does.

    Raises RefusedError where more JSON follows, as in the streams of other APIs, BrokenError where the end is missing.
    """
    data = data.strip()
    try:
        payload, end = LENIENT.raw_decode(data)
    except (ValueError, RecursionError):
        payload, end = None, len(data)
    if end < len(data):
        raise RefusedError(f"the server answered more than one JSON object: {one_line(data, 80)}", "check --base-url")
    first = payload[0] if isinstance(payload, list) and payload else None
    if isinstance(first, dict) and "error" in first:  # Gemini's errors are arrays of one object
        return load_object(json.dumps(first), "the answer")
    return load_object(data, "the answer")


def _load_odd(data: str, what: str) -> tuple[Any, str]:
    """Parse what is not JSON on one line and nothing else: white space around it, several lines, NaN, or no JSON."""
    try:
        try:
            payload, is_json = _STRICT.decode(data), True
        except _NotJsonError:
            payload, is_json = None, False
        line = data
        if "\n" in data or not is_json:
            payload = LENIENT.decode(data)
            line = json.dumps(payload, allow_nan=False)
    except (ValueError, RecursionError) as exc:
        raise BrokenError(f"{what} is not JSON: {one_line(data, 80)}", _SERVER) from exc
    return payload, line


_SIGNS_OF_LIFE = ("", "ping", "pong", "keepalive", "keep-alive", "heartbeat")
_SERVER = "the server does not speak the chat API as documented"


class _NotJsonError(Exception):
    pass


def _refuse(constant: str) -> NoReturn:
    raise _NotJsonError(constant)


_STRICT = json.JSONDecoder(parse_constant=_refuse)


def _finite(number: str) -> float | None:
    value = float(number)
    return value if math.isfinite(value) else None


# NaN and Infinity become null: JSON has neither (RFC 8259, section 6).
LENIENT = json.JSONDecoder(parse_constant=lambda _: None, parse_float=_finite)
