"""The failures that end a run: their message, the line they name, and their status."""

from smai_cli.batch.failures import IN_A_ROW, Kind
from smai_cli.batch.feed import Job
from smai_cli.batch.input.lines import describe_line
from smai_cli.errors import AccessError, BusyError, Cause, ClockError, ConnectError, SmaiError

_LATER = "try again later, or raise --patience"


def shared_failure(failure: SmaiError, kind: Kind, job: Job) -> SmaiError:
    """Return what ends the run because all lines would fail like this one; it has the same status."""
    name = describe_line(job.identity.number, job.identity.id)
    if kind in (Kind.ACCESS, Kind.OUTPUT):
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
