"""A worker's requests share one connection where that is sure to be right, and nothing is sent twice."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
from rawserver import (
    BODY,
    CLOSE_HEAD,
    HEAD,
    HELLO,
    LAST_CHUNK,
    OK,
    OLD_HEAD,
    PLAIN_ANSWER,
    Serve,
    Step,
    certificates,
    error_body,
    hold,
    http,
    length_head,
    read_request,
    until,
)

from smai_cli.clocks import HURRY_S, Clocks
from smai_cli.config.endpoint import Endpoint
from smai_cli.errors import SmaiError
from smai_cli.http import transport
from smai_cli.http.keepalive import KeepAlive

pytest_plugins = ["rawserver"]

REQUEST = b'{"model": "m"}'
GOOD_ANSWER = b"".join(PLAIN_ANSWER)
MORE = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
every_scheme = pytest.mark.parametrize("scheme", ["http", "https"])


class Worker:
    """Asks as a worker does: reads up to [DONE], and closes the answer."""

    def __init__(self) -> None:
        self.keep_alive = KeepAlive()

    def ask(self, url: str, clocks: Clocks | None = None, body: bytes = REQUEST) -> bytes:
        answer = transport.post(
            Endpoint(url),
            "/chat/completions",
            body,
            clocks or Clocks(),
            ca_file=certificates().ca_file,
            keep_alive=self.keep_alive,
        )
        came = b""
        with contextlib.closing(answer):
            for piece in answer:
                came += piece
                if b"[DONE]" in came:
                    break
        return came

    def fails(self, url: str, clocks: Clocks | None = None) -> SmaiError:
        with pytest.raises(SmaiError) as caught:
            self.ask(url, clocks)
        return caught.value


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    made.keep_alive.close()


def then_asked(connection: socket.socket) -> None:
    """A step: the next request on the same connection."""
    read_request(connection)


def tls_of(scheme: str) -> dict[str, object]:
    return {"tls": certificates().context if scheme == "https" else None}


@every_scheme
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(GOOD_ANSWER, id="chunked"),
        pytest.param(length_head(len(BODY)) + BODY, id="length"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\n\r\n" + GOOD_ANSWER, id="after-an-interim-answer"),
        pytest.param(GOOD_ANSWER[:-2] + b"X-Trailer: yes\r\n\r\n", id="with-a-trailer"),
        pytest.param(GOOD_ANSWER.replace(b"\r\n", b"\r\nKeep-Alive: timeout=5, max=100\r\n", 1), id="as-node-answers"),
    ],
)
def test_a_worker_asks_all_it_has_on_one_connection(serve: Serve, worker: Worker, scheme: str, answer: bytes) -> None:
    server = serve(answer, then_asked, answer, then_asked, answer, hold, **tls_of(scheme))
    assert [worker.ask(server.url) for _ in range(3)] == [BODY] * 3
    assert server.connections == 1


def test_two_workers_have_a_connection_each(serve: Serve, worker: Worker) -> None:
    server = serve(GOOD_ANSWER, then_asked, GOOD_ANSWER, hold)
    other = Worker()
    for asking in (worker, other, worker, other):
        assert asking.ask(server.url) == BODY
    other.keep_alive.close()
    assert server.connections == 2


def test_the_last_chunk_may_come_a_little_later(serve: Serve, worker: Worker) -> None:
    read = threading.Event()
    server = serve(GOOD_ANSWER[: -len(LAST_CHUNK)], until(read), LAST_CHUNK, then_asked, GOOD_ANSWER, hold)
    threading.Timer(HURRY_S / 10, read.set).start()
    assert [worker.ask(server.url) for _ in range(2)] == [BODY] * 2
    assert server.connections == 1


def test_a_server_that_keeps_the_body_open_is_waited_for_once(serve: Serve, worker: Worker) -> None:
    server = serve(GOOD_ANSWER[: -len(LAST_CHUNK)], hold)
    assert worker.keep_alive.drain_s == HURRY_S
    assert [worker.ask(server.url) for _ in range(2)] == [BODY] * 2
    assert worker.keep_alive.drain_s < HURRY_S / 10
    assert server.connections == 2


@pytest.mark.parametrize("status", ["429 Too Many Requests", "404 Not Found", "500 Oops", "204 No Content"])
def test_an_error_whose_body_was_read_leaves_its_connection(serve: Serve, worker: Worker, status: str) -> None:
    refusal = http(status, b"" if status.startswith("204") else error_body("no"))
    server = serve(refusal, then_asked, refusal, then_asked, GOOD_ANSWER, hold)
    worker.fails(server.url)
    worker.fails(server.url)
    assert worker.ask(server.url) == BODY
    assert server.connections == 1


# What makes a new connection, silently.


@every_scheme
@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([GOOD_ANSWER], id="closed-without-a-word"),
        pytest.param([CLOSE_HEAD, BODY], id="body-until-the-end"),
        pytest.param([HEAD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), *PLAIN_ANSWER[1:], hold], id="said"),
        pytest.param([OLD_HEAD, BODY], id="http-1.0"),
        pytest.param(
            [http("200 OK", BODY, "Connection: keep-alive").replace(b"1.1", b"1.0"), hold], id="old-keep-alive"
        ),
        pytest.param([length_head(len(BODY)) + BODY + MORE, hold], id="longer-than-its-length"),
        pytest.param([GOOD_ANSWER + MORE, hold], id="more-behind-the-last-chunk"),
        pytest.param([GOOD_ANSWER + b"\r\n", hold], id="a-line-end-behind-the-last-chunk"),
        pytest.param([GOOD_ANSWER.replace(b"\r\n", b"\r\nContent-Length: 5\r\n", 1), hold], id="two-lengths"),
        pytest.param([OK + b"Transfer-Encoding: identity\r\n\r\n" + BODY], id="unknown-coding"),
    ],
)
def test_an_answer_without_a_sure_end_costs_a_new_connection_and_no_try(
    serve: Serve, worker: Worker, scheme: str, steps: list[Step]
) -> None:
    server = serve(tuple(steps), (GOOD_ANSWER, then_asked, GOOD_ANSWER, hold), **tls_of(scheme))
    assert worker.ask(server.url).startswith(HELLO)
    assert [worker.ask(server.url) for _ in range(2)] == [BODY] * 2
    assert server.connections == 2
