"""The server of `smai serve` on 127.0.0.1: its limits, its connections and its upstream server."""

import sys
import threading
from collections.abc import Callable
from socketserver import BaseRequestHandler, ThreadingTCPServer  # that of http.server looks up its own name
from typing import Any, NamedTuple, Self

from smai_cli.common.clocks import Clocks
from smai_cli.common.trace import Trace, silent
from smai_cli.config.endpoint import Endpoint
from smai_cli.config.keys import Secret, Secrets
from smai_cli.http.exchange import Exchange
from smai_cli.serve.checks import Access
from smai_cli.serve.connections import Connections
from smai_cli.serve.hiding import secrets_of
from smai_cli.serve.limits import ClientLimits
from smai_cli.serve.pages import PageDefaults, load_pages
from smai_cli.serve.watch import Watch

_HOST = "127.0.0.1"


class Upstream(NamedTuple):
    """The server that answers. `clocks` returns the limits of an exchange that begins now."""

    endpoint: Endpoint
    clocks: Callable[[], Clocks]
    ca_file: str | None = None


class Gateway(ThreadingTCPServer):
    """The server, on a free port of 127.0.0.1 unless `port` names one. As a context manager it serves on a thread.

    `handler` is the class that answers on a connection. `url` is that of the page with the token in its fragment,
    `base_url` is for programs. `settings` are those of the page. `trace` gets a line for each request, without the
    token and the key; with `judges` the line says whether an answer was complete. `report` gets each defect. Raises
    OSError if the port is taken.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(  # noqa: PLR0913  # what it serves, to whom, and where it reports
        self,
        handler: type[BaseRequestHandler],
        upstream: Upstream,
        settings: PageDefaults,
        token: str,
        port: int = 0,
        *,
        trace: Trace = silent,
        judges: bool = False,
        report: Callable[[BaseException], None] = lambda _: None,
        limits: ClientLimits | None = None,
    ) -> None:
        super().__init__((_HOST, port), handler)
        self.pages = load_pages()
        self.settings = settings
        self.limits = limits or ClientLimits()
        self.port: int = self.server_address[1]
        self.access = Access(self.port, token, frozenset(self.pages))
        self.base_url = f"http://{_HOST}:{self.port}/v1"
        self.url = f"http://{_HOST}:{self.port}/#token={token}"
        self.streams = threading.BoundedSemaphore(self.limits.streams)
        self.watch = Watch()
        self.report = report
        self.judges = judges
        self.secrets = Secrets([*upstream.endpoint.secrets, Secret(token)])
        self.hidden = secrets_of(upstream.endpoint)
        self.connections = Connections(self.limits.connections)
        self._upstream = upstream
        self._trace = trace

    def exchange(self, path: str, body: bytes | None) -> Exchange:
        """Return a request to the upstream server, for `path` below its base URL; nothing is sent yet."""
        endpoint, clocks, ca_file = self._upstream
        return Exchange(endpoint, path, body, clocks(), ca_file=ca_file, takes_any=True)

    def trace(self, what: str) -> None:
        """Trace a request, without any secret."""
        self._trace(self.secrets.hidden_in(what))

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002
        """Return whether a new connection is served; otherwise the caller closes it."""
        return self.connections.add(request)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        self.connections.remove(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Report a defect; a client that leaves is not one."""
        error = sys.exception()
        if error is not None and not isinstance(error, OSError):
            self.report(error)

    def __enter__(self) -> Self:
        """Serve on a thread."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving, and end every connection with the answer on it."""
        self.shutdown()
        self.server_close()
        self.connections.shut_down()
        self.watch.close()
