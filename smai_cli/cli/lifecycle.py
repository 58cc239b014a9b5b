"""The life of a command's run: a thread watches it, and it ends exactly once.

The reader of stdout may leave, and --max-time may pass, while the main thread is blocked.
"""

import math
import os
import select
import signal
import stat
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from smai_cli.common.clocks import Deadline, result_within
from smai_cli.common.shortages import failure_of
from smai_cli.common.signals import die_by, leave
from smai_cli.errors import ReaderGoneError, SmaiError, Status
from smai_cli.output.descriptors import STDOUT, say

if TYPE_CHECKING:
    from smai_cli.config.keys import Secrets

# At the deadline, the main thread gets this long to end the run in order.
_GRACE_S = 0.3
# How long the message at the deadline may wait for stderr.
_LAST_WORDS_S = 1.0
# A reader such as head leaves with the last byte; a run that is finished by then gets this long to end normally.
_END_S = 0.05


class Lifecycle:
    """One run of a command, which ends once: normally, at `deadline`, or when the reader of stdout leaves.

    `key`, once it is set, is removed from every message, together with the secrets in the base URL. `report` prints how
    the run ended and returns its exit status (default: `report_failure`). `before_end` is called before any end;
    `before_death` is called if the run ends without `report`: the reader of stdout left, or there is a defect.
    """

    def __init__(
        self,
        deadline: Deadline | None = None,
        *,
        watches_stdout: bool = True,
        report: Callable[[SmaiError | None], int] | None = None,
        before_end: Callable[[], None] = lambda: None,
        before_death: Callable[[BaseException], None] = lambda _: None,
    ) -> None:
        self.deadline = deadline or Deadline()
        self.key: Secrets | None = None
        self._watches_stdout = watches_stdout
        self._report = report or self.report_failure
        self._before_end = before_end
        self._before_death = before_death
        self._ending = threading.RLock()
        self._status: int | None = None  # set when only the report is left

    def deliver(self, work: Callable[[], None]) -> int:
        """Do `work`, which may raise a SmaiError; report how it ended on stderr and return the exit status.

        Raises ReaderGoneError if the reader of stdout has left.
        """
        has_reader = self._watches_stdout and not stat.S_ISREG(os.fstat(STDOUT).st_mode)
        if has_reader or self.deadline.left_s() < math.inf:
            threading.Thread(target=self._watch, args=(has_reader,), daemon=True).start()
        failure = None
        try:
            work()
        except BaseException as exc:
            failure = failure_of(exc)
            if failure is None:
                self._before_death(exc)
                raise
        finally:
            self._before_end()  # also if the reader of stdout has left
        self.end_no_more()
        return self._end(failure)

    def end_no_more(self) -> None:
        """From now on, neither the deadline nor the reader of stdout can end the run."""
        self._ending.acquire()  # never released

    def fail(self, error: SmaiError) -> int:
        """Report a failure before the work began; return the exit status."""
        return self._end(failure_of(error))

    def report_failure(self, failure: SmaiError | None) -> int:
        """Print a failure on stderr, without the key; return the exit status."""
        self._status = failure.status if failure else Status.COMPLETE
        if failure is None:
            return Status.COMPLETE
        say(self.without_key(str(failure)))
        return failure.status

    def say(self, line: str) -> None:
        """Print a notice on stderr, without the key."""
        say(self.without_key(line))

    def without_key(self, text: str) -> str:
        """Return `text` with the key and the secrets in the base URL hidden."""
        return self.key.hidden_in(text) if self.key else text

    def _end(self, failure: SmaiError | None) -> int:
        self._before_end()
        return self._report(failure)

    def _watch(self, has_reader: bool) -> None:
        """End the run soon after its deadline, or as soon as the reader of stdout (a pipe, a terminal) leaves.

        Also while the model is silent, because an answer without a reader costs money, and while the main thread is
        blocked. Return if the run is already ending.
        """
        poller = select.poll()
        if has_reader:
            poller.register(STDOUT, 0)  # no events: POLLERR and POLLHUP are always reported
        while (left_s := self.deadline.left_s() + _GRACE_S) > 0:
            if poller.poll(None if left_s == math.inf else left_s * 1000 + 1):
                time.sleep(_END_S)
                self._die_without_reader()
                return
        self._stop_at_deadline()

    def _die_without_reader(self) -> None:
        """Die by SIGPIPE, from the watching thread, unless everything is delivered and only the summary is left."""
        self._before_end()
        if self._ending.acquire(blocking=False):
            self._before_death(ReaderGoneError())
            die_by(signal.SIGPIPE)

    def _stop_at_deadline(self) -> None:
        """End the process from the watching thread, even if the main thread is blocked.

        It may be blocked on stderr. If stderr has no reader, only the exit status can report the end.
        """
        if self._ending.acquire(blocking=False):
            try:
                leave(result_within(_LAST_WORDS_S, lambda: self._end(self.deadline.error())))
            except TimeoutError:
                leave(Status.CLOCK)
        time.sleep(_LAST_WORDS_S)
        if self._status is not None:
            leave(self._status)
