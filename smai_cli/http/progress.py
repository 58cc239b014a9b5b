"""The progress of a request: the thread that sends it reports to the thread that waits."""

import io
import math
import threading
from collections.abc import Callable
from typing import Any

from smai_cli.common.clocks import IdleClock
from smai_cli.common.trace import Trace, silent
from smai_cli.http.tcp import Cancellation


class Progress:
    """The progress of a request: the thread that sends it reports it, the thread that waits may cancel it.

    `connected` says that the connection is made and the head is sent: from then on the server may have the request.
    `report` is called at each step. `title` describes the request in the `trace`, which `is_traced` says is printed;
    `has_no_body` is true for a GET. `connect_end_s`, on the monotonic clock, is the deadline for the connection.
    `is_at_proxy` says that a proxy is asked for the connection, `is_forwarded` that a proxy gets the request itself.
    `is_sent` says that the entire request was sent, `malformed` is what is wrong with the head of the answer, or empty.
    `clock` limits the waits of the thread that sends and reads; None if another thread waits for that one.
    """

    connected = False
    is_sent = False
    is_at_proxy = False
    is_forwarded = False
    malformed = ""
    report: Callable[[], None] = staticmethod(lambda: None)
    connect_end_s = math.inf
    clock: IdleClock | None = None

    def __init__(self, title: str = "", trace: Trace = silent, *, has_no_body: bool = False) -> None:
        self.title = title
        self.has_no_body = has_no_body
        self.cancellation = Cancellation()
        self.connections: list[Any] = []  # each a Connection: to close or to keep
        self.is_traced = trace is not silent
        self._trace = trace
        self._is_cancelled = False
        self._lock = threading.Lock()

    def trace(self, what: str) -> None:
        """Trace an event, unless the request was cancelled."""
        if not self._is_cancelled:
            self._trace(what)

    def next_wait_s(self) -> float:
        """Return how long the next wait for the server may take, infinite without a clock. Raises ClockError."""
        return self.clock.next_wait_s() if self.clock else math.inf

    def step(self) -> None:
        """Report that the head is sent, or that a block of the body comes next. Raises OSError if it was cancelled."""
        with self._lock:
            self.cancellation.check()
            self.connected = True
        self.report()

    def cancel(self, *, timed_out: bool = False, aborts: bool = True) -> bool:
        """End every connection and send nothing more; return whether the request was connected before.

        `timed_out` says that a clock cancels it, not the caller; `aborts` is as for a Cancellation.
        """
        with self._lock:
            connected = self.connected
            self._is_cancelled = True
            self.cancellation.cancel(timed_out=timed_out, aborts=aborts)
        return connected


class Upload(io.BytesIO):
    """The body of a request. urllib3 reads it block by block, each with its own time limit."""

    def __init__(self, body: bytes, progress: Progress) -> None:
        super().__init__(body)
        self._progress = progress

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next block, empty at the end. Raises OSError if the exchange was cancelled."""
        self._progress.step()
        block = super().read(size)
        self._progress.cancellation.aborts = bool(block)
        if not block:
            self._progress.is_sent = True
            self._progress.trace(f"request sent: {self._progress.title}")
        return block


class CurrentExchange:
    """The `progress` of the exchange that currently uses a connection: a connection may outlive an exchange."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
