"""Every way in which a run can fail, and the exit status of each.

    SmaiError
        UsageError         2   the command line, the configuration or the input
        ConnectError       3   no connection: DNS, refused, TLS, proxy
        RefusedError       4   the server refused the request, or answered something else
        AccessError        5   the key or the account was refused
        BusyError          6   the server is busy or failing
        ClockError         7   a clock ran out: connect, idle or total
        BrokenError        8   the stream broke before the answer was complete
        CutShortError      9   the answer hit the token limit
        WithheldError     10   the answer was withheld
        OutputError       11   stdout or a file could not be written
    ReaderGoneError            nobody reads stdout any more: die by SIGPIPE

This module imports nothing of smai, so that every stage can fail in these words.
"""

from enum import Enum, IntEnum


class Status(IntEnum):
    """The exit statuses, as the manual lists them; signals are not in it, smai dies by the real ones."""

    COMPLETE = 0
    DEFECT = 1
    USAGE = 2
    CONNECT = 3
    REFUSED = 4
    ACCESS = 5
    BUSY = 6
    CLOCK = 7
    BROKEN = 8
    CUT_SHORT = 9
    WITHHELD = 10
    OUTPUT = 11


class Again(Enum):
    """When smai may send the same request once more by itself."""

    NEVER = "never"
    UNANSWERED = "the server did not begin an answer, and nothing was billed"
    HELD_BACK = "an answer broke, and the mode has delivered none of it"


class SmaiError(Exception):
    """A failure with an exit status; never raised as itself.

    `what` happened and what to do next (`hint`) make the one line on stderr. `retryable` says whether the
    same command is worth trying later, `again` whether smai itself may try within its retries, `wait_s`
    how many seconds the server asked for. `http_status` and `request_id` come from the server, or are None.
    """

    status = Status.DEFECT
    kind = "defect"
    retryable = False
    again = Again.NEVER

    def __init__(  # noqa: PLR0913  # what can be known of a failure, all by name
        self,
        what: str,
        hint: str = "",
        *,
        retryable: bool | None = None,
        again: Again | None = None,
        wait_s: float | None = None,
        http_status: int | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.retryable = self.retryable if retryable is None else retryable
        self.again = self.again if again is None else again
        self.wait_s = wait_s
        self.http_status = http_status
        self.request_id = request_id

    def __str__(self) -> str:
        """Return `what happened; what to do next`, the text behind `smai: `."""
        return f"{self.what}; {self.hint}" if self.hint else self.what


class UsageError(SmaiError):
    """The command line, the configuration or the input cannot be used."""

    status, kind = Status.USAGE, "usage"


def out_of_memory() -> UsageError:
    """Return the failure of an input for which there is not enough memory."""
    return UsageError("there is not enough memory", "send less, or allow the process more of it")


def out_of_threads() -> UsageError:
    """Return the failure of a run that the system gives no more threads, as in a container with few processes."""
    return UsageError("the system gives smai no more threads", "try again later, or allow it more processes")


class ConnectError(SmaiError):
    """No connection came about, so nothing was sent."""

    status, kind, retryable, again = Status.CONNECT, "connect", True, Again.UNANSWERED


class RefusedError(SmaiError):
    """The server refused this request, or answered something that is no completion."""

    status, kind = Status.REFUSED, "refused"


class AccessError(SmaiError):
    """The server refused the key, or the account."""

    status, kind = Status.ACCESS, "access"


class BusyError(SmaiError):
    """The server is busy or failing (429, 408, 5xx)."""

    status, kind, retryable, again = Status.BUSY, "busy", True, Again.UNANSWERED


class ClockError(SmaiError):
    """One of the clocks ran out; the message says which one and after how long."""

    status, kind, retryable = Status.CLOCK, "timeout", True


class BrokenError(SmaiError):
    """The stream was cut, was malformed, or carried an error event."""

    status, kind, retryable, again = Status.BROKEN, "broken", True, Again.HELD_BACK


class CutShortError(SmaiError):
    """finish_reason `length`: the answer hit the token limit."""

    status, kind = Status.CUT_SHORT, "length"


class WithheldError(SmaiError):
    """finish_reason `content_filter`, or a refusal instead of an answer."""

    status, kind = Status.WITHHELD, "withheld"


class OutputError(SmaiError):
    """Stdout or a file could not be written: closed, disk full, I/O error."""

    status, kind = Status.OUTPUT, "output"


# What reading and understanding an answer can fail with; writing it fails with an OutputError.
ANSWER_FAILURES = (UsageError, ConnectError, RefusedError, AccessError, BusyError, ClockError, BrokenError)


# What each exit status is called, as the kind of a failure.
KINDS: dict[int, str] = {
    error.status: error.kind
    for error in (
        UsageError,
        ConnectError,
        RefusedError,
        AccessError,
        BusyError,
        ClockError,
        BrokenError,
        CutShortError,
        WithheldError,
        OutputError,
    )
}


class ReaderGoneError(Exception):
    """The reader of stdout is gone; no message is due, only death by SIGPIPE."""
