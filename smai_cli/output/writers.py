"""The modes, of which a run has one, and the list of all listeners."""

import io
from collections.abc import Callable, Sequence

from smai_cli.answer.chunk import Chunk, UnreadKind
from smai_cli.answer.outcome import TEXT_NEEDS, Outcome
from smai_cli.errors import BrokenError
from smai_cli.output.descriptors import FileOutput, Output
from smai_cli.stream.listener import Listener


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
    """A mode, which delivers to `out`. It needs text; media are a failure, because it cannot deliver them."""

    holds_back = False
    needs = TEXT_NEEDS

    def __init__(self, out: Output) -> None:
        self.out = out

    @property
    def has_delivered(self) -> bool:
        """Whether anything went to the output."""
        return self.out.written > 0


class Text(Writer):
    """Writes the text, one write per delta, and a newline at the end if the text lacks one."""

    def __init__(self, out: Output) -> None:
        super().__init__(out)
        # Chosen once, and not for each delta, which costs 2 % of a burst (tests/benchmarks/bench.py).
        self._deliver = out.show if out.is_terminal else out.write
        self._last = ""

    def begin(self) -> None:
        """Begin a line."""
        self._last = ""

    def chunk(self, chunk: Chunk) -> None:
        """Write the delta at once."""
        if chunk.text:
            self._last = chunk.text
            self._deliver(chunk.text.encode())

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
    """Writes the text at once when the answer is complete, else nothing.

    `fit` returns the text to deliver, or raises BrokenError if it does not fit the request; it is then not written.
    """

    holds_back = True

    def __init__(self, out: Output, fit: Callable[[str], str] | None = None) -> None:
        super().__init__(out)
        self._fit = fit
        self._text = io.StringIO()

    def begin(self) -> None:
        """Discard the text of a broken answer."""
        self._text = io.StringIO()

    def chunk(self, chunk: Chunk) -> None:
        """Keep the delta."""
        self._text.write(chunk.text)

    def end(self, outcome: Outcome) -> None:
        """Write the text of a complete answer."""
        text = self._text.getvalue()
        if outcome.error is None and self._fit and not outcome.calls:  # a tool call is not text
            try:
                text = self._fit(text)
            except BrokenError as error:
                raise self._keep(text, error) from error.__cause__
        if text and outcome.error is None:
            self._write(text)

    def _keep(self, text: str, error: BrokenError) -> BrokenError:  # noqa: ARG002  # FinalFile keeps it
        """Handle a text that does not fit the request; return `error`. Stdout gets nothing."""
        return error

    def _write(self, text: str) -> None:
        self.out.show((text if text.endswith("\n") else text + "\n").encode())


class FinalFile(Final):
    """As Final, for the file of `--output`: a text that does not fit the request stays in the partial file."""

    def __init__(self, out: FileOutput, fit: Callable[[str], str] | None = None) -> None:
        super().__init__(out, fit)
        self._name = out.name

    def _keep(self, text: str, error: BrokenError) -> BrokenError:
        if not text:
            return error
        self._write(text)
        return error.replaced(what=str(error), hint=f"it is in {self._name}")
