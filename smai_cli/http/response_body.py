"""The body of an answer: pieces of bytes, each as soon as it is there."""

from collections.abc import Iterator
from typing import Any, Protocol

from smai_cli.common.clocks import IdleClock


class PieceSource(Protocol):
    """The exchange that a body belongs to."""

    clock: IdleClock

    def read(self) -> bytes:
        """Return the next piece as soon as it is there; none at the end of the body."""

    def trace(self, what: str, /) -> None:
        """Print what happens."""

    def close(self) -> None:
        """Let go of the connection and of the thread."""


class ResponseBody:
    """The body of a 200 answer. Iterating yields pieces of at most PIECE_BYTES, each as soon as it is there.

    `status` is that of HTTP, another one only where the exchange `takes_any`.
    """

    def __init__(self, raw: Any, exchange: PieceSource) -> None:
        self.clock = exchange.clock
        self.status: int = raw.status
        self._raw = raw
        self._exchange = exchange

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces, content encoding undone. Raises ClockError (idle) or BrokenError.

        Where it ends, or breaks, or is left, the connection is closed.
        """
        try:
            while piece := self._exchange.read():
                yield piece
            self._exchange.trace("end of the body")
        finally:
            self.close()

    @property
    def is_framed(self) -> bool:
        """Whether the body has an end of its own (RFC 9112, section 6.3), so that one that was cut raises."""
        return bool(self._raw.chunked) or self._raw.length_remaining is not None

    def header(self, name: str) -> str | None:
        """Return a header of the answer; None without it."""
        value: str | None = self._raw.headers.get(name)
        return value

    def close(self) -> None:
        """Let go of the connection and of the thread, from any thread; a read that waits fails with BrokenError."""
        self._exchange.close()
