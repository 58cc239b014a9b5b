"""Decide what a failure belongs to: the line, the model, the server or the run.

`owner_of` decides from the failure and from what happened before it. Everything that a batch does after a failure
follows from that. It compares kinds and codes and never message texts: two refusals of the same kind differ in their
request ids.
"""

from enum import Enum
from typing import NamedTuple

from smai_cli.batch.feed import Job
from smai_cli.batch.input.lines import describe_line
from smai_cli.errors import (
    AccessError,
    BrokenError,
    BusyError,
    Cause,
    ClockError,
    ConnectError,
    OutputError,
    RefusedError,
    Retry,
    SmaiError,
    UsageError,
)

# This many failures of one kind in a row are not chance: at a rate of 30 % it happens once in 170,000 requests.
IN_A_ROW = 10
# A line that is refused this often while this many others get through is refused because of its content, not the load.
REFUSALS = 5
OTHERS = 20
_SERVER_ERROR = 500
_LATER = "try again later, or raise --patience"


class Owner(Enum):
    """What a failure belongs to, with what happens next."""

    LINE = "the line is tried again, or the failure is its result"
    MODEL = "the line waits, and does not use up a retry; Retry-After stops all lines of its model"
    SERVER = "nothing starts but one request at a time that probes the server, and no retry is used up"
    RUN = "the run ends"


class Kind(Enum):
    """What a failure is about, judged by the failure alone."""

    ACCESS = "the key, the account or money"
    OUTPUT = "the results cannot be written"
    SETUP = "this machine: a file for TLS, a variable or a module that is wrong or missing"
    REFUSAL = "the request, as far as the server says"
    LIMIT = "too many requests or tokens for now"
    SERVER = "the server, which cannot be reached, or fails before an answer begins"
    ANSWER = "the answer, which is not complete"


# One failure of these kinds shows that all lines would fail.
_OF_EVERY_LINE = (Kind.ACCESS, Kind.OUTPUT, Kind.SETUP)


class Past(NamedTuple):
    """What happened up to a failure, including it.

    `has_answered`: an answer has begun in this run, or is complete in the partial file. `in_a_row` counts consecutive
    failures of this kind, including this one; `is_of_several`: they are from more than one line. The line itself was
    refused `refusals` times because of a limit, while `others` requests got through. `has_begun`: the answer had begun.
    `is_patience_over`: nothing has succeeded for too long.
    """

    has_answered: bool = False
    in_a_row: int = 1
    is_of_several: bool = False
    refusals: int = 0
    others: int = 0
    has_begun: bool = False
    is_patience_over: bool = False


def owner_of(failure: SmaiError, past: Past) -> Owner:  # noqa: PLR0911  # one for each row of the table
    """Return what `failure` belongs to."""
    kind = kind_of(failure, has_begun=past.has_begun)
    is_row = past.in_a_row >= IN_A_ROW
    if kind in _OF_EVERY_LINE:
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
    """Return what a failure is about. `has_begun`: part of the answer had arrived.

    A 403 that does not mention key, account or money is about the request: OpenRouter sends it for one flagged prompt
    (openrouter.ai/docs/api/errors). A limit is a 429, also as a code in an answer with HTTP status 200, unless the
    server says not to repeat the request (x-should-retry: false).
    """
    kind = Kind.ANSWER
    if isinstance(failure, OutputError):
        kind = Kind.OUTPUT
    elif isinstance(failure, AccessError) and failure.cause is not Cause.FORBIDDEN:
        kind = Kind.ACCESS
    elif isinstance(failure, UsageError):
        kind = Kind.SETUP
    elif isinstance(failure, AccessError | RefusedError):
        kind = Kind.REFUSAL
    elif has_begun:  # each try costs money: their number is limited, even if the failure is a rate limit
        kind = Kind.ANSWER
    # A 503 is about the server, whatever its error is called: it says nothing about the request rate.
    elif failure.cause is Cause.RATE_LIMIT and (failure.http_status or 0) < _SERVER_ERROR:
        kind = Kind.ANSWER if failure.retry is Retry.NEVER else Kind.LIMIT
    elif isinstance(failure, BusyError | ConnectError | ClockError | BrokenError):
        kind = Kind.SERVER
    return kind


def as_result(failure: SmaiError, hint: str = "") -> SmaiError:
    """Return the failure to write as the result of its line. There a 403 is a refusal, status 4.

    `hint`, if not empty, replaces the hint of the failure.
    """
    if not isinstance(failure, AccessError):
        return failure.replaced(hint=hint or failure.hint)
    return RefusedError(
        failure.describe(),
        "check what the line asks for; if every line is refused, check the key and the account",
        http_status=failure.http_status,
        request_id=failure.request_id,
        cause=failure.cause,
        code=failure.code,
    )


def shared_failure(failure: SmaiError, kind: Kind, job: Job) -> SmaiError:
    """Return what ends the run because all lines would fail like this one; it has the same status."""
    name = describe_line(job.identity.number, job.identity.id)
    if kind in _OF_EVERY_LINE:
        return failure.replaced(what=f"{name}: {failure}", hint="with -o, --resume sends it again")
    if kind is Kind.SERVER:
        what = f"{IN_A_ROW} attempts in a row failed, the last one of {name}: {failure}"
        return _type_of(failure)(what, "with -o, --resume continues")
    what = f"{IN_A_ROW} lines in a row were refused, the last one {name}: {failure}"
    if failure.cause is Cause.FORBIDDEN:
        return AccessError(what, "with -o, --resume sends them again")
    return failure.replaced(what=what, hint="with -o, --resume-failed sends them again")


def no_success(failure: SmaiError, job: Job, waited_s: float) -> SmaiError:
    """Return what ends the run after `waited_s` seconds without success: status 3, 6 or 7, like `failure`."""
    name = describe_line(job.identity.number, job.identity.id)
    return _type_of(failure)(f"nothing has succeeded for {waited_s:.0f} s; {name}: {failure.describe()}", _LATER)


def long_wait(failure: SmaiError) -> SmaiError:
    """Return what ends the run because the server asks for a longer wait than --patience allows."""
    what = f"{failure.describe()}; the server asks to wait {failure.wait_s or 0.0:.0f} s"
    return BusyError(what, "try again then, or raise --patience")


def _type_of(failure: SmaiError) -> type[SmaiError]:
    return type(failure) if isinstance(failure, ConnectError | ClockError) else BusyError


class History:
    """The past of a run, as far as `owner_of` needs it.

    Requests have numbers, from 1, in the order in which they started. What is in a row is decided by these numbers
    and not by the order of the ends: a refusal comes at once and an answer late, so ten refusals may come before the
    first answer although most requests succeed.

    `has_answered` is as in Past. `through` counts the requests that the server let through: those with an answer,
    complete or not, and those that it refused for what they ask. `waiting_since_s` is when a failure came after which
    nothing got through, None if there was none.
    """

    def __init__(self, *, has_answered: bool) -> None:
        self.has_answered = has_answered
        self.through = 0
        self.waiting_since_s: float | None = None
        self._row = _Row()  # the last failure, and those in a row with it
        self._last_reply = 0  # the last request to which the server said something else
        self._failed: dict[int, _FailedRequest] = {}  # the requests after that one which failed, by their numbers

    @property
    def is_server_away(self) -> bool:
        """Whether so many requests of several lines, started one after the other, failed because of the server."""
        return self._row.trait is Kind.SERVER and self._row.length >= IN_A_ROW and self._row.is_of_several

    def may_all_fail(self, started: int) -> bool:
        """Return whether the last ten of `started` requests have failed alike or still run, before any success."""
        if self.has_answered or not self._row.length or started - self._last_reply < IN_A_ROW:
            return False
        last = (self._failed.get(number) for number in range(started - IN_A_ROW + 1, started + 1))
        return all(it is None or it.trait == self._row.trait for it in last)

    def add_answer(self, number: int) -> None:
        """Count the beginning of an answer to the request `number`, or one that is complete."""
        self.has_answered = True
        self.waiting_since_s = None
        self._add_reply(number)

    def add_failure(self, failure: SmaiError, kind: Kind, number: int, place: int, now_s: float) -> Past:
        """Count a failure of the request `number`, of the line at `place`; return what the run knows with it."""
        row = _Row()
        if kind is Kind.SERVER:
            row = self._row_of(number, _FailedRequest(place, kind))
        elif kind is Kind.REFUSAL and not self.has_answered:
            trait = (failure.status, failure.http_status, failure.cause, failure.code)
            row = self._row_of(number, _FailedRequest(place, trait))
        else:
            self._add_reply(number)
        if kind in (Kind.SERVER, Kind.LIMIT):
            self.waiting_since_s = now_s if self.waiting_since_s is None else self.waiting_since_s
        else:
            self.waiting_since_s = None
            self.through += 1
        return Past(self.has_answered, max(1, row.length), row.is_of_several)

    def postpone_patience(self, now_s: float) -> None:
        """Restart the patience: the server is answering a request, which may succeed."""
        if self.waiting_since_s is not None:
            self.waiting_since_s = now_s

    def _row_of(self, number: int, failed: "_FailedRequest") -> "_Row":
        """Return the failures like this one of the requests that started right before and after it."""
        if number < self._last_reply:  # the server has answered a later request since
            return _Row()
        self._failed[number] = failed
        first = last = number
        while self._is_like(first - 1, failed) and last - first < IN_A_ROW:
            first -= 1
        while self._is_like(last + 1, failed) and last - first < IN_A_ROW:
            last += 1
        places = {self._failed[it].place for it in range(first, last + 1)}
        self._row = _Row(last - first + 1, len(places) > 1, failed.trait, first)
        return self._row

    def _is_like(self, number: int, failed: "_FailedRequest") -> bool:
        other = self._failed.get(number)
        return other is not None and other.trait == failed.trait

    def _add_reply(self, number: int) -> None:
        """Forget the failures of the requests that started before this one, to which the server replied."""
        self._last_reply = max(self._last_reply, number)
        if self._failed:
            self._failed = {it: failed for it, failed in self._failed.items() if it > number}
        if number > self._row.first:
            self._row = _Row()


class _FailedRequest(NamedTuple):
    """A request that failed: the place of its line, and the trait that it shares with those that failed alike."""

    place: int
    trait: object


class _Row(NamedTuple):
    """Failures in a row that are alike: how many, whether of several lines, the trait they share, and the first."""

    length: int = 0
    is_of_several: bool = False
    trait: object = None
    first: int = 0
