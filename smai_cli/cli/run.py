"""What `ask` and `decode` share at the edge: one answer, watched, delivered and reported."""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from smai_cli.cli.lifecycle import Watched
from smai_cli.clocks import Deadline
from smai_cli.errors import Again, BrokenError, SmaiError
from smai_cli.http.trace import Teller
from smai_cli.output.descriptors import STDERR, Aside, Output, columns, say_plain, stderr_can_draw
from smai_cli.output.summary import summary_json, summary_text
from smai_cli.output.tokens import installed
from smai_cli.output.wrappers import Aloud, Both, Kept, Recorded, Told, WithCalls
from smai_cli.output.writers import WRITERS, Final, Writer
from smai_cli.prompt.request import choices_in
from smai_cli.stream.outcome import Completion
from smai_cli.text import one_line

if TYPE_CHECKING:
    from smai_cli.output.cadence import Cadence
    from smai_cli.output.outfile import OutFile, Tape
    from smai_cli.output.waiting import Waiting
    from smai_cli.prompt.inputs import Turn
    from smai_cli.prompt.request import Request


class Run(Watched):
    """One run of a command that delivers an answer: its writer, its completion, its clock and its end.

    `mode` is a name in WRITERS, `flags` are the values of output_options, and of `reasoning` and `tell` where a
    command has them; `deadline` is the end of the whole run. The work that it delivers ends `completion`, or raises
    a SmaiError before there was one.
    """

    def __init__(self, mode: str, flags: dict[str, Any], deadline: Deadline | None = None) -> None:
        super().__init__(deadline)
        self.watches_stdout = not flags["quiet"]
        self._mode = mode
        self._flags = flags
        self._check: Callable[[str], None] | None = None
        self._stdout = Output()
        self._tell: Teller | None = flags["tell"] if isinstance(flags.get("tell"), Teller) else None
        self._waiting: Waiting | None = None
        self._cadence: Cadence | None = None
        self.writer = self._writer(self._stdout)
        self.summary = flags["summary"] or ("text" if mode == "final" else "none")
        self.completion = Completion(
            flags["accept"],
            started_s=self._tell.begun_s if self._tell else None,  # one clock for all that is told
            keep_text=self.summary != "none" and installed(),
        )
        self._tells_tools = mode in ("text", "final") and not flags["tool_calls"]

    def deliver(self, work: Callable[[], None]) -> int:
        """Do `work`, as every run does."""
        try:
            return super().deliver(work)
        finally:
            self._stop_waiting()

    @contextlib.contextmanager
    def into_files(self, turn: "Turn | None" = None) -> Iterator[None]:
        """Have the files that were named open for the answer; they and a conversation get it if it is complete.

        To be entered when nothing but the answer is missing; `turn` is what a conversation is to keep. Raises
        UsageError or OutputError for a file that cannot be written.
        """
        out: OutFile | None = None
        tape: Tape | None = None
        try:
            if self._flags["output"] or self._flags.get("record"):
                from smai_cli.output import outfile  # noqa: PLC0415  # for those who name one

                out = outfile.OutFile(self._flags["output"]) if self._flags["output"] else None
                tape = outfile.Tape(self._flags["record"]) if self._flags.get("record") else None
            self._compose(out, tape, turn)
            yield
        except MemoryError as exc:
            raise BrokenError(
                "there is not enough memory for the rest of the answer",
                "what came is not the whole answer",
                again=Again.NEVER,
                retryable=False,
            ) from exc
        finally:
            is_complete = self.completion.is_complete
            if out and not is_complete:
                out.leave()
            if tape:
                tape.leave()
        if is_complete and (out or turn):
            self._commit(out, turn)

    def _compose(self, out: "OutFile | None", tape: "Tape | None", turn: "Turn | None") -> None:
        if out:
            into_file = self._writer(out.output)
            self.writer = into_file if self._flags["quiet"] else Both(into_file, self.writer)
        if tape:
            self.writer = Recorded(self.writer, tape)
        if self._flags.get("reasoning"):
            self.writer = Aloud(self.writer, Aside())
        self._observe()
        if turn:
            self.writer = Kept(self.writer, turn.prepare)

    def _commit(self, out: "OutFile | None", turn: "Turn | None") -> None:
        """Give the file and the conversation what they are to have: both of them, or neither. Raises OutputError.

        The turn is on the disk by now. What can still fail of the file comes before the conversation's one step.
        """
        if out:
            out.prepare()
        self.end_no_more()
        if out:
            out.commit()
        if turn:
            turn.commit()

    def _observe(self) -> None:
        """Note when the deltas come, for a summary that a person will see."""
        if self.summary == "text" and os.isatty(STDERR):
            from smai_cli.output.cadence import Cadence, Paced  # noqa: PLC0415  # on a terminal only

            self._cadence = Cadence()
            self.writer = Paced(self.writer, self._cadence)

    def expect(self, request: "Request", check: Callable[[str], None] | None) -> None:
        """Hear what is asked, and what `check` has against a text that is held back."""
        self.completion.model = request.model
        self.completion.choices = choices_in(request.extra)
        self._check = check
        if self._tell:
            self.writer = Told(self.writer, self._tell)
        elif stderr_can_draw():
            self._wait(awaited="the first delta" if request.stream else "the answer")

    def _wait(self, awaited: str) -> None:
        """Show on the terminal that an answer is awaited, until the first byte goes to stdout, or until the end."""
        from smai_cli.output.waiting import Counted, Waiting  # noqa: PLC0415  # on a terminal only

        self._waiting = Waiting(awaited)
        self.writer = Counted(self.writer, self._waiting)
        self._stdout.before_first = self._waiting.stop
        self._waiting.start()

    def _stop_waiting(self) -> None:
        if self._waiting:
            self._waiting.stop()

    def _die_without_reader(self) -> None:
        self._stop_waiting()
        super()._die_without_reader()

    def _writer(self, out: Output) -> Writer:
        writer: Writer
        if self._mode == "final":
            writer = Final(out, lambda text: self._check(text) if self._check else None)
        else:
            writer = WRITERS[self._mode](out)
        return WithCalls(writer) if self._flags["tool_calls"] else writer

    def _end(self, failure: SmaiError | None) -> int:
        """Report how the answer ended, and the summary of it, on stderr; return the exit status."""
        completion = self.completion
        self._stop_waiting()
        if failure:
            completion.end(failure)
        if completion.tools and self._tells_tools and not completion.error:
            names = one_line(", ".join(completion.tools), 200)
            self.say(f"the model asks for a tool: {names}; --tool-calls prints the calls")
        super()._end(completion.error)
        if self._tell:
            self._tell(f"end: {self._stdout.written} bytes on stdout, exit status {int(completion.status)}")
        if self.summary == "json":
            say_plain(self._without_key(summary_json(completion)))
        elif self.summary == "text" and completion.finished:
            self.say(summary_text(completion))
            self._draw_cadence()
        return completion.status

    def _draw_cadence(self) -> None:
        """Put the cadence of the answer under its summary, on a terminal."""
        if self._cadence:
            from smai_cli.output.cadence import speaks_utf8  # noqa: PLC0415  # as above

            line = self._cadence.line(self.completion.started_s, columns(), is_utf8=speaks_utf8(os.environ))
            if line:
                self.say(line)
