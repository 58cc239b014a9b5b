"""Whether and when a failed request is sent again."""

import math
import time
from collections.abc import Callable

from smai_cli.common.clocks import Deadline
from smai_cli.errors import Again, SmaiError

# The longest wait that a server may ask for; smai gives up at once where it asks for more.
# Minute-long limits end just above 60 s (openai/openai-python#3555).
LONGEST_WAIT_S = 120.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0
_DOUBLINGS = 7  # 64 s: what comes after it is cut, and 2.0 ** 1024 is no float
# By how much a wait that the server asks for is spread, so that many clients part: never less than it asks for.
_SPREAD = 0.1
_LONGEST_SPREAD_S = 5.0


class Retries:
    """The tries of one run: `limit` after the first, `spent` so far.

    `say` takes the line that announces each; `deadline` is the end of the run.
    """

    def __init__(
        self,
        limit: int,
        say: Callable[[str], None],
        deadline: Deadline | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.limit = limit
        self.spent = 0
        self._say = say
        self._deadline = deadline or Deadline()
        self._sleep = sleep

    def wait(self, error: SmaiError, *, holds_back: bool) -> SmaiError | None:
        """Wait for the next try after `error` and return None, or return the failure at once: then it is final.

        Only a failure that `error.again` allows is tried again: one before any answer, or, where nothing was delivered
        (`holds_back`), one in an answer. Where the server asks for more patience than there is, the
        hint of `error` says so.
        """
        allowed = error.again is Again.UNANSWERED or (error.again is not Again.NEVER and holds_back)
        if not allowed or self.spent >= self.limit:
            return error
        asked_s = error.reset_s if error.wait_s is None else error.wait_s
        if asked_s is not None and asked_s > LONGEST_WAIT_S:
            return error.replaced(hint=f"the server asks to wait {math.ceil(asked_s)} s; try again then")
        pause_s = self._pause_s(asked_s)
        if pause_s >= self._deadline.left_s():
            return error.replaced(hint=f"the next try would come in {pause_s:.1f} s, after --max-time")
        self.spent += 1
        self._say(f"{error.what}; try {self.spent + 1} of {self.limit + 1} in {pause_s:.1f} s")
        self._sleep(pause_s)
        return None

    def _pause_s(self, asked_s: float | None) -> float:
        """Return what the server asks for and a little more, or 0.5 s doubling, spread by a fifth."""
        import random  # 3 ms that no good run needs

        if asked_s is not None:
            return asked_s + random.uniform(0, min(asked_s * _SPREAD, _LONGEST_SPREAD_S))  # noqa: S311
        return doubled_pause_s(self.spent) * random.uniform(0.8, 1.2)  # noqa: S311  # no secret hangs on it


def doubled_pause_s(count: int) -> float:
    """Return the pause after `count` earlier ones, in seconds: 0.5 s, and twice as long each time, up to 60 s."""
    return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(count, _DOUBLINGS))
