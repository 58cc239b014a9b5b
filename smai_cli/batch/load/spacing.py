"""When the next request may start: as fast as the server lets requests through, and a little faster to try.

Additive increase and multiplicative decrease (Chiu and Jain 1989; TCP, RFC 5681), of starts a second instead of bytes
under way. The increase goes by starts, so that limits of one start a second and of a hundred are exceeded equally
often.
"""

import math
from collections import deque

from smai_cli.batch.load.concurrency import FIRST, KEPT, SAMPLE

# A shorter time does not show a rate: the first answers come in a burst.
_SHORTEST_S = 0.25
# Before the first cut a start may come this many times as fast as others were accepted, so that a limit is not found by
# a burst of refusals. TCP in Linux paces slow start by the same factor (tcp_pacing_ss_ratio).
_SEARCH_GAIN = 2.0
# A second raises the rate as much as this many starts do, or a limit of one start a second takes too long to find.
_BY_TIME = 0.25
# The best rate that was measured is remembered, and each cut takes a twentieth of it. Far below it the rate rises
# faster: of several batches on one limit, the one that got less must gain on the others (Chiu and Jain).
_REMEMBERED = 0.95
# If cuts that follow single refusals leave less than this share of the best rate, they did not help.
_FIVE_CUTS = KEPT**5
# After this many refusals in a row, each rate is too high, and a cut changes nothing.
_IN_A_ROW = SAMPLE // 4


class _RecentRate:
    """How many of the last starts the server accepted, and in which time."""

    def __init__(self, since_s: float | None = None) -> None:
        self._accepted = 0
        self._left_out_s = 0.0
        # How many starts were accepted, up to some moments, and how much of the time until then does not count.
        self._moments: deque[tuple[float, int, float]] = deque([] if since_s is None else [(since_s, 0, 0.0)])

    @property
    def starts(self) -> int:
        """How many starts show the rate."""
        return self._accepted - self._moments[0][1]

    @property
    def has_accepted(self) -> bool:
        """Whether the server has accepted a start, or still works on one."""
        return self._accepted > 0

    def start(self, now_s: float, ready_s: float) -> None:
        """Count a start; from `ready_s` on, only the input has delayed it."""
        if now_s - ready_s > _SHORTEST_S:
            self.leave_out(now_s - ready_s)
        moments = self._moments
        if not moments:
            moments.append((now_s, 0, 0.0))
        self._accepted += 1
        moments.append((now_s, self._accepted, self._left_out_s))
        while self._accepted - moments[1][1] >= SAMPLE and now_s - moments[1][0] >= _SHORTEST_S:
            moments.popleft()

    def refuse(self) -> None:
        """Count a start that the server refused."""
        self._accepted -= 1

    def leave_out(self, time_s: float) -> None:
        """Do not count this much time: the server asked for a pause, or there was nothing to start."""
        self._left_out_s += max(0.0, time_s)

    def measure(self, now_s: float, next_s: float) -> float:
        """Return how many starts a second were accepted, in the time that counts; the next start comes at `next_s`."""
        since_s, _, left_out_s = self._moments[0]
        left_out_s = self._left_out_s - left_out_s - max(0.0, next_s - now_s)
        return max(1, self.starts) / max(_SHORTEST_S, now_s - since_s - max(0.0, left_out_s))


class _Cycle:
    """The rate after a cut, as a share of the limit: it reaches the limit after so many starts, and rises beyond it."""

    def __init__(self, starts: float) -> None:
        self._starts = starts
        self._step = 0.0

    def advance(self, rate: float) -> None:
        """Count a start at this rate."""
        self._step += 1 + _BY_TIME / rate

    @property
    def share(self) -> float:
        """The share that may start now; it grows faster beyond the limit (CUBIC, RFC 9438)."""
        x = self._step / self._starts
        return KEPT + (1 - KEPT) * (x if x < 1 else x * x)


def _find_limit(rate: float, measured: float, is_certain: bool, last: float) -> float:
    """Return how many starts a second the server lets through, if it refused some at this rate.

    `measured` is how many it accepted in a second, and `last` the limit that was found before, 0 if there is none.
    """
    if rate > measured / KEPT:  # a cut would not be enough
        # Few starts show little if the rate is hardly too high: a server without bursts accepts every second one.
        return measured if is_certain or rate > _SEARCH_GAIN * measured else math.sqrt(rate * measured)
    return rate * (1 + KEPT) / 2 if rate < last else rate  # sooner than last time: fast convergence, RFC 9438


class Spacing:
    """The time between two starts. All times are in seconds, on a clock of the caller."""

    def __init__(self) -> None:
        self.rate = 1.5 * FIRST  # how many requests may start in a second
        self._next_s = 0.0
        self._recent = _RecentRate()
        self._limit = self.rate  # the rate that was too fast, by the last cut; during a search the least rate
        self._rate_before = self.rate  # of the first of the last cuts in a row
        self._cuts = 0  # in a row after the first
        self._is_searching = True  # until the first cut, and after one that did not help
        self._best = 0.0  # the best rate that many starts have proved, and less after each cut
        self._cycle = _Cycle(2.0 * SAMPLE)  # it counts the starts since the cut that the spacing delayed
        self._number = self.last_cut = self._refused_in_a_row = 0
        self._was_delayed = self.is_undone = False  # undone: the last cuts, because refusals do not depend on the rate

    def wait_s(self, now_s: float) -> float:
        """Return in how many seconds one more may start."""
        self._was_delayed |= self._next_s > now_s
        return self._next_s - now_s

    def start(self, now_s: float, last_end_s: float) -> None:
        """Count a request that starts. The last one ended at `last_end_s`."""
        self._number += 1
        self._recent.start(now_s, max(last_end_s, self._next_s))
        if self._is_searching:
            self.rate = max(self._limit, _SEARCH_GAIN * self._recent.measure(now_s, self._next_s))
            if not self.last_cut:  # kept for the time after an outage
                self._limit = self.rate
        elif self._was_delayed:  # a rate that is not used up is not proved
            self._cycle.advance(self.rate)
            self.rate = self._limit * self._cycle.share
        is_due = self._was_delayed and now_s - self._next_s < _SHORTEST_S  # a late wake-up is made up for
        self._next_s = (self._next_s if is_due else now_s) + 1 / self.rate
        self._was_delayed = False

    def accept(self, now_s: float) -> None:
        """Count an answer. The first one after too many refusals in a row begins a new search for the rate."""
        if self._refused_in_a_row >= _IN_A_ROW:
            self.restart(now_s)
            self._is_searching = True
        self._refused_in_a_row = 0

    def refuse(self) -> bool:
        """Count a refusal; return whether the server refuses everything, at any rate."""
        self._refused_in_a_row += 1
        if not self.is_undone:  # the others came at a rate that was allowed
            self._recent.refuse()
        return self._refused_in_a_row >= _IN_A_ROW or not self._recent.has_accepted

    def pause(self, now_s: float, until_s: float) -> None:
        """Start nothing before `until_s`: the server asks for it."""
        self._recent.leave_out(until_s - max(now_s, self._next_s))
        self._next_s = max(self._next_s, until_s)

    def slow_down(self, now_s: float, number: int, pause_s: float | None, is_limit: bool) -> bool:
        """Start fewer, because the server refused the request with this number and others; return whether that is new.

        `pause_s` is how long the server asks to wait, if it does. `is_limit`: the refusals came as those of a limit do.
        """
        measured = self._recent.measure(now_s, self._next_s)
        is_new = number > self.last_cut
        if is_new:
            self._cut(measured, pause_s or 0.0, is_limit)
        elif pause_s is None and self._number == self.last_cut and self._limit > measured / KEPT:
            self._limit = measured  # more of the same burst were refused
        self.rate = self.rate if self._is_searching else self._limit * self._cycle.share
        self._next_s = max(self._next_s, now_s + 1 / self.rate)
        return is_new and not self._is_searching

    def restart(self, now_s: float) -> None:
        """Restart the measurement after an outage: a server that was away is not a slow one."""
        self._recent = _RecentRate(now_s)

    def undo(self) -> None:
        """Undo the last cuts, which did not help, and search again for the rate that the server lets through."""
        self._limit, self._is_searching, self.is_undone = self._rate_before, True, True

    def _cut(self, measured: float, pause_s: float, is_limit: bool) -> None:
        is_in_a_row = not self._is_searching and self._number - self.last_cut < SAMPLE
        self._cuts = self._cuts + 1 if is_in_a_row else 0
        if KEPT**self._cuts < 1 - KEPT:  # a fifth of the rate is left, and the cuts did not help
            self.undo()
            return
        self._rate_before = self._rate_before if self._cuts else self.rate
        is_proved = self._recent.starts >= SAMPLE / 2
        # A limit may allow a burst first, which was measured as well; and the first measurement is short.
        first = max(measured / (_SEARCH_GAIN if is_limit else 1), FIRST)
        last = 0.0 if self._is_searching else self._limit
        self._limit = _find_limit(self.rate, measured if self.last_cut else first, is_proved or not last, last)
        if (self._best or is_proved) and not self._is_searching:  # a search measures that burst
            self._best = max(self._limit, _REMEMBERED * max(self._best, measured if is_proved else 0.0))
        share = min(1.0, self._limit / max(self._best, measured))
        if pause_s and share < _FIVE_CUTS:  # each of these cuts follows one refusal, and they did not help
            self._rate_before, self._best = self._best, self._best / 2
            self.undo()
            return
        self._is_searching, self.is_undone, self.last_cut = False, False, self._number
        # A pause costs no more than the cut.
        self._cycle = _Cycle(2 * SAMPLE * max(_FIVE_CUTS, share) + pause_s * self._limit / (1 - KEPT))
