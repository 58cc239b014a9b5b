"""The part that `ask` and `decode` share: one answer is watched, delivered and reported."""

import contextlib
import os
from typing import TYPE_CHECKING

from smai_cli.answer.outcome import Outcome
from smai_cli.cli.lifecycle import Lifecycle
from smai_cli.common.clocks import Deadline
from smai_cli.common.text import one_line
from smai_cli.common.trace import Tracer
from smai_cli.errors import BrokenError, Retry, SmaiError
from smai_cli.output.descriptors import STDERR, Output, columns, say_plain, stderr_can_draw
from smai_cli.output.listeners import Steps, writer_for
from smai_cli.output.modes import OutputOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smai_cli.cli.log_line import LogLine
    from smai_cli.config.endpoint import Endpoint
    from smai_cli.config.log_file import LogFile
    from smai_cli.output.cadence import Cadence
    from smai_cli.output.outfile import OutFile, Tape
    from smai_cli.output.waiting import WaitingLine
    from smai_cli.output.writers import Fit
    from smai_cli.prompt.conversation import ConversationFile
    from smai_cli.stream.listener import Listener

# How many tool names a notice lists at most.
_TOOLS_SHOWN = 10


class Run:
    """One run of a command that delivers an answer, and its reports.

    `life` controls its end, `outcome` is the result of the answer. `tracer` prints each step (-v).
    """

    def __init__(self, options: OutputOptions, deadline: Deadline | None = None, tracer: Tracer | None = None) -> None:
        self.life = Lifecycle(
            deadline,
            watches_stdout=not options.quiet,
            report=self._report,
            before_end=self._stop_waiting,
            before_death=self._log_death,
        )
        self.summary = options.summary
        keeps_text = False
        if self.summary != "none":
            from smai_cli.output.tokens import is_installed  # only for a summary

            keeps_text = is_installed()
        self.outcome = Outcome(
            options.accept,
            started_s=tracer.begun_s if tracer else None,  # the same clock for -v and the summary
            fail_empty=options.fail_empty,
            keep_text=keeps_text,
        )
        self.endpoint: Endpoint | None = None  # once it is known
        self._options = options
        self._tracer = tracer
        self._stdout = Output()
        self._waiting: WaitingLine | None = None
        self._cadence: Cadence | None = None
        self._log_line: LogLine | None = None

    def log_to(self, log: "LogFile", command: str, base_url: str | None, profile: str | None) -> None:
        """From now on, write a line to the run log `log` however the run ends; `base_url` is None for the mock."""
        from smai_cli.cli.log_line import LogLine  # only if there is a run log
        from smai_cli.output.run_log import RunFacts

        facts = RunFacts(command=command, base_url=base_url, profile=profile, hide=self.life.without_key)
        self._log_line = LogLine(log, facts, self.outcome, self.life.deadline)
        self._log_line.write_on_signals()

    @contextlib.contextmanager
    def delivery(
        self, awaited: str = "", fit: "Fit | None" = None, chat: "ConversationFile | None" = None
    ) -> "Iterator[Listener]":
        """Provide the writer for the answer, and open the named files.

        The files, and the conversation `chat`, get the answer if it is complete. Enter last, just before the request is
        sent. `awaited` is what a status line on a terminal waits for, empty without such a line; `fit` is as for
        Writer. Raises UsageError or OutputError for a file that cannot be written.
        """
        out: OutFile | None = None
        tape: Tape | None = None
        try:
            if self._options.file or self._options.record:
                from smai_cli.output import outfile  # only if a file is named

                out = outfile.OutFile(self._options.file) if self._options.file else None
                tape = outfile.Tape(self._options.record) if self._options.record else None
            observers = [*self._observers(awaited), *([tape] if tape else [])]
            # The file comes first: what a reader of stdout has seen is in the file too.
            outs = [*([out.output] if out else []), *([] if self._options.quiet else [self._stdout])]
            yield writer_for(self._options, outs, observers, fit, chat.prepare if chat else None)
        except MemoryError as exc:
            raise BrokenError(
                "there is not enough memory for the rest of the answer",
                "the output is incomplete",
                retry=Retry.NEVER,
                retryable=False,
            ) from exc
        finally:
            is_complete = self.outcome.is_complete
            if out and not is_complete:
                out.leave()
            if tape:
                tape.leave()
        if is_complete and (out or chat):
            self._commit(out, chat)

    def _observers(self, awaited: str) -> "Iterator[Listener]":
        """Yield what observes the answer but does not deliver it."""
        if self._tracer:
            yield Steps(self._tracer)
        elif awaited and stderr_can_draw():
            from smai_cli.output.waiting import WaitingLine  # on a terminal only

            # Shown until the first byte goes to stdout, or until the end.
            self._waiting = WaitingLine(awaited)
            self._stdout.before_first = self._waiting.stop
            self._waiting.start()
            yield self._waiting
        if self.summary == "text" and os.isatty(STDERR):  # the cadence is part of the text summary
            from smai_cli.output.cadence import Cadence  # on a terminal only

            self._cadence = Cadence()
            yield self._cadence

    def _commit(self, out: "OutFile | None", chat: "ConversationFile | None") -> None:
        """Commit the file and the conversation: both of them, or neither. Raises OutputError.

        The turn is already on disk. All steps of the file that can fail come before the single step of the
        conversation.
        """
        if out:
            out.prepare()
        self.life.end_no_more()
        if out:
            out.commit()
        if chat:
            chat.commit()

    def _stop_waiting(self) -> None:
        if self._waiting:
            self._waiting.stop()

    def _report(self, failure: SmaiError | None) -> int:
        """Report how the answer ended, with its summary, on stderr; return the exit status."""
        outcome = self.outcome
        if failure:
            outcome.end(failure)
        if self._log_line:  # before stderr, which may block
            self._log_line.write()
        reports_tools = self._options.prints_text and not self._options.tool_calls
        if outcome.calls.names and reports_tools and not outcome.error:
            names = one_line(", ".join(outcome.calls.names[:_TOOLS_SHOWN]), 200)
            self.life.say(f"the model calls a tool: {names}; --tool-calls prints the calls")
        if self._options.reasoning and outcome.is_complete and not outcome.has_reasoning:
            self.life.say("the API sent no reasoning; not every API shows the reasoning")
        if outcome.error and self.endpoint:
            outcome.error = self.endpoint.explain(outcome.error)
        self.life.report_failure(outcome.error)
        if self._tracer:
            self._tracer(f"end: {self._stdout.written} bytes on stdout, exit status {int(outcome.status)}")
        if self.summary != "none":
            self._print_summary()
        return outcome.status

    def _print_summary(self) -> None:
        from smai_cli.output.summary import summary_json, summary_text  # only for a summary

        if self.summary == "json":
            say_plain(self.life.without_key(summary_json(self.outcome)))
        elif self.outcome.is_finished:
            self.life.say(summary_text(self.outcome))
            self._draw_cadence()

    def _log_death(self, reason: BaseException) -> None:
        if self._log_line:
            self._log_line.write_death(reason)

    def _draw_cadence(self) -> None:
        """Draw the cadence of the answer under its summary, on a terminal."""
        if self._cadence:
            from smai_cli.output.cadence import speaks_utf8

            line = self._cadence.line(self.outcome.started_s, columns(), is_utf8=speaks_utf8(os.environ))
            if line:
                self.life.say(line)
