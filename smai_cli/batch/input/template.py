"""The text of --template: `{}` is replaced with a line, `{name}` with a member of its object."""

import json
import re
from collections.abc import Mapping
from typing import Any

from smai_cli.errors import UsageError

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_HINT = "{} is the line, {name} a member of its object, {{ and }} are braces"


class Template:
    """A text with placeholders; `names` are the members that it uses. Raises UsageError for a stray brace."""

    def __init__(self, text: str) -> None:
        self._parts: list[tuple[bool, str]] = []  # whether it is a placeholder, and its name or the text
        at = 0
        for match in _PART.finditer(text):
            self._parts.append((False, text[at : match.start()]))
            at = match.end()
            if match[0] in ("{", "}"):
                raise UsageError(f"--template has an unmatched {match[0]} at character {match.start() + 1}", _HINT)
            is_brace = match[0] in ("{{", "}}")
            self._parts.append((False, match[0][0]) if is_brace else (True, match[1]))
        self._parts.append((False, text[at:]))
        self.names = frozenset(part for is_place, part in self._parts if is_place and part)
        if not any(is_place for is_place, _ in self._parts):
            raise UsageError("--template does not use the line", _HINT)

    def fill(self, line: str, members: Mapping[str, Any]) -> str:
        """Return the prompt for `line`, the line itself or the text that it encodes, and the `members` of its object.

        A member that is not a text is inserted as JSON. Raises UsageError for a missing member.
        """
        return "".join(self._value(part, line, members) if is_place else part for is_place, part in self._parts)

    @staticmethod
    def _value(name: str, line: str, members: Mapping[str, Any]) -> str:
        if not name:
            return line.strip("\r\n")
        if name not in members:
            raise UsageError(f"it has no {name}, which --template names", _HINT)
        value = members[name]
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
