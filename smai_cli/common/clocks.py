"""The clocks of a run: how long to connect, how long to wait between two events, and how long in all."""

import math
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from smai_cli.errors import ClockError

# How long an answer that is finished may keep the connection open before smai leaves, without `[DONE]`.
FINISHED_GRACE_S = 5.0
# How long --raw waits for bytes behind the end of an answer, such as the other half of its last line end.
HURRY_S = 0.25
# A wait that ends this much late was not a wait: the process was stopped (Ctrl-Z), or the machine slept.
SUSPENDED_S = 1.0
# A long wait is a row of short ones: only the one in which the process was stopped is late.
SLICE_S = 1.0
_FOREVER_S = 20 * 24 * 3600.0  # poll(2) takes no more than 24 days
_SHORTEST_SLEEP_S = 0.02
_T = TypeVar("_T")


class RunningClock:
    """The seconds of the monotonic clock, without those in which the process was stopped (Ctrl-Z, SIGSTOP).

    No clock of the system leaves them out. So whoever has it calls `beat` at least once a second; a beat that comes
    much later shows that the process was stopped. Before the first beat, and after `rest`, every second counts.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._beat_s: float | None = None
        self._stopped_s = 0.0

    def __call__(self) -> float:
        """Return the seconds."""
        with self._lock:
            now_s = time.monotonic()
            if self._beat_s is not None and now_s - self._beat_s > SLICE_S + SUSPENDED_S:
                self._stopped_s += now_s - self._beat_s - SLICE_S
                self._beat_s = now_s
            return now_s - self._stopped_s

    def beat(self) -> None:
        """Note that the process runs."""
        with self._lock:
            self()
            self._beat_s = time.monotonic()

    def rest(self) -> None:
        """Expect no more beats."""
        with self._lock:
            self._beat_s = None


class Deadline:
    """The end of the whole run, `max_time_s` seconds from now on the clock `now`; 0: never."""

    def __init__(self, max_time_s: float = 0.0, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self._max_time_s = max_time_s
        self._at_s = now() + max_time_s if max_time_s else math.inf

    def left_s(self) -> float:
        """Return the seconds that are left: infinite without a limit, negative when it has passed."""
        return self._at_s - self.now()

    def error(self) -> ClockError:
        """Return the failure that the end of the run is."""
        return ClockError(f"timed out: the run took {self._max_time_s:g} s in all", "raise --max-time, or try again")


class Clocks(NamedTuple):
    """The limits of one exchange; 0 seconds turn a clock off.

    `connect_timeout_s` covers DNS, TCP, TLS and proxy together, `idle_timeout_s` the time between two events
    that carry something, the first included, `deadline` the run.
    """

    connect_timeout_s: float = 10.0
    idle_timeout_s: float = 600.0
    deadline: Deadline = Deadline()


class IdleClock:
    """Counts wall time since the server last said something, less the time that our own writes took.

    A reader of stdout who is slow, and a process that is stopped, are no silence of the server; a flood of comments is.
    The socket's own timeout cannot tell them apart: every byte of a comment, a header or a chunk size would start it
    anew. Whoever reads calls `start` and `check`, whoever understands what was read calls `wind` and `finish`, whoever
    writes calls `hold` and `release`; `watch` is for a thread beside them, where a read cannot be given a timeout.

    `limit_s` 0 is no limit. `silent` says that not even a comment has come since the clock was wound.
    """

    def __init__(self, limit_s: float = 0.0, deadline: Deadline | None = None) -> None:
        self.silent = True
        self._idle_s = limit_s or _FOREVER_S
        self._limit_s = self._idle_s
        self._deadline = deadline or Deadline()
        self._begun_s: float | None = None  # on the monotonic clock, later by the time that was held
        self._held_s: float | None = None
        self._fired: ClockError | None = None
        self._is_closed = False
        self._changed = threading.Event()

    def start(self) -> None:
        """Begin to count, unless it counts already."""
        if self._begun_s is None:
            self._begun_s = time.monotonic()

    def wind(self) -> None:
        """Hear that something came: count from nothing again, at the next start, up to the whole limit."""
        self._begun_s = None
        self._limit_s = self._idle_s
        self.silent = True

    def finish(self, grace_s: float) -> None:
        """Hear that the answer is over: from the next start on, at most `grace_s` for what may follow it."""
        self._begun_s = None
        self._limit_s = min(self._limit_s, grace_s)
        self._changed.set()

    def hold(self) -> None:
        """Cease to count while something is written."""
        self._held_s = time.monotonic()

    def release(self) -> None:
        """Go on to count; the time since `hold` is none."""
        if self._held_s is not None and self._begun_s is not None:
            self._begun_s += time.monotonic() - self._held_s
        self._held_s = None

    def left_s(self) -> float:
        """Return the seconds until the limit or the deadline, whichever comes first; the deadline may have passed."""
        return min(self._idle_left_s(), self._deadline.left_s())

    def check(self) -> None:
        """Raise the ClockError of the clock that has run out while it was watched, if one has."""
        if self._fired:
            raise self._fired

    def watch(self, interrupt: Callable[[], None]) -> None:
        """Wait until a clock runs out, then call `interrupt`, which makes the blocked read return; or until `close`."""
        while not self._is_closed:
            left_s = self.left_s()
            if left_s <= 0 and self._begun_s is not None and self._held_s is None:
                self._fired = self._deadline.error() if self._deadline.left_s() <= 0 else self._idle_error()
                interrupt()
                return
            overslept_s = self._sleep(min(max(left_s, _SHORTEST_SLEEP_S), SLICE_S))
            if overslept_s > SUSPENDED_S and self._begun_s is not None:
                self._begun_s += overslept_s

    def close(self) -> None:
        """End the watch, whatever the clock says."""
        self._is_closed = True
        self._changed.set()

    def _idle_left_s(self) -> float:
        held_s, begun_s = self._held_s, self._begun_s
        if begun_s is None:
            return self._limit_s
        return self._limit_s - ((time.monotonic() if held_s is None else held_s) - begun_s)

    def _idle_error(self) -> ClockError:
        came = "nothing" if self.silent else "no event, only comments or parts of one"
        return ClockError(f"timed out: {came} came for {self._limit_s:g} s", "raise --idle-timeout, or try again")

    def _sleep(self, duration_s: float) -> float:
        """Sleep, less if the limit changes; return by how many seconds it became too long."""
        begun_s = time.monotonic()
        if self._changed.wait(duration_s):
            self._changed.clear()
        return time.monotonic() - begun_s - duration_s


def result_within(limit_s: float, work: Callable[[], _T]) -> _T:
    """Return what `work` returns, or raise what it raises; TimeoutError, without an errno, after `limit_s`.

    The thread is a daemon: nothing else ends the wait for a name server, or for the writer of a named pipe.
    """
    import queue  # for few runs

    news: queue.SimpleQueue[tuple[list[_T], BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            news.put(([work()], None))
        except BaseException as exc:  # noqa: BLE001  # it is raised again where the caller waits
            news.put(([], exc))

    threading.Thread(target=run, daemon=True).start()
    try:
        result, failure = news.get(timeout=None if limit_s == math.inf else max(0.0, limit_s))
    except queue.Empty:
        raise TimeoutError from None
    if failure is not None:
        raise failure
    return result[0]
