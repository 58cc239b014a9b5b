"""The tries of one line of a batch: how many there were, whether another one follows, and when."""

import math
import random

from smai_cli.batch.feed import Job
from smai_cli.batch.input.lines import LineError
from smai_cli.common.clocks import Deadline
from smai_cli.errors import Retry, SmaiError
from smai_cli.stream.retries import LONGEST_WAIT_S, doubled_pause_s, lengthened_pause_s

# Some servers say `Retry-After: 0` to every request: a line believes it once.
_SHORTEST_PAUSE_S = 0.1
# The longest pause after a failure that does not show a limit, as in the SDKs of OpenAI and Anthropic. While the server
# answers other lines, a line that failed often by chance must not delay the end of the run by minutes.
_LONGEST_PAUSE_S = 8.0


class LineDeadline(Deadline):
    """The deadline of a line, `timeout_s` seconds from now (0: none), or that of the run, whichever comes first."""

    def __init__(self, run: Deadline, timeout_s: float) -> None:
        super().__init__(timeout_s, run.now)
        self.end_s = min(self.end_s, run.end_s)
        self._run = run
        self._timeout_s = timeout_s

    def error(self) -> SmaiError:  # type: ignore[override]
        """Return the failure for a deadline that has passed."""
        if self._run.left_s() <= 0:
            return self._run.error()
        what = f"timed out: the line took {self._timeout_s:g} s in all"
        return super().error().replaced(what=what, hint="raise --timeout, or try again")


class Tries:
    """The tries of the line of `job`.

    `spent` counts the retries, `refusals` how often a limit refused it since `through_before` requests of the run had
    got through. `is_postponed`: it was moved to the end of the queue. `started_s` (monotonic) and `deadline` belong to
    the line; they are None before its first try, and again after a wait that does not count. `last_hint`, if not empty,
    replaces the hint of the last failure.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.model = "" if isinstance(job.line, LineError) else job.line.request.model
        self.spent = 0
        self.refusals = 0
        self.through_before = 0
        self.is_postponed = False
        self.last_hint = ""
        self.started_s: float | None = None
        self.deadline: Deadline | None = None

    def begin(self, now_s: float, run: Deadline, timeout_s: float) -> Deadline:
        """Record that a try begins; return the deadline of the line."""
        if self.deadline is None:
            self.started_s, self.deadline = now_s, LineDeadline(run, timeout_s)
        return self.deadline

    def refuse(self, through: int) -> None:
        """Count a refusal because of a limit; `through` is how many requests of the run have got through."""
        if not self.refusals:
            self.through_before = through
        self.refusals += 1

    def postpone(self) -> None:
        """Record that the line moves to the end of the queue, where it gets one more try."""
        self.is_postponed = True
        self.forget_time()

    def forget_time(self) -> None:
        """Restart the time of the line: waiting for the server does not count towards --timeout."""
        self.started_s = self.deadline = None

    def limit_pause_s(self, failure: SmaiError) -> float:
        """Return how long the line waits after a limit refused it: as the server asks, or 0.5 s, doubling each time."""
        if failure.wait_s is None:
            return _double_pause_s(self.refusals)
        return max(
            _lengthen(failure.wait_s),
            _double_pause_s(self.refusals - 1) if self.refusals > 1 else _SHORTEST_PAUSE_S,
        )

    def next_pause_s(self, failure: SmaiError, limit: int) -> float | None:
        """Count the next retry, of at most `limit`, and return how many seconds to wait before it.

        None if there is none: the failure is final, and `last_hint` says so if the server asks for a longer wait than
        there is time.
        """
        if failure.retry is Retry.NEVER or self.spent >= limit:
            return None
        if failure.wait_s is not None and failure.wait_s > LONGEST_WAIT_S:
            self.last_hint = f"the server asks to wait {math.ceil(failure.wait_s)} s; try again then"
            return None
        doubled_s = min(_double_pause_s(self.spent + 1), _LONGEST_PAUSE_S)
        pause_s = doubled_s if failure.wait_s is None else _lengthen(failure.wait_s)
        if self.deadline and pause_s >= self.deadline.left_s():
            self.last_hint = f"the next attempt would start in {pause_s:.1f} s, after the time limit"
            return None
        self.spent += 1
        return pause_s


def _double_pause_s(count: int) -> float:
    """Return the pause before retry `count`, and up to half less, so that lines do not all return at once."""
    return doubled_pause_s(count - 1) * random.uniform(0.5, 1.0)  # noqa: S311  # not a secret


def _lengthen(pause_s: float) -> float:
    """Return a pause that the server asks for, and a little more."""
    return lengthened_pause_s(pause_s, random.random())  # noqa: S311  # not a secret
