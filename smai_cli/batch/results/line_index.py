"""The offset and checksum of each line of a file of results, which other processes can change."""

from array import array
from bisect import bisect_left
from typing import BinaryIO

from smai_cli.batch.results.line_file import read_lines


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
