"""Match the results in a file to the lines of the input, and find those that match no line."""

from array import array
from collections.abc import Iterable
from typing import NamedTuple

from smai_cli.batch.input.lines import describe_line
from smai_cli.batch.results.result import ParsedResult, read_result
from smai_cli.errors import Status, UsageError

_DIGEST_BYTES = 16
_KEY_BYTES = 8
# Added to the exit status of a failure that should not be repeated although its status says so.
FINAL = 0x40
_FORBIDDEN = 0x3F  # a 403, until all results are read


class ChangedError(UsageError):
    """The result with this id is an answer to another request."""


# A result of a line: its offset, its exit status, perhaps with FINAL, and the number that the line had then.
Result = tuple[int, int, int]


class EarlierResults:
    """The results in a file, from its lines and their offsets.

    If a line of the input has several, the first complete one is used, else the last.
    `lines` counts the lines, `unreadable` those that are not results. `has_complete`: one is a complete answer.
    With `by_line`, a complete result also matches by the digest of its line, whatever the options were. If no result is
    complete, a 403 has the status of a refused key, so that its line is sent again: nothing shows that the key was
    valid.
    """

    def __init__(self, lines: Iterable[tuple[int, bytes]], *, by_line: bool = False) -> None:
        self.unreadable = 0
        self.lines = 0
        self._rows: dict[int, int] = {}  # the key of a line -> the index of its result in the arrays
        self._offsets = array("q")
        self._statuses = bytearray()
        self._digests = bytearray()
        self._numbers = array("q")
        self._by_line: dict[bytes, list[int]] | None = {} if by_line else None
        self._line_digests: list[bytes] = []
        for offset, line in lines:
            self.lines += 1
            known = read_result(line, with_line_digest=by_line)
            if known is None:
                self.unreadable += 1
            else:
                self._add(offset, known)
        self.has_complete = Status.COMPLETE in self._statuses
        reason = Status.REFUSED if self.has_complete else Status.ACCESS
        self._statuses = self._statuses.replace(bytes([_FORBIDDEN]), bytes([reason]))
        self._used = bytearray(len(self._offsets))

    def _add(self, offset: int, known: ParsedResult) -> None:
        name, digest, copy, number, status, _, is_final, is_forbidden = known
        digest = digest[:_DIGEST_BYTES]
        if is_final:
            status |= FINAL
        if is_forbidden:
            status = _FORBIDDEN
        key = key_of(name, digest)
        if copy > 1 and name is None:
            key = key_of_copy(key, copy)
        rows = len(self._offsets)
        row = self._rows.setdefault(key, rows)
        if row == rows:
            self._offsets.append(offset)
            self._statuses.append(status)
            self._digests += digest
            self._numbers.append(number)
        elif self._is_replaced(row, digest, status):
            self._offsets[row], self._statuses[row], self._numbers[row] = offset, status, number
            self._digests[row * _DIGEST_BYTES : (row + 1) * _DIGEST_BYTES] = digest
        else:
            return
        if self._by_line is not None:
            self._add_by_line(self._by_line, row, known)

    def _add_by_line(self, by_line: dict[bytes, list[int]], row: int, known: ParsedResult) -> None:
        line_digest = known.line_digest[:_DIGEST_BYTES]
        if row == len(self._line_digests):
            self._line_digests.append(line_digest)
        else:
            self._line_digests[row] = line_digest
        if known.id is None and line_digest and row not in by_line.setdefault(line_digest, []):
            by_line[line_digest].append(row)

    def _is_replaced(self, row: int, digest: bytes, status: int) -> bool:
        """Return whether another result of a line replaces the previous one."""
        if self._statuses[row] != Status.COMPLETE:
            return True
        return not self._has_digest(row, digest) and (self._by_line is None or status == Status.COMPLETE)

    def take(self, key: int, number: int, name: str | int | None, digest: bytes, line_digest: bytes) -> Result | None:
        """Return the result of a line; None if there is none.

        `key` is that of the line, or of its copy. Raises ChangedError if the result with this id is an answer to
        another request.
        """
        row = self._rows.get(key)
        if row is not None and self._used[row]:
            row = None
        if row is None or (self._by_line is not None and name is None and self._statuses[row] != Status.COMPLETE):
            row = self._row_by_line(line_digest[:_DIGEST_BYTES], row)
        if row is None:
            return None
        if name is not None and not self._has_digest(row, digest) and not self._is_same(row, line_digest):
            raise ChangedError(
                f"{describe_line(number, name)}: the prompt, the model or an option differs from that of its result",
                "--drop-stale moves that result away and sends the line again",
            )
        self._used[row] = 1
        return self._offsets[row], self._statuses[row], self._numbers[row]

    def _is_same(self, row: int, line_digest: bytes) -> bool:
        """Return whether a line keeps the result of another request: it failed, or only the options changed."""
        if self._by_line is None:
            return False
        return self._statuses[row] != Status.COMPLETE or self._line_digests[row] == line_digest[:_DIGEST_BYTES]

    def _row_by_line(self, line_digest: bytes, row: int | None) -> int | None:
        """Find the complete result of a line without an id by the digest of the line; else `row`, or a failure."""
        rows = [one for one in (self._by_line or {}).get(line_digest, ()) if not self._used[one]]
        complete = (one for one in rows if self._statuses[one] == Status.COMPLETE)
        return next(complete, rows[0] if rows and row is None else row)

    def stale(self) -> "StaleResults | None":
        """Return the results that match no line; None if there are none. Call it after `take` for all lines."""
        rows = [row for row, used in enumerate(self._used) if not used]
        if self._by_line is not None:  # a failure of a line that was sent again later is not stale
            known = {self._line_digests[row] for row, used in enumerate(self._used) if used}
            rows = [
                row
                for row in rows
                if self._statuses[row] == Status.COMPLETE or self._line_digests[row] not in known - {b""}
            ]
        if not rows:
            return None
        return StaleResults(
            offsets=[self._offsets[row] for row in rows],
            complete=sum(self._statuses[row] == Status.COMPLETE for row in rows),
            all_complete=self._statuses.count(Status.COMPLETE),
            first_number=self._numbers[rows[0]],
        )

    def _has_digest(self, row: int, digest: bytes) -> bool:
        return self._digests.startswith(digest[:_DIGEST_BYTES], row * _DIGEST_BYTES)


class StaleResults(NamedTuple):
    """Results that match no line: their offsets, how many of all complete results they are, the line of the first."""

    offsets: list[int]
    complete: int
    all_complete: int
    first_number: int


def key_of(name: str | int | None, digest: bytes) -> int:
    """Return the key of a line: from its id, or if it has none, from its request."""
    if name is None:
        return int.from_bytes(digest[:_KEY_BYTES])
    # A text and a number are different ids. The number is hashed as text, because hash(-1) == hash(-2).
    return hash(name) if type(name) is str else hash((None, str(name)))


def key_of_copy(key: int, copy: int) -> int:
    """Return the key of another line with the same request: the second line is copy 2."""
    return key ^ (copy << 1)
