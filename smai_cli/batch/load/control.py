"""The load of one model: how many of its requests run at once, and when the next one may start.

A 429 says that requests come too fast: many of them space the starts. Any other refusal says that something on the
server is unwell: only a large share of them changes how many run at once. If the server refuses as many after that as
before, both are undone. A Retry-After delays all starts of the model.

Nothing here waits or knows threads.
"""

import math
import random
from collections.abc import Callable
from typing import NamedTuple

from smai_cli.batch.load.concurrency import FIRST, KEPT, Change, Concurrency, End
from smai_cli.batch.load.spacing import Spacing
from smai_cli.stream.retries import lengthened_pause_s

__all__ = ["End", "Episode", "LoadControl"]


class Episode(NamedTuple):
    """What begins with a refusal: a pause of all starts, fewer at once, or a slower rate.

    `pause_s` is in seconds, 0 without a pause. `before` and `after` are how many may run at once. `rate` is how many
    may start in a second, None if that did not change.
    """

    pause_s: float
    before: int
    after: int
    rate: float | None = None


class LoadControl:
    """The load of one model. Every method takes the time in seconds, on a clock of the caller.

    `jobs` is the most that may run at once. Unless `adapts`, that many may, and only a Retry-After delays a
    start. `spread` returns a random number from 0 to 1.
    """

    def __init__(self, jobs: int, adapts: bool = True, spread: Callable[[], float] = random.random) -> None:
        self._adapts = adapts
        self._spread = spread
        self._concurrency = Concurrency(jobs, min(jobs, FIRST) if adapts else jobs)
        self._spacing = Spacing()
        self._opens_s = 0.0
        self._last_end_s = math.inf  # none has ended
        self._level_before = self.jobs  # of the last cut
        self._is_announced = True

    @property
    def jobs(self) -> int:
        """How many may run at once now."""
        return self._concurrency.level

    @property
    def running(self) -> int:
        """How many run now."""
        return self._concurrency.running

    def wait_s(self, now_s: float) -> float:
        """Return in how many seconds one more may start; infinite if not before one has ended."""
        if self._concurrency.running >= self._concurrency.level:
            return math.inf
        return self._spacing.wait_s(now_s) if self._adapts else self._opens_s - now_s

    def start(self, now_s: float) -> int:
        """Count a request that starts; return its number, which `leave` takes."""
        self._spacing.start(now_s, self._last_end_s)
        return self._concurrency.start()

    def leave(self, number: int, now_s: float, end: End, wait_s: float | None = None) -> Episode | None:
        """Count a request that has ended; return what begins with that and is worth a message, else None.

        `wait_s` is how long the server asks to wait: until then nothing starts, after TOO_MANY and UNWELL.
        """
        self._last_end_s = now_s
        if end is End.ANSWERED:
            self._spacing.accept(now_s)
        # While the server works on others, it has a limit of requests at once.
        is_closed = end is End.TOO_MANY and self._spacing.refuse() and self._concurrency.running == 1
        if end in (End.ANSWERED, End.UNRELATED):
            self._apply(self._concurrency.end(number, end))
            return None
        pause_s = self._pause(now_s, wait_s)
        if is_closed or not self._adapts:  # fewer at once, or a slower rate, would not help
            self._concurrency.end(number, End.UNRELATED)
            return Episode(pause_s, self.jobs, self.jobs) if pause_s else None
        before, rate = self.jobs, None
        change = self._apply(self._concurrency.end(number, end))
        if change in (Change.CUT, Change.LIMIT):
            self._level_before, self._is_announced = before, False
            is_too_fast = end is End.TOO_MANY
        else:  # with a Retry-After one is enough, as each costs a pause, unless slower starts did not help
            is_enough = wait_s is not None and not self._spacing.is_undone
            is_too_fast = end is End.TOO_MANY and (is_enough or number <= self._spacing.last_cut)
        if is_too_fast and self._spacing.slow_down(now_s, number, wait_s, change is Change.LIMIT):
            rate = self._spacing.rate
        elif is_too_fast and self._spacing.is_undone:
            self._concurrency.was_undone = True  # check the next cut, and let it lower the level
        return self._announce(pause_s, before, rate)

    def restart(self, now_s: float) -> None:
        """Begin as at first after an outage, but with no more at once than most of the level before it."""
        if self._adapts:
            self._concurrency.restart()
            self._spacing.restart(now_s)

    def _apply(self, change: Change | None) -> Change | None:
        """Change the spacing as well, if a cut was undone; return `change`."""
        if change is Change.UNDONE:
            self._spacing.undo()  # what was refused did not depend on the rate
        return change

    def _pause(self, now_s: float, wait_s: float | None) -> float:
        """Hold all starts for as long as the server asks, and a little more; return for how long, 0 if one runs."""
        if not wait_s:
            return 0.0
        pause_s = lengthened_pause_s(wait_s, self._spread())
        is_new = self._opens_s <= now_s
        self._opens_s = max(self._opens_s, now_s + pause_s)
        self._spacing.pause(now_s, self._opens_s)
        return pause_s if is_new else 0.0

    def _announce(self, pause_s: float, before: int, rate: float | None) -> Episode | None:
        """Return the episode; a level that hardly falls is not worth one: the refusals may be chance."""
        has_fallen = not self._is_announced and self.jobs <= self._level_before * KEPT
        if not (has_fallen or pause_s or rate is not None):
            return None
        self._is_announced = True  # what follows from the same cut is not another episode
        return Episode(pause_s, self._level_before if has_fallen else before, self.jobs, rate)
