"""The open connections of the gateway, with a limit that clients without the token cannot use up."""

import contextlib
import socket
import threading
from collections.abc import Iterator


class Connections:
    """At most `limit` connections, for use from several threads.

    A connection that has not shown the token yet, or that waits for its next request, makes way for a new one. So
    another user of the machine can open as many as they like, and the page still loads.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._waiting: dict[socket.socket, None] = {}  # a set in order, the one that waits longest first
        self._busy: set[socket.socket] = set()

    def add(self, connection: socket.socket) -> bool:
        """Add a new connection, and end the one that waits longest if there are too many.

        Returns False if all the others are busy: then the new one is not added.
        """
        with self._lock:
            if len(self._waiting) + len(self._busy) >= self._limit:
                if not self._waiting:
                    return False
                longest = next(iter(self._waiting))
                del self._waiting[longest]
                _shut_down(longest)
            self._waiting[connection] = None
            return True

    def remove(self, connection: socket.socket) -> None:
        """Forget a connection that is about to be closed."""
        with self._lock:
            self._waiting.pop(connection, None)
            self._busy.discard(connection)

    @contextlib.contextmanager
    def busy(self, connection: socket.socket) -> Iterator[None]:
        """Keep `connection` open while a request with the token is answered on it."""
        with self._lock:
            if connection in self._waiting:
                del self._waiting[connection]
                self._busy.add(connection)
        try:
            yield
        finally:
            with self._lock:
                if connection in self._busy:
                    self._busy.remove(connection)
                    self._waiting[connection] = None

    def shut_down(self) -> None:
        """End every connection; the thread of each closes it."""
        with self._lock:
            for connection in (*self._waiting, *self._busy):
                _shut_down(connection)


def _shut_down(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
