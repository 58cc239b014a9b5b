"""A connection to the gateway: each request on it is checked, and answered by a file or by the server behind."""

import contextlib
import io
import re
import socket
import struct
import time
from http import HTTPStatus
from socketserver import BaseRequestHandler
from typing import TYPE_CHECKING

from smai_cli.errors import BrokenError, SmaiError
from smai_cli.http.transport import ResponseBody
from smai_cli.serve.answers import End, Reply, headers_from, refusal_of
from smai_cli.serve.checks import body_length, check
from smai_cli.serve.head import Head, Refusal, read_head, too_large_head
from smai_cli.serve.inbox import FloodError, Inbox
from smai_cli.text import one_line

if TYPE_CHECKING:
    from smai_cli.serve.gateway import Gateway
    from smai_cli.serve.pages import Page
    from smai_cli.serve.watch import Watched

_HEAD_BYTES = 65536
_BUFFER_BYTES = 65536
_DRAINED_BYTES = 128 * 1024 * 1024
# How long a new answer waits for the place of one that was just stopped.
_PLACE_S = 0.25
# Wherever it stands: an answer more that counts as streaming is no harm.
_STREAM = re.compile(rb'"stream"\s*:\s*true')
_BEFORE_A_CUT_S = 0.3
_NO_BODY = (HTTPStatus.NO_CONTENT, HTTPStatus.RESET_CONTENT)
_RESET = struct.pack("ii", 1, 0)


class _GoneError(Exception):
    """The client left before its answer was complete."""


class Handler(BaseRequestHandler):
    """A connection of a client, for as long as the client keeps it."""

    server: "Gateway"
    request: socket.socket

    def setup(self) -> None:
        """Send each piece at once."""
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._inbox = Inbox(self.request)
        self._file = io.BufferedReader(self._inbox, _BUFFER_BYTES)

    def handle(self) -> None:
        """Answer one request after the other."""
        # A client that left is no failure of anybody; what it had asked is told already.
        with contextlib.suppress(OSError, FloodError):
            while self._comes_another():
                if not self._answer_next():
                    return

    def _comes_another(self) -> bool:
        self._inbox.allow(self.server.limits.idle_s, _HEAD_BYTES)
        return bool(self._file.peek(1))

    def _answer_next(self) -> bool:
        """Answer a request; return whether the connection goes on."""
        reply = Reply(self.request)
        begun_s = time.monotonic()
        what = "a request that cannot be read"
        try:
            head = self._read_head()
            if head is None:
                return False
            what = one_line(f"{head.method} {head.path}", 100)
            reply.keeps = not (head.has_body or head.has("connection", "close") or head.is_old)
            self._answer(head, reply)
        except Refusal as refusal:
            reply.refuse(refusal)
        except (_GoneError, OSError):
            reply.end = End.STOPPED
        except Exception as error:  # noqa: BLE001  # one request fails, and the others go on
            self.server.report(error)
            reply.fail()
        told = f"{what}: {reply.told}, {reply.sent} bytes in {time.monotonic() - begun_s:.3f} s"
        self.server.trace(f"{told}, {reply.end.value}")
        if reply.resets:
            self.request.close()
        elif reply.is_unheard:
            self._drain()
        return reply.keeps

    def _read_head(self) -> Head | None:
        self._inbox.allow(self.server.limits.head_s, _HEAD_BYTES)
        try:
            return read_head(self._file)
        except TimeoutError:
            raise Refusal(HTTPStatus.REQUEST_TIMEOUT, "timeout", "the head of the request took too long") from None
        except FloodError:
            raise too_large_head() from None

    def _answer(self, head: Head, reply: Reply) -> None:
        check(head, self.server.door)
        page = self.server.pages.get(head.path)
        if page:
            self._show(page, head, reply)
            return
        path = head.path.removeprefix("/v1")
        if head.method == "GET":
            self._forward(path, None, head, reply)
            return
        body = self._read_body(head, body_length(head))
        # From here on nothing of this request is left in the connection.
        reply.keeps = not (head.has("connection", "close") or head.is_old)
        if not _STREAM.search(body):
            self._forward(path, body, head, reply)
            return
        if not self.server.streams.acquire(timeout=_PLACE_S):
            limit = self.server.limits.streams
            what = f"{limit} answers stream already, and a browser opens no more connections; stop one of them, or wait"
            raise Refusal(HTTPStatus.TOO_MANY_REQUESTS, "too_many_streams", what, kind="rate_limit_error")
        try:
            self._forward(path, body, head, reply)
        finally:
            self.server.streams.release()

    def _show(self, page: "Page", head: Head, reply: Reply) -> None:
        fields = [("Content-Type", page.content_type), ("Content-Length", str(len(page.body)))]
        reply.begin(HTTPStatus.OK, fields, closes=not reply.keeps)
        if head.method != "HEAD":
            reply.send(page.body)

    def _read_body(self, head: Head, length: int) -> bytes:
        if head.has("expect", "100-continue") and not head.is_old:
            self.request.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._inbox.allow(self.server.limits.body_s, length + _BUFFER_BYTES)
        try:
            body = self._file.read(length)
        except TimeoutError:
            raise Refusal(HTTPStatus.REQUEST_TIMEOUT, "timeout", "the body of the request took too long") from None
        if len(body) < length:
            raise _GoneError
        return body

    def _forward(self, path: str, body: bytes | None, head: Head, reply: Reply) -> None:
        """Have the server behind answer, for as long as the client waits for it."""
        exchange = self.server.exchange(path, body)
        try:
            with self.server.watch.over(self.request, exchange.close) as client:
                try:
                    answer = exchange.open()
                except SmaiError as error:
                    if client.has_left:
                        raise _GoneError from error
                    raise refusal_of(error, self.server.secrets) from error
                self._pass_on(answer, client, head, reply)
        finally:
            exchange.close()

    def _pass_on(self, answer: ResponseBody, client: "Watched", head: Head, reply: Reply) -> None:
        """Send the answer as it comes; where it breaks, break as well."""
        # A body that ends with its connection stays one: with an end of its own, a cut of it would look like the whole.
        is_bare = head.is_old or not answer.is_framed
        reply.is_chunked = not is_bare and answer.status not in _NO_BODY
        if is_bare:
            # A cut that is known must not look like that end, nor must the end of this process.
            reply.keeps = False
            reply.resets = True
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        reply.begin(answer.status, headers_from(answer, self.server.secrets))
        hider = self.server.hider()
        try:
            for piece in answer:
                answer.clock.wind()
                reply.send(hider.hidden_in(piece))
        except SmaiError as error:
            if client.has_left:
                raise _GoneError from error
            reply.send(hider.rest())
            # A browser forgets what its page has not read yet, once the connection breaks.
            time.sleep(_BEFORE_A_CUT_S)
            reply.cut(str(error) if isinstance(error, BrokenError) else error.what)
            return
        reply.send(hider.rest())
        reply.finish()
        if reply.resets:
            reply.resets = False
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes(8))

    def _drain(self) -> None:
        """Read what a refused client still sends: to close before it is read would destroy the answer on its way."""
        self.request.shutdown(socket.SHUT_WR)
        self._inbox.allow(self.server.limits.linger_s, _DRAINED_BYTES)
        while self._file.read1(_BUFFER_BYTES):
            pass
