"""The same command once more in Python's UTF-8 mode, for a locale with another encoding.

Python has the C library decode the arguments of a process, and encodes them with codecs of its own. For EUC-JP, EUC-KR,
Big5 and GBK the two differ, so that the bytes that were typed cannot be had from sys.argv, nor the names of files. In
UTF-8 mode (PEP 540) they can, whatever the locale is.
"""

import os
import sys

# Where Linux has the arguments as they are (proc_pid_cmdline(5)), each with a NUL behind it.
_ARGUMENTS = "/proc/self/cmdline"


def run_again() -> None:
    """Replace this process by itself in UTF-8 mode; return where the bytes of its arguments cannot be had.

    Descriptors and signals that are ignored pass over to it, the environment is not changed.
    """
    # A program that PyInstaller has made has no options of Python, and begins in UTF-8 mode where it can.
    if sys.flags.utf8_mode or getattr(sys, "frozen", False):
        return
    try:
        with open(_ARGUMENTS, "rb") as file:
            words = file.read().split(b"\0")[:-1]
        if len(words) == len(sys.orig_argv):
            program = os.fsencode(sys.executable) if sys.executable.isascii() else words[0]
            os.execv(program, [program, b"-X", b"utf8", *words[1:]])  # noqa: S606  # no shell, and nothing new is run
    except OSError:  # no /proc, as on FreeBSD
        return
