"""The one gate through which all requests of a batch start: how many run at once, and when none may start.

The number adapts as a sender of TCP does (RFC 5681): it grows until the server says that it is too much, is cut once
for all that was under way then, and grows slowly from there. Beside it the starts are spaced: what a server let
through, over the time that it took with its pauses, is what it will let through. Pure but for the waiting.
"""

import math
import random
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from smai_cli.errors import BusyError, SmaiError
from smai_cli.frozen import Frozen

_FIRST_JOBS = 20
_CUT = 0.75
_ABOVE_LIMIT = 429
_SHORTEST_PAUSE_S = 0.1
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0
# After so many pauses in which nothing succeeded, the least one, whatever the server says: some say 0 s.
_MANY_PAUSES = 3
_LEAST_PAUSE_S = 1.0
# By how much a pause is spread, never shortened, so that batches beside each other part.
_SPREAD = 0.1
_LONGEST_SPREAD_S = 5.0
# What the spacing of starts does: by how much a busy answer stretches it, and in how many seconds it shrinks by half,
# far from the rate that was too much before, and near it.
_SLOWER = 1.2
_HALF_S, _NEAR_HALF_S = 10.0, 25.0
_NEAR = 1.3
# A start so soon after it was due counts as one in time.
_LATE_S = 0.1
# A spacing below it is none.
_NO_GAP_S = 0.001
# A server that is too busy so often in a row, although requests came further apart than when it was not, is so for
# another reason: then starts are not spaced for a while, or it would slow a run down for ever.
_SURPRISES = 10
_SURPRISING = 1.1
_UNPACED_S = 60.0
# By how much starts may come faster than a server lets through, and after how many that is known.
_MUCH_FASTER = 1.5
_ENOUGH = 8


class Limits(Frozen):
    """What a user says: the most at once, whether that adapts, the least time between two starts, and the patience.

    `patience_s` is how long nothing at all may succeed while the server is busy.
    """

    jobs: int
    adapts: bool = True
    gap_s: float = 0.0
    patience_s: float = 300.0


class Ticket(NamedTuple):
    """A request that may start: the episode of the gate in which it does, and a number of its own."""

    episode: int
    number: int = 0


class Gate:
    """The gate, for any thread.

    `enter` waits for leave to start, `begins` hears that an answer comes, `leave` or `hold` how a request has ended.

    `on_hold` is called with each episode's failure, the pause in seconds, and the numbers at once before and after.
    """

    def __init__(
        self,
        limits: Limits,
        on_hold: Callable[[SmaiError, float, int, int], None] = lambda *_: None,
        now: Callable[[], float] = time.monotonic,
        spread: Callable[[], float] = random.random,
    ) -> None:
        self.jobs = min(limits.jobs, _FIRST_JOBS) if limits.adapts else limits.jobs
        self.running = 0
        self.failure: SmaiError | None = None
        self._limits = limits
        self._on_hold = on_hold
        self._now = now
        self._spread = spread
        self._changed = threading.Condition()
        self._is_closed = False
        self._started = 0
        self._answered: set[int] = set()  # what is under way, and has some of its answer
        self._episode = 0
        self._pauses = 0  # in a row, without any success
        self._storm_since_s: float | None = None
        self._opens_s = -math.inf
        self._next_start_s = -math.inf
        self._round_left = self.jobs
        self._was_full = False
        # The spacing of starts: none before the first episode.
        self._pace_gap_s = 0.0
        self._paced_s = 0.0  # when it was last shrunk
        self._busy_gap_s = 0.0  # at which the server said that it is too much
        self._surprises = 0  # episodes in a row that came although there was more time between two starts
        self._unpaced_s = -math.inf  # until then nothing is spaced
        self._begun_s = self._idle_since_s = now()
        self._let_through = 0
        self._own_pauses_s = 0.0

    @property
    def is_closed(self) -> bool:
        """Whether nobody starts any more."""
        return self._is_closed

    def enter(self) -> Ticket | None:
        """Wait until one more may start; None once the gate is closed."""
        with self._changed:
            while not self._is_closed:
                wait_s = self._wait_s()
                if wait_s <= 0:
                    return self._start()
                self._changed.wait(None if wait_s == math.inf else wait_s)
            return None

    def close(self, failure: SmaiError | None = None) -> None:
        """Let nobody start any more; `failure` is why."""
        with self._changed:
            self._close(failure)

    def begins(self, ticket: Ticket) -> None:
        """Hear that the server answers a request: until that has ended, patience has an end in sight."""
        with self._changed:
            self._answered.add(ticket.number)

    def leave(self, ticket: Ticket, *, succeeded: bool) -> None:
        """Hear that a request has ended, and not because the server was busy."""
        with self._changed:
            self._end(ticket)
            self._let_through += 1
            if succeeded:
                self._pauses, self._storm_since_s = 0, None
            if ticket.episode == self._episode:
                self._grow()
            self._changed.notify_all()

    def hold(self, ticket: Ticket, error: SmaiError) -> None:
        """Hear that the server was too busy for a request: nothing starts for as long as it asks, or a little."""
        told = None
        with self._changed:
            self._end(ticket)
            now_s = self._now()
            if self._storm_since_s is None or self._answered:
                self._storm_since_s = now_s
            is_new = ticket.episode == self._episode
            pause_s = self._pause_s(error, is_new=is_new)
            asked_s = max(self._opens_s, now_s + (error.wait_s or 0.0))
            self._own_pauses_s += max(0.0, now_s + pause_s - asked_s)
            self._opens_s = max(self._opens_s, now_s + pause_s)
            if is_new:
                before = self.jobs
                self._begin_episode()
                if error.http_status == _ABOVE_LIMIT:
                    self._stretch(now_s)
                told = (error, pause_s, before, self.jobs)
            self._check_patience(error, now_s)
            self._changed.notify_all()
        if told:
            self._on_hold(*told)

    def wait(self, wait_s: float) -> bool:
        """Wait for so many seconds, less if the gate closes; return whether it is open."""
        until_s = self._now() + wait_s
        with self._changed:
            while not self._is_closed and (left_s := until_s - self._now()) > 0:
                self._changed.wait(left_s)
            return not self._is_closed

    def _wait_s(self) -> float:
        if self.running >= self.jobs:
            self._was_full = True
            return math.inf
        return max(self._opens_s, self._next_start_s) - self._now()

    def _start(self) -> Ticket:
        now_s = self._now()
        if not self.running:  # what nobody asked for was not refused
            self._begun_s += max(0.0, now_s - max(self._idle_since_s, self._opens_s, self._next_start_s))
        self.running += 1
        gap_s = max(self._limits.gap_s, self._paced_gap_s(now_s))
        # From when it was due, so that a late wake-up is made up for, but no pause is.
        is_due = now_s - self._next_start_s <= _LATE_S
        self._next_start_s = (self._next_start_s if is_due else now_s) + gap_s
        self._was_full = self._was_full or self.running >= self.jobs
        self._started += 1
        return Ticket(self._episode, self._started)

    def _end(self, ticket: Ticket) -> None:
        self.running -= 1
        self._answered.discard(ticket.number)
        if not self.running:
            self._idle_since_s = self._now()

    def _grow(self) -> None:
        self._round_left -= 1
        if self._round_left > 0 or not self._limits.adapts:
            return
        if self._was_full:
            self.jobs = min(self._limits.jobs, self.jobs + 1 if self._episode else self.jobs * 2)
        self._round_left, self._was_full = self.jobs, False

    def _begin_episode(self) -> None:
        self._episode += 1
        self._pauses += 1
        if self._limits.adapts:
            self.jobs = max(1, int(self.jobs * _CUT))
            self._round_left, self._was_full = self.jobs, False

    def _stretch(self, now_s: float) -> None:
        """Space the starts by what the server has taken for each, or further than until now."""
        if not self._limits.adapts or now_s < self._unpaced_s:
            return
        # The pauses that the server asked for are a part of it, those that we made up ourselves are none.
        taken_s = (self._opens_s - self._begun_s - self._own_pauses_s) / max(1, self._let_through)
        gap_s = self._paced_gap_s(now_s)
        is_faster = taken_s > gap_s * _MUCH_FASTER  # than the server lets through
        if not gap_s:  # what runs now is under way to be let through
            gap_s = (self._opens_s - self._begun_s) / max(1, self._let_through + self.running)
        elif is_faster and self._let_through >= _ENOUGH:
            self._busy_gap_s, self._surprises = 0.0, 0
            gap_s = taken_s
        else:
            is_surprise = not is_faster and gap_s > self._busy_gap_s * _SURPRISING
            self._surprises = self._surprises + 1 if is_surprise else 0
            self._busy_gap_s = gap_s
            gap_s *= _SLOWER
        if self._surprises > _SURPRISES:
            gap_s = self._busy_gap_s = 0.0
            self._surprises, self._unpaced_s = 0, now_s + _UNPACED_S
        if self._let_through >= _ENOUGH or not gap_s:
            self._begun_s, self._let_through, self._own_pauses_s = self._opens_s, 0, 0.0
        self._pace_gap_s, self._paced_s = gap_s, self._opens_s
        self._next_start_s = self._opens_s

    def _paced_gap_s(self, now_s: float) -> float:
        """Return the spacing by now: it shrinks with the time in which nothing was too much."""
        left_s = max(0.0, now_s - self._paced_s)
        is_near = self._pace_gap_s <= self._busy_gap_s * _NEAR
        self._pace_gap_s *= 0.5 ** (left_s / (_NEAR_HALF_S if is_near else _HALF_S))
        self._paced_s = max(self._paced_s, now_s)
        if self._pace_gap_s < _NO_GAP_S:
            self._pace_gap_s = 0.0
        return self._pace_gap_s

    def _pause_s(self, error: SmaiError, *, is_new: bool) -> float:
        """Return how long nothing is to start: what the server asks for and a little more, or 0.5 s doubling."""
        if error.wait_s is not None:
            wait_s = max(error.wait_s, _SHORTEST_PAUSE_S if self._pauses < _MANY_PAUSES else _LEAST_PAUSE_S)
            return wait_s + self._spread() * min(wait_s * _SPREAD, _LONGEST_SPREAD_S)
        if not is_new:
            return 0.0
        return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(self._pauses, 10)) * (1 + self._spread() * _SPREAD)

    def _check_patience(self, error: SmaiError, now_s: float) -> None:
        patience_s, since_s = self._limits.patience_s, self._storm_since_s
        if not patience_s or since_s is None:
            return
        if now_s - since_s >= patience_s:
            what = f"nothing has succeeded for {now_s - since_s:.0f} s: {error.what}"
            self._close(BusyError(what, "try again later, or raise --patience"))
        elif self._opens_s - now_s > patience_s:
            what = f"{error.what}; the server asks to wait {error.wait_s:.0f} s"
            self._close(BusyError(what, "try again then, or raise --patience"))

    def _close(self, failure: SmaiError | None) -> None:
        self._is_closed = True
        self.failure = self.failure or failure
        self._changed.notify_all()
