"""How requests and urllib3 are made to connect and to send: our connections below their adapters.

What these libraries do that a streaming tool must not is kept out here: redirects, ~/.netrc, retries of their own,
interim answers, and silence about how far a request is.
"""

import http
import http.client
import io
import socket
import threading
from collections.abc import Callable
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.connection import HTTPConnection, HTTPSConnection

from smai_cli.ahead import Ahead
from smai_cli.config import Endpoint
from smai_cli.tell import Tell, silent

# A peer that vanished behind a NAT while the model thinks is noticed after 30 s plus the system's probes.
_SOCKET_OPTIONS = [
    *HTTPConnection.default_socket_options,
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *([(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)] if hasattr(socket, "TCP_KEEPIDLE") else []),
]


class Sending:
    """How far a request is on its way, told by the thread that sends it to the one that waits.

    `connected` says that the connection is made and the head is sent: from here on the server may have the
    request. `report` is called at each step. `what` it is, and what happens to it, `tell` hears; `is_whole` says
    that no body follows the head.
    """

    connected = False
    report: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, what: str = "", tell: Tell = silent, *, is_whole: bool = False) -> None:
        self.what = what
        self.is_whole = is_whole
        self._tell = tell
        self._cancelled = False
        self._lock = threading.Lock()

    def tell(self, what: str) -> None:
        """Tell what happens; nothing of a thread that was left behind."""
        if not self._cancelled:
            self._tell(what)

    def step(self) -> None:
        """Note that the head is sent, or that a block of the body comes next. Raises OSError once it was cancelled."""
        with self._lock:
            if self._cancelled:
                raise OSError("cancelled")
            self.connected = True
        self.report()

    def cancel(self) -> bool:
        """Send nothing more; return whether the connection was made before."""
        with self._lock:
            self._cancelled = True
            return self.connected


class Upload(io.BytesIO):
    """The body of a request, read by urllib3 block by block, each under a time limit of its own."""

    def __init__(self, body: bytes, sending: Sending) -> None:
        super().__init__(body)
        self._sending = sending

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next block. Raises OSError once the exchange was cancelled."""
        self._sending.step()
        block = super().read(size)
        if not block:
            self._sending.tell(f"request sent: {self._sending.what}")
        return block


class Session(requests.Session):
    """A session that never follows a redirect.

    requests reads the whole body of a redirect to compute the next request, even where it is not to follow.
    """

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
        """Return None: nothing is a redirect."""
        return None


class _Response(http.client.HTTPResponse):
    """A response that is the final one: interim ones, such as 103 Early Hints, are passed over (RFC 9110, 15.2).

    http.client passes over 100 only, and takes another for an empty answer.
    """

    def begin(self) -> None:
        super().begin()
        while http.HTTPStatus.SWITCHING_PROTOCOLS < self.status < http.HTTPStatus.OK:
            # The same as for the first line: without headers, begin reads a status and headers.
            self.headers = self.msg = None  # type: ignore[assignment]
            super().begin()


class _Connection(HTTPConnection):
    response_class = _Response
    sending: Sending

    def connect(self) -> None:
        """Connect. What of it is name resolution, TCP, proxy and TLS, urllib3 does not show."""
        via = "the proxy " if self.proxy else ""
        self.sending.tell(f"connecting to {via}{self.host} port {self.port}")
        super().connect()
        version = self.sock.version() if hasattr(self.sock, "version") else None
        self.sending.tell(f"connected, {version}" if version else "connected")

    def endheaders(self, *args: Any, **kwargs: Any) -> None:
        """Send the head of a request, connecting first if need be; of a GET, it is all there is."""
        super().endheaders(*args, **kwargs)
        self.sending.step()
        if self.sending.is_whole:
            self.sending.tell(f"request sent: {self.sending.what}")


class _TlsConnection(_Connection, HTTPSConnection):
    ahead: Ahead | None = None

    def connect(self) -> None:
        """Connect, unless the connection was made ahead."""
        made = self.ahead.take(self.host, self.port) if self.ahead and self.proxy is None else None
        if made is None:
            super().connect()
            return
        self.sending.tell("taking the connection that was made ahead")
        made.settimeout(self.timeout)
        for option in self.socket_options or ():
            made.setsockopt(*option)
        self.sock = made
        self.is_verified = True


def _pools(connection_ahead: Ahead | None, request: Sending) -> dict[str, type[urllib3.HTTPConnectionPool]]:
    """Return the pools that make our connections, which tell `request`; the first over TLS was made ahead."""

    class Connection(_Connection):
        sending = request

    class TlsConnection(_TlsConnection):
        sending = request
        ahead = connection_ahead

    class Pool(urllib3.HTTPConnectionPool):
        ConnectionCls = Connection

    class TlsPool(urllib3.HTTPSConnectionPool):
        ConnectionCls = TlsConnection

    return {"http": Pool, "https": TlsPool}


class _Adapter(HTTPAdapter):
    """The adapter of requests, with our connections. Its own retries stay off: they send twice and hide answers."""

    def __init__(self, ahead: Ahead | None, sending: Sending) -> None:
        self._pools = _pools(ahead, sending)
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, socket_options=_SOCKET_OPTIONS, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, socket_options=_SOCKET_OPTIONS, **kwargs)
        manager.pool_classes_by_scheme = self._pools
        return manager


class Bearer(AuthBase):
    """The key of the endpoint, or none. As a callable it keeps ~/.netrc and a URL's user from taking its place."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._key = endpoint.key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Put the key into the request, in place of any other."""
        request.headers.pop("Authorization", None)
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key.reveal()}"
        return request


def session(ahead: Ahead | None, sending: Sending) -> requests.Session:
    """Return a session with our connections, the first over TLS from `ahead`; `sending` hears how far a request is."""
    session = Session()
    for prefix in ("http://", "https://"):
        session.mount(prefix, _Adapter(ahead, sending))
    return session
