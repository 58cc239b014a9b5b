"""The lines of an input, and the results that there are of them -> which are settled, and which are left to ask.

A few numbers a line are kept, and no text: an input may have millions of lines.
"""

from array import array
from collections.abc import Iterator

from smai_cli.batch.results.earlier import FINAL, ChangedError, Found, Result, Stale, key_of, key_of_copy
from smai_cli.batch.results.result import SETTLED
from smai_cli.errors import Status, UsageError

_NONE = 255  # no result yet
# How often --drop-stale is given to drop more than half of the complete answers.
_SURELY = 2


class TwiceError(UsageError):
    """An id that an earlier line of the input has: `name`."""

    def __init__(self, what: str, hint: str, name: str | int) -> None:
        super().__init__(what, hint)
        self.name = name


class Plan:
    """What has become of each line, by its place among those that are not blank.

    `found` are results of an earlier run; of these, failures that are worth it are asked again, or with `all_failed`
    every one. With `drops_stale` a result that is for another question counts as none; 2 drops however many there are.
    """

    def __init__(
        self,
        found: Found | None = None,
        *,
        all_failed: bool = False,
        drops_stale: int = 0,
    ) -> None:
        self.offsets = array("q")
        self.needs_line_digests = found is not None and all_failed
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

    def add(self, number: int, name: str | int | None, digest: bytes, line_digest: bytes = b"") -> int:
        """Add a line by its number, its id and the digests of its request and of itself; return which copy it is.

        Raises TwiceError for an id that was there before, and as Found.take does.
        """
        key, copy = key_of(name, digest), 1
        if key in self._seen:
            copy = self._next_copy(key, name)
        else:
            self._seen.add(key)
        place_key = key_of_copy(key, copy) if copy > 1 else key
        result = self._result(place_key, number, name, digest, line_digest) or Result(-1, _NONE, number, is_final=False)
        self._statuses.append(result.status | (FINAL if result.is_final else 0))
        self.offsets.append(result.offset)
        self._moved.append(0 if result.number == number else number)
        self._count(result.status)
        self.settled += self.is_settled(len(self) - 1)
        return copy

    def is_settled(self, place: int) -> bool:
        """Return whether a line has a result that stays."""
        status = self._statuses[place]
        return status == Status.COMPLETE if self._all_failed else _is_settled(status)

    def settle(self, place: int, offset: int, status: int, *, is_final: bool = False) -> None:
        """Note that a result of this run is at `offset`; -1 where nobody can read it again.

        `is_final` says that its failure is not worth repeating, whatever its status is.
        """
        self.settled += not self.is_settled(place)
        self._statuses[place] = status | (FINAL if is_final else 0)
        self.offsets[place] = offset
        self._moved[place] = 0
        self._count(status)

    def is_in_place(self) -> bool:
        """Return whether the file has exactly the results of the lines, in their order, with the right numbers."""
        offsets = self.offsets
        if self._found is None or self._found.lines != len(self):
            return False
        return not any(self._moved) and all(offsets[at - 1] < offsets[at] for at in range(1, len(offsets)))

    def order(self) -> Iterator[tuple[int, int]]:
        """Yield where the result of each line is, and the number to put there, 0 where it has the right one."""
        yield from zip(self.offsets, self._moved, strict=True)

    def stale(self) -> Stale | None:
        """Return the results that belong to no line, None where there are none.

        Raises UsageError where they may not be dropped: not at all, or not so many complete answers.
        """
        stale = self._found.stale() if self._found else None
        if stale and not self._drops_stale:
            count = len(stale.offsets)
            many = f"{count} results belong" if count > 1 else "one result belongs"
            raise UsageError(
                f"{many} to no line of the input, such as that of line {stale.first_number} before",
                "was the prompt, the model or an option changed? --drop-stale moves them away and continues",
            )
        if stale and self._drops_stale < _SURELY and stale.complete * 2 > stale.all_complete:
            raise UsageError(
                f"--drop-stale would drop {stale.complete} of {stale.all_complete} complete answers",
                "check the options and the input; to drop them, give --drop-stale twice",
            )
        return stale

    def failures(self) -> dict[int, int]:
        """Return how many lines have failed, by exit status."""
        counts: dict[int, int] = {}
        for status in sorted(set(self._statuses) - {Status.COMPLETE, _NONE}):
            plain = status & ~FINAL
            counts[plain] = counts.get(plain, 0) + self._statuses.count(status)
        return dict(sorted(counts.items()))

    def missing(self) -> int:
        """Return how many lines have no result at all."""
        return self._statuses.count(_NONE)

    def status(self) -> int:
        """Return the exit status of it all: of the first failure worth trying again, else of the first one."""
        failed = [status for status in self._statuses if status not in (Status.COMPLETE, _NONE)]
        return next((one for one in failed if not _is_settled(one)), failed[0] if failed else 0) & ~FINAL

    def _next_copy(self, key: int, name: str | int | None) -> int:
        """Return which copy of a line that was there before comes next. Raises TwiceError."""
        if name is not None:
            raise TwiceError("the id is used twice", "give each line its own", name)
        self._copies[key] = self._copies.get(key, 1) + 1
        return self._copies[key]

    def _result(
        self, key: int, number: int, name: str | int | None, digest: bytes, line_digest: bytes
    ) -> Result | None:
        if self._found is None:
            return None
        try:
            return self._found.take(key, number, name, digest, line_digest)
        except ChangedError:
            if self._drops_stale:
                return None
            raise

    def _count(self, status: int) -> None:
        self.complete += status == Status.COMPLETE


def _is_settled(status: int) -> bool:
    """Return whether a line with this status, or _NONE, is not asked again by --resume."""
    return status != _NONE and (status in SETTLED or bool(status & FINAL))
