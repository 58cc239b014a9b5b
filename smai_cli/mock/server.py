"""A loopback server for both APIs: scripted replies, recorded tapes, and faults on request.

`smai mock`, `smai ask --mock` and the tests use it.
"""

import functools
import itertools
import threading
from socketserver import ThreadingTCPServer  # http.server has one that looks up its own name, which may take long
from typing import Any, Self

from smai_cli.mock.faults import RateLimit
from smai_cli.mock.handler import MockHandler
from smai_cli.mock.received import MockRefusal, ReceivedRequest
from smai_cli.mock.request_log import RequestLog
from smai_cli.mock.script import Script

__all__ = ["Mock", "MockRefusal", "ReceivedRequest"]
_HOST = "127.0.0.1"


class Mock(ThreadingTCPServer):
    """The server, on a free port of 127.0.0.1 unless `port` names one. Use it as a context manager.

    `url` is the base URL, `received` the requests so far (empty without `keeps_received`). `log_fd` is the file for the
    log, and `failure` the error that ended the server because the log could not be written. Raises OSError if the port
    is taken.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    # 100 clients may connect at once; with the default of 5, the others wait a second until their SYN is repeated.
    request_queue_size = 512

    def __init__(
        self,
        script: Script | None = None,
        port: int = 0,
        *,
        log_fd: int | None = None,
        keeps_received: bool = True,
    ) -> None:
        super().__init__((_HOST, port), functools.partial(MockHandler, self))
        self.script = script or Script()
        self.limit = None if self.script.limit_per_s is None else RateLimit(self.script.limit_per_s)
        self.log = None if log_fd is None else RequestLog(log_fd, self.fail)
        self.failure: OSError | None = None
        self.url = f"http://{_HOST}:{self.server_address[1]}/v1"
        self.received: list[ReceivedRequest] = []
        self.over = threading.Event()
        self._keeps_received = keeps_received
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

    def fail(self, failure: OSError) -> None:
        """End the server, because the log cannot be written."""
        self.failure = failure
        self.over.set()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: tests let clients leave in the middle of an answer."""

    def __enter__(self) -> Self:
        """Serve on a thread."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving, and end stalled answers."""
        self.over.set()
        self.shutdown()
        self.server_close()
