"""Pieces of bytes -> server-sent events (WHATWG HTML, section 9.2). The only importer of sseclient-py.

sseclient parses fields. This module first does what sseclient does not: it strips one BOM, converts CRLF and CR to LF,
turns the field `error` of llama.cpp and JSON without a field into events, keeps an event `error` without data, replaces
invalid UTF-8, and limits the size of an event.
"""

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from typing import Protocol

import sseclient

from smai_cli.errors import BrokenError, Retry, UsageError, install_hint
from smai_cli.stream.json_text import begins_like_json

MAX_EVENT_BYTES = 16 * 1024 * 1024
MAX_EVENT_LINES = 10_000
# sseclient copies the event so far at each of its lines: half a second for 256 lines of 64 KiB. Up to 1 MiB, the limit
# on lines is enough.
MAX_COPIED_BYTES = 256 * MAX_EVENT_BYTES
_CHEAP_BYTES = 1024 * 1024
DONE = "[DONE]"
_ERROR_FIELD = b"error:"
_DATA_FIELD = b"data:"
# How a line begins that may have to be mended. One search finds all of them, because most blocks have none.
_MENDED = rb"[\[{ \t\xefD]|data[ \t]|event: ?[Ee]rror|error:"
_MENDED_LINE = rb"\n(?:%s)" % _MENDED
_BARE_JSON = rb"[ \t]*[\[{]"
_DATA = rb"data(?::|$)"
_ODD_DATA = rb"(?i)\A(?:\xef\xbb\xbf|[ \t])*data[ \t]*:(?=[ \t]*[\[{])"
_ERROR_NAME = rb"(?i)event: ?error[ \t]*$"

if not hasattr(getattr(sseclient, "SSEClient", None), "events"):
    # The distribution `sseclient` installs a module of the same name with another interface.
    raise UsageError("the module sseclient is not sseclient-py", install_hint("--force-reinstall sseclient-py"))


class Event(Protocol):
    """One event: `event` is its name (`message` unless the server named it), `data` its lines joined by LF."""

    event: str
    data: str


class Blocks:
    r"""Iterates over blocks of whole events with LF line ends and valid UTF-8; each block ends in a blank line.

    It is the input of SSEClient, which takes any iterable of bytes. After the last block, `tail` is what follows the
    last blank line. Raises BrokenError if a piece ends within an event above MAX_EVENT_BYTES, MAX_EVENT_LINES or
    MAX_COPIED_BYTES: sseclient has no limit on memory, and its time grows with the product of bytes and lines.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self.tail = b""

    def __iter__(self) -> Iterator[bytes]:
        """Yield each block as soon as a piece completes it."""
        rest = bytearray()
        lines = counted = 0
        bom = codecs.BOM_UTF8  # of the first block only
        for piece in _fold_line_ends(self._pieces):
            if not rest and piece.endswith(b"\n\n"):
                # Most pieces are one event of one line, which needs no search: that saves 6 % of the time of an event.
                is_line = piece.startswith(_DATA_FIELD) and piece.find(b"\n") == len(piece) - 2
                yield _valid_utf8(piece) if is_line else _mended(piece.removeprefix(bom))
                bom = b""
                continue
            rest += piece
            if rest.endswith(b"\n") and rest.startswith(_ERROR_FIELD, rest.rfind(b"\n", 0, -1) + 1):
                rest += b"\n"  # such an event ends with its line
            end = rest.rfind(b"\n\n", max(0, counted - 1)) + 2
            if end >= 2:  # noqa: PLR2004  # found
                block = bytes(rest[:end])
                del rest[:end]
                lines = counted = 0
                yield _mended(block.removeprefix(bom))
                bom = b""
            lines += rest.count(b"\n", counted)
            if _is_too_large(len(rest), lines):
                rest = _without_comments(rest)
                lines = rest.count(b"\n")
                if _is_too_large(len(rest), lines):
                    raise _too_large_event()
            counted = len(rest)
        self.tail = bytes(rest).removeprefix(bom)
        if whole := re.match(rb"(?s)(?:.*\n)?error:[^\n]*\n", self.tail):
            self.tail = self.tail[whole.end() :]
            yield _mended(whole[0] + b"\n")


def events(pieces: Iterable[bytes]) -> Iterator[Event]:
    """Yield each event as soon as its blank line has arrived.

    The specification discards an event without a blank line at the end of the stream. Servers leave out the last blank
    line, or all of them, so the tail counts as far as it is provably complete: `[DONE]`, or JSON (no prefix of an
    object or list is JSON). Raises BrokenError for an event above the limits, and for one that was cut within its JSON.
    """
    blocks = Blocks(pieces)
    yield from sseclient.SSEClient(iter(blocks)).events()
    if blocks.tail:
        tail = [_mended(blocks.tail + b"\n\n")]
        for event in sseclient.SSEClient(iter(tail)).events():
            if event.event == "error" or _is_complete(event.data):
                yield event
                continue
            for part in split_events(event.data):
                if _is_complete(part):
                    yield sseclient.Event(event=event.event, data=part)  # type: ignore[call-arg]
                elif begins_like_json(part) and not DONE.startswith(part.strip()):
                    raise BrokenError("the stream ended within an event", "the output is incomplete")


def split_events(data: str) -> list[str]:
    """Return the data of each event in `data`, if a server left out what separates them, or named the field twice.

    Servers of GLM and Kimi leave out the blank lines (rexxars/eventsource-parser PR 31), and others put two chunks into
    one event (openai/openai-python#663). No JSON contains either, except in a string: then the parts are not JSON.
    Servers put `data:` before what already has it (paiml/aprender PR 2015, langgenius/dify#4120).
    """
    plain = re.sub(r"(?m)^data:", "", data)
    return re.split(r"(?<=[\]}l])\n(?=[\[{n])|(?<=})(?=[\[{])", plain)  # the letters are those of null


def _fold_line_ends(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Turn CRLF and CR into LF. A CR ends its line at once; an LF at the start of the next piece is dropped."""
    after_cr = False
    for piece in pieces:
        folded = piece[1:] if after_cr and piece.startswith(b"\n") else piece
        after_cr = folded.endswith(b"\r")
        if b"\r" in folded:
            folded = folded.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        yield folded


def _mended(block: bytes) -> bytes:
    """Return whole events in the form of the specification, with everything in them that it would discard."""
    if re.match(_MENDED, block) or re.search(_MENDED_LINE, block):
        block = b"\n".join(_mended_lines(_with_error_events(block.split(b"\n"))))
    return _valid_utf8(block)


def _with_error_events(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of whole events; turn each field `error` into an event of that name.

    llama.cpp, from September 2024 to September 2025, sends `error: {...}` where the API has
    `data: {"error": {...}}`, and goes on to `data: [DONE]` (ggml-org/llama.cpp #16104).
    """
    for line in lines:
        if line.startswith(_ERROR_FIELD):
            yield from (b"", b"event: error", line.replace(_ERROR_FIELD, _DATA_FIELD, 1), b"")
        else:
            yield line


def _mended_lines(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of whole events; give a field or data to those that the specification would discard.

    JSON without a field is an event, to the next blank line: Gemini breaks off an answer with its error on several
    lines outside of any event (maximhq/bifrost PR 5262). So is JSON whose field `data` is indented (BerriAI/litellm PR
    26569) or written in another way. An event of the name `error` is one even without data.
    """
    is_json = is_bare_error = has_data = False
    for line in lines:
        if not line:
            if is_bare_error and not has_data:
                yield _DATA_FIELD
            is_json = is_bare_error = has_data = False
            yield b""
        elif is_json:
            yield b"data: " + line
        elif re.match(_BARE_JSON, line):
            if has_data:
                yield b""
            is_json = has_data = True
            yield b"data: " + line
        elif re.match(_ERROR_NAME, line):
            is_bare_error = True
            yield b"event: error"
        else:
            field = re.sub(_ODD_DATA, _DATA_FIELD, line)
            has_data = has_data or re.match(_DATA, field) is not None
            yield field


def _valid_utf8(block: bytes) -> bytes:
    """Return `block` with invalid bytes replaced by U+FFFD; blocks end in a blank line, so none splits a character."""
    if block.isascii():
        return block
    text = block.decode("utf-8", "replace")
    return text.encode() if "\ufffd" in text else block


def _without_comments(rest: bytearray) -> bytearray:
    """Return `rest` without comments: servers send them to keep the connection alive, some for hours."""
    lines = re.sub(rb"(?<=\n)(?::.*\n)+", b"", b"\n" + rest)
    return bytearray(re.sub(rb"\n:.+\Z", b"\n:", lines)[1:])


def _is_too_large(length: int, lines: int) -> bool:
    if lines > MAX_EVENT_LINES or length > MAX_EVENT_BYTES:
        return True
    return length > _CHEAP_BYTES and length * lines > MAX_COPIED_BYTES


def _too_large_event() -> BrokenError:
    limit = f"{MAX_EVENT_BYTES // 1024 // 1024} MiB or {MAX_EVENT_LINES} lines, or too large in both"
    return BrokenError(
        f"the server sent an event larger than {limit}",
        "use another server or model",
        retry=Retry.NEVER,
        retryable=False,
    )


def _is_complete(data: str) -> bool:
    if data.strip() == DONE:
        return True
    try:
        return isinstance(json.loads(data), (dict, list))
    except (ValueError, RecursionError):
        return False
