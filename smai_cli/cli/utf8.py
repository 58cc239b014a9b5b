"""Run the same command again in Python's UTF-8 mode, for a locale with another encoding.

Python lets the C library decode the arguments of a process, but encodes them with its own codecs. The two differ for
EUC-JP, EUC-KR, Big5 and GBK, so that sys.argv does not give the typed bytes, or the names of files. In UTF-8 mode (PEP
540) it does, whatever the locale is.
"""

import os
import sys

# The raw arguments on Linux (proc_pid_cmdline(5)), each followed by a NUL.
_ARGUMENTS = "/proc/self/cmdline"


def run_again() -> None:
    """Replace this process with itself in UTF-8 mode; return if the bytes of its arguments are not available.

    Descriptors and ignored signals are inherited; the environment is not changed.
    """
    # A program made by PyInstaller does not take Python's options, and starts in UTF-8 mode if it can.
    if sys.flags.utf8_mode or getattr(sys, "frozen", False):
        return
    try:
        with open(_ARGUMENTS, "rb") as file:
            words = file.read().split(b"\0")[:-1]
        if len(words) == len(sys.orig_argv):
            program = os.fsencode(sys.executable) if sys.executable.isascii() else words[0]
            os.execv(program, [program, b"-X", b"utf8", *words[1:]])  # noqa: S606  # no shell; runs this program again
    except OSError:  # no /proc, as on FreeBSD
        return
