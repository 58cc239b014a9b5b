"""What can be put around a mode: a second output, a tape, reasoning shown aside, tool calls, a turn kept."""

import io
import json
from collections.abc import Callable, Iterable
from typing import Any

from smai_cli.http.trace import Trace
from smai_cli.output.descriptors import FileOutput
from smai_cli.output.writers import Writer
from smai_cli.prompt.request import Message
from smai_cli.stream.chunk import CallPart, Chunk
from smai_cli.stream.outcome import Outcome
from smai_cli.text import Joiner, one_line


class Around(Writer):
    """Another mode, with its hooks passed on."""

    def __init__(self, writer: Writer) -> None:
        super().__init__(writer.out)
        self.holds_back = writer.holds_back
        self.takes_all = writer.takes_all
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
    """A mode, and the model's reasoning put to `aside`, piece by piece, with a line end behind it."""

    def __init__(self, writer: Writer, aside: Callable[[str], None]) -> None:
        super().__init__(writer)
        self._aside = aside
        self._last = ""

    def chunk(self, chunk: Chunk) -> None:
        """Put the reasoning aside, and pass the chunk on."""
        if chunk.reasoning:
            self._last = chunk.reasoning
            self._aside(chunk.reasoning)
        elif chunk.text:
            self._finish()
        super().chunk(chunk)

    def end(self, outcome: Outcome) -> None:
        """Finish the line of the reasoning, and pass the end on."""
        self._finish()
        super().end(outcome)

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
    """A mode, and behind a complete answer the tool calls in it, each as JSON on a line."""

    def __init__(self, writer: Writer) -> None:
        super().__init__(writer)
        self._calls = Calls()

    def chunk(self, chunk: Chunk) -> None:
        """Keep the parts of calls, and pass the chunk on."""
        self._calls.add(chunk.calls)
        super().chunk(chunk)

    def end(self, outcome: Outcome) -> None:
        """Pass the end on, then write the calls of a complete answer; forget those of a broken one."""
        super().end(outcome)
        calls, self._calls = self._calls, Calls()
        if outcome.error is None:
            for call in calls.as_json():
                self.out.write(json.dumps(call).encode() + b"\n")


class SavedTurn(Around):
    """A mode, and the complete answer given to `keep` as a message, once it was delivered."""

    def __init__(self, writer: Writer, keep: Callable[[Message], None]) -> None:
        super().__init__(writer)
        self._keep = keep
        self._text = io.StringIO()
        self._calls = Calls()

    def chunk(self, chunk: Chunk) -> None:
        """Keep text and calls, and pass the chunk on."""
        self._text.write(chunk.text)
        self._calls.add(chunk.calls)
        super().chunk(chunk)

    def end(self, outcome: Outcome) -> None:
        """Pass the end on, then keep a complete answer; forget a broken one."""
        super().end(outcome)
        text, self._text = self._text.getvalue(), io.StringIO()
        calls, self._calls = self._calls.as_json(), Calls()
        if outcome.error is None:
            self._keep(
                Message("assistant", text or None, {"tool_calls": calls}) if calls else Message("assistant", text)
            )


class Calls:
    """Tool calls, put together from the parts in which they arrive."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._places: dict[int, _Call] = {}

    def add(self, parts: Iterable[CallPart]) -> None:
        """Take parts in the order of their arrival."""
        for part in parts:
            call = self._places.get(part.number) if part.number is not None else None
            if call is None or (part.id and call.id and part.id != call.id):  # servers reuse a number, too
                call = _Call()
                self._calls.append(call)
                if part.number is not None:
                    self._places[part.number] = call
            call.id = call.id or part.id
            call.name = call.name or part.name
            call.arguments.append(part.arguments)

    def as_json(self) -> list[dict[str, Any]]:
        """Return the calls as the chat API has them in a message; halves of a surrogate pair are joined or U+FFFD."""
        return [
            {
                "id": _whole(call.id),
                "type": "function",
                "function": {"name": _whole(call.name), "arguments": _whole("".join(call.arguments))},
            }
            for call in self._calls
        ]


class _Call:
    """A tool call in the making. Its arguments may come in as many parts as they have characters."""

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []


def _whole(text: str) -> str:
    joiner = Joiner()
    return joiner.whole(text) + joiner.rest()
