"""The time in which the server is away: one request at a time probes it, with pauses that double."""

import math
from collections.abc import Callable

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
# By how much a pause is longer at most, so that several batches do not probe together.
_SPREAD = 0.1


class Outage:
    """Whether the server is away, since when, and when the next request may probe it. Times are in seconds.

    `probe` is the request that probes it now, `has_failed` says that one has failed, `is_reported` that the user knows.
    `spread` returns a number from 0 to 1. Not for several threads at once: the schedule has the lock.
    """

    def __init__(self, spread: Callable[[], float]) -> None:
        self.probe: object | None = None
        self.has_failed = False
        self.is_reported = False
        self._spread = spread
        self._since_s: float | None = None
        self._pause_s = 0.0
        self._probe_s = math.inf

    @property
    def is_on(self) -> bool:
        """Whether the server is away."""
        return self._since_s is not None

    def begin(self, now_s: float) -> None:
        """Note that the server is away from now on."""
        self._since_s, self._pause_s, self.is_reported = now_s, _FIRST_PAUSE_S, False
        self.has_failed = False
        self._plan(now_s, math.inf)

    def fail_probe(self, now_s: float, last_s: float) -> None:
        """Note that a probe has failed: the next one comes after twice the pause, but not later than `last_s`."""
        self.has_failed = True
        self._pause_s = min(_LONGEST_PAUSE_S, self._pause_s * 2)
        self._plan(now_s, last_s)

    def wait_s(self, now_s: float) -> float:
        """Return in how many seconds a request may probe the server; infinite while one does."""
        return math.inf if self.probe else self._probe_s - now_s

    def end(self, now_s: float) -> float:
        """Note that the server answers again; return for how many seconds it was away."""
        away_s = now_s - (now_s if self._since_s is None else self._since_s)
        self._since_s, self.probe = None, None
        return away_s

    def _plan(self, now_s: float, last_s: float) -> None:
        self.probe = None
        pause_s = self._pause_s * (1 + self._spread() * _SPREAD)
        self._probe_s = min(now_s + pause_s, max(now_s, last_s))
