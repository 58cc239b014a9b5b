"""The body of a request -> a connection, with an ear to what the server says before it has read it all.

A server that refuses a body answers at its head, as a rule, and reads no more: it resets the connection, or lets
the client wait for room for ever. RFC 9112, section 9.3, has the client look out for that while it sends.
"""

import contextlib
import io
import re
import select
import socket
import ssl
from typing import Any

_STATUS_BYTES = len(b"HTTP/1.1 413")
_CLASS_AT = len(b"HTTP/1.1 ")
# As much as is heard before the request goes out; a server that says more in this time is answering.
_HEARD_BYTES = 65536
# An interim answer, which says that the server goes on (RFC 9110, section 15.2); 101 is a final one.
_INTERIM = rb"HTTP/1\.\d 1(?!01)\d\d[^\n]*\n(?:[^\r\n][^\n]*\n)*\r?\n"  # compiled where it is needed
_NOT_YET = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Early:
    """What the server of one request says while the body is sent."""

    def __init__(self) -> None:
        self._heard = bytearray()
        self._listens = True
        self._replayed: _Replayed | None = None

    @property
    def has_more(self) -> bool:
        """Whether something was read behind the end of the answer, once that was reached."""
        return self._replayed is None or self._replayed.has_more

    def send(self, connection: socket.socket, block: Any, limit_s: float | None) -> None:
        """Send a block, waiting for room for `limit_s` at a time (None: for ever).

        Raises BrokenPipeError as soon as the server has answered or closed, as if it were only closed: urllib3 then
        reads the answer. Raises TimeoutError, or another OSError.
        """
        left = memoryview(block)
        connection.setblocking(False)
        try:
            self._wait(connection, 0.0)
            while left:
                try:
                    left = left[connection.send(left) :]
                except _NOT_YET:
                    if not self._wait(connection, limit_s):
                        raise TimeoutError("timed out") from None
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as exc:
            raise BrokenPipeError(*exc.args) from exc
        finally:
            connection.settimeout(limit_s)

    def response_from(self, connection: Any) -> Any:
        """Return what HTTPResponse takes for `connection`: what was heard comes first."""
        self._replayed = _Replayed(bytes(self._heard), connection)
        return self._replayed

    def _wait(self, connection: socket.socket, limit_s: float | None) -> bool:
        """Wait until there is room, or something to hear; return whether anything happened."""
        poller = select.poll()
        poller.register(connection, select.POLLOUT | (select.POLLIN if self._listens else 0))
        events = poller.poll(None if limit_s is None else limit_s * 1000)
        if self._listens and events and events[0][1] & select.POLLIN:
            self._hear(connection)
        return bool(events)

    def _hear(self, connection: socket.socket) -> None:
        """Take what is there. Of TLS that may be nothing: a ticket for the next session looks the same from outside."""
        with contextlib.suppress(*_NOT_YET):
            while self._listens:
                piece = connection.recv(4096)
                self._heard += piece
                if not piece or self._is_answered():
                    raise BrokenPipeError("the server has answered")

    def _is_answered(self) -> bool:
        """Return whether the server wants no more of the body. One that says 2xx may well go on to read."""
        while interim := re.match(_INTERIM, self._heard):
            del self._heard[: interim.end()]
        if len(self._heard) < _STATUS_BYTES:
            return False
        kind = self._heard[_CLASS_AT : _CLASS_AT + 1]
        self._listens = kind != b"2"
        is_interim = kind == b"1" and len(self._heard) < _HEARD_BYTES
        return self._listens and not is_interim


class _Replayed:
    """A connection to read an answer from, of which a part was read before; `has_more` as for Early."""

    def __init__(self, heard: bytes, connection: socket.socket) -> None:
        self._heard = heard
        self._connection = connection
        self._file: ResponseFile | None = None

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return the file that HTTPResponse reads."""
        self._file = ResponseFile(_Replay(self._heard, self._connection.makefile(mode, buffering=0)))  # type: ignore[call-overload]
        return self._file

    @property
    def has_more(self) -> bool:
        return self._file is None or self._file.has_more


class ResponseFile(io.BufferedReader):
    """What HTTPResponse reads, and closes at the end of the answer: then it knows whether it has read more."""

    has_more = True

    def __init__(self, replay: "_Replay") -> None:
        super().__init__(replay)
        self._replay = replay

    def buffered(self) -> bytes:
        """Return what was read ahead, which is still to be read, without waiting for anything."""
        self._replay.is_mute = True
        try:
            return self.peek(1)
        finally:
            self._replay.is_mute = False

    def close(self) -> None:
        """Close it, at the end of the answer."""
        if not self.closed:
            self.has_more = bool(self.buffered())
        super().close()


class _Replay(io.RawIOBase):
    """The bytes: those that were heard, then those of the connection, of which nothing more once it `is_mute`."""

    is_mute = False

    def __init__(self, heard: bytes, rest: io.RawIOBase) -> None:
        self._heard = heard
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if not self._heard:
            return None if self.is_mute else self._rest.readinto(buffer)
        piece, self._heard = self._heard[: len(buffer)], self._heard[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self._rest.close()
        super().close()
