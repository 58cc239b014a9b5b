"""Decide which line of a batch is sent next, and when: the queue of all lines, and the consequences of each failure.

A worker takes one try of a line at a time. A line that waits for its next try, or for the limit of its model, is in the
queue and does not occupy a worker.
"""

import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from smai_cli.batch.failures import long_wait, no_success
from smai_cli.batch.feed import Job
from smai_cli.batch.input.lines import LineError
from smai_cli.batch.judge import Decision, Judge, Step
from smai_cli.batch.load.control import LoadControl
from smai_cli.batch.load.outage import Outage
from smai_cli.batch.model_queue import ModelQueue
from smai_cli.batch.notices import Notices
from smai_cli.batch.tries import Tries
from smai_cli.common.frozen import Frozen
from smai_cli.errors import SmaiError

# How many lines are read ahead for each concurrent request. While all of them wait for a limit or for the server, more
# are read, to find lines that are unlike them.
_AHEAD = 2
_MOST_WAITING, _MOST_WAITING_OF_SEVERAL = 1_000, 20_000
# A start that is late by less than this does not delay the next one.
_LATE_S = 0.1


class Limits(Frozen):
    """The user's limits: concurrent requests, whether that adapts, the time between two starts, the patience.

    `patience_s` is how long nothing at all may succeed; 0: no limit.
    """

    jobs: int
    adapts: bool = True
    gap_s: float = 0.0
    patience_s: float = 300.0


class Turn(NamedTuple):
    """One try of a line, which starts now as request `number`, and as `model_number` of those to its model.

    Both are 0 for a line that cannot be sent.
    """

    tries: Tries
    number: int = 0
    model_number: int = 0


class Schedule:
    """The schedule of a run. Safe for threads: one thread adds lines, the workers take turns and end them.

    Each line has `retries` retries. `has_answered`: an earlier run left a complete answer. `now` is a clock in seconds.
    `failure` is what ended the run, if anything did.
    """

    def __init__(
        self,
        limits: Limits,
        notices: Notices,
        *,
        retries: int = 2,
        has_answered: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.running = 0
        self.failure: BaseException | None = None
        self.is_closed = False
        self._limits = limits
        self._notices = notices
        self._now = now
        self._judge = Judge(retries, limits.patience_s, has_answered=has_answered)
        self._history = self._judge.history
        self._outage = Outage(random.random)
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._has_room = threading.Condition(self._lock)
        self._queues: dict[str, ModelQueue] = {}
        self._unsendable: deque[Tries] = deque()
        self._postponed: deque[Tries] = deque()
        self._begun: set[Tries] = set()
        self._last: tuple[SmaiError, Job] | None = None  # the last failure
        self._next_start_s = -math.inf
        self._started = 0
        self._is_read = False
        self._is_stuck = False

    def add(self, job: Job) -> bool:
        """Add a line, and wait until there is space for another; return False once the run is over."""
        with self._lock:
            tries = Tries(job)
            if isinstance(job.line, LineError):
                self._unsendable.append(tries)
            else:
                self._queue(tries).add(tries)
            self._changed.notify()
            self._has_room.wait_for(lambda: self.is_closed or self._waiting() < self._most_waiting())
            return not self.is_closed

    def end_input(self) -> None:
        """Record that there are no more lines."""
        with self._lock:
            self._is_read = True
            self._changed.notify_all()

    def is_exhausted(self, within_s: float) -> bool:
        """Return whether the input has no more lines to send; wait up to `within_s` for its next line or its end."""
        with self._lock:
            self._changed.wait_for(lambda: self._is_read or self._waiting(), within_s)
            return self._is_read and not self._waiting()

    def close(self, failure: BaseException | None = None) -> None:
        """Start no more lines; the first `failure` is the reason."""
        with self._lock:
            self.is_closed = True
            self.failure = self.failure or failure
            self._changed.notify_all()
            self._has_room.notify_all()

    def next_turn(self) -> Turn | None:
        """Wait until a line may be sent, and return its try; None once the run is over."""
        with self._lock:
            while not self.is_closed:
                if self._unsendable:
                    return Turn(self._unsendable.popleft())
                now_s = self._now()
                self._recall_postponed()
                queue, wait_s = self._soonest(now_s)
                if queue and wait_s <= 0:
                    return self._start(queue, now_s)
                if self._is_read and not self.running and not self._waiting():
                    self._changed.notify_all()
                    break
                self._is_stuck = wait_s < math.inf
                self._has_room.notify()
                wait_s = min(wait_s, self._check_patience(queue, now_s))
                if wait_s > 0:  # a server may ask to wait for longer than a thread can
                    self._changed.wait(min(wait_s, threading.TIMEOUT_MAX))
            return None

    def begin_answer(self, turn: Turn) -> None:
        """Record that the server begins to answer: until that answer ends, a success is possible."""
        with self._lock:
            self._begun.add(turn.tries)
            now_s = self._now()
            self._history.add_answer(turn.number)
            self._outage.note_reply(now_s)
            if not self._history.is_server_away:
                self._end_outage(now_s)
            self._changed.notify()

    def end(self, turn: Turn, failure: SmaiError | None) -> bool:
        """Record how a try ended; return whether the line has its result now. `failure` decides, see judge.py."""
        tries = turn.tries
        with self._lock:
            now_s = self._now()
            has_begun = tries in self._begun
            self._begun.discard(tries)
            self.running -= 1
            if failure is None:
                decision = self._judge.success(turn.number)
            else:
                decision = self._judge.failure(
                    tries,
                    failure,
                    turn.number,
                    now_s,
                    has_begun=has_begun,
                    is_other_running=self.running > 0,
                    is_other_answered=bool(self._begun),
                )
            self._follow(turn, failure, decision, now_s)
            self._changed.notify()
        return decision.step is Step.SETTLE

    def _follow(self, turn: Turn, failure: SmaiError | None, decision: Decision, now_s: float) -> None:
        """Apply the decision on a try."""
        tries, queue = turn.tries, self._queue(turn.tries)
        if turn.model_number:
            episode = queue.load.leave(turn.model_number, now_s, decision.end, decision.wait_s)
            if episode and failure:
                self._notices.report_episode(failure, episode, tries.model if len(self._queues) > 1 else None)
        if failure:
            self._last = failure, tries.job
            queue.limit = failure if decision.is_limit else queue.limit
        if decision.step is Step.AGAIN:
            queue.delay(tries, now_s + decision.pause_s)
        elif decision.step is Step.POSTPONE:
            self._postponed.append(tries)
        if decision.run_failure:
            self.close(decision.run_failure)
        self._follow_outage(turn, failure, now_s)

    def _follow_outage(self, turn: Turn, failure: SmaiError | None, now_s: float) -> None:
        """Begin, extend or end the outage."""
        outage = self._outage
        if failure is None:
            outage.note_reply(now_s)
        if not self._history.is_server_away:
            self._end_outage(now_s)
        if not self._history.is_server_away or self.is_closed:
            return
        if not outage.is_on:
            outage.begin(now_s)
        elif outage.probe is turn.tries:
            outage.fail_probe(now_s, now_s + self._judge.patience_left_s(now_s))
        # While others are running, an answer to one of them may end it at once: it was a limit on concurrent requests.
        if failure and not outage.is_reported and (outage.has_failed or not self.running):
            outage.is_reported = True
            self._notices.report_outage(failure)

    def _end_outage(self, now_s: float) -> None:
        if not self._outage.is_on:
            return
        is_reported, outage_s = self._outage.is_reported, self._outage.end(now_s)
        for queue in self._queues.values():
            queue.load.restart(now_s)
        if is_reported:
            self._notices.report_recovery(outage_s)

    def _queue(self, tries: Tries) -> ModelQueue:
        if tries.model not in self._queues:
            load = LoadControl(self._limits.jobs, self._limits.adapts)
            self._queues[tries.model] = ModelQueue(load)
        return self._queues[tries.model]

    def _waiting(self) -> int:
        """Return how many lines are not running."""
        return len(self._unsendable) + len(self._postponed) + sum(map(len, self._queues.values()))

    def _most_waiting(self) -> int:
        """Return how many lines may be read ahead."""
        most = _AHEAD * self._limits.jobs
        if self._is_stuck:
            is_of_several = len(self._queues) > 1 and not self._outage.is_on
            most = max(most, _MOST_WAITING_OF_SEVERAL if is_of_several else _MOST_WAITING)
        return most

    def _recall_postponed(self) -> None:
        """Put the postponed lines back into their queues, once no other lines are left."""
        if not self.running and len(self._postponed) == self._waiting():
            while self._postponed:
                self._queue(self._postponed[0]).add(self._postponed.popleft())

    def _soonest(self, now_s: float) -> tuple[ModelQueue | None, float]:
        """Return the queue from which a line may start first, and in how many seconds."""
        queues = [queue for queue in self._queues.values() if len(queue)]
        if not queues or (self.running and self._history.may_all_fail(self._started)):
            return None, math.inf  # those that run show whether all others would fail like them
        if self._outage.is_on:
            return min(queues, key=lambda it: it.probe_order), self._outage.wait_s(now_s)
        waits = [(queue.wait_s(now_s), queue.first_place, queue) for queue in queues]
        wait_s, _, queue = min(waits, key=lambda it: (max(0.0, it[0]), it[1]))
        return queue, max(wait_s, self._next_start_s - now_s)

    def _start(self, queue: ModelQueue, now_s: float) -> Turn:
        tries = queue.pop_probe() if self._outage.is_on else queue.pop(now_s)
        model_number = queue.load.start(now_s)
        self.running += 1
        self._started += 1
        is_due = now_s - self._next_start_s <= _LATE_S
        self._next_start_s = (self._next_start_s if is_due else now_s) + self._limits.gap_s
        self._is_stuck = False
        if self._outage.is_on:
            self._outage.probe = tries
        if self._waiting() <= self._limits.jobs:
            self._has_room.notify()
        self._changed.notify()  # another line may start as well
        return Turn(tries, self._started, model_number)

    def _check_patience(self, queue: ModelQueue | None, now_s: float) -> float:
        """Return in how many seconds the patience ends; end the run if it has, or if the server asks for a longer wait.

        It does not end while requests are running: each of them may succeed.
        """
        history = self._history
        if self.running or queue is None or self._outage.is_on or not self._limits.patience_s:
            return math.inf
        wait_s = queue.wait_s(now_s)
        if wait_s <= 0:
            return math.inf  # only --rpm delays it
        if history.waiting_since_s is None:
            history.waiting_since_s = now_s
        left_s = self._judge.patience_left_s(now_s)
        is_all_read = self._is_read or self._waiting() >= self._most_waiting()
        if queue.limit and min(wait_s, queue.limit.wait_s or 0.0) > max(left_s, 0.0) and is_all_read:
            self.close(long_wait(queue.limit))
        elif left_s <= 0 and self._last:
            self.close(no_success(*self._last, now_s - history.waiting_since_s))
        return 0.0 if self.is_closed else left_s
