"""The -O options, KEY=VALUE -> members of a request for which smai has no option."""

from collections.abc import Iterable
from typing import Any

from smai_cli.common.files import Read, file_named_in, read_named, text_of_value
from smai_cli.errors import UsageError
from smai_cli.prompt.request import JSON, choices_in, json_fault

_NAME = "-O/--option"
_JSON_NAME = ".json"
# Members that other options set, or on which reading the answer depends.
_OTHERWISE = {
    "model": "use -m/--model",
    "messages": "use the prompt, --messages or --chat",
    "input": "use the prompt, --messages or --chat",
    "stream": "use --no-stream",
}


def extra_members(pairs: Iterable[str], read: Read = read_named, *, takes_one: bool = False) -> dict[str, Any]:
    """Return KEY=VALUE pairs as one object; a dot in a key means a nested object, and the later of two pairs wins.

    A value is JSON if it parses, else a string; `@FILE` is read by `read`. `takes_one` says that only one answer can be
    delivered. Raises UsageError, also for a dot into a value that is not an object.
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
    """Return the files from which pairs take their values, as (key, path)."""
    split = [pair.partition("=") for pair in pairs]
    return [(key, file) for key, _, value in split if (file := file_named_in(value)) is not None]


def _value(key: str, value: str, read: Read) -> Any:
    path = file_named_in(value)
    text = text_of_value(value, read, f"{_NAME} {key}")
    try:
        return JSON.decode(text)
    except (ValueError, RecursionError) as exc:
        # A syntax error in a .json file must not turn it into a string.
        if path and path.lower().endswith(_JSON_NAME):
            place, said = getattr(exc, "lineno", 1), json_fault(exc)
            raise UsageError(f"{path}, line {place}: not JSON: {said}", f"fix it, or check -O {key}") from exc
        return text
