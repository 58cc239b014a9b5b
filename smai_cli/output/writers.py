"""The modes, of which a run has one, and the list of all listeners."""

import io
from collections.abc import Callable, Sequence

from smai_cli.answer.chunk import Chunk, UnreadKind
from smai_cli.answer.completeness import empty_answer_error
from smai_cli.answer.outcome import TEXT_NEEDS, Outcome
from smai_cli.errors import BrokenError
from smai_cli.output.descriptors import FileOutput, Output
from smai_cli.stream.listener import Listener

# Returns the text to deliver, or raises BrokenError if it does not fit the request.
Fit = Callable[[str], str]


class Writers(Listener):
    """Several listeners; each gets a piece or a chunk completely before the next one."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self.holds_back = all(one.holds_back for one in listeners)
        self.takes_all = any(one.takes_all for one in listeners)
        self.needs = frozenset[UnreadKind]().union(*(one.needs for one in listeners))
        self._listeners = tuple(listeners)

    @property
    def has_delivered(self) -> bool:
        """Whether anything went to one of the outputs."""
        return any(one.has_delivered for one in self._listeners)

    def begin(self) -> None:
        """Pass the begin on."""
        for one in self._listeners:
            one.begin()

    def piece(self, data: bytes) -> None:
        """Pass the bytes on."""
        for one in self._listeners:
            one.piece(data)

    def chunk(self, chunk: Chunk) -> None:
        """Pass the chunk on."""
        for one in self._listeners:
            one.chunk(chunk)

    def end(self, outcome: Outcome) -> None:
        """Pass the end on."""
        for one in self._listeners:
            one.end(outcome)


class Writer(Listener):
    """A mode, which delivers to `out`. It needs text; media are a failure, because it cannot deliver them.

    What is written only when it is complete goes through `fit`, which returns the text to deliver, or raises
    BrokenError if it does not fit the request. `fails_empty`: a code block of only white space is a failure.
    """

    holds_back = False
    needs = TEXT_NEEDS

    def __init__(self, out: Output, fit: Fit | None = None, *, fails_empty: bool = False) -> None:
        self.out = out
        self._fit = fit
        self._fails_empty = fails_empty
        # Chosen once, and not for each delta, which costs 2 % of a burst (tests/benchmarks/bench.py).
        self._deliver = out.show if out.is_terminal else out.write
        self.begin()

    @property
    def has_delivered(self) -> bool:
        """Whether anything went to the output."""
        return self.out.written > 0


class Text(Writer):
    """Writes the text, one write per delta, and a newline at the end if the text lacks one."""

    def begin(self) -> None:
        """Begin a line."""
        self._last = ""

    def chunk(self, chunk: Chunk) -> None:
        """Write the delta at once."""
        if text := chunk.text:
            self._last = text
            self._deliver(text.encode())

    def end(self, outcome: Outcome) -> None:  # noqa: ARG002
        """Finish the line, so that a message or a prompt begins on a new line."""
        if self._last and not self._last.endswith("\n"):
            self.out.write(b"\n")


class Raw(Writer):
    """Writes the body byte for byte as received, one write per network read; it needs no parsed parts."""

    takes_all = True
    needs = frozenset()

    def piece(self, data: bytes) -> None:
        """Write the bytes at once."""
        self.out.write(data)


class Jsonl(Writer):
    """Writes each event's JSON on one line, one write per event; it needs no parsed parts."""

    needs = frozenset()

    def chunk(self, chunk: Chunk) -> None:
        """Write the line at once; `[DONE]` is not JSON and gets no line."""
        if chunk.data:
            self.out.write(f"{chunk.data}\n".encode())


class Final(Writer):
    """Writes the text at once when the answer is complete, else nothing."""

    holds_back = True

    def begin(self) -> None:
        """Discard the text of a broken answer."""
        self._text = io.StringIO()

    def chunk(self, chunk: Chunk) -> None:
        """Keep the delta."""
        self._text.write(chunk.text)

    def end(self, outcome: Outcome) -> None:
        """Write what a complete answer delivers. Raises BrokenError if that does not fit the request."""
        if outcome.error is None:
            self._write(self._content(self._text.getvalue(), outcome))

    def _content(self, text: str, outcome: Outcome) -> str:
        """Return what to write. In the partial file of `--output`, a text that does not fit the request is kept."""
        if self._fit is None or outcome.calls:  # a tool call is not text
            return text
        try:
            return self._fit(text)
        except BrokenError as error:
            if not text or not isinstance(self.out, FileOutput):
                raise
            self._write(text)
            raise error.replaced(what=str(error), hint=f"it is in {self.out.name}") from error.__cause__

    def _write(self, text: str) -> None:
        if text:
            self._deliver((text if text.endswith("\n") else text + "\n").encode())


class Extract(Final):
    """The mode of -x: writes the first code block at once when the answer is complete, else nothing."""

    def _content(self, text: str, outcome: Outcome) -> str:  # noqa: ARG002
        from smai_cli.output.extract import code_block  # for few runs

        block = code_block(text)
        if self._fit:
            block = self._fit(block)
        if self._fails_empty and not block.strip():
            raise empty_answer_error(len(block))
        return block
