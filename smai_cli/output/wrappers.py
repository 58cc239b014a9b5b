"""What can be put around a mode: a second output, a tape, reasoning shown aside, tool calls, a turn kept."""

import io
import json
from collections.abc import Callable

from smai_cli.answer.chunk import Chunk, Unread
from smai_cli.answer.outcome import TEXT_NEEDS, Outcome
from smai_cli.output.descriptors import FileOutput
from smai_cli.output.writers import Writer
from smai_cli.prompt.request import Message
from smai_cli.text import one_line
from smai_cli.trace import Trace


class Around(Writer):
    """Another mode, with its hooks passed on."""

    def __init__(self, writer: Writer) -> None:
        super().__init__(writer.out)
        self.holds_back = writer.holds_back
        self.takes_all = writer.takes_all
        self.needs = writer.needs
        self._writer = writer

    def piece(self, data: bytes) -> None:
        """Pass the bytes on."""
        self._writer.piece(data)

    def chunk(self, chunk: Chunk) -> None:
        """Pass the chunk on."""
        self._writer.chunk(chunk)

    def end(self, outcome: Outcome) -> None:
        """Pass the end on."""
        self._writer.end(outcome)


class Tee(Writer):
    """Two writers of one mode, to two outputs. The first hears everything first."""

    def __init__(self, first: Writer, second: Writer) -> None:
        super().__init__(second.out)
        self.holds_back = second.holds_back
        self.takes_all = second.takes_all
        self.needs = first.needs | second.needs
        self._writers = (first, second)

    def piece(self, data: bytes) -> None:
        """Pass the bytes on."""
        for writer in self._writers:
            writer.piece(data)

    def chunk(self, chunk: Chunk) -> None:
        """Pass the chunk on."""
        for writer in self._writers:
            writer.chunk(chunk)

    def end(self, outcome: Outcome) -> None:
        """Pass the end on."""
        for writer in self._writers:
            writer.end(outcome)


class Recorded(Around):
    """A mode, and the pieces of the body put into `tape`; another try begins it anew."""

    def __init__(self, writer: Writer, tape: FileOutput) -> None:
        super().__init__(writer)
        self._tape = tape
        self._ended = False

    def piece(self, data: bytes) -> None:
        """Keep the bytes, and pass them on."""
        if self._ended:
            self._tape.restart()
            self._ended = False
        self._tape.write(data)
        super().piece(data)

    def end(self, outcome: Outcome) -> None:
        """Pass the end on."""
        self._ended = True
        super().end(outcome)


class ReasoningToStderr(Around):
    """A mode that also writes the model's reasoning to `aside`, piece by piece, with a line end after it.

    `say` gets one line at the end of a complete answer for which the API sent no reasoning.
    """

    def __init__(self, writer: Writer, aside: Callable[[str], None], say: Callable[[str], None]) -> None:
        super().__init__(writer)
        self._aside = aside
        self._say = say
        self._last = ""
        self._has_reasoning = False

    def chunk(self, chunk: Chunk) -> None:
        """Put the reasoning aside, and pass the chunk on."""
        if chunk.reasoning:
            self._last = chunk.reasoning
            self._has_reasoning = True
            self._aside(chunk.reasoning)
        elif chunk.text:
            self._finish()
        super().chunk(chunk)

    def end(self, outcome: Outcome) -> None:
        """Finish the line of the reasoning, and pass the end on."""
        self._finish()
        super().end(outcome)
        if outcome.error is None and not self._has_reasoning:
            self._say("the API sent no reasoning; not every API shows what a model reasons")
        self._has_reasoning = False

    def _finish(self) -> None:
        if self._last and not self._last.endswith("\n"):
            self._aside("\n")
        self._last = ""


class Traced(Around):
    """A mode, and the steps of the answer told as they come, by `trace`."""

    def __init__(self, writer: Writer, trace: Trace) -> None:
        super().__init__(writer)
        self._trace = trace
        self._seen: set[str] = set()

    def chunk(self, chunk: Chunk) -> None:
        """Trace what is the first of its kind, and how the answer ends; pass the chunk on."""
        if chunk.reasoning:
            self._once("first delta of reasoning")
        if chunk.text:
            self._once("first delta")
        if chunk.finish_reason:
            self._trace(f"finished: {one_line(chunk.finish_reason, 40)}")
        if chunk.done:
            self._trace("end of the events")
        super().chunk(chunk)

    def end(self, outcome: Outcome) -> None:
        """Pass the end on; another try begins anew."""
        self._seen.clear()
        super().end(outcome)

    def _once(self, what: str) -> None:
        if what not in self._seen:
            self._seen.add(what)
            self._trace(what)


class WithCalls(Around):
    """A mode, and after a complete answer the tool calls in it, each as JSON on a line."""

    def __init__(self, writer: Writer) -> None:
        super().__init__(writer)
        self.needs = writer.needs | {Unread.CALL}

    def end(self, outcome: Outcome) -> None:
        """Pass the end on, then write the calls of a complete answer."""
        super().end(outcome)
        if outcome.error is None:
            for call in outcome.calls.as_json():
                self.out.show(json.dumps(call).encode() + b"\n")


class SavedTurn(Around):
    """A mode, and the complete answer given to `keep` as a message, once it was delivered."""

    def __init__(self, writer: Writer, keep: Callable[[Message], None]) -> None:
        super().__init__(writer)
        self.needs = writer.needs | TEXT_NEEDS | {Unread.CALL}
        self._keep = keep
        self._text = io.StringIO()

    def chunk(self, chunk: Chunk) -> None:
        """Keep the text, and pass the chunk on."""
        self._text.write(chunk.text)
        super().chunk(chunk)

    def end(self, outcome: Outcome) -> None:
        """Pass the end on, then keep a complete answer; forget a broken one."""
        super().end(outcome)
        text, self._text = self._text.getvalue(), io.StringIO()
        if outcome.error is None:
            calls = outcome.calls.as_json()
            self._keep(
                Message("assistant", text or None, {"tool_calls": calls}) if calls else Message("assistant", text)
            )
