"""A loopback server that speaks both dialects: scripted replies, recorded tapes, and faults on request.

What `smai mock` serves, what `smai ask --mock` asks, and the double that the tests ask.
"""

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

from smai_cli.mock import script as answers
from smai_cli.mock.script import Script

_HOST = "127.0.0.1"
_REQUEST_LIMIT = 64 * 1024 * 1024


@dataclass(frozen=True)
class Received:
    """A request as the mock got it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class Mock(ThreadingHTTPServer):
    """The server, on a free port of 127.0.0.1 unless `port` names one. Use it as a context manager.

    `url` is the base URL, `received` what was asked so far. Raises OSError where the port is taken.
    """

    daemon_threads = True
    block_on_close = False
    # 100 clients may come at once; the default of 5 makes the rest wait a second for their SYN to be repeated.
    request_queue_size = 512

    def __init__(self, script: Script | None = None, port: int = 0) -> None:
        super().__init__((_HOST, port), _Handler)
        self.script = script or Script()
        self.url = f"http://{_HOST}:{self.server_port}/v1"
        self.received: list[Received] = []
        self.over = threading.Event()
        self._answered = 0
        self._lock = threading.Lock()

    def note(self, received: Received) -> int:
        """Keep a request; return which one it is, from 1."""
        with self._lock:
            self.received.append(received)
            return len(self.received)

    def check(self, received: Received) -> None:
        """Raise Refusal for a request that is not to be answered; the hook for servers with a will of their own."""

    def count_answer(self) -> None:
        """Count an answer that was given; the last one ends the server."""
        with self._lock:
            self._answered += 1
            if self._answered == self.script.max_requests:
                self.over.set()

    def server_bind(self) -> None:
        """Bind without the reverse name look-up of the base class, which may take seconds offline."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = _HOST, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: a client that leaves in the middle is what the mock is for."""

    def __enter__(self) -> Self:
        """Serve on a thread."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving, and let go of stalled answers."""
        self.over.set()
        self.shutdown()
        self.server_close()


@dataclass
class Refusal(Exception):  # noqa: N818  # it is an answer
    """An answer with an HTTP status other than 200; the usual error body for it unless one is given."""

    status: int
    body: dict[str, Any] = field(default_factory=dict)


class _Dialect(NamedTuple):
    """How requests to one path are answered; `lead` is the number of events before the first delta."""

    asked_in: str
    asked_types: tuple[type, ...]
    events: Callable[[Script, dict[str, Any]], Iterator[bytes]]
    whole: Callable[[Script, dict[str, Any]], dict[str, Any]]
    lead: int


_PATHS = {
    "/v1/chat/completions": _Dialect("messages", (list,), answers.chat_events, answers.chat_whole, 1),
    "/v1/responses": _Dialect("input", (list, str), answers.responses_events, answers.responses_whole, 4),
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Mock
    # A person's rehearsal sees deltas when they are sent, so small writes do not wait for each other.
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class names it so
        """Log nothing: stdout carries the URL, stderr failures."""

    def _answer(self) -> None:
        length = self.headers.get("Content-Length") or "0"
        body = self.rfile.read(min(int(length), _REQUEST_LIMIT)) if length.isdecimal() else b""
        received = Received(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
        number = self.server.note(received)
        try:
            try:
                self._check(received, number)
                if self.command == "GET":
                    data = [
                        {"id": model, "object": "model", "created": 0, "owned_by": "mock"} for model in answers.MODELS
                    ]
                    self._send_json(200, {"object": "list", "data": data})
                else:
                    self._complete(received)
            except Refusal as refusal:
                self._send_json(refusal.status, refusal.body or answers.error_object(refusal.status))
        finally:
            self.server.count_answer()

    def _check(self, received: Received, number: int) -> None:
        script = self.server.script
        if script.require_key is not None and received.headers.get("authorization") != f"Bearer {script.require_key}":
            raise Refusal(401)
        if self.path not in (_PATHS if self.command == "POST" else ("/v1/models",)):
            raise Refusal(404)
        if script.status is not None and (script.fail_first is None or number <= script.fail_first):
            raise Refusal(script.status)
        if self.command == "POST":
            self.server.check(received)

    def _complete(self, received: Received) -> None:
        script, dialect = self.server.script, _PATHS[self.path]
        try:
            request = received.json
            asked = request[dialect.asked_in]
            usable = isinstance(request["model"], str) and isinstance(asked, dialect.asked_types)
            usable = usable and all(isinstance(message, dict) for message in asked if not isinstance(asked, str))
            usable = usable and isinstance(request.get("stream_options") or {}, dict)
        except (ValueError, KeyError, TypeError, RecursionError):
            usable = False
        if not usable:
            raise Refusal(400)
        if request.get("stream"):
            self._stream(script, dialect, request)
        else:
            self._send_json(200, dialect.whole(script, request))

    def _send_json(self, status: int, payload: dict[str, Any]) -> None:
        body = json.dumps(payload).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("x-request-id", "req-mock")
        if status != 200 and self.server.script.retry_after is not None:  # noqa: PLR2004
            self.send_header("Retry-After", self.server.script.retry_after)
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, script: Script, dialect: "_Dialect", request: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-cache")
        if self._chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.send_header("x-request-id", "req-mock")
        self.end_headers()
        parts = (
            re.findall(rb".*?(?:\r?\n){2}|.+", script.tape, re.DOTALL)
            if script.tape is not None
            else dialect.events(script, request)
        )
        deltas = -dialect.lead if script.tape is None else 0
        for part in parts:
            if deltas > 0 and self.server.over.wait(script.delay_s):
                self.close_connection = True
                return
            if self._fault(script, deltas, part):
                return
            self._send_chunk(part)
            deltas += 1
        self._send_chunk(b"")

    def _fault(self, script: Script, deltas: int, part: bytes) -> bool:
        """Play the fault that is due after `deltas` deltas; return whether the answer ends with it."""
        if deltas == script.cut_after:
            # Inside an event, and inside a chunk of HTTP: nothing of it can be taken for an ending.
            half = part[: len(part) // 2]
            self.wfile.write(b"%x\r\n%s" % (len(part), half) if self._chunked else half)
            self.close_connection = True
            return True
        if deltas == script.stall_after:
            self.server.over.wait()
            self.close_connection = True
            return True
        if deltas == script.error_after:
            self._send_chunk(answers.event(answers.error_object(500)))
            self._send_chunk(b"")
            return True
        return False

    def _send_chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data) if self._chunked else data)

    @property
    def _chunked(self) -> bool:
        """Whether the client knows chunks; for HTTP/1.0 the end of the connection is the end of the answer."""
        return self.request_version != "HTTP/1.0"
