"""How far a request is on its way: the thread that sends it reports it to the one that waits."""

import io
import math
import threading
from collections.abc import Callable
from typing import Any, Protocol

from smai_cli.common.trace import Trace, silent
from smai_cli.http.tcp import Cancellation


class HeldConnection(Protocol):
    """A connection of an exchange, as far as its end is concerned; `sock` is None while it is not open."""

    sock: Any

    @property
    def is_reusable(self) -> bool:
        """Whether another request may go out on it."""

    def close(self) -> None:
        """Close it."""


class Sending:
    """How far a request is on its way, told by the thread that sends it to the one that waits, which may end it.

    `connected` says that the connection is made and the head is sent: from here on the server may have the
    request. `report` is called at each step. `what` it is, and what happens to it, `trace` hears; `is_whole` says
    that no body follows the head. Until `connect_end_s`, on the monotonic clock, there is time to connect.
    `is_at_proxy` says that a proxy is to make the connection, `is_forwarded` that one gets the request itself.
    `is_sent` says that all of the request went out, `malformed` what is wrong with the head of the answer.
    """

    connected = False
    is_sent = False
    is_at_proxy = False
    is_forwarded = False
    malformed = ""
    report: Callable[[], None] = staticmethod(lambda: None)
    connect_end_s = math.inf

    def __init__(self, what: str = "", trace: Trace = silent, *, is_whole: bool = False) -> None:
        self.what = what
        self.is_whole = is_whole
        self.cancellation = Cancellation()
        self.connections: list[HeldConnection] = []
        self._trace = trace
        self._is_cancelled = False
        self._lock = threading.Lock()

    def trace(self, what: str) -> None:
        """Trace what happens; nothing of a thread that was left behind."""
        if not self._is_cancelled:
            self._trace(what)

    def step(self) -> None:
        """Note that the head is sent, or that a block of the body comes next. Raises OSError once it was cancelled."""
        with self._lock:
            self.cancellation.check()
            self.connected = True
        self.report()

    def cancel(self, *, timed_out: bool = False, aborts: bool = True) -> bool:
        """End every connection and send nothing more; return whether the connection was made before.

        `timed_out` says that a clock did it, and not the caller; `aborts` is as for a Cancellation.
        """
        with self._lock:
            connected = self.connected
            self._is_cancelled = True
            self.cancellation.cancel(timed_out=timed_out, aborts=aborts)
        return connected


class Upload(io.BytesIO):
    """The body of a request, read by urllib3 block by block, each under a time limit of its own."""

    def __init__(self, body: bytes, sending: Sending) -> None:
        super().__init__(body)
        self._sending = sending

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next block. Raises OSError once the exchange was cancelled."""
        self._sending.step()
        block = super().read(size)
        self._sending.cancellation.aborts = bool(block)
        if not block:
            self._sending.is_sent = True
            self._sending.trace(f"request sent: {self._sending.what}")
        return block


class Current:
    """The exchange that a connection serves right now, by its `sending`: a connection may outlive an exchange."""

    def __init__(self, sending: Sending) -> None:
        self.sending = sending
