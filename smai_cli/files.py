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


def keep_owner_and_mode(fd: int, old: os.stat_result) -> None:
    """Give the file `fd` the permissions of the one that it replaces, and its owner where that is allowed."""
    with contextlib.suppress(OSError):
        os.fchown(fd, old.st_uid, old.st_gid)
    os.fchmod(fd, stat.S_IMODE(old.st_mode))


def _too_large(name: str, limit_bytes: int) -> UsageError:
    return UsageError(f"{name} is larger than {limit_bytes // 1024 // 1024} MiB", "send less")
