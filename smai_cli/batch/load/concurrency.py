"""How many requests run at once: more while all goes well, and what the server still carries when it refuses too many.

TCP's congestion control (RFC 5681) with two changes for servers that refuse some requests at random. A cut needs more
refusals than chance explains, and it goes down to the number that the server carries (TCP Westwood, Mascolo et al.
2001), not to a fixed share: a server that refuses at random carries almost all of them.
"""

from enum import Enum
from typing import NamedTuple

# How many run at once before anything is known of the server.
FIRST = 20
# So many starts say something: a rate is measured, and a level is tried, for at least as many.
SAMPLE = 40
# So many refusals above the share that chance explains are a sign of load (a CUSUM, Page 1954): three can be bad luck.
_EVIDENCE = 3.0
# A cut keeps so much (RFC 5681 keeps 0.5, CUBIC in RFC 9438 keeps 0.7; less is too little where several batches share).
KEPT = 0.8


class End(Enum):
    """How a request ended, as far as load is concerned."""

    ANSWERED = "the server took it: an answer, or a refusal of what it asks"
    TOO_MANY = "429, also in the body of a 200"
    UNWELL = "500, 502, 503, 504, 52x, 529"
    UNRELATED = "it says nothing about load: no connection, a timeout, a line that is always refused"


# The share of refusals that chance explains. A 429 says that requests come too fast. Any other refusal usually comes
# from one of several backends; a limit of requests at once refuses a fifth and more.
_CHANCE = {End.TOO_MANY: 0.075, End.UNWELL: 0.2}


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
        self._cuts = 0
        self._evidence = dict.fromkeys(_CHANCE, 0.0)
        self._step = first  # by how much the next round raises the level: doubled each time
        self._slow_from = most  # from here the step begins with 1 again (ssthresh, RFC 5681)
        self._level_before = first  # the last level at which a complete round went well
        self._check: _Check | None = None
        self._was_full = self._is_falling = False
        self._begin_round()

    @property
    def has_room(self) -> bool:
        """Whether one more may run."""
        self._was_full = self._was_full or self.running >= self.level
        return self.running < self.level

    def start(self) -> int:
        """Count a request that starts; return the number of cuts so far, which `succeed` and `refuse` take."""
        self.running += 1
        self._starts += 1
        self._was_full = self._was_full or self.running >= self.level
        for kind, share in _CHANCE.items():
            self._evidence[kind] = max(0.0, self._evidence[kind] - share)
        return self._cuts

    def succeed(self, cuts: int) -> None:
        """Count a request that the server took."""
        self.running -= 1
        if cuts == self._cuts:
            self._successes += 1
            self._end_round()

    def refuse(self, cuts: int, kind: End) -> bool:
        """Count a request that the server refused; return whether that makes too many of this `kind`."""
        self.running -= 1
        if cuts != self._cuts:  # it began before the cut: the level follows what is left
            if self._is_falling:
                self.level = max(1, min(self.level, self.running))
            return False
        self._refusals += 1
        self._evidence[kind] += 1
        if self._check:
            self._end_round()
            return False
        if self._evidence[kind] <= _EVIDENCE:
            return False
        self._cut(kind)
        return True

    def restart(self) -> None:
        """Begin with 1 after an outage, and double up to most of the level before it."""
        self._forget()
        self.level, self._step, self._check = 1, 1, None
        self._slow_from = max(1, int(self._level_before * KEPT))

    def _cut(self, kind: End) -> None:
        if kind is End.UNWELL:
            share = self._refusals / max(1, self._starts)  # none: those that started before this round were refused
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
        self._is_falling = False
        self._evidence = dict.fromkeys(_CHANCE, 0.0)
        self._begin_round()

    def _end_round(self) -> None:
        if self._check:
            self._end_check(self._check)
        elif self._successes >= (self.level if self.level < self._slow_from else max(self.level, SAMPLE)):
            self._level_before = self.level
            if self._was_full:
                self._grow()
            self._begin_round()

    def _end_check(self, check: _Check) -> None:
        """Go back to the level before the cut if the server refuses at least half as many as before it."""
        if self._starts * check.share < 2 * _EVIDENCE:  # too few to compare
            return
        share = self._refusals / self._starts
        self._check = None
        if share > 0.5:  # noqa: PLR2004  # more than half: that is not chance
            self._cut(End.UNWELL)
        elif share >= check.share / 2:
            self.level, self._step, self._slow_from = max(self.level, check.level), check.step, check.slow_from
            self._grow()
            self._forget()

    def _grow(self) -> None:
        up = self.level + self._step
        if self.level < self._slow_from <= up:
            up, self._step = self._slow_from, 1
        else:
            self._step *= 2
        self.level = min(self._most, up)

    def _begin_round(self) -> None:
        self._starts = self._successes = self._refusals = 0
        self._was_full = False
