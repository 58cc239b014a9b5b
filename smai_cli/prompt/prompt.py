"""Operands and stdin -> the prompt, byte-exact. Nothing is trimmed, indented or cut."""

import errno
import math
import os
import select
import stat
import sys
from collections.abc import Callable, Sequence

from smai_cli.common.files import too_large, utf8_in
from smai_cli.errors import UsageError

NOTICE_AFTER_S = 3.0
_PIECE = 65536
# The encodings of locales in which the C library and Python agree on every byte.
_EXACT = ("utf-8", "ascii", "iso8859-1")
_BLANK_LINE = "\n\n"


def operand_text(operand: str, name: str) -> str:
    """Return an argument of the command line as text; `name` is its name in messages.

    Python represents undecodable bytes in arguments as lone surrogates (PEP 383), under LC_ALL=C every byte above
    0x7f. This function restores the bytes and decodes them strictly; where Python does not restore the same bytes,
    cli/utf8.py restarts smai if it can. Raises UsageError with the byte and its offset.
    """
    if not operand.isascii() and sys.getfilesystemencoding() not in _EXACT:
        raise UsageError(f"{name} cannot be read exactly in this locale", "use one in UTF-8, such as LC_ALL=C.UTF-8")
    return utf8_in(os.fsencode(operand), name)


def compose(operands: Sequence[str], piped: str | None) -> str:
    """Return the prompt: the operands, joined by spaces, and the text from stdin (`piped`, None if not read).

    The text from stdin replaces the operand `-`, or follows the others, separated by a blank line.
    Raises UsageError if the prompt is only white space.
    """
    if piped is None:
        prompt = " ".join(operands)
    else:
        at = operands.index("-") if "-" in operands else len(operands)
        parts = (" ".join(operands[:at]), piped, " ".join(operands[at + 1 :]))
        prompt = _BLANK_LINE.join(part for part in parts if part)
    if not prompt or prompt.isspace():
        raise UsageError("the prompt is empty", "give it as an operand or through a pipe")
    return prompt


def is_partly_read(fd: int) -> bool:
    """Return whether `fd` is a regular file that is already partly read, as in a `while read` loop."""
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode) and os.lseek(fd, 0, os.SEEK_CUR) != 0
    except OSError:
        return False


def read_all(
    fd: int,
    notice: Callable[[], None],
    hint: str = "check where the input comes from, or use -n",
    limit_bytes: float = math.inf,
) -> bytes:
    """Read `fd` to its end and return the bytes; call `notice` if nothing arrives within NOTICE_AFTER_S.

    It has no time limit, which would lose data. A descriptor that is closed, or open only for writing (as nohup leaves
    stdin), counts as empty. Raises UsageError, with `hint`, if reading fails, and for more than `limit_bytes`.
    """
    pieces: list[bytes] = []
    left = limit_bytes
    try:
        if not _readable_within(fd, NOTICE_AFTER_S):
            notice()
        while piece := _read(fd):
            pieces.append(piece)
            left -= len(piece)
            if left < 0:
                raise too_large("stdin", int(limit_bytes))
    except OSError as exc:
        if exc.errno == errno.EBADF:
            return b""
        raise UsageError(f"stdin: {exc.strerror}", hint) from exc
    return b"".join(pieces)


def _read(fd: int) -> bytes:
    while True:
        try:
            return os.read(fd, _PIECE)
        except BlockingIOError:  # a non-blocking pipe or terminal, shared with the parent process
            _readable_within(fd, None)


def _readable_within(fd: int, limit_s: float | None) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(None if limit_s is None else limit_s * 1000))
