"""The -O options, KEY=VALUE -> the members of a request that smai has no option for."""

from collections.abc import Iterable
from typing import Any

from smai_cli.errors import UsageError
from smai_cli.prompt.request import JSON

_NAME = "-O/--option"
# What another option says, and how smai reads the answer depends on.
_OTHERWISE = {
    "model": "use -m/--model",
    "messages": "use the prompt, --messages or --chat",
    "input": "use the prompt, --messages or --chat",
    "stream": "use --no-stream",
}


def extra_members(pairs: Iterable[str]) -> dict[str, Any]:
    """Return what KEY=VALUE pairs say as one object; a dot in a key reaches into an object, and of two the later wins.

    A value is JSON where it parses, else a string. Raises UsageError, also for a dot into what is no object.
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
                raise UsageError(f"{_NAME} {key}: {name} is no object", "give each key once")
        inner[names[-1]] = _value(value)
    return members


def _value(text: str) -> Any:
    try:
        return JSON.decode(text)
    except (ValueError, RecursionError):
        return text
