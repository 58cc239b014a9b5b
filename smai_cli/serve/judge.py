"""Find out whether an answer that passes through the gateway is complete, for the lines of -v."""

from collections.abc import Iterator

from smai_cli.answer.chunk import Chunk, UnreadKind
from smai_cli.answer.outcome import Outcome
from smai_cli.apis import api_at
from smai_cli.common.clocks import IdleClock
from smai_cli.errors import SmaiError
from smai_cli.stream.pump import pump


def find_shortfall(pieces: Iterator[bytes], path: str, *, is_framed: bool) -> SmaiError | None:
    """Read an answer to its end; return what it lacks, as `smai ask --raw` would report it, or None if complete.

    `path` is that of the request. `is_framed` says whether the body marks its own end, as for pump.Source.
    """
    outcome = Outcome()
    dialect = api_at(path).load()
    pump(_PassingSource(pieces, is_framed=is_framed), dialect, _SilentWriter(), outcome)
    return outcome.error


class _PassingSource:
    """A source of pieces that the gateway passes in. Its clock is never checked."""

    def __init__(self, pieces: Iterator[bytes], *, is_framed: bool) -> None:
        self.clock = IdleClock()
        self.is_framed = is_framed
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        """Do nothing: the answer belongs to the gateway."""


class _SilentWriter:
    """A writer that writes nothing, and lets the answer be read to its last byte.

    The client gets every byte, so nothing is unread.
    """

    holds_back = False
    takes_all = True
    has_delivered = True
    needs: frozenset[UnreadKind] = frozenset()

    def begin(self) -> None:
        """Do nothing: there is one try."""

    def piece(self, data: bytes, /) -> None:
        """Ignore bytes."""

    def chunk(self, chunk: Chunk, /) -> None:
        """Ignore a chunk."""

    def end(self, outcome: Outcome, /) -> None:
        """Ignore the end."""
