"""Patterns for the lines that most files are made of: found in half of the time that reading them as JSON takes.

A pattern stands beside the function that reads the same form in full, as it does with every line that does not match;
where a line could be read both ways, the result is the same.
"""

import json
import re

# JSON (RFC 8259). A text is in the one form that json.dumps gives it without ensure_ascii: not with `\/` or `\u000a`.
_PATTERNS = {
    # An object with simple members and objects of such, as usage is.
    b"OBJECT": rb"\{(?:NAME:INNER(?:,NAME:INNER)*+)?+\}",
    b"INNER": rb"(?:VALUE|\{(?:NAME:VALUE(?:,NAME:VALUE)*+)?+\})",
    b"NAME": rb'"[0-9A-Za-z_]++"',
    b"VALUE": rb"(?:COUNT(?:\.[0-9]{1,17}+)?+(?:e-?[0-9]{2})?+|TEXT|null|true|false)",
    b"SECONDS": rb"(?:null|COUNT(?:\.[0-9]{1,17})?(?:e-[0-9]{2})?)",
    b"COUNT": rb"(?:[1-9][0-9]{0,16}+|0)",
}
_TEXT = rb'"(?:[^"\\\x00-\x1f]++|\\["\\bfnrt])*+"'
# The same for a line without backslashes and control characters, which is found several times as fast.
_SIMPLE_TEXT = rb'"[^"]*+"'
_CONTROLS = bytes(range(0x20))


class PlainPattern:
    """A pattern for a whole line, with the names above in it."""

    def __init__(self, pattern: bytes) -> None:
        for name, meaning in _PATTERNS.items():
            pattern = pattern.replace(name, meaning)
        self._any = re.compile(pattern.replace(b"TEXT", _TEXT))
        self._simple = re.compile(pattern.replace(b"TEXT", _SIMPLE_TEXT))

    def match(self, line: bytes) -> re.Match[bytes] | None:
        """Return what is found in a line in UTF-8; None in any other."""
        content = line.removesuffix(b"\n")
        is_simple = b"\\" not in content and len(content.translate(None, _CONTROLS)) == len(content)
        if not content.isascii():
            try:
                content.decode()
            except UnicodeDecodeError:
                return None
        return (self._simple if is_simple else self._any).fullmatch(line)


def decoded_id(name: bytes) -> str | int | None:
    """Return the id that a COUNT, a TEXT or null is."""
    if name.startswith(b'"') and b"\\" not in name:
        return name[1:-1].decode()
    value: str | int | None = json.loads(name)
    return value
