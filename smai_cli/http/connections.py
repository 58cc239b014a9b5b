"""The connections that requests and urllib3 use below their adapters.

They report the progress of a request, can be cancelled, watch for an early answer, and skip interim answers.
"""

import http
import http.client
import socket
import ssl
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
)

from smai_cli.http.early_answer import EarlyAnswer
from smai_cli.http.preconnect import Preconnect
from smai_cli.http.progress import CurrentExchange, Progress
from smai_cli.http.response import Response, ResponseStream
from smai_cli.http.tcp import Address, connect, record_answer, resolve

_LONGEST_LABEL = 63  # RFC 1035, section 2.3.4


class Connection(HTTPConnection):
    """A connection that reports its progress to the `current` exchange, and that can be cancelled."""

    def __init__(self, *args: Any, current: CurrentExchange, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._current = current
        self._address: Address | None = None
        self._early: EarlyAnswer | None = None
        self._response: Response | None = None
        self.progress.connections.append(self)

    @property
    def progress(self) -> Progress:
        """The progress of the exchange that uses it."""
        return self._current.progress

    @property
    def is_reusable(self) -> bool:
        """Whether the next request may use it: the last answer has ended, and nothing came after its end."""
        response = self._response
        if self.sock is None or response is None or not response.isclosed() or not response.is_framed_well:
            return False
        return not response.has_more and not getattr(self.sock, "pending", int)()

    def connect(self) -> None:
        """Connect, with proxy and TLS. Raises what urllib3 raises, or OSError if the exchange was cancelled."""
        if self.proxy:
            self.progress.trace(f"connecting to the proxy {self.host} port {self.port}")
            self.progress.is_at_proxy = True
        try:
            super().connect()
        except Exception:
            # TCP connected, but the address is of no use: a retry begins with another one.
            if self._address and not self.proxy:
                record_answer(self._address, self.progress.cancellation, answered=False)
            raise
        self.progress.is_at_proxy = False
        self.progress.cancellation.check()
        version = self.sock.version() if hasattr(self.sock, "version") else None
        self.progress.trace(f"connected, {version}" if version else "connected")

    def _tunnel(self) -> None:
        """Make the proxy connect to the server. Raises ProxyError: urllib3 attributes some failures to the server."""
        try:
            super()._tunnel()
        except (OSError, http.client.HTTPException) as exc:
            raise ProxyError("no tunnel", exc) from exc
        self.progress.is_at_proxy = False

    def _new_conn(self) -> socket.socket:
        """Return a TCP connection to the first address that accepts one.

        urllib3's method gives each address the whole time, and cannot be cancelled. This one raises the same errors.
        """
        host, progress = self._dns_host.strip("[]"), self.progress
        _check_labels(host)
        try:
            found = resolve(host, self.port, progress.cancellation)
            reached = connect(
                found, progress.connect_end_s, progress.cancellation, self.socket_options or (), progress.trace
            )
        except socket.gaierror as exc:
            raise NameResolutionError(self.host, self, exc) from exc
        except TimeoutError as exc:
            raise ConnectTimeoutError(self, f"Connection to {self.host} timed out") from exc
        except OSError as exc:
            raise NewConnectionError(self, f"Failed to establish a new connection: {exc}") from exc
        self._address = reached.address
        reached.connection.settimeout(self.timeout)
        return reached.connection

    def endheaders(self, *args: Any, **kwargs: Any) -> None:
        """Send the head of a request, after connecting if necessary. A GET consists of the head only."""
        self.progress.is_forwarded = self.proxy_is_forwarding
        super().endheaders(*args, **kwargs)
        self.progress.step()
        if isinstance(self.sock, socket.socket):  # not TLS within TLS, through a proxy
            self._early = EarlyAnswer(self.sock, self.progress)
        if self.progress.has_no_body:
            self.progress.is_sent = True
            self.progress.trace(f"request sent: {self.progress.title}")

    def send(self, data: Any) -> None:
        """Send a head, or a block of the body until the server answers. Raises OSError."""
        if self._early:
            self._early.send(data, self.timeout)
            return
        try:
            super().send(data)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as exc:
            # urllib3 reads the answer, which may give the reason, only after a BrokenPipeError.
            raise BrokenPipeError(*exc.args) from exc

    def response_class(self, sock: Any, *args: Any, **kwargs: Any) -> Response:  # type: ignore[override]
        """Return the response on `sock`; a part of it may have arrived while the body was sent."""
        received = bytes(self._early.received) if self._early else b""
        self._early = None  # it belongs to this request: a head, and a CONNECT, are sent without one
        response = Response(ResponseStream(received, sock, self.progress), *args, **kwargs)
        response.progress = self.progress
        self._response = response
        return response


class TlsConnection(Connection, HTTPSConnection):
    """A Connection over TLS; `preconnect` may have made it in advance."""

    def __init__(self, *args: Any, preconnect: Preconnect | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._preconnect = preconnect

    def connect(self) -> None:
        """Connect, unless the connection was made in advance. Raises what urllib3 raises."""
        made = self._preconnected()
        if made is None:
            super().connect()
            return
        self.progress.trace("using the connection that was opened early")
        made.settimeout(self.timeout)
        for option in self.socket_options or ():
            made.setsockopt(*option)
        self.sock = made
        self.is_verified = True

    def _preconnected(self) -> ssl.SSLSocket | None:
        if self._preconnect is None or self.proxy:
            return None
        self.progress.cancellation.on_cancel(self._preconnect.close)
        made = self._preconnect.take(self.host, self.port)
        try:
            self.progress.cancellation.adopt(self._preconnect.cancellation)
        except OSError:
            if made:
                made.close()
            raise
        return made


def _check_labels(host: str) -> None:
    """Raise LocationParseError, as urllib3 does, for a host with an empty or overlong label."""
    labels = host.removesuffix(".").split(".")
    if not all(labels) or any(len(label) > _LONGEST_LABEL for label in labels):
        raise LocationParseError(f"'{host}', label empty or too long")
