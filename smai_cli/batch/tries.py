"""The tries of one line of a batch: each through the gate, until there is a result, or no time or try is left."""

import math
import random

from smai_cli.batch.gate import Gate, Ticket
from smai_cli.clocks import Deadline
from smai_cli.errors import Again, BusyError, SmaiError
from smai_cli.http.retry import LONGEST_WAIT_S, Retries

# The server is too busy: for a request above a limit, or at all.
_ABOVE_LIMIT = 429
_OVERLOADED = (429, 503, 529)


class LineDeadline(Deadline):
    """The end of a line, `timeout_s` seconds from now (0: never), or of the run, whichever comes first."""

    def __init__(self, run: Deadline, timeout_s: float) -> None:
        super().__init__(timeout_s, run.now)
        self._run = run
        self._timeout_s = timeout_s

    def left_s(self) -> float:
        """Return the seconds that are left."""
        return min(super().left_s(), self._run.left_s())

    def error(self) -> SmaiError:  # type: ignore[override]
        """Return the failure that its end is."""
        if self._run.left_s() <= 0:
            return self._run.error()
        error = super().error()
        error.what = f"timed out: the line took {self._timeout_s:g} s in all"
        error.hint = "raise --timeout, or try again"
        return error


class Tries(Retries):
    """The tries of one line, each through the gate; `was_stopped` says that the gate closed before the next."""

    def __init__(self, gate: Gate, limit: int) -> None:
        super().__init__(limit, lambda _: None)
        self._line = Deadline()
        self.was_stopped = False
        self._gate = gate
        self._ticket: Ticket | None = None

    def start(self) -> bool:
        """Wait for leave to ask; return False once the gate is closed."""
        self._ticket = self._gate.enter()
        return self._ticket is not None

    def ends_by(self, deadline: Deadline) -> None:
        """Hear until when the line may take."""
        self._line = deadline

    def begins(self) -> None:
        """Tell the gate that an answer comes."""
        if self._ticket:
            self._gate.begins(self._ticket)

    def end(self, error: SmaiError | None, *, succeeded: bool) -> None:
        """Tell the gate how the last try has ended."""
        if self._ticket is None:
            return
        if error and _is_busy(error):
            self._gate.hold(self._ticket, error)
        else:
            self._gate.leave(self._ticket, succeeded=succeeded)
        self._ticket = None

    def wait(self, error: SmaiError, *, holds_back: bool) -> bool:  # noqa: ARG002  # every line is held back
        """Wait for the next try after `error` and return True; False where there is none, or not from here.

        A request above a limit is no try: it leaves, and comes again when the gate is open.
        """
        if error.again is Again.NEVER or self.spent >= self.limit or is_above_limit(error):
            return False
        pause_s = 0.0 if _is_busy(error) else _pause_s(error, self.spent + 1)
        if (error.wait_s or 0.0) > LONGEST_WAIT_S and pause_s:
            error.hint = f"the server asks to wait {math.ceil(error.wait_s or 0.0)} s; try again then"
            return False
        if pause_s >= self._line.left_s():
            error.hint = f"the next try would come in {pause_s:.1f} s, when the time for it is over"
            return False
        self.end(error, succeeded=False)
        self.spent += 1
        if not self._gate.wait(pause_s):
            self.was_stopped = True
            return False
        self.was_stopped = not self.start()
        return not self.was_stopped


def is_above_limit(error: SmaiError) -> bool:
    """Return whether a request came too early, and is to be sent when the server lets it through."""
    return isinstance(error, BusyError) and error.http_status == _ABOVE_LIMIT and error.again is Again.UNANSWERED


def _is_busy(error: SmaiError) -> bool:
    return isinstance(error, BusyError) and error.http_status in _OVERLOADED


def _pause_s(error: SmaiError, spent: int) -> float:
    """Return for how long a line waits after a failure that is its own, and not the server's load."""
    pause_s = error.wait_s if error.wait_s is not None else min(60.0, 0.5 * 2.0 ** min(spent - 1, 7))
    return pause_s * random.uniform(1.0, 1.2)  # noqa: S311  # no secret hangs on it
