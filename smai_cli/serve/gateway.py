"""The server of smai serve, on 127.0.0.1: who asks what of it, and what stands behind it."""

import contextlib
import socket
import sys
import threading
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from typing import Any, NamedTuple, Self

from smai_cli.clocks import Clocks
from smai_cli.config.endpoint import Endpoint
from smai_cli.config.keys import Secret, Secrets
from smai_cli.http.trace import Trace, silent
from smai_cli.http.transport import Exchange
from smai_cli.serve.checks import Door
from smai_cli.serve.handler import Handler
from smai_cli.serve.hiding import Hider, secrets_of
from smai_cli.serve.pages import Page
from smai_cli.serve.watch import Watch

_HOST = "127.0.0.1"


class Upstream(NamedTuple):
    """The server that answers; `clocks` returns the limits of an exchange that begins now."""

    endpoint: Endpoint
    clocks: Callable[[], Clocks]
    ca_file: str | None = None


class Limits(NamedTuple):
    """What clients may take.

    A connection may be idle for `idle_s`; a head must come within `head_s` and a body within `body_s`; what is sent
    behind a refusal is read for `linger_s`. So many `streams` go at once, because browsers open six connections to a
    host, and the next page needs one; and so many `connections` are open, because each has a thread.
    """

    idle_s: float = 60.0
    head_s: float = 10.0
    body_s: float = 60.0
    linger_s: float = 2.0
    streams: int = 5
    connections: int = 128


class Gateway(ThreadingHTTPServer):
    """The server, on a free port of 127.0.0.1 unless `port` names one; as a context manager it serves on a thread.

    `url` has the token behind its `#`, `base_url` is for programs. `trace` hears of each request, neither with the
    token nor with the key; `report` of a defect. Raises OSError where the port is taken.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(  # noqa: PLR0913  # what it serves, to whom, and who hears of it
        self,
        upstream: Upstream,
        pages: dict[str, Page],
        token: str,
        port: int = 0,
        *,
        trace: Trace = silent,
        report: Callable[[BaseException], None] = lambda _: None,
        limits: Limits | None = None,
    ) -> None:
        super().__init__((_HOST, port), Handler)
        self.pages = pages
        self.limits = limits or Limits()
        self.door = Door(self.server_port, token, frozenset(pages))
        self.base_url = f"http://{_HOST}:{self.server_port}/v1"
        self.url = f"http://{_HOST}:{self.server_port}/#token={token}"
        self.streams = threading.BoundedSemaphore(self.limits.streams)
        self.watch = Watch()
        self.report = report
        self.secrets = Secrets([*upstream.endpoint.secrets, Secret(token)])
        self._upstream = upstream
        self._hidden = secrets_of(upstream.endpoint)
        self._trace = trace
        self._connections: set[socket.socket] = set()

    def exchange(self, path: str, body: bytes | None) -> Exchange:
        """Return a request to the server behind this one, for `path` below its base URL; nothing is sent yet."""
        endpoint, clocks, ca_file = self._upstream
        return Exchange(endpoint, path, body, clocks(), ca_file=ca_file, takes_any=True)

    def hider(self) -> Hider:
        """Return what keeps the key out of one answer."""
        return Hider(self._hidden)

    def trace(self, what: str) -> None:
        """Trace a request, without any secret."""
        self._trace(self.secrets.hidden_in(what))

    def server_bind(self) -> None:
        """Bind without the reverse name look-up of the base class, which may take seconds offline."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = _HOST, self.server_address[1]

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002
        """Return whether one more connection has room; one that has not is closed."""
        if len(self._connections) >= self.limits.connections:
            return False
        self._connections.add(request)
        return True

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Report a defect; a client that leaves is none."""
        error = sys.exception()
        if error is not None and not isinstance(error, OSError):
            self.report(error)

    def __enter__(self) -> Self:
        """Serve on a thread."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving, and close every connection; the answers under way end with them."""
        self.shutdown()
        self.server_close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.watch.close()
