"""A request -> HTTP -> pieces of bytes, as they arrive.

Kept out here are two things that requests does and a streaming tool must not: reads that wait for more than has
arrived, and timeouts that start anew with every byte. `connections` and `failures` see to the others.
"""

import contextlib
import math
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import requests

from smai_cli import __version__
from smai_cli.ahead import Ahead
from smai_cli.clocks import SLICE_S, Clocks, IdleClock
from smai_cli.config import Endpoint, shown_url
from smai_cli.connections import Bearer, Sending, Session, Upload, session
from smai_cli.errors import Again, BrokenError, ClockError, RefusedError, SmaiError, UsageError
from smai_cli.failures import FAILURES, causes, connect_timeout, reason_of, translated
from smai_cli.problem import problem_in_body
from smai_cli.retry import retry_after_s, should_retry
from smai_cli.tell import Tell, silent
from smai_cli.text import one_line

PIECE_BYTES = 65536
# How much of the body of an HTTP error is read, and for how long: enough for the server's words.
_ERROR_BODY_BYTES = 65536
_ERROR_BODY_S = 5.0
_OK = 200


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
    sending = Sending(f"POST {_shown_url(endpoint, path)}, {len(body)} bytes", tell)

    def send() -> requests.Response:
        where = _where(endpoint, path, clocks, ca_file)
        upload = Upload(body, sending)
        return session(ahead, sending).post(data=upload, headers=_HEADERS | _POST_HEADERS, **where)

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
    sending = Sending(f"GET {_shown_url(endpoint, path)}", tell, is_whole=True)

    def send() -> requests.Response:
        where = _where(endpoint, path, clocks, ca_file)
        return session(ahead, sending).get(headers=_HEADERS | _GET_HEADERS, **where)

    try:
        return _answer(_Exchange(send, sending, clocks), clocks)
    except BrokenError as error:
        error.hint, error.again = "try again", Again.UNANSWERED
        raise


def prepared(endpoint: Endpoint, path: str, body: bytes) -> tuple[str, dict[str, str]]:
    """Return the URL and the headers with which `post` would send `body`; nothing is sent, and no key is in them.

    Raises UsageError for a base URL that cannot be asked.
    """
    request = requests.Request("POST", endpoint.url(path), headers=_HEADERS | _POST_HEADERS, data=body)
    request.auth = Bearer(endpoint._replace(key=None))
    try:
        ready = Session().prepare_request(request)
    except FAILURES as exc:  # a name of a host that IDNA does not take (RFC 5891)
        reason = reason_of(list(causes(exc)))
        raise UsageError(f"the base URL cannot be used: {reason}", "check --base-url and SMAI_BASE_URL") from exc
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
        "auth": Bearer(endpoint),
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
    except FAILURES as exc:
        raise translated(exc, connected=exchange.sending.connected, clocks=clocks) from exc
    exchange.sending.tell(f"headers: {_shown(response)}")
    if response.status_code == _OK:
        return Answer(response.raw, exchange.clock, exchange.sending.tell)
    if response.status_code in range(300, 400):
        raise _redirect(response)
    raise _http_error(response, exchange.error_body())


class Answer:
    """The body of a 200 answer. Iterating yields pieces of at most PIECE_BYTES, each as soon as it is there."""

    def __init__(self, raw: Any, clock: IdleClock, tell: Tell) -> None:
        self.clock = clock
        self._raw = raw
        self._tell = tell

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces, content encoding undone. Raises ClockError (idle) or BrokenError."""
        while piece := self._read():
            yield piece
        self._tell("end of the body")

    @property
    def is_framed(self) -> bool:
        """Whether the body has an end of its own (RFC 9112, section 6.3), so that one that was cut raises."""
        return bool(self._raw.chunked) or "content-length" in self._raw.headers

    def close(self) -> None:
        """Let go of the connection and of the thread."""
        self.clock.close()

    def _read(self) -> bytes:
        # read1 with a size is the one call of urllib3 that returns what has arrived, whatever the framing, and
        # that notices a Content-Length cut short. decode_content: a proxy may compress although told not to.
        self.clock.start()
        try:
            piece: bytes = self._raw.read1(PIECE_BYTES, decode_content=True)
        except FAILURES as exc:
            self.clock.check()
            raise BrokenError(
                f"the connection broke before the answer was complete: {reason_of(list(causes(exc)))}",
                "what came is not the whole answer",
            ) from exc
        self.clock.check()
        self.clock.silent = False
        return piece


class _Exchange:
    """One request on a thread of its own, so that no name server and no dribbled header can hold the caller.

    Afterwards the thread reads the body of an error, or stands guard over the idle clock of an answer. It is
    a daemon, and nothing waits for it: a caller whose clock ran out leaves it behind, and `sending` then
    refuses to send the body, so that no request reaches a model after all.
    """

    def __init__(self, send: Callable[[], requests.Response], sending: "Sending", clocks: Clocks) -> None:
        self.clock = IdleClock(clocks.idle_timeout_s, clocks.deadline)
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
                self.clock.wind()
                self.clock.start()
        except queue.Empty:
            raise self._timed_out(limit_s, connected=self.sending.cancel()) from None
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
            return connect_timeout(limit_s)
        return ClockError(f"timed out: no answer began within {limit_s:g} s", "raise --idle-timeout, or try again")

    def _run(self) -> None:
        try:
            response = self._send()
        except BaseException as exc:  # noqa: BLE001  # it is raised again where the caller waits
            self._news.put(exc)
            return
        self._news.put(response)
        if response.status_code == _OK:
            self.clock.watch(lambda: _shut(response.raw))
            return
        with contextlib.suppress(*FAILURES):
            while len(self._error_body) < _ERROR_BODY_BYTES and (
                piece := response.raw.read1(_ERROR_BODY_BYTES, decode_content=True)
            ):
                self._error_body += piece
        self._news.put(None)


_HEADERS = {
    "User-Agent": f"smai/{__version__}",
    # A proxy that compresses holds deltas back until a block is full.
    "Accept-Encoding": "identity",
}
_POST_HEADERS = {"Content-Type": "application/json", "Accept": "text/event-stream, application/json"}
_GET_HEADERS = {"Accept": "application/json"}
# On this machine no proxy is in the way, and a key in plain http must not go to one.
_NO_PROXIES: Any = {"http": None, "https": None, "all": None}


def _shut(raw: Any) -> None:
    with contextlib.suppress(*FAILURES, RuntimeError):
        raw.shutdown()


def _redirect(response: requests.Response) -> RefusedError:
    target = one_line(shown_url(response.headers.get("location", "nowhere")), 200)
    return RefusedError(
        f"the server redirects to {target} ({response.status_code}), and smai follows no redirect",
        "check --base-url",
        http_status=response.status_code,
        request_id=_request_id(response),
    )


def _http_error(response: requests.Response, body: bytes) -> SmaiError:
    from smai_cli.meaning import http_error  # noqa: PLC0415  # only for a failure

    return http_error(
        response.status_code,
        response.reason or "",
        problem_in_body(body),
        wait_s=retry_after_s(response.headers),
        request_id=_request_id(response),
        should_retry=should_retry(response.headers),
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
