"""How requests and urllib3 are made to connect and to send: our connections below their adapters.

What these libraries do that a streaming tool must not is kept out here: redirects, ~/.netrc, retries of their own,
interim answers, and silence about how far a request is.
"""

import functools
import http
import http.client
import io
import math
import re
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
)

from smai_cli.config.endpoint import Endpoint
from smai_cli.http.early_answer import Early, ResponseFile
from smai_cli.http.preconnect import Preconnect
from smai_cli.http.tcp import Address, Cancellation, connect, note, resolve
from smai_cli.text import one_line
from smai_cli.trace import Trace, silent

# A peer that vanished behind a NAT while the model thinks is noticed after 30 s plus the system's probes.
_SOCKET_OPTIONS = [
    *HTTPConnection.default_socket_options,
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *([(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)] if hasattr(socket, "TCP_KEEPIDLE") else []),
]

_HTTP_1_1 = 11
# The end of a chunk, the size of the next one, which is not the last, and something of it (RFC 9112, section 7.1).
_NEXT_CHUNK = rb"\r\n0*[1-9A-Fa-f][0-9A-Fa-f]{0,8}\r\n(?s:.)"  # compiled where it is needed
_LONGEST_LENGTH = 18  # digits
_LONGEST_LABEL = 63  # RFC 1035, section 2.3.4


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
        self.connections: list[Connection] = []
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


class Session(requests.Session):
    """A session that never follows a redirect.

    requests reads the whole body of a redirect to compute the next request, even where it is not to follow.
    """

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
        """Return None: nothing is a redirect."""
        return None


class _Response(http.client.HTTPResponse):
    """A response that is the final one: interim ones, such as 103 Early Hints, are passed over (RFC 9110, 15.2).

    http.client passes over 100 only, and takes another for an empty answer. Nor does it mind lengths that contradict
    each other or are none; `sending` hears of them.
    """

    sending: Sending
    # Whether its end is beyond doubt, so that what follows it can be the next answer.
    is_framed_well = False
    _is_coded = False

    def begin(self) -> None:
        super().begin()
        while http.HTTPStatus.SWITCHING_PROTOCOLS < self.status < http.HTTPStatus.OK:
            # The same as for the first line: without headers, begin reads a status and headers.
            self.headers = self.msg = None  # type: ignore[assignment]
            super().begin()
        self._is_coded = "content-encoding" in self.headers
        lengths = self.headers.get_all("content-length")
        # One with both lengths, or of HTTP/1.0, is nothing to rely on (RFC 9112, sections 6.1 and 6.3).
        self.is_framed_well = self.version == _HTTP_1_1 and bool(lengths) != ("transfer-encoding" in self.headers)
        if not self.chunked and lengths:
            self._check(lengths)

    def read1(self, n: int = -1) -> bytes:
        """Return what has arrived, as many chunks as are there: each round through the layers above costs more."""
        piece = super().read1(n)
        parts, left = [piece], n - len(piece)
        while piece and self.chunked and left > 0 and self._has_next_chunk():
            piece = super().read1(left)
            parts.append(piece)
            left -= len(piece)
        return b"".join(parts) if len(parts) > 1 else piece

    def _has_next_chunk(self) -> bool:
        """Return whether a byte of another chunk was read ahead: nothing will block, and nothing will fail.

        Where a coding is to be undone, that may fail in the next chunk, and what came before is not to go with it.
        """
        if self.chunk_left != 0 or self._is_coded or not isinstance(self.fp, ResponseFile):
            return False
        return re.match(_NEXT_CHUNK, self.fp.buffered()) is not None

    def _check(self, lengths: list[str]) -> None:
        """Drop a Content-Length that cannot be told (RFC 9112, section 6.3), so that a failure keeps its status."""
        found = list(dict.fromkeys(length.strip() for field in lengths for length in field.split(",")))
        wrong = [length for length in found if not _is_length(length)]
        if wrong:
            self.sending.malformed = f"a length that is no number: {one_line(wrong[0], 40)}"
        elif len(found) > 1:
            self.sending.malformed = f"two lengths: {found[0]} and {found[1]}"
        else:
            return
        del self.headers["content-length"]
        self.length = None

    def _read_next_chunk_size(self) -> int:
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]
        if size < 0:  # read as so many bytes from the end
            raise http.client.HTTPException(f"it is malformed HTTP: a chunk of {size} bytes")
        return size


class Connection(HTTPConnection):
    """A connection that tells how far a request is, and that can be ended; the `current` exchange hears of it."""

    def __init__(self, *args: Any, current: Current, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._current = current
        self._address: Address | None = None
        self._early: Early | None = None
        self._response: _Response | None = None
        self.sending.connections.append(self)

    @property
    def sending(self) -> Sending:
        """How far the exchange is that it serves."""
        return self._current.sending

    @property
    def is_reusable(self) -> bool:
        """Whether the next request may go out on it: its answer has ended, and nothing came behind the end."""
        response, early = self._response, self._early
        if self.sock is None or response is None or not response.isclosed() or not response.is_framed_well:
            return False
        return early is not None and not early.has_more and not getattr(self.sock, "pending", int)()

    def connect(self) -> None:
        """Connect. What of it is proxy and TLS, urllib3 does not show."""
        if self.proxy:
            self.sending.trace(f"connecting to the proxy {self.host} port {self.port}")
            self.sending.is_at_proxy, self.sending.is_forwarded = True, self.proxy_is_forwarding
        try:
            super().connect()
        except Exception:
            # It answered, and is as good as one that did not: a try after this one begins with another.
            if self._address and not self.proxy:
                note(self._address, self.sending.cancellation, answered=False)
            raise
        self.sending.is_at_proxy = False
        self.sending.cancellation.check()
        version = self.sock.version() if hasattr(self.sock, "version") else None
        self.sending.trace(f"connected, {version}" if version else "connected")

    def _tunnel(self) -> None:
        """Have the proxy connect to the server. Raises ProxyError: urllib3 takes some failures for the server's."""
        try:
            super()._tunnel()
        except (OSError, http.client.HTTPException) as exc:
            raise ProxyError("no tunnel", exc) from exc
        self.sending.is_at_proxy = False

    def _new_conn(self) -> socket.socket:
        """Return a TCP connection to the first address that takes one.

        urllib3's own gives each address the whole time, and cannot be ended. It raises what urllib3's raises.
        """
        host, sending = self._dns_host.strip("[]"), self.sending
        _check_labels(host)
        try:
            found = resolve(host, self.port, sending.cancellation)
            reached = connect(
                found, sending.connect_end_s, sending.cancellation, self.socket_options or (), sending.trace
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
        """Send the head of a request, connecting first if need be; of a GET, it is all there is."""
        self._early = None
        super().endheaders(*args, **kwargs)
        self.sending.step()
        if isinstance(self.sock, socket.socket):  # and no TLS inside of TLS, to a proxy
            self._early = Early()
        if self.sending.is_whole:
            self.sending.is_sent = True
            self.sending.trace(f"request sent: {self.sending.what}")

    def send(self, data: Any) -> None:
        """Send a head, or a block of the body: of that no more than the server wants."""
        if self._early:
            self._early.send(self.sock, data, self.timeout)
            return
        try:
            super().send(data)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as exc:
            # As if it were any closed connection: then urllib3 reads what the server has to say, such as why.
            raise BrokenPipeError(*exc.args) from exc

    def response_class(self, sock: Any, *args: Any, **kwargs: Any) -> _Response:  # type: ignore[override]
        """Return the response on `sock`, of which a part may have come while the body was sent."""
        response = _Response(self._early.response_from(sock) if self._early else sock, *args, **kwargs)
        response.sending = self.sending
        self._response = response
        return response


class TlsConnection(Connection, HTTPSConnection):
    """The same over TLS, perhaps made `preconnect`."""

    def __init__(self, *args: Any, preconnect: Preconnect | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._preconnect = preconnect

    def connect(self) -> None:
        """Connect, unless the connection was made ahead."""
        made = self._preconnected()
        if made is None:
            super().connect()
            return
        self.sending.trace("taking the connection that was made ahead")
        made.settimeout(self.timeout)
        for option in self.socket_options or ():
            made.setsockopt(*option)
        self.sock = made
        self.is_verified = True

    def _preconnected(self) -> ssl.SSLSocket | None:
        if self._preconnect is None or self.proxy:
            return None
        self.sending.cancellation.on_cancel(self._preconnect.close)
        made = self._preconnect.take(self.host, self.port)
        try:
            self.sending.cancellation.adopt(self._preconnect.cancellation)
        except OSError:
            if made:
                made.close()
            raise
        return made


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = Connection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = TlsConnection


class Adapter(HTTPAdapter):
    """The adapter of requests, with our connections. Its own retries stay off: they send twice and hide answers."""

    def __init__(self, preconnect: Preconnect | None, current: Current) -> None:
        self._current = current
        self._pools: Any = {
            "http": functools.partial(_Pool, current=current),
            "https": functools.partial(_TlsPool, current=current, preconnect=preconnect),
        }
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools for the servers."""
        super().init_poolmanager(*args, socket_options=_SOCKET_OPTIONS, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Return what makes the pools for servers behind `proxy`."""
        manager = super().proxy_manager_for(proxy, socket_options=_SOCKET_OPTIONS, **kwargs)
        if proxy.lower().startswith("socks"):
            from smai_cli.http import socks  # for those who have one

            manager.pool_classes_by_scheme = socks.pools(self._current)
        else:
            manager.pool_classes_by_scheme = self._pools
        return manager


class Credentials(AuthBase):
    """The key of the endpoint, or none, and its headers: those of the server, of which no proxy hears in a CONNECT.

    As a callable it keeps ~/.netrc and a URL's user from taking the key's place.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Put the key into the request, in place of any other, and the headers, in UTF-8 as curl does it."""
        request.headers.pop("Authorization", None)
        for header in self._endpoint.headers:
            # requests would have to be told the encoding; http.client takes bytes as they are.
            request.headers[header.name] = header.value.reveal().encode()  # type: ignore[assignment]
        if key := self._endpoint.key:
            name = self._endpoint.key_header
            request.headers[name or "Authorization"] = key.reveal() if name else f"Bearer {key.reveal()}"
        return request


def _is_length(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _LONGEST_LENGTH


def _check_labels(host: str) -> None:
    """Raise what urllib3 does for a name that no name server could know."""
    labels = host.removesuffix(".").split(".")
    if not all(labels) or any(len(label) > _LONGEST_LABEL for label in labels):
        raise LocationParseError(f"'{host}', label empty or too long")


def session(preconnect: Preconnect | None, sending: Sending) -> requests.Session:
    """Return a session with our connections, the first over TLS from `preconnect`; `sending` hears of them."""
    session = Session()
    for prefix in ("http://", "https://"):
        session.mount(prefix, Adapter(preconnect, Current(sending)))
    return session
