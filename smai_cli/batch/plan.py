"""The lines of an input, and the results that there are of them -> which are settled, and which are left to ask.

A few numbers a line are kept, and no text: an input may have millions of lines.
"""

from array import array
from collections.abc import Iterable, Iterator

from smai_cli.batch.lines import shown_line
from smai_cli.batch.results import SETTLED, Known
from smai_cli.errors import Status, UsageError

_NONE = 255  # no result yet
_DIGEST_BYTES = 16
_KEY_BYTES = 8


class TwiceError(UsageError):
    """An id that an earlier line of the input has."""


class ChangedError(UsageError):
    """An id whose result is an answer to another request."""


class Found:
    """The results in a file: of several for one line the first complete one counts, else the last.

    `unreadable` counts lines that are no result.
    """

    def __init__(self, results: Iterable[tuple[int, Known | None]]) -> None:
        self.unreadable = 0
        self._rows: dict[int, int] = {}  # the key of a line -> where in the arrays its result is
        self._offsets = array("q")
        self._statuses = bytearray()
        self._digests = bytearray()
        self._numbers = array("q")
        for offset, known in results:
            if known is None:
                self.unreadable += 1
            else:
                self._add(offset, known)
        self._used = bytearray(len(self._offsets))

    def _add(self, offset: int, known: Known) -> None:
        digest = known.digest[:_DIGEST_BYTES]
        key = _key_of(known.id, digest)
        if known.copy > 1 and known.id is None:
            key = _key_of_copy(key, known.copy)
        row = self._rows.setdefault(key, len(self._offsets))
        if row == len(self._offsets):
            self._offsets.append(offset)
            self._statuses.append(known.status)
            self._digests += digest
            self._numbers.append(known.number)
        elif self._statuses[row] != Status.COMPLETE or digest != self._digest(row):
            self._offsets[row], self._statuses[row], self._numbers[row] = offset, known.status, known.number
            self._digests[row * _DIGEST_BYTES : (row + 1) * _DIGEST_BYTES] = digest

    def take(self, key: int, number: int, name: str | int | None, digest: bytes) -> tuple[int, int, int] | None:
        """Return where the result of a line is, its status, and the number the line had then; None without one.

        `key` is that of the line, or of the copy that it is. Raises ChangedError for an id whose request was another
        one: its answer is to another question.
        """
        row = self._rows.get(key)
        if row is None:
            return None
        if self._digest(row) != digest[:_DIGEST_BYTES]:
            raise ChangedError(
                f"{shown_line(number, name)}: the prompt, the model or an option is another one than that of "
                "its result",
                "--drop-stale puts that result aside and asks again",
            )
        self._used[row] = 1
        return self._offsets[row], self._statuses[row], self._numbers[row]

    def stale(self) -> list[int]:
        """Return where the results are that belong to no line that was taken."""
        return [self._offsets[row] for row, used in enumerate(self._used) if not used]

    def first_stale(self) -> int:
        """Return the number that the line of the first of them had."""
        return next(self._numbers[row] for row, used in enumerate(self._used) if not used)

    def _digest(self, row: int) -> bytes:
        return bytes(self._digests[row * _DIGEST_BYTES : (row + 1) * _DIGEST_BYTES])


class Plan:
    """What has become of each line, by its place among those that are not blank.

    `found` are results of an earlier run; of these, failures that are worth it are asked again, or with `all_failed`
    every one. With `drops_stale` a result that is for another question is as none.
    """

    def __init__(
        self,
        found: Found | None = None,
        *,
        all_failed: bool = False,
        drops_stale: bool = False,
    ) -> None:
        self.offsets = array("q")
        self._moved = array("q")  # the number of each line whose result has another one; 0 for all others
        self.complete = 0
        self.settled = 0
        self._found = found
        self._all_failed = all_failed
        self._drops_stale = drops_stale
        self._statuses = bytearray()
        self._seen: set[int] = set()
        self._copies: dict[int, int] = {}

    def __len__(self) -> int:
        """Return how many lines were added."""
        return len(self._statuses)

    def add(self, number: int, name: str | int | None, digest: bytes) -> int:
        """Take the next line, by its number, its id and the digest of its request; return which copy of it it is.

        Raises TwiceError for an id that was there before, and as Found.take does.
        """
        key, copy = _key_of(name, digest), 1
        if key in self._seen:
            copy = self._next_copy(key, number, name)
        else:
            self._seen.add(key)
        result = self._result(_key_of_copy(key, copy) if copy > 1 else key, number, name, digest)
        offset, status, before = result or (-1, _NONE, number)
        self._statuses.append(status)
        self.offsets.append(offset)
        self._moved.append(0 if before == number else number)
        if result:
            self._count(status)
            self.settled += self.is_settled(len(self) - 1)
        return copy

    def is_settled(self, place: int) -> bool:
        """Return whether a line has a result that stays."""
        status = self._statuses[place]
        if status == _NONE:
            return False
        return status == Status.COMPLETE if self._all_failed else status in SETTLED

    def settle(self, place: int, offset: int, status: int) -> None:
        """Hear that a result of this run stands at `offset`; -1 where nobody can read it again."""
        self.settled += not self.is_settled(place)
        self._statuses[place] = status
        self.offsets[place] = offset
        self._moved[place] = 0
        self._count(status)

    def order(self) -> Iterator[tuple[int, int]]:
        """Yield where the result of each line is, and the number to put there, 0 where it has the right one."""
        yield from zip(self.offsets, self._moved, strict=True)

    def stale(self) -> list[int]:
        """Return where the results are that belong to no line. Raises UsageError, unless they may be dropped."""
        stale = self._found.stale() if self._found else []
        if self._found and stale and not self._drops_stale:
            many = f"{len(stale)} results belong" if len(stale) > 1 else "one result belongs"
            raise UsageError(
                f"{many} to no line of the input, such as that of line {self._found.first_stale()} before",
                "was the prompt, the model or an option changed? --drop-stale puts them aside and goes on",
            )
        return stale

    def failures(self) -> dict[int, int]:
        """Return how many lines have failed, by exit status."""
        counts = {status: self._statuses.count(status) for status in set(self._statuses)}
        return {status: count for status, count in sorted(counts.items()) if status not in (Status.COMPLETE, _NONE)}

    def missing(self) -> int:
        """Return how many lines have no result at all."""
        return self._statuses.count(_NONE)

    def status(self) -> int:
        """Return the exit status of it all: of the first failure worth trying again, else of the first one."""
        failed = [status for status in self._statuses if status not in (Status.COMPLETE, _NONE)]
        return next((status for status in failed if status not in SETTLED), failed[0] if failed else 0)

    def _next_copy(self, key: int, number: int, name: str | int | None) -> int:
        """Return which copy of a line that was there before comes next. Raises TwiceError."""
        if name is not None:
            raise TwiceError(f"{shown_line(number, name)}: the id was there before", "give each line its own")
        self._copies[key] = self._copies.get(key, 1) + 1
        return self._copies[key]

    def _result(self, key: int, number: int, name: str | int | None, digest: bytes) -> tuple[int, int, int] | None:
        if self._found is None:
            return None
        try:
            return self._found.take(key, number, name, digest)
        except ChangedError:
            if self._drops_stale:
                return None
            raise

    def _count(self, status: int) -> None:
        self.complete += status == Status.COMPLETE


def _key_of(name: str | int | None, digest: bytes) -> int:
    """Return the key of a line: of its id, or where it has none, of the first with its request."""
    if name is None:
        return int.from_bytes(digest[:_KEY_BYTES])
    # A text and a number are two names. The number as text: hash() knows -1 and -2 as one.
    return hash(name) if type(name) is str else hash((None, str(name)))


def _key_of_copy(key: int, copy: int) -> int:
    return key ^ (copy << 1)
