"""What takes an answer as it comes: the modes, of which a run has one, and the list of all that take it."""

import io
from collections.abc import Callable, Sequence

from smai_cli.answer.chunk import Chunk, Unread
from smai_cli.answer.outcome import TEXT_NEEDS, Outcome
from smai_cli.errors import BrokenError
from smai_cli.output.descriptors import FileOutput, Output


class Listener:
    """What takes an answer as it comes, and delivers nothing itself. Its four hooks do nothing.

    `holds_back` says that nothing is delivered before the answer is complete, so that a broken one may be asked for
    again; `takes_all` that bytes after the end of the answer are wanted as well. `needs` are the kinds of parts that it
    has to deliver, so that an answer is a failure if one of them could not be read. Hooks raise what Output.write
    raises, and `end` also the SmaiError that a complete answer can be.
    """

    holds_back = True
    takes_all = False
    needs: frozenset[Unread] = frozenset()

    @property
    def has_delivered(self) -> bool:
        """Whether anything went to an output."""
        return False

    def begin(self) -> None:
        """Forget the try before, if there was one: another answer begins."""

    def piece(self, data: bytes) -> None:
        """Take bytes of the body as they came from the network."""

    def chunk(self, chunk: Chunk) -> None:
        """Take one chunk; its text is whole code points."""

    def end(self, outcome: Outcome) -> None:
        """Take the end; `outcome.error` says whether the answer is complete."""


class Writers(Listener):
    """Several listeners, each of which has all of a piece or a chunk before the next one has any of it."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self.holds_back = all(one.holds_back for one in listeners)
        self.takes_all = any(one.takes_all for one in listeners)
        self.needs = frozenset[Unread]().union(*(one.needs for one in listeners))
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
    """A mode, which delivers to `out`; it needs the text, and media, which a mode of text cannot deliver."""

    holds_back = False
    needs = TEXT_NEEDS

    def __init__(self, out: Output) -> None:
        self.out = out

    @property
    def has_delivered(self) -> bool:
        """Whether anything went to the output."""
        return self.out.written > 0


class Text(Writer):
    """The text, one write a delta, and a newline at the end if the text lacks one."""

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
        """Finish the line, so that a message or a prompt begins on its own."""
        if self._last and not self._last.endswith("\n"):
            self.out.write(b"\n")


class Raw(Writer):
    """The body, byte for byte as received, one write a network read: nothing of it is unread."""

    takes_all = True
    needs = frozenset()

    def piece(self, data: bytes) -> None:
        """Write the bytes at once."""
        self.out.write(data)


class Jsonl(Writer):
    """Each event's JSON on one line, one write an event: nothing of it is unread."""

    needs = frozenset()

    def chunk(self, chunk: Chunk) -> None:
        """Write the line at once; `[DONE]` is no JSON and has none."""
        if chunk.data:
            self.out.write(f"{chunk.data}\n".encode())


class Final(Writer):
    """The whole text in one write, when it is complete; nothing otherwise.

    `fit` returns the text to deliver, or raises BrokenError for one that is not what was asked for, which is then not
    written either.
    """

    holds_back = True

    def __init__(self, out: Output, fit: Callable[[str], str] | None = None) -> None:
        super().__init__(out)
        self._fit = fit
        self._text = io.StringIO()

    def begin(self) -> None:
        """Forget the text of a broken answer."""
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

    def _keep(self, text: str, error: BrokenError) -> BrokenError:  # noqa: ARG002  # a file keeps it
        """Keep a text that is not what was asked for; return `error`, which says where. Stdout gets nothing."""
        return error

    def _write(self, text: str) -> None:
        self.out.show((text if text.endswith("\n") else text + "\n").encode())


class FinalFile(Final):
    """As Final, into the file of `--output`: one that is not what was asked for stays in the file with .partial."""

    def __init__(self, out: FileOutput, fit: Callable[[str], str] | None = None) -> None:
        super().__init__(out, fit)
        self._name = out.name

    def _keep(self, text: str, error: BrokenError) -> BrokenError:
        if not text:
            return error
        self._write(text)
        return error.replaced(hint=f"{error.hint}; it is in {self._name}")
