"""A file of messages, as a JSON array or as JSON Lines -> the Messages in it, each checked."""

import json
from collections.abc import Iterator
from typing import Any

from smai_cli.common.text import one_line
from smai_cli.errors import UsageError
from smai_cli.prompt.request import JSON, TOO_LARGE, Message, json_fault

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_WHITE_SPACE = " \t\r\n"
_HINT = 'a message is {"role": "user", "content": "..."}'


def parse_messages(text: str, name: str) -> tuple[Message, ...]:
    """Return the messages in `text`; `name` is the name of the file in errors, which also give the line.

    Each message has a role and a content as in the chat API's reference; other fields are kept. Raises UsageError.
    """
    return tuple(parse_message(item, f"{name}, line {line}") for line, item in _items(text, name))


def is_array(text: str) -> bool:
    """Return whether the messages are in a JSON array."""
    return text.lstrip(_WHITE_SPACE).startswith("[")


def _items(text: str, name: str) -> Iterator[tuple[int, Any]]:
    """Yield each JSON value of an array, or of a sequence, with the number of the line it begins on."""
    in_array = is_array(text)
    between = f"{_WHITE_SPACE},]" if in_array else _WHITE_SPACE
    line, counted = 1, 0
    try:
        if in_array:
            JSON.decode(text)  # then nothing but `between` is between its values
        at = _skip(text, 0, _WHITE_SPACE) + in_array
        while (at := _skip(text, at, between)) < len(text):
            line, counted = line + text.count("\n", counted, at), at
            item, at = JSON.raw_decode(text, at)
            yield line, item
    except (ValueError, RecursionError) as exc:
        place = getattr(exc, "lineno", line)
        raise UsageError(f"{name}, line {place}: not JSON: {json_fault(exc)}", _HINT) from exc


def _skip(text: str, at: int, characters: str) -> int:
    while at < len(text) and text[at] in characters:
        at += 1
    return at


def parse_message(item: Any, place: str) -> Message:
    """Return a JSON value as a message; `place` is its place in errors. Raises UsageError."""
    if not isinstance(item, dict):
        raise UsageError(f"{place}: not a JSON object", _HINT)
    fields = dict(item)
    role, content = fields.pop("role", None), fields.pop("content", None)
    if role not in _ROLES:
        shown = "no role" if role is None else f"role {one_line(repr(role), 40)}"
        raise UsageError(f"{place}: {shown}", f"a role is one of {', '.join(_ROLES)}")
    if content is None and not item.get("tool_calls"):
        raise UsageError(f"{place}: no content", _HINT)
    is_parts = isinstance(content, list) and all(
        isinstance(part, dict) and isinstance(part.get("type"), str) for part in content
    )
    if not (content is None or isinstance(content, str) or is_parts):
        raise UsageError(f"{place}: content is neither a string nor a list of parts with a type", _HINT)
    try:
        json.dumps(item, ensure_ascii=False).encode()
    except UnicodeEncodeError as exc:
        raise UsageError(f"{place}: half of a surrogate pair", r"check the \u escapes") from exc
    except RecursionError as exc:
        raise UsageError(f"{place}: {TOO_LARGE}", _HINT) from exc
    return Message(role, content, fields)
