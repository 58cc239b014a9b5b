"""One request and its answer: HTTP -> pieces of bytes, as they arrive.

Unlike requests, it returns what has arrived at once, and its timeouts do not restart with every byte.
"""

import contextlib
import functools
import math
import queue
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

from smai_cli.http import lean  # noqa: F401  # before anything imports requests

# isort: split
import requests

from smai_cli.common.clocks import SLICE_S, Clocks, IdleClock
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
    The request runs on its own thread, so that slow name servers and headers cannot block the caller. The thread opens
    and closes the connection, and reads the body of an error or watches the idle clock of an answer.
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
        self._session: Session | None = None
        self.status = 0
        self._owner = 0
        self._is_coded = self._has_ended = self._is_closed = False
        self._thread: threading.Thread | None = None
        self._thread_lock = threading.Lock()
        self._reading_lock = threading.Lock()
        self._response: Any = None
        self._reports: queue.SimpleQueue[requests.Response | BaseException | None] = queue.SimpleQueue()
        self._progress.report = functools.partial(self._reports.put, None)
        self._error_body = bytearray()

    def open(self) -> Self:
        """Send the request and wait for an HTTP status of success; return the exchange itself. Call it once.

        Raises ConnectError, ClockError, RefusedError, AccessError, BusyError or BrokenError.
        """
        self._owner = threading.get_ident()
        try:
            response = self._await_accepted()
        except BaseException:
            self.close()  # before a retry begins
            raise
        self.status, self._is_coded = response.status_code, "content-encoding" in response.headers
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
        self.clock.start()
        try:
            with self._reading_lock:  # the thread must not close the response while it is read
                self._progress.cancellation.check()
                piece: bytes = self._response.raw.read1(PIECE_BYTES, decode_content=self._is_coded)
        except FAILURES as exc:
            self.clock.check()
            self._check()
            reason = failures.reason_of(list(failures.iter_causes(exc)))
            what = f"the connection broke before the answer was complete: {reason}"
            raise BrokenError(what, "try again" if self._body is None else "the output is incomplete") from exc
        self.clock.check()
        self._check()
        self.clock.silent = False
        self._has_ended = not piece
        return piece

    def close(self) -> None:
        """End the exchange and release its resources; from any thread, at any time.

        The server sees the end at once. Only a name look-up cannot be interrupted, and keeps its thread busy.
        With `keep_alive`, the thread that opened the exchange first reads the rest of the answer, if that is quick.
        """
        if self._keep_alive and self.status and not self._is_closed and self._owner == threading.get_ident():
            self._drain(self._keep_alive)
        self._is_closed = True
        # Send an RST (`aborts`) if the server may still be sending; otherwise a FIN is enough.
        if not (self._keep_alive and self._has_ended):
            self._progress.cancel(aborts=not self.status or self._reading_lock.locked())
        self.clock.close()
        self._reports.put(None)
        with self._thread_lock:
            thread = self._thread
        if thread and thread.ident != threading.get_ident() and not self._progress.cancellation.is_resolving:
            thread.join(_QUICK_S)

    def _check(self) -> None:
        """Raise BrokenError if it was closed."""
        if self._is_closed:
            what = "the request was cancelled before the answer was complete"
            raise BrokenError(what, "ask again", retry=Retry.NEVER)

    def _await_accepted(self) -> requests.Response:
        """Return the response, with its body unread, if `open` may return its status. Raises SmaiError."""
        response = self._await_response()
        self._progress.trace(f"headers: {describe_head(response)}")
        if not self._is_returned(response):
            raise self._endpoint.explain(self._refusal(response))
        if self._progress.malformed and response.status_code in SUCCESSES:
            what = f"the server's answer is malformed HTTP: {self._progress.malformed}"
            raise BrokenError(what, "check --base-url, or try again later")
        self._check()
        return response

    def _is_returned(self, response: requests.Response) -> bool:
        """Return whether `open` returns the answer, instead of raising its failure."""
        status = response.status_code
        if not self._takes_any:
            return status in SUCCESSES
        is_of_proxy = status == _PROXY_AUTHENTICATION and self._progress.is_forwarded
        return status // 100 in (2, 4, 5) and not is_of_proxy

    def _await_response(self) -> requests.Response:
        """Start the request, and return the response, with its body unread. Raises SmaiError."""
        self._progress.connect_end_s = time.monotonic() + (self._clocks.connect_timeout_s or math.inf)
        with self._thread_lock:
            self._check()
            thread = threading.Thread(target=self._run, daemon=True)
            try:
                thread.start()
            except RuntimeError as exc:  # no thread is left
                raise self._failure(exc) from exc
            self._thread = thread
        limit_s = self._clocks.connect_timeout_s
        try:
            while (report := self._next_report(limit_s)) is None:  # a step was sent, or the exchange was closed
                self._check()
                limit_s = self._clocks.idle_timeout_s
                self.clock.reset()
                self.clock.start()
        except queue.Empty:
            is_at_proxy = self._progress.is_at_proxy  # before `cancel`, which makes the thread change it
            connected = self._progress.cancel(timed_out=True)
            if self._clocks.deadline.left_s() <= 0:
                raise self._clocks.deadline.error() from None
            if connected:
                raise failures.answer_timeout(limit_s, is_forwarded=self._progress.is_forwarded) from None
            if is_at_proxy:
                raise failures.proxy_timeout(failures.route_to(self._endpoint), limit_s) from None
            raise failures.connect_timeout(limit_s) from None
        if not isinstance(report, BaseException):
            return report
        self._check()
        if isinstance(report, FAILURES):
            raise self._failure(report) from report
        raise report

    def _next_report(self, limit_s: float) -> requests.Response | BaseException | None:
        """Return the next report of the thread. Raises queue.Empty after `limit_s` (0: never) or at the deadline.

        It waits in slices, so that time in which the process was stopped does not count.
        """
        left_s = limit_s or math.inf
        while True:
            slice_s = max(0.0, min(SLICE_S, left_s, self._clocks.deadline.left_s()))
            try:
                with self.clock.ignoring_stops(slice_s):
                    return self._reports.get(timeout=slice_s)
            except queue.Empty:
                left_s -= slice_s
                if left_s <= 0 or self._clocks.deadline.left_s() <= 0:
                    raise

    def _failure(self, exc: Exception) -> SmaiError:
        progress, route = self._progress, failures.route_to(self._endpoint)
        error = failures.translate_failure(
            exc, route, connected=progress.connected, is_forwarded=progress.is_forwarded, clocks=self._clocks
        )
        if self._body is None and isinstance(error, BrokenError):  # a GET is not billed
            return error.replaced(hint="try again", retry=Retry.UNANSWERED)
        return error

    def _refusal(self, response: requests.Response) -> SmaiError:
        """Return the failure for a status that is not a success, after waiting for its body within the limits."""
        if response.status_code == _PROXY_AUTHENTICATION and self._progress.is_forwarded:
            return failures.proxy_refusal(failures.route_to(self._endpoint), status_line(response))
        if response.status_code in range(300, 400):
            return failures.redirect_refusal(response)
        with contextlib.suppress(queue.Empty):
            self._next_report(_ERROR_BODY_S)
        self._check()
        return failures.response_failure(response, bytes(self._error_body))

    def _run(self) -> None:
        failure = None
        try:
            self._response = self._send()
            self._reports.put(self._response)
            if self._is_returned(self._response):
                self.clock.watch(functools.partial(self._progress.cancellation.cancel, aborts=True))
            else:
                self._read_error_body(self._response)
        except BaseException as exc:  # noqa: BLE001  # raised again in the thread that waits
            failure = exc
        self._release()
        self._reports.put(failure)

    def _send(self) -> requests.Response:
        server = self._endpoint.base_url, self._ca_file
        if self._keep_alive:
            self._progress.cancellation.check()
            made = self._session = self._keep_alive.acquire(*server, self._progress, self._preconnect)
        else:
            made = Session(server, self._progress, self._preconnect)
        settings = request_settings(self._endpoint, self._path, self._body, self._clocks, self._ca_file)
        if self._body is None:
            return made.get(**settings)
        return made.post(data=Upload(self._body, self._progress), **settings)

    def _read_error_body(self, response: requests.Response) -> None:
        with contextlib.suppress(*FAILURES):
            while len(self._error_body) < _ERROR_BODY_BYTES and (
                piece := response.raw.read1(_ERROR_BODY_BYTES, decode_content=True)
            ):
                self._error_body += piece
            self._has_ended = len(self._error_body) < _ERROR_BODY_BYTES

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
        """Close the connection, or keep it, once nothing reads from it."""
        if self._keep_alive and self._session and self._has_ended:
            with self._reading_lock:
                if self._keep_alive.release(self._session, self._progress):
                    return
        self._progress.cancellation.cancel()
        with self._reading_lock, contextlib.suppress(*FAILURES):
            if self._response is not None:
                self._response.raw.close()
            while self._progress.connections:
                self._progress.connections.pop().close()
