"""Read and append files of lines by descriptor, and find their lines again: other processes can change them."""

import codecs
import contextlib
import os
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from typing import BinaryIO

from smai_cli.batch.results.result import lines_in
from smai_cli.common.files import PRIVATE
from smai_cli.common.jsonl import mend_tail
from smai_cli.errors import UsageError
from smai_cli.output.descriptors import output_error

_PIECE_BYTES = 256 * 1024
_HEAD_BYTES = 64 * 1024


def check_content(fd: int, name: str, *, resumes: bool) -> None:
    """Raise UsageError for a file that this run must not continue. Changes nothing."""
    head = os.pread(fd, _HEAD_BYTES, 0).removeprefix(codecs.BOM_UTF8)
    # A file system may leave NULs in place of the last bytes after a crash: XFS FAQ, "binary NULLs in files".
    if head.strip(b"\0") and not any(line.startswith(b"{") for line in head.split(b"\n")):
        raise UsageError(f"{name} contains lines, but no results", "move it away, or choose another -o")
    if head and not resumes:
        raise UsageError(f"{name} has results of an earlier run", "--resume continues it; to start over, remove it")


def read_lines(fd: int) -> Iterator[tuple[int, bytes]]:
    """Yield the offset and bytes of each line of the file `fd`; adds a missing line end to the last one."""
    with open(fd, "rb", buffering=_PIECE_BYTES, closefd=False) as file:
        file.seek(0)
        for offset, line in lines_in(file):
            yield offset, line if line.endswith(b"\n") else line + b"\n"


@contextlib.contextmanager
def appending(place: str) -> Iterator[BinaryIO]:
    """Provide a writer that appends lines to the file `place`; syncs them at the end. Raises OutputError."""
    try:
        fd = os.open(place, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, PRIVATE)
        try:
            mend_tail(fd)
            with line_writer(fd) as out:
                yield out
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as exc:
        raise output_error(f"{place}: ", exc) from exc


def line_writer(fd: int) -> BinaryIO:
    """Return a file that writes lines to a descriptor, many in one write, and leaves the descriptor open."""
    return open(fd, "ab", buffering=_PIECE_BYTES, closefd=False)


class LineIndex:
    """The offset and checksum of each line that was read or written, in ascending order of offsets.

    A line needs 16 bytes. The checksum is Python's 64-bit hash, so it is valid in this process only.
    """

    def __init__(self) -> None:
        self._offsets = array("q")
        self._checksums = array("q")
        self._reader: BinaryIO | None = None
        self._places: dict[int, int] | None = None  # checksum -> the current offset of the line

    def clear(self) -> None:
        """Forget all lines."""
        del self._offsets[:], self._checksums[:]
        self.forget_places()

    def forget_places(self) -> None:
        """Forget the current offsets of lines: another file has replaced the one that was read."""
        self._reader = self._places = None

    def add(self, offset: int, line: bytes) -> None:
        """Add the line at `offset`, which is larger than all offsets so far."""
        self._offsets.append(offset)
        self._checksums.append(hash(line))

    def checksums(self) -> set[int]:
        """Return the checksums of all lines."""
        return set(self._checksums)

    def read(self, fd: int, offset: int) -> bytes | None:
        """Return the line that was at `offset`, wherever it is now in the file `fd`; None if it is gone."""
        place = bisect_left(self._offsets, offset)
        if place == len(self._offsets) or self._offsets[place] != offset:
            return None
        checksum = self._checksums[place]
        line = self._line_at(fd, offset)
        if hash(line) != checksum:
            if self._places is None:
                self._places = {hash(other): start for start, other in read_lines(fd)}
            line = self._line_at(fd, self._places.get(checksum, offset))
        return line if hash(line) == checksum else None

    def _line_at(self, fd: int, offset: int) -> bytes:
        if self._reader is None:
            self._reader = open(fd, "rb", closefd=False)  # noqa: SIM115  # stays open as long as the run
        self._reader.seek(offset)
        return self._reader.readline()
