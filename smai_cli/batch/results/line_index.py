"""Where each line of a file of results begins, with a checksum: what a run knows of a file that others can change."""

from array import array
from bisect import bisect_left
from typing import BinaryIO

from smai_cli.batch.results.line_file import read_lines


class LineIndex:
    """The offset and the checksum of each line that was read or written, in ascending order of the offsets.

    A line needs 16 bytes. The checksum is Python's own hash of 64 bits, so it is for this process only.
    """

    def __init__(self) -> None:
        self._offsets = array("q")
        self._checksums = array("q")
        self._reader: BinaryIO | None = None
        self._places: dict[int, int] | None = None  # where each line is now, by its checksum

    def clear(self) -> None:
        """Forget all lines."""
        del self._offsets[:], self._checksums[:]
        self.forget_places()

    def forget_places(self) -> None:
        """Forget where lines are now: another file has taken the place of the one that was read."""
        self._reader = self._places = None

    def add(self, offset: int, line: bytes) -> None:
        """Remember the line at `offset`, which is larger than all before."""
        self._offsets.append(offset)
        self._checksums.append(hash(line))

    def checksums(self) -> set[int]:
        """Return the checksums of all lines."""
        return set(self._checksums)

    def read(self, fd: int, offset: int) -> bytes | None:
        """Return the line that was at `offset`, wherever it is now in the file `fd`; None where it is nowhere."""
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
            self._reader = open(fd, "rb", closefd=False)  # noqa: SIM115  # it lives as long as the run
        self._reader.seek(offset)
        return self._reader.readline()
