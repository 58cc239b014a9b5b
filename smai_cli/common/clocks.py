"""The clocks of a run: the limits for connecting, for the time between two events, and for the whole run."""

import math
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from smai_cli.common.frozen import Frozen
from smai_cli.errors import ClockError

# How long a finished answer without `[DONE]` may keep the connection open before smai closes it.
FINISHED_GRACE_S = 5.0
# How long --raw waits for bytes after the end of an answer, such as the second half of its last line end.
HURRY_S = 0.25
# If a wait ends this late, the process was stopped (Ctrl-Z), or the machine slept.
SUSPENDED_S = 1.0
# Long waits are split into slices: only the slice in which the process was stopped is late.
SLICE_S = 1.0
# The longest limit that a user may set: poll(2) takes no more than 24 days.
MOST_SECONDS = 1_000_000
_FOREVER_S = 20 * 24 * 3600.0
_T = TypeVar("_T")


class RunningClock:
    """The seconds of the monotonic clock, without those in which the process was stopped (Ctrl-Z, SIGSTOP).

    No system clock excludes them. So the owner calls `beat` at least once a second; a beat that comes much later shows
    that the process was stopped. Before the first beat, and after `rest`, every second counts.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._beat_s: float | None = None
        self._stopped_s = 0.0

    def __call__(self) -> float:
        """Return the current time in seconds."""
        with self._lock:
            return self._read(time.monotonic())

    def beat(self) -> float:
        """Record that the process is running, and return the current time in seconds."""
        with self._lock:
            now_s = time.monotonic()
            running_s = self._read(now_s)
            self._beat_s = now_s
            return running_s

    def rest(self) -> None:
        """Expect no more beats."""
        with self._lock:
            self._beat_s = None

    def _read(self, now_s: float) -> float:
        if self._beat_s is not None and now_s - self._beat_s > SLICE_S + SUSPENDED_S:
            self._stopped_s += now_s - self._beat_s
            self._beat_s = now_s
        return now_s - self._stopped_s


class Deadline:
    """The deadline of the whole run: `end_s`, `max_time_s` seconds from now on the clock `now`; 0: none."""

    def __init__(self, max_time_s: float = 0.0, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self._max_time_s = max_time_s
        self.end_s = now() + max_time_s if max_time_s else math.inf

    def left_s(self) -> float:
        """Return the seconds left: infinite without a limit, negative after the deadline."""
        return self.end_s - self.now() if self.end_s < math.inf else math.inf

    def error(self) -> ClockError:
        """Return the failure for a deadline that has passed."""
        return ClockError(f"timed out: the run took {self._max_time_s:g} s in all", "raise --max-time, or try again")


class Clocks(Frozen):
    """The limits of one exchange, in seconds; 0 turns a clock off.

    `connect_timeout_s` covers DNS, TCP, TLS and proxy together; `idle_timeout_s` the time until the first event with
    content, and between two such events; `deadline` the run.
    """

    connect_timeout_s: float = 10.0
    idle_timeout_s: float = 600.0
    deadline: Deadline = Deadline()


class IdleClock:
    """Limits the time since the server last sent an event, for reads that wait in steps.

    The timeout of a socket cannot do it: every byte of a comment, a header or a chunk size restarts it. Time in which
    the process was stopped does not count, nor a write between `hold` and `release`, for a slow reader of the output.
    The reader asks `next_wait_s` before each wait, the parser calls `reset` and `finish`.

    `limit_s` 0 means no limit. `silent`: not even a comment has arrived since the last `reset`.
    """

    def __init__(self, limit_s: float = 0.0, deadline: Deadline | None = None) -> None:
        self.silent = True
        self._idle_s = limit_s or _FOREVER_S
        self._limit_s = self._idle_s
        self._deadline = deadline or Deadline()
        self._time = RunningClock()
        self._begun_s: float | None = None
        self._held_s = 0.0

    def start(self) -> None:
        """Begin to count, unless it is counting already."""
        if self._begun_s is None:
            self._begun_s = self._time.beat()

    def reset(self) -> None:
        """Record an event: the next `start` counts from 0 again, up to the full limit."""
        self._begun_s = None
        self._limit_s = self._idle_s
        self.silent = True

    def restart(self) -> None:
        """Record an event, and begin to count."""
        self.reset()
        self.start()

    def allow(self, limit_s: float) -> None:
        """Count from 0 again at the next `start`, up to `limit_s`, until the next `reset`."""
        self._begun_s = None
        self._limit_s = limit_s

    def finish(self, grace_s: float) -> None:
        """Record the end of the answer: from the next `start` on, allow at most `grace_s` for what may follow."""
        self._begun_s = None
        self._limit_s = min(self._limit_s, grace_s)

    def hold(self) -> None:
        """Pause the clock during a write."""
        self._held_s = self._time.beat()

    def release(self) -> None:
        """Continue after `hold`, without the time in between."""
        if self._begun_s is not None:
            self._begun_s += self._time.beat() - self._held_s

    def left_s(self) -> float:
        """Return the seconds until the limit or the deadline, whichever comes first; may be negative."""
        now_s = self._time.beat()
        limit_s, begun_s = self._limit_s, self._begun_s  # in this order: another thread may reset them
        return min(limit_s - (0.0 if begun_s is None else now_s - begun_s), self._deadline.left_s())

    def next_wait_s(self) -> float:
        """Begin to count, and return how long the next wait may take: at most SLICE_S. Raises ClockError if it is over.

        A wait that takes much longer shows that the process was stopped.
        """
        left_s = self.left_s()
        if self._begun_s is None:
            self.start()
        if left_s <= 0:
            raise self._deadline.error() if self._deadline.left_s() <= 0 else self._idle_error()
        return min(left_s, SLICE_S)

    def _idle_error(self) -> ClockError:
        came = "nothing" if self.silent else "no event, only comments or parts of one"
        return ClockError(f"timed out: {came} arrived for {self._limit_s:g} s", "raise --idle-timeout, or try again")


def result_within(limit_s: float, work: Callable[[], _T]) -> _T:
    """Run `work` in a thread; return its result, or raise its exception. Raises TimeoutError after `limit_s`.

    The thread is a daemon, because nothing can end the wait for a name server, or for the writer of a named pipe.
    """
    results: list[_T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as exc:  # noqa: BLE001  # raised again in the caller
            failures.append(exc)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(None if limit_s == math.inf else max(0.0, limit_s))
    if failures:
        raise failures[0]
    if not results:
        raise TimeoutError
    return results[0]
