"""A connection to the mock: each request is checked, gets its fault, and is answered."""

import functools
import json
import math
import re
import select
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

from smai_cli.mock import script as answers
from smai_cli.mock.body import Body
from smai_cli.mock.faults import IN_ANSWER, Fault, fault_of, within
from smai_cli.mock.received import PATHS, MockDialect, MockRefusal, ReceivedRequest, usable_request
from smai_cli.mock.request_fit import fit_script
from smai_cli.mock.script import Script
from smai_cli.mock.state import MockState, Value

_REQUEST_LIMIT = 64 * 1024 * 1024
_OK, _BUSY = 200, 429
# How often a stalled answer checks whether its client is still connected.
_LOOK_S = 0.25
# Headers that a page may read and send in addition to the safelisted ones (fetch.spec.whatwg.org). The wildcard does
# not include Authorization. OpenAI's JavaScript library sends a dozen headers of its own.
_READABLE = "Retry-After, retry-after-ms, x-request-id"
_SENDABLE = "authorization, *"
_MODELS_PATH = "/v1/models"


class _OverError(Exception):
    """The server ends, and this answer with it."""


class MockHandler(BaseHTTPRequestHandler):
    """A connection of a client, for as long as the client keeps it."""

    protocol_version = "HTTP/1.1"
    # Deltas must arrive when they are sent, so small writes do not wait for each other.
    disable_nagle_algorithm = True

    def __init__(self, state: MockState, *connection: Any) -> None:
        self._state = state
        super().__init__(*connection)

    def setup(self) -> None:
        """Count the connection, for the log."""
        super().setup()
        self._connection = self._state.count_connection()
        self._entry: dict[str, Value] = {}

    def do_POST(self) -> None:
        """Answer a prompt."""
        self._answer()

    def do_GET(self) -> None:
        """Answer with the list of models."""
        self._answer()

    def do_OPTIONS(self) -> None:
        """Allow the requests of pages of an allowed origin (CORS); refuse anything else like an unknown method."""
        if not self._origin_allowed or self.path not in (*PATHS, _MODELS_PATH):
            self.send_error(501, f"Unsupported method ({self.command!r})")
            return
        self.send_response(204)
        self.send_header("Access-Control-Allow-Methods", "GET, POST")
        self.send_header("Access-Control-Allow-Headers", _SENDABLE)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class names it so
        """Log nothing: stdout is for the URL, stderr for failures."""

    def end_headers(self) -> None:
        """End the head; with --allow-origin, every head says which pages may read the answer."""
        if self._state.script.allow_origins:
            self.send_header("Vary", "Origin")
            if self._origin_allowed:
                self.send_header("Access-Control-Allow-Origin", self.headers["Origin"])
                self.send_header("Access-Control-Expose-Headers", _READABLE)
        super().end_headers()

    @property
    def _origin_allowed(self) -> bool:
        # A request that cannot be parsed has no headers.
        return hasattr(self, "headers") and self.headers.get("Origin") in self._state.script.allow_origins

    def _answer(self) -> None:
        received = self._read_request()
        number = self._state.note(received)
        self._entry = {
            "index": number,
            "connection": self._connection,
            "time_s": self._state.age_s(),
            "method": self.command,
            "path": self.path,
            "prompt": None,
            "status": None,
        }
        counts = True
        try:
            try:
                self._check(received, number)
                counts = self._serve(received, fault_of(self._state.script, number))
            except MockRefusal as refusal:
                body = refusal.body or answers.error_object(refusal.status)
                self._send_whole(refusal.status, body, headers=refusal.headers)
        except _OverError:
            self.close_connection = True
        except OSError:
            self._log("gone")
            raise
        finally:
            if counts:
                self._state.count_answer()

    def _read_request(self) -> ReceivedRequest:
        length = self.headers.get("Content-Length") or "0"
        body = self.rfile.read(min(int(length), _REQUEST_LIMIT)) if length.isdecimal() else b""
        if len(body) != int(length if length.isdecimal() else -1) or "Transfer-Encoding" in self.headers:
            # The rest of the body must not be read as another request.
            self.close_connection = True
        return ReceivedRequest(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)

    def _check(self, received: ReceivedRequest, number: int) -> None:
        script = self._state.script
        if script.require_key is not None and received.headers.get("authorization") != f"Bearer {script.require_key}":
            raise MockRefusal(401)
        if self.path not in (PATHS if self.command == "POST" else (_MODELS_PATH,)):
            raise MockRefusal(404, answers.invalid_url(self.command, self.path))
        if self._state.limit and (wait_s := self._state.limit.wait_s()):
            wait_ms = math.ceil(wait_s * 1000)
            body = answers.limit_object(self._state.limit.per_s, wait_ms)
            # Both, as OpenAI sends them: Retry-After has only whole seconds (RFC 9110, section 10.2.3).
            raise MockRefusal(_BUSY, body, {"Retry-After": str(math.ceil(wait_s)), "retry-after-ms": str(wait_ms)})
        if script.status is not None and (script.fail_first is None or number <= script.fail_first):
            raise MockRefusal(script.status)
        if self.command == "POST":
            self._state.check(received)

    def _serve(self, received: ReceivedRequest, fault: Fault | None) -> bool:
        """Answer a request, or as much as `fault` allows; return whether it counts as an answer."""
        if fault and fault.kind not in IN_ANSWER:
            status = int(fault.kind)
            raise MockRefusal(status, headers={"Retry-After": "1"} if status == _BUSY else {})
        if self.command == "GET":
            models = [{"id": model, "object": "model", "created": 0, "owned_by": "mock"} for model in answers.MODELS]
            return self._send_whole(200, {"object": "list", "data": models}, fault)
        dialect = PATHS[self.path]
        request = usable_request(received, dialect)
        self._entry["prompt"] = answers.prompt_of(request)
        script = fit_script(self._state.script, request)
        if request.get("stream"):
            return self._stream(script, dialect, request, fault)
        return self._send_whole(200, dialect.whole(script, request), fault)

    def _send_whole(
        self,
        status: int,
        payload: dict[str, Any],
        fault: Fault | None = None,
        headers: dict[str, str] | None = None,
    ) -> bool:
        if fault and fault.kind == "error":
            raise MockRefusal(500)
        data = json.dumps(payload).encode()
        self._send_head(status, {"Content-Type": "application/json", "Content-Length": str(len(data))}, headers or {})
        body = self._body(chunked=False)
        if fault:
            return self._break_off(fault.kind, lambda: body.cut(data))
        self._log("complete" if status == _OK else "refused")
        body.send(data)
        body.end()
        return True

    def _send_head(self, status: int, head: dict[str, str], more: dict[str, str]) -> None:
        if status != _OK and self._state.script.retry_after is not None:
            more = {"Retry-After": self._state.script.retry_after}
        self.send_response(status)
        for name, value in {**head, "x-request-id": "req-mock", **more}.items():
            self.send_header(name, value)
        self.end_headers()
        self._entry["status"] = status

    def _stream(self, script: Script, dialect: MockDialect, request: dict[str, Any], fault: Fault | None) -> bool:
        is_chunked = self._knows_chunks and "close" not in script.lies
        frame = {"Transfer-Encoding": "chunked"} if is_chunked else {"Connection": "close"}
        self._send_head(200, {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", **frame}, {})
        body = self._body(chunked=is_chunked, buffers="buffer" in script.lies)
        if script.tape is None:
            parts, lead = dialect.events(script, request), dialect.lead(script)
            places = answers.count_deltas(script) + 1
        else:
            blocks = re.findall(rb".*?(?>\r\n|\r|\n){2}|.+", script.tape, re.DOTALL)
            parts, lead, places = iter(blocks), 0, len(blocks)
        if fault:
            script = within(script, fault, places)
        for deltas, part in enumerate(parts, -lead):
            if deltas > 0 and script.split_bytes is None:
                self._pause()
            if deltas == script.cut_after:
                return self._break_off("cut", functools.partial(body.cut, part))
            if deltas == script.stall_after:
                return self._break_off("stall")
            if deltas == script.error_after:
                body.send(answers.event(answers.error_object(500)))
                self._log("error")
                body.end()
                return True
            body.send(part)
        self._log("complete")
        body.end()
        return True

    def _break_off(self, kind: str, last: Callable[[], None] = lambda: None) -> bool:
        """Send the `last` bytes and end the connection: at once, or with "stall" when the client or the server ends."""
        self._log(kind)
        last()
        self.close_connection = True
        if kind == "cut":
            return True
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        while not self._state.over.wait(_LOOK_S) and not poll.poll(0):
            pass  # the client is still there
        return False

    def _body(self, *, chunked: bool, buffers: bool = False) -> Body:
        split_bytes = self._state.script.split_bytes
        return Body(self.wfile.write, chunked=chunked, buffers=buffers, split_bytes=split_bytes, pause=self._pause)

    def _pause(self) -> None:
        delay_s = self._state.script.delay_s
        if self._state.over.wait(delay_s) if delay_s else self._state.over.is_set():
            raise _OverError

    @property
    def _knows_chunks(self) -> bool:
        """Whether the client supports chunks; for HTTP/1.0, the end of the connection is the end of the answer."""
        return self.request_version != "HTTP/1.0"

    def _log(self, outcome: str) -> None:
        """Log how the request ended, once, before its last bytes: a client that has them finds the entry."""
        if self._entry:
            self._state.log({**self._entry, "outcome": outcome})
            self._entry = {}
