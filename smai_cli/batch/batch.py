"""A batch: the jobs of an input -> asked side by side through one gate -> a result each, in an output.

Threads ask, each one line after the other; whoever has an answer puts its result away at once. The thread that calls
`run` sees to the disk, and to the end.
"""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from smai_cli.batch.collector import Answer, Collector
from smai_cli.batch.feed import Feed, Job, Requests
from smai_cli.batch.gate import Gate, Limits
from smai_cli.batch.halt import Halt, Hopeless
from smai_cli.batch.lines import Line
from smai_cli.batch.results import encode_failure, encode_result, is_final
from smai_cli.batch.spaced import Spaced
from smai_cli.batch.tries import LineDeadline, Tries, is_above_limit
from smai_cli.clocks import Deadline, RunningClock
from smai_cli.errors import AccessError, RefusedError, SmaiError, Status, UsageError
from smai_cli.frozen import Frozen
from smai_cli.stream import pump
from smai_cli.stream.adapting import Adaptation
from smai_cli.stream.chunk import Usage
from smai_cli.stream.outcome import Outcome

_TICK_S = 1.0


class BatchOptions(Frozen):
    """What a user says of the whole.

    `retries` and `timeout_s` (0: none) are for a line, `accept` are finish reasons to take as a success.
    With `extract`, the text of a result is the first code block of the answer.
    `token_limit` is after how many tokens nothing more is started, `grace_s` for how long what runs may end after a
    signal.
    """

    limits: Limits
    retries: int = 2
    timeout_s: float = 0.0
    accept: tuple[str, ...] = ()
    extract: bool = False
    include_usage: bool = True
    halt: Halt = Halt()
    token_limit: int | None = None
    fail_empty: bool = False
    grace_s: float = 20.0


class Exchange(pump.Source, Protocol):
    """An answer as it comes, with its headers."""

    def header(self, name: str) -> str | None:
        """Return the value of a header of the answer; None without it."""


class Post(Protocol):
    """What sends a request, as one worker after the other does: its own connection lives on."""

    def __call__(self, path: str, body: bytes, deadline: Deadline, /) -> Exchange:
        """POST `body` and return the answer. Raises SmaiError."""


class Results(Protocol):
    """Where results go. Its hooks raise OutputError, or ReaderGoneError."""

    def append(self, place: int, line: bytes, /) -> int:
        """Put a result away; return its offset, -1 where nobody can read it again."""

    def sync(self) -> None:
        """Have what was put away on the disk."""


class Notices(Protocol):
    """Who hears what happens: in words, and in numbers."""

    def failed(self, job: Job, error: SmaiError, /) -> None:
        """Hear that a line has failed for good."""

    def held(self, error: SmaiError, pause_s: float, before: int, after: int, /) -> None:
        """Hear that no request starts for so many seconds, and how many at once there were and are to be."""


class Tally:
    """What came of the run so far: tokens, retries, deltas and answers; `running` lines are asked right now."""

    def __init__(self) -> None:
        self.answers = 0
        self.retries = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.failures: Counter[int] = Counter()

    @property
    def tokens(self) -> int:
        """How many tokens were used in all."""
        return self.prompt_tokens + self.completion_tokens


class Batch:
    """One run. `connect` returns what a worker sends by; `requests` makes the requests.

    `check` returns the text to put away, or raises for a wrong form; `hide` keeps secrets out of what a server says.
    `run` is to be called once; `stop` from anywhere.
    """

    def __init__(  # noqa: PLR0913  # the parts of a run, each chosen by the edge
        self,
        options: BatchOptions,
        feed: Feed,
        requests: Requests,
        results: Results,
        notices: Notices,
        *,
        connect: Callable[[], Post],
        check: Callable[[str], str] | None = None,
        hide: Callable[[str], str] = str,
        deadline: Deadline | None = None,
        clock: RunningClock | None = None,
    ) -> None:
        self.tally = Tally()
        self.gate = Gate(options.limits, notices.held)
        self._options = options
        self._feed = feed
        self._requests = requests
        self._results = results
        self._notices = notices
        self._connect = connect
        self._check = check
        self._hide = hide
        self._deadline = deadline or Deadline()
        self._clock = clock or RunningClock()
        self._lock = threading.Lock()  # of the results and of all that is counted
        self._over = threading.Event()
        self._workers = 0
        self._busy = 0  # workers that have a line; the others may wait for one
        self._is_closed = False
        self._is_unsynced = False
        self._failure: BaseException | None = None
        self._ends_s = math.inf
        self._hopeless = Hopeless()
        self._adaptation = Adaptation(include_usage=options.include_usage)

    def run(self) -> None:
        """Ask every line that is left. Raises what halted the run: a SmaiError, or ReaderGoneError.

        Then nothing is put away any more. What has come is on the disk.
        """
        self._start_workers()
        while (left_s := self._left_s()) > 0 and not self._over.wait(min(_TICK_S, left_s)):
            if self.gate.is_closed and not self._busy:
                break  # whoever has no line waits for one that will not be asked
            self._sync()
        self._clock.rest()
        self.gate.close()
        with self._lock:
            self._is_closed = True
        self._sync()
        if failure := self._why():
            raise failure

    def _left_s(self) -> float:
        self._clock.beat()
        return min(self._ends_s - time.monotonic(), self._deadline.left_s())

    def _why(self) -> BaseException | None:
        """Return why lines were not asked; None where all were, or the user has stopped it."""
        failure = self._failure or self.gate.failure
        if self._deadline.left_s() <= 0 and not failure and self._feed.plan.missing():
            return self._deadline.error()
        if isinstance(failure, _TokenLimitError):
            if not self._feed.plan.missing() and self._feed.is_at_end():
                return None  # the last line took the last tokens
            missing = self._feed.plan.missing()
            failure.what += f"; {missing} lines are left" if missing else "; the rest of the input is left"
        if failure or self._ends_s < math.inf:
            return failure
        if missing := self._feed.plan.missing():
            return UsageError(
                f"the input has changed while it was read: {missing} lines were not asked", "run it again with --resume"
            )
        return None

    def stop(self, grace_s: float | None = None) -> None:
        """Start nothing more, and wait for what runs no longer than `grace_s` (None: that of the options)."""
        self._ends_s = min(self._ends_s, time.monotonic() + (self._options.grace_s if grace_s is None else grace_s))
        self.gate.close()

    def _start_workers(self) -> None:
        count = min(self._options.limits.jobs, len(self._feed.plan) or self._options.limits.jobs)
        self._workers = count
        for number in range(count):
            try:
                threading.Thread(target=self._work, daemon=True).start()
            except RuntimeError:  # the system gives no more
                if not number:
                    raise
                with self._lock:
                    self._workers -= count - number
                return

    def _work(self) -> None:
        try:
            post = self._connect()
            while job := self._feed.take():
                with self._lock:
                    self._busy += 1
                is_done = self._is_done(job, post)
                with self._lock:
                    self._busy -= 1
                if not is_done:
                    break
        except BaseException as exc:  # noqa: BLE001  # it is raised again where the caller waits
            with self._lock:
                self._failure = self._failure or exc
            self.gate.close()
            self._over.set()
        with self._lock:
            self._workers -= 1
            if not self._workers:
                self._over.set()

    def _is_done(self, job: Job, post: Post) -> bool:
        """Put the result of a job away, after asking for it; return False where the run is over before."""
        if job.line is None or job.failure:
            self._settle(job, None)
            return True
        self._adaptation.begin(job.line.request, self._requests.dialect(job.line))
        try:
            return self._is_settled(job, job.line, post)
        finally:
            self._adaptation.end(job.line.request)

    def _is_settled(self, job: Job, line: Line, post: Post) -> bool:
        """Ask a line until there is a result, and put it away; return False where the run is over before."""
        tries = Tries(self.gate, self._options.retries)
        while tries.start():
            deadline = LineDeadline(self._deadline, self._options.timeout_s)
            tries.ends_by(deadline)
            answer = self._asked(line, post, tries, deadline)
            error = answer.outcome.error
            tries.end(error, succeeded=_is_answer(answer.outcome))
            if error and (tries.was_stopped or self._deadline.left_s() <= 0):
                return False
            if not (error and is_above_limit(error)):
                return self._settle(job, answer)
        return False

    def _asked(self, line: Line, post: Post, tries: Tries, deadline: Deadline) -> Answer:
        outcome = Outcome(self._options.accept, model=line.request.model, fail_empty=self._options.fail_empty)
        outcome.choices = 1
        collector = Collector(self._check, tries.begins, self._use_tokens, extract=self._options.extract)
        dialect = self._requests.dialect(line)
        request = line.request._replace(include_usage=True)

        def send(body: bytes) -> pump.Source:
            collector.request_id = None
            source = post(dialect.PATH, body, deadline)
            collector.request_id = source.header("x-request-id")
            return Spaced(source, lambda: self.gate.running)

        pump.ask(
            request,
            send,
            dialect,
            writer=collector,
            outcome=outcome,
            retries=tries,
            adaptation=self._adaptation,
        )
        return collector.answer(outcome)

    def _settle(self, job: Job, answer: Answer | None) -> bool:
        """Put a result away, and count it; return whether the run goes on."""
        error = answer.outcome.error if answer else job.failure
        if isinstance(error, AccessError):  # no result: whoever has mended it wants the line asked
            self.gate.close(error)
            return False
        line = (
            encode_result(job.asked, answer, self._hide)
            if answer
            else encode_failure(job.asked, job.failure or _NO_FAILURE)
        )
        with self._lock:
            if self._is_closed:
                return False
            offset = self._results.append(job.place, line)
            self._is_unsynced = True
            self._feed.plan.settle(
                job.place,
                offset,
                error.status if error else Status.COMPLETE,
                is_final=error is not None and is_final(error.status, is_retryable=error.retryable),
            )
            self._count(answer, error)
            halting = self._halting(error)
            if halting:  # before another line is settled, and its worker takes the next one
                self.gate.close(halting)
        if error:
            self._notices.failed(job, error)
        options = self._options
        if halting and options.halt.is_at_once and options.halt.wants(self._failed(), len(self._feed.plan)):
            self._over.set()
        return not halting

    def _count(self, answer: Answer | None, error: SmaiError | None) -> None:
        tally = self.tally
        tally.answers += answer is not None
        if error:
            tally.failures[error.status] += 1
        if answer:
            tally.retries += answer.outcome.retries

    def _use_tokens(self, usage: Usage) -> None:
        """Count what a try has used, broken or not, and start nothing more above the limit."""
        with self._lock:
            self.tally.prompt_tokens += usage.prompt_tokens or 0
            self.tally.completion_tokens += usage.completion_tokens or 0
            limit = self._over_token_limit()
        if limit:
            self.gate.close(limit)

    def _over_token_limit(self) -> SmaiError | None:
        limit, used = self._options.token_limit, self.tally.tokens
        if limit is None or used < limit:
            return None
        return _TokenLimitError(
            f"{used} tokens are used, and --token-limit is {limit}", "with -o, --resume asks the rest"
        )

    def _failed(self) -> int:
        return self.tally.failures.total()

    def _halting(self, error: SmaiError | None) -> SmaiError | None:
        """Return why nothing more is to be started; None to go on."""
        if limit := self._over_token_limit():
            return limit
        hopeless = self._hopeless.failure(error)
        if error and self._options.halt.wants(self._failed(), len(self._feed.plan)):
            return _halted(error)
        return hopeless

    def _sync(self) -> None:
        with self._lock:
            is_due, self._is_unsynced = self._is_unsynced, False
        if is_due:
            self._results.sync()


class _TokenLimitError(SmaiError):
    """So many tokens are used that nothing more is started."""

    status, kind = Status.USAGE, "usage"


_NO_FAILURE = RefusedError("there is no answer", "ask the line again")


def _halted(error: SmaiError) -> SmaiError:
    """Return the failure that --halt makes the end of the run."""
    error_type = type(error)
    return error_type(f"halted: {error.what}", "--halt said so; with -o, --resume goes on")


def _is_answer(outcome: Outcome) -> bool:
    """Return whether the server answers, be the answer complete or not."""
    return outcome.error is None or outcome.error.status in (Status.CUT_SHORT, Status.WITHHELD)
