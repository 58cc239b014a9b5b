"""Operands and stdin -> the prompt, byte-exact. Nothing is trimmed, indented or cut."""

import os
import stat
import sys
from collections.abc import Sequence

from smai_cli.common.files import utf8_in
from smai_cli.errors import UsageError

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
        raise UsageError("the prompt is empty", "write one in quotes, or pipe one in")
    return prompt


def is_partly_read(fd: int) -> bool:
    """Return whether `fd` is a regular file that is already partly read, as in a `while read` loop."""
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode) and os.lseek(fd, 0, os.SEEK_CUR) != 0
    except OSError:
        return False
