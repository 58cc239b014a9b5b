"""The modes: what each makes of pieces, chunks and the end. One is chosen, by name, once."""

import io
from collections.abc import Callable

from smai_cli.answer.chunk import Chunk, Unread
from smai_cli.answer.outcome import TEXT_NEEDS, Outcome
from smai_cli.errors import BrokenError
from smai_cli.output.descriptors import FileOutput, Output


class Writer:
    """A mode. Its three hooks do nothing; a mode overrides what it needs.

    `holds_back` says that nothing is delivered before the answer is complete, so a broken one may be asked
    for again; `takes_all` that bytes after the end of the answer are wanted as well. `needs` are the kinds of parts
    that it has to deliver, so that an answer is a failure if one of them could not be read: text and media, the second
    of which text never delivers. Hooks raise what Output.write raises, and `end` also the SmaiError that a complete
    answer can be.
    """

    holds_back = False
    takes_all = False
    needs: frozenset[Unread] = TEXT_NEEDS

    def __init__(self, out: Output) -> None:
        self.out = out

    @property
    def has_delivered(self) -> bool:
        """Whether anything went to the output."""
        return self.out.written > 0

    def piece(self, data: bytes) -> None:
        """Take bytes of the body as they came from the network."""

    def chunk(self, chunk: Chunk) -> None:
        """Take one chunk; its text is whole code points."""

    def end(self, outcome: Outcome) -> None:
        """Take the end; `outcome.error` tells whether the answer is complete."""


class Text(Writer):
    """The text, one write a delta, and a newline at the end if the text lacks one."""

    def __init__(self, out: Output) -> None:
        super().__init__(out)
        self._last = ""

    def chunk(self, chunk: Chunk) -> None:
        """Write the delta at once."""
        if chunk.text:
            self._last = chunk.text
            self.out.show(chunk.text.encode())

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

    def chunk(self, chunk: Chunk) -> None:
        """Keep the delta."""
        self._text.write(chunk.text)

    def end(self, outcome: Outcome) -> None:
        """Write the text of a complete answer; forget that of a broken one, which may be asked for again."""
        text = self._text.getvalue()
        self._text = io.StringIO()
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


WRITERS: dict[str, type[Writer]] = {"text": Text, "raw": Raw, "jsonl": Jsonl, "final": Final}
