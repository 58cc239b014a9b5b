"""A batch sends the lines of an input concurrently, in the order of the schedule, and writes one result per line.

One thread reads the lines, each worker takes one try of a line at a time, and the thread that calls `run` syncs the
results to disk.
"""

import math
import threading
import time
from collections.abc import Callable

from smai_cli.answer.chunk import Usage
from smai_cli.answer.outcome import Outcome
from smai_cli.batch.failures import as_result
from smai_cli.batch.feed import Feed, Job
from smai_cli.batch.halt import Halt
from smai_cli.batch.input.encoding import Encoding
from smai_cli.batch.input.lines import Line, LineError, describe_line
from smai_cli.batch.notices import Notices
from smai_cli.batch.results.collector import Answer, Collector
from smai_cli.batch.results.result import encode_failure, encode_result, is_final
from smai_cli.batch.schedule import Limits, Schedule, Turn
from smai_cli.batch.spaced import SpacedSource
from smai_cli.batch.tally import Tally
from smai_cli.common.clocks import Deadline, RunningClock
from smai_cli.common.frozen import Frozen
from smai_cli.common.trace import silent
from smai_cli.errors import SmaiError, Status, UsageError
from smai_cli.http.exchange import Exchange
from smai_cli.stream import pump
from smai_cli.stream.adapting import Adaptation
from smai_cli.stream.retries import Retries

_TICK_S = 1.0
# At the end of a run: how long to wait to see whether a pipe has another line.
_END_S = 0.25

# Sends a body to a path before a deadline, over the connection of one worker, which stays open. Raises SmaiError.
Post = Callable[[str, bytes, Deadline], Exchange]
# Writes the result of the line at a place; returns its offset in the file of results, None without a file.
Append = Callable[[int, bytes], int | None]


class BatchOptions(Frozen):
    """The settings of a run.

    `retries` and `timeout_s` (0: none) apply to each line. `accept` holds finish reasons that count as success. With
    `extract`, the text of a result is the first code block of the answer. Once `token_limit` tokens are used, no more
    requests start. After a signal, running requests have `grace_s` seconds to finish.
    """

    limits: Limits
    retries: int = 2
    timeout_s: float = 0.0
    accept: tuple[str, ...] = ()
    extract: bool = False
    halt: Halt = Halt()
    token_limit: int | None = None
    fail_empty: bool = False
    grace_s: float = 20.0


class Batch:
    """One run. `connect` returns a worker's `Post`; `requests` makes the requests; `sync` puts the results on disk.

    `check` returns the text to store, or raises if its form is wrong. `hide` removes secrets from text that the server
    sent. Call `run` once. `stop` may be called from any thread.
    """

    def __init__(  # noqa: PLR0913  # the parts of a run, chosen by the caller
        self,
        options: BatchOptions,
        feed: Feed,
        requests: Encoding,
        append: Append,
        notices: Notices,
        *,
        connect: Callable[[], Post],
        sync: Callable[[], None] = lambda: None,
        check: Callable[[str], str] | None = None,
        hide: Callable[[str], str] = str,
        deadline: Deadline | None = None,
        clock: RunningClock | None = None,
    ) -> None:
        self.tally = Tally()
        self._options = options
        self._feed = feed
        self._requests = requests
        self._append = append
        self._sync_file = sync
        self._notices = notices
        self._connect = connect
        self._check = check
        self._hide = hide
        self._deadline = deadline or Deadline()
        self._clock = clock or RunningClock()
        self._schedule = Schedule(
            options.limits,
            notices,
            retries=options.retries,
            has_answered=feed.plan.has_answered,
            now=self._deadline.now,
        )
        self._lock = threading.Lock()  # for the results and the counts
        self._over = threading.Event()
        self._workers = 0
        self._is_closed = False
        self._is_unsynced = False
        self._failure: BaseException | None = None
        self._ends_s = math.inf
        self._adaptation = Adaptation()
        self._limit: SmaiError | None = None  # the failure for --halt or --token-limit, once the limit is reached

    @property
    def running(self) -> int:
        """How many requests are under way."""
        return self._schedule.running

    def run(self) -> None:
        """Send every remaining line. Raises what ended the run early: a SmaiError, or ReaderGoneError.

        On return, all results are on disk and no more are written.
        """
        threading.Thread(target=self._read, daemon=True).start()
        self._start_workers()
        while (left_s := self._left_s()) > 0 and not self._over.wait(min(_TICK_S, left_s)):
            self._sync()
        self._clock.rest()
        self._schedule.close()
        with self._lock:
            self._is_closed = True
        self._sync()
        if failure := self._why():
            raise failure

    def _left_s(self) -> float:
        self._clock.beat()
        return min(self._ends_s - time.monotonic(), self._deadline.left_s())

    def _why(self) -> BaseException | None:
        """Return why lines were not sent; None if all were, or if the user stopped the run."""
        failure = self._failure or self._schedule.failure
        left = self._feed.plan.left
        if self._deadline.left_s() <= 0 and not failure and not self.is_done():
            return self._deadline.error()
        if failure and failure is self._limit and self.is_done():
            return None  # the last line reached the limit: none is left to stop
        if isinstance(failure, _TokenLimitError):
            rest = f"lines left: {left}" if left else "the rest of the input is left"
            return failure.replaced(what=f"{failure.describe()}; {rest}")
        if left and not failure and self._ends_s == math.inf:
            return UsageError(f"the input changed during the run: lines not sent: {left}", "run again with --resume")
        return failure

    def is_done(self) -> bool:
        """Return whether the input has ended, and no line is left to send."""
        return not self._feed.plan.left and self._schedule.is_exhausted(_END_S)

    def stop(self) -> None:
        """Start no more requests, and give the running ones the seconds in the options."""
        self._ends_s = min(self._ends_s, time.monotonic() + self._options.grace_s)
        self._schedule.close()

    def _start_workers(self) -> None:
        count = min(self._options.limits.jobs, len(self._feed.plan) or self._options.limits.jobs)
        self._workers = count
        for number in range(count):
            try:
                threading.Thread(target=self._work, daemon=True).start()
            except RuntimeError:  # no more threads available
                if not number:
                    raise
                with self._lock:
                    self._workers -= count - number
                return

    def _read(self) -> None:
        """Pass the lines to the schedule."""
        try:
            while (job := self._feed.take()) and self._schedule.add(job):
                pass
        except BaseException as exc:  # noqa: BLE001  # raised again in the thread that called `run`
            self._schedule.close(exc)
        else:
            if job is None:
                self._schedule.end_input()

    def _work(self) -> None:
        try:
            post = self._connect()
            while turn := self._schedule.next_turn():
                self._take(turn, post)
        except BaseException as exc:  # noqa: BLE001  # raised again in the thread that called `run`
            with self._lock:
                self._failure = self._failure or exc
            self._schedule.close()
            self._over.set()
        with self._lock:
            self._workers -= 1
            if not self._workers:
                self._over.set()

    def _take(self, turn: Turn, post: Post) -> None:
        """Send a line once, and write its result if it has one now."""
        job, line = turn.tries.job, turn.tries.job.line
        if isinstance(line, LineError):
            self._settle(job, encode_failure(job.identity, line), line)
            return
        dialect = self._requests.dialect(line)
        self._adaptation.begin(line.request, dialect.token_limit_name(line.request.model))
        try:
            if self._schedule.is_closed:  # closed while `begin` waited for the server's name of a parameter
                return
            answer = self._ask(line, dialect, turn, post)
        finally:
            self._adaptation.end(line.request)
        error = answer.outcome.error
        if error and self._deadline.left_s() <= 0:
            self._schedule.close()
        elif self._schedule.end(turn, error):
            answer.outcome.error = error and as_result(error, turn.tries.last_hint)
            self._settle(job, encode_result(job.identity, answer, self._hide), answer.outcome.error, answer)

    def _ask(self, line: Line, dialect: pump.Dialect, turn: Turn, post: Post) -> Answer:
        """Return the answer to one request, complete or not."""
        tries = turn.tries
        deadline = tries.begin(time.monotonic(), self._deadline, self._options.timeout_s)
        options = self._options
        outcome = Outcome(
            options.accept, started_s=tries.started_s, model=line.request.model, fail_empty=options.fail_empty
        )
        outcome.choices = 1
        collector = Collector(
            self._check, lambda: self._schedule.begin_answer(turn), self._use_tokens, extract=options.extract
        )
        request = line.request._replace(include_usage=True)

        def send(body: bytes) -> pump.Source:
            collector.request_id = None
            source = post(dialect.PATH, body, deadline)
            collector.request_id = source.header("x-request-id")
            return SpacedSource(source, lambda: self.running)

        pump.ask(
            request,
            send,
            dialect,
            writer=collector,
            outcome=outcome,
            retries=Retries(tries.spent, silent, spent=tries.spent),  # the schedule decides about the next try
            adaptation=self._adaptation,
        )
        return collector.answer(outcome)

    def _settle(self, job: Job, result: bytes, error: SmaiError | None, answer: Answer | None = None) -> None:
        """Write a result and count it; end the run if --halt says so."""
        with self._lock:
            if self._is_closed:
                return
            offset = self._append(job.place, result)
            self._is_unsynced = True
            self._feed.plan.settle(
                job.place,
                -1 if offset is None else offset,
                error.status if error else Status.COMPLETE,
                is_final=error is not None and is_final(error.status, is_retryable=error.retryable),
            )
            tally = self.tally
            tally.answers += answer is not None
            tally.retries += answer.outcome.retries if answer else 0
            if error:
                tally.failures[error.status] += 1
            is_halted = error is not None and self._options.halt.wants(tally.failures.total(), len(self._feed.plan))
            if error and is_halted:  # before another result is written, so that its worker does not start the next line
                self._limit = self._limit or _halt_error(job, error)
                self._schedule.close(self._limit)
        if error:
            self._notices.report_failed_line(job, error)
        if is_halted and self._options.halt.is_at_once:
            self._over.set()

    def _use_tokens(self, usage: Usage) -> None:
        """Count the tokens of a try, even a broken one; start no more requests once the limit is reached."""
        with self._lock:
            tally, limit = self.tally, self._options.token_limit
            tally.prompt_tokens += usage.prompt_tokens or 0
            tally.completion_tokens += usage.completion_tokens or 0
            if limit is not None and tally.tokens >= limit:
                what = f"{tally.tokens} tokens are used, and --token-limit is {limit}"
                self._limit = self._limit or _TokenLimitError(what, "with -o, --resume sends the rest")
                self._schedule.close(self._limit)

    def _sync(self) -> None:
        with self._lock:
            is_due, self._is_unsynced = self._is_unsynced, False
        if is_due:
            self._sync_file()


class _TokenLimitError(SmaiError):
    """The token limit is reached."""

    status, kind = Status.USAGE, "usage"


def _halt_error(job: Job, error: SmaiError) -> SmaiError:
    """Return the failure that --halt makes the end of the run."""
    name = describe_line(job.identity.number, job.identity.id)
    return error.replaced(
        what=f"halted: {name}: {error.describe()}", hint="--halt ended the run; with -o, --resume continues it"
    )
