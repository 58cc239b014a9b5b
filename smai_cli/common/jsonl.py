"""JSON Lines files that many processes append to: only complete lines, even after a writer was killed.

The lock is flock(2) on the file itself: it needs no lock file, and ends with the process that holds it.
"""

import contextlib
import errno
import json
import os
import stat
import time

from smai_cli.common.files import PRIVATE
from smai_cli.common.locks import open_locked, wait_for_lock

_PIECE_BYTES = 64 * 1024
_FOLDER_MODE = 0o700  # as the XDG base directory specification has it for what it names


def append_line(path: str, line: bytes, wait_s: float) -> None:
    """Append `line`, which ends in a newline, after repairing an incomplete last line.

    A new file is private, and so are the folders that are created for it. Waits at most `wait_s` seconds for the lock
    of another process. A device is written to directly. Raises OSError and writes nothing of the line.
    """
    until_s = time.monotonic() + wait_s
    fd = open_locked(path, lambda: _open_or_make(path), lambda fd: wait_for_lock(fd, until_s))
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            mend_tail(fd)
        append_whole(fd, line)
    finally:
        os.close(fd)


def check_appendable(path: str) -> bool:
    """Return whether the file exists and append_line can use it; False if it can be created. Changes nothing.

    Raises OSError if append_line would fail.
    """
    try:
        fd = _open(path, 0)
    except FileNotFoundError:
        folder = os.path.dirname(os.path.abspath(path))
        while not os.path.lexists(folder):
            folder = os.path.dirname(folder)
        if not os.path.isdir(folder):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None
        return False
    os.close(fd)
    return True


def mend_tail(fd: int) -> None:
    """Make the file `fd`, open for reading and writing, end with a complete line, and seek to its end.

    A killed process or a full disk may have left a line without its newline. A complete JSON object gets its newline,
    anything else is cut off. The caller must hold the lock. Raises OSError.
    """
    end = start = os.lseek(fd, 0, os.SEEK_END)
    pieces: list[bytes] = []
    while start and b"\n" not in (pieces[-1:] or [b""])[0]:
        length = min(start, _PIECE_BYTES)
        start -= length
        pieces.append(os.pread(fd, length, start))
    tail = b"".join(reversed(pieces)).rpartition(b"\n")[2]
    if not tail:
        return
    if _is_object(tail):
        append_whole(fd, b"\n")
    else:
        os.ftruncate(fd, end - len(tail))
        os.lseek(fd, 0, os.SEEK_END)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode("utf-8-sig")), dict)  # some editors put a BOM before the first line
    except (ValueError, RecursionError):  # not JSON, or not UTF-8
        return False


def _open_or_make(path: str) -> int:
    try:
        return _open(path, os.O_CREAT)
    except FileNotFoundError:
        _make_folder(os.path.dirname(path))
        return _open(path, os.O_CREAT)


def _open(path: str, flags: int) -> int:
    """Open a file to append to. Raises OSError, also for a file that could block a writer, or of another owner."""
    # O_NONBLOCK: opening a named pipe would wait for a reader.
    flags |= os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        fd = os.open(path, flags, PRIVATE)
    except ValueError as exc:  # a NUL in the name
        raise OSError(errno.EINVAL, str(exc)) from exc
    try:
        _check_kind(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_kind(fd: int) -> None:
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISCHR(mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    if stat.S_ISREG(mode) and not _is_ours(fd):
        raise OSError(errno.EINVAL, "it does not contain JSON Lines")


def _is_ours(fd: int) -> bool:
    """Return whether a file can be JSON Lines; in any other file, a missing last newline is not damage."""
    head = os.pread(fd, _PIECE_BYTES, 0)
    line, newline, _ = head.partition(b"\n")
    return not head or (_is_object(line) if newline else head.startswith(b"{"))


def _make_folder(path: str) -> None:
    """Create a folder and its parents, all private. Raises OSError."""
    if not path:
        return
    try:
        os.mkdir(path, _FOLDER_MODE)
    except FileExistsError:
        return
    except FileNotFoundError:
        _make_folder(os.path.dirname(path))
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, _FOLDER_MODE)


def append_whole(fd: int, data: bytes) -> None:
    """Append `data` to a file, completely or not at all. Raises OSError."""
    written = 0
    try:
        while written < len(data):
            written += os.write(fd, memoryview(data)[written:])
    except OSError:
        with contextlib.suppress(OSError):
            end = os.lseek(fd, 0, os.SEEK_CUR)
            if written and os.fstat(fd).st_size == end:
                os.ftruncate(fd, end - written)
        raise
