"""The head and the body of an answer, read by http.client, but more strictly."""

import http
import http.client
import io
import math
import re
import socket
import ssl
from typing import Any

from urllib3.util import wait_for_read

from smai_cli.common.text import one_line
from smai_cli.http.progress import Progress
from smai_cli.http.tcp import limit_waits

_HTTP_1_1 = 11
# The end of a chunk, and the size of the next one, which is not the last (RFC 9112, section 7.1); its data follows.
_NEXT_SIZE = rb"(?s)\r\n(0*[1-9A-Fa-f][0-9A-Fa-f]{0,8})\r\n(?=.)"  # compiled where it is needed
_LONGEST_LENGTH = 18  # digits


class ResponseStream(io.RawIOBase):
    """The bytes that were already read, then those of the connection, unless `is_buffer_only` is set.

    The clock of `progress`, if it has one, limits the waits.
    """

    is_buffer_only = False

    def __init__(self, received: bytes, connection: socket.socket, progress: Progress) -> None:
        self._received = received
        self._progress = progress
        self._connection = connection
        self._limit_s = math.inf
        self._rest = connection.makefile("rb", buffering=0)  # keeps the connection open until `close`

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return the file that HTTPResponse reads: it takes this stream for the connection."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """Return True: a BufferedReader asks."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read into `buffer` and return how many bytes; None if there are none without the connection.

        Raises ClockError.
        """
        if not self._received:
            return None if self.is_buffer_only else self._receive(buffer)
        piece, self._received = self._received[: len(buffer)], self._received[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        """Close it, at the end of the answer."""
        self._rest.close()
        super().close()

    def _receive(self, buffer: Any) -> int:
        while True:
            wait_s = self._progress.next_wait_s()
            if wait_s != self._limit_s:
                self._limit_s = wait_s
                self._limit_waits(wait_s)
            try:
                return self._connection.recv_into(buffer)  # not from `_rest`: after a timeout it reads no more
            except TimeoutError:
                continue
            except ssl.SSLWantReadError:
                wait_for_read(self._connection, wait_s)

    def _limit_waits(self, limit_s: float) -> None:
        if isinstance(self._connection, socket.socket) or limit_s == math.inf:
            limit_waits(self._connection, limit_s)
        else:  # TLS within TLS: urllib3 would restart the limit with each part of a record
            self._connection.settimeout(0.0)


class Response(http.client.HTTPResponse):
    """The final response: interim ones, such as 103 Early Hints, are skipped (RFC 9110, section 15.2).

    http.client skips 100 only, and takes any other for an empty answer. It also ignores lengths that contradict each
    other or are not numbers; here they go into `progress.malformed`.
    """

    progress: Progress
    # Whether its end is certain, so that the next answer can follow it.
    is_framed_well = False
    # Whether bytes after its end were read, or the end was not reached.
    has_more = True
    _is_coded = False

    def __init__(self, stream: ResponseStream, *args: Any, **kwargs: Any) -> None:
        super().__init__(stream, *args, **kwargs)  # type: ignore[arg-type]
        self._stream = stream

    def begin(self) -> None:
        """Read heads until the final one."""
        super().begin()
        while http.HTTPStatus.SWITCHING_PROTOCOLS < self.status < http.HTTPStatus.OK:
            # The same as for the first line: without headers, begin reads a status and headers.
            self.headers = self.msg = None  # type: ignore[assignment]
            super().begin()
        self._is_coded = "content-encoding" in self.headers
        lengths = self.headers.get_all("content-length")
        # With both headers, or with HTTP/1.0, the end is not reliable (RFC 9112, sections 6.1 and 6.3).
        self.is_framed_well = self.version == _HTTP_1_1 and bool(lengths) != ("transfer-encoding" in self.headers)
        if not self.chunked and lengths:
            self._check(lengths)

    def read1(self, n: int = -1) -> bytes:
        """Return what has arrived, at most `n` bytes, in as many chunks as there are."""
        piece = super().read1(n)
        # With a content coding, decoding may fail in the next chunk, and must not lose the ones before it.
        if not piece or not self.chunked or self.chunk_left or self._is_coded:
            return piece
        return piece + self._buffered_chunks(n - len(piece))

    def _buffered_chunks(self, most: int) -> bytes:
        """Return what is buffered of the next chunks, at most `most` bytes, without waiting.

        http.client needs four times as long to read small chunks one by one.
        """
        match_size = re.compile(_NEXT_SIZE).match
        buffered = self._buffered()[: max(0, most)]
        parts = []
        end = 0
        while size := match_size(buffered, end):
            start = size.end()
            end = start + int(size[1], 16)
            parts.append(buffered[start:end])
        self.chunk_left = max(0, end - len(buffered))
        self.fp.read(end - self.chunk_left)
        return b"".join(parts)

    def _buffered(self) -> bytes:
        """Return the bytes that are buffered but not yet consumed, without waiting."""
        self._stream.is_buffer_only = True
        try:
            return self.fp.peek(1)
        finally:
            self._stream.is_buffer_only = False

    def _close_conn(self) -> None:
        self.has_more = bool(self._buffered())
        super()._close_conn()  # type: ignore[misc]

    def _check(self, lengths: list[str]) -> None:
        """Drop an invalid Content-Length (RFC 9112, section 6.3), so that an HTTP error keeps its status."""
        found = list(dict.fromkeys(length.strip() for field in lengths for length in field.split(",")))
        wrong = [length for length in found if not _is_length(length)]
        if wrong:
            self.progress.malformed = f"a length that is not a number: {one_line(wrong[0], 40)}"
        elif len(found) > 1:
            self.progress.malformed = f"two lengths: {found[0]} and {found[1]}"
        else:
            return
        del self.headers["content-length"]
        self.length = None

    def _read_next_chunk_size(self) -> int:
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]
        if size < 0:  # http.client accepts it
            raise http.client.HTTPException(f"it is malformed HTTP: a chunk of {size} bytes")
        return size


def _is_length(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _LONGEST_LENGTH
