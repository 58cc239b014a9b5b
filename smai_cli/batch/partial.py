"""The file of results in the making: locked, mended, appended to, and at last put into order under its own name."""

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from smai_cli.batch.results import renumbered
from smai_cli.errors import BusyError, OutputError, UsageError, opening_failure
from smai_cli.files import PRIVATE, keep_owner_and_mode, move_into_place, real_place
from smai_cli.jsonl import mend_tail, wait_for_lock
from smai_cli.output.descriptors import output_error, write_hint
from smai_cli.output.outfile import partial_of

_HINT = "choose another -o"
# How long a run that has the file is waited for: an engine may start a task again before the first one is dead.
_LOCK_S = 5.0
_FLUSH_BYTES = 256 * 1024
_HEAD_BYTES = 64 * 1024


class PartialFile:
    """The results of `path` in the making, for this run alone; `name` is what a message calls the file.

    `resumes` says that results of an earlier run are wanted; without it there must be none. Raises UsageError,
    BusyError where another run has it, OutputError where it cannot be made.
    """

    def __init__(self, path: str, *, resumes: bool) -> None:
        self._name = path
        self._reader: BinaryIO | None = None
        self._path, self._old = real_place(path, _HINT)
        self.name = partial_of(self._path)
        try:
            self._fd = self._locked(time.monotonic() + _LOCK_S)
            self._check_content(resumes=resumes)
            mend_tail(self._fd)
            self._end = os.lseek(self._fd, 0, os.SEEK_END)
        except OSError as exc:
            raise opening_failure(self.name, exc, write_hint(exc)) from exc
        # The whole file of an earlier run is where its results are, until there is something to add.
        self._source = self._fd
        if resumes and not self._end and self._old:
            self._source = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    @property
    def is_whole(self) -> bool:
        """Whether the results stand in the file itself, which an earlier run has put into place."""
        return self._source != self._fd

    @property
    def has_results(self) -> bool:
        """Whether an earlier run has left results."""
        return bool(self._end) or self.is_whole

    def _check_content(self, *, resumes: bool) -> None:
        """Raise UsageError for a file that is not to be gone on with; nothing of it is touched."""
        head = os.pread(self._fd, _HEAD_BYTES, 0)
        if head and not any(line.startswith(b"{") for line in head.split(b"\n")):
            raise UsageError(f"{self.name} holds something else than results", f"move it away, or {_HINT}")
        if head and not resumes:
            raise UsageError(
                f"{self.name} has results of an earlier run", "--resume goes on with it; to begin anew, remove it"
            )

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield each line of results, with its offset."""
        offset = 0
        with open(self._source, "rb", closefd=False) as file:
            file.seek(0)
            for line in file:
                yield offset, line
                offset += len(line)

    def drop(self, offsets: list[int], place: str) -> None:
        """Move the results at `offsets` to the end of the file `place`. Raises OutputError.

        All others stay in their order; the caller reads them again. A kill at any moment loses none.
        """
        try:
            aside = os.open(place, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, PRIVATE)
            try:
                mend_tail(aside)
                self._rewrite(set(offsets), aside)
            finally:
                os.close(aside)
        except OSError as exc:
            raise output_error(f"{place}: ", exc) from exc

    def put_aside(self, offsets: list[int], place: str) -> None:
        """Copy the results at `offsets` to the end of the file `place`. Raises OutputError."""
        try:
            aside = os.open(place, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, PRIVATE)
            try:
                mend_tail(aside)
                with contextlib.closing(_Batched(aside)) as out:
                    for offset in offsets:
                        out.write(self._line_at(offset))
                os.fsync(aside)
            finally:
                os.close(aside)
        except OSError as exc:
            raise output_error(f"{place}: ", exc) from exc

    def begin(self) -> None:
        """Have the results of the whole file of an earlier run in this one, before the first is added.

        Raises OutputError.
        """
        if not self.is_whole:
            return
        try:
            self._rewrite(set(), self._fd)
        except OSError as exc:
            raise output_error(f"{self.name}: ", exc) from exc

    def _rewrite(self, gone: set[int], aside: int) -> None:
        """Make another partial file of the lines that are there, but for those at `gone`, which go to `aside`.

        It comes into place in one step: half of it would be taken for all. Raises OSError.
        """
        new = f"{self.name}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        kept = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, PRIVATE)
        try:
            keep_owner_and_mode(kept, os.fstat(self._fd))
            fcntl.flock(kept, fcntl.LOCK_EX)
            with contextlib.closing(_Batched(kept)) as to_kept, contextlib.closing(_Batched(aside)) as to_aside:
                for offset, line in self.lines():
                    whole = line if line.endswith(b"\n") else line + b"\n"
                    (to_aside if offset in gone else to_kept).write(whole)
            if gone:
                os.fsync(aside)
            os.fsync(kept)
            move_into_place(new, self.name)
        except OSError:
            os.close(kept)
            with contextlib.suppress(OSError):
                os.unlink(new)
            raise
        if self.is_whole:
            os.close(self._source)
        os.close(self._fd)
        self._fd = self._source = kept
        self._end = os.lseek(kept, 0, os.SEEK_END)

    def append(self, line: bytes) -> int:
        """Put a line at the end, whole or not at all; return its offset. Raises OutputError."""
        offset, rest = self._end, memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as exc:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, offset)
            raise output_error(f"{self.name}: ", exc) from exc
        self._end += len(line)
        return offset

    def sync(self) -> None:
        """Have what was added on the disk. Raises OutputError."""
        try:
            getattr(os, "fdatasync", os.fsync)(self._fd)  # macOS has the second only
        except OSError as exc:
            raise output_error(f"{self.name}: ", exc) from exc

    def publish(self, order: Iterable[tuple[int, int]]) -> None:
        """Make the lines in `order`, as Plan.order has it, the file, in one step that outlives a crash.

        Raises OutputError. Then there is no partial file any more.
        """
        new = f"{self.name}.new"
        try:
            self._write_in_order(new, order)
            move_into_place(new, self._path)
            os.unlink(self.name)
        except OSError as exc:
            with contextlib.suppress(OSError):
                os.unlink(new)
            raise OutputError(
                f"{self._name}: {exc.strerror}", f"all results are in {self.name}; mend it, then run it with --resume"
            ) from exc

    def leave(self) -> None:
        """Leave nothing where nothing came."""
        if not self._end:
            with contextlib.suppress(OSError):
                os.unlink(self.name)

    def _line_at(self, offset: int) -> bytes:
        if self._reader is None:
            self._reader = open(self._fd, "rb", closefd=False)  # noqa: SIM115  # it lives as long as the run
        self._reader.seek(offset)
        return self._reader.readline()

    def _write_in_order(self, new: str, order: Iterable[tuple[int, int]]) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE if self._old else 0o666)
        try:
            if self._old:
                keep_owner_and_mode(fd, self._old)
            with contextlib.closing(_Batched(fd)) as out:
                for offset, number in order:
                    line = self._line_at(offset)
                    out.write(renumbered(line, number) if number else line)
            os.fsync(fd)
        finally:
            os.close(fd)

    def _locked(self, until_s: float) -> int:
        """Open the file, make it if need be, and lock it. Raises UsageError, BusyError, OSError."""
        while True:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            fd = os.open(self.name, flags, PRIVATE if self._old else 0o666)
            try:
                self._lock(fd, until_s)
                with contextlib.suppress(FileNotFoundError):  # its last user has put it into place
                    if os.path.samestat(os.stat(self.name), os.fstat(fd)):
                        return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def _lock(self, fd: int, until_s: float) -> None:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise UsageError(f"{self.name} is no regular file", f"move it away, or {_HINT}")
        try:
            wait_for_lock(fd, until_s)
        except BlockingIOError as exc:
            raise BusyError(f"another run is writing {self._name}", "wait for it, or choose another -o") from exc


class _Batched:
    """Lines to a descriptor, many in one write."""

    def __init__(self, fd: int) -> None:
        self._file: BinaryIO = open(fd, "ab", buffering=_FLUSH_BYTES, closefd=False)  # noqa: SIM115  # closed below

    def write(self, line: bytes) -> None:
        """Write a line, now or later."""
        self._file.write(line)

    def close(self) -> None:
        """Have all of it written. Raises OSError."""
        self._file.close()
