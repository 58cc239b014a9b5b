"""Files named on the command line -> their bytes or their text, whole or not at all."""

import contextlib
import os
import stat

from smai_cli.errors import UsageError
from smai_cli.prompt import piped_text

_PIECE_BYTES = 1024 * 1024
# What a person may mean to send; a device that never ends is none of it.
LIMIT_BYTES = 64 * 1024 * 1024


def read_file(path: str, name: str, limit_bytes: int = LIMIT_BYTES) -> bytes:
    """Return the bytes of a file or a pipe; `name` is what a message calls it.

    Raises UsageError if it cannot be read, is a folder, or is larger than `limit_bytes`.
    """
    data = bytearray()
    try:
        with open(path, "rb", buffering=0) as file:
            while len(data) <= limit_bytes and (piece := file.read(_PIECE_BYTES)):
                data += piece
    except OSError as exc:
        raise UsageError(f"{name}: {exc.strerror}", "name a file that can be read") from exc
    except ValueError as exc:  # a NUL in the name
        raise UsageError(f"{name}: {exc}", "name a file that can be read") from exc
    if len(data) > limit_bytes:
        raise _too_large(name, limit_bytes)
    return bytes(data)


def read_text(path: str, name: str, limit_bytes: int = LIMIT_BYTES) -> str:
    """Return the text of a file: UTF-8, or UTF-16 with a byte order mark. Raises UsageError."""
    return piped_text(read_file(path, name, limit_bytes), name)


def replace_file(path: str, new: str, data: bytes, mode: int = 0o666) -> None:
    """Make `data` the content of `path` in one step that a crash cannot halve, by way of a file `new` beside it.

    A file that is there keeps its permissions; one that is made has `mode`, less the umask. Raises OSError, and
    `path` is as it was.
    """
    with contextlib.suppress(FileNotFoundError):  # of a run that was killed
        os.unlink(new)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with contextlib.suppress(FileNotFoundError):
            keep_owner_and_mode(fd, os.stat(path))
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
        move_into_place(new, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise
    finally:
        os.close(fd)


def move_into_place(new: str, path: str) -> None:
    """Rename `new`, which is on the disk, to `path`, so that the name outlives a crash too. Raises OSError."""
    os.replace(new, path)
    with contextlib.suppress(OSError):  # not every file system can
        folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def keep_owner_and_mode(fd: int, old: os.stat_result) -> None:
    """Give the file `fd` the permissions of the one that it replaces, and its owner where that is allowed."""
    with contextlib.suppress(OSError):
        os.fchown(fd, old.st_uid, old.st_gid)
    os.fchmod(fd, stat.S_IMODE(old.st_mode))


def _too_large(name: str, limit_bytes: int) -> UsageError:
    return UsageError(f"{name} is larger than {limit_bytes // 1024 // 1024} MiB", "send less")
