"""What befalls a request by chance or by its rate: a script and the number of the request -> a fault, or none."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from smai_cli.mock.script import Script

# What can befall an answer that began; any other kind is an HTTP status.
IN_ANSWER = ("cut", "stall", "error")
# The kinds that share what is given without one.
MIXTURE = ("429", "503", "cut")


class Fault(NamedTuple):
    """A failure of one request: `kind` is an HTTP status, or one of IN_ANSWER, after the share `place` of an answer."""

    kind: str
    place: float


def fault_of(script: Script, number: int) -> Fault | None:
    """Return what befalls the request `number`; the same each time, whatever other requests there are."""
    if not script.flaky:
        return None
    # A string is hashed by SHA-512, so that neighbours have nothing in common.
    chance = random.Random(f"{script.seed} {number}")  # noqa: S311  # a rehearsal
    kinds, shares = zip(*script.flaky, strict=True)
    (kind,) = chance.choices([*kinds, None], [*shares, max(0.0, 1 - sum(shares))])
    return None if kind is None else Fault(kind, chance.random())


def within(script: Script, fault: Fault, places: int) -> Script:
    """Return `script` with a fault of IN_ANSWER in one of the `places` between the pieces of its answer."""
    after = int(fault.place * places)
    if fault.kind == "cut":
        return replace(script, cut_after=after)
    if fault.kind == "stall":
        return replace(script, stall_after=after)
    return replace(script, error_after=after)


class RateLimit:
    """At most `per_s` requests a second: a bucket with the requests of one second, at least one, full at first."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_s = per_s
        self._most = max(1.0, per_s)
        self._left = self._most
        self._clock = clock
        self._filled_at = clock()
        self._lock = threading.Lock()

    def wait_s(self) -> float:
        """Take a request out of the bucket and return 0; from an empty one the seconds until there is one again."""
        with self._lock:
            now = self._clock()
            self._left = min(self._most, self._left + (now - self._filled_at) * self.per_s)
            self._filled_at = now
            if self._left < 1:
                return (1 - self._left) / self.per_s
            self._left -= 1
            return 0.0
