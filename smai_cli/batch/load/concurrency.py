"""How many requests run at once: more while requests succeed, fewer when the server refuses too many.

This is TCP's congestion control (RFC 5681) with changes for servers that refuse some requests at random. A cut
needs more refusals than chance explains. It goes down to the number of requests that the server still works on (as in
TCP Westwood, Mascolo et al. 2001), not to a fixed share: a server that refuses at random works on most of them. That
number is known only a round trip later, so the first refusal after the cut lowers it once more. And a cut after which
the server refuses the same share as before is undone: load was not the cause. Only a burst of 429 is taken for a limit
without this check, because several batches on one limit cannot see that a cut helped: the others take what it left.
It is taken for a limit only until many cuts in a row have not helped (see `Spacing`).
"""

import math
from enum import Enum

# How many may run at once before anything is known about the server.
FIRST = 20
# A rate or a share is measured, and a level is tried, for at least this many starts: fewer show nothing.
SAMPLE = 40
# A cut needs this many refusals more than chance explains (a CUSUM, Page 1954): three in a row can be bad luck.
_EVIDENCE = 2.5
# A limit refuses every request until it has room again; random refusals are spread out. So if the server refused more
# than this share of the requests from the first refusal of the sum to the cut, it has a limit.
_BURST = 0.35
# A cut takes this share (0.5 in RFC 5681, 0.3 in CUBIC, RFC 9438). Several batches on one limit are cut more often than
# a single one, and would use too little of it if each cut took more.
_TAKEN = 0.2
KEPT = 1 - _TAKEN


class End(Enum):
    """How a request ended, as far as load is concerned."""

    ANSWERED = "the server accepted it: an answer, or a refusal because of what the request asks"
    TOO_MANY = "429, also in the body of a 200"
    UNWELL = "500, 502, 503, 504, 52x, 529"
    UNRELATED = "it shows nothing about load: no connection, a timeout, a line that is always refused"


# The share of refusals that chance explains. A 429 says that requests come too fast: more than a tenth is load. Any
# other refusal usually comes from one of several backends; a limit of requests at once refuses more than a quarter.
_CHANCE = {End.TOO_MANY: 0.1, End.UNWELL: 0.25}


class Change(Enum):
    """What the end of a request changes."""

    CUT = "too many were refused: fewer may run at once, or may start in a second"
    LIMIT = "the same, and the refusals came as those of a limit do"
    UNDONE = "the last cut because of TOO_MANY did not help: what it changed is as before"


class _Check:
    """Whether a cut of one kind helps: `share` of the requests was refused before it, after so many starts.

    The next requests show it, as soon as it is clear which share of them is refused: a refusal may take longer than an
    answer. They are so many that a server that refuses at random seems to have been helped once in thirty times. If the
    cut does not help, `before` is to be restored: the level, the step and where slow growth begins.
    """

    def __init__(self, kind: End, share: float, starts: int, before: tuple[int, int, int]) -> None:
        self.kind, self.share, self.before = kind, share, before
        self._starts, self._size = starts, math.ceil(3 * _EVIDENCE / share)
        self._others = self._refusals = 0

    def count(self, number: int, is_refused: bool) -> bool | None:
        """Count the end of a request; return whether the cut has helped, None if that is not clear yet."""
        if self._starts < number <= self._starts + self._size:
            self._refusals += is_refused
            self._others += not is_refused
        few = self.share * self._size / 2
        return False if self._refusals >= few else True if self._size - self._others < few else None


class _RecentShare:
    """The share of the last starts that was refused; each start counts less with every start after it.

    The first refusals come early by chance, and a share of half or more would make every cut seem to help. So it
    begins as if some starts had been accepted.
    """

    def __init__(self) -> None:
        self._starts, self._refusals = 2 * _EVIDENCE, 0.0

    def start(self) -> None:
        """Count a start."""
        self._starts += 1 - self._starts / SAMPLE
        self._refusals -= self._refusals / SAMPLE

    def refuse(self) -> float:
        """Count a refusal; return the share."""
        self._refusals += 1
        return self._refusals / self._starts


class _Evidence:
    """The refusals of one kind that chance does not explain (a CUSUM, Page 1954)."""

    def __init__(self, kind: End) -> None:
        self._least = _CHANCE[kind]
        self.allow(0.0)
        self.clear(0)

    def allow(self, share: float) -> None:
        """Let chance explain twice this share, but not less than a share that any server may refuse."""
        self._allowed = max(self._least, 2 * share)

    def clear(self, starts: int) -> None:
        """Restart the sum, after this many starts."""
        self._sum, self._starts = 0.0, starts
        self._refusals, self._start = 0, starts  # the refusals in the sum, and the starts before it began

    def add(self, starts: int) -> bool:
        """Add a refusal after this many starts; return whether there are too many."""
        self._sum -= self._allowed * (starts - self._starts)
        if self._sum <= 0.0:
            self._sum, self._refusals, self._start = 0.0, 0, starts - 1
        self._sum += 1
        self._refusals += 1
        self._starts = starts
        return self._sum > _EVIDENCE

    def is_burst(self) -> bool:
        """Return whether these refusals came close together."""
        return self._refusals > _BURST * (self._starts - self._start)


class Concurrency:
    """The number of requests that may run at once, from 1 to `most`, and the number that does."""

    def __init__(self, most: int, first: int) -> None:
        self.level = first
        self.running = 0
        self._most = most
        self._starts = self._last_cut = self._successes = self._refusals = 0
        self._recent = _RecentShare()
        self._evidence = {kind: _Evidence(kind) for kind in _CHANCE}
        self._step = first  # by how much the next round raises the level: doubled each time
        self._slow_from = most  # from here the step begins with 1 again (ssthresh, RFC 5681)
        self._level_before = first  # the last level at which a complete round went well
        self._check: _Check | None = None
        self.was_undone = self._was_full = self._is_falling = False  # undone: the last cut, which did not help

    def start(self) -> int:
        """Count a request that starts; return its number, which `end` takes."""
        self.running += 1
        self._starts += 1
        self._recent.start()
        self._was_full |= self.running >= self.level
        return self._starts

    def end(self, number: int, end: End) -> Change | None:
        """Count the end of a request. Refusals from before a cut lower the level after it, and so does the next one."""
        self.running -= 1
        is_old, is_refused = number <= self._last_cut, end in _CHANCE
        if is_refused and self._is_falling and (is_old or (self._check and not self._refusals)):
            self.level = max(1, min(self.level, self.running))
        if is_old:
            return None
        if is_refused:
            self._refusals += 1
            share = self._recent.refuse()
            if self._evidence[end].add(self._starts):
                return self._cut(end, share)
        elif end is End.ANSWERED:
            self._successes += 1
        return self._end_check(self._check, number, is_refused) if self._check else self._end_round()

    def restart(self) -> None:
        """Begin as at first after an outage, but with no more than most of the level before it."""
        self._forget()
        self._slow_from = max(1, int(self._level_before * KEPT))
        self.level = self._step = min(FIRST, self._slow_from)
        self._check = None

    def _cut(self, kind: End, share: float) -> Change:
        # If fewer run than may, it is not their number: then only the spacing changes, unless that did not help.
        is_falling = kind is End.UNWELL or self._was_full or self.was_undone
        # More were refused during the check than before it, or these refusals came close together.
        is_load = self._check is not None or (not self.was_undone and self._evidence[kind].is_burst())
        self.was_undone = self.was_undone and not is_load
        may_be_chance = kind is End.UNWELL or not is_load
        before = self.level, self._step, self._slow_from
        self._check = _Check(kind, share, self._starts, before) if may_be_chance else None
        self._evidence[kind].allow(share if may_be_chance else 0.0)
        self._step, self._slow_from = 1, max(1, int(self._level_before * KEPT))
        if is_falling:
            self.level = max(1, min(self.level, self.running))
        self._forget(is_falling)
        return Change.CUT if may_be_chance else Change.LIMIT

    def _forget(self, is_falling: bool = False) -> None:
        """Start over: what has started until now is no longer evidence."""
        self._last_cut, self._is_falling = self._starts, is_falling
        for evidence in self._evidence.values():
            evidence.clear(self._starts)
        self._begin_round()

    def _end_round(self) -> Change | None:
        if self._successes >= (self.level if self.level < self._slow_from else max(self.level, SAMPLE)):
            self._level_before = self.level
            self._grow()
            self._begin_round()
        return None

    def _end_check(self, check: _Check, number: int, is_refused: bool) -> Change | None:
        if (has_helped := check.count(number, is_refused)) is None:
            return None
        self._check, self.was_undone = None, not has_helped
        self._evidence[check.kind].allow(0.0 if has_helped else min(check.share, KEPT * _CHANCE[End.UNWELL]))
        if has_helped:
            return None
        level, self._step, self._slow_from = check.before
        self.level = max(self.level, level)
        self._grow()
        self._forget()
        return Change.UNDONE if check.kind is End.TOO_MANY else None

    def _grow(self) -> None:
        if self._was_full and self.level < self._most:
            up, self._step = self.level + self._step, self._step * 2
            if self.level < self._slow_from <= up:
                up, self._step = self._slow_from, 1
            self.level = min(self._most, up)

    def _begin_round(self) -> None:
        self._successes, self._refusals, self._was_full = 0, 0, False
