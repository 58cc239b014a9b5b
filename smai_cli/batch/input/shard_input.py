"""The lines of one shard of an input: the others are counted, but not parsed."""

import hashlib
from collections.abc import Iterator

from smai_cli.batch.input.lines import is_blank
from smai_cli.batch.input.pin import InputId
from smai_cli.batch.input.shard import Shard
from smai_cli.batch.input.source import Input


class ShardInput(Input):
    """An Input with the lines of `shard` only. There may be none: an input may have fewer lines than shards."""

    def __init__(self, fd: int, name: str, shard: Shard) -> None:
        super().__init__(fd, name)
        self._shard = shard

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield each non-blank line with its number in the whole input. Raises UsageError if reading fails."""
        every, first = self._shard.total, self._shard.number % self._shard.total
        digest, size = hashlib.sha256(), 0
        for number, data in self.all_lines():
            if not self.is_file:
                digest.update(data)
                size += len(data)
            if not self.may_be_empty and not is_blank(data):
                self.may_be_empty = True  # another shard has a line
            if number % every == first and not is_blank(data):
                yield number, data
        if not self.is_file:
            self.identity = InputId(size, digest.hexdigest())
