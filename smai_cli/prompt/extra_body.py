"""The -O options, KEY=VALUE -> the members of a request that smai has no option for."""

from collections.abc import Iterable
from typing import Any

from smai_cli.common.files import Read, file_named_in, read_named, text_of
from smai_cli.errors import UsageError
from smai_cli.prompt.request import JSON, TOO_LARGE, choices_in

_NAME = "-O/--option"
_JSON_NAME = ".json"
# What another option says, and how smai reads the answer depends on.
_OTHERWISE = {
    "model": "use -m/--model",
    "messages": "use the prompt, --messages or --chat",
    "input": "use the prompt, --messages or --chat",
    "stream": "use --no-stream",
}


def extra_members(pairs: Iterable[str], read: Read | None = None, *, takes_one: bool = False) -> dict[str, Any]:
    """Return what KEY=VALUE pairs say as one object; a dot in a key reaches into an object, and of two the later wins.

    A value is JSON where it parses, else a string; `@` before a name reads it from that file, by `read`. Without that
    no file is read, and what is in one counts as an object. `takes_one` says that only one answer can be delivered.
    Raises UsageError, also for a dot into what is no object.
    """
    members: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        names = key.split(".")
        if not equals or not all(names):
            raise UsageError(f"{_NAME} {pair!r} is not KEY=VALUE", "for example -O presence_penalty=0.5")
        if names[0] in _OTHERWISE:
            raise UsageError(f"{_NAME} cannot set {names[0]}", _OTHERWISE[names[0]])
        inner = members
        for name in names[:-1]:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise UsageError(f"{_NAME} {key}: {name} is not an object", "give each key once")
        inner[names[-1]] = _value(key, value, read)
    if takes_one and choices_in(members) > 1:
        raise UsageError(
            "-O n requests several answers, but text output has one", "use --jsonl or --raw, without --chat"
        )
    return members


def files_named(pairs: Iterable[str]) -> list[tuple[str, str]]:
    """Return the files from which pairs take their values, each behind its key."""
    split = [pair.partition("=") for pair in pairs]
    return [(key, file) for key, _, value in split if (file := file_named_in(value)) is not None]


def _value(key: str, value: str, read: Read | None) -> Any:
    path = file_named_in(value)
    if path and read is None:
        return {}
    text = text_of(value, read or read_named, f"{_NAME} {key}")
    try:
        return JSON.decode(text)
    except (ValueError, RecursionError) as exc:
        # A slip in a file that says what it is would reach the server as a text.
        if path and path.lower().endswith(_JSON_NAME):
            place, said = getattr(exc, "lineno", 1), getattr(exc, "msg", TOO_LARGE)
            raise UsageError(f"{path}, line {place}: not JSON: {said}", f"fix it, or check -O {key}") from exc
        return text
