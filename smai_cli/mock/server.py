"""A loopback server for both APIs: scripted replies, recorded tapes, and faults on request.

`smai mock`, `smai ask --mock` and the tests use it.
"""

import functools
import threading
from socketserver import ThreadingTCPServer  # http.server has one that looks up its own name, which may take long
from typing import Any, Self

from smai_cli.mock.handler import MockHandler
from smai_cli.mock.received import MockRefusal, ReceivedRequest
from smai_cli.mock.script import Script
from smai_cli.mock.state import MockState

__all__ = ["Mock", "MockRefusal", "ReceivedRequest"]
_HOST = "127.0.0.1"


class Mock(MockState, ThreadingTCPServer):
    """The server, on a free port of 127.0.0.1 unless `port` names one. Use it as a context manager.

    `url` is the base URL; the other arguments are as for MockState. Raises OSError if the port is taken.
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
        MockState.__init__(self, script, log_fd, keeps_received=keeps_received)
        ThreadingTCPServer.__init__(self, (_HOST, port), functools.partial(MockHandler, self))
        self.url = f"http://{_HOST}:{self.server_address[1]}/v1"

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
