"""What the gateway says: heads with the headers of every answer, errors, and pieces in chunks."""

import json
import re
import socket
from collections.abc import Iterable
from email.utils import formatdate
from enum import Enum
from http import HTTPStatus

from smai_cli.config.keys import Secrets
from smai_cli.errors import Again, ClockError, SmaiError
from smai_cli.http.transport import ResponseBody
from smai_cli.serve.head import Refusal

# The page loads and asks nothing but this server, runs no script but its own files, and stands in no frame.
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
# Of the answer of the server behind, nothing else goes on.
_PASSED = ("Content-Type", "Retry-After", "x-request-id")
_VALUE = re.compile(r"[\x20-\x7e]{1,1000}")


class End(Enum):
    """How a request ended, in the words of -v."""

    COMPLETE = "complete"
    REFUSED = "refused"
    CUT = "cut"
    STOPPED = "stopped by the client"


class Reply:
    """The answer to one request, on its way to the client.

    `keeps` says that the connection goes on after it, `is_unheard` that something of the request was not read,
    `resets` that the connection is to be broken by RST. `told` is what -v says of it, `sent` how many bytes of its
    body went out.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.keeps = False
        self.is_chunked = False
        self.is_unheard = False
        self.resets = False
        self.told = "no answer"
        self.sent = 0
        self.end = End.COMPLETE
        self._connection = connection
        self._has_begun = False

    def begin(self, status: int, fields: Iterable[tuple[str, str]], *, closes: bool = False) -> None:
        """Send the head. That the connection will be closed is not said of a streamed answer.

        Some clients would take a cut for its end then (Node 20's fetch).
        """
        self._has_begun = True
        self.told = str(status)
        lines = [f"HTTP/1.1 {status} {_phrase(status)}", f"Date: {formatdate(usegmt=True)}"]
        framing = [("Transfer-Encoding", "chunked")] if self.is_chunked else []
        if closes:
            framing.append(("Connection", "close"))
        lines += [f"{name}: {value}" for name, value in (*fields, *framing, *_ALWAYS)]
        self._connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def send(self, piece: bytes) -> None:
        """Send a piece of the body at once; an empty chunk would be the last one."""
        if piece:
            self._connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if self.is_chunked else piece)
            self.sent += len(piece)

    def finish(self) -> None:
        """End a body of which it was not said how long it is."""
        if self.is_chunked:
            self._connection.sendall(b"0\r\n\r\n")

    def cut(self, why: str) -> None:
        """Leave the body without its end, and with it the connection."""
        self.keeps = False
        self.end = End.CUT
        self.told += f", {why}"

    def refuse(self, refusal: Refusal) -> None:
        """Answer with an error object; what was not read of the request ends the connection."""
        body = json.dumps(refusal.payload).encode()
        self.end = End.REFUSED
        self.is_unheard = not self.keeps
        fields = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *refusal.headers]
        self.begin(refusal.status, fields, closes=not self.keeps)
        self.told += f", {refusal.message}"
        self.send(body)

    def fail(self) -> None:
        """Answer for a defect, if nothing was said yet; otherwise it is a cut."""
        self.keeps = False
        if self._has_begun:
            self.cut("a defect in smai")
            return
        what = "there is a defect in smai; its terminal says more"
        self.refuse(Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "defect", what, kind="server_error"))


def headers_from(answer: ResponseBody, secrets: Secrets) -> list[tuple[str, str]]:
    """Return the headers of the server's answer that go on."""
    found = [(name, answer.header(name)) for name in _PASSED]
    return [(name, secrets.hidden_in(value)) for name, value in found if value and _VALUE.fullmatch(value)]


def refusal_of(error: SmaiError, secrets: Secrets) -> Refusal:
    """Return what is answered where the server gave no answer: 504 where a clock ran out, and 502.

    Clients try these again by themselves; where that could be billed twice they are told not to, in the header that
    OpenAI's libraries know.
    """
    status = HTTPStatus.GATEWAY_TIMEOUT if isinstance(error, ClockError) else HTTPStatus.BAD_GATEWAY
    headers = [("x-should-retry", "false")] if error.again is Again.NEVER else []
    if error.request_id and _VALUE.fullmatch(error.request_id):
        headers.append(("x-request-id", secrets.hidden_in(error.request_id)))
    return Refusal(
        status, f"upstream_{error.kind}", secrets.hidden_in(str(error)), kind="server_error", headers=tuple(headers)
    )


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Status"
