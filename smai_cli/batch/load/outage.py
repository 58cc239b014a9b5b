"""The time in which the server is away: one request at a time probes it, with pauses that grow."""

import math
from collections.abc import Callable

from smai_cli.stream.retries import lengthened_pause_s

# A pause takes this share of the outage so far. So the end of an outage of 6 s is noticed within 1 s, and one of ten
# minutes still takes less than 60 probes. Pauses that double notice the end only after twice the time.
_SHARE = 0.15
_SHORTEST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0


class Outage:
    """An outage: whether the server is away, since when, and when the next request may probe it. Times are in seconds.

    `is_on` says that the server is away, `probe` is the request that probes it now, `has_failed` says that one has
    failed, `is_reported` that the user knows. `spread` returns a number from 0 to 1. Not for several threads at once:
    the schedule has the lock.
    """

    def __init__(self, spread: Callable[[], float]) -> None:
        self.is_on = False
        self.probe: object | None = None
        self.has_failed = False
        self.is_reported = False
        self._spread = spread
        self._since_s = 0.0
        self._last_reply_s = 0.0
        self._probe_s = math.inf

    def begin(self, now_s: float) -> None:
        """Note that the server is away from now on."""
        self.is_on, self._since_s, self.is_reported, self.has_failed = True, now_s, False, False
        self._probe_s = math.inf
        self.note_reply(now_s)

    def note_reply(self, now_s: float) -> None:
        """Note an answer to a request that started before the outage: the pauses begin anew.

        If the server has a limit of requests at once and is not away, it may accept another one after an answer.
        """
        if self.is_on:
            self._last_reply_s = now_s
            self._probe_s = min(self._probe_s, now_s + self._pause_s(now_s))

    def fail_probe(self, now_s: float, last_s: float) -> None:
        """Note that a probe has failed: the next one comes after a pause, but not later than `last_s`."""
        self.has_failed, self.probe = True, None
        self._probe_s = min(now_s + self._pause_s(now_s), max(now_s, last_s))

    def wait_s(self, now_s: float) -> float:
        """Return in how many seconds a request may probe the server; infinite while one does."""
        return math.inf if self.probe else self._probe_s - now_s

    def end(self, now_s: float) -> float:
        """Note that the server answers again; return for how many seconds it was away."""
        self.is_on, self.probe = False, None
        return now_s - self._since_s

    def _pause_s(self, now_s: float) -> float:
        pause_s = min(_LONGEST_PAUSE_S, max(_SHORTEST_PAUSE_S, (now_s - self._last_reply_s) * _SHARE))
        return lengthened_pause_s(pause_s, self._spread())
