"""How many requests run at once: more while requests succeed, fewer when the server refuses too many.

This is TCP's congestion control (RFC 5681) with two changes for servers that refuse some requests at random. A cut
needs more refusals than chance explains. And it goes down to the number of requests that the server still works on
(as in TCP Westwood, Mascolo et al. 2001), not to a fixed share: a server that refuses at random works on most of them.
"""

from enum import Enum
from typing import NamedTuple

# How many may run at once before anything is known about the server.
FIRST = 20
# A rate is measured, and a level is tried, for at least this many starts: fewer show nothing.
SAMPLE = 40
# A cut needs this many refusals more than chance explains (a CUSUM, Page 1954): three in a row can be bad luck.
_EVIDENCE = 2.5
# A cut keeps this share (0.5 in RFC 5681, 0.7 in CUBIC, RFC 9438). Several batches on one limit are cut more often than
# a single one, and would use too little of it if they kept less.
KEPT = 0.8


class End(Enum):
    """How a request ended, as far as load is concerned."""

    ANSWERED = "the server accepted it: an answer, or a refusal because of what the request asks"
    TOO_MANY = "429, also in the body of a 200"
    UNWELL = "500, 502, 503, 504, 52x, 529"
    UNRELATED = "it shows nothing about load: no connection, a timeout, a line that is always refused"


# The share of refusals that chance explains. A 429 says that requests come too fast: more than a tenth is load. Any
# other refusal usually comes from one of several backends; a limit of requests at once refuses more than a quarter.
_CHANCE = {End.TOO_MANY: 0.1, End.UNWELL: 0.25}


class _Check(NamedTuple):
    """What to go back to if a cut does not help: the level, how it grew, and the share that was refused."""

    level: int
    step: int
    slow_from: int
    share: float


class Concurrency:
    """The number of requests that may run at once, from 1 to `most`, and the number that does."""

    def __init__(self, most: int, first: int) -> None:
        self.level = first
        self.running = 0
        self._most = most
        self._cuts = self._starts = self._round_start = self._successes = self._refusals = 0
        self._evidence = dict.fromkeys(_CHANCE, (0.0, 0))  # the sum, and at which start it was made
        self._step = first  # by how much the next round raises the level: doubled each time
        self._slow_from = most  # from here the step begins with 1 again (ssthresh, RFC 5681)
        self._level_before = first  # the last level at which a complete round went well
        self._check: _Check | None = None
        self._was_full = self._is_falling = False

    def start(self) -> int:
        """Count a request that starts; return the number of cuts so far, which `succeed` and `refuse` take."""
        self.running += 1
        self._starts += 1
        if self.running >= self.level:
            self._was_full = True
        return self._cuts

    def succeed(self, cuts: int) -> None:
        """Count a request that the server accepted."""
        self.running -= 1
        if cuts == self._cuts:
            self._successes += 1
            if self._check or self._successes >= self.level:
                self._end_round()

    def refuse(self, cuts: int, kind: End) -> bool:
        """Count a request that the server refused; return whether that makes too many of this `kind`."""
        self.running -= 1
        if cuts != self._cuts:  # it began before the cut: the level follows what is left
            if self._is_falling:
                self.level = max(1, min(self.level, self.running))
            return False
        self._refusals += 1
        if self._check:
            self._end_round()
            return False
        evidence, start = self._evidence[kind]
        evidence = max(0.0, evidence - _CHANCE[kind] * (self._starts - start)) + 1
        self._evidence[kind] = evidence, self._starts
        if evidence > _EVIDENCE:
            self._cut(kind)
        return evidence > _EVIDENCE

    def restart(self) -> None:
        """Begin with 1 after an outage, and double up to most of the level before it."""
        self._forget()
        self.level, self._step, self._check = 1, 1, None
        self._slow_from = max(1, int(self._level_before * KEPT))

    def _cut(self, kind: End) -> None:
        if kind is End.UNWELL:
            starts = max(1, self._starts - self._round_start)  # none: all that were refused started before this round
            share = self._refusals / starts
            self._check = _Check(self.level, self._step, self._slow_from, share)
        # If fewer run than may, it is not their number: then only the spacing changes.
        is_falling = kind is End.UNWELL or self._was_full
        self._step, self._slow_from = 1, max(1, int(self._level_before * KEPT))
        if is_falling:
            self.level = max(1, min(self.level, self.running))
        self._forget()
        self._is_falling = is_falling

    def _forget(self) -> None:
        """Begin anew: what has started until now no longer counts as evidence."""
        self._cuts += 1
        self._evidence = dict.fromkeys(_CHANCE, (0.0, self._starts))
        self._is_falling = False
        self._begin_round()

    def _end_round(self) -> None:
        starts = self._starts - self._round_start
        if not (check := self._check):
            if self._successes >= (self.level if self.level < self._slow_from else max(self.level, SAMPLE)):
                self._level_before = self.level
                self._grow()
                self._begin_round()
        elif starts * check.share >= 2 * _EVIDENCE:  # enough to compare the share with the one before the cut
            share, self._check = self._refusals / starts, None
            if share > 0.5:  # noqa: PLR2004  # more than half: that is not chance
                self._cut(End.UNWELL)
            elif share >= check.share / 2:  # it did not help
                self.level, self._step, self._slow_from = max(self.level, check.level), check.step, check.slow_from
                self._grow()
                self._forget()

    def _grow(self) -> None:
        if self._was_full and self.level < self._most:
            up, self._step = self.level + self._step, self._step * 2
            if self.level < self._slow_from <= up:
                up, self._step = self._slow_from, 1
            self.level = min(self._most, up)

    def _begin_round(self) -> None:
        self._round_start, self._successes, self._refusals, self._was_full = self._starts, 0, 0, False
