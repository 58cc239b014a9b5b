"""The partial file: it holds the results of a run until they are complete and are published under their final name.

Other processes can change the file: an editor, a shell's `>>`, or a second run if locks do not work (NFS with local
locks, Lustre with localflock). Publishing deletes the only copy. So this module verifies the file: its end after each
append, its name at each sync, and each line when it is read again for publishing.
"""

import contextlib
import errno
import fcntl
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from smai_cli.batch.results.line_file import LineIndex, appending, check_content, line_writer, read_lines
from smai_cli.batch.results.result import read_result, renumber
from smai_cli.common.files import PRIVATE, keep_owner_and_mode, move_into_place, real_place
from smai_cli.common.jsonl import append_whole, mend_tail
from smai_cli.common.locks import open_locked, wait_for_lock
from smai_cli.common.shortages import opening_failure
from smai_cli.errors import BusyError, OutputError, UsageError
from smai_cli.output.descriptors import output_error, write_hint
from smai_cli.output.outfile import partial_of

_HINT = "choose another -o"
# How long to wait for another run that has the file: an engine may restart a task before the first one has ended.
_LOCK_S = 5.0
# The errors of flock(2) on file systems without locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)


class PartialFile:
    """The partial file for the results in `path`, locked for this run; `name` is its name.

    `resumes`: continue the results of an earlier run; without it there must be none. `say` prints notices. Raises
    UsageError, BusyError if another run has the file, OutputError if it cannot be created.
    """

    def __init__(self, path: str, *, resumes: bool, say: Callable[[str], None] = lambda _: None) -> None:
        self._path_given, self._say = path, say
        self._path, self._old = real_place(path, _HINT)
        self.name = partial_of(self._path)
        self._index = LineIndex()
        self._lock = threading.RLock()  # one thread appends, another one syncs
        self._has_reported = False
        try:
            self._fd = self._open_locked(time.monotonic() + _LOCK_S)
            _, self._old = real_place(path, _HINT)  # the run that had the lock may have created the final file
            check_content(self._fd, self.name, resumes=resumes)
            mend_tail(self._fd)
            self._end = os.lseek(self._fd, 0, os.SEEK_END)
        except OSError as exc:
            raise opening_failure(self.name, exc, write_hint(exc)) from exc
        # Until something is added, the results are in the complete file of an earlier run.
        self._source = self._fd
        if resumes and not self._end and self._old:
            self._source = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    @property
    def is_published(self) -> bool:
        """Whether the results are in the final file, which an earlier run published."""
        return self._source != self._fd

    @property
    def has_results(self) -> bool:
        """Whether an earlier run left results."""
        return bool(self._end) or self.is_published

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield the offset and bytes of each line, and add it to the index."""
        self._index.clear()
        for offset, line in read_lines(self._source):
            self._index.add(offset, line)
            yield offset, line

    def drop(self, offsets: list[int], place: str) -> None:
        """Move the results at `offsets` to the end of the file `place`. Raises OutputError.

        All others keep their order; the caller must read them again. A kill at any moment loses nothing.
        """
        gone = set(offsets)

        def divide(kept: BinaryIO) -> None:
            with appending(place) as aside:
                for offset, line in read_lines(self._source):
                    (aside if offset in gone else kept).write(line)

        self._replace(divide)

    def put_aside(self, offsets: list[int], place: str) -> None:
        """Copy the results at `offsets` to the end of the file `place`. Raises OutputError."""
        lines = [line for offset in offsets if (line := self._index.read(self._fd, offset))]
        if len(lines) < len(offsets):
            raise self._changed_results(len(offsets) - len(lines))
        with appending(place) as aside:
            for line in lines:
                aside.write(line)

    def begin(self) -> None:
        """Copy the results of a published file to this one, before the first result is added. Raises OutputError."""
        if self.is_published:
            self._replace(lambda kept: kept.writelines(line for _, line in read_lines(self._source)))

    def append(self, line: bytes) -> int:
        """Append a line completely or not at all; return its offset. Raises OutputError.

        If another process has written to the file meanwhile, and its bytes are mixed with the line, the line is written
        again.
        """
        with self._lock:
            offset = self._write(line)
            if offset < self._end:
                raise OutputError(
                    f"{self.name}: another process has truncated it",
                    "run again with --resume, which sends what is missing",
                )
            if offset > self._end:
                if not self._has_reported:
                    self._say(f"{self.name}: another process writes to it; its bytes are not results of this run")
                self._has_reported = True
                if os.pread(self._fd, 1, offset - 1) != b"\n":
                    offset = self._write(b"\n" + line) + 1
            self._index.add(offset, line)
            self._end = offset + len(line)
            return offset

    def sync(self) -> None:
        """Sync the file to disk, and check that its name still refers to it. Raises OutputError."""
        try:
            getattr(os, "fdatasync", os.fsync)(self._fd)  # macOS has only fsync
        except OSError as exc:
            raise output_error(f"{self.name}: ", exc) from exc
        self._check_place()

    def publish(self, order: Iterable[tuple[int, int]]) -> None:
        """Write the final file from the lines in `order`, as Plan.order yields it; then delete the partial file.

        Each line is verified when it is read. The file is renamed into place atomically, and the partial file is
        deleted only after it is on disk. Raises OutputError and keeps the partial file.
        """
        self._check_place()
        new = self._new_name()
        try:
            is_ours = self._write_in_order(new, order)
            move_into_place(new, self._path)
            if not is_ours():
                raise OutputError(
                    f"{self._path_given}: another process has replaced it",
                    f"all results are in {self.name}; run again with --resume",
                )
            if self._has_reported or os.fstat(self._fd).st_size != self._end:
                self._put_changed_aside()
            self._remove()
        except OSError as exc:
            raise OutputError(
                f"{self._path_given}: {exc.strerror}",
                f"all results are in {self.name}; fix the problem, then run again with --resume",
            ) from exc
        finally:
            with contextlib.suppress(OSError):
                os.unlink(new)

    def leave(self) -> None:
        """Delete the file if it is empty."""
        with contextlib.suppress(OSError):
            if not os.fstat(self._fd).st_size:
                self._remove()

    def _remove(self) -> None:
        """Delete this run's partial file, and the leftovers of killed runs. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.lstat(self.name), os.fstat(self._fd)):
                os.unlink(self.name)
        folder, start = os.path.dirname(self.name) or ".", f"{os.path.basename(self.name)}.new-"
        for left in os.listdir(folder):
            if left.startswith(start):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(folder, left))

    def _new_name(self) -> str:
        # Unique, so that no other run writes to it even if locks do not work.
        return f"{self.name}.new-{os.urandom(4).hex()}"

    def _write(self, data: bytes) -> int:
        """Append `data` completely or not at all; return its offset. Raises OutputError."""
        try:
            append_whole(self._fd, data)
        except OSError as exc:
            raise output_error(f"{self.name}: ", exc) from exc
        return os.lseek(self._fd, 0, os.SEEK_CUR) - len(data)

    def _check_place(self) -> None:
        """Restore the file's name if it was removed. Raises OutputError if that fails, or another file has it."""
        with self._lock:
            try:
                if os.path.samestat(os.lstat(self.name), os.fstat(self._fd)):
                    return
            except OSError:
                folder = os.path.dirname(self.name)
                if not os.path.isdir(folder):
                    raise self._lost_folder(folder) from None
                self._replace(lambda kept: kept.writelines(line for _, line in read_lines(self._fd)))
                self._say(f"{self.name}: it was removed while the run wrote to it, and has been restored")
                return
            copy = f"{self.name}.{os.getpid()}"
            with appending(copy) as kept:
                kept.writelines(line for _, line in read_lines(self._fd))
            raise OutputError(
                f"{self.name}: another process has replaced it",
                f"the results of this run are in {copy}: append them to it, then run again with --resume",
            )

    def _lost_folder(self, folder: str) -> OutputError:
        if os.fstat(self._fd).st_nlink:
            return OutputError(f"{folder} was moved away while the run wrote to it", "move it back, then use --resume")
        return OutputError(
            f"{folder} was removed while the run wrote to it, and the results with it", "create it again"
        )

    def _replace(self, fill: Callable[[BinaryIO], None]) -> None:
        """Replace the partial file atomically with what `fill` writes. Raises OutputError."""
        new = self._new_name()
        try:
            fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, PRIVATE)
            try:
                keep_owner_and_mode(fd, os.fstat(self._fd))
                with contextlib.suppress(OSError):
                    fcntl.flock(fd, fcntl.LOCK_EX)
                with line_writer(fd) as kept:
                    fill(kept)
                os.fsync(fd)
                move_into_place(new, self.name)
            except BaseException:
                os.close(fd)
                with contextlib.suppress(OSError):
                    os.unlink(new)
                raise
        except OSError as exc:
            raise output_error(f"{self.name}: ", exc) from exc
        if self.is_published:
            os.close(self._source)
        os.close(self._fd)
        self._fd = self._source = fd
        self._index.forget_places()
        self._end = os.lseek(fd, 0, os.SEEK_END)

    def _write_in_order(self, new: str, order: Iterable[tuple[int, int]]) -> Callable[[], bool]:
        """Write the lines to the file `new` and sync it; return a function that checks that `path` is that file.

        Raises OSError, and OutputError if lines have changed.
        """
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE if self._old else 0o666)
        try:
            if self._old:
                keep_owner_and_mode(fd, self._old)
            damaged = 0
            with line_writer(fd) as out:
                for offset, number in order:
                    line = self._index.read(self._fd, offset)
                    if line is None:
                        damaged += 1
                    else:
                        out.write(renumber(line, number) if number else line)
            if damaged:
                self._put_changed_aside()
                raise self._changed_results(damaged)
            os.fsync(fd)
            ours = os.fstat(fd)
        finally:
            os.close(fd)
        return lambda: os.path.samestat(os.stat(self._path), ours) and os.stat(self._path).st_size == ours.st_size

    def _put_changed_aside(self) -> None:
        """Move results that another process wrote or changed to the .stale file: the next run would trust them.

        They may be the only copy of paid answers.
        """
        known = self._index.checksums()
        changed = [
            offset for offset, line in read_lines(self._fd) if hash(line) not in known and read_result(line) is not None
        ]
        if changed:
            self.drop(changed, f"{self._path_given}.stale")

    def _changed_results(self, count: int) -> OutputError:
        return OutputError(
            f"{self.name}: another process has changed results in it: {count}",
            "run again with --resume, which sends these lines again",
        )

    def _open_locked(self, until_s: float) -> int:
        """Open the file, make it if need be, and lock it. Raises UsageError, BusyError, OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        mode = PRIVATE if self._old else 0o666
        return open_locked(
            self.name, lambda: os.open(self.name, flags, mode), lambda fd: self._wait_for_lock(fd, until_s)
        )

    def _wait_for_lock(self, fd: int, until_s: float) -> None:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise UsageError(f"{self.name} is not a regular file", f"move it away, or {_HINT}")
        try:
            wait_for_lock(fd, until_s)
        except BlockingIOError as exc:
            raise BusyError(f"another run is writing {self._path_given}", "wait for it, or choose another -o") from exc
        except OSError as exc:
            if exc.errno not in _NO_LOCKS:
                raise
            self._say(f"{self.name}: this file system has no locks; make sure that only one run writes to it")
