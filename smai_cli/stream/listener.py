"""What receives an answer as it arrives."""

from smai_cli.answer.chunk import Chunk, UnreadKind
from smai_cli.answer.outcome import Outcome


class Listener:
    """Receives an answer as it arrives. What a subclass does not define delivers nothing and does nothing.

    `holds_back`: it delivers nothing before the answer is complete, so that a broken answer can be requested again.
    `takes_all`: it also needs the bytes after the end of the answer. `needs` are the kinds of parts that it must
    deliver; if one of them could not be parsed, the answer is a failure. Its methods may raise OutputError; `end` also
    raises a SmaiError if a complete answer is a failure.
    """

    holds_back = True
    takes_all = False
    needs: frozenset[UnreadKind] = frozenset()

    @property
    def has_delivered(self) -> bool:
        """Whether any part of the answer went to an output."""
        return False

    def begin(self) -> None:
        """Begin an answer; discard the previous try."""

    def piece(self, data: bytes, /) -> None:
        """Receive bytes of the body, unchanged."""

    def chunk(self, chunk: Chunk, /) -> None:
        """Receive one chunk; its text has only complete code points."""

    def end(self, outcome: Outcome, /) -> None:
        """Receive the end; `outcome.error` is None if the answer is complete."""
