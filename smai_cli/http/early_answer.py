"""Send the body of a request, and watch for an answer that the server sends before it has read the whole body.

A server that refuses a request may answer after the head and read no more. RFC 9112, section 9.3, asks clients to
monitor the connection while they send.
"""

import contextlib
import math
import re
import select
import socket
import ssl
from typing import Any

from smai_cli.http.progress import Progress

_STATUS_BYTES = len(b"HTTP/1.1 413")
_CLASS_AT = len(b"HTTP/1.1 ")
# Limit on interim answers while the body is sent; a server that sends more is answering.
_INTERIM_LIMIT_BYTES = 65536
# An interim answer, which says that the server goes on (RFC 9110, section 15.2); 101 is a final one.
_INTERIM = rb"HTTP/1\.\d 1(?!01)\d\d[^\n]*\n(?:[^\r\n][^\n]*\n)*\r?\n"  # compiled where it is needed
_NOT_YET = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class EarlyAnswer:
    """The part of an answer that arrives while the body of its request is sent: `received`.

    The clock of `progress`, if it has one, limits the waits. The socket becomes non-blocking; urllib3 sets a timeout
    before it reads the answer.
    """

    def __init__(self, connection: socket.socket, progress: Progress) -> None:
        self.received = bytearray()
        self._connection = connection
        self._progress = progress
        self._is_listening = True
        connection.setblocking(False)

    def send(self, block: Any, limit_s: float | None) -> None:
        """Send a block; each wait until the socket can be written takes at most `limit_s` (None: no limit).

        Raises BrokenPipeError as soon as the server has answered or closed the connection: urllib3 then reads the
        answer. Raises ClockError, TimeoutError, or another OSError.
        """
        left = memoryview(block)
        try:
            self._wait(0.0)
            while left:
                try:
                    left = left[self._connection.send(left) :]
                except _NOT_YET:
                    if not self._wait(limit_s):
                        raise TimeoutError("timed out") from None
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as exc:
            raise BrokenPipeError(*exc.args) from exc

    def _wait(self, limit_s: float | None) -> bool:
        """Wait until the socket can be written, or read; return False if neither happened within `limit_s`."""
        poller = select.poll()
        poller.register(self._connection, select.POLLOUT | (select.POLLIN if self._is_listening else 0))
        left_s = math.inf if limit_s is None else limit_s
        while True:
            wait_s = min(left_s, self._progress.next_wait_s())
            if events := poller.poll(None if wait_s == math.inf else wait_s * 1000):
                if self._is_listening and events[0][1] & select.POLLIN:
                    self._receive()
                return True
            left_s -= wait_s
            if left_s <= 0:
                return False

    def _receive(self) -> None:
        """Read what has arrived. With TLS that may be nothing: the socket is also readable for a session ticket."""
        with contextlib.suppress(*_NOT_YET):
            while self._is_listening:
                piece = self._connection.recv(4096)
                self.received += piece
                if not piece or self._is_answered():
                    raise BrokenPipeError("the server has answered")

    def _is_answered(self) -> bool:
        """Return whether the server has answered, and wants no more of the body. After a 2xx it may go on to read."""
        while interim := re.match(_INTERIM, self.received):
            del self.received[: interim.end()]
        if len(self.received) < _STATUS_BYTES:
            return False
        kind = self.received[_CLASS_AT : _CLASS_AT + 1]
        self._is_listening = kind != b"2"
        is_interim = kind == b"1" and len(self.received) < _INTERIM_LIMIT_BYTES
        return self._is_listening and not is_interim
