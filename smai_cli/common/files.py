"""Read the files that the command line names, and replace files atomically."""

import codecs
import contextlib
import errno
import io
import math
import os
import select
import stat
from collections.abc import Callable
from typing import BinaryIO

from smai_cli.common.clocks import Deadline
from smai_cli.errors import UsageError

_PIECE_BYTES = 1024 * 1024
_PIPE_BYTES = 64 * 1024
NOTICE_AFTER_S = 3.0
# The limit for a file to send; it stops an endless device.
LIMIT_BYTES = 64 * 1024 * 1024
UTF16_BOMS = {codecs.BOM_UTF16_LE: "UTF-16-LE", codecs.BOM_UTF16_BE: "UTF-16-BE"}
# The permissions of a new file until it gets those of the old one.
PRIVATE = 0o600
_FOLDERS = ("", ".", "..")
STDIN = 0
# The name of stdin in options that read a file.
STDIN_NAME = "-"

# Returns the bytes of a named file, or of stdin for `-`, up to a limit (None: the usual limit).
# Raises UsageError.
Read = Callable[[str, int | None], bytes]


def shown_name(path: str) -> str:
    """Return what a message calls a file that an option names."""
    return "stdin" if path == STDIN_NAME else path


def file_named_in(value: str) -> str | None:
    """Return the file name after the `@` in the value of an option; None if the value is a text."""
    return value[1:] if value.startswith("@") and not value.startswith("@@") else None


def text_of_value(value: str, read: Read, option: str) -> str:
    """Return the text of a value: the text of the file after an `@`, or the value itself; `@@` means a literal @.

    `option` is the name of the option in messages. Raises UsageError.
    """
    path = file_named_in(value)
    if path is None:
        return value[1:] if value.startswith("@@") else value
    if not path:
        raise UsageError(f"{option} @ needs a file name", "put the name after the @, or write @@ for a literal @")
    return text_in(read(path, None), shown_name(path))


def read_named(path: str, limit_bytes: int | None = None) -> bytes:
    """Return the bytes of a file that an option names (not stdin). Raises UsageError."""
    return read_file(path, path, limit_bytes or LIMIT_BYTES)


def read_file(path: str, name: str, limit_bytes: int, hint: str = "name a file that can be read") -> bytes:
    """Return the bytes of a file or a pipe; `name` is its name in messages.

    Raises UsageError, with `hint`, if it cannot be read, is a folder, or is larger than `limit_bytes`.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            return read_open(file, name, limit_bytes)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the name
        raise UsageError(f"{name}: {getattr(exc, 'strerror', None) or exc}", hint) from exc


def open_to_read(path: str, hint: str) -> int:
    """Open a file, and return its descriptor. Raises UsageError, with `hint`."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise UsageError(f"{path}: {exc.strerror}", hint) from exc


def read_all(
    fd: int,
    notice: Callable[[], None],
    hint: str = "check where the input comes from, or use -n",
    limit_bytes: float = math.inf,
    deadline: Deadline | None = None,
) -> bytes:
    """Read `fd` to its end and return the bytes; call `notice` if nothing arrives within NOTICE_AFTER_S.

    Without a deadline it has no time limit, which would lose data. A descriptor that is closed, or open only for
    writing (as nohup leaves stdin), counts as empty. Raises UsageError, with `hint`, if reading fails, and for more
    than `limit_bytes`; ClockError at the deadline.
    """
    deadline = deadline or Deadline()
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    pieces: list[bytes] = []
    left, patience_s = limit_bytes, NOTICE_AFTER_S
    while True:
        limit_s = max(0.0, min(patience_s, deadline.left_s()))
        if not poller.poll(None if limit_s == math.inf else limit_s * 1000):
            if deadline.left_s() <= 0:
                raise deadline.error()
            notice()
            patience_s = math.inf
            continue
        try:
            piece = os.read(fd, _PIPE_BYTES)
        except BlockingIOError:  # a non-blocking pipe or terminal, shared with the parent process
            continue
        except OSError as exc:
            if exc.errno == errno.EBADF:
                return b""
            raise UsageError(f"stdin: {exc.strerror}", hint) from exc
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        patience_s = math.inf
        left -= len(piece)
        if left < 0:
            raise too_large("stdin", int(limit_bytes))


def read_open(file: io.FileIO, name: str, limit_bytes: int) -> bytes:
    """Return the rest of an open file. Raises UsageError if it is larger than `limit_bytes`, and OSError."""
    data = bytearray()
    while piece := file.read(_PIECE_BYTES):
        data += piece
        if len(data) > limit_bytes:
            raise too_large(name, limit_bytes)
    return bytes(data)


def text_in(data: bytes, name: str = "stdin") -> str:
    """Decode the bytes of stdin or a file: UTF-8 without its BOM, or UTF-16 if there is a BOM for it.

    `name` is the name of the source in messages. Raises UsageError with the offset of the first byte that cannot be
    decoded.
    """
    if data.startswith(codecs.BOM_UTF32_LE):  # it begins with that of UTF-16
        raise UsageError(f"{name} is not UTF-8, but UTF-32", "convert it with iconv")
    encoding = UTF16_BOMS.get(data[:2])
    if encoding:
        try:
            return data[2:].decode(encoding)
        except UnicodeDecodeError as exc:
            raise UsageError(
                f"{name} is not {encoding} at byte offset {exc.start + 2}", "convert it with iconv"
            ) from exc
    return utf8_in(data, name).removeprefix("\ufeff")


def utf8_in(data: bytes, name: str) -> str:
    """Decode UTF-8. Raises UsageError with the offset of the first byte that is not valid."""
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise UsageError(
            f"{name} is not UTF-8: byte 0x{data[exc.start]:02x} at byte offset {exc.start}",
            "convert it with iconv",
        ) from exc


def too_large(name: str, limit_bytes: int) -> UsageError:
    """Return the failure for an input of more than `limit_bytes`."""
    return UsageError(f"{name} is larger than {limit_bytes // 1024 // 1024} MiB", "shorten the input")


def real_place(path: str, hint: str) -> tuple[str, os.stat_result | None]:
    """Return the real path of a file to be replaced, and its stat result (None: it does not exist).

    A symbolic link is kept: its target is replaced. Changes nothing. Raises UsageError, with `hint`, if the file cannot
    be replaced.
    """
    try:
        real = os.path.realpath(path)
    except OSError as exc:  # the current folder was removed, and the name is relative
        raise UsageError(f"{path}: there is no current directory: {exc.strerror}", "go to another one") from exc
    try:
        old = os.stat(path)
    except FileNotFoundError:
        if os.path.basename(path) in _FOLDERS:
            raise UsageError(f"{path} is the name of a directory", "name a file") from None
        return real, None
    except (OSError, ValueError) as exc:
        raise UsageError(f"{path}: {getattr(exc, 'strerror', None) or exc}", hint) from exc
    # A name under /dev/fd may be a pipe, or a removed file: neither can be replaced.
    if not stat.S_ISREG(old.st_mode) or not os.path.exists(real):
        raise UsageError(f"{path} is not a regular file", hint)
    if not os.access(real, os.W_OK):
        raise UsageError(f"{path} may not be written", hint)
    return real, old


def open_regular(path: str) -> BinaryIO:
    """Open a regular file, or the null device, for reading; anything else might block forever.

    Raises OSError.
    """
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115  # returned
    opened = os.fstat(file.fileno())
    if not stat.S_ISREG(opened.st_mode) and not _is_null_device(opened):
        file.close()
        raise OSError(errno.EINVAL, "it is not a regular file")
    return file


def _is_null_device(opened: os.stat_result) -> bool:
    try:
        return opened.st_rdev == os.stat(os.devnull).st_rdev
    except OSError:  # a chroot, or a container without devices
        return False


def replace_file(path: str, new: str, data: bytes, mode: int = 0o666) -> None:
    """Replace the content of `path` with `data` atomically, by way of a file `new` in the same folder.

    An existing file keeps its permissions; a new one gets `mode`, less the umask. Raises OSError and leaves `path`
    unchanged.
    """
    write_beside(path, new, data, mode)
    try:
        move_into_place(new, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise


def write_beside(path: str, new: str, data: bytes, mode: int = 0o666) -> None:
    """Write `data` to the file `new`, which will replace `path`, and sync it. Raises OSError and removes `new`."""
    with contextlib.suppress(FileNotFoundError):  # left by a killed run
        os.unlink(new)
    old = None
    with contextlib.suppress(FileNotFoundError):
        old = os.stat(path)
    # Private until it has the permissions of the old file: a process that opens it earlier could keep reading.
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE if old else mode)
    try:
        if old:
            keep_owner_and_mode(fd, old)
        write_all(fd, data)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Append all of `data` to the file `fd`, and sync it. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.fsync(fd)


def move_into_place(new: str, path: str) -> None:
    """Rename `new`, which is synced, to `path`, and sync the folder. Raises OSError."""
    os.replace(new, path)
    with contextlib.suppress(OSError):  # not supported by every file system
        folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def keep_owner_and_mode(fd: int, old: os.stat_result) -> None:
    """Give the file `fd` the permissions of the file that it replaces, and its owner if allowed."""
    with contextlib.suppress(OSError):
        os.fchown(fd, old.st_uid, old.st_gid)
    os.fchmod(fd, stat.S_IMODE(old.st_mode))
