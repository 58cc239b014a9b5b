"""The lines of one shard of an input: the others are counted, but not parsed."""

import hashlib
import os
from array import array
from collections.abc import Iterator

from smai_cli.batch.input.lines import is_blank
from smai_cli.batch.input.pin import InputId
from smai_cli.batch.input.shard import Shard
from smai_cli.batch.input.source import Input, Start
from smai_cli.errors import UsageError


class ShardInput(Input):
    """An Input with the lines of `shard` only. There may be none: an input may have fewer lines than shards.

    A regular file is read completely once; then the places of its lines are known. The file may be large and on a
    network, and all tasks of an array read it.
    """

    def __init__(self, fd: int, name: str, shard: Shard) -> None:
        super().__init__(fd, name)
        self._shard = shard
        self._places: array[int] | None = None  # the number, the offset and the length of each line

    def lines(self, start: Start | None = None) -> Iterator[tuple[int, int, bytes]]:
        """Yield each non-blank line with its number in the whole input. Raises UsageError if reading fails."""
        return self._all() if self._places is None else self._known_lines(self._places, start.number if start else 1)

    def _all(self) -> Iterator[tuple[int, int, bytes]]:
        every, first = self._shard.total, self._shard.number % self._shard.total
        places = array("q")
        digest, size = hashlib.sha256(), 0
        for number, offset, data in self.all_lines():
            if not self.is_file:
                digest.update(data)
                size += len(data)
            if not self.may_be_empty and not is_blank(data):
                self.may_be_empty = True  # another shard has a line
            if number % every == first and not is_blank(data):
                if self.is_file:
                    places.extend((number, offset, len(data)))
                yield number, offset, data
        if self.is_file:
            self._places = places
        else:
            self.identity = InputId(size, digest.hexdigest())

    def _known_lines(self, places: "array[int]", first: int) -> Iterator[tuple[int, int, bytes]]:
        for at in range(0, len(places), 3):
            number, offset, length = places[at : at + 3]
            if number >= first:
                yield number, offset, self._read(number, offset, length)

    def _read(self, number: int, offset: int, length: int) -> bytes:
        data = b""
        try:
            while len(data) < length and (piece := os.pread(self._fd, length - len(data), offset + len(data))):
                data += piece
        except OSError as exc:
            raise UsageError(f"{self.name}: {exc.strerror}", "check where the lines come from") from exc
        if len(data) < length:
            raise UsageError(f"{self.name}: line {number} is gone", "do not change the file during the run")
        return data
