"""Whenever a server stalls, one of the clocks ends the run, and the message says which.

No time is measured here: each server would go on for longer than the process may run, so only a clock can end it.
"""

import subprocess
import threading

import pytest
from rawserver import (
    CLOSE_HEAD,
    DONE,
    GZIP_HEAD,
    HEAD,
    HELLO,
    LAST_CHUNK,
    OK,
    OUT,
    PATIENCE_S,
    PLAIN_ANSWER,
    STOP,
    WORLD,
    Ask,
    Request,
    Serve,
    Start,
    Step,
    certificates,
    chunk,
    event,
    forever,
    gzipped,
    hold,
    holds_the_greeting,
    http,
    length_head,
    pause,
    until,
)

pytest_plugins = ["rawserver"]
pytestmark = pytest.mark.preloaded

PING = b": ping\n\n"
IDLE = ["--idle-timeout", "0.5"]
MAX = ["--max-time", "1"]
MODES = {"text": [], "final": ["--final"]}


@pytest.mark.parametrize("flags", MODES.values(), ids=MODES.keys())
def test_silence_before_the_headers_is_an_idle_timeout(serve: Serve, ask: Ask, flags: list[str]) -> None:
    server = serve(hold)
    result = ask(server, *IDLE, *flags)
    assert result == (7, b"", "smai: timed out: no answer began within 0.5 s; raise --idle-timeout, or try again\n")
    assert len(server.requests) == 1  # it may have been billed: never again


def test_an_answer_that_begins_after_a_limit_of_less_than_a_second_is_too_late(serve: Serve, ask: Ask) -> None:
    assert ask(serve(pause(0.8), *PLAIN_ANSWER), *IDLE)[:2] == (7, b"")


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([HEAD, chunk(HELLO), hold], id="chunked"),
        pytest.param([CLOSE_HEAD, HELLO, hold], id="close"),
        pytest.param([length_head(999), HELLO, hold], id="content-length"),
        pytest.param([GZIP_HEAD, chunk(gzipped(HELLO)[0]), hold], id="gzip"),
        pytest.param([HEAD, b"fff\r\n" + HELLO, hold], id="in-a-chunk"),
        pytest.param([HEAD, chunk(HELLO + b'data: {"choi'), hold], id="in-an-event"),
    ],
)
def test_silence_in_the_stream_is_an_idle_timeout(serve: Serve, ask: Ask, steps: list[Step]) -> None:
    result = ask(serve(*steps), *IDLE)
    assert result[:2] == (7, b"Hello \n")
    assert "arrived for 0.5 s; raise --idle-timeout" in result.stderr


@pytest.mark.parametrize("body", [[HEAD, chunk(HELLO)], [CLOSE_HEAD, HELLO]], ids=["chunked", "close"])
def test_silence_over_tls_is_an_idle_timeout(serve: Serve, ask: Ask, body: list[Step]) -> None:
    result = ask(serve(*body, hold, tls=certificates().context), *IDLE)
    assert result[:2] == (7, b"Hello \n")


@pytest.mark.parametrize(
    "piece",
    [
        pytest.param(PING, id="pings"),
        pytest.param(b"\n\n", id="blank-lines"),
        pytest.param(b"event: ping\n\n", id="events-without-data"),
        pytest.param(b"x", id="a-line-without-end"),
    ],
)
def test_keepalives_without_data_do_not_reset_the_idle_timeout(serve: Serve, ask: Ask, piece: bytes) -> None:
    result = ask(serve(HEAD, chunk(HELLO), forever(chunk(piece), every_s=0.05)), *IDLE)
    assert result[:2] == (7, b"Hello \n")
    assert "no event, only comments or parts of one arrived for 0.5 s" in result.stderr


def test_an_endless_chunk_size_does_not_reset_the_idle_timeout(serve: Serve, ask: Ask) -> None:
    result = ask(serve(HEAD, chunk(HELLO), forever(b"0", every_s=0.05)), *IDLE)
    assert result[:2] == (7, b"Hello \n")


def test_endless_headers_that_arrive_byte_by_byte_are_an_idle_timeout(serve: Serve, ask: Ask) -> None:
    result = ask(serve(OK, forever(b"x", every_s=0.05)), *IDLE)
    assert result[:2] == (7, b"")
    assert "no answer began within 0.5 s" in result.stderr


def test_endless_interim_responses_are_an_idle_timeout(serve: Serve, ask: Ask) -> None:
    result = ask(serve(forever(b"HTTP/1.1 100 Continue\r\n\r\n", every_s=0.05)), *IDLE)
    assert result[:2] == (7, b"")


FLOODS = {
    "comments": [HEAD, chunk(HELLO), forever(chunk(PING * 1000))],
    "comments-one-a-chunk": [HEAD, chunk(HELLO), forever(chunk(PING) * 1000)],
    "comments-until-the-end": [CLOSE_HEAD, HELLO, forever(PING * 1000)],
    "blank-lines": [HEAD, chunk(HELLO), forever(chunk(b"\n" * 65536))],
    "blank-lines-cr-lf": [HEAD, chunk(HELLO), forever(chunk(b"\r\n" * 32768))],
    "events-without-data": [HEAD, chunk(HELLO), forever(chunk(b"event: ping\n\n" * 1000))],
    "gzip-of-comments": [GZIP_HEAD, chunk(gzipped(HELLO)[0]), forever(chunk(gzipped(PING * 1000)[0][10:]))],
    "chunk-extensions": [HEAD, chunk(HELLO), forever((b"1;" + b"x" * 1000 + b"\r\n:\r\n") * 60)],
    "trailers": [HEAD, chunk(HELLO), b"0\r\n", forever(b"X: y\r\n" * 10_000)],
}


@pytest.mark.thorough
@pytest.mark.parametrize("steps", FLOODS.values(), ids=FLOODS.keys())
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_flood_without_data_does_not_delay_the_idle_timeout(
    serve: Serve, ask: Ask, steps: list[Step], scheme: str
) -> None:
    result = ask(serve(*steps, tls=certificates().context if scheme == "https" else None), "--idle-timeout", "1")
    assert result[:2] == (7, b"Hello \n"), result.stderr


@pytest.mark.parametrize("line", [[b"5;", forever(b"x" * 65536)], [forever(b"0" * 65536)]], ids=["extension", "size"])
def test_a_chunk_size_without_an_end_ends_the_run_at_a_limit(serve: Serve, ask: Ask, line: list[Step]) -> None:
    result = ask(serve(HEAD, chunk(HELLO), *line))
    assert result[:2] == (8, b"Hello \n")
    assert "when reading chunk size" in result.stderr


@pytest.mark.parametrize(
    "piece",
    [
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", id="100"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", id="103"),
    ],
)
def test_a_flood_of_interim_responses_does_not_delay_the_idle_timeout(serve: Serve, ask: Ask, piece: bytes) -> None:
    result = ask(serve(forever(piece * 1000)), "--idle-timeout", "1")
    assert result[:2] == (7, b"")
    assert "no answer began within 1 s" in result.stderr


def test_pings_and_then_data_within_the_limit_do_not_count_as_silence(serve: Serve, ask: Ask) -> None:
    pings = [chunk(PING), pause(0.2)] * 3
    server = serve(HEAD, *pings, chunk(HELLO), *pings, chunk(WORLD), *pings, chunk(STOP + DONE), LAST_CHUNK)
    assert ask(server, "--idle-timeout", "1.5") == (0, OUT, "")


def test_a_slow_reader_does_not_count_as_a_silent_server(serve: Serve, start: Start) -> None:
    text = "0123456789abcde\n" * 20_000
    events = [chunk(event(text)) for _ in range(3)]
    run = start(serve(HEAD, *events, chunk(STOP + DONE), LAST_CHUNK), "--idle-timeout", "1")
    read = run.out(1)
    with pytest.raises(subprocess.TimeoutExpired):  # it waits for its reader for longer than its clock
        run.child.wait(1.5)
    result = run.end()
    assert (result.status, read + result.stdout) == (0, 3 * text.encode())


@pytest.mark.parametrize("flags", MODES.values(), ids=MODES.keys())
def test_max_time_ends_a_steady_stream(serve: Serve, ask: Ask, flags: list[str]) -> None:
    result = ask(serve(HEAD, forever(chunk(event("tick ")), every_s=0.05)), *MAX, *flags)
    assert result.status == 7
    assert result.stderr == "smai: timed out: the run took 1 s in all; raise --max-time, or try again\n"
    assert (b"tick" in result.stdout) == (flags != ["--final"])
    if not flags:
        assert result.stdout.startswith(b"tick tick ")
        assert result.stdout.endswith(b"\n")


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        pytest.param([hold], 7, id="silent-before-the-headers"),
        pytest.param([OK, forever(b"x", every_s=0.05)], 7, id="headers-dribbled"),
        pytest.param([HEAD, forever(chunk(PING), every_s=0.05)], 7, id="pings"),
        pytest.param(
            [b"HTTP/1.1 500 Oops\r\n\r\n", forever(b"x", every_s=0.05)], 6, id="error-body-dribbled"
        ),  # 7 on a slow machine
    ],
)
def test_max_time_ends_every_wait(serve: Serve, ask: Ask, steps: list[Step], status: int) -> None:
    result = ask(serve(*steps), *MAX, "--retries", "0")
    assert result.stdout == b""
    assert result.status in (status, 7)
    assert len(result.stderr.splitlines()) == 1


def test_max_time_ends_the_wait_for_stdin(serve: Serve, start: Start) -> None:
    server = serve(*PLAIN_ANSWER)
    assert start(server, *MAX, stdin=subprocess.PIPE).child.wait(PATIENCE_S) == 7
    assert server.connections == 0


def test_max_time_ends_the_wait_for_a_blocked_stdout(serve: Serve, start: Start) -> None:
    run = start(serve(HEAD, forever(chunk(event("tick " * 1000)))), *MAX)
    assert run.child.wait(PATIENCE_S) == 7  # although the full pipe was not read


def test_a_retry_pause_that_exceeds_max_time_is_not_started(serve: Serve, ask: Ask) -> None:
    server = serve(http("429 Too Many Requests", b"", "Retry-After: 30"))
    result = ask(server, "--max-time", "10")
    assert result.status == 6
    assert "after --max-time" in result.stderr


def test_an_unanswered_tls_handshake_is_a_connect_timeout(serve: Serve, ask: Ask) -> None:
    server = serve(reads=holds_the_greeting)
    flags = ["--base-url", server.url.replace("http:", "https:"), "--connect-timeout", "0.5", "--retries", "0"]
    result = ask(None, *flags)
    assert result[:2] == (7, b"")
    assert "no connection within 0.5 s; raise --connect-timeout" in result.stderr
    assert server.requests == []


def test_a_server_that_stops_reading_the_request_is_a_timeout(serve: Serve, start: Start) -> None:
    over = threading.Event()
    server = serve(until(over), reads=lambda connection: Request(connection.recv(10), b"", 0))
    run = start(server, "--connect-timeout", "1", "--idle-timeout", "2", "--retries", "0", stdin=subprocess.PIPE)
    out, err = run.child.communicate(b"x" * (32 << 20), timeout=PATIENCE_S)
    over.set()
    assert (run.child.returncode, out) == (7, b"")
    assert err.startswith(b"smai: timed out: ")


def test_a_slow_answer_is_not_a_slow_connect(serve: Serve, ask: Ask) -> None:
    server = serve(pause(1.5), *PLAIN_ANSWER)
    assert ask(server, "--connect-timeout", "1") == (0, OUT, "")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--max-time", "1"], "timed out: the run took 1 s in all"),
        (["--connect-timeout", "0.5"], "timed out: no connection within 0.5 s"),
    ],
)
def test_a_name_server_that_never_answers_is_a_timeout(
    ask: Ask, dead_resolver: dict[str, str], flags: list[str], says: str
) -> None:
    result = ask(None, "--base-url", "http://example.invalid/v1", "--retries", "0", *flags, env=dead_resolver)
    assert result[:2] == (7, b"")
    assert says in result.stderr


def test_a_timeout_of_0_means_no_limit(serve: Serve, ask: Ask) -> None:
    server = serve(pause(0.3), HEAD, chunk(HELLO), pause(0.7), chunk(WORLD + STOP + DONE), LAST_CHUNK)
    flags = ["--idle-timeout", "0", "--connect-timeout", "0", "--max-time", "0"]
    assert ask(server, *flags) == (0, OUT, "")
