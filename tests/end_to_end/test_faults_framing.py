"""However the bytes of a good stream are framed, cut and compressed, its text arrives complete, exact and at once."""

import threading
from collections.abc import Callable

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
    KEY,
    LAST_CHUNK,
    OLD_HEAD,
    OUT,
    PLAIN_ANSWER,
    STOP,
    WORLD,
    Ask,
    Serve,
    Start,
    Step,
    certificates,
    chunk,
    data,
    event,
    forever,
    gzipped,
    hold,
    http,
    length_head,
    pause,
    payload,
    read_request,
    reset,
    single_bytes,
    until,
)

pytest_plugins = ["rawserver"]
pytestmark = pytest.mark.preloaded

REST = WORLD + STOP + DONE
Framing = Callable[[Step], list[Step]]


def chunk_per_event(silence: Step) -> list[Step]:
    return [HEAD, chunk(HELLO), silence, chunk(REST), LAST_CHUNK]


def late_chunk_end(silence: Step) -> list[Step]:
    return [HEAD, chunk(HELLO)[:-2], silence, b"\r\n", chunk(REST), LAST_CHUNK]


def one_big_chunk(silence: Step) -> list[Step]:
    return [HEAD, b"%x\r\n" % len(BODY), HELLO, silence, REST, b"\r\n", LAST_CHUNK]


def closed_at_end(silence: Step) -> list[Step]:
    return [CLOSE_HEAD, HELLO, silence, REST]


def http_1_0(silence: Step) -> list[Step]:
    return [OLD_HEAD, HELLO, silence, REST]


def content_length(silence: Step) -> list[Step]:
    return [length_head(len(BODY)), HELLO, silence, REST]


def gzip_chunked(silence: Step) -> list[Step]:
    first, *rest = gzipped(HELLO, REST)
    return [GZIP_HEAD, chunk(first), silence, *map(chunk, rest), LAST_CHUNK]


def gzip_closed_at_end(silence: Step) -> list[Step]:
    first, *rest = gzipped(HELLO, REST)
    return [GZIP_CLOSE_HEAD, first, silence, *rest]


FRAMINGS = [
    chunk_per_event,
    late_chunk_end,
    one_big_chunk,
    closed_at_end,
    http_1_0,
    content_length,
    gzip_chunked,
    gzip_closed_at_end,
]


def named(framing: Framing) -> str:
    return framing.__name__


@pytest.mark.parametrize("framing", FRAMINGS, ids=named)
def test_the_first_delta_is_printed_while_the_server_is_silent(serve: Serve, start: Start, framing: Framing) -> None:
    first_delta_read = threading.Event()
    run = start(serve(*framing(until(first_delta_read))))
    assert run.out(6) == b"Hello "
    first_delta_read.set()
    assert run.end() == (0, b"world\n", "")


@pytest.mark.parametrize("framing", [chunk_per_event, one_big_chunk, closed_at_end], ids=named)
def test_the_first_delta_is_printed_at_once_over_tls_too(serve: Serve, start: Start, framing: Framing) -> None:
    first_delta_read = threading.Event()
    run = start(serve(*framing(until(first_delta_read)), tls=certificates().context))
    assert run.out(6) == b"Hello "
    first_delta_read.set()
    assert run.end() == (0, b"world\n", "")


@pytest.mark.parametrize(
    ("flag", "first"),
    [("--raw", HELLO), ("--jsonl", payload("Hello ").encode() + b"\n")],
    ids=["raw", "jsonl"],
)
@pytest.mark.parametrize("framing", [late_chunk_end, closed_at_end, gzip_chunked], ids=named)
def test_the_first_event_is_printed_at_once_in_the_other_modes_too(
    serve: Serve, start: Start, framing: Framing, flag: str, first: bytes
) -> None:
    first_event_read = threading.Event()
    run = start(serve(*framing(until(first_event_read))), flag)
    assert run.out(len(first)) == first
    first_event_read.set()
    assert run.end().status == 0


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_ca_named_in_the_environment_is_trusted(smai: Smai, serve: Serve, variable: str) -> None:
    context, ca_file = certificates()
    server = serve(*PLAIN_ANSWER, tls=context)
    env = {"SMAI_BASE_URL": server.url, "SMAI_API_KEY": KEY, variable: ca_file}
    assert smai("ask", "hi", env=env) == (0, OUT, "")


def test_a_server_on_ipv6_answers(serve: Serve, ask: Ask) -> None:
    try:
        server = serve(*PLAIN_ANSWER, host="::1")
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    assert ask(server) == (0, OUT, "")


ODD_STREAMS = [
    pytest.param(BODY.replace(b"\n", b"\r\n"), id="CRLF"),
    pytest.param(BODY.replace(b"\n", b"\r"), id="CR"),
    pytest.param(BODY.replace(b"\n\n", b"\n\r\n"), id="LF-then-CRLF"),
    pytest.param(BODY.replace(b"\n\n", b"\r\n\n"), id="CRLF-then-LF"),
    pytest.param(BODY.replace(b"\n\n", b"\r\n\r"), id="CRLF-then-CR"),
    pytest.param(BODY.replace(b"\n\n", b"\r\r\n"), id="CR-then-CRLF"),
    pytest.param(BODY.replace(b"\n\n", b"\n\r"), id="LF-then-CR"),
    pytest.param(b"\xef\xbb\xbf" + BODY, id="BOM"),
    pytest.param(BODY.replace(b"data: ", b"data:"), id="no-space-after-colon"),
    pytest.param(BODY.replace(b"[DONE]", b" [DONE] "), id="spaces-around-DONE"),
    pytest.param(b"\n\n\n" + BODY, id="blank-lines-first"),
    pytest.param(
        b": hello\n\nretry: 10\n\nevent: message\nid: 1\nfoo: bar\nbaz\n" + BODY.replace(b"\n\n", b"\n:\nid: 2\n\n"),
        id="comments-and-other-fields",
    ),
    pytest.param(BODY.replace(b', "choices"', b',\ndata:  "choices"'), id="data-over-several-lines"),
    pytest.param(BODY.removesuffix(b"\n\n"), id="no-blank-line-after-DONE"),
    pytest.param(BODY.removesuffix(b"\n"), id="half-a-blank-line-after-DONE"),
    pytest.param(BODY.removesuffix(DONE), id="finish-reason-without-DONE"),
    pytest.param(BODY.removesuffix(DONE).removesuffix(b"\n\n"), id="finish-reason-without-DONE-or-blank-line"),
    pytest.param(BODY + data("{oops"), id="rubbish-after-DONE"),
    pytest.param(
        data('{"choices":[{"index":0,"delta":{"role":"assistant"}}]}')
        + data('{"choices":[{"index":0,"delta":{"role":"assistant","content":null}}]}')
        + data('{"choices":[]}')
        + HELLO
        + WORLD
        + STOP
        + data('{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}')
        + DONE,
        id="chunks-without-text",
    ),
]


@pytest.mark.parametrize("body", ODD_STREAMS[8:])
def test_an_unusual_but_valid_stream_is_printed(serve: Serve, ask: Ask, body: bytes) -> None:
    assert ask(serve(HEAD, chunk(body), LAST_CHUNK)) == (0, OUT, "")


@pytest.mark.parametrize("body", ODD_STREAMS)
def test_decode_accepts_the_same_streams_as_ask(smai: Smai, body: bytes) -> None:
    assert smai("decode", stdin=body) == (0, OUT, "")


@pytest.mark.parametrize("body", ODD_STREAMS[:8])
def test_an_unusual_stream_may_arrive_byte_by_byte(serve: Serve, ask: Ask, body: bytes) -> None:
    assert ask(serve(CLOSE_HEAD, single_bytes(body))) == (0, OUT, "")


def test_raw_prints_every_byte_of_an_unusual_stream(serve: Serve, ask: Ask) -> None:
    body = b"\xef\xbb\xbf: a comment\r\n\r\n" + BODY.replace(b"\n", b"\r\n").replace(b"world", b"w\xffrld") + b"rest"
    assert ask(serve(CLOSE_HEAD, body), "--raw") == (0, body, "")


def test_an_answer_may_arrive_in_segments_of_one_byte(serve: Serve, ask: Ask) -> None:
    assert ask(serve(single_bytes(b"".join(PLAIN_ANSWER)))) == (0, OUT, "")


def test_cr_and_lf_in_two_segments_are_one_line_break(serve: Serve, start: Start) -> None:
    first_delta_read = threading.Event()
    body = BODY.replace(b"\n", b"\r\n")
    cut = body.index(b"\r\n\r\n") + 3
    run = start(serve(CLOSE_HEAD, body[:cut], until(first_delta_read), body[cut:]))
    assert run.out(6) == b"Hello "  # at the CR already
    first_delta_read.set()
    assert run.end() == (0, b"world\n", "")


TEXTS = [
    pytest.param(b"a\xffb", "a\ufffdb", id="invalid-UTF-8"),
    pytest.param("a\u2028b\\u000bc\u0085d".encode(), "a\u2028b\x0bc\u0085d", id="U+2028-VT-NEL"),
    pytest.param(rb"\ud83d", "\ufffd", id="lone-surrogate"),
    pytest.param(rb"\ude00\ud83d", "\ufffd\ufffd", id="surrogates-in-the-wrong-order"),
    pytest.param(rb"a\u0000\u001b[31m\u0007b", "a\0\x1b[31m\ab", id="NUL-ESC-BEL"),
    pytest.param(rb"\r\n\t \\n", "\r\n\t \\n", id="white-space"),
    pytest.param("\ufeff\u200f\U0001f600".encode(), "\ufeff\u200f\U0001f600", id="BOM-RTL-emoji"),
]


def delta(content: bytes) -> bytes:
    return b'data: {"choices":[{"index":0,"delta":{"content":"' + content + b'"}}]}\n\n'


@pytest.mark.parametrize(("content", "text"), TEXTS)
def test_a_pipe_gets_the_exact_text(serve: Serve, ask: Ask, content: bytes, text: str) -> None:
    server = serve(HEAD, chunk(delta(content)), chunk(WORLD), chunk(STOP + DONE), LAST_CHUNK)
    assert ask(server) == (0, f"{text}world\n".encode(), "")


@pytest.mark.parametrize(("content", "text"), TEXTS)
def test_decode_prints_the_same_text_as_ask(smai: Smai, content: bytes, text: str) -> None:
    assert smai("decode", stdin=delta(content) + WORLD + STOP + DONE) == (0, f"{text}world\n".encode(), "")


@pytest.mark.parametrize("flags", [[], ["--final", "--summary", "none"]], ids=["text", "final"])
def test_a_surrogate_pair_split_over_two_deltas_is_one_emoji(serve: Serve, ask: Ask, flags: list[str]) -> None:
    server = serve(HEAD, chunk(delta(rb"a\ud83d")), chunk(delta(rb"\ude00b\n")), chunk(STOP + DONE), LAST_CHUNK)
    assert ask(server, *flags) == (0, "a\U0001f600b\n".encode(), "")


def test_half_of_a_surrogate_pair_at_the_end_of_the_answer_is_printed(serve: Serve, ask: Ask) -> None:
    server = serve(HEAD, chunk(delta(rb"a\ud83d")), chunk(STOP + DONE), LAST_CHUNK)
    assert ask(server) == (0, "a\ufffd\n".encode(), "")


def test_one_event_of_2_megabytes_is_exact(serve: Serve, ask: Ask) -> None:
    text = "0123456789abcde\n" * 131_072
    assert ask(serve(HEAD, chunk(event(text)), chunk(STOP + DONE), LAST_CHUNK)) == (0, text.encode(), "")


def test_20000_events_at_full_speed_are_exact(serve: Serve, ask: Ask) -> None:
    words = [f"word {number}\n" for number in range(20_000)]
    server = serve(HEAD, b"".join(chunk(event(word)) for word in words), chunk(STOP + DONE), LAST_CHUNK)
    assert ask(server) == (0, "".join(words).encode(), "")


@pytest.mark.parametrize("flags", [[], ["--raw"]], ids=["text", "raw"])
@pytest.mark.parametrize("head", [HEAD, CLOSE_HEAD, GZIP_HEAD], ids=["chunked", "close", "gzip"])
def test_done_ends_the_answer_even_if_the_connection_stays_open(
    serve: Serve, ask: Ask, head: bytes, flags: list[str]
) -> None:
    body = BODY if head is CLOSE_HEAD else chunk(gzipped(BODY)[0] if head is GZIP_HEAD else BODY)
    result = ask(serve(head, body, hold), *flags)
    assert result.status == 0
    assert b"world" in result.stdout


def test_done_ends_the_answer_even_if_pings_continue(serve: Serve, ask: Ask) -> None:
    assert ask(serve(HEAD, *map(chunk, GOOD), forever(chunk(b": ping\n\n"), every_s=0.05))) == (0, OUT, "")


@pytest.mark.thorough
def test_a_finish_reason_ends_the_answer_even_if_the_connection_stays_open(serve: Serve, ask: Ask) -> None:
    assert ask(serve(HEAD, *map(chunk, GOOD[:-1]), hold)) == (0, OUT, "")


@pytest.mark.parametrize(
    "after",
    [
        pytest.param([reset], id="reset"),
        pytest.param([b"zz\r\n"], id="bad-chunk-size"),
        pytest.param([b"ff\r\n: "], id="cut-in-a-chunk"),
        pytest.param([chunk(b'data: {"choi'), LAST_CHUNK], id="cut-in-an-event"),
        pytest.param([chunk(data("oops"))], id="malformed-event"),
    ],
)
def test_after_the_finish_reason_the_answer_is_complete_however_the_connection_ends(
    serve: Serve, ask: Ask, after: list[Step]
) -> None:
    assert ask(serve(HEAD, *map(chunk, GOOD[:-1]), *after)) == (0, OUT, "")


def test_smai_waits_for_the_usage_after_the_finish_reason(serve: Serve, ask: Ask) -> None:
    usage = data('{"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":22,"total_tokens":33}}')
    server = serve(HEAD, *map(chunk, GOOD[:-1]), pause(0.3), chunk(usage + DONE), LAST_CHUNK)
    result = ask(server, "--summary", "text")
    assert result[:2] == (0, OUT)
    assert "22 out (server)" in result.stderr


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream", ""])
def test_an_unstreamed_answer_is_printed(serve: Serve, ask: Ask, content_type: str) -> None:
    body = b'{"choices": [{"index": 0, "message": {"content": "Hello world\\n"}, "finish_reason": "stop"}]}'
    headers = [f"Content-Type: {content_type}"] if content_type else []
    assert ask(serve(http("200 OK", body, *headers))) == (0, OUT, "")


@pytest.mark.parametrize("interim", ["100 Continue", "102 Processing", "103 Early Hints"])
def test_interim_answers_before_the_answer_are_skipped(serve: Serve, ask: Ask, interim: str) -> None:
    hints = f"HTTP/1.1 {interim}\r\nLink: </style.css>; rel=preload\r\n\r\n".encode()
    assert ask(serve(hints, hints, *PLAIN_ANSWER)) == (0, OUT, "")


def test_an_answer_with_many_unusual_features_at_once_is_printed(serve: Serve, ask: Ask) -> None:
    mixed = HELLO.replace(b"\n", b"\r\n") + WORLD.replace(b"\n\n", b"\n\r\n").replace(b"world", b"w\xffrld")
    body = b"\xef\xbb\xbf: ping\r\r" + mixed + STOP.replace(b"\n", b"\r") + b"data:[DONE]\r"
    everything = HEAD + b"".join(chunk(body[at : at + 3]) for at in range(0, len(body), 3)) + LAST_CHUNK
    assert ask(serve(single_bytes(everything))) == (0, "Hello w\ufffdrld\n".encode(), "")


def test_a_slow_upload_is_not_a_slow_connect(serve: Serve, ask: Ask) -> None:
    prompt = b"0123456789abcdef" * (1 << 20)
    server = serve(*PLAIN_ANSWER, reads=lambda connection: read_request(connection, every_s=0.1))
    assert ask(server, "--connect-timeout", "1", stdin=prompt) == (0, OUT, "")
    assert server.requests[0].prompt == "hi\n\n" + prompt.decode()
