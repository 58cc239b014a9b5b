"""Decide whether and when to retry a failed request."""

import math
import time
from collections.abc import Callable

from smai_cli.common.clocks import Deadline
from smai_cli.errors import Retry, SmaiError

# The longest wait that a server may ask for; if it asks for more, smai gives up at once.
# Minute-long limits end just above 60 s (openai/openai-python#3555).
LONGEST_WAIT_S = 120.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0
_DOUBLINGS = 7  # 64 s, above the longest pause; 2.0 ** 1024 would overflow
# How much is added at random to a pause, so that clients do not all return at once.
_SPREAD = 0.1
_LONGEST_SPREAD_S = 5.0


class Retries:
    """The retries of one run: at most `limit`, `spent` so far.

    `say` prints the line that announces each; `deadline` is the end of the run.
    """

    def __init__(
        self,
        limit: int,
        say: Callable[[str], None],
        deadline: Deadline | None = None,
        sleep: Callable[[float], None] = time.sleep,
        spent: int = 0,
    ) -> None:
        self.limit = limit
        self.spent = spent
        self._say = say
        self._deadline = deadline or Deadline()
        self._sleep = sleep

    def wait(self, error: SmaiError, *, holds_back: bool) -> SmaiError | None:
        """Wait before a retry after `error` and return None; or return the final failure at once, without a retry.

        Only a failure that `error.retry` allows is retried: one before any answer, or, if nothing was delivered
        (`holds_back`), one in an answer. If the server asks for a longer wait than is allowed, the hint of the returned
        failure says so.
        """
        allowed = error.retry is Retry.UNANSWERED or (error.retry is not Retry.NEVER and holds_back)
        if not allowed or self.spent >= self.limit:
            return error
        asked_s = error.reset_s if error.wait_s is None else error.wait_s
        if asked_s is not None and asked_s > LONGEST_WAIT_S:
            return error.replaced(hint=f"the server asks to wait {math.ceil(asked_s)} s; try again then")
        pause_s = self._pause_s(asked_s)
        if pause_s >= self._deadline.left_s():
            return error.replaced(hint=f"the next try would come in {pause_s:.1f} s, after --max-time")
        self.spent += 1
        self._say(f"{error.describe()}; try {self.spent + 1} of {self.limit + 1} in {pause_s:.1f} s")
        self._sleep(pause_s)
        return None

    def _pause_s(self, asked_s: float | None) -> float:
        """Return the seconds that the server asks for and a little more; or 0.5 s, doubled each time, with jitter."""
        import random  # takes 3 ms; only for a retry

        if asked_s is not None:
            return lengthened_pause_s(asked_s, random.random())  # noqa: S311  # not for a secret
        return doubled_pause_s(self.spent) * random.uniform(0.8, 1.2)  # noqa: S311  # not for a secret


def lengthened_pause_s(pause_s: float, chance: float) -> float:
    """Return a pause and up to a tenth more, in seconds, but at most 5 s; `chance` is a random number from 0 to 1."""
    return pause_s + min(pause_s * _SPREAD, _LONGEST_SPREAD_S) * chance


def doubled_pause_s(count: int) -> float:
    """Return the pause after `count` earlier ones, in seconds: 0.5 s, and twice as long each time, up to 60 s."""
    return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(count, _DOUBLINGS))
