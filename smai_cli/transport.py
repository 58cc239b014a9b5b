"""A request -> HTTP -> pieces of bytes, as they arrive. The only importer of requests and urllib3.

What these libraries do that a streaming tool must not is kept out here: reads that wait for more than has
arrived, redirects, ~/.netrc, retries of their own, timeouts that start anew with every byte, and exceptions of
a dozen kinds.
"""

import contextlib
import http
import http.client
import io
import math
import queue
import re
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.connection import HTTPConnection, HTTPSConnection

from smai_cli import __version__
from smai_cli.ahead import Ahead
from smai_cli.clocks import FINISHED_GRACE_S, HURRY_S, SLICE_S, Clocks, IdleClock
from smai_cli.config import Endpoint
from smai_cli.errors import Again, BrokenError, ClockError, ConnectError, RefusedError, SmaiError, UsageError
from smai_cli.problem import http_error, problem_in_body
from smai_cli.retry import retry_after_s
from smai_cli.tell import Tell, silent
from smai_cli.text import one_line

PIECE_BYTES = 65536
# How much of the body of an HTTP error is read, and for how long: enough for the server's words.
_ERROR_BODY_BYTES = 65536
_ERROR_BODY_S = 5.0
_OK = 200
_FAILURES = (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError)
# A peer that vanished behind a NAT while the model thinks is noticed after 30 s plus the system's probes.
_SOCKET_OPTIONS = [
    *HTTPConnection.default_socket_options,
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *([(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)] if hasattr(socket, "TCP_KEEPIDLE") else []),
]


def post(  # noqa: PLR0913  # where, what, how long, two things about TLS, and who hears of it
    endpoint: Endpoint,
    path: str,
    body: bytes,
    clocks: Clocks,
    *,
    ca_file: str | None = None,
    ahead: Ahead | None = None,
    tell: Tell = silent,
) -> "Answer":
    """POST `body` (JSON) and return the Answer, whose HTTP status is 200.

    `ca_file` vouches for the server (None: the bundle of requests), `ahead` may hold a connection to it, `tell`
    hears of each step.
    Raises ConnectError, ClockError, RefusedError, AccessError, BusyError or BrokenError, as the exchange ends.
    """
    sending = _Sending(f"POST {_shown_url(endpoint, path)}, {len(body)} bytes", tell)

    def send() -> requests.Response:
        where = _where(endpoint, path, clocks, ca_file)
        upload = _Upload(body, sending)
        return _session(ahead, sending).post(data=upload, headers=_HEADERS | _POST_HEADERS, **where)

    return _answer(_Exchange(send, sending, clocks), clocks)


def get(  # noqa: PLR0913  # as above
    endpoint: Endpoint,
    path: str,
    clocks: Clocks,
    *,
    ca_file: str | None = None,
    ahead: Ahead | None = None,
    tell: Tell = silent,
) -> "Answer":
    """GET what is at `path` and return the Answer; the rest is as for `post`.

    Nothing is billed: a request that was dropped without an answer may be sent again.
    """
    sending = _Sending(f"GET {_shown_url(endpoint, path)}", tell, is_whole=True)

    def send() -> requests.Response:
        where = _where(endpoint, path, clocks, ca_file)
        return _session(ahead, sending).get(headers=_HEADERS | _GET_HEADERS, **where)

    try:
        return _answer(_Exchange(send, sending, clocks), clocks)
    except BrokenError as error:
        error.hint, error.again = "try again", Again.UNANSWERED
        raise


def prepared(endpoint: Endpoint, path: str, body: bytes) -> tuple[str, dict[str, str]]:
    """Return the URL and the headers with which `post` would send `body`; nothing is sent, and no key is in them."""
    request = requests.Request("POST", endpoint.url(path), headers=_HEADERS | _POST_HEADERS, data=body)
    request.auth = _Bearer(endpoint._replace(key=None))
    ready = _Session().prepare_request(request)
    return ready.url or "", dict(ready.headers)


def proxy_for(endpoint: Endpoint) -> str | None:
    """Return the URL of the proxy through which `endpoint` is asked, as requests finds it; None without one."""
    if endpoint.is_loopback:
        return None
    proxies = requests.utils.get_environ_proxies(endpoint.base_url)
    return requests.utils.select_proxy(endpoint.base_url, proxies)


def _where(endpoint: Endpoint, path: str, clocks: Clocks, ca_file: str | None) -> dict[str, Any]:
    """Return what a request to `path` says to requests, whatever it asks."""
    return {
        "url": endpoint.url(path),
        "auth": _Bearer(endpoint),
        "stream": True,
        "allow_redirects": False,
        "timeout": (clocks.connect_timeout_s or None, None),
        "verify": ca_file or True,
        "proxies": _NO_PROXIES if endpoint.is_loopback else None,
    }


def _answer(exchange: "_Exchange", clocks: Clocks) -> "Answer":
    """Return the Answer in which `exchange` ends, or raise the failure."""
    try:
        response = exchange.open()
    except _FAILURES as exc:
        raise _translated(exc, connected=exchange.sending.connected, clocks=clocks) from exc
    exchange.sending.tell(f"headers: {_shown(response)}")
    if response.status_code == _OK:
        return Answer(response.raw, exchange.idle, exchange.sending.tell)
    if response.status_code in range(300, 400):
        raise _redirect(response)
    raise _http_error(response, exchange.error_body())


class Answer:
    """The body of a 200 answer. Iterating yields pieces of at most PIECE_BYTES, each as soon as it is there."""

    def __init__(self, raw: Any, idle: IdleClock, tell: Tell) -> None:
        self._raw = raw
        self._idle = idle
        self._tell = tell

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces, content encoding undone. Raises ClockError (idle) or BrokenError."""
        while piece := self._read():
            yield piece
        self._tell("end of the body")

    def progress(self, *, finished: bool) -> None:
        """Start the idle clock anew; once the answer is finished, it only waits for what may follow."""
        self._idle.restart(FINISHED_GRACE_S if finished else None)

    def hurry(self) -> None:
        """Wait only for what is on its way."""
        self._idle.restart(HURRY_S)

    def _read(self) -> bytes:
        # read1 with a size is the one call of urllib3 that returns what has arrived, whatever the framing, and
        # that notices a Content-Length cut short. decode_content: a proxy may compress although told not to.
        self._idle.start()
        try:
            piece: bytes = self._raw.read1(PIECE_BYTES, decode_content=True)
        except _FAILURES as exc:
            self._idle.check()
            raise BrokenError(
                f"the connection broke before the answer was complete: {_reason(list(_causes(exc)))}",
                "what came is not the whole answer",
            ) from exc
        finally:
            self._idle.stop()
        self._idle.check()
        self._idle.silent = False
        return piece


class _Exchange:
    """One request on a thread of its own, so that no name server and no dribbled header can hold the caller.

    Afterwards the thread reads the body of an error, or stands guard over the idle clock of an answer. It is
    a daemon, and nothing waits for it: a caller whose clock ran out leaves it behind, and `sending` then
    refuses to send the body, so that no request reaches a model after all.
    """

    def __init__(self, send: Callable[[], requests.Response], sending: "_Sending", clocks: Clocks) -> None:
        self.idle = IdleClock(clocks)
        self.sending = sending
        self._clocks = clocks
        self._send = send
        self._news: queue.SimpleQueue[requests.Response | BaseException | None] = queue.SimpleQueue()
        self._error_body = bytearray()
        sending.report = lambda: self._news.put(None)

    def open(self) -> requests.Response:
        """Send the request and return the response, its body unread. Raises ClockError, or what `send` raises."""
        threading.Thread(target=self._run, daemon=True).start()
        limit_s = self._clocks.connect_timeout_s
        try:
            while (news := self._next(limit_s)) is None:  # the head, or a part of the body, is sent
                limit_s = self._clocks.idle_timeout_s
                self.idle.restart()
                self.idle.start()
        except queue.Empty:
            raise self._timed_out(limit_s, connected=self.sending.cancel()) from None
        self.idle.stop()
        if isinstance(news, BaseException):
            raise news
        return news

    def error_body(self) -> bytes:
        """Return the body of an HTTP error, as much as came within its limits."""
        with contextlib.suppress(queue.Empty):
            self._next(_ERROR_BODY_S)
        return bytes(self._error_body)

    def _next(self, limit_s: float) -> requests.Response | BaseException | None:
        """Return the next news from the thread. Raises queue.Empty after `limit_s` (0: never) or at the deadline.

        Time in which the process was stopped does not count: a slice of the wait is never longer than it should be.
        """
        left_s = limit_s or math.inf
        while True:
            slice_s = max(0.0, min(SLICE_S, left_s, self._clocks.deadline.left_s()))
            try:
                return self._news.get(timeout=slice_s)
            except queue.Empty:
                left_s -= slice_s
                if left_s <= 0 or self._clocks.deadline.left_s() <= 0:
                    raise

    def _timed_out(self, limit_s: float, *, connected: bool) -> ClockError:
        if self._clocks.deadline.left_s() <= 0:
            return self._clocks.deadline.error()
        if not connected:
            return _connect_timeout(limit_s)
        return ClockError(f"timed out: no answer began within {limit_s:g} s", "raise --idle-timeout, or try again")

    def _run(self) -> None:
        try:
            response = self._send()
        except BaseException as exc:  # noqa: BLE001  # it is raised again where the caller waits
            self._news.put(exc)
            return
        self._news.put(response)
        if response.status_code == _OK:
            self.idle.watch(lambda: _shut(response.raw))
            return
        with contextlib.suppress(*_FAILURES):
            while len(self._error_body) < _ERROR_BODY_BYTES and (
                piece := response.raw.read1(_ERROR_BODY_BYTES, decode_content=True)
            ):
                self._error_body += piece
        self._news.put(None)


class _Sending:
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


class _Upload(io.BytesIO):
    """The body of a request, read by urllib3 block by block, each under a time limit of its own."""

    def __init__(self, body: bytes, sending: _Sending) -> None:
        super().__init__(body)
        self._sending = sending

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next block. Raises OSError once the exchange was cancelled."""
        self._sending.step()
        block = super().read(size)
        if not block:
            self._sending.tell(f"request sent: {self._sending.what}")
        return block


class _Session(requests.Session):
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
    sending: _Sending

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


def _pools(connection_ahead: Ahead | None, request: _Sending) -> dict[str, type[urllib3.HTTPConnectionPool]]:
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

    def __init__(self, ahead: Ahead | None, sending: _Sending) -> None:
        self._pools = _pools(ahead, sending)
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, socket_options=_SOCKET_OPTIONS, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, socket_options=_SOCKET_OPTIONS, **kwargs)
        manager.pool_classes_by_scheme = self._pools
        return manager


class _Bearer(AuthBase):
    """The key of the endpoint, or none. As a callable it keeps ~/.netrc and a URL's user from taking its place."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._key = endpoint.key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.pop("Authorization", None)
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key.reveal()}"
        return request


_HEADERS = {
    "User-Agent": f"smai/{__version__}",
    # A proxy that compresses holds deltas back until a block is full.
    "Accept-Encoding": "identity",
}
_POST_HEADERS = {"Content-Type": "application/json", "Accept": "text/event-stream, application/json"}
_GET_HEADERS = {"Accept": "application/json"}
# On this machine no proxy is in the way, and a key in plain http must not go to one.
_NO_PROXIES: Any = {"http": None, "https": None, "all": None}


def _session(ahead: Ahead | None, sending: _Sending) -> requests.Session:
    session = _Session()
    for prefix in ("http://", "https://"):
        session.mount(prefix, _Adapter(ahead, sending))
    return session


def _shut(raw: Any) -> None:
    with contextlib.suppress(*_FAILURES, RuntimeError):
        raw.shutdown()


def _redirect(response: requests.Response) -> RefusedError:
    target = one_line(response.headers.get("location", "nowhere"), 200)
    return RefusedError(
        f"the server redirects to {target} ({response.status_code}), and smai follows no redirect",
        "check --base-url",
        http_status=response.status_code,
        request_id=_request_id(response),
    )


def _http_error(response: requests.Response, body: bytes) -> SmaiError:
    return http_error(
        response.status_code,
        response.reason or "",
        problem_in_body(body),
        wait_s=retry_after_s(response.headers),
        request_id=_request_id(response),
    )


def _request_id(response: requests.Response) -> str | None:
    return response.headers.get("x-request-id") or response.headers.get("request-id")


def _shown_url(endpoint: Endpoint, path: str) -> str:
    """Return the URL without its query, in which some put a key."""
    return endpoint.url(path).split("?", 1)[0]


def _shown(response: requests.Response) -> str:
    """Return the status of an answer, and the headers by which a server or a proxy in between is found."""
    parts = [f"{response.status_code} {response.reason or ''}".rstrip()]
    shown = ("content-type", "content-encoding", "server", "via", "retry-after", "x-request-id", "request-id")
    parts += [f"{name} {response.headers[name]}" for name in shown if name in response.headers]
    return one_line(", ".join(parts))


def _connect_timeout(limit_s: float) -> ClockError:
    return ClockError(
        f"timed out: no connection within {limit_s:g} s",
        "raise --connect-timeout, or try again",
        again=Again.UNANSWERED,
    )


def _translated(exc: Exception, *, connected: bool, clocks: Clocks) -> SmaiError:
    """Return what a failure before the headers is in smai's words, with the cause at the bottom of it."""
    chain = list(_causes(exc))
    reason = _reason(chain)
    if _any(chain, requests.exceptions.InvalidProxyURL, requests.exceptions.ProxyError, urllib3.exceptions.ProxyError):
        return ConnectError(f"could not connect through the proxy: {reason}", "check HTTPS_PROXY and HTTP_PROXY")
    # SOCKS without its package, or no proxy at all; the scheme of the base URL was checked before.
    if _any(chain, requests.exceptions.InvalidSchema, urllib3.exceptions.ProxySchemeUnknown):
        return ConnectError(f"the proxy cannot be used: {reason}", "check HTTPS_PROXY and ALL_PROXY", again=Again.NEVER)
    if _any(chain, requests.exceptions.InvalidURL, urllib3.exceptions.LocationValueError):
        if any("Failed to parse" in str(cause) for cause in chain):  # not the base URL, which was parsed before
            return ConnectError("the proxy is no URL", "check HTTPS_PROXY and ALL_PROXY", again=Again.NEVER)
        return UsageError(f"the base URL cannot be used: {reason}", "check --base-url and SMAI_BASE_URL")
    if _any(chain, requests.exceptions.SSLError, urllib3.exceptions.SSLError):
        return tls_error(reason)
    timeouts = (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)
    # urllib3 makes NewConnectionError, a refused connection, a kind of timeout.
    timed_out = any(
        isinstance(cause, timeouts) and not isinstance(cause, urllib3.exceptions.NewConnectionError) for cause in chain
    )
    return (_lost if connected else _unconnected)(chain, clocks.connect_timeout_s, timed_out=timed_out)


def _unconnected(chain: list[BaseException], limit_s: float, *, timed_out: bool) -> SmaiError:
    """Return the failure of a connection on which nothing was sent."""
    if _any(chain, urllib3.exceptions.NameResolutionError, socket.gaierror):
        return ConnectError(f"could not resolve the host: {_reason(chain)}", "check --base-url and the network")
    if timed_out and limit_s:
        return _connect_timeout(limit_s)
    return ConnectError(f"could not connect: {_reason(chain)}", "check --base-url and whether the server runs")


def _lost(chain: list[BaseException], limit_s: float, *, timed_out: bool) -> SmaiError:
    """Return the failure of a connection on which the request, or a part of it, was sent."""
    if timed_out:
        what = f"timed out: the server took no more of the request for {limit_s:g} s"
        return ClockError(what, "raise --connect-timeout, or try again")
    return BrokenError(
        f"the server dropped the request without an answer: {_reason(chain)}",
        "it may have been billed, so smai does not send it again by itself",
        again=Again.NEVER,
    )


def tls_error(reason: str) -> ConnectError:
    """Return the failure of a TLS handshake; the same certificate comes again, so nothing is retried."""
    if "certificate" in reason.lower():
        hint, retryable = "check --base-url, or name the CA in SSL_CERT_FILE", False
    elif "WRONG_VERSION_NUMBER" in reason or "record layer" in reason.lower():
        hint, retryable = "is it an http:// server", False
    else:
        hint, retryable = "try again", True
    return ConnectError(f"TLS failed: {reason}", hint, again=Again.NEVER, retryable=retryable)


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """Yield `exc` and what lies under it; requests and urllib3 wrap in args and `reason` as often as in causes."""
    seen: set[int] = set()
    waiting: list[Any] = [exc]
    while waiting:
        cause = waiting.pop(0)
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            waiting += [*cause.args, getattr(cause, "reason", None), cause.__cause__, cause.__context__]


def _any(chain: list[BaseException], *kinds: type[BaseException]) -> bool:
    return any(isinstance(cause, kinds) for cause in chain)


def _reason(chain: list[BaseException]) -> str:
    """Return the innermost cause in the system's words, fit for one line."""
    if _any(chain, http.client.IncompleteRead):  # also for a chunk size that is no number
        return "it was cut, or is malformed HTTP"
    for cause in chain:
        if isinstance(cause, OSError) and cause.strerror and not isinstance(cause, requests.RequestException):
            return one_line(cause.strerror, 200)
    # A URL in the words of a library may hold the password of a proxy.
    return one_line(re.sub(r"//[^/\s]*@", "//", str(chain[-1])) or type(chain[-1]).__name__, 200)
