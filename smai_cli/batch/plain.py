"""The lines that most files are made of -> what is needed of them, by a pattern: a parser needs three times as long.

What a pattern does not match is read as any JSON, with the same result where it could be read both ways.
"""

import json
import re
from collections.abc import Callable
from typing import NamedTuple

# JSON (RFC 8259). A text is in the one form that json.dumps gives it without ensure_ascii: not with `\/` or `\u000a`.
_PATTERNS = {
    b"SECONDS": rb"(?:null|COUNT(?:\.[0-9]{1,17})?(?:e-[0-9]{2})?)",
    b"NUMBER": rb"(?:null|COUNT)",
    b"COUNT": rb"(?:0|[1-9][0-9]{0,16})",
}
_TEXT = rb'"(?:[^"\\\x00-\x1f]++|\\["\\bfnrt])*+"'
# The same for a line without backslashes and control characters, which is found four times as fast.
_SIMPLE_TEXT = rb'"[^"]*+"'
_CONTROLS = bytes(range(0x20))


class _Pattern:
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
        try:
            line.decode()
        except UnicodeDecodeError:
            return None
        return (self._simple if is_simple else self._any).fullmatch(line)


# A complete result in the flat form with nothing beside it.
_RESULT = _Pattern(
    rb'\{"id":(null|-?COUNT|TEXT),"index":(COUNT),"complete":true,"text":TEXT,"finish_reason":(?:null|TEXT),'
    rb'"model":(?:null|TEXT),"usage":\{"[a-z_]+":NUMBER(?:,"[a-z_]+":NUMBER)*+\},"usage_source":TEXT,'
    rb'"retries":COUNT,"first_delta_s":SECONDS,"elapsed_s":SECONDS,'
    rb'"request":"sha256:([0-9a-f]{64})",(?:"copy":(COUNT),)?"exit_status":0,"error":null\}\n'
)
# A prompt, perhaps with an id before or behind it; its first character shows that it is not blank.
_LINE = _Pattern(
    rb'\{(?:"(?:custom_)?id": ?(-?COUNT|TEXT), ?)?"prompt": ?(?="[0-9A-Za-z])(TEXT)'
    rb'(?:, ?"(?:custom_)?id": ?(-?COUNT|TEXT))?\}\r?\n?'
)


class PlainResult(NamedTuple):
    """What a complete result says of its line: the id, its number, the SHA-256 of the request, and which copy it is."""

    id: str | int | None
    number: int
    digest: bytes
    copy: int


def plain_result(data: bytes) -> PlainResult | None:
    """Return what a line of results says; None where that is to be read in full."""
    found = _RESULT.match(data)
    if found is None:
        return None
    name, number, digest, copy = found.groups()
    return PlainResult(_decoded(name), int(number), bytes.fromhex(digest.decode()), int(copy or 1))


def plain_line(data: bytes, digest_of: Callable[[bytes], bytes]) -> tuple[str | int | None, bytes] | None:
    """Return the id of a line of the input, and the digest of its request; None where it is to be read in full.

    `digest_of` takes the prompt as JSON, as the body of a request has it.
    """
    found = _LINE.match(data)
    if found is None:
        return None
    before, prompt, behind = found.groups()
    return None if before and behind else (_decoded(before or behind or b"null"), digest_of(prompt))


def _decoded(name: bytes) -> str | int | None:
    if name.startswith(b'"') and b"\\" not in name:
        return name[1:-1].decode()
    value: str | int | None = json.loads(name)
    return value
