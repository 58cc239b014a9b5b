"""Decide from the lines of an input and their results which lines are settled and which are left to send.

Only a few numbers per line are kept, no text: an input may have millions of lines.
"""

from array import array
from collections.abc import Iterator

from smai_cli.batch.results.earlier import (
    FINAL,
    ChangedError,
    EarlierResults,
    StaleResults,
    key_of,
    key_of_copy,
)
from smai_cli.batch.results.result import SETTLED
from smai_cli.errors import Status, UsageError

_NONE = 255  # no result yet
_COMPLETE = int(Status.COMPLETE)  # for 100,000 lines, to look it up each time takes 0.03 s
# How many times --drop-stale must be given to drop more than half of the complete answers.
_SURELY = 2


class DuplicateIdError(UsageError):
    """An earlier line of the input has the same id, `name`."""

    def __init__(self, what: str, hint: str, name: str | int) -> None:
        super().__init__(what, hint)
        self.name = name


class Plan:
    """The state of each line, by its place among the non-blank lines.

    `found` are the results of an earlier run. Failures among them that may succeed are sent again; with `all_failed`,
    every failure. With `drops_stale`, a result for another request is ignored; 2 allows any number of them.
    `has_answered`: the earlier run left a complete answer.
    """

    def __init__(
        self,
        found: EarlierResults | None = None,
        *,
        all_failed: bool = False,
        drops_stale: int = 0,
    ) -> None:
        self.offsets = array("q")
        self.needs_line_digests = found is not None and all_failed
        self._moved = array("q")  # the number of each line whose result has another number; 0 for all others
        self.complete = 0
        self.has_answered = found is not None and found.has_complete
        self._kept = 0  # lines whose earlier result is kept
        self._sent = 0  # lines with a result of this run; another thread counts them
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
        """Add a line by its number, its id and the digests of its request and of the line; return which copy it is.

        Raises DuplicateIdError if an earlier line has the same id, and what EarlierResults.take raises.
        """
        key, copy = key_of(name, digest), 1
        if key in self._seen:
            copy = self._next_copy(key, name)
        else:
            self._seen.add(key)
        place_key = key_of_copy(key, copy) if copy > 1 else key
        result = None
        try:
            if self._found is not None:
                result = self._found.take(place_key, number, name, digest, line_digest)
        except ChangedError:
            if not self._drops_stale:
                raise
        offset, status, old_number = result or (-1, _NONE, number)
        self._statuses.append(status)
        self.offsets.append(offset)
        self._moved.append(0 if old_number == number else number)
        self.complete += status == _COMPLETE
        self._kept += self._is_kept(status)
        return copy

    @property
    def settled(self) -> int:
        """How many lines have a result that is kept, or one of this run."""
        return self._kept + self._sent

    @property
    def left(self) -> int:
        """How many lines are still to be sent; they may have the result of an earlier run."""
        return len(self) - self.settled

    def is_settled(self, place: int) -> bool:
        """Return whether a line has a result that is kept."""
        return self._is_kept(self._statuses[place])

    def _is_kept(self, status: int) -> bool:
        return status == _COMPLETE or (not self._all_failed and _is_settled(status))

    def settle(self, place: int, offset: int, status: int, *, is_final: bool = False) -> None:
        """Record that a result of this run is at `offset`; -1 if it cannot be read again.

        `is_final`: the failure should not be repeated, whatever its status is.
        """
        self._sent += not self.is_settled(place)
        self._statuses[place] = status | (FINAL if is_final else 0)
        self.offsets[place] = offset
        self._moved[place] = 0
        self.complete += status == _COMPLETE

    def is_in_place(self) -> bool:
        """Return whether the file has exactly the results of the lines, in order, with the right numbers."""
        offsets = self.offsets
        if self._found is None or self._found.lines != len(self):
            return False
        return not any(self._moved) and all(offsets[at - 1] < offsets[at] for at in range(1, len(offsets)))

    def order(self) -> Iterator[tuple[int, int]]:
        """Yield the offset of each line's result, and its new number, 0 if the number is right."""
        yield from zip(self.offsets, self._moved, strict=True)

    def stale(self) -> StaleResults | None:
        """Return the results that match no line; None if there are none.

        Raises UsageError if they may not be dropped: not at all, or not so many complete answers.
        """
        stale = self._found.stale() if self._found else None
        if stale and not self._drops_stale:
            count = len(stale.offsets)
            many, example = (f"{count} results belong", "such as ") if count > 1 else ("one result belongs", "")
            raise UsageError(
                f"{many} to no line of the input ({example}line {stale.first_number} of the earlier run)",
                "was the prompt, the model or an option changed? --drop-stale moves them away and continues",
            )
        if stale and self._drops_stale < _SURELY and stale.complete * 2 > stale.all_complete:
            raise UsageError(
                f"--drop-stale would drop {stale.complete} of {stale.all_complete} complete answers",
                "check the options and the input; to drop them, give --drop-stale twice",
            )
        return stale

    def failures(self) -> dict[int, int]:
        """Return the number of failed lines by exit status."""
        counts: dict[int, int] = {}
        for status in sorted(set(self._statuses) - {Status.COMPLETE, _NONE}):
            plain = status & ~FINAL
            counts[plain] = counts.get(plain, 0) + self._statuses.count(status)
        return dict(sorted(counts.items()))

    def missing(self) -> int:
        """Return how many lines have no result."""
        return self._statuses.count(_NONE)

    def status(self) -> int:
        """Return the exit status of the run: of the first failure that may succeed later, else of the first failure."""
        failed = [status for status in self._statuses if status not in (Status.COMPLETE, _NONE)]
        return next((one for one in failed if not _is_settled(one)), failed[0] if failed else 0) & ~FINAL

    def _next_copy(self, key: int, name: str | int | None) -> int:
        """Return the number of the next copy of a line. Raises DuplicateIdError."""
        if name is not None:
            raise DuplicateIdError("the id is used twice", "give each line its own", name)
        self._copies[key] = self._copies.get(key, 1) + 1
        return self._copies[key]


def _is_settled(status: int) -> bool:
    """Return whether --resume leaves a line with this status, or _NONE, alone."""
    return status != _NONE and (status in SETTLED or bool(status & FINAL))
