"""Whose failure it is: the line's, the model's, the server's or the run's.

`owner_of` decides it from the failure and from what has happened so far; everything that a batch does after a failure
follows from its answer. It looks at kinds and codes and never at the words of a message: two refusals of the same kind
differ in their request ids.
"""

from enum import Enum
from typing import NamedTuple

from smai_cli.errors import (
    AccessError,
    Again,
    BrokenError,
    BusyError,
    Cause,
    ClockError,
    ConnectError,
    OutputError,
    RefusedError,
    SmaiError,
    UsageError,
)

# So many failures of the same kind in a row are not chance: at a rate of 30 % it happens once in 170,000 requests.
IN_A_ROW = 10
# A line that is refused so often, while so many others get through, is refused for itself and not for the load.
REFUSALS = 5
OTHERS = 20
_SERVER_ERROR = 500


class Owner(Enum):
    """Whose failure it is, and so what happens next."""

    LINE = "the line is tried again, or the failure is its result"
    MODEL = "the line waits, and does not use up a retry; Retry-After stops all lines of its model"
    SERVER = "nothing starts but one request at a time that probes the server, and no retry is used up"
    RUN = "the run ends"


class Kind(Enum):
    """What a failure is about, before anything else is known."""

    ACCESS = "the key, the account or money"
    OUTPUT = "the results cannot be written"
    REFUSAL = "the request, as far as the server says"
    LIMIT = "too many requests or tokens for now"
    SERVER = "the server, which cannot be reached, or fails before an answer begins"
    ANSWER = "the answer, which is not complete"


class Past(NamedTuple):
    """What happened before a failure, and with it.

    `has_answered`: an answer was complete, in this run or in the partial file, or has begun. `in_a_row` counts the
    failures like this one, with this one and with nothing else between them, and `is_of_several` says that they are of
    more than one line. The line itself was refused `refusals` times for a limit, while `others` got through.
    `has_begun` says that the answer had begun, and `is_patience_over` that nothing has succeeded for too long.
    """

    has_answered: bool = False
    in_a_row: int = 1
    is_of_several: bool = False
    refusals: int = 0
    others: int = 0
    has_begun: bool = False
    is_patience_over: bool = False


def owner_of(failure: SmaiError, past: Past) -> Owner:  # noqa: PLR0911  # one for each row of the table
    """Return whose failure `failure` is."""
    kind = kind_of(failure, has_begun=past.has_begun)
    is_row = past.in_a_row >= IN_A_ROW
    if kind in (Kind.ACCESS, Kind.OUTPUT):
        return Owner.RUN
    if kind is Kind.REFUSAL:
        return Owner.RUN if is_row and not past.has_answered else Owner.LINE
    if kind is Kind.ANSWER:
        return Owner.LINE
    if kind is Kind.LIMIT:
        if past.is_patience_over:
            return Owner.RUN
        return Owner.LINE if past.refusals >= REFUSALS and past.others >= OTHERS else Owner.MODEL
    if not is_row or (past.has_answered and not past.is_of_several):
        return Owner.LINE
    return Owner.SERVER if past.has_answered and not past.is_patience_over else Owner.RUN


def kind_of(failure: SmaiError, *, has_begun: bool) -> Kind:
    """Return what a failure is about; `has_begun` says that something of the answer had come.

    A 403 that names neither key, account nor money is about the request: OpenRouter sends it for one flagged prompt
    (openrouter.ai/docs/api/errors). A limit is a 429, also as a code in an answer with HTTP status 200, unless the
    server says that the request is not worth repeating (x-should-retry: false).
    """
    kind = Kind.ANSWER
    if isinstance(failure, OutputError):
        kind = Kind.OUTPUT
    elif isinstance(failure, AccessError) and failure.cause is not Cause.FORBIDDEN:
        kind = Kind.ACCESS
    elif isinstance(failure, AccessError | RefusedError | UsageError):
        kind = Kind.REFUSAL
    # A 503 is about the server, whatever name its error has: it says nothing of how fast requests may come.
    elif failure.cause is Cause.RATE_LIMIT and (failure.http_status or 0) < _SERVER_ERROR:
        kind = Kind.ANSWER if failure.again is Again.NEVER else Kind.LIMIT
    elif isinstance(failure, BusyError | ConnectError | ClockError | BrokenError) and not has_begun:
        kind = Kind.SERVER
    return kind


def as_result(failure: SmaiError, hint: str = "") -> SmaiError:
    """Return the failure that goes into the result of its line: a 403 of one line is a refusal, status 4.

    `hint`, if it is not empty, replaces that of the failure.
    """
    if not isinstance(failure, AccessError):
        return failure.replaced(hint=hint or failure.hint)
    return RefusedError(
        failure.what,
        "check what the line asks for; if every line is refused, check the key and the account",
        http_status=failure.http_status,
        request_id=failure.request_id,
        cause=failure.cause,
        code=failure.code,
    )


class History:
    """What has happened in a run so far, as far as it decides whose a failure is.

    `has_answered` is as in Past. `through` counts the requests that the server let through: those with an answer,
    complete or not, and those that it refused for what they ask. `waiting_since_s` is when a failure came after which
    nothing got through, None if there was none.
    """

    def __init__(self, *, has_answered: bool) -> None:
        self.has_answered = has_answered
        self.through = 0
        self.waiting_since_s: float | None = None
        self._refusals = _Row()
        self._failures = _Row()
        self._failed: dict[int, int] = {}  # the line of each request that failed because of the server, by its number

    @property
    def in_a_row(self) -> int:
        """How many failures are in a row that may be those of every line."""
        return max(self._refusals.length, self._failures.length)

    @property
    def is_server_away(self) -> bool:
        """Whether so many requests of several lines, started one after the other, failed because of the server."""
        return self._failures.length >= IN_A_ROW and self._failures.is_of_several

    def add_answer(self) -> None:
        """Count the beginning of an answer, or one that is complete."""
        self.has_answered = True
        self.waiting_since_s = None
        self._refusals = _Row()
        self._forget_failures()

    def add_failure(self, failure: SmaiError, kind: Kind, number: int, place: int, now_s: float) -> Past:
        """Count a failure of the request `number`, of the line at `place`; return what the run knows with it."""
        row = _Row(1)
        if kind is Kind.SERVER:
            row = self._failures = self._row_of(number, place)
        else:
            self._forget_failures()
        if kind is Kind.REFUSAL:
            what = (failure.status, failure.http_status, failure.cause, failure.code)
            length = self._refusals.length + 1 if what == self._refusals.what else 1
            row = self._refusals = _Row(length, is_of_several=length > 1, what=what)
        if kind in (Kind.SERVER, Kind.LIMIT):
            self.waiting_since_s = now_s if self.waiting_since_s is None else self.waiting_since_s
        else:
            self.waiting_since_s = None
            self.through += 1
        return Past(self.has_answered, row.length, row.is_of_several)

    def postpone_patience(self, now_s: float) -> None:
        """Begin to wait anew: the server is answering a request, so that a success is in sight."""
        if self.waiting_since_s is not None:
            self.waiting_since_s = now_s

    def _row_of(self, number: int, place: int) -> "_Row":
        """Return the failures of the requests that started right before and after this one.

        Those that come one after the other are not enough: a busy server refuses at once, and its answers take longer.
        """
        self._failed[number] = place
        first = last = number
        while first - 1 in self._failed and last - first < IN_A_ROW:
            first -= 1
        while last + 1 in self._failed and last - first < IN_A_ROW:
            last += 1
        places = {self._failed[it] for it in range(first, last + 1)}
        return _Row(last - first + 1, len(places) > 1)

    def _forget_failures(self) -> None:
        self._failures = _Row()
        self._failed.clear()


class _Row(NamedTuple):
    """Failures in a row that are alike: how many, whether of more than one line, and what they have in common."""

    length: int = 0
    is_of_several: bool = False
    what: object = None
