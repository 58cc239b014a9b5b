"""The answers of the gateway: heads with the headers of every answer, errors, and chunked bodies."""

import contextlib
import json
import re
import socket
import struct
from collections.abc import Callable, Iterable
from email.utils import formatdate
from enum import Enum
from http import HTTPStatus
from http.client import responses

from smai_cli.config.keys import Secrets
from smai_cli.errors import ClockError, Retry, SmaiError
from smai_cli.http.exchange import Exchange
from smai_cli.serve.head import Refusal
from smai_cli.serve.hiding import Hider
from smai_cli.serve.inbox import GoneError

# The page loads from and asks this server only, runs its own scripts only, and cannot be framed.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_ALWAYS = (
    ("Content-Security-Policy", _POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)
# No other header of the upstream answer is passed on.
_PASSED = ("Content-Type", "Retry-After", "x-request-id")
_VALUE = re.compile(r"[\x20-\x7e]{1,1000}")
# Marks the errors of the gateway itself. A server cannot send it: it is not one of those that are passed on.
_OWN_ERROR = ("Smai-Gateway", "error")
_SHORTEST_S = 0.001
_RESET = struct.pack("ii", 1, 0)


class UnreadError(Exception):
    """The client did not take what was sent to it in time."""


class ReplyEnd(Enum):
    """How a request ended, in the words of -v. Only an answer of a model can be complete or incomplete."""

    SENT = "sent"
    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    REFUSED = "refused"
    CUT = "cut"
    STOPPED = "stopped by the client"
    UNREAD = "not read by the client"


class Reply:
    """The answer to one request, on its way to the client.

    `keeps` says that the connection stays open after it, `is_chunked` that its body is sent in chunks, `has_no_body`
    that only its head is sent (HEAD), `has_unread_request` that a part of the request was not read, and `resets` that
    the connection is to end with RST. `summary` and `end` are what -v prints, `sent` is the bytes of the body so far.
    `limit_s` returns the seconds within which the client must take the next write. Each method that sends raises
    UnreadError if it does not, and GoneError if it has left.
    """

    def __init__(self, connection: socket.socket, limit_s: Callable[[], float]) -> None:
        self.keeps = False
        self.is_chunked = False
        self.has_no_body = False
        self.has_unread_request = False
        self.resets = False
        self.summary = "no answer"
        self.sent = 0
        self.end = ReplyEnd.SENT
        self.limit_s = limit_s
        self._connection = connection
        self._has_begun = False

    def begin(self, status: int, fields: Iterable[tuple[str, str]], *, closes: bool = False) -> None:
        """Send the head; `closes` adds `Connection: close`.

        A streamed answer goes without that header: Node 20's fetch would take a cut for its end.
        """
        self._has_begun = True
        self.summary = str(status)
        lines = [f"HTTP/1.1 {status} {responses.get(status, '')}", f"Date: {formatdate(usegmt=True)}"]
        framing = [("Transfer-Encoding", "chunked")] if self.is_chunked else []
        if closes:
            framing.append(("Connection", "close"))
        lines += [f"{name}: {value}" for name, value in (*fields, *framing, *_ALWAYS)]
        self._write("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def send(self, piece: bytes) -> None:
        """Send a piece of the body at once. An empty one is left out: as a chunk it would be the last."""
        if piece and not self.has_no_body:
            self._write(b"%x\r\n%s\r\n" % (len(piece), piece) if self.is_chunked else piece)
            self.sent += len(piece)

    def ask_for_body(self) -> None:
        """Send the interim answer that a client with `Expect: 100-continue` waits for."""
        self._write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def finish(self) -> None:
        """Send the last chunk of a chunked body."""
        if self.is_chunked:
            self._write(b"0\r\n\r\n")

    def cut(self, why: str) -> None:
        """Leave the body without its end, and close the connection after it."""
        self.keeps = False
        self.end = ReplyEnd.CUT
        self.summary += f", {why}"

    def refuse(self, refusal: Refusal) -> None:
        """Answer with an error object. If a part of the request was not read, the connection ends."""
        body = json.dumps(refusal.payload).encode()
        self.end = ReplyEnd.REFUSED
        self.has_unread_request = not self.keeps
        length = ("Content-Length", str(len(body)))
        fields = [("Content-Type", "application/json"), length, _OWN_ERROR, *refusal.headers]
        self.begin(refusal.status, fields, closes=not self.keeps)
        self.summary += f", {refusal.message}"
        self.send(body)

    def fail(self) -> None:
        """Answer with status 500 after a failure of smai itself. If the answer has begun, cut it."""
        self.keeps = False
        if self._has_begun:
            self.cut("smai failed")
            return
        what = "smai serve failed; see its terminal"
        self.refuse(Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", what, kind="server_error"))

    def give_up(self) -> None:
        """Note that the client does not read. The connection ends with RST, so that nothing waits to be sent."""
        self.keeps = self.has_unread_request = False
        self.set_reset(resets=True)
        self.end = ReplyEnd.UNREAD

    def set_reset(self, *, resets: bool) -> None:
        """Set whether the connection ends with RST, however this process ends."""
        self.resets = resets
        with contextlib.suppress(OSError):
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET if resets else bytes(8))

    def _write(self, data: bytes) -> None:
        self._connection.settimeout(max(self.limit_s(), _SHORTEST_S))
        try:
            self._connection.sendall(data)  # the timeout is for all of it, not for each part that is taken
        except TimeoutError:
            raise UnreadError from None
        except OSError:
            raise GoneError from None
        finally:
            self._connection.settimeout(None)


def headers_from(answer: Exchange, secrets: list[str]) -> list[tuple[str, str]]:
    """Return the headers of the upstream answer that are passed on, without `secrets`."""
    found = [(name, answer.header(name)) for name in _PASSED]
    return [(name, Hider.hide(value, secrets)) for name, value in found if value and _VALUE.fullmatch(value)]


def refusal_of(error: SmaiError, secrets: Secrets) -> Refusal:
    """Return the refusal for an upstream failure before an answer: 504 if a clock ran out, 502 otherwise.

    Clients try both again by themselves. If that could be billed twice, the header `x-should-retry: false`, which
    OpenAI's libraries obey, asks them not to.
    """
    status = HTTPStatus.GATEWAY_TIMEOUT if isinstance(error, ClockError) else HTTPStatus.BAD_GATEWAY
    headers = [("x-should-retry", "false")] if error.retry is Retry.NEVER else []
    if error.request_id and _VALUE.fullmatch(error.request_id):
        headers.append(("x-request-id", secrets.hidden_in(error.request_id)))
    return Refusal(
        status, f"upstream_{error.kind}", secrets.hidden_in(str(error)), kind="server_error", headers=tuple(headers)
    )
