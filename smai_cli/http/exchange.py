"""One request and its answer: HTTP -> pieces of bytes, as they arrive.

Unlike requests, it returns what has arrived at once, and its timeouts do not restart with every byte.
"""

import contextlib
import math
import queue
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

from smai_cli.http import lean  # noqa: F401  # before anything imports requests

# isort: split
import requests

from smai_cli.common.clocks import Clocks, IdleClock
from smai_cli.common.trace import Trace, silent
from smai_cli.config.endpoint import Endpoint
from smai_cli.errors import BrokenError, ClockError, Retry, SmaiError
from smai_cli.http import failures
from smai_cli.http.failures import FAILURES
from smai_cli.http.preconnect import Preconnect
from smai_cli.http.progress import Progress, Upload
from smai_cli.http.request import describe_head, describe_request, request_settings, status_line
from smai_cli.http.session import Session

if TYPE_CHECKING:
    from smai_cli.http.keepalive import KeepAlive

PIECE_BYTES = 65536
# How much of the body of an HTTP error is read, and for how long: enough for the server's message.
_ERROR_BODY_BYTES = 65536
_ERROR_BODY_S = 5.0
# How long `close` waits for the thread after cancelling what it waits for; usually it ends at once.
_QUICK_S = 1.0
SUCCESSES = frozenset(range(200, 300)) - {204, 205, 206}  # RFC 9110, section 15; 201: BerriAI/litellm#9194
_PROXY_AUTHENTICATION = 407


class Exchange:
    """One request and its answer: `open` sends it and waits; iterating yields the body; `close` ends it at any time.

    `body` is that of a POST, None for a GET. `ca_file` has the trusted certificates (None: those of requests),
    `preconnect` may have a connection to the server, `keep_alive` is that of the calling worker. With `takes_any`,
    `open` also returns an answer with an error status; redirects and errors of a proxy are still raised. `status` is
    the HTTP status, 0 before there is an answer. Creating an exchange does no I/O.
    A request that has to connect is sent on a thread of its own, because a wait for a name server cannot be ended.
    """

    def __init__(  # noqa: PLR0913  # mostly keyword-only
        self,
        endpoint: Endpoint,
        path: str,
        body: bytes | None,
        clocks: Clocks,
        *,
        ca_file: str | None = None,
        preconnect: Preconnect | None = None,
        trace: Trace = silent,
        keep_alive: "KeepAlive | None" = None,
        takes_any: bool = False,
    ) -> None:
        self.clock = IdleClock(clocks.idle_timeout_s, clocks.deadline)
        self._clocks = clocks
        self._endpoint, self._path, self._body, self._ca_file = endpoint, path, body, ca_file
        self._progress = Progress(describe_request(endpoint, path, body), trace, has_no_body=body is None)
        self._preconnect = preconnect
        self._keep_alive = keep_alive
        self._takes_any = takes_any
        self._session: Session  # set by `_start`
        self.status = 0
        self._owner = 0
        self._is_coded = self._has_ended = self._is_closed = self._is_released = False
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._response: Any = None
        self._reports: queue.SimpleQueue[requests.Response | BaseException | None] = queue.SimpleQueue()
        self._progress.report = self.clock.restart

    def open(self) -> Self:
        """Send the request and wait for an HTTP status of success; return the exchange itself. Call it once.

        Raises ConnectError, ClockError, RefusedError, AccessError, BusyError or BrokenError.
        """
        self._owner = threading.get_ident()
        try:
            self._await_accepted()
        except BaseException:
            self.close()  # before a retry begins
            raise
        return self

    def __iter__(self) -> Iterator[bytes]:
        """Yield pieces of at most PIECE_BYTES as they arrive, with content encoding removed.

        Raises ClockError (idle) or BrokenError. It is closed at the end, on a failure, and if the caller stops early.
        """
        try:
            while piece := self._read():
                yield piece
            self._progress.trace("end of the body")
        finally:
            self.close()

    @property
    def is_framed(self) -> bool:
        """Whether HTTP marks the end of the body (RFC 9112, section 6.3), so that reading a cut body raises."""
        raw = self._response.raw
        return bool(raw.chunked) or raw.length_remaining is not None

    def header(self, name: str) -> str | None:
        """Return a header of the answer; None without it."""
        value: str | None = self._response.headers.get(name)
        return value

    def _read(self) -> bytes:
        """Return the next piece of the body; empty at the end. Raises as `__iter__` does."""
        # Only read1 with a size returns what has arrived, for any framing, and notices a body shorter than its
        # Content-Length. A proxy may compress despite Accept-Encoding.
        try:
            self._progress.cancellation.check()
            piece: bytes = self._response.raw.read1(PIECE_BYTES, decode_content=self._is_coded)
        except ClockError:
            self._progress.cancel(timed_out=True)
            raise
        except FAILURES as exc:
            self._check()
            reason = failures.reason_of(list(failures.iter_causes(exc)))
            what = f"the connection broke before the answer was complete: {reason}"
            raise BrokenError(what, "try again" if self._body is None else "the output is incomplete") from exc
        self._check()
        self.clock.silent = False
        self._has_ended = not piece
        return piece

    def close(self) -> None:
        """End the exchange and release its resources; from any thread, at any time.

        The server sees the end at once. Only a name look-up cannot be interrupted, and keeps its thread busy.
        With `keep_alive`, the thread that opened the exchange first reads the rest of the answer, if that is quick.
        """
        is_owner = self._owner == threading.get_ident()
        if self._keep_alive and self.status and not self._is_closed and is_owner:
            self._drain(self._keep_alive)
        self._is_closed = True
        # Send an RST (`aborts`) if the server may still be sending; otherwise a FIN is enough.
        if not (self._keep_alive and self._has_ended):
            self._progress.cancel(aborts=not (is_owner and (self.status or self._has_ended)))
        self._reports.put(None)
        with self._lock:
            thread = self._thread
        if thread and not self._progress.cancellation.is_resolving:
            thread.join(_QUICK_S)
        if is_owner and not (thread and thread.is_alive()):
            self._release()

    def _check(self) -> None:
        """Raise BrokenError if it was closed."""
        if self._is_closed:
            what = "the request was cancelled before the answer was complete"
            raise BrokenError(what, "ask again", retry=Retry.NEVER)

    def _await_accepted(self) -> None:
        """Return once there is an answer whose status `open` may return, with its body unread. Raises SmaiError."""
        response = self._await_response()
        self._progress.clock = self.clock
        self._is_coded = "content-encoding" in response.headers
        if self._progress.is_traced:
            self._progress.trace(f"headers: {describe_head(response)}")
        if not self._is_returned(response):
            raise self._endpoint.explain(self._refusal(response))
        if self._progress.malformed and response.status_code in SUCCESSES:
            what = f"the server's answer is malformed HTTP: {self._progress.malformed}"
            raise BrokenError(what, "check --base-url, or try again later")
        self._check()
        self.status = response.status_code

    def _is_returned(self, response: requests.Response) -> bool:
        """Return whether `open` returns the answer, instead of raising its failure."""
        status = response.status_code
        if not self._takes_any:
            return status in SUCCESSES
        is_of_proxy = status == _PROXY_AUTHENTICATION and self._progress.is_forwarded
        return status // 100 in (2, 4, 5) and not is_of_proxy

    def _await_response(self) -> requests.Response:
        """Start the request, and return the response, with its body unread. Raises SmaiError."""
        limit_s = self._clocks.connect_timeout_s or math.inf
        self._progress.connect_end_s = time.monotonic() + limit_s
        self.clock.allow(limit_s)
        try:
            self._start()
            return self._next_report()
        except ClockError as exc:
            raise self._timeout(exc) from None
        except FAILURES as exc:
            self._check()
            raise self._failure(exc) from exc

    def _start(self) -> None:
        """Send the request, on a thread of its own if it has to connect. Raises SmaiError or OSError."""
        server = self._endpoint.base_url, self._ca_file
        if self._keep_alive:
            self._session = self._keep_alive.acquire(*server, self._progress, self._preconnect)
            if self._session.is_used_again:
                self._progress.clock = self.clock
                self._run()
                return
        else:
            self._session = Session(server, self._progress, self._preconnect)
        with self._lock:
            self._check()
            thread = threading.Thread(target=self._run, daemon=True)
            try:
                thread.start()
            except RuntimeError as exc:  # no thread is left
                raise self._failure(exc) from exc
            self._thread = thread

    def _next_report(self) -> requests.Response:
        """Wait for the response. Raises what prevented it, ClockError, or BrokenError if the exchange was closed."""
        idle_s = self._clocks.idle_timeout_s or math.inf
        while True:
            wait_s = min(self.clock.next_wait_s(), idle_s)  # a step restarts the clock, but does not end this wait
            with contextlib.suppress(queue.Empty):
                report = self._reports.get(timeout=wait_s)
                self._check()
                if isinstance(report, BaseException):
                    raise report
                if report is not None:
                    return report

    def _timeout(self, error: SmaiError) -> SmaiError:
        """Return the failure of a request that got no answer in time, and cancel it."""
        is_at_proxy = self._progress.is_at_proxy  # before `cancel`, which makes the thread change it
        connected = self._progress.cancel(timed_out=True)
        if self._clocks.deadline.left_s() <= 0:
            return error
        if connected:
            return failures.answer_timeout(self._clocks.idle_timeout_s, is_forwarded=self._progress.is_forwarded)
        limit_s = self._clocks.connect_timeout_s
        if is_at_proxy:
            return failures.proxy_timeout(failures.route_to(self._endpoint), limit_s)
        return failures.connect_timeout(limit_s)

    def _failure(self, exc: Exception) -> SmaiError:
        progress, route = self._progress, failures.route_to(self._endpoint)
        error = failures.translate_failure(
            exc, route, connected=progress.connected, is_forwarded=progress.is_forwarded, clocks=self._clocks
        )
        if self._body is None and isinstance(error, BrokenError):  # a GET is not billed
            return error.replaced(hint="try again", retry=Retry.UNANSWERED)
        return error

    def _refusal(self, response: requests.Response) -> SmaiError:
        """Return the failure for a status that is not a success, after reading its body within the limits."""
        if response.status_code == _PROXY_AUTHENTICATION and self._progress.is_forwarded:
            return failures.proxy_refusal(failures.route_to(self._endpoint), status_line(response))
        if response.status_code in range(300, 400):
            return failures.redirect_refusal(response)
        body = bytearray()
        self.clock.reset()
        self.clock.finish(_ERROR_BODY_S)
        with contextlib.suppress(BrokenError, ClockError):
            while len(body) < _ERROR_BODY_BYTES and not self._has_ended:
                body += self._read()
        self._check()
        return failures.response_failure(response, bytes(body[:_ERROR_BODY_BYTES]))

    def _run(self) -> None:
        """Send the request, and report the response, or what prevented it."""
        report: requests.Response | BaseException
        try:
            settings = request_settings(self._endpoint, self._path, self._body, self._clocks, self._ca_file)
            if self._body is None:
                report = self._session.get(**settings)
            else:
                report = self._session.post(data=Upload(self._body, self._progress), **settings)
            self._response = report
        except BaseException as exc:  # noqa: BLE001  # raised again in the thread that waits
            report = exc
        if self._is_closed:  # otherwise `close` does it, after it has told the server
            self._release()
        self._reports.put(report)

    def _drain(self, keep_alive: "KeepAlive") -> None:
        """Read the unneeded rest of an answer, such as the last chunk after `[DONE]`."""
        self.clock.finish(keep_alive.drain_s)
        left = PIECE_BYTES
        try:
            while left > 0 and not self._has_ended:
                left -= len(self._read())
        except ClockError:
            keep_alive.record_drain(in_time=False)
        except SmaiError:  # it was cancelled, or is broken
            return
        else:
            keep_alive.record_drain(in_time=True)

    def _release(self) -> None:
        """Close the connection, or keep it for the next request."""
        with self._lock:
            if self._is_released:
                return
            self._is_released = True
        if self._keep_alive and self._has_ended and self._keep_alive.release(self._session, self._progress):
            return
        self._progress.cancellation.cancel()
        with contextlib.suppress(*FAILURES):
            if self._response is not None:
                self._response.raw.close()
            while self._progress.connections:
                self._progress.connections.pop().close()
