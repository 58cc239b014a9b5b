"""The lines of an input, a regular file or a pipe, with their numbers."""

import codecs
import hashlib
import io
import os
import stat
import time
from collections.abc import Iterator

from smai_cli.batch.input.lines import is_blank
from smai_cli.batch.input.pin import InputId
from smai_cli.batch.input.shard import Shard
from smai_cli.errors import UsageError

# The limit for one line: larger than any real prompt.
_LINE_BYTES = 256 * 1024 * 1024
# The resolution of file times: 2 s on FAT, a few milliseconds on most file systems.
_FRESH_NS = 2_000_000_000


class Input:
    """The lines of a descriptor; `name` is its name in messages. A regular file is read from its current offset.

    With `shard`, it has the lines of that shard only. There may be none: an input may have fewer lines than shards.
    `may_be_empty`: having no lines is not an error. `identity` identifies the input of a pipe, once it has ended; only
    a shard has one.
    """

    def __init__(self, fd: int, name: str, shard: Shard | None = None) -> None:
        self.name = name
        self.may_be_empty = False
        self.identity: InputId | None = None
        self._shard = shard
        self.is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        self._fd = fd
        self._version = _version_of(fd)
        self._is_fresh = time.time_ns() - os.fstat(fd).st_mtime_ns < _FRESH_NS
        self._start = os.lseek(fd, 0, os.SEEK_CUR) if self.is_file else 0

    @property
    def file(self) -> int | None:
        """The descriptor of a regular file; None for a pipe."""
        return self._fd if self.is_file else None

    def has_changed(self) -> bool:
        """Return whether a regular file may have changed since it was opened, by its size and its times.

        A file that was written just before may have been written again without a change of either.
        """
        return self.is_file and (self._is_fresh or _version_of(self._fd) != self._version)

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield each non-blank line with its number in the whole input. Raises UsageError if reading fails."""
        every, first = (self._shard.total, self._shard.number % self._shard.total) if self._shard else (1, 0)
        is_identified = self._shard is not None and not self.is_file
        digest, size = hashlib.sha256(), 0
        for number, data in self._all_lines():
            if is_identified:
                digest.update(data)
                size += len(data)
            if not is_blank(data):
                self.may_be_empty = True  # this shard or another one has a line
                if number % every == first:
                    yield number, data
        if is_identified:
            self.identity = InputId(size, digest.hexdigest())

    def _all_lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield each line with its number, including blank ones; without the BOM of the first one."""
        number = 1
        file = io.BufferedReader(_Raw(self._fd, self._start if self.is_file else None), 64 * 1024)
        try:
            while data := file.readline(_LINE_BYTES):
                if len(data) == _LINE_BYTES:
                    raise UsageError(f"{self.name}, line {number} is longer than 256 MiB", "send less in one line")
                yield number, data.removeprefix(codecs.BOM_UTF8) if number == 1 else data
                number += 1
        except OSError as exc:
            raise UsageError(f"{self.name}: {exc.strerror}", "check where the lines come from") from exc


class _Raw(io.RawIOBase):
    """Reads a descriptor from its own offset, or from the current one if it cannot seek; never closes it."""

    def __init__(self, fd: int, offset: int | None) -> None:
        self._fd = fd
        self._offset = offset

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if self._offset is None:
            data = os.read(self._fd, len(buffer))
        else:
            data = os.pread(self._fd, len(buffer), self._offset)
            self._offset += len(data)
        buffer[: len(data)] = data
        return len(data)


def _version_of(fd: int) -> tuple[int, int, int]:
    found = os.fstat(fd)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns
