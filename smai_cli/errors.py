"""Every way in which a run can fail, and the exit status of each.

    SmaiError
        UsageError         2   the command line, the configuration or the input
        ConnectError       3   no connection: DNS, refused, TLS, proxy
        RefusedError       4   the server refused the request, or answered something else
        AccessError        5   the key or the account was refused
        BusyError          6   the server is busy or failing
            ShortageError  6   this machine is short of descriptors, threads, processes or memory
        ClockError         7   a clock ran out: connect, idle or total
        BrokenError        8   the stream broke before the answer was complete
        CutShortError      9   the answer hit the token limit
        WithheldError     10   the answer was withheld
        OutputError       11   stdout or a file could not be written
    ReaderGoneError            the reader of stdout is gone: die by SIGPIPE

This module imports nothing from smai, so every other module can import it.
"""

import os
import sys
from enum import Enum, IntEnum

TYPE_CHECKING = False  # what typing.TYPE_CHECKING is, without the time to import typing
if TYPE_CHECKING:
    from typing import Any, Self


class Status(IntEnum):
    """The exit statuses, as the manual lists them. Signals are not among them: smai dies by the real signal."""

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


class Retry(Enum):
    """When smai may retry a request by itself."""

    NEVER = "never"
    UNANSWERED = "the server did not begin an answer, and nothing was billed"
    UNDELIVERED = "the server reported an error in its answer, before any text was delivered"
    HELD_BACK = "the answer broke, and the output mode had not delivered any of it"


class Cause(Enum):
    """Why a server refused a request, or failed to answer it; `answer.causes` derives it from the server's error."""

    MONEY = "no money is left in the account"
    SPENDING_LIMIT = "a limit on spending is reached"
    KEY = "the key is wrong"
    EXPIRED_KEY = "the key has expired"
    MISSING_KEY = "the server received no key"
    ACCOUNT = "the account or its permissions, or HTTP status 401 without a reason"
    REGION = "the server does not serve this country or region"
    FORBIDDEN = "HTTP status 403 without a reason"
    WEB_PAGE = "HTTP status 403 with a web page, from a firewall in front of the API"
    PROMPT_SIZE = "the prompt is too long"
    MODEL = "the model does not exist"
    CONTENT = "a content policy"
    NOT_FOUND = "the API is not at this URL"
    REQUEST = "something else in the request"
    RATE_LIMIT = "a rate limit, or HTTP status 429 without a reason"
    OVERLOAD = "the server is overloaded"
    SERVER = "the server, or its upstream, failed"


class SmaiError(Exception):
    """A failure with an exit status; only subclasses are raised.

    `what` (what happened) and `hint` (what to do next) make the one line on stderr: `str(error)` is both, and
    `error.describe()` only the first. `retryable` says whether the same command may succeed later, `retry` whether
    smai itself may retry.

    The rest comes from the server, or is None. `cause` is why it refused or failed, `code` its own name or number for
    that. `wait_s` is how many seconds it asks to wait, `reset_s` how many until an exhausted rate limit is fully
    restored, which is longer than needed. `http_status` and `request_id` are those of its answer.
    `unknown_parameters` are the parameters of the request that it does not know or support.

    An error does not change; `replaced` returns a copy.
    """

    status = Status.DEFECT
    kind = "defect"
    retryable = False
    retry = Retry.NEVER

    def __init__(  # noqa: PLR0913  # keyword-only
        self,
        what: str,
        hint: str = "",
        *,
        retryable: bool | None = None,
        retry: Retry | None = None,
        cause: Cause | None = None,
        code: str | None = None,
        wait_s: float | None = None,
        reset_s: float | None = None,
        http_status: int | None = None,
        request_id: str | None = None,
        unknown_parameters: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(what)
        self.hint = hint
        self.retryable = self.retryable if retryable is None else retryable
        self.retry = self.retry if retry is None else retry
        self.cause = cause
        self.code = code
        self.wait_s = wait_s
        self.reset_s = reset_s
        self.http_status = http_status
        self.request_id = request_id
        self.unknown_parameters = unknown_parameters

    def replaced(self, what: str = "", **changes: "Any") -> "Self":
        """Return a copy with some attributes changed, named as in `__init__`."""
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__ | changes)
        other.args = (what or self.describe(),)
        other.__cause__ = self.__cause__
        return other

    def describe(self) -> str:
        """Return what happened, without what to do next: for a notice, or to quote it in another message."""
        what: str = self.args[0]
        return what

    def __str__(self) -> str:
        """Return `what happened; what to do next`, the text after `smai: `."""
        return f"{self.describe()}; {self.hint}" if self.hint else self.describe()


class UsageError(SmaiError):
    """The command line, the configuration or the input cannot be used."""

    status, kind = Status.USAGE, "usage"


class ConnectError(SmaiError):
    """The connection could not be made, so nothing was sent."""

    status, kind, retryable, retry = Status.CONNECT, "connect", True, Retry.UNANSWERED


class RefusedError(SmaiError):
    """The server refused this request, or its answer is not a completion."""

    status, kind = Status.REFUSED, "refused"


class AccessError(SmaiError):
    """The server refused the key, or the account."""

    status, kind = Status.ACCESS, "access"


class BusyError(SmaiError):
    """The server is busy or failing (429, 408, 5xx)."""

    status, kind, retryable, retry = Status.BUSY, "busy", True, Retry.UNANSWERED


class ShortageError(BusyError):
    """The machine lacks a resource that a run needs; the same command may succeed later.

    A full disk is an OutputError: waiting does not free it.
    """

    retry = Retry.NEVER


class ClockError(SmaiError):
    """One of the clocks ran out; the message says which one and after how long."""

    status, kind, retryable = Status.CLOCK, "timeout", True


class BrokenError(SmaiError):
    """The stream was cut, was malformed, or carried an error event."""

    status, kind, retryable, retry = Status.BROKEN, "broken", True, Retry.HELD_BACK


class CutShortError(SmaiError):
    """finish_reason `length`: the answer hit the token limit."""

    status, kind = Status.CUT_SHORT, "length"


class WithheldError(SmaiError):
    """finish_reason `content_filter`, or a refusal instead of an answer."""

    status, kind = Status.WITHHELD, "withheld"


class OutputError(SmaiError):
    """Stdout or a file could not be written: closed, disk full, I/O error."""

    status, kind = Status.OUTPUT, "output"


# The failures of reading and parsing an answer; writing it fails with an OutputError.
ANSWER_FAILURES = (UsageError, ConnectError, RefusedError, AccessError, BusyError, ClockError, BrokenError)


# The kind of failure of each exit status.
KINDS: dict[int, str] = {error.status: error.kind for error in SmaiError.__subclasses__()}

# What follows from each cause: the kind of failure, which has the exit status, and the next step.
_MEANINGS: "dict[Cause, tuple[type[SmaiError], str]]" = {
    Cause.MONEY: (AccessError, "top up the account"),
    Cause.SPENDING_LIMIT: (AccessError, "raise the limit of the account"),
    Cause.KEY: (AccessError, "check {key}"),
    Cause.EXPIRED_KEY: (AccessError, "replace {key}, it has expired"),
    Cause.MISSING_KEY: (AccessError, "check that {key} reaches the server"),
    Cause.ACCOUNT: (AccessError, "check {key} and the account"),
    Cause.REGION: (AccessError, "use a server that serves this country"),
    Cause.FORBIDDEN: (AccessError, "check {key} and the account"),
    Cause.WEB_PAGE: (
        RefusedError,
        "a firewall or a proxy blocks the request: try another network, or ask whoever runs the server",
    ),
    Cause.PROMPT_SIZE: (RefusedError, "shorten the prompt"),
    Cause.MODEL: (RefusedError, "check -m/--model; smai models lists the names"),
    Cause.CONTENT: (RefusedError, "rephrase the prompt"),
    Cause.NOT_FOUND: (RefusedError, "check --base-url and -m/--model"),
    Cause.REQUEST: (RefusedError, "check -m/--model, the options and --base-url"),
    Cause.RATE_LIMIT: (BusyError, "try again later"),
    Cause.OVERLOAD: (BusyError, "try again later"),
    Cause.SERVER: (BusyError, "try again later"),
}


def error_type_for(cause: Cause) -> type[SmaiError]:
    """Return the kind of failure that this cause means."""
    return _MEANINGS[cause][0]


def hint_for(cause: Cause, key: str = "the key") -> str:
    """Return the next step after a failure of this cause; `key` is the name of the key in the message."""
    return _MEANINGS[cause][1].format(key=key)


class ReaderGoneError(Exception):
    """The reader of stdout is gone: die by SIGPIPE, without a message."""


def install_hint(package: str) -> str:
    """Return the shell command that installs `package` where this smai can import it.

    pipx marks its environments with a file, and `pip` there is not the user's; uv makes environments without pip.
    """
    import importlib.util  # for few failures
    import shlex

    if os.path.exists(os.path.join(sys.prefix, "pipx_metadata.json")):
        return f"pipx inject {shlex.quote(os.path.basename(sys.prefix))} {package}"
    python = shlex.quote(sys.executable)
    if importlib.util.find_spec("pip") is None:
        return f"uv pip install --python {python} {package}"
    return f"{python} -m pip install {package}"
