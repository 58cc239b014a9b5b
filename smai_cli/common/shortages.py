"""The failure of a run because the machine is short of descriptors, threads, processes or memory."""

import errno
import os
from collections.abc import Iterable, Iterator

from smai_cli.errors import ConnectError, OutputError, ShortageError, SmaiError, UsageError

# The errors of the system for an exhausted resource (errno(3)), and what to do in addition to waiting.
_SHORTAGES = {
    errno.EMFILE: "raise ulimit -n",
    errno.ENFILE: "allow the system more open files",
    errno.ENOMEM: "allow the process more memory",
    errno.ENOBUFS: "allow the system more memory for sockets",
}


def failure_of(exc: BaseException) -> SmaiError | None:
    """Return the failure that an exception means to a user; None for a defect.

    If the machine lacks the resources to read the input or to connect, it is a ShortageError with the same message:
    nothing was sent. Any other SmaiError is returned as it is.
    """
    if not isinstance(exc, SmaiError):
        return shortage_among([exc])
    shortage = shortage_among(_causes(exc)) if isinstance(exc, UsageError | ConnectError) else None
    return ShortageError(exc.describe(), shortage.hint) if shortage else exc


def opening_failure(name: str, exc: OSError, hint: str) -> SmaiError:
    """Return the failure of a file that cannot be opened for writing, before any request was sent.

    `name` is the file in the message. It is an OutputError with `hint`, or a ShortageError.
    """
    shortage = shortage_among([exc])
    what = f"{name}: {exc.strerror}"
    return ShortageError(what, shortage.hint) if shortage else OutputError(what, hint)


def shortage_among(causes: Iterable[BaseException]) -> ShortageError | None:
    """Return the failure for the first exception in `causes` that shows a lack of resources; None if none does."""
    for cause in causes:
        words = str(cause) if isinstance(cause, RuntimeError) else ""  # Python has no type for these two
        if isinstance(cause, MemoryError) or words == "can't allocate lock":
            return ShortageError(
                "there is not enough memory", "try again later, send less, or allow the process more memory"
            )
        if words == "can't start new thread":
            return ShortageError("the system cannot start a thread", "try again later, or allow more processes")
        if number := _shortage_number(cause):
            return ShortageError(
                f"the system refuses smai a resource: {os.strerror(number)}",
                f"try again later, or {_SHORTAGES[number]}",
            )
    return None


def _shortage_number(exc: BaseException) -> int | None:
    """Return the errno of a shortage, or None; an ImportError has only the message of dlopen(3)."""
    if isinstance(exc, ImportError):
        words = {os.strerror(number): number for number in _SHORTAGES} | {"failed to map segment": errno.ENOMEM}
        return next((number for word, number in words.items() if word in str(exc)), None)
    return exc.errno if isinstance(exc, OSError) and exc.errno in _SHORTAGES else None


def _causes(exc: BaseException) -> Iterator[BaseException]:
    cause = exc.__cause__
    while cause:
        yield cause
        cause = cause.__cause__
