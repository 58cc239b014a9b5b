"""A chat server that fails in each way that a batch distinguishes, for prompts and at times that a test chooses.

It echoes the prompt. A test module names this one in `pytest_plugins` and gets the fixture `faulty`.
(PYTEST_DONT_REWRITE: the module is imported before it is named, and pytest would warn.)
"""

import contextlib
import itertools
import json
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
import rawserver
from rawserver import DONE, LAST_CHUNK, OK, STOP, RawServer, Request, Script, Step, answer, chunk, data, event

# One request per connection: whether a client could reuse it would depend on timing.
_CLOSE = "Connection: close"
HEAD = OK + f"{_CLOSE}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
_IDS = itertools.count(1)


_ROLE = '{"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}'


def body(code: str | int, message: str = "no") -> bytes:
    """Return an error object whose message differs each time, as by a request id."""
    return json.dumps({"error": {"message": f"{message} (request req-{next(_IDS)})", "code": code}}).encode()


def http(status: str, content: bytes, *headers: str) -> bytes:
    return rawserver.http(status, content, _CLOSE, *headers)


def error_event(code: int, *earlier: bytes) -> bytes:
    return HEAD + b"".join(map(chunk, earlier)) + chunk(data(body(code).decode())) + LAST_CHUNK


# What the server does instead of an answer, by the name of the fault.
FAULTS: dict[str, Callable[[], Step]] = {
    "400": lambda: http("400 Bad Request", body("invalid_value")),
    "401": lambda: http("401 Unauthorized", body("invalid_api_key")),
    "402": lambda: http("402 Payment Required", body(402)),
    "403": lambda: http("403 Forbidden", body(403, "your input was flagged")),
    "403 money": lambda: http("403 Forbidden", body("credit_balance_exhausted")),
    "404": lambda: http("404 Not Found", body("model_not_found")),
    "429": lambda: http("429 Too Many Requests", body("rate_limit_exceeded"), "Retry-After: 0"),
    "429 alone": lambda: http("429 Too Many Requests", body("rate_limit_exceeded")),
    "429 for 1 s": lambda: http("429 Too Many Requests", body("rate_limit_exceeded"), "Retry-After: 1"),
    "429 for an hour": lambda: http("429 Too Many Requests", body("rate_limit_exceeded"), "Retry-After: 3600"),
    "429 quota": lambda: http("429 Too Many Requests", body("insufficient_quota")),
    "429 in a 200": lambda: http("200 OK", body(429), "Content-Type: application/json"),
    "429 in the stream": lambda: error_event(429),
    "429 after the role": lambda: error_event(429, data(_ROLE)),
    "429 after text": lambda: error_event(429, event("Hi")),
    "500": lambda: http("500 Internal Server Error", body("server_error")),
    "500 in the stream": lambda: error_event(500),
    "502": lambda: http("502 Bad Gateway", b"<html>Bad Gateway</html>"),
    "503": lambda: http("503 Service Unavailable", body("overloaded")),
    "521": lambda: http("521 Web Server Is Down", b"<html>521</html>"),
    "reset": lambda: rawserver.reset,
    "timeout": lambda: rawserver.hold,
}
# Faulty answers: cut after the first delta, or begun late.
_CUT, _SLOW = "cut", "slow"
_SLOW_S = 0.5
# Returns the name of the fault of a request, or None for an answer, from the prompt, the model, and the number of
# earlier requests.
Plan = Callable[[str, str, int], str | None]


class FaultServer(RawServer):
    """A server that calls `plan` for each request. `prompts` lists the received ones, `times` when (monotonic)."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        super().__init__(answer(b""))
        self._address = self._listener.getsockname()
        self._listener.listen(1024)

    @property
    def prompts(self) -> list[str]:
        return [request.prompt for request in self.requests]

    @property
    def times(self) -> list[float]:
        return [request.at_s for request in self.requests]

    def script_for(self, request: Request, count: int) -> Script:
        model = json.loads(request.body)["model"]
        fault = self.plan(request.prompt, model, count)
        if fault == _CUT:
            return answer(HEAD, chunk(event(request.prompt)), rawserver.reset)
        if fault and fault != _SLOW:
            return answer(FAULTS[fault]())
        wait = [rawserver.pause(_SLOW_S)] if fault == _SLOW else []
        return answer(*wait, HEAD, *map(chunk, [event(request.prompt), STOP, DONE]), LAST_CHUNK)

    def go_away(self) -> None:
        """Refuse every connection from now on, and serve those that are made: closing would reset them."""
        self._listener.setblocking(False)
        self._accept()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def come_back(self) -> None:
        """Accept connections again, at the same address."""
        self._listener = socket.create_server(self._address, backlog=1024)
        threading.Thread(target=self._accept, daemon=True).start()


Faulty = Callable[[Plan], FaultServer]


@pytest.fixture
def faulty() -> Iterator[Faulty]:
    """`faulty(lambda prompt, model, count: "500" if prompt == "bad" else None)` starts a FaultServer."""
    with contextlib.ExitStack() as stack:

        def start(plan: Plan) -> FaultServer:
            server = FaultServer(plan)
            stack.callback(server.close)
            return server

        yield start
