"""A connection to the gateway: each request on it is checked, then answered by a file or by the upstream server."""

import contextlib
import io
import re
import socket
import time
from collections.abc import Iterator
from http import HTTPStatus
from socketserver import BaseRequestHandler

from smai_cli.common.text import one_line
from smai_cli.errors import SmaiError
from smai_cli.http.exchange import SUCCESSES, Exchange
from smai_cli.serve.answers import Reply, ReplyEnd, UnreadError, headers_from, refusal_of
from smai_cli.serve.checks import API_METHODS, SETTINGS_PATH, body_length, check
from smai_cli.serve.gateway import Gateway
from smai_cli.serve.head import Head, Refusal, read_head, too_large_head
from smai_cli.serve.hiding import Hider
from smai_cli.serve.inbox import FloodError, GoneError, Inbox
from smai_cli.serve.pages import PageFile
from smai_cli.serve.watch import WatchedClient

_HEAD_BYTES = 65536
_BUFFER_BYTES = 65536
_DRAINED_BYTES = 128 * 1024 * 1024
# How long a new answer waits for the place of one that was just stopped.
_PLACE_S = 0.25
# Anywhere in the body: it does no harm if one answer too many counts as a stream.
_STREAM = re.compile(rb'"stream"\s*:\s*true')
_BEFORE_A_CUT_S = 0.3


class GatewayHandler(BaseRequestHandler):
    """A connection of a client, for as long as the client keeps it."""

    request: socket.socket
    server: Gateway

    def setup(self) -> None:
        """Send each piece at once."""
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._inbox = Inbox(self.request)
        self._file = io.BufferedReader(self._inbox, _BUFFER_BYTES)

    def handle(self) -> None:
        """Answer one request after the other."""
        # A client may leave at any time. What it had asked for is traced already.
        with contextlib.suppress(GoneError, FloodError, OSError):
            while self._wait_for_request() and self._answer_next():
                pass

    def _wait_for_request(self) -> bool:
        """Wait for the next request; return False if the client ends the connection instead."""
        self._inbox.allow(self.server.limits.idle_s, _HEAD_BYTES)
        return bool(self._file.peek(1))

    def _answer_next(self) -> bool:
        """Answer a request; return whether the connection stays open."""
        reply = Reply(self.request, lambda: self.server.limits.write_s)
        begun_s = time.monotonic()
        head = None
        try:
            try:
                head = self._read_head()
                if head is None:
                    return False
                self._answer(head, reply)
            except Refusal as refusal:
                reply.refuse(refusal)
        except UnreadError:
            reply.give_up()
        except GoneError:
            if reply.end is ReplyEnd.SENT:  # many clients leave at [DONE], before the body ends
                reply.end = ReplyEnd.STOPPED
        except Exception as error:  # noqa: BLE001  # one request fails, and the others go on
            self.server.report(error)
            reply.fail()
        what = one_line(f"{head.method} {head.path}", 100) if head else "a request that cannot be read"
        figures = f"{reply.sent} bytes in {time.monotonic() - begun_s:.3f} s"
        self.server.trace(f"{what}: {reply.summary}, {figures}, {reply.end.value}")
        if reply.resets:
            self.request.close()
        elif reply.has_unread_request:
            self._drain()
        return reply.keeps

    def _read_head(self) -> Head | None:
        """Return the head of the next request, None at the end of the connection. Raises Refusal."""
        self._inbox.allow(self.server.limits.head_s, _HEAD_BYTES)
        try:
            return read_head(self._file)
        except TimeoutError:
            raise Refusal(HTTPStatus.REQUEST_TIMEOUT, "timeout", "the head of the request took too long") from None
        except FloodError:
            raise too_large_head() from None

    def _answer(self, head: Head, reply: Reply) -> None:
        """Answer a request whose head was read. Raises Refusal."""
        reply.keeps = not (head.has_body or head.has("connection", "close") or head.is_old)
        reply.has_no_body = head.method == "HEAD"
        has_token = check(head, self.server.access)
        if not has_token:
            self._send_page(self.server.pages[head.path], reply)
            return
        with self.server.connections.busy(self.request):
            if head.path == SETTINGS_PATH:
                self._send_page(self.server.settings.page(), reply)
            elif API_METHODS[head.path] == "GET":
                self._forward(head.path.removeprefix("/v1"), None, head, reply)
            else:
                self._post(head.path.removeprefix("/v1"), head, reply)

    def _post(self, path: str, head: Head, reply: Reply) -> None:
        """Pass on a request with a body, within the limit of answers that stream at once. Raises Refusal."""
        body = self._read_body(head, body_length(head), reply)
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

    def _send_page(self, page: PageFile, reply: Reply) -> None:
        fields = [("Content-Type", page.content_type), ("Content-Length", str(len(page.body)))]
        reply.begin(HTTPStatus.OK, fields, closes=not reply.keeps)
        reply.send(page.body)

    def _read_body(self, head: Head, length: int, reply: Reply) -> bytes:
        """Return the body of a request. Raises Refusal, and GoneError if the client leaves."""
        if head.has("expect", "100-continue") and not head.is_old:
            reply.ask_for_body()
        self._inbox.allow(self.server.limits.body_s, length + _BUFFER_BYTES)
        try:
            body = self._file.read(length)
        except TimeoutError:
            raise Refusal(HTTPStatus.REQUEST_TIMEOUT, "timeout", "the body of the request took too long") from None
        if len(body) < length:
            raise GoneError
        return body

    def _forward(self, path: str, body: bytes | None, head: Head, reply: Reply) -> None:
        """Ask the upstream server, for as long as the client waits for the answer."""
        exchange = self.server.exchange(path, body)
        try:
            with self.server.watch.over(self.request, exchange.close) as client:
                try:
                    answer = exchange.open()
                except SmaiError as error:
                    if client.has_left:
                        raise GoneError from error
                    raise refusal_of(error, self.server.secrets) from error
                self._pass_on(answer, body, client, head, reply)
        finally:
            exchange.close()

    def _pass_on(self, answer: Exchange, body: bytes | None, client: WatchedClient, head: Head, reply: Reply) -> None:
        """Send the answer to a request with `body` as it comes. If it is cut, cut it for the client too."""
        # A body that ends with its connection is passed on as such: if chunked, a cut body would look complete.
        is_bare = head.is_old or not answer.is_framed
        reply.is_chunked = not is_bare and answer.status != HTTPStatus.NO_CONTENT  # which has no body at all
        if is_bare:
            # A cut that is known must not look like that end, and neither must the end of this process.
            reply.keeps = False
            reply.set_reset(resets=True)
        answer.clock.reset()
        reply.limit_s = answer.clock.left_s  # the idle clock, or the deadline if that is sooner
        reply.begin(answer.status, headers_from(answer, self.server.hidden))
        pieces = self._sent_pieces(answer, client, reply)
        if body is not None and answer.status not in SUCCESSES:
            reply.end = ReplyEnd.REFUSED
        elif body is not None and self.server.judges:
            from smai_cli.serve.judge import find_shortfall  # for -v only

            shortfall = find_shortfall(pieces, head.path.removeprefix("/v1"), body, is_framed=answer.is_framed)
            if reply.end is not ReplyEnd.CUT:
                reply.end = ReplyEnd.INCOMPLETE if shortfall else ReplyEnd.COMPLETE
        for _ in pieces:
            pass
        if reply.end is ReplyEnd.CUT:
            return
        reply.finish()
        if is_bare:
            reply.set_reset(resets=False)

    def _sent_pieces(self, answer: Exchange, client: WatchedClient, reply: Reply) -> Iterator[bytes]:
        """Send each piece of the body and yield it; note a cut in `reply`. Raises GoneError, and what `send` does."""
        hider = Hider(self.server.hidden)
        try:
            for piece in answer:
                answer.clock.reset()
                reply.send(hider.hidden_in(piece))
                yield piece
        except SmaiError as error:
            if client.has_left:
                raise GoneError from error
            answer.clock.reset()
            reply.send(hider.rest())
            # A browser drops what its page has not read yet when the connection breaks.
            time.sleep(_BEFORE_A_CUT_S)
            reply.cut(error.describe())
            return
        answer.clock.reset()
        reply.send(hider.rest())

    def _drain(self) -> None:
        """Read the rest of a refused request: to close before would destroy the answer on its way to the client."""
        self.request.shutdown(socket.SHUT_WR)
        self._inbox.allow(self.server.limits.linger_s, _DRAINED_BYTES)
        while self._file.read1(_BUFFER_BYTES):
            pass
