"""The files of `--output`, for a complete answer or nothing, and of `--record`, for the bytes of the body."""

import contextlib
import os
import stat
from collections.abc import Callable

from smai_cli.common.files import PRIVATE, keep_owner_and_mode, move_into_place, real_place
from smai_cli.common.locks import open_locked, wait_for_lock
from smai_cli.common.shortages import opening_failure
from smai_cli.errors import BusyError, OutputError, Retry, UsageError
from smai_cli.output.descriptors import FileOutput, write_hint
from smai_cli.stream.listener import Listener

_HINT = "choose another -o, or use > for a device or a pipe"


def output_place(path: str) -> str:
    """Return the real path of the file of `--output`. Raises UsageError if it cannot be replaced."""
    return real_place(path, _HINT)[0]


def partial_of(place: str) -> str:
    """Return the name of the partial file."""
    return f"{place}.partial"


class OutFile:
    """Writes the file `path`: first to `output`, a partial file next to it with the suffix .partial.

    Raises UsageError if `path` cannot be replaced, BusyError if another run is writing it, OutputError if it cannot be
    written.
    """

    def __init__(self, path: str) -> None:
        self._name = path
        self._path, old = real_place(path, _HINT)
        self._partial = partial_of(self._path)
        try:
            self._fd = self._open(PRIVATE if old else 0o666)
            if old:
                keep_owner_and_mode(self._fd, old)
        except OSError as exc:
            raise opening_failure(self._partial, exc, "check the directory, or choose another -o") from exc
        self.output = FileOutput(self._fd, self._partial)

    def prepare(self) -> None:
        """Sync the partial file to disk. Raises OutputError."""
        try:
            os.fsync(self._fd)
        except OSError as exc:
            raise self._failure(exc) from exc

    def commit(self) -> None:
        """Rename the partial file into place, atomically. Raises OutputError and leaves the old file unchanged."""
        try:
            move_into_place(self._partial, self._path)
        except OSError as exc:
            raise self._failure(exc) from exc

    def leave(self) -> None:
        """Keep the partial file of a broken answer; delete it if it is empty."""
        if not self.output.written:
            with contextlib.suppress(OSError):
                os.unlink(self._partial)

    def _failure(self, exc: OSError) -> OutputError:
        return OutputError(f"{self._name}: {exc.strerror}", f"the answer is in {self._partial}")

    def _open(self, mode: int) -> int:
        """Create and lock the partial file. Raises OSError, or BusyError if another run has it.

        A leftover of an earlier run is not reused: it may have the mode of another umask, or a second name.
        """

        def lock(fd: int) -> None:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise UsageError(f"{self._partial} is not a regular file", "move it away, or choose another -o")
            _lock(fd, self._name)

        while True:
            fd, is_new = _open_locked(self._partial, lock, os.O_NOFOLLOW | os.O_NONBLOCK, mode)
            if is_new:
                return fd
            os.unlink(self._partial)
            os.close(fd)


class Tape(FileOutput, Listener):
    """The file `path` of `--record`; the first piece of a try replaces what is in it.

    Raises BusyError if another run is writing it, OutputError if it cannot be written.
    """

    def __init__(self, path: str) -> None:
        try:
            fd, self._is_new = _open_locked(path, lambda fd: _lock(fd, path))
        except OSError as exc:
            raise opening_failure(path, exc, write_hint(exc)) from exc
        super().__init__(fd, path)
        self.begin()

    def begin(self) -> None:
        """Record that the next bytes belong to a new try."""
        self._begins = True

    def piece(self, data: bytes) -> None:
        """Write the bytes."""
        if self._begins:
            with contextlib.suppress(OSError):  # a device
                os.ftruncate(self.fd, 0)
                os.lseek(self.fd, 0, os.SEEK_SET)
            self._begins = False
        self.write(data)

    def leave(self) -> None:
        """Delete the file if it is new and empty."""
        if self._is_new and not self.written:
            with contextlib.suppress(OSError):
                os.unlink(self.name)


def _open_locked(path: str, lock: Callable[[int], None], flags: int = 0, mode: int = 0o666) -> tuple[int, bool]:
    """Open a file for writing without truncating it, and `lock` it; return the descriptor, and whether it is new.

    Raises OSError, and what `lock` raises.
    """
    is_new = False
    flags |= os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC

    def open_file() -> int:
        nonlocal is_new
        try:
            fd, is_new = os.open(path, flags | os.O_EXCL, mode), True
        except FileExistsError:
            fd, is_new = os.open(path, flags, mode), False
        return fd

    return open_locked(path, open_file, lock), is_new


def _lock(fd: int, name: str) -> None:
    """Lock a regular file, which a message calls `name`, for this run. Raises BusyError if another run has it."""
    try:
        wait_for_lock(fd)
    except BlockingIOError as exc:
        raise BusyError(
            f"another run is writing {name}", "wait for it, or choose another file", retry=Retry.NEVER
        ) from exc
