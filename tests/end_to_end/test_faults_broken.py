"""A broken answer is reported as broken, and its beginning is delivered as the mode requires."""

import json
import subprocess
from typing import NamedTuple

import pytest
from conftest import Smai
from rawserver import (
    BODY,
    CLOSE_HEAD,
    DONE,
    GOOD,
    GZIP_CLOSE_HEAD,
    GZIP_HEAD,
    HEAD,
    HELLO,
    LAST_CHUNK,
    OK,
    OLD_HEAD,
    OUT,
    PATIENCE_S,
    PLAIN_ANSWER,
    STOP,
    WORLD,
    Ask,
    RawServer,
    Serve,
    Start,
    Step,
    certificates,
    chunk,
    data,
    error_body,
    event,
    forever,
    gzipped,
    hold,
    http,
    length_head,
    payload,
    reset,
    single_bytes,
)

pytest_plugins = ["rawserver"]
pytestmark = pytest.mark.preloaded

HELLO_JSON = payload("Hello ").encode() + b"\n"
ENDED = "ended before finish_reason"
WITHIN = "ended within an event"
CONNECTION = "the connection broke"
ERROR = error_body("the model fell over", "overloaded").decode()
NESTED = "[" * 100_000


class Break(NamedTuple):
    """How a stream breaks: the steps of the server, and what comes of it."""

    name: str
    steps: list[Step]
    says: str
    raw: bytes = HELLO
    jsonl: bytes = HELLO_JSON
    status: int = 8
    tls: bool = False
    flags: tuple[str, ...] = ()


HALF = b'data: {"choices":[{"index":0,"delta":{"cont'
BREAKS = [
    Break("clean-end", [HEAD, chunk(HELLO), LAST_CHUNK], ENDED),
    Break("clean-end-http-1.0", [OLD_HEAD, HELLO], ENDED),
    Break("cut-in-an-event", [CLOSE_HEAD, HELLO + HALF], WITHIN, raw=HELLO + HALF),
    Break("cut-in-an-event-http-1.0", [OLD_HEAD, HELLO + HALF], WITHIN, raw=HELLO + HALF),
    Break("cut-in-a-field-name", [CLOSE_HEAD, HELLO + b"dat"], ENDED, raw=HELLO + b"dat"),
    Break("cut-in-an-event-last-chunk-there", [HEAD, chunk(HELLO + HALF), LAST_CHUNK], WITHIN, raw=HELLO + HALF),
    Break("cut-in-a-chunk", [HEAD, chunk(HELLO), b"fff\r\n" + HALF], CONNECTION, raw=HELLO + HALF),
    Break("cut-in-a-chunk-size", [HEAD, chunk(HELLO), b"ff"], CONNECTION),
    Break("cut-before-the-last-chunk", [HEAD, chunk(HELLO)], CONNECTION),
    Break("cut-before-the-chunk-s-line-end", [HEAD, chunk(HELLO)[:-2]], CONNECTION),
    Break("reset", [HEAD, chunk(HELLO), reset], CONNECTION),
    Break("reset-close-delimited", [CLOSE_HEAD, HELLO, reset], CONNECTION),
    Break("tls-cut", [CLOSE_HEAD, HELLO], "", tls=True),
    Break("tls-cut-in-a-chunk", [HEAD, chunk(HELLO), b"fff\r\n" + HALF], CONNECTION, raw=HELLO + HALF, tls=True),
    Break("content-length-too-long", [length_head(5000), HELLO], CONNECTION),
    Break("content-length-too-short", [length_head(len(HELLO) + 9), HELLO, WORLD], WITHIN, raw=HELLO + WORLD[:9]),
    Break("bad-chunk-size", [HEAD, chunk(HELLO), b"zz\r\n", hold], CONNECTION),
    Break("gzip-cut", [GZIP_CLOSE_HEAD, gzipped(HELLO)[0]], ""),
    Break("gzip-damaged", [GZIP_HEAD, chunk(gzipped(HELLO)[0]), chunk(b"\xff" * 99), hold], CONNECTION),
    Break("malformed-event", [HEAD, chunk(HELLO), chunk(data("{oops")), hold], "not JSON", raw=HELLO + data("{oops")),
    Break(
        "event-that-is-no-object",
        [HEAD, chunk(HELLO), chunk(data("[1]")), hold],
        "is not a JSON object",
        raw=HELLO + data("[1]"),
    ),
    Break("nested-event", [HEAD, chunk(HELLO), chunk(data(NESTED)), hold], "not JSON", raw=HELLO + data(NESTED)),
    Break(
        "huge-number",
        [HEAD, chunk(HELLO), chunk(data('{"a":' + "9" * 5000 + "}")), hold],
        "not JSON",
        raw=HELLO + data('{"a":' + "9" * 5000 + "}"),
    ),
    Break(
        "error-in-the-stream",
        [HEAD, chunk(HELLO), chunk(data(ERROR)), hold],
        "the model fell over (overloaded)",
        raw=HELLO + data(ERROR),
        jsonl=HELLO_JSON + ERROR.encode() + b"\n",
    ),
    Break(
        "error-event",
        [HEAD, chunk(HELLO), chunk(b"event: error\n" + data('{"message":"fell over"}')), hold],
        "fell over",
        raw=HELLO + b"event: error\n" + data('{"message":"fell over"}'),
        jsonl=HELLO_JSON + b'{"message":"fell over"}\n',
    ),
    Break(
        "silence",
        [HEAD, chunk(HELLO), hold],
        "timed out: nothing arrived for 0.5 s",
        status=7,
        flags=("--idle-timeout", "0.5"),
    ),
]


def by_name(broken: Break) -> str:
    return broken.name


every_break = pytest.mark.parametrize("broken", BREAKS, ids=by_name)


def serve_break(serve: Serve, broken: Break, *then: tuple[Step, ...]) -> RawServer:
    return serve(tuple(broken.steps), *then, tls=certificates().context if broken.tls else None)


@every_break
def test_the_text_before_a_break_is_kept(serve: Serve, ask: Ask, broken: Break) -> None:
    server = serve_break(serve, broken)
    result = ask(server, *broken.flags)
    assert result[:2] == (broken.status, b"Hello \n")
    assert broken.says in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert len(server.requests) == 1  # something was delivered: never again


@every_break
def test_raw_keeps_every_byte_before_a_break(serve: Serve, ask: Ask, broken: Break) -> None:
    steps = broken.steps if broken.flags else [step for step in broken.steps if step is not hold]
    server = serve_break(serve, broken._replace(steps=steps))
    assert ask(server, "--raw", *broken.flags)[:2] == (broken.status, broken.raw)
    assert len(server.requests) == 1


def test_raw_goes_on_after_a_malformed_event(serve: Serve, ask: Ask) -> None:
    result = ask(serve(HEAD, chunk(HELLO), chunk(data("{oops")), *map(chunk, [WORLD, STOP, DONE]), LAST_CHUNK), "--raw")
    assert result[:2] == (8, HELLO + data("{oops") + WORLD + STOP + DONE)


@pytest.mark.thorough
def test_raw_does_not_wait_long_after_a_malformed_event(serve: Serve, start: Start) -> None:
    run = start(serve(HEAD, chunk(HELLO), chunk(data("{oops")), hold), "--raw")
    assert run.child.wait(PATIENCE_S) == 8  # not for the idle clock of 600 s


@pytest.mark.parametrize("broken", BREAKS[1::2], ids=by_name)
def test_jsonl_keeps_every_event_before_a_break(serve: Serve, ask: Ask, broken: Break) -> None:
    server = serve_break(serve, broken)
    assert ask(server, "--jsonl", *broken.flags)[:2] == (broken.status, broken.jsonl)
    assert len(server.requests) == 1


@pytest.mark.parametrize("broken", BREAKS[::2], ids=by_name)
def test_final_prints_nothing_of_a_broken_answer(serve: Serve, ask: Ask, broken: Break) -> None:
    server = serve_break(serve, broken)
    result = ask(server, "--final", "--retries", "0", *broken.flags)
    assert result[:2] == (broken.status, b"")
    assert broken.says in result.stderr


@pytest.mark.parametrize("broken", [broken for broken in BREAKS if broken.status == 8][::4], ids=by_name)
def test_final_requests_a_broken_answer_again(serve: Serve, ask: Ask, broken: Break) -> None:
    server = serve_break(serve, broken, tuple(PLAIN_ANSWER))
    result = ask(server, "--final", "--summary", "none")
    assert result[:2] == (0, OUT)
    assert "try 2 of 3" in result.stderr
    assert len(server.requests) == 2


def test_final_does_not_retry_after_an_idle_timeout(serve: Serve, ask: Ask) -> None:
    server = serve(HEAD, chunk(HELLO), hold)
    assert ask(server, "--final", "--idle-timeout", "0.5").status == 7
    assert len(server.requests) == 1


@pytest.mark.parametrize("broken", BREAKS[::5], ids=by_name)
def test_the_json_summary_reports_the_break(serve: Serve, start: Start, broken: Break) -> None:
    server = serve_break(serve, broken)
    run = start(server, "--summary", "json", *broken.flags)
    assert broken.says in run.err_line()
    summary = json.loads(run.err_line())
    run.end()
    assert (summary["complete"], summary["characters"], summary["exit_status"]) == (False, 6, broken.status)
    assert summary["error"]["kind"] == ("timeout" if broken.status == 7 else "broken")
    assert summary["error"]["retryable"] is True


# What differs on the wire only is one and the same for decode.
BROKEN_TAPES = list({broken.raw: broken for broken in reversed(BREAKS)}.values())
MODES = {"text": [], "raw": ["--raw"], "jsonl": ["--jsonl"], "final": ["--final"]}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("broken", BROKEN_TAPES, ids=by_name)
def test_decode_reports_the_same_failure_for_a_broken_stream_from_curl(smai: Smai, broken: Break, mode: str) -> None:
    result = smai("decode", *MODES[mode], stdin=broken.raw)
    delivered = {"text": b"Hello \n", "raw": broken.raw, "jsonl": broken.jsonl, "final": b""}[mode]
    assert result[:2] == (8, delivered)
    assert result.stderr.startswith("smai: ")
    assert len(result.stderr.splitlines()) == 1


def test_decode_does_not_wait_for_more_after_an_error_event(start: Start) -> None:
    run = start(None, command=["smai", "decode"], stdin=subprocess.PIPE)
    assert run.child.stdin
    run.child.stdin.write(HELLO + data(ERROR))
    run.child.stdin.flush()
    assert run.child.wait(PATIENCE_S) == 8  # although stdin is still open
    assert run.out(7) == b"Hello \n"
    assert "the model fell over" in run.err_line()


def test_an_event_without_an_end_ends_the_run_at_a_limit(serve: Serve, ask: Ask) -> None:
    sent = []

    def endless(connection: object) -> None:
        while True:
            connection.sendall(chunk(b"x" * 65536))  # type: ignore[attr-defined]
            sent.append(65536)

    result = ask(serve(HEAD, chunk(HELLO), b"6\r\ndata: \r\n", endless))
    assert result[:2] == (8, b"Hello \n")
    assert "larger than 16 MiB" in result.stderr
    assert sum(sent) < 48 << 20  # the limit, and what the buffers of two sockets hold


def test_decode_stops_at_an_event_of_20_megabytes_without_an_end(smai: Smai) -> None:
    result = smai("decode", stdin=HELLO + b"data: " + b"x" * 20_000_000)
    assert result[:2] == (8, b"Hello \n")
    assert "larger than 16 MiB" in result.stderr


def test_an_event_of_a_million_lines_ends_the_run_at_a_limit(serve: Serve, ask: Ask) -> None:
    result = ask(serve(HEAD, chunk(HELLO), forever(chunk(b"data: x\n" * 1000))))
    assert result[:2] == (8, b"Hello \n")
    assert "lines" in result.stderr


@pytest.mark.parametrize(
    ("steps", "raw"),
    [
        pytest.param([HEAD, LAST_CHUNK], b"", id="empty-chunked-body"),
        pytest.param([length_head(0)], b"", id="empty-body"),
        pytest.param([CLOSE_HEAD], b"", id="closed-after-the-head"),
        pytest.param([OK + b"Conne"], b"", id="cut-in-the-head"),
        pytest.param([b"HTTP/1.1 200 OK\r\n"], b"", id="cut-after-the-status-line"),
        pytest.param([b"HTTP/1.1 20"], b"", id="cut-in-the-status-line"),
        pytest.param([HEAD, chunk(b": ping\n\n"), LAST_CHUNK], b": ping\n\n", id="pings-only"),
        pytest.param([HEAD, chunk(b"\n\n"), LAST_CHUNK], b"\n\n", id="blank-lines-only"),
        pytest.param([HEAD, reset], b"", id="reset-after-the-head"),
    ],
)
def test_an_answer_without_any_event_is_broken(serve: Serve, ask: Ask, steps: list[Step], raw: bytes) -> None:
    result = ask(serve(*steps))
    assert result[:2] == (8, b"")
    assert len(result.stderr.splitlines()) == 1
    assert ask(serve(*steps), "--raw")[:2] == (8, raw)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        pytest.param([b"Content-Length: 10", b"Content-Length: 20"], "two lengths: 10 and 20", id="two"),
        pytest.param([b"Content-Length: 10, 20"], "two lengths: 10 and 20", id="two-in-one"),
        pytest.param([b"Content-Length: ten"], "a length that is not a number: ten", id="word"),
        pytest.param([b"Content-Length: -5"], "a length that is not a number: -5", id="negative"),
        pytest.param([b"Content-Length: +5"], "a length that is not a number: +5", id="plus"),
        pytest.param([b"Content-Length:"], "a length that is not a number", id="empty"),
    ],
)
def test_an_answer_with_an_ambiguous_content_length_is_status_8(
    serve: Serve, ask: Ask, fields: list[bytes], says: str
) -> None:
    server = serve(OK + b"\r\n".join(fields) + b"\r\n\r\n", *GOOD, hold)
    result = ask(server)
    assert result[:2] == (8, b"")
    assert f"the server's answer is malformed HTTP: {says}" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert len(server.requests) == 1


def test_two_equal_content_length_headers_are_accepted(serve: Serve, ask: Ask) -> None:
    fields = b"Content-Length: %d\r\n" % len(BODY)
    assert ask(serve(OK + fields * 2 + b"\r\n", BODY)) == (0, OUT, "")


def test_content_length_is_ignored_with_chunked_transfer_encoding(serve: Serve, ask: Ask) -> None:
    head = HEAD.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n")
    assert ask(serve(head, *PLAIN_ANSWER[1:])) == (0, OUT, "")


def test_a_chunk_with_a_negative_size_is_status_8(serve: Serve, ask: Ask) -> None:
    result = ask(serve(HEAD, chunk(HELLO), b"-5\r\n" + WORLD, hold))
    assert result[:2] == (8, b"Hello \n")
    assert "malformed HTTP" in result.stderr


@pytest.mark.parametrize("mode", MODES)
def test_an_unstreamed_answer_that_is_cut_off_is_status_8(serve: Serve, ask: Ask, mode: str) -> None:
    body = b'{"choices": [{"index": 0, "message": {"content": "Hello wor'
    result = ask(serve(CLOSE_HEAD, body), "--retries", "0", *MODES[mode])
    assert result[:2] == (8, body if mode == "raw" else b"")


# Two faults at once.


def test_a_gzip_stream_in_single_bytes_keeps_its_text_after_a_reset(serve: Serve, ask: Ask) -> None:
    steps = [GZIP_HEAD, single_bytes(chunk(gzipped(HELLO)[0])), reset]
    assert ask(serve(*steps))[:2] == (8, b"Hello \n")


def test_a_gzip_stream_with_an_error_event_that_stays_open_ends_at_once(serve: Serve, ask: Ask) -> None:
    first, second, _ = gzipped(HELLO, data(ERROR))
    result = ask(serve(GZIP_HEAD, chunk(first), chunk(second), hold))
    assert result[:2] == (8, b"Hello \n")
    assert "the model fell over" in result.stderr


def test_an_error_among_pings_ends_at_once(serve: Serve, ask: Ask) -> None:
    ping = chunk(b": ping\n\n")
    result = ask(serve(HEAD, ping, chunk(HELLO), ping, chunk(data(ERROR)), forever(ping, every_s=0.05)))
    assert result[:2] == (8, b"Hello \n")
    assert "the model fell over" in result.stderr


def test_complete_events_are_kept_despite_mixed_line_ends_a_bom_invalid_bytes_and_a_cut(serve: Serve, ask: Ask) -> None:
    body = b"\xef\xbb\xbf" + HELLO.replace(b"\n\n", b"\r\n\n").replace(b"Hello", b"H\xffllo") + HALF
    result = ask(serve(HEAD, single_bytes(b"".join(chunk(body[at : at + 1]) for at in range(len(body))))))
    assert result[:2] == (8, "H\ufffdllo \n".encode())


def test_half_of_a_surrogate_pair_before_a_cut_is_printed(serve: Serve, ask: Ask) -> None:
    half = HELLO.replace(b"Hello ", rb"Hello\ud83d")
    assert ask(serve(HEAD, chunk(half), reset))[:2] == (8, "Hello\ufffd\n".encode())


def test_a_cut_after_a_newline_adds_no_second_newline(serve: Serve, ask: Ask) -> None:
    assert ask(serve(CLOSE_HEAD, event("a line\n")))[:2] == (8, b"a line\n")


def test_an_error_after_the_finish_reason_is_still_an_error(serve: Serve, ask: Ask) -> None:
    result = ask(serve(HEAD, chunk(HELLO + STOP + data(ERROR)), hold))
    assert result[:2] == (8, b"Hello \n")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(error_body("no such model", "model_not_found"), id="error-object"),
        pytest.param(b'{"object": "list", "data": []}', id="another-object"),
        pytest.param(b"<!DOCTYPE html><html>Welcome</html>", id="web-page"),
        pytest.param(b"It works!", id="plain-text"),
    ],
)
@pytest.mark.parametrize("mode", ["text", "jsonl"])
def test_an_answer_that_is_not_a_completion_is_refused(serve: Serve, ask: Ask, body: bytes, mode: str) -> None:
    server = serve(http("200 OK", body, "Content-Type: text/html"))
    result = ask(server, *MODES[mode])
    assert result[:2] == (4, b"")
    assert len(server.requests) == 1


def test_a_good_stream_after_a_broken_one_is_not_mixed_with_it(serve: Serve, ask: Ask) -> None:
    server = serve((HEAD, chunk(event("Goodbye ")), reset), (HEAD, chunk(BODY), LAST_CHUNK))
    assert ask(server, "--final", "--summary", "none")[:2] == (0, OUT)


def test_done_counts_in_a_chunk_that_is_cut_off(serve: Serve, ask: Ask) -> None:
    assert ask(serve(HEAD, b"fff\r\n" + HELLO + WORLD + STOP + DONE, reset)) == (0, OUT, "")
