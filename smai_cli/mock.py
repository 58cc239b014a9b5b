"""A loopback server that speaks the chat API: scripted replies, recorded tapes, and faults on request.

What `smai mock` serves, what `smai ask --mock` asks, and the double that the tests ask. It says what the real
service says (the API reference), so that other clients can rehearse with it too.
"""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Self

POEM = """Spring comes in by the kitchen door,
mud on its boots, and light on the floor.
It asks for nothing, it stays for tea,
and hangs a green coat on the apple tree.
"""
MODELS = ("gpt-4.1", "gpt-4.1-mini", "gpt-4o", "gpt-4o-mini")
DELAY_S = 0.015
_HOST = "127.0.0.1"
_REQUEST_LIMIT = 64 * 1024 * 1024
_ERROR_CODES = {
    400: ("invalid_request_error", "invalid_request", "the mock was told to refuse"),
    401: ("authentication_error", "invalid_api_key", "Incorrect API key provided"),
    403: ("permission_error", "permission_denied", "the key may not do this"),
    404: ("invalid_request_error", "model_not_found", "The model does not exist"),
    429: ("rate_limit_error", "rate_limit_exceeded", "Rate limit reached"),
    500: ("server_error", "server_error", "The server had an error"),
    503: ("server_error", "model_overloaded", "The model is overloaded"),
}


@dataclass(frozen=True)
class Script:
    """What the mock answers. Counts of deltas are counts of `delta.content`; None leaves a fault out.

    `tape` replaces the scripted events by recorded bytes. `status` answers the first `fail_first` requests
    (None: all) with that HTTP status. `finish_reason` "none" sends null. The mock closes after `max_requests`.
    """

    reply: str = POEM
    tape: bytes | None = None
    delay_s: float = DELAY_S
    require_key: str | None = None
    max_requests: int | None = None
    status: int | None = None
    retry_after: str | None = None
    fail_first: int | None = None
    cut_after: int | None = None
    stall_after: int | None = None
    error_after: int | None = None
    done: bool = True
    finish_reason: str = "stop"


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


def reply_deltas(reply: str) -> list[str]:
    """Return `reply` in pieces like those of a model: at most a short word each."""
    return re.findall(r"\s?\w{1,8}|\W", reply)


def events(script: Script, request: dict[str, Any]) -> Iterator[bytes]:
    """Yield the events of a streamed answer to `request` (the JSON of its body)."""
    base = _base(request, "chat.completion.chunk")
    usage = bool((request.get("stream_options") or {}).get("include_usage"))
    if usage:
        base["usage"] = None
    yield _event({**base, "choices": [_choice({"role": "assistant", "content": ""}, None)]})
    for delta in reply_deltas(script.reply):
        yield _event({**base, "choices": [_choice({"content": delta}, None)]})
    finish_reason = None if script.finish_reason == "none" else script.finish_reason
    yield _event({**base, "choices": [_choice({}, finish_reason)]})
    if usage:
        yield _event({**base, "choices": [], "usage": _usage(script, request)})
    if script.done:
        yield b"data: [DONE]\n\n"


def whole(script: Script, request: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to `request` in one piece."""
    finish_reason = None if script.finish_reason == "none" else script.finish_reason
    message = {"role": "assistant", "content": script.reply}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return {**_base(request, "chat.completion"), "choices": [choice], "usage": _usage(script, request)}


def _base(request: dict[str, Any], kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-mock", "object": kind, "created": int(time.time()), "model": request.get("model")}


def _choice(delta: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason}


def _event(payload: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def _usage(script: Script, request: dict[str, Any]) -> dict[str, int]:
    """Return token counts by the mock's own rule: a delta is a token."""
    asked = sum(len(reply_deltas(str(message.get("content")))) for message in request.get("messages", []))
    answered = len(reply_deltas(script.reply))
    return {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}


def _error(code: int) -> dict[str, Any]:
    kind, name, message = _ERROR_CODES.get(code, ("server_error", "mock_error", "the mock was told to fail"))
    return {"error": {"message": message, "type": kind, "param": None, "code": name}}


@dataclass
class Refusal(Exception):  # noqa: N818  # it is an answer
    """An answer with an HTTP status other than 200; the usual error body for it unless one is given."""

    status: int
    body: dict[str, Any] = field(default_factory=dict)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Mock
    # A person's rehearsal sees deltas when they are sent, so small writes do not wait for each other.
    disable_nagle_algorithm = True
    paths: ClassVar = {"POST": "/v1/chat/completions", "GET": "/v1/models"}

    def do_POST(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class names it so
        """Log nothing: stdout carries the URL, stderr failures."""

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(min(length, _REQUEST_LIMIT))
        received = Received(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
        number = self.server.note(received)
        try:
            try:
                self._check(received, number)
                if self.command == "GET":
                    data = [{"id": model, "object": "model", "created": 0, "owned_by": "mock"} for model in MODELS]
                    self._send_json(200, {"object": "list", "data": data})
                else:
                    self._complete(received)
            except Refusal as refusal:
                self._send_json(refusal.status, refusal.body or _error(refusal.status))
        finally:
            self.server.count_answer()

    def _check(self, received: Received, number: int) -> None:
        script = self.server.script
        if script.require_key is not None and received.headers.get("authorization") != f"Bearer {script.require_key}":
            raise Refusal(401)
        if self.path != self.paths[self.command]:
            raise Refusal(404)
        if script.status is not None and (script.fail_first is None or number <= script.fail_first):
            raise Refusal(script.status)
        if self.command == "POST":
            self.server.check(received)

    def _complete(self, received: Received) -> None:
        script = self.server.script
        try:
            request = received.json
            usable = isinstance(request["model"], str) and isinstance(request["messages"], list)
        except (ValueError, KeyError, TypeError, RecursionError):
            usable = False
        if not usable:
            raise Refusal(400)
        if request.get("stream"):
            self._stream(script, request)
        else:
            self._send_json(200, whole(script, request))

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

    def _stream(self, script: Script, request: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("x-request-id", "req-mock")
        self.end_headers()
        parts = (
            re.findall(rb".*?(?:\r?\n){2}|.+", script.tape, re.DOTALL)
            if script.tape is not None
            else events(script, request)
        )
        deltas = -1 if script.tape is None else 0  # the first event of a scripted answer is the role
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
            self.wfile.write(b"%x\r\n%s" % (len(part), half))
            self.close_connection = True
            return True
        if deltas == script.stall_after:
            self.server.over.wait()
            self.close_connection = True
            return True
        if deltas == script.error_after:
            self._send_chunk(_event(_error(500)))
            self._send_chunk(b"")
            return True
        return False

    def _send_chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
