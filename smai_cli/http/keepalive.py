"""What the requests of one worker share: the connection, its TLS, and the settings of a request.

Each worker, which is a thread, has its own, for one exchange at a time. A request uses the connection of the previous
one if that answer was read to its end, nothing came after the end, and the server has not closed the connection
(RFC 9112, section 9.3). Otherwise it silently gets a new connection.

A worker holds two descriptors, during and between requests: its connection, and a duplicate with which a Cancellation
ends it. While a name is looked up, the system briefly opens a few more.

A race remains, as in every client: a request that is sent while the server closes the connection fails like any other
that was dropped without an answer. It may have been billed, and is not sent twice (RFC 9110, section 9.2.2).
"""

import threading
import time

from urllib3.util import wait_for_read

from smai_cli.common.clocks import HURRY_S
from smai_cli.http.preconnect import Preconnect
from smai_cli.http.progress import Progress
from smai_cli.http.session import Session
from smai_cli.http.tcp import Cancellation

# uvicorn (its --timeout-keep-alive) and node close a connection that was idle for 5 s. Whether a request that is sent
# at that moment was served is unknown (psf/requests#4937, aio-libs/aiohttp#9138).
_IDLE_S = 4.0
# How long a server that silently closes after each answer takes to do so. Waited for until it has kept one open.
_CLOSES_S = 0.05
# Long enough to read what has already arrived.
_NO_TIME_S = 0.02


class KeepAlive:
    """The session of one worker, and its idle connection. Creating it does no I/O.

    `drain_s` is how many seconds an exchange waits for the unneeded rest of an answer: hardly any if the server keeps
    the body open after the end of the answer.
    """

    def __init__(self) -> None:
        self.drain_s = HURRY_S
        self._idle: _IdleSession | None = None
        self._is_proven = False
        self._lock = threading.Lock()

    def acquire(self, origin: str, ca_file: str | None, progress: Progress, preconnect: Preconnect | None) -> "Session":
        """Return the session for the next exchange, with the idle connection if it can be used.

        `origin` and `ca_file` identify the server: a connection is used for no other. The exchange is `progress`, and
        `preconnect` may have the first connection. `release` gives the session back. Raises OSError if the exchange
        was cancelled.
        """
        idle = self._take_idle()
        if idle and idle.session.server != (origin, ca_file):
            idle.drop()
            idle = None
        if idle is None:
            return Session((origin, ca_file), progress, preconnect)
        wait_s, self._is_proven = (0.0 if self._is_proven else _CLOSES_S), False
        if not idle.can_be_used(wait_s):
            idle.drop()
        idle.session.current.progress = progress
        progress.connections[:] = idle.connections
        progress.cancellation.adopt(idle.cancellation)
        idle.session.is_used_again = any(connection.sock for connection in idle.connections)
        return idle.session

    def release(self, session: "Session", progress: Progress) -> bool:
        """Keep the session for the next exchange, with its connection if that can be used; return whether it is kept.

        The answer must have been read to its end. After this, the exchange can no longer cancel the connection.
        """
        if not progress.is_sent:
            return False
        idle = _IdleSession(session, progress)
        if progress.cancellation.is_cancelled:  # after the answer had ended
            idle.drop()
            return False
        if not all(connection.is_reusable for connection in idle.connections):
            idle.drop()
        progress.connections.clear()
        self._is_proven = session.is_used_again and not idle.is_dropped
        with self._lock:
            self._idle = idle
        return True

    def record_drain(self, *, in_time: bool) -> None:
        """Set `drain_s`: `in_time` says whether the rest of an answer arrived quickly."""
        self.drain_s = HURRY_S if in_time else _NO_TIME_S

    def close(self) -> None:
        """Close the connection. Another exchange would get a new one."""
        if idle := self._take_idle():
            idle.drop()

    def _take_idle(self) -> "_IdleSession | None":
        with self._lock:
            idle, self._idle = self._idle, None
        return idle


class _IdleSession:
    """A session between two exchanges, with its connections (usually one) and their Cancellation."""

    def __init__(self, session: "Session", progress: Progress) -> None:
        self.session = session
        self.connections = list(progress.connections)
        self.cancellation = Cancellation()
        self.cancellation.adopt(progress.cancellation)
        self.is_dropped = False
        self._since_s = time.monotonic()

    def can_be_used(self, wait_s: float) -> bool:
        """Return whether the connections are still open and silent, now and after `wait_s`."""
        is_fresh = time.monotonic() - self._since_s < _IDLE_S
        open_ones = [connection.sock for connection in self.connections if connection.sock]
        return is_fresh and not any(wait_for_read(one, wait_s) for one in open_ones)

    def drop(self) -> None:
        """Close the connections; they reconnect if they are used again."""
        self.is_dropped = True
        for connection in self.connections:
            connection.close()
        self.cancellation.cancel()
        self.cancellation = Cancellation()
