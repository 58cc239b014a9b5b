"""What all connections to the mock share."""

import itertools
import json
import os
import threading
import time

from smai_cli.mock.faults import RateLimit
from smai_cli.mock.received import ReceivedRequest
from smai_cli.mock.script import Script

# A value in a line of the log.
Value = str | int | float | None


class MockState:
    """The script, the rate limit, the log, the counts, and whether the server is `over`.

    `received` are the requests so far (empty without `keeps_received`). `log_fd` is the file for the log, which has a
    line of JSON for each request; `failure` is the error that ended the server because it could not be written.
    """

    def __init__(self, script: Script | None, log_fd: int | None, *, keeps_received: bool) -> None:
        self.script = script or Script()
        self.limit = None if self.script.limit_per_s is None else RateLimit(self.script.limit_per_s)
        self.failure: OSError | None = None
        self.received: list[ReceivedRequest] = []
        self.over = threading.Event()
        self._keeps_received = keeps_received
        self._log_fd = log_fd
        self._began_s = time.monotonic()
        self._connections = itertools.count(1)
        self._requests = itertools.count(1)
        self._answered = 0
        self._lock = threading.Lock()

    def count_connection(self) -> int:
        """Count a new connection; return its number, from 1."""
        with self._lock:
            return next(self._connections)

    def note(self, received: ReceivedRequest) -> int:
        """Record a request; return its number, from 1."""
        with self._lock:
            if self._keeps_received:
                self.received.append(received)
            return next(self._requests)

    def check(self, received: ReceivedRequest) -> None:
        """Raise MockRefusal for a request that must not be answered; subclasses override it."""

    def count_answer(self) -> None:
        """Count an answer that was sent; the last one ends the server."""
        with self._lock:
            self._answered += 1
            if self._answered == self.script.max_requests:
                self.over.set()

    def age_s(self) -> float:
        """Return the seconds since the log began."""
        return round(time.monotonic() - self._began_s, 3)

    def log(self, entry: dict[str, Value]) -> None:
        """Append a line to the log, if there is one; end the server if it cannot be written."""
        rest = f"{json.dumps(entry)}\n".encode()
        try:
            with self._lock:
                while rest and self._log_fd is not None:
                    rest = rest[os.write(self._log_fd, rest) :]
        except OSError as exc:
            self.failure = exc
            self.over.set()
