"""The clocks of a run: how long to connect, how long to wait between two events, and how long in all."""

import math
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from smai_cli.errors import ClockError

# How long an answer that is finished may keep the connection open before smai leaves, without `[DONE]`.
FINISHED_GRACE_S = 5.0
# How long --raw waits for bytes behind the end of an answer, such as the other half of its last line end.
HURRY_S = 0.25
# A wait that ends this much late was not a wait: the process was stopped (Ctrl-Z), or the machine slept.
SUSPENDED_S = 1.0
# A long wait is a row of short ones: only the one in which the process was stopped is late.
SLICE_S = 1.0
_FOREVER_S = 30 * 24 * 3600.0
_SHORTEST_SLEEP_S = 0.02


class Deadline:
    """The end of the whole run, `max_time_s` seconds from now; 0: never."""

    def __init__(self, max_time_s: float = 0.0) -> None:
        self._max_time_s = max_time_s
        self._at_s = time.monotonic() + max_time_s if max_time_s else math.inf

    def left_s(self) -> float:
        """Return the seconds that are left: infinite without a limit, negative when it has passed."""
        return self._at_s - time.monotonic()

    def error(self) -> ClockError:
        """Return the failure that the end of the run is."""
        return ClockError(f"timed out: the run took {self._max_time_s:g} s in all", "raise --max-time, or try again")


class Clocks(NamedTuple):
    """The limits of one exchange; 0 seconds turn a clock off.

    `connect_timeout_s` covers DNS, TCP, TLS and proxy together, `idle_timeout_s` the time between two events
    with data, the first included, `deadline` the run.
    """

    connect_timeout_s: float = 10.0
    idle_timeout_s: float = 600.0
    deadline: Deadline = Deadline()


class IdleClock:
    """Counts the time spent waiting for the server since the last event with data, and minds the deadline.

    Time in which the reader of stdout is slow, or the process is stopped, does not count as idle. The socket's
    own timeout cannot do this: every byte of a comment, a header or a chunk size would start it anew.
    """

    def __init__(self, clocks: Clocks) -> None:
        self.silent = True
        self._limit_s = clocks.idle_timeout_s or _FOREVER_S
        self._deadline = clocks.deadline
        self._used_s = 0.0
        self._since_s: float | None = None
        self._fired: ClockError | None = None
        self._changed = threading.Event()

    def start(self) -> None:
        """Begin to count."""
        self._since_s = time.monotonic()

    def stop(self) -> None:
        """Cease to count; what was counted stays."""
        since_s, self._since_s = self._since_s, None  # first, so that the watcher never counts the time twice
        if since_s is not None:
            self._used_s += time.monotonic() - since_s

    def restart(self, limit_s: float | None = None) -> None:
        """Count from nothing again, with a shorter limit if one is given."""
        self._used_s = 0.0
        self.silent = True
        if limit_s is not None and limit_s < self._limit_s:
            self._limit_s = limit_s
            self._changed.set()

    def check(self) -> None:
        """Raise the ClockError of the clock that has run out, if one has."""
        if self._fired:
            raise self._fired

    def watch(self, interrupt: Callable[[], None]) -> None:
        """Wait until a clock runs out, then call `interrupt`, which makes the blocked read return."""
        while self._fired is None:
            idle_left_s, deadline_left_s = self._left_s(), self._deadline.left_s()
            if self._since_s is not None and min(idle_left_s, deadline_left_s) <= 0:
                self._fired = self._deadline.error() if deadline_left_s <= 0 else self._idle_error()
                interrupt()
                return
            overslept_s = self._sleep(min(max(min(idle_left_s, deadline_left_s), _SHORTEST_SLEEP_S), SLICE_S))
            if overslept_s > SUSPENDED_S:
                self._used_s -= overslept_s

    def _left_s(self) -> float:
        since_s = self._since_s
        return self._limit_s - self._used_s - (time.monotonic() - since_s if since_s is not None else 0.0)

    def _idle_error(self) -> ClockError:
        came = "nothing" if self.silent else "no event, only comments or parts of one"
        return ClockError(f"timed out: {came} came for {self._limit_s:g} s", "raise --idle-timeout, or try again")

    def _sleep(self, duration_s: float) -> float:
        """Sleep, less if the limit changes; return by how many seconds it became too long."""
        begun_s = time.monotonic()
        if self._changed.wait(duration_s):
            self._changed.clear()
        return time.monotonic() - begun_s - duration_s
