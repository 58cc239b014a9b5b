"""The body of an answer: pieces of bytes, each as soon as it arrives."""

from collections.abc import Iterator
from typing import Any, Protocol

from smai_cli.common.clocks import IdleClock


class PieceSource(Protocol):
    """The exchange that a body belongs to."""

    clock: IdleClock

    def read(self) -> bytes:
        """Return the next piece as soon as it arrives; empty at the end of the body."""

    def trace(self, what: str, /) -> None:
        """Print an event."""

    def close(self) -> None:
        """Release the connection and the thread."""


class ResponseBody:
    """The body of an answer. Iterating yields pieces of at most PIECE_BYTES, each as soon as it arrives.

    `status` is the HTTP status: a success, unless the exchange `takes_any`.
    """

    def __init__(self, raw: Any, exchange: PieceSource) -> None:
        self.clock = exchange.clock
        self.status: int = raw.status
        self._raw = raw
        self._exchange = exchange

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces, with content encoding removed. Raises ClockError (idle) or BrokenError.

        The connection is closed at the end, on a failure, and when the iteration is abandoned.
        """
        try:
            while piece := self._exchange.read():
                yield piece
            self._exchange.trace("end of the body")
        finally:
            self.close()

    @property
    def is_framed(self) -> bool:
        """Whether HTTP marks the end of the body (RFC 9112, section 6.3), so that reading a cut body raises."""
        return bool(self._raw.chunked) or self._raw.length_remaining is not None

    def header(self, name: str) -> str | None:
        """Return a header of the answer; None without it."""
        value: str | None = self._raw.headers.get(name)
        return value

    def close(self) -> None:
        """Release the connection and the thread, from any thread; a read that waits fails with BrokenError."""
        self._exchange.close()
