"""If the server answers while the request is still being sent, smai reads that answer."""

import socket
import time
from collections.abc import Callable

import pytest
from rawserver import (
    HEAD,
    OUT,
    PLAIN_ANSWER,
    Ask,
    Request,
    Serve,
    Step,
    error_body,
    http,
    ignore,
    read_request,
    tls_of,
)

pytest_plugins = ["rawserver"]
pytestmark = pytest.mark.preloaded

LARGE = b"x" * (32 << 20)
Reads = Callable[[socket.socket], Request]


def reads_at_most(size: int) -> Reads:
    """Read the head and `size` bytes of the body, and nothing after them."""

    def read(connection: socket.socket) -> Request:
        seen = b""
        while len(seen) < size:
            seen += connection.recv(min(65536, size - len(seen)))
        return Request(seen, b"", time.monotonic())

    return read


every_scheme = pytest.mark.parametrize("scheme", ["http", "https"])


@pytest.mark.thorough
@every_scheme
@pytest.mark.parametrize("size", [1000, 5 << 20], ids=["after-the-head", "in-the-body"])
@pytest.mark.parametrize("then", [[], [ignore]], ids=["closes", "stops-reading"])
def test_the_refusal_of_a_large_body_shows_the_servers_message(
    serve: Serve, ask: Ask, scheme: str, size: int, then: list[Step]
) -> None:
    refusal = http("413 Content Too Large", error_body("at most 1 MB"))
    server = serve(refusal, *then, reads=reads_at_most(size), **tls_of(scheme))
    result = ask(server, "--retries", "0", "--connect-timeout", "20", stdin=LARGE)
    assert result[:2] == (4, b""), result.stderr
    assert "413 Content Too Large: at most 1 MB" in result.stderr


@pytest.mark.thorough
@every_scheme
@pytest.mark.parametrize(
    ("status", "expected"),
    [("400 Bad Request", 4), ("401 Unauthorized", 5), ("429 Too Many Requests", 6), ("503 Busy", 6), ("302 Found", 4)],
)
def test_an_answer_before_the_end_of_the_upload_is_read(
    serve: Serve, ask: Ask, scheme: str, status: str, expected: int
) -> None:
    server = serve(http(status, error_body("because")), ignore, reads=reads_at_most(1000), **tls_of(scheme))
    result = ask(server, "--retries", "0", "--connect-timeout", "20", stdin=LARGE)
    assert result[:2] == (expected, b""), result.stderr
    assert status[:3] in result.stderr


def test_an_early_answer_is_read_while_the_client_is_blocked(serve: Serve, ask: Ask) -> None:
    """The client has filled the window by then, and is blocked."""

    def reads(connection: socket.socket) -> Request:
        request = reads_at_most(1000)(connection)
        queued = -1
        while queued != (queued := len(connection.recv(1 << 26, socket.MSG_PEEK))):  # until no more comes
            time.sleep(0.3)
        return request

    server = serve(http("413 Too Large", error_body("at most 1 MB")), ignore, reads=reads)
    result = ask(server, "--retries", "0", "--connect-timeout", "20", stdin=LARGE)
    assert result[:2] == (4, b""), result.stderr
    assert "at most 1 MB" in result.stderr


def test_a_connection_dropped_during_the_upload_is_reported_as_a_dropped_request(serve: Serve, ask: Ask) -> None:
    result = ask(serve(reads=reads_at_most(1000)), "--retries", "0", stdin=LARGE)
    assert result[:2] == (8, b"")
    assert "dropped the request without an answer" in result.stderr


@pytest.mark.thorough
@every_scheme
@pytest.mark.parametrize(
    "interim",
    [
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", id="100"),
        pytest.param(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", id="102-103"),
        pytest.param(HEAD, id="200"),
    ],
)
def test_an_interim_answer_does_not_end_the_upload(serve: Serve, ask: Ask, scheme: str, interim: bytes) -> None:
    def reads(connection: socket.socket) -> Request:
        connection.sendall(interim)
        return read_request(connection)

    steps = PLAIN_ANSWER[1:] if interim == HEAD else PLAIN_ANSWER
    server = serve(*steps, reads=reads, **tls_of(scheme))
    assert ask(server, stdin=LARGE) == (0, OUT, "")
    assert len(server.requests[0].body) > len(LARGE)


def test_a_server_that_stops_reading_silently_is_a_timeout(serve: Serve, ask: Ask) -> None:
    server = serve(ignore, reads=reads_at_most(1000))
    result = ask(server, "--retries", "0", "--connect-timeout", "1", stdin=LARGE)
    assert result[:2] == (7, b"")
    assert "did not read the request for 1 s" in result.stderr
