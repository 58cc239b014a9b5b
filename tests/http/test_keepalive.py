"""A worker's requests share one connection if that is safe, and nothing is sent twice."""

import contextlib
import gc
import os
import shutil
import socket
import ssl
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import rawserver
from rawserver import (
    BODY,
    CLOSE_HEAD,
    ESTABLISHED,
    HEAD,
    HELLO,
    LAST_CHUNK,
    OK,
    OLD_HEAD,
    PATIENCE_S,
    PLAIN_ANSWER,
    Request,
    Serve,
    Step,
    certificates,
    chunk,
    error_body,
    forever,
    hold,
    http,
    length_head,
    read_request,
    tls_context,
    tls_of,
    until,
)

from smai_cli.common.clocks import HURRY_S, Clocks
from smai_cli.config.endpoint import Endpoint
from smai_cli.errors import BrokenError, BusyError, ClockError, ConnectError, Retry, SmaiError
from smai_cli.http.exchange import Exchange
from smai_cli.http.keepalive import KeepAlive

pytest_plugins = ["rawserver"]

REQUEST = b'{"model": "m"}'
LARGE = b'{"model": "m", "messages": "' + b"x" * (16 << 20) + b'"}'
GOOD_ANSWER = b"".join(PLAIN_ANSWER)
MORE = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
every_scheme = pytest.mark.parametrize("scheme", ["http", "https"])


class Worker:
    """Sends requests as a worker does: reads up to [DONE], and closes the answer."""

    def __init__(self) -> None:
        self.keep_alive = KeepAlive()

    def ask(self, url: str, clocks: Clocks | None = None, body: bytes = REQUEST) -> bytes:
        answer = Exchange(
            Endpoint(url),
            "/chat/completions",
            body,
            clocks or Clocks(),
            ca_file=certificates().ca_file,
            keep_alive=self.keep_alive,
        ).open()
        came = b""
        with contextlib.closing(answer):
            for piece in answer:
                came += piece
                if b"[DONE]" in came:
                    break
        return came

    def exchange(self, url: str) -> Exchange:
        ca_file, keep_alive = certificates().ca_file, self.keep_alive
        return Exchange(Endpoint(url), "/x", REQUEST, Clocks(), ca_file=ca_file, keep_alive=keep_alive)

    def fails(self, url: str, clocks: Clocks | None = None) -> SmaiError:
        with pytest.raises(SmaiError) as caught:
            self.ask(url, clocks)
        return caught.value


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    made.keep_alive.close()


def next_request(connection: socket.socket) -> None:
    """Read the next request on the same connection."""
    read_request(connection)


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
def test_a_worker_sends_all_requests_on_one_connection(
    serve: Serve, worker: Worker, scheme: str, answer: bytes
) -> None:
    server = serve(answer, next_request, answer, next_request, answer, hold, **tls_of(scheme))
    assert [worker.ask(server.url) for _ in range(3)] == [BODY] * 3
    assert server.connections == 1


def test_each_of_two_workers_has_its_own_connection(serve: Serve, worker: Worker) -> None:
    server = serve(GOOD_ANSWER, next_request, GOOD_ANSWER, hold)
    other = Worker()
    for asking in (worker, other, worker, other):
        assert asking.ask(server.url) == BODY
    other.keep_alive.close()
    assert server.connections == 2


def test_the_last_chunk_may_come_a_little_later(serve: Serve, worker: Worker) -> None:
    read = threading.Event()
    server = serve(GOOD_ANSWER[: -len(LAST_CHUNK)], until(read), LAST_CHUNK, next_request, GOOD_ANSWER, hold)
    worker.keep_alive.drain_s = PATIENCE_S
    threading.Timer(HURRY_S / 10, read.set).start()
    assert [worker.ask(server.url) for _ in range(2)] == [BODY] * 2
    assert server.connections == 1


def test_smai_waits_only_once_for_a_server_that_keeps_the_body_open(serve: Serve, worker: Worker) -> None:
    server = serve(GOOD_ANSWER[: -len(LAST_CHUNK)], hold)
    assert worker.keep_alive.drain_s == HURRY_S
    assert [worker.ask(server.url) for _ in range(2)] == [BODY] * 2
    assert worker.keep_alive.drain_s < HURRY_S / 10
    assert server.connections == 2


@pytest.mark.parametrize("status", ["429 Too Many Requests", "404 Not Found", "500 Oops", "204 No Content"])
def test_the_connection_is_kept_after_an_error_whose_body_was_read(serve: Serve, worker: Worker, status: str) -> None:
    refusal = http(status, b"" if status.startswith("204") else error_body("no"))
    server = serve(refusal, next_request, refusal, next_request, GOOD_ANSWER, hold)
    worker.fails(server.url)
    worker.fails(server.url)
    assert worker.ask(server.url) == BODY
    assert server.connections == 1


# What silently causes a new connection.


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
        pytest.param([GOOD_ANSWER + MORE, hold], id="more-after-the-last-chunk"),
        pytest.param([GOOD_ANSWER + b"\r\n", hold], id="a-line-end-after-the-last-chunk"),
        pytest.param([GOOD_ANSWER.replace(b"\r\n", b"\r\nContent-Length: 5\r\n", 1), hold], id="two-lengths"),
        pytest.param([OK + b"Transfer-Encoding: identity\r\n\r\n" + BODY], id="unknown-coding"),
    ],
)
def test_a_response_without_a_defined_length_needs_a_new_connection_but_no_retry(
    serve: Serve, worker: Worker, scheme: str, steps: list[Step]
) -> None:
    server = serve(tuple(steps), (GOOD_ANSWER, next_request, GOOD_ANSWER, hold), **tls_of(scheme))
    assert worker.ask(server.url).startswith(HELLO)
    assert [worker.ask(server.url) for _ in range(2)] == [BODY] * 2
    assert server.connections == 2


def test_an_idle_connection_that_the_server_closed_needs_no_retry(serve: Serve, worker: Worker) -> None:
    closing, closed = threading.Event(), threading.Event()

    def closes(connection: socket.socket) -> None:
        closing.wait(PATIENCE_S)
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()
        closed.set()

    server = serve((GOOD_ANSWER, next_request, GOOD_ANSWER, closes), (GOOD_ANSWER, hold))
    assert [worker.ask(server.url) for _ in range(2)] == [BODY] * 2
    closing.set()
    assert closed.wait(PATIENCE_S)
    assert worker.ask(server.url) == BODY
    assert server.connections == 2


def ends_tls(connection: socket.socket) -> None:
    """A step: close_notify, and no FIN."""
    assert isinstance(connection, ssl.SSLSocket)
    connection.settimeout(0.0)
    with contextlib.suppress(ssl.SSLError):
        connection.unwrap()
    connection.settimeout(PATIENCE_S)


@pytest.mark.parametrize(
    ("last_words", "scheme"),
    [
        pytest.param(http("408 Request Timeout", b"", "Connection: close"), "http", id="408"),
        pytest.param(http("408 Request Timeout", b"", "Connection: close"), "https", id="408-over-tls"),
        pytest.param(MORE, "http", id="an-answer-that-nobody-asked-for"),
        pytest.param(ends_tls, "https", id="close-notify"),
    ],
)
def test_bytes_on_an_idle_connection_are_not_mistaken_for_the_next_response(
    serve: Serve, worker: Worker, last_words: Step, scheme: str
) -> None:
    speaking, said = threading.Event(), threading.Event()
    first = (GOOD_ANSWER, until(speaking), last_words, lambda _: said.set(), hold)
    server = serve(first, (GOOD_ANSWER, hold), **tls_of(scheme))
    assert worker.ask(server.url) == BODY
    speaking.set()
    assert said.wait(PATIENCE_S)
    assert worker.ask(server.url) == BODY
    assert server.connections == 2


def test_a_request_is_not_sent_twice_if_the_server_closes_the_connection_meanwhile(
    serve: Serve, worker: Worker
) -> None:
    server = serve((GOOD_ANSWER, next_request), (GOOD_ANSWER, hold))
    assert worker.ask(server.url) == BODY
    failure = worker.fails(server.url)
    assert isinstance(failure, BrokenError)
    assert failure.retry is Retry.NEVER
    assert len(server.requests) == 1
    assert worker.ask(server.url) == BODY


def test_a_connection_that_was_idle_for_long_is_not_reused(serve: Serve, worker: Worker) -> None:
    server = serve((GOOD_ANSWER, hold))
    assert worker.ask(server.url) == BODY
    assert worker.keep_alive._idle
    worker.keep_alive._idle._since_s -= 4.5
    assert worker.ask(server.url) == BODY
    assert server.connections == 2


def test_a_connection_is_reused_only_for_the_same_server_and_ca_file(serve: Serve, worker: Worker) -> None:
    server = serve(GOOD_ANSWER, hold, tls=certificates().context)
    other = serve(GOOD_ANSWER, hold)
    assert worker.ask(server.url) == BODY
    assert worker.ask(other.url) == BODY
    assert worker.ask(server.url) == BODY
    assert server.connections == 2
    with pytest.raises(ConnectError, match="TLS failed"):
        Exchange(Endpoint(server.url), "/x", REQUEST, Clocks(), keep_alive=worker.keep_alive).open()


def test_the_connection_is_not_kept_after_an_early_answer(serve: Serve, worker: Worker) -> None:
    def reads_the_head_only(connection: socket.socket) -> Request:
        return Request(connection.recv(1000), b"", 0.0)

    gone = threading.Event()
    refusal = http("413 Content Too Large", error_body("too long"))
    server = serve(refusal, rawserver.ignore, lambda _: gone.set(), reads=reads_the_head_only)
    with pytest.raises(SmaiError, match="too long"):
        worker.ask(server.url, body=b" " * (8 << 20))
    assert gone.wait(PATIENCE_S)
    assert worker.keep_alive._idle is None


# An exchange that did not end normally keeps nothing.


@every_scheme
@pytest.mark.parametrize(
    ("steps", "failure"),
    [
        pytest.param([HEAD, chunk(HELLO)], BrokenError, id="cut"),
        pytest.param([length_head(1000), HELLO], BrokenError, id="shorter-than-its-length"),
        pytest.param([HEAD, chunk(HELLO), b"zz\r\n", hold], BrokenError, id="malformed"),
        pytest.param([HEAD, chunk(HELLO), hold], ClockError, id="stalled"),
        pytest.param([OK, hold], ClockError, id="half-a-head"),
        pytest.param([http("500 Oops", b"x" * 70000)[:-1], hold], BusyError, id="long-error"),
    ],
)
@pytest.mark.parametrize("is_first", [True, False], ids=["first", "second"])
def test_a_failed_exchange_keeps_no_connection(
    serve: Serve, worker: Worker, scheme: str, steps: list[Step], failure: type[SmaiError], is_first: bool
) -> None:
    before = () if is_first else (GOOD_ANSWER, next_request)
    server = serve((*before, *steps), (GOOD_ANSWER, hold), **tls_of(scheme))
    if not is_first:
        assert worker.ask(server.url) == BODY
    clocks = Clocks(connect_timeout_s=30.0, idle_timeout_s=0.2 if failure is ClockError else 30.0)
    assert isinstance(worker.fails(server.url, clocks), failure)
    assert worker.ask(server.url) == BODY
    assert server.connections == 2


@every_scheme
def test_closing_an_exchange_from_another_thread_ends_it_at_once_on_a_kept_connection(
    serve: Serve, worker: Worker, scheme: str
) -> None:
    silent, gone = threading.Event(), threading.Event()

    def says_nothing(connection: socket.socket) -> None:
        silent.set()
        with contextlib.suppress(ConnectionError):
            hold(connection)
        gone.set()

    first = (GOOD_ANSWER, next_request, HEAD, chunk(HELLO), says_nothing)
    server = serve(first, (GOOD_ANSWER, hold), **tls_of(scheme))
    assert worker.ask(server.url) == BODY
    exchange = worker.exchange(server.url)

    def close() -> None:
        silent.wait(PATIENCE_S)
        exchange.close()

    closing = threading.Thread(target=close)
    closing.start()
    with pytest.raises(BrokenError, match="was cancelled"):
        list(exchange.open())
    closing.join()
    assert gone.wait(PATIENCE_S)
    assert worker.ask(server.url) == BODY


@every_scheme
def test_a_request_without_an_answer_in_time_ends_with_a_reset(serve: Serve, worker: Worker, scheme: str) -> None:
    """On a new connection, and on a kept one: after a FIN alone, a server may go on to answer."""
    for before in ((), (GOOD_ANSWER, next_request)):
        aborted = threading.Event()
        server = serve((*before, rawserver.ignore, lambda _, done=aborted: done.set()), **tls_of(scheme))
        if before:
            assert worker.ask(server.url) == BODY
        worker.fails(server.url, Clocks(connect_timeout_s=30.0, idle_timeout_s=0.1))
        assert aborted.wait(PATIENCE_S)
        assert server.connections == 1


def test_a_long_remainder_of_a_response_is_not_read(serve: Serve, worker: Worker) -> None:
    server = serve((HEAD, forever(chunk(b"data: [DONE]" + b" " * 9000))), (GOOD_ANSWER, hold))
    assert b"[DONE]" in worker.ask(server.url)
    assert worker.ask(server.url) == BODY
    assert server.connections == 2


def test_closing_a_finished_exchange_does_not_end_the_next_one(serve: Serve, worker: Worker) -> None:
    closed = threading.Event()
    server = serve(GOOD_ANSWER, next_request, *PLAIN_ANSWER[:2], until(closed), *PLAIN_ANSWER[2:], hold)
    first = worker.exchange(server.url)
    assert b"".join(first.open()) == BODY
    second = worker.exchange(server.url).open()
    pieces = iter(second)
    assert next(pieces) == HELLO
    first.close()
    closed.set()
    assert HELLO + b"".join(pieces) == BODY
    assert server.connections == 1


# What is shared by requests, and what is left at the end.


def test_cookies_are_not_sent_back(serve: Serve, worker: Worker) -> None:
    seen = []
    baking = GOOD_ANSWER.replace(b"\r\n", b"\r\nSet-Cookie: a=b; Path=/\r\n", 1)
    server = serve(baking, lambda connection: seen.append(read_request(connection)), GOOD_ANSWER, hold)
    assert worker.ask(server.url) == BODY
    assert worker.ask(server.url, body=b"[" + REQUEST + b"]") == BODY
    first, second = server.requests[0], seen[0]
    assert second.body == b"[" + REQUEST + b"]"
    lines = [set(request.head.split(b"\r\n")) for request in (first, second)]
    assert lines[0] ^ lines[1] == {b"Content-Length: 14", b"Content-Length: 16"}


@every_scheme
def test_many_requests_leak_no_descriptor_no_thread_and_no_garbage(serve: Serve, worker: Worker, scheme: str) -> None:
    steps = [GOOD_ANSWER, next_request] * 20
    server = serve(*steps, GOOD_ANSWER, hold, **tls_of(scheme))
    asked: list[weakref.ref[Exchange]] = []
    gc.collect()
    gc.disable()
    try:
        worker.ask(server.url)
        before = len(os.listdir("/dev/fd")), threading.active_count()
        for _ in range(20):
            exchange = Exchange(
                Endpoint(server.url),
                "/x",
                REQUEST,
                Clocks(),
                ca_file=certificates().ca_file,
                keep_alive=worker.keep_alive,
            )
            asked.append(weakref.ref(exchange))
            assert b"".join(exchange.open()) == BODY
        assert (len(os.listdir("/dev/fd")), threading.active_count()) == before
        assert sum(one() is not None for one in asked) <= 1  # the connection may remember its last one
    finally:
        gc.enable()
    assert server.connections == 1


def test_a_worker_keeps_two_descriptors_open_between_requests(serve: Serve, worker: Worker) -> None:
    server = serve(GOOD_ANSWER, hold)
    before = len(os.listdir("/dev/fd"))
    worker.ask(server.url)
    assert len(os.listdir("/dev/fd")) == before + 2 + 1  # and the server's one
    worker.keep_alive.close()


# TLS.


def test_the_ca_certificates_are_loaded_once_for_all_workers(serve: Serve, tmp_path: Path) -> None:
    server = serve(GOOD_ANSWER, hold, tls=certificates().context)
    ca_file = shutil.copy(certificates().ca_file, tmp_path / "ca.pem")
    for number in range(2):
        keep_alive = KeepAlive()
        answer = Exchange(
            Endpoint(server.url), "/x", REQUEST, Clocks(), ca_file=str(ca_file), keep_alive=keep_alive
        ).open()
        assert b"".join(answer) == BODY
        keep_alive.close()
        if not number:
            Path(ca_file).unlink()


@pytest.mark.parametrize("ca", ["none", "missing", "empty", "a folder", "another host"])
def test_a_tls_failure_has_the_same_message_as_without_keep_alive(serve: Serve, tmp_path: Path, ca: str) -> None:
    server = serve(GOOD_ANSWER, hold, tls=certificates().context)
    url = server.url.replace("127.0.0.1", "127.0.0.2") if ca == "another host" else server.url
    ca_file = {"none": None, "a folder": str(tmp_path), "another host": certificates().ca_file}.get(
        ca, str(tmp_path / ca)
    )
    if ca == "empty":
        (tmp_path / ca).touch()
    messages = []
    for keep_alive in (None, KeepAlive()):
        with pytest.raises(SmaiError) as caught:
            Exchange(Endpoint(url), "/x", REQUEST, Clocks(), ca_file=ca_file, keep_alive=keep_alive).open()
        messages.append((type(caught.value), str(caught.value)))
    assert messages[0] == messages[1]


# Proxies.


def test_a_forwarding_proxy_gets_all_requests_on_one_connection(
    serve: Serve, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(GOOD_ANSWER, next_request, GOOD_ANSWER, next_request, GOOD_ANSWER, hold)
    monkeypatch.setenv("http_proxy", server.url)
    assert [worker.ask("http://smai.example/v1") for _ in range(3)] == [BODY] * 3
    assert server.connections == 1
    assert server.requests[0].head.startswith(b"POST http://smai.example/v1/chat/completions ")


def test_a_forwarding_proxy_is_named_if_it_fails_on_a_kept_connection(
    serve: Serve, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = serve(GOOD_ANSWER, next_request, http("407 Proxy Authentication Required"))
    monkeypatch.setenv("http_proxy", proxy.url)
    assert worker.ask("http://smai.example/v1") == BODY
    failure = worker.fails("http://smai.example/v1")
    assert isinstance(failure, ConnectError)
    assert "of http_proxy: it answered 407" in str(failure)
    assert proxy.connections == 1


def test_a_tunnel_through_a_proxy_is_reused(serve: Serve, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    context = tls_context("smai.example")
    closed = threading.Event()

    def is_the_server(connection: socket.socket) -> None:
        connection.sendall(ESTABLISHED)
        with context.wrap_socket(connection, server_side=True) as peer:
            for _ in range(2):
                read_request(peer)
                peer.sendall(GOOD_ANSWER)
        closed.set()

    proxy = serve(is_the_server)
    monkeypatch.setenv("https_proxy", proxy.url)
    assert [worker.ask("https://smai.example/v1") for _ in range(2)] == [BODY] * 2
    assert closed.wait(20)
    assert worker.ask("https://smai.example/v1") == BODY
    assert proxy.connections == 2
    assert {request.head.split(b" HTTP")[0] for request in proxy.requests} == {b"CONNECT smai.example:443"}


def test_an_early_answer_in_a_tunnel_is_not_mixed_up_with_the_answer_to_the_next_connect(
    serve: Serve, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = tls_context("smai.example")
    closed = threading.Event()

    def is_the_server(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)  # so that the body does not fit into buffers
        connection.sendall(ESTABLISHED)
        with context.wrap_socket(connection, server_side=True) as peer:
            peer.recv(1000)
            peer.sendall(GOOD_ANSWER)  # before it has read the body
            while (piece := peer.recv(65536)) and not piece.endswith(LARGE[-2:]):
                pass
        closed.set()

    proxy = serve(is_the_server)
    monkeypatch.setenv("https_proxy", proxy.url)
    for _ in range(2):
        assert worker.ask("https://smai.example/v1", body=LARGE) == BODY
        assert closed.wait(20)
        closed.clear()
    assert proxy.connections == 2


def test_a_server_that_drops_a_request_in_a_tunnel_is_not_taken_for_the_proxy(
    serve: Serve, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = tls_context("smai.example")

    def is_the_server(connection: socket.socket) -> None:
        connection.sendall(ESTABLISHED)
        with context.wrap_socket(connection, server_side=True) as peer:
            read_request(peer)

    monkeypatch.setenv("https_proxy", serve(is_the_server).url)
    failure = worker.fails("https://smai.example/v1")
    assert isinstance(failure, BrokenError)
    assert "the server dropped the request without an answer" in str(failure)


def test_a_slow_record_through_a_tls_proxy_does_not_restart_the_clock(
    serve: Serve, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is TLS within TLS: the parts of one inner record come in many outer ones."""
    arrived, produced = ssl.MemoryBIO(), ssl.MemoryBIO()
    inner = tls_context("smai.example").wrap_bio(arrived, produced, server_side=True)
    is_whole = threading.Event()

    def is_the_server(connection: socket.socket) -> None:
        connection.sendall(ESTABLISHED)
        for action in (inner.do_handshake, lambda: inner.read(65536)):
            while True:
                try:
                    action()
                    break
                except ssl.SSLWantReadError:
                    connection.sendall(produced.read())
                    arrived.write(connection.recv(65536))
        inner.write(HEAD + chunk(HELLO))
        connection.sendall(produced.read())
        inner.write(chunk(b": " + b"x" * 9000))
        for byte in produced.read():
            connection.sendall(bytes([byte]))
            rawserver.pause(0.01)(connection)
        is_whole.set()

    proxy = serve(is_the_server, tls=certificates().context)
    monkeypatch.setenv("https_proxy", proxy.url)
    failure = worker.fails("https://smai.example/v1", Clocks(connect_timeout_s=30.0, idle_timeout_s=0.2))
    assert isinstance(failure, ClockError)
    assert not is_whole.is_set()
