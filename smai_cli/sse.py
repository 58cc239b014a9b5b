"""Pieces of bytes -> server-sent events (WHATWG HTML, section 9.2), in front of sseclient-py, the only importer.

sseclient reads fields well. What it does not do is done before it, so that it only ever sees whole, clean
events: one BOM stripped, CRLF and CR folded to LF, invalid UTF-8 replaced, and limits on an event's size.
"""

import codecs
import json
from collections.abc import Iterable, Iterator
from typing import Protocol

import sseclient

from smai_cli.errors import BrokenError, UsageError

MAX_EVENT_BYTES = 16 * 1024 * 1024
MAX_EVENT_LINES = 10_000
DONE = "[DONE]"

if not hasattr(getattr(sseclient, "SSEClient", None), "events"):
    # The distribution `sseclient` installs a module of the same name with another interface.
    raise UsageError("the module sseclient is not sseclient-py", "pip uninstall sseclient, pip install sseclient-py")


class Event(Protocol):
    """One event: `event` is its name (`message` unless the server named it), `data` its lines joined by LF."""

    event: str
    data: str


class Blocks:
    r"""Iterates over blocks of whole events, LF line ends and valid UTF-8, each block ending in a blank line.

    Made for SSEClient, which takes any iterable of bytes. After the last block `tail` holds what came behind
    the last blank line. Raises BrokenError for an event above MAX_EVENT_BYTES or MAX_EVENT_LINES: sseclient
    would collect the first without end, and needs time in the square of the second.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self.tail = b""

    def __iter__(self) -> Iterator[bytes]:
        """Yield each block as soon as a piece completes it."""
        rest = bytearray()
        lines = 0
        for piece in _without_bom(_fold_line_ends(self._pieces)):
            if not rest and piece.endswith(b"\n\n") and len(piece) <= MAX_EVENT_LINES:
                yield _valid_utf8(piece)  # most pieces of a stream: whole events, too short to be too large
                continue
            unsearched = max(0, len(rest) - 1)
            rest += piece
            lines += piece.count(b"\n")
            end = rest.rfind(b"\n\n", unsearched) + 2
            if lines > MAX_EVENT_LINES or len(rest) > MAX_EVENT_BYTES:
                _check_size(rest)
            if end >= 2:  # noqa: PLR2004  # found
                block = bytes(rest[:end])
                del rest[:end]
                lines = rest.count(b"\n")
                yield _valid_utf8(block)
        self.tail = bytes(rest)


def events(pieces: Iterable[bytes]) -> Iterator[Event]:
    """Yield each event as soon as its blank line is there.

    The specification discards an event that the end of the stream cuts. Servers leave out the last blank
    line, so the tail counts if it is provably whole: `[DONE]`, or JSON (no proper prefix of an object is one).
    Raises BrokenError for an event above the limits.
    """
    blocks = Blocks(pieces)
    yield from sseclient.SSEClient(iter(blocks)).events()
    if blocks.tail:
        tail = [_valid_utf8(blocks.tail) + b"\n\n"]
        yield from (event for event in sseclient.SSEClient(iter(tail)).events() if _is_whole(event.data))


def _fold_line_ends(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Turn CRLF and CR into LF. A CR ends its line at once; an LF that comes with the next piece is dropped."""
    after_cr = False
    for piece in pieces:
        folded = piece[1:] if after_cr and piece.startswith(b"\n") else piece
        after_cr = folded.endswith(b"\r")
        if b"\r" in folded:
            folded = folded.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        yield folded


def _without_bom(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Strip one BOM from the very beginning, also where it comes byte by byte."""
    start = b""
    for piece in pieces:
        start += piece
        if len(start) >= len(codecs.BOM_UTF8) or not codecs.BOM_UTF8.startswith(start):
            yield start.removeprefix(codecs.BOM_UTF8)
            break
    yield from pieces


def _valid_utf8(block: bytes) -> bytes:
    """Return `block` with invalid bytes replaced by U+FFFD; a blank line never splits a character."""
    if block.isascii():
        return block
    text = block.decode("utf-8", "replace")
    return text.encode() if "\ufffd" in text else block


def _check_size(rest: bytearray) -> None:
    for event in rest.split(b"\n\n"):
        if len(event) > MAX_EVENT_BYTES or event.count(b"\n") > MAX_EVENT_LINES:
            limit = f"{MAX_EVENT_BYTES // 1024 // 1024} MiB or {MAX_EVENT_LINES} lines"
            raise BrokenError(f"the server sent an event larger than {limit}", "ask another server or model")


def _is_whole(data: str) -> bool:
    if data.strip() == DONE:
        return True
    try:
        return isinstance(json.loads(data), dict)
    except (ValueError, RecursionError):
        return False
