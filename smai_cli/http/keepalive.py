"""What lives on between the requests of one worker: the connection, its TLS, and what a request has to say again.

    keep_alive = KeepAlive()
    for body in bodies:
        pump.ask(..., lambda body: transport.post(endpoint, path, body, clocks, keep_alive=keep_alive), ...)
    keep_alive.close()

One exchange at a time; each worker, which is a thread, has its own. A request goes out on the connection of the one
before it if the answer to that was read to its end, nothing came behind the end, and the server has not closed it
(RFC 9112, section 9.3). Otherwise there is a new connection, and nobody hears of it. An exchange that was cancelled,
ran out of time or broke leaves nothing behind.

A worker holds two descriptors, while it asks and between two requests: its connection, and the second one by which a
Cancellation ends it. While a name is looked up the system opens a few more for a moment.

What is left is the race of every client: a request that crosses the server's close on its way fails as any that was
dropped without an answer. It may have been billed, and is not sent twice (RFC 9110, section 9.2.2).
"""

import queue
import threading
import time
from collections.abc import Callable

from urllib3.util import wait_for_read

from smai_cli.common.clocks import HURRY_S
from smai_cli.http.preconnect import Preconnect
from smai_cli.http.sending import Sending
from smai_cli.http.session import KeptSession
from smai_cli.http.tcp import Cancellation

# uvicorn (its --timeout-keep-alive) and node close a connection that was idle for 5 s, and a request that crosses the
# close on its way is lost, or was served: nobody can tell (psf/requests#4937, aio-libs/aiohttp#9138).
_IDLE_S = 4.0
# A server that closes after each answer without saying so does it by then. Only before it is known to keep them open.
_CLOSES_S = 0.05
# As long as it takes to read what has already come.
_NO_TIME_S = 0.02


class KeepAlive:
    """The session of one worker, the connection in it that is idle, and a thread; made without any I/O.

    `drain_s` is how long the rest of an answer that nobody wants any more is waited for: hardly at all for a server
    that keeps the body open behind the end of the answer.
    """

    def __init__(self) -> None:
        self.drain_s = HURRY_S
        self._idle: _Idle | None = None
        self._is_proven = False
        self._lock = threading.Lock()
        self._thread: _Thread | None = None

    def start(self, work: Callable[[], None]) -> "Job":
        """Have `work` done on the thread that all exchanges share; on a new one while another is stuck on it."""
        if self._thread is None or not self._thread.is_idle:
            self._end_thread()
            self._thread = _Thread()
        return self._thread.start(work)

    def acquire(
        self, origin: str, ca_file: str | None, sending: Sending, preconnect: Preconnect | None
    ) -> "KeptSession":
        """Return the session for the next exchange, with what is idle: to be given back by `release`, or never.

        `origin` and `ca_file` are those of the server: a connection serves no other. The exchange is `sending`, and
        `preconnect` may hold the first connection. Raises OSError where the exchange was cancelled.
        """
        idle = self._taken()
        if idle and idle.session.serves != (origin, ca_file):
            idle.drop()
            idle = None
        if idle is None:
            return KeptSession((origin, ca_file), sending, preconnect)
        wait_s, self._is_proven = (0.0 if self._is_proven else _CLOSES_S), False
        if not idle.can_be_used(wait_s):
            idle.drop()
        idle.session.current.sending = sending
        sending.connections[:] = idle.connections
        sending.cancellation.adopt(idle.cancellation)
        idle.session.is_used_again = any(connection.sock for connection in idle.connections)
        return idle.session

    def release(self, session: "KeptSession", sending: Sending) -> bool:
        """Keep what the exchange was on for the next one, if that can be; return whether it is kept.

        The exchange is over by now, its answer read to the end, and cannot end what it no longer has.
        """
        if not sending.is_sent:
            return False
        idle = _Idle(session, sending)
        if sending.cancellation.is_cancelled:  # after the answer had ended
            idle.drop()
            return False
        if not all(connection.is_reusable for connection in idle.connections):
            idle.drop()
        sending.connections.clear()
        self._is_proven = session.is_used_again and not idle.is_dropped
        with self._lock:
            self._idle = idle
        return True

    def drains(self, *, in_time: bool) -> None:
        """Hear whether the end of an answer came soon after all that was wanted of it."""
        self.drain_s = HURRY_S if in_time else _NO_TIME_S

    def close(self) -> None:
        """Let go of the connection and of the thread. The next exchange would have new ones."""
        if idle := self._taken():
            idle.drop()
        self._end_thread()

    def _taken(self) -> "_Idle | None":
        with self._lock:
            idle, self._idle = self._idle, None
        return idle

    def _end_thread(self) -> None:
        if self._thread:
            self._thread.end()
        self._thread = None


class _Idle:
    """A session between two exchanges, with its connections (one, as a rule), and what they are watched by."""

    def __init__(self, session: "KeptSession", sending: Sending) -> None:
        self.session = session
        self.connections = list(sending.connections)
        self.cancellation = Cancellation()
        self.cancellation.adopt(sending.cancellation)
        self.is_dropped = False
        self._since_s = time.monotonic()

    def can_be_used(self, wait_s: float) -> bool:
        """Return whether the server has kept the connections open, and silent, until now and `wait_s` from now."""
        is_fresh = time.monotonic() - self._since_s < _IDLE_S
        open_ones = [connection.sock for connection in self.connections if connection.sock]
        return is_fresh and not any(wait_for_read(one, wait_s) for one in open_ones)

    def drop(self) -> None:
        """Close the connections; they connect anew where they are used again."""
        self.is_dropped = True
        for connection in self.connections:
            connection.close()
        self.cancellation.cancel()
        self.cancellation = Cancellation()


class Job:
    """Work on the thread that is called `ident`; to be waited for as a thread is."""

    def __init__(self, work: Callable[[], None], ident: int | None) -> None:
        self.ident = ident
        self._work: Callable[[], None] | None = work
        self._over = threading.Event()

    @property
    def is_over(self) -> bool:
        """Whether it is done."""
        return self._over.is_set()

    def run(self) -> None:
        """Do it, once."""
        work, self._work = self._work, None  # it may hold this
        try:
            if work:
                work()
        finally:
            self._over.set()

    def join(self, timeout: float) -> None:
        """Wait until it is done, for at most so many seconds."""
        self._over.wait(timeout)


class _Thread:
    """A thread that does one job after the other: to start one costs three times as much as to wake it."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._last: Job | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def is_idle(self) -> bool:
        return self._last is None or self._last.is_over

    def start(self, work: Callable[[], None]) -> Job:
        self._last = Job(work, self._thread.ident)
        self._jobs.put(self._last)
        return self._last

    def end(self) -> None:
        """Have it end, and wait for that unless it is stuck."""
        self._jobs.put(None)
        if self.is_idle:
            self._thread.join()

    def _run(self) -> None:
        while job := self._jobs.get():
            job.run()
