"""The faults of requests, by chance or because of their rate."""

import random
import threading
import time
from typing import NamedTuple

from smai_cli.mock.script import Script

# Faults in an answer that has begun; any other kind is an HTTP status.
IN_ANSWER = ("cut", "stall", "error")
# The kinds that share a rate that names no kind.
MIXTURE = ("429", "503", "cut")


class Fault(NamedTuple):
    """A failure of one request: `kind` is an HTTP status, or one of IN_ANSWER after the share `place` of the answer."""

    kind: str
    place: float


def fault_of(script: Script, number: int) -> Fault | None:
    """Return the fault of request `number`, if any; it depends only on the seed and the number."""
    if not script.flaky:
        return None
    # random.Random hashes a string with SHA-512, so neighbouring numbers are unrelated.
    chance = random.Random(f"{script.seed} {number}")  # noqa: S311  # a rehearsal
    kinds, shares = zip(*script.flaky, strict=True)
    (kind,) = chance.choices([*kinds, None], [*shares, max(0.0, 1 - sum(shares))])
    return None if kind is None else Fault(kind, chance.random())


def within(script: Script, fault: Fault, places: int) -> Script:
    """Return `script` with a fault of IN_ANSWER at one of the `places` between the pieces of its answer."""
    after = int(fault.place * places)
    if fault.kind == "cut":
        return script.replaced(cut_after=after)
    if fault.kind == "stall":
        return script.replaced(stall_after=after)
    return script.replaced(error_after=after)


class RateLimit:
    """Limits requests to `per_s` a second, with a token bucket for one second (at least one request), full at first."""

    def __init__(self, per_s: float) -> None:
        self.per_s = per_s
        self._most = max(1.0, per_s)
        self._left = self._most
        self._filled_at = time.monotonic()
        self._lock = threading.Lock()

    def wait_s(self) -> float:
        """Take a request from the bucket and return 0; if it is empty, return the seconds until the next one."""
        with self._lock:
            now = time.monotonic()
            self._left = min(self._most, self._left + (now - self._filled_at) * self.per_s)
            self._filled_at = now
            if self._left < 1:
                return (1 - self._left) / self.per_s
            self._left -= 1
            return 0.0
