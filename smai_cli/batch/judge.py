"""Decide what follows a try: a result, another try after a pause, the end of the queue, or the end of the run.

`failures.owner_of` says what a failure belongs to; this module derives what that means for the line, load and run.
"""

from enum import Enum
from typing import NamedTuple

from smai_cli.batch.failures import (
    IN_A_ROW,
    OTHERS,
    History,
    Kind,
    Owner,
    Past,
    kind_of,
    no_success,
    owner_of,
    shared_failure,
)
from smai_cli.batch.load.control import End
from smai_cli.batch.tries import Tries
from smai_cli.errors import BusyError, Cause, Retry, SmaiError
from smai_cli.stream.retries import LONGEST_WAIT_S

# A line that a limit refused this often, while failures.OTHERS got through, is no longer evidence of load.
_REFUSED_FOR_ITSELF = 2


class Step(Enum):
    """What happens to a line after a try."""

    SETTLE = "it has its result"
    AGAIN = "it is sent again after a pause"
    POSTPONE = "it moves to the end of the queue"
    STOP = "it has no result: the run ends before"


class Decision(NamedTuple):
    """What follows a try.

    `pause_s` is for AGAIN. `end` and `wait_s` are for the load control: how the request ended, and how long the server
    asks all requests of its model to wait. `run_failure` ends the run. `is_limit`: the line waits for a limit.
    """

    step: Step
    end: End
    pause_s: float = 0.0
    wait_s: float | None = None
    run_failure: SmaiError | None = None
    is_limit: bool = False


class Judge:
    """Judges each try of a run; `history` is the past of the run.

    Each line has `retries` retries. `patience_s` is how long nothing may succeed (0: no limit).
    """

    def __init__(self, retries: int, patience_s: float, *, has_answered: bool) -> None:
        self.history = History(has_answered=has_answered)
        self._retries = retries
        self._patience_s = patience_s

    def success(self, number: int) -> Decision:
        """Count a complete answer to the request `number`."""
        self.history.add_answer(number)
        self.history.through += 1
        return Decision(Step.SETTLE, End.ANSWERED)

    def failure(  # noqa: PLR0913  # the facts of a failure, by name
        self,
        tries: Tries,
        failure: SmaiError,
        number: int,
        now_s: float,
        *,
        has_begun: bool,
        is_other_running: bool,
        is_other_answered: bool,
    ) -> Decision:
        """Record the failure of request `number`, and return what follows.

        `has_begun`: its answer had begun. `is_other_running`: other requests are running. `is_other_answered`: the
        server is answering one of them.
        """
        kind = kind_of(failure, has_begun=has_begun)
        if kind is Kind.LIMIT:
            tries.refuse(self.history.through)
        past = self._past(tries, failure, kind, number, now_s)._replace(has_begun=has_begun)
        if is_other_answered:
            self.history.postpone_patience(now_s)
        if is_other_running and not past.has_answered:  # one of them may be the first success
            past = past._replace(in_a_row=min(past.in_a_row, IN_A_ROW - 1))
        past = past._replace(is_patience_over=self.patience_left_s(now_s) <= 0)
        is_its_own = tries.refusals >= _REFUSED_FOR_ITSELF and past.others >= OTHERS
        end, wait_s = self._load(failure, kind, is_its_own=is_its_own)
        owner = owner_of(failure, past)
        decision = Decision(Step.SETTLE, end, wait_s=wait_s, is_limit=kind is Kind.LIMIT)
        if owner is Owner.RUN:
            return self._end_of_run(tries, failure, kind, now_s, decision)
        if owner is Owner.MODEL or (owner is Owner.SERVER and failure.retry is not Retry.NEVER):
            tries.forget_time()
            pause_s = tries.limit_pause_s(failure) if owner is Owner.MODEL else 0.0
            return decision._replace(step=Step.AGAIN, pause_s=pause_s)
        if kind is Kind.LIMIT and not tries.is_postponed:
            tries.postpone()
            return decision._replace(step=Step.POSTPONE)
        pause = None if kind is Kind.LIMIT or owner is Owner.SERVER else tries.next_pause_s(failure, self._retries)
        return decision if pause is None else decision._replace(step=Step.AGAIN, pause_s=pause)

    def _past(self, tries: Tries, failure: SmaiError, kind: Kind, number: int, now_s: float) -> Past:
        """Record a failure, and return the past, including it."""
        past = self.history.add_failure(failure, kind, number, tries.job.place, now_s)
        others = OTHERS if tries.is_postponed else self.history.through - tries.through_before
        return past._replace(refusals=tries.refusals, others=others)

    def patience_left_s(self, now_s: float) -> float:
        """Return for how many more seconds nothing may succeed; infinite without a limit or a failure."""
        since_s = self.history.waiting_since_s
        return since_s + self._patience_s - now_s if self._patience_s and since_s is not None else float("inf")

    def _load(self, failure: SmaiError, kind: Kind, *, is_its_own: bool) -> tuple[End, float | None]:
        """Return what the failure says about the load, and how long the server asks all requests to wait."""
        end, wait_s = End.ANSWERED, None
        if kind is Kind.LIMIT:
            end, wait_s = (End.UNRELATED, None) if is_its_own else (End.TOO_MANY, failure.wait_s or None)
        elif kind is Kind.SERVER:
            end = End.UNWELL if isinstance(failure, BusyError) and not self.history.is_server_away else End.UNRELATED
            if failure.cause in (Cause.OVERLOAD, Cause.RATE_LIMIT) and (failure.wait_s or 0.0) <= LONGEST_WAIT_S:
                wait_s = failure.wait_s
        elif failure.retryable:  # a broken answer
            end = End.UNRELATED
        return end, wait_s

    def _end_of_run(self, tries: Tries, failure: SmaiError, kind: Kind, now_s: float, decision: Decision) -> Decision:
        """Return the decision that ends the run. A refused line gets a result; one that may succeed later does not."""
        if kind is Kind.LIMIT or (kind is Kind.SERVER and self.history.has_answered):
            waited_s = now_s - (self.history.waiting_since_s or now_s)
            run_failure = no_success(failure, tries.job, waited_s)
        else:
            run_failure = shared_failure(failure, kind, tries.job)
        has_result = kind is Kind.REFUSAL or (
            kind is Kind.SERVER and tries.next_pause_s(failure, self._retries) is None
        )
        return decision._replace(step=Step.SETTLE if has_result else Step.STOP, run_failure=run_failure)
