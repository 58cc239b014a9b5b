"""Write the body of an answer: in chunks if the client supports them, in pieces of a fixed size if required."""

from collections.abc import Callable


class Body:
    """The body of one answer. `write` sends bytes at once, each call by itself, and raises OSError.

    `split_bytes` cuts the body into pieces of that size; each is a separate write, and a separate chunk. `pause` is
    called before each piece but the first. With `buffers`, nothing is sent before the end, or before a cut.
    """

    def __init__(
        self,
        write: Callable[[bytes], object],
        *,
        chunked: bool,
        buffers: bool = False,
        split_bytes: int | None = None,
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        self._write, self._pause = write, pause
        self._chunked = chunked
        self._buffers = buffers
        self._split_bytes = split_bytes
        self._waiting = bytearray()
        self._begun = False

    def send(self, data: bytes) -> None:
        """Send `data`; with `split_bytes`, only full pieces, and keep the rest."""
        self._waiting += data
        if not self._buffers:
            self._send_full_pieces()

    def end(self) -> None:
        """Send the rest, and the end of the body."""
        self._send_full_pieces()
        if self._waiting:
            self._send_piece(bytes(self._waiting))
        if self._chunked:
            self._write(b"0\r\n\r\n")

    def cut(self, data: bytes) -> None:
        """Send half of `data` in a chunk that never ends, so that it cannot look complete."""
        self._send_full_pieces()
        self._waiting += data[: len(data) // 2]
        if self._split_bytes is not None:
            self._send_full_pieces()
        half = bytes(self._waiting)
        missing = max(1, len(data) - len(data) // 2)
        self._write(b"%x\r\n%s" % (len(half) + missing, half) if self._chunked else half)

    def _send_full_pieces(self) -> None:
        size = self._split_bytes or len(self._waiting)
        while 0 < size <= len(self._waiting):
            piece = bytes(self._waiting[:size])
            del self._waiting[:size]
            self._send_piece(piece)

    def _send_piece(self, data: bytes) -> None:
        if self._begun:
            self._pause()
        self._begun = True
        self._write(b"%x\r\n%s\r\n" % (len(data), data) if self._chunked else data)
