"""What every run at the edge has: a thread that watches it, and one end.

The reader of stdout may go, and --max-time may end, while everything else waits.
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

# Whoever can end the run in order at the deadline gets this long to do it.
_GRACE_S = 0.3
# How long the message at the deadline may wait for a reader of stderr.
_LAST_WORDS_S = 1.0
# A reader such as head leaves with the last byte; a run that is over then may end by itself.
_END_S = 0.05


class Lifecycle:
    """The life of one run of a command, which ends once: by itself, at `deadline`, or with the reader of stdout.

    `key`, once it is known, is kept out of every message, and with it the secrets in the base URL. `report` tells how a
    run with more to tell has ended, and returns its exit status; `before_end` is called before any end, and
    `before_death` before one that `report` does not hear of: the reader of stdout is gone, or there is a defect.
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
        self._report = report or self.tell
        self._before_end = before_end
        self._before_death = before_death
        self._ending = threading.RLock()
        self._status: int | None = None  # known when nothing is left but to report it

    def deliver(self, work: Callable[[], None]) -> int:
        """Do `work`, which may raise a SmaiError; report how it ended on stderr and return the exit status.

        Raises ReaderGoneError when nobody reads stdout any more.
        """
        watch(STDOUT if self._watches_stdout else None, self.deadline, self._die_without_reader, self._stop_at_deadline)
        failure = None
        try:
            work()
        except BaseException as exc:
            failure = failure_of(exc)
            if failure is None:
                self._before_death(exc)
                raise
        finally:
            self._before_end()  # also where the reader of stdout is gone
        self.end_no_more()
        return self._end(failure)

    def end_no_more(self) -> None:
        """Let nobody else end the run from here on, neither the deadline nor the reader: one end is enough."""
        self._ending.acquire()  # for good

    def fail(self, error: SmaiError) -> int:
        """Report a failure before there was any work; return the exit status."""
        return self._end(failure_of(error))

    def tell(self, failure: SmaiError | None) -> int:
        """Put a failure on stderr, without the key; return the exit status."""
        self._status = failure.status if failure else Status.COMPLETE
        if failure is None:
            return Status.COMPLETE
        say(self.without_key(str(failure)))
        return failure.status

    def say(self, line: str) -> None:
        """Put a notice on stderr."""
        say(self.without_key(line))

    def without_key(self, text: str) -> str:
        """Return `text` with the key, and the secrets in the base URL, hidden."""
        return self.key.hidden_in(text) if self.key else text

    def _end(self, failure: SmaiError | None) -> int:
        self._before_end()
        return self._report(failure)

    def _die_without_reader(self) -> None:
        """Die by SIGPIPE, from the watching thread, unless everything is delivered and only the summary is due."""
        self._before_end()
        if self._ending.acquire(blocking=False):
            self._before_death(ReaderGoneError())
            die_by(signal.SIGPIPE)

    def _stop_at_deadline(self) -> None:
        """End the process from the watching thread, whatever the main thread is stuck in.

        That may be stderr: where nobody reads it, the exit status has to do, also of a run that is ending by itself.
        """
        if self._ending.acquire(blocking=False):
            try:
                leave(result_within(_LAST_WORDS_S, lambda: self._end(self.deadline.error())))
            except TimeoutError:
                leave(Status.CLOCK)
        time.sleep(_LAST_WORDS_S)
        if self._status is not None:
            leave(self._status)


def watch(fd: int | None, deadline: Deadline, on_gone: Callable[[], None], on_deadline: Callable[[], None]) -> None:
    """Start to watch; nothing waits for it.

    When the reader of `fd` (a pipe, a socket, a terminal) goes away, `on_gone` is called, although the model may be
    silent for minutes: nobody would read its answer, and it costs money. Soon after `deadline` `on_deadline` is.
    Both end the process, whatever the main thread is stuck in, or return where it is ending by itself.
    """
    has_reader = fd is not None and not stat.S_ISREG(os.fstat(fd).st_mode)
    if has_reader or deadline.left_s() < math.inf:
        threading.Thread(target=_watch, args=(fd, has_reader, deadline, on_gone, on_deadline), daemon=True).start()


def _watch(
    fd: int | None, has_reader: bool, deadline: Deadline, on_gone: Callable[[], None], on_deadline: Callable[[], None]
) -> None:
    poller = select.poll()
    if fd is not None and has_reader:
        poller.register(fd, 0)  # no event is asked for: POLLERR and POLLHUP come unasked
    while (left_s := deadline.left_s() + _GRACE_S) > 0:
        if poller.poll(None if left_s == math.inf else left_s * 1000 + 1):
            time.sleep(_END_S)
            on_gone()
            return
    on_deadline()
