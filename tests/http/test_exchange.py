"""An exchange can be closed at any time; the server notices at once, and nothing leaks."""

import contextlib
import json
import socket
import subprocess
import sys
import threading

import pytest
from rawserver import (
    CLOSE_HEAD,
    GOOD,
    HEAD,
    HELLO,
    HOLD_S,
    LAST_CHUNK,
    OK,
    OUT,
    PATIENCE_S,
    PLAIN_ANSWER,
    Ask,
    Checkpoint,
    Request,
    Script,
    Serve,
    Step,
    answer,
    certificates,
    chunk,
    data,
    error_body,
    forever,
    hold,
    http,
    ignore,
    read_request,
    reset,
)

from smai_cli.common.clocks import Clocks
from smai_cli.config.endpoint import Endpoint
from smai_cli.errors import BrokenError, SmaiError
from smai_cli.http.exchange import Exchange
from smai_cli.http.preconnect import preconnect

pytest_plugins = ["rawserver"]

# Sends many requests in one process, without garbage collection as in smai, and counts what is left.
MANY = """
import gc, json, os, sys, threading
from smai_cli.http.exchange import Exchange
from smai_cli.common.clocks import Clocks
from smai_cli.config.endpoint import Endpoint
from smai_cli.errors import SmaiError

url, ca_file, leaves = sys.argv[1], sys.argv[2] or None, sys.argv[3] == "leaves"
count, idle_timeout_s = int(sys.argv[4]), float(sys.argv[5])
gc.disable()

def ask():
    clocks = Clocks(connect_timeout_s=30.0, idle_timeout_s=idle_timeout_s)
    exchange = Exchange(Endpoint(url), "/x", b"{}", clocks, ca_file=ca_file)
    try:
        for _ in exchange.open():
            if leaves:
                break
    except SmaiError as error:
        return error.kind
    finally:
        exchange.close()
    return "ended"

def held():
    return [threading.active_count(), len(os.listdir("/dev/fd"))]

ends = [ask()]
first = held()
ends += [ask() for _ in range(count - 1)]
json.dump([first, held(), sorted(set(ends))], sys.stdout)
"""


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("steps", "ends", "more"),
    [
        pytest.param(PLAIN_ANSWER, "ended", "", id="good"),
        pytest.param([CLOSE_HEAD, HELLO], "ended", "", id="good-until-the-end"),
        pytest.param([HEAD, chunk(HELLO)], "broken", "", id="cut"),
        pytest.param([HEAD, chunk(HELLO), reset], "broken", "", id="reset"),
        pytest.param([HEAD, chunk(HELLO), hold], "timeout", "", id="stalled"),
        pytest.param([HEAD, forever(chunk(HELLO))], "ended", "leaves", id="closed-early"),
        pytest.param([http("404 Not Found", error_body("no"))], "refused", "", id="404"),
        pytest.param([http("503 Busy", error_body("no")), hold], "busy", "", id="503-kept-open"),
        pytest.param([http("302 Found", b"", "Location: /"), hold], "refused", "", id="redirect"),
        pytest.param([hold], "timeout", "", id="no-head"),
        pytest.param([OK, hold], "timeout", "", id="half-a-head"),
        pytest.param([], "broken", "", id="dropped"),
    ],
)
@pytest.mark.parametrize(
    ("scheme", "count"),
    [("https", 40), *(pytest.param("http", count, marks=pytest.mark.nightly) for count in (40, 200))],
)
def test_many_answers_in_one_process_leak_no_thread_and_no_descriptor(
    serve: Serve, steps: list[Step], ends: str, more: str, scheme: str, count: int
) -> None:
    server = serve(tuple(steps), tls=certificates().context if scheme == "https" else None)
    ca_file = certificates().ca_file if scheme == "https" else ""
    idle_timeout_s = "0.05" if ends == "timeout" else "30"
    command = [sys.executable, "-c", MANY, server.url, ca_file, more, str(count), idle_timeout_s]
    done = subprocess.run(command, capture_output=True, check=True, timeout=2 * PATIENCE_S)
    first, last, how = json.loads(done.stdout)
    assert (last, how) == (first, [ends])
    assert server.connections == count


# Closed from another thread, at any step. The clocks would wait longer than a test may run.

PATIENT = Clocks(connect_timeout_s=600.0, idle_timeout_s=600.0)
BODY = json.dumps({"messages": [{"content": "hi"}]}).encode()
LARGE_BODY = b" " * (64 << 20)


class Opening:
    """An exchange that another thread opens and reads, and how that ended."""

    def __init__(self, url: str, body: bytes = BODY, *, ca_file: str | None = None) -> None:
        self.exchange = Exchange(Endpoint(url), "/x", body, PATIENT, ca_file=ca_file)
        self.pieces: list[bytes] = []
        self.came = threading.Event()
        self.error: SmaiError | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            for piece in self.exchange.open():
                self.pieces.append(piece)
                self.came.set()
        except SmaiError as error:
            self.error = error

    def ends(self) -> bool:
        """Wait for the end; return whether the exchange was cancelled."""
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()
        return isinstance(self.error, BrokenError) and "was cancelled" in self.error.describe()


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "before",
    [
        pytest.param([], id="before-the-head"),
        pytest.param([OK], id="in-the-head"),
        pytest.param([HEAD, chunk(HELLO)], id="in-silence"),
        pytest.param([CLOSE_HEAD, HELLO], id="in-silence-until-the-end"),
        pytest.param([HEAD, b"fff\r\n" + HELLO], id="in-a-chunk"),
        pytest.param([http("500 Oops", b"")[:-4] + b"\r\nX: y"], id="in-the-head-of-an-error"),
        pytest.param([b"HTTP/1.1 500 Oops\r\n\r\nbecau"], id="in-the-body-of-an-error"),
    ],
)
def test_closing_an_exchange_ends_the_connection_at_once(serve: Serve, before: list[Step], scheme: str) -> None:
    seen = Checkpoint()
    server = serve((*before, seen), tls=certificates().context if scheme == "https" else None)
    opening = Opening(server.url, ca_file=certificates().ca_file)
    assert seen.begun.wait(PATIENCE_S)
    if HELLO in b"".join(step for step in before if isinstance(step, bytes)):
        assert opening.came.wait(PATIENCE_S)
    opening.exchange.close()
    assert opening.ends()
    assert seen.gone.wait(PATIENCE_S)
    assert len(server.requests) == 1


def test_closing_an_exchange_ends_an_answer_at_full_speed(serve: Serve) -> None:
    opening = Opening(serve(HEAD, forever(chunk(HELLO))).url)
    assert opening.came.wait(PATIENCE_S)
    opening.exchange.close()
    assert opening.ends()


def test_closing_an_exchange_ends_an_answer_that_is_not_read(serve: Serve) -> None:
    gone = threading.Event()

    def floods(connection: socket.socket) -> None:
        with contextlib.suppress(ConnectionError):
            forever(chunk(HELLO))(connection)
        gone.set()

    exchange = Exchange(Endpoint(serve(HEAD, floods).url), "/x", BODY, PATIENT)
    exchange.open()
    assert not gone.wait(0.5)  # by now the buffer is full
    exchange.close()
    assert gone.wait(PATIENCE_S)


def test_closing_an_exchange_ends_its_upload(serve: Serve) -> None:
    seen, read = Checkpoint(), []

    def reads_the_head_only(connection: socket.socket) -> Request:
        read.append(connection.recv(1000))
        seen.begun.set()
        ignore(connection)
        seen.gone.set()
        raise ConnectionError

    opening = Opening(serve(hold, reads=reads_the_head_only).url, LARGE_BODY)
    assert seen.begun.wait(PATIENCE_S)
    opening.exchange.close()
    assert opening.ends()
    assert seen.gone.wait(PATIENCE_S)


def test_closing_an_exchange_ends_a_handshake(serve: Serve) -> None:
    seen = Checkpoint()

    def reads_hello_only(connection: socket.socket) -> Request:
        seen(connection)
        raise ConnectionError

    server = serve(hold, reads=reads_hello_only)
    opening = Opening(server.url.replace("http:", "https:"), ca_file=certificates().ca_file)
    assert seen.begun.wait(PATIENCE_S)
    opening.exchange.close()
    assert opening.ends()
    assert seen.gone.wait(PATIENCE_S)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_closing_an_exchange_ends_a_connect(silent_port: int, scheme: str) -> None:
    opening = Opening(f"{scheme}://127.0.0.1:{silent_port}/v1", ca_file=certificates().ca_file)
    opening.exchange.close()
    assert opening.ends()


def test_closing_an_exchange_ends_the_wait_for_a_connection_made_in_advance(silent_port: int) -> None:
    url = f"https://127.0.0.1:{silent_port}/v1"
    begun = preconnect(url, certificates().ca_file, 600.0, {})
    exchange = Exchange(Endpoint(url), "/x", BODY, PATIENT, ca_file=certificates().ca_file, preconnect=begun)
    closing = threading.Timer(0.1, exchange.close)
    closing.start()
    with pytest.raises(BrokenError, match="was cancelled"):
        exchange.open()
    closing.join()


def test_a_closed_exchange_sends_nothing(serve: Serve) -> None:
    server = serve(*PLAIN_ANSWER)
    exchange = Exchange(Endpoint(server.url), "/x", BODY, PATIENT)
    exchange.close()
    exchange.close()
    with pytest.raises(BrokenError, match="was cancelled"):
        exchange.open()
    assert server.connections == 0


def test_closing_a_response_is_not_reported_as_its_end(serve: Serve) -> None:
    body = Exchange(Endpoint(serve(*PLAIN_ANSWER).url), "/x", BODY, PATIENT).open()
    body.close()
    body.close()
    with pytest.raises(BrokenError, match="was cancelled"):
        list(body)


def test_a_response_is_closed_after_its_end(serve: Serve) -> None:
    seen = Checkpoint()
    body = Exchange(Endpoint(serve(*PLAIN_ANSWER, seen).url), "/x", BODY, PATIENT).open()
    assert b"".join(body) == b"".join(GOOD)
    assert seen.gone.wait(PATIENCE_S)


LATE_NAME = """
import socket, sys, threading, time
looked_up, over = threading.Event(), threading.Event()

def late(*arguments, **more):
    looked_up.set()
    over.wait()
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", int(sys.argv[1])))]

socket.getaddrinfo = late
from smai_cli.http.exchange import Exchange
from smai_cli.common.clocks import Clocks
from smai_cli.config.endpoint import Endpoint
from smai_cli.errors import SmaiError

clocks = Clocks(connect_timeout_s=600.0, idle_timeout_s=600.0)
exchange = Exchange(Endpoint(f"http://example.invalid:{sys.argv[1]}"), "/x", b"{}", clocks)
errors = []

def run():
    try:
        exchange.open()
    except SmaiError as error:
        errors.append(error)

opening = threading.Thread(target=run)
opening.start()
looked_up.wait()
exchange.close()
opening.join()
assert threading.active_count() == 2, threading.enumerate()
over.set()
while threading.active_count() > 1:
    time.sleep(0.01)
print(errors[0].describe())
"""


def test_no_connection_is_made_to_a_name_that_is_resolved_after_close(serve: Serve) -> None:
    server = serve(*PLAIN_ANSWER)
    port = server.url.rsplit(":", 1)[1].removesuffix("/v1")
    command = [sys.executable, "-c", LATE_NAME, port]
    done = subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE_S)
    assert b"was cancelled" in done.stdout
    assert server.connections == 0


# A retry begins after the failed exchange is closed.


class OneWorker:
    """A server that serves a connection until its client has closed it, and only then the next."""

    def __init__(self, *scripts: Script) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self._thread = threading.Thread(target=self._work, args=(scripts,))
        self._thread.start()

    def close(self) -> None:
        """Wait until all the scripts were played."""
        self._thread.join(HOLD_S)
        self._listener.close()

    def _work(self, scripts: tuple[Script, ...]) -> None:
        for script in scripts:
            connection, _ = self._listener.accept()
            with contextlib.suppress(ConnectionError), connection:
                connection.settimeout(HOLD_S)
                read_request(connection)
                script(connection)
                hold(connection)


@pytest.mark.parametrize(
    "first",
    [
        pytest.param([HEAD, chunk(HELLO), chunk(data("{oops"))], id="malformed"),
        pytest.param([HEAD, chunk(HELLO), chunk(data('{"error": {"message": "fell over"}}'))], id="error-event"),
        pytest.param([HEAD, chunk(HELLO), b"zz\r\n"], id="bad-chunk-size"),
        pytest.param([HEAD, chunk(HELLO), LAST_CHUNK], id="no-end"),
        pytest.param([http("503 Busy", error_body("no"), "Retry-After: 0")], id="503"),
        pytest.param([b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\n\r\n", b"x" * 100_000], id="503-without-end"),
    ],
)
def test_a_server_with_one_worker_can_serve_a_retry(ask: Ask, first: list[Step]) -> None:
    server = OneWorker(answer(*first), answer(*PLAIN_ANSWER))
    with contextlib.closing(server):
        result = ask(None, "--base-url", server.url, "--final", "--retries", "1", "--summary", "none")
    assert result[:2] == (0, OUT)
