"""The types of an answer: what smai needs to see of it, beside the payload as the server sent it."""

import json
from typing import Any, NamedTuple, NoReturn

from smai_cli.errors import BrokenError
from smai_cli.problem import Problem
from smai_cli.text import one_line


class Usage(NamedTuple):
    """Token counts; None where nobody counted."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None


class Chunk(NamedTuple):
    """One step of an answer: the view of one event that every dialect gives.

    `data` is the event's JSON on one line, the server's own characters where they were one line already
    (empty for text that no event of its own brought). `text` is the delta of choice 0, `refusal` the model's
    words instead of an answer, `problem` an error object in place of a chunk, `done` the `[DONE]` marker.
    The other choices, tool calls and all that smai does not know stay in `data`.
    """

    data: str = ""
    text: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    model: str = ""
    refusal: str = ""
    problem: Problem | None = None
    done: bool = False


def load_object(data: str, what: str) -> tuple[dict[str, Any], str]:
    """Parse one JSON object; return it, and its text on one line. A message calls it `what`.

    NaN and Infinity, which Python servers write for log probabilities, become null: JSON has neither
    (RFC 8259, section 6). Raises BrokenError for anything that is not a JSON object.
    """
    try:
        payload, is_json = _decoded(data)
        line = data if is_json and "\n" not in data else json.dumps(payload)
    except (ValueError, RecursionError) as exc:
        raise BrokenError(f"{what} is not JSON: {one_line(data, 80)}", _SERVER) from exc
    if not isinstance(payload, dict):
        raise BrokenError(f"{what} is no JSON object: {one_line(data, 80)}", _SERVER)
    return payload, line


def _decoded(data: str) -> tuple[Any, bool]:
    """Return the value, and whether `data` was JSON without the help of the lenient decoder."""
    try:
        return _STRICT.decode(data), True
    except _NotJsonError:
        return _LENIENT.decode(data), False


_SERVER = "the server does not speak the chat API as documented"


class _NotJsonError(Exception):
    pass


def _refuse(constant: str) -> NoReturn:
    raise _NotJsonError(constant)


_STRICT = json.JSONDecoder(parse_constant=_refuse)
_LENIENT = json.JSONDecoder(parse_constant=lambda _: None)
