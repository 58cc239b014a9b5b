"""What the gateway passes on: the answer byte for byte, a cut as a cut, failures as errors; and what it does not."""

import contextlib
import errno
import json
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateways import ALONE, CHAT, QUESTION, TOKEN, Answer, Client, Start, ask, request
from rawserver import (
    BODY,
    CLOSE_HEAD,
    DONE,
    GOOD,
    GZIP_HEAD,
    HEAD,
    HELLO,
    HOLD_S,
    KEY,
    LAST_CHUNK,
    OK,
    OLD_HEAD,
    PATIENCE_S,
    PLAIN_ANSWER,
    STOP,
    Checkpoint,
    RawServer,
    Serve,
    Step,
    answer,
    certificates,
    chunk,
    data,
    error_body,
    forever,
    gzipped,
    hold,
    http,
    ignore,
    length_head,
    payload,
    reset,
    single_bytes,
)

from smai_cli.common.clocks import Clocks, Deadline
from smai_cli.config.endpoint import Endpoint
from smai_cli.config.headers import Header
from smai_cli.config.keys import Secret
from smai_cli.serve.gateway import Gateway, Upstream
from smai_cli.serve.handler import GatewayHandler
from smai_cli.serve.hiding import Hider, secrets_of
from smai_cli.serve.limits import ClientLimits
from smai_cli.serve.pages import PageDefaults
from smai_cli.serve.watch import Watch

pytest_plugins = ["rawserver", "gateways"]

STREAMS = Path(__file__).parent.parent / "streams"
TAPES = sorted(STREAMS.rglob("*.sse"))
RATE_LIMIT = {"message": "slow down", "type": "test", "code": "rate_limit_exceeded"}


# The answer, as it is.


def framings(body: bytes) -> Iterator[tuple[bool, list[Step]]]:
    """Yield ways in which a server may send `body`, and whether a client can notice a cut."""
    whole = [chunk(body)] if body else []
    yield False, [HEAD, *whole, LAST_CHUNK]
    yield False, [length_head(len(body)), body]
    yield False, [CLOSE_HEAD, body]
    yield False, [OLD_HEAD, body]
    yield True, [HEAD, *whole]
    yield True, [length_head(len(body) + 1), body]
    yield True, [HEAD, *whole, reset]


@pytest.mark.parametrize(
    "every",
    [
        pytest.param(1, marks=[pytest.mark.nightly, pytest.mark.timeout(300)]),
        pytest.param(29, marks=pytest.mark.thorough),
    ],
)
def test_every_recording_is_forwarded_unchanged_and_a_cut_stays_a_cut(gateway: Start, every: int) -> None:
    assert len(TAPES) > 50
    cases = [
        (tape.name, body, *case) for tape in TAPES[::every] for body in [tape.read_bytes()] for case in framings(body)
    ]
    server = RawServer(*(answer(*steps) for *_, steps in cases))
    running = gateway(server.url)
    client = Client(running.port)  # kept, as long as answers have an end
    for name, body, is_cut, steps in cases:
        client.send(request(running.port))
        got = client.answer()
        assert (got.status, got.body, got.is_cut) == (200, body, is_cut), name
        if is_cut or steps[0] in (CLOSE_HEAD, OLD_HEAD):  # a body that does not mark its end has no end here either
            assert client.is_closed()
            client.close()
            client = Client(running.port)
    client.close()
    server.close()


def test_every_recording_is_forwarded_correctly_byte_by_byte(gateway: Start) -> None:
    bodies = [tape.read_bytes() for tape in TAPES[::8]]
    server = RawServer(*(answer(CLOSE_HEAD, single_bytes(body)) for body in bodies))
    running = gateway(server.url)
    assert [ask(running).body for _ in bodies] == bodies
    server.close()


@pytest.mark.parametrize("path", [CHAT, "/v1/responses"])
def test_a_request_is_forwarded_byte_for_byte_to_the_same_path(serve: Serve, gateway: Start, path: str) -> None:
    server = serve(*PLAIN_ANSWER)
    body = b'{ "stream" :\ttrue, "x": "\xf0\x9f\x98\x80 \\ud83d", "x": 1e400}\r\n'
    assert ask(gateway(server.url), "POST", path, body).body == BODY
    (got,) = server.requests
    assert got.body == body
    assert got.head.startswith(f"POST {path} HTTP/1.1\r\n".encode())


def test_a_request_for_the_models_is_forwarded(serve: Serve, gateway: Start) -> None:
    server = serve(http("200 OK", b'{"data": []}', "Content-Type: application/json"))
    got = ask(gateway(server.url), "GET", "/v1/models", None)
    assert (got.body, got.headers["content-type"]) == (b'{"data": []}', "application/json")
    assert server.requests[0].head.startswith(b"GET /v1/models HTTP/1.1\r\n")


def test_each_piece_is_forwarded_before_the_next_one_arrives(serve: Serve, gateway: Start) -> None:
    go = threading.Event()
    running = gateway(serve(HEAD, chunk(HELLO), lambda _: go.wait(HOLD_S), *map(chunk, GOOD[1:]), LAST_CHUNK).url)
    with Client(running.port) as client:
        client.send(request(running.port))
        response = client.begun()
        assert response.read1(1000) == HELLO
        go.set()
        assert HELLO + response.read() == BODY


def test_an_answer_compressed_by_a_proxy_is_forwarded_as_text(serve: Serve, gateway: Start) -> None:
    running = gateway(serve(GZIP_HEAD, *map(chunk, gzipped(*GOOD)), LAST_CHUNK).url)
    got = ask(running)
    assert (got.body, "content-encoding" in got.headers) == (BODY, False)


def test_a_server_with_tls_works(serve: Serve, gateway: Start) -> None:
    assert ask(gateway(serve(*PLAIN_ANSWER, tls=certificates().context).url)).body == BODY


@pytest.mark.parametrize(("status", "is_chunked"), [("204 No Content", False), ("205 Reset Content", True)])
def test_an_empty_answer_ends_at_once(serve: Serve, gateway: Start, status: str, *, is_chunked: bool) -> None:
    running = gateway(serve(http(status)).url)
    with Client(running.port) as client:
        for _ in range(2):
            client.send(request(running.port))
            got = client.answer()
            assert (got.status, got.body, got.is_cut) == (int(status[:3]), b"", False)
            assert ("transfer-encoding" in got.headers) is is_chunked  # RFC 9110, sections 15.3.5 and 15.3.6


def test_an_http_1_0_client_can_distinguish_a_complete_answer_from_a_cut_off_one(serve: Serve, gateway: Start) -> None:
    running = gateway(serve((*PLAIN_ANSWER,), (HEAD, chunk(HELLO))).url)
    old = request(running.port).replace(b"HTTP/1.1", b"HTTP/1.0")
    for is_cut in (False, True):
        with Client(running.port) as client:
            client.send(old)
            got = client.answer()
            assert "transfer-encoding" not in got.headers
            assert got.is_cut == is_cut
            assert is_cut or got.body == BODY


# Headers, in both directions.


def test_only_the_body_and_the_key_are_sent_to_the_server(serve: Serve, gateway: Start) -> None:
    server = serve(*PLAIN_ANSWER)
    running = gateway(server.url)
    lines = [
        "Cookie: session=monster",
        f"Origin: http://127.0.0.1:{running.port}",
        f"Referer: http://127.0.0.1:{running.port}/",
        "X-Forwarded-For: 10.0.0.1",
        "OpenAI-Organization: org-1",
        "Accept-Encoding: gzip, br",
        "User-Agent: Browser/1",
        "Sec-Fetch-Site: same-origin",
        "api-key: other",
    ]
    assert ask(running, "POST", CHAT, QUESTION, *lines).status == 200
    assert ask(running, "GET", "/v1/models", None, *lines).status == 200
    for got in server.requests:
        fields = dict(line.split(": ", 1) for line in got.head.decode().split("\r\n")[1:])
        assert fields["Authorization"] == f"Bearer {KEY}"
        assert set(fields) <= {
            "Accept",
            "Accept-Encoding",
            "Authorization",
            "Connection",
            "Content-Length",
            "Content-Type",
            "Host",
            "User-Agent",
        }
        assert fields["User-Agent"].startswith("smai/")
        assert TOKEN.encode() not in got.head


def test_a_server_without_a_key_gets_none_and_not_the_token(serve: Serve, gateway: Start) -> None:
    server = serve(*PLAIN_ANSWER)
    assert ask(gateway(server.url, None)).status == 200
    assert b"authorization" not in server.requests[0].head.lower()


def test_only_three_headers_of_the_server_are_forwarded(serve: Serve, gateway: Start) -> None:
    lines = (
        "Content-Type: application/json",
        "Retry-After: 7",
        "x-request-id: req-1",
        "Set-Cookie: a=b",
        "Access-Control-Allow-Origin: *",
        "Content-Security-Policy: default-src *",
        "Location: http://evil.test/",
        "Server: nginx",
        "Cache-Control: public",
    )
    got = ask(gateway(serve(http("429 Slow Down", json.dumps({"error": RATE_LIMIT}).encode(), *lines)).url))
    assert (got.status, got.error) == (429, RATE_LIMIT)
    assert got.headers["retry-after"] == "7"
    assert got.headers["x-request-id"] == "req-1"
    assert got.headers["cache-control"] == "no-store"
    assert not {"set-cookie", "access-control-allow-origin", "location", "server"} & set(got.headers)
    assert "default-src 'none'" in got.headers["content-security-policy"]


@pytest.mark.parametrize(
    "status", ["400 Bad", "401 No", "404 Gone", "418 Tea", "500 Oops", "503 Busy", "529 Overloaded"]
)
def test_an_error_of_the_server_is_forwarded_with_its_status_and_message(
    serve: Serve, gateway: Start, status: str
) -> None:
    body = error_body("why not") + b" " * 100_000
    got = ask(gateway(serve(http(status, body, "Content-Type: application/json")).url))
    assert (got.status, got.body, got.is_cut) == (int(status[:3]), body, False)


# Failures before an answer.


@pytest.mark.parametrize(
    ("steps", "status", "code", "said", "again"),
    [
        pytest.param([], 502, "upstream_broken", "may have been billed", False, id="dropped"),
        pytest.param([OK[:20], reset], 502, "upstream_broken", "may have been billed", False, id="reset"),
        pytest.param([b"\x00\x01\x02\r\n\r\n"], 502, "upstream_broken", "", False, id="no-http"),
        pytest.param([http("302 Found", b"", "Location: /x")], 502, "upstream_refused", "redirect", False, id="302"),
        pytest.param([hold], 504, "upstream_timeout", "no answer began within 0.2 s", False, id="silent"),
        pytest.param([OK + b"Content-Length: x\r\n\r\n"], 502, "upstream_broken", "not a number", True, id="length"),
    ],
)
def test_a_failure_before_the_answer_is_an_error_in_the_words_of_smai(
    serve: Serve, gateway: Start, steps: list[Step], status: int, code: str, said: str, again: bool
) -> None:
    server = serve(tuple(steps))
    running = gateway(server.url, clocks=Clocks(connect_timeout_s=PATIENCE_S, idle_timeout_s=0.2))
    got = ask(running)
    assert (got.status, got.error["code"], got.error["type"]) == (status, code, "server_error")
    assert said in got.error["message"]
    assert (got.headers.get("x-should-retry") == "false") == (not again)
    assert server.connections == 1, "nothing is sent twice"


def test_the_errors_of_the_gateway_are_marked_and_a_server_cannot_send_the_mark(serve: Serve, gateway: Start) -> None:
    running = gateway(serve((http("502 Bad", error_body("no"), "Smai-Gateway: error"),), ()).url)
    for marked in (False, True):
        got = ask(running)
        assert (got.status, got.headers.get("smai-gateway")) == (502, "error" if marked else None)
    assert ask(running, "GET", "/nothing", None).headers["smai-gateway"] == "error"


def test_a_server_that_is_not_running_is_a_bad_gateway_error(gateway: Start) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        got = ask(gateway(f"http://127.0.0.1:{unused.getsockname()[1]}/v1"))
    assert (got.status, got.error["code"]) == (502, "upstream_connect")
    assert "could not connect" in got.error["message"]
    assert "x-should-retry" not in got.headers


def test_a_server_that_does_not_accept_connections_is_a_timeout(gateway: Start, silent_port: int) -> None:
    got = ask(gateway(f"http://127.0.0.1:{silent_port}/v1", clocks=Clocks(connect_timeout_s=0.2, idle_timeout_s=0.2)))
    assert (got.status, got.error["code"]) == (504, "upstream_timeout")
    assert "no connection within 0.2 s" in got.error["message"]


@pytest.mark.parametrize("clocks", [pytest.param((0.2, 0.0), id="idle"), pytest.param((0.0, 0.5), id="max-time")])
def test_a_timeout_within_an_answer_cuts_it_off(serve: Serve, gateway: Start, clocks: tuple[float, float]) -> None:
    idle_s, max_time_s = clocks
    running = gateway(
        serve(HEAD, chunk(HELLO), hold).url,
        clocks=Clocks(connect_timeout_s=PATIENCE_S, idle_timeout_s=idle_s, deadline=Deadline(max_time_s)),
    )
    got = ask(running)
    assert (got.status, got.body, got.is_cut) == (200, HELLO, True)


# The key.


@pytest.mark.parametrize("at", range(len(KEY) + 1))
def test_an_echoed_key_is_hidden_wherever_two_reads_split_it(serve: Serve, gateway: Start, at: int) -> None:
    body = data(payload(f"it is {KEY}, is it not"))
    start = body.index(KEY.encode()) + at
    go = threading.Event()
    running = gateway(serve(HEAD, chunk(body[:start]), lambda _: go.wait(HOLD_S), chunk(body[start:]), LAST_CHUNK).url)
    with Client(running.port) as client:
        client.send(request(running.port))
        response = client.begun()
        first = response.read1(1000)
        assert b"it is" in first
        go.set()
        assert first + response.read() == body.replace(KEY.encode(), b"...")


@pytest.mark.parametrize("status", ["200 OK", "401 Unauthorized", "500 Oops"])
def test_an_echoed_key_is_hidden_in_bodies_and_headers(serve: Serve, gateway: Start, status: str) -> None:
    lines = (f"x-request-id: {KEY}", f"Content-Type: text/{KEY}")
    told: list[str] = []
    got = ask(gateway(serve(http(status, error_body(f"bad key {KEY}"), *lines)).url, trace=told.append))
    assert KEY not in str(got)
    assert got.headers["x-request-id"] == "..."
    assert got.body == error_body("bad key ...")
    assert KEY not in "".join(told)


def test_an_echoed_key_is_hidden_in_a_failure(serve: Serve, gateway: Start) -> None:
    got = ask(gateway(serve(http("302 Found", b"", f"Location: http://x.test/{KEY}")).url))
    assert got.status == 502
    assert KEY not in str(got)


@pytest.mark.parametrize("length", [1, 5, 11, len(KEY) - 1])
def test_the_beginning_of_a_key_before_a_cut_is_hidden_if_it_is_half_of_it(
    serve: Serve, gateway: Start, length: int
) -> None:
    got = ask(gateway(serve(HEAD, chunk(b"x" + KEY[:length].encode())).url))
    assert got.is_cut
    assert got.body == (b"x..." if 2 * length >= len(KEY) else b"x" + KEY[:length].encode())


def test_only_the_secret_is_hidden_however_the_text_is_split() -> None:
    key = "sk-sk-sk/a1+é"
    forms = [key.encode(), b"sk-sk-sk\\/a1+\\u00e9", b"sk-sk-sk%2Fa1%2B%C3%A9"]
    text = b"sk-s sk-sk-" + b" sk-sk-".join(forms) + b"sk-sk-sk/a1" + forms[0] + forms[0] + b"sk-"
    expected = text
    for form in forms:
        expected = expected.replace(form, b"...")
    for size in range(1, len(text) + 1):
        hider = Hider([key])
        pieces = [hider.hidden_in(text[at : at + size]) for at in range(0, len(text), size)]
        assert b"".join(pieces) + hider.rest() == expected, size


def test_a_secret_with_the_beginning_of_another_is_hidden_completely() -> None:
    for size in range(1, 12):
        hider = Hider(["abcdefgh", "abcdefgh12345678"])
        text = b"abcdefgh12345678 abcdefgh12"
        pieces = [hider.hidden_in(text[at : at + size]) for at in range(0, len(text), size)]
        assert b"".join(pieces) + hider.rest() == b"... ...12"


SECRET = "value-0123456789abcdef"
HARMLESS = ["anthropic-beta", "OpenAI-Project", "X-Title", "HTTP-Referer", "x-monkey"]
SECRETS = ["api-key", "X-API-Key", "Ocp-Apim-Subscription-Key", "Cookie", "X-Auth-Token", "CF-Access-Client-Secret"]


@pytest.mark.parametrize(
    ("name", "is_hidden"), [*((name, False) for name in HARMLESS), *((name, True) for name in SECRETS)]
)
def test_the_name_of_a_header_decides_whether_an_answer_may_contain_its_value(
    serve: Serve, gateway: Start, name: str, is_hidden: bool
) -> None:
    body = data(payload(f"the header is {SECRET}, I think")) + STOP + DONE
    lines = (f"x-request-id: {SECRET}", "Content-Type: text/event-stream")
    got = ask(gateway(serve(http("200 OK", body, *lines)).url, headers={name: SECRET}))
    assert got.body == (body.replace(SECRET.encode(), b"...") if is_hidden else body)
    assert got.headers["x-request-id"] == ("..." if is_hidden else SECRET)


def test_an_answer_may_contain_the_value_of_a_header_that_is_a_word(serve: Serve, gateway: Start) -> None:
    beta = "prompt-caching-2024-07-31"
    body = data(payload(f"Set anthropic-beta to {beta}.")) + STOP + DONE
    assert ask(gateway(serve(http("200 OK", body)).url, headers={"anthropic-beta": beta})).body == body


def test_a_scheme_and_a_short_key_are_not_secret() -> None:
    header = Header(name="X-Auth-Token", value=Secret(f"Bearer {SECRET}"), source="-H")
    endpoint = Endpoint("http://x.test/v1?api-version=2024-10-21&code=2024-10-21", Secret("o"), (header,))
    assert secrets_of(endpoint) == [f"Bearer {SECRET}", SECRET]
    assert "12345678" in secrets_of(endpoint._replace(key=Secret("12345678")))
    assert secrets_of(Endpoint("http://x.test/v1?api-version=2024-10-21&api-key=ab%2Fcdefgh")) == [
        "ab%2Fcdefgh",
        "ab/cdefgh",
    ]


# The client disconnects, and the upstream server notices it.


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "before",
    [
        pytest.param([], id="before-the-head"),
        pytest.param([OK], id="in-the-head"),
        pytest.param([HEAD, chunk(HELLO)], id="in-silence"),
        pytest.param([CLOSE_HEAD, HELLO], id="in-silence-until-the-end"),
        pytest.param([http("500 Oops", b"")[:-4] + b"\r\nX: y"], id="in-the-head-of-an-error"),
        pytest.param([b"HTTP/1.1 500 Oops\r\n\r\nbecau"], id="in-the-body-of-an-error"),
    ],
)
@pytest.mark.parametrize("leaves", ["close", "reset", "half"])
def test_a_client_that_disconnects_ends_the_request_to_the_server(
    serve: Serve, gateway: Start, before: list[Step], scheme: str, leaves: str
) -> None:
    seen = Checkpoint()
    server = serve((*before, seen), tls=certificates().context if scheme == "https" else None)
    told: list[str] = []
    running = gateway(server.url, trace=told.append)
    with Client(running.port) as client:
        client.send(request(running.port))
        assert seen.begun.wait(PATIENCE_S)
        if HELLO in b"".join(step for step in before if isinstance(step, bytes)):
            assert client.begun().read1(1000) == HELLO
        assert not seen.gone.is_set()
        if leaves == "half":
            client.end()
        elif leaves == "reset":
            reset(client.socket)
        else:
            client.close()
        assert seen.gone.wait(PATIENCE_S)
    assert len(server.requests) == 1


def test_a_disconnect_is_noticed_within_a_second(serve: Serve, gateway: Start) -> None:
    lapses_s = []
    for _ in range(5):  # the least of them: a busy machine may be late
        seen = Checkpoint()
        running = gateway(serve(HEAD, chunk(HELLO), seen).url)
        with Client(running.port) as client:
            client.send(request(running.port))
            client.begun().read1(1000)
            at_s = time.monotonic()
        assert seen.gone.wait(PATIENCE_S)
        lapses_s.append(time.monotonic() - at_s)
    assert min(lapses_s) < 1


def test_a_client_that_disconnects_ends_an_answer_at_full_speed(serve: Serve, gateway: Start) -> None:
    gone = threading.Event()

    def floods(connection: socket.socket) -> None:
        try:
            forever(chunk(HELLO))(connection)
        finally:
            gone.set()

    running = gateway(serve(HEAD, floods).url)
    with Client(running.port) as client:
        client.send(request(running.port))
        client.begun().read(100_000)
    assert gone.wait(PATIENCE_S)


def flood(stopped: threading.Event) -> Step:
    """Return a step that sends as much as the other side takes, and sets `stopped` when that ends."""

    def send(connection: socket.socket) -> None:
        try:
            forever(chunk(HELLO * 100))(connection)
        finally:
            stopped.set()

    return send


def test_a_client_that_does_not_read_slows_the_server_down_and_can_still_disconnect(
    serve: Serve, gateway: Start
) -> None:
    gone = threading.Event()
    running = gateway(serve(HEAD, flood(gone)).url)
    with Client(running.port) as client:
        client.send(request(running.port))
        assert not gone.wait(0.5)  # by now every buffer is full
    assert gone.wait(PATIENCE_S)


@pytest.mark.parametrize("clocks", [(0.3, 0.0), (PATIENCE_S, 0.5)], ids=["idle", "max-time"])
def test_the_request_of_a_client_that_does_not_read_is_ended_and_its_slot_is_free(
    serve: Serve, gateway: Start, clocks: tuple[float, float]
) -> None:
    idle_s, max_time_s = clocks
    gone, lines = threading.Event(), list[str]()
    running = gateway(
        serve(HEAD, flood(gone)).url,
        clocks=Clocks(connect_timeout_s=PATIENCE_S, idle_timeout_s=idle_s, deadline=Deadline(max_time_s)),
        limits=ClientLimits(streams=1),
        trace=lines.append,
    )
    with Client(running.port) as client:
        client.send(request(running.port))
        assert gone.wait(PATIENCE_S), "the request to the server has ended"
        assert client.wait_for_reset()
        assert running.streams.acquire(timeout=PATIENCE_S), "the place is free"
    assert lines[0].endswith(", not read by the client")


def test_a_client_that_reads_slowly_gets_all_of_a_long_answer(serve: Serve, gateway: Start) -> None:
    body = HELLO * 100_000
    running = gateway(
        serve(length_head(len(body)), body).url, clocks=Clocks(connect_timeout_s=PATIENCE_S, idle_timeout_s=1.0)
    )
    with Client(running.port) as client:
        client.send(request(running.port))
        response, came = client.begun(), b""
        while piece := response.read(1 << 20):
            came += piece
            time.sleep(0.2)
    assert came == body


def test_a_client_that_disconnects_ends_an_upload(gateway: Start) -> None:
    begun, gone = threading.Event(), threading.Event()

    def reads_the_head_only(connection: socket.socket) -> object:
        connection.recv(1000)
        begun.set()
        ignore(connection)
        gone.set()
        raise ConnectionError

    server = RawServer(hold, reads=reads_the_head_only)  # type: ignore[arg-type]
    running = gateway(server.url)
    with Client(running.port) as client:
        client.send(request(running.port, "POST", CHAT, b" " * (32 << 20)))
        assert begun.wait(PATIENCE_S)
    assert gone.wait(PATIENCE_S)
    server.close()


def test_a_disconnect_is_noticed_even_after_a_pipelined_request(serve: Serve, gateway: Start) -> None:
    seen = Checkpoint()
    running = gateway(serve(HEAD, chunk(HELLO), seen).url)
    with Client(running.port) as client:
        client.send(request(running.port) * 2)
        client.begun().read1(1000)
        assert seen.begun.wait(PATIENCE_S)
    assert seen.gone.wait(PATIENCE_S)


def test_nothing_is_forwarded_if_a_client_disconnects_within_its_body(serve: Serve, gateway: Start) -> None:
    server = serve(*PLAIN_ANSWER)
    running = gateway(server.url)
    with Client(running.port) as client:
        client.send(request(running.port)[:-3])
        client.end()
        assert client.is_closed()
    assert server.connections == 0


# Many at once, and many in turn.


def test_a_sixth_streaming_answer_is_refused_until_one_is_stopped(serve: Serve, gateway: Start) -> None:
    server = serve(HEAD, chunk(HELLO), hold)
    running = gateway(server.url)
    clients = [Client(running.port) for _ in range(5)]
    for client in clients:
        client.send(request(running.port))
        assert client.begun().read1(1000) == HELLO
    with Client(running.port) as sixth:
        sixth.send(request(running.port))
        refused = sixth.answer()
        assert (refused.status, refused.error["code"]) == (429, "too_many_streams")
        assert "stop one of them" in refused.error["message"]
        assert server.connections == 5
        # The page of a sixth tab still loads, and an unstreamed answer does not count as a stream.
        sixth.send(request(running.port, "GET", "/", None))
        assert sixth.answer().status == 200
        sixth.send(request(running.port, "POST", CHAT, ALONE))
        assert sixth.begun().read1(1000) == HELLO
    clients.pop().close()
    with Client(running.port) as again:
        again.send(request(running.port))
        response = again.begun()
        assert (response.status, response.read1(1000)) == (200, HELLO)
    for client in clients:
        client.close()


def test_six_tabs_can_send_requests_at_the_same_time_on_separate_connections(serve: Serve, gateway: Start) -> None:
    running = gateway(serve(*PLAIN_ANSWER).url)
    answers: list[Answer] = []

    def tab() -> None:
        with Client(running.port) as client:
            client.send(request(running.port, "GET", "/", None))
            assert client.answer().status == 200
            for _ in range(5):
                client.send(request(running.port))
                answers.append(client.answer())

    tabs = [threading.Thread(target=tab) for _ in range(6)]
    for thread in tabs:
        thread.start()
    for thread in tabs:
        thread.join(PATIENCE_S)
    assert len(answers) == 30
    assert {got.body for got in answers if got.status == 200} == {BODY}
    assert {got.status for got in answers} <= {200, 429}


def test_a_closed_watch_does_not_write_to_a_reused_descriptor() -> None:
    """An answer may end shortly after its server, and the number of a descriptor is reused at once."""
    watch = Watch()
    ours, theirs = socket.socketpair()
    with ours, theirs, watch.over(ours, lambda: None):
        watch.close()
        reader, writer = os.pipe()
    os.set_blocking(reader, False)
    with pytest.raises(BlockingIOError):
        os.read(reader, 1)
    os.close(reader)
    os.close(writer)


def test_a_server_can_be_closed_while_answers_are_under_way(serve: Serve) -> None:
    seen = Checkpoint()
    endpoint = Endpoint(serve(HEAD, chunk(HELLO), seen).url)
    upstream = Upstream(endpoint, lambda: Clocks(connect_timeout_s=PATIENCE_S, idle_timeout_s=PATIENCE_S))
    with Gateway(GatewayHandler, upstream, PageDefaults("m"), TOKEN, limits=ClientLimits()) as running:
        client = Client(running.port)
        client.send(request(running.port))
        assert client.begun().read1(1000) == HELLO
    assert seen.gone.wait(PATIENCE_S)
    assert client.is_closed()
    client.close()


@pytest.mark.parametrize("failure", [KeyError("a defect"), OSError(errno.EMFILE, "Too many open files")])
def test_a_failure_of_smai_itself_is_reported_and_fails_only_one_request(serve: Serve, failure: Exception) -> None:
    reported: list[BaseException] = []
    clocks = iter([Clocks(connect_timeout_s=PATIENCE_S, idle_timeout_s=PATIENCE_S)])

    def next_clocks() -> Clocks:
        for found in clocks:
            return found
        raise failure

    upstream = Upstream(Endpoint(serve(*PLAIN_ANSWER).url), next_clocks)
    with Gateway(GatewayHandler, upstream, PageDefaults("m"), TOKEN, report=reported.append) as running:
        assert ask(running).body == BODY
        failed = ask(running)
        assert (failed.status, failed.error["code"]) == (500, "internal_error")
        assert reported == [failure]
        assert ask(running, "GET", "/", None).status == 200


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.nightly)])
def test_no_bytes_from_a_client_cause_a_defect_or_are_forwarded_without_the_token(
    serve: Serve, gateway: Start, count: int
) -> None:
    """Requests with random bytes changed, cut and doubled; the token is never in them."""
    chance = random.Random(count)
    server, defects = serve(*PLAIN_ANSWER), list[BaseException]()
    limits = ClientLimits(idle_s=0.2, head_s=0.2, body_s=0.2, linger_s=0.2)
    running = gateway(server.url, limits=limits, report=defects.append)
    port = running.port
    good = [
        request(port, without=("authorization",)),
        request(port, "GET", "/v1/models", None, "Authorization: Bearer x", without=("authorization",)),
        request(port, "GET", "/page.js", None, "Expect: 100-continue", without=("authorization",)),
        request(port, "HEAD", "/", None, "Transfer-Encoding: chunked", without=("authorization",)),
    ]
    for _ in range(count):
        sent = bytearray(chance.choice(good) + chance.choice(good))
        for _ in range(chance.randrange(4)):
            at = chance.randrange(len(sent))
            what = chance.choice([b"", b"\r\n", b"\0", b" ", b":", b"\xff", bytes(sent[at : at + 40])])
            sent[at : at + chance.randrange(3)] = what
        with Client(port) as client:
            came = b""
            # The server may have refused the first request, and closed, before the second has come.
            with contextlib.suppress(ConnectionError):
                client.send(bytes(sent))
                client.end()
                came = b"".join(iter(lambda: client.socket.recv(65536), b""))
            assert not came or came.startswith(b"HTTP/1.1 "), sent
            assert b"HTTP/1.1 50" not in came.replace(b"HTTP/1.1 505", b""), sent
    assert not defects
    assert server.connections == 0
    assert ask(running).body == BODY
