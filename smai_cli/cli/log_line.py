"""The line that a run writes to the run log: exactly one, however the run ends, as far as its process can ensure it."""

import contextlib
import signal
import threading

from smai_cli.answer.outcome import Outcome
from smai_cli.common.clocks import Deadline
from smai_cli.common.signals import ENDING, call_from_thread, die_by, on_signal
from smai_cli.config.log_file import LogFile
from smai_cli.errors import ReaderGoneError, SmaiError
from smai_cli.output import run_log
from smai_cli.output.descriptors import say

# How long a run that a clock or a signal ended may wait for the run log.
_HURRY_S = 0.5
# How long a signal waits for a line that is being written.
_PATIENCE_S = run_log.WAIT_S + 1.0


class LogLine:
    """Writes the line of the run with this `outcome` to the run log `log`, once; reports if that fails.

    A signal ends the process only after the line is written, even if the main thread is blocked.
    """

    def __init__(self, log: LogFile, facts: run_log.RunFacts, outcome: Outcome, deadline: Deadline) -> None:
        self._log, self._facts, self._outcome, self._deadline = log, facts, outcome, deadline
        self._writing = threading.Lock()
        self._is_written = False

    def write(self) -> None:
        """Write the line of a run that has ended, unless it is written."""
        with self._writing:
            failure = self._append(wait_s=_HURRY_S if self._deadline.left_s() <= 0 else run_log.WAIT_S)
        if failure:
            say(f"{self._log.path}: {failure.strerror}; the run was not logged, check {self._log.setting}")

    def write_death(self, reason: BaseException) -> None:
        """Write the line of a run that ends without a report: the reader of stdout left, or there is a defect."""
        if isinstance(reason, ReaderGoneError):
            self._write_signal(signal.SIGPIPE)
            return
        self._outcome.end(SmaiError("a defect in smai", "please report it"))
        self.write()

    def write_on_signals(self) -> None:
        """Write the line before a signal ends the process. Signals that the parent ignores (nohup) stay ignored."""
        if call_from_thread():  # without a thread, the end of the run reports the lack
            on_signal(ENDING, self._die_by)

    def _die_by(self, number: int) -> None:
        self._write_signal(signal.Signals(number))
        die_by(number)

    def _write_signal(self, killed_by: signal.Signals) -> None:
        """Write the line of a process that dies now. Print nothing, like any process that a signal ends."""
        if self._writing.acquire(timeout=_PATIENCE_S):
            with contextlib.suppress(BaseException):  # the signal ends the process even if the run log fails
                self._append(wait_s=_HURRY_S, killed_by=killed_by)
            self._writing.release()

    def _append(self, wait_s: float, killed_by: signal.Signals | None = None) -> OSError | None:
        """Write the line, unless it is written; return the error if that fails."""
        if self._is_written:
            return None
        self._is_written = True
        try:
            run_log.append(self._log.path, self._facts, self._outcome, killed_by=killed_by, wait_s=wait_s)
        except OSError as exc:
            return exc
        return None
