"""Answers of a server, a proxy or the network instead of a stream: the status, the message, and how many requests."""

import gzip
import socket
import ssl
import time
import warnings
from email.utils import formatdate
from pathlib import Path

import pytest
from conftest import Smai
from rawserver import (
    BODY,
    HEAD,
    HELLO,
    KEY,
    LAST_CHUNK,
    OUT,
    PLAIN_ANSWER,
    Ask,
    Request,
    Script,
    Serve,
    Step,
    answer,
    certificates,
    chunk,
    error_body,
    fair,
    forever,
    hold,
    http,
    read_request,
    reads_once,
    reset,
    tls_context,
)

pytest_plugins = ["rawserver"]
pytestmark = pytest.mark.preloaded

GOOD = tuple(PLAIN_ANSWER)
PAGE = b"<!DOCTYPE html><html><title>502</title><h1>Bad gateway</h1></html>"
BUSY = http("503 Service Unavailable", error_body("all models are busy"), "Content-Type: application/json")


def too_many(*headers: str) -> tuple[Step, ...]:
    return (http("429 Too Many Requests", error_body("slow down"), "Content-Type: application/json", *headers),)


@pytest.mark.parametrize("status", ["201 Created", "203 Non-Authoritative Information", "246 ", "299 Odd"])
def test_an_answer_with_any_status_of_success_is_an_answer(serve: Serve, ask: Ask, status: str) -> None:
    # 201: BerriAI/litellm#9194, ChatGPTNextWeb/NextChat#4797, E-xyza/codicil PR 4. 246: portkey.ai/docs, error codes.
    good = [step.replace(b"200 OK", status.encode()) for step in PLAIN_ANSWER]
    for flags in ([], ["--raw"]):
        assert ask(serve(*good), *flags).status == 0
    cut = ask(serve(*good[:2]))
    assert (cut.status, cut.stdout) == (8, b"Hello \n")


@pytest.mark.parametrize("status", ["204 No Content", "205 Reset Content", "206 Partial Content"])
def test_a_status_of_success_without_an_answer_or_with_a_part_of_one_is_status_4(
    serve: Serve, ask: Ask, status: str
) -> None:
    result = ask(serve(http(status, b"" if status[2] in "45" else BODY)))
    assert (result.status, result.stdout) == (4, b"")
    assert f"the server answered {status}" in result.stderr


def seconds_between(first: Request, second: Request) -> float:
    return second.at_s - first.at_s


@pytest.mark.parametrize("mode", ["", "--jsonl", "--final"])
def test_a_web_page_is_not_an_answer_and_not_printed(serve: Serve, ask: Ask, mode: str) -> None:
    result = ask(serve(http("200 OK", PAGE, "Content-Type: text/html")), *filter(None, [mode]))
    assert result[:2] == (4, b"")
    assert "web page" in result.stderr
    assert "html>" not in result.stderr


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("400 Bad Request", 4),
        ("401 Unauthorized", 5),
        ("402 Payment Required", 5),
        ("403 Forbidden", 5),
        ("404 Not Found", 4),
        ("413 Content Too Large", 4),
        ("418 I'm a teapot", 4),
        ("422 Unprocessable Content", 4),
        ("501 Not Implemented", 6),
        ("530 Origin DNS Error", 6),
    ],
)
def test_a_refusal_is_reported_with_the_message_of_the_server_and_not_retried(
    serve: Serve, ask: Ask, status: str, expected: int
) -> None:
    server = serve(http(status, error_body("because", "some_code"), "x-request-id: req-17"))
    result = ask(server)
    assert result[:2] == (expected, b"")
    assert all(word in result.stderr for word in (status, "because", "some_code", "req-17"))
    assert len(result.stderr.splitlines()) == 1
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", ["502 Bad Gateway", "503 Service Unavailable", "500 Internal Server Error"])
def test_a_web_page_with_an_error_is_a_short_message(serve: Serve, ask: Ask, status: str) -> None:
    result = ask(serve(http(status, PAGE, "Content-Type: text/html")), "--retries", "0")
    assert result == (6, b"", f"smai: the server answered {status}; try again later\n")


def test_a_failure_is_one_line_whatever_the_server_writes_in_it(serve: Serve, ask: Ask) -> None:
    body = error_body("two\nlines\r\n\x1b[31mred\u2028smai: forged " + "x" * 5000)
    result = ask(serve(http("400 Bad Request", body)))
    assert result.status == 4
    assert len(result.stderr.splitlines()) == 1
    assert "\x1b" not in result.stderr
    assert len(result.stderr) < 1000


def test_a_key_in_an_error_message_of_the_server_is_hidden(serve: Serve, ask: Ask) -> None:
    result = ask(serve(http("401 Unauthorized", error_body(f"Incorrect API key provided: {KEY}"))))
    assert result.status == 5
    assert "Incorrect API key provided" in result.stderr


GZIP = ["Content-Type: application/json", "Content-Encoding: gzip"]
UNAUTHORIZED = b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\n"
WRONG_KEY = error_body("wrong key")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("steps", "says"),
    [
        pytest.param([http("401 Unauthorized", b"no gzip at all", *GZIP)], "", id="no-gzip"),
        pytest.param([http("401 Unauthorized", gzip.compress(WRONG_KEY)[:-12], *GZIP)], "", id="gzip-cut"),
        pytest.param([http("401 Unauthorized", b"\x8b\x05\x80", "Content-Encoding: exotic")], "", id="unknown-coding"),
        pytest.param([http("401 Unauthorized", bytes(range(128, 256)) * 9)], "", id="binary"),
        pytest.param([UNAUTHORIZED + b"Content-Length: 5000\r\n\r\n" + WRONG_KEY], "wrong key", id="cut"),
        pytest.param([UNAUTHORIZED + b"\r\n" + WRONG_KEY[:-9]], "", id="cut-in-the-json"),
        pytest.param([UNAUTHORIZED + b"Content-Length: 5000\r\n\r\n" + WRONG_KEY, hold], "wrong key", id="open"),
        pytest.param([UNAUTHORIZED + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"], "", id="bad-chunk"),
        pytest.param(
            [UNAUTHORIZED + b"Content-Length: 9\r\nContent-Length: 8\r\n\r\n" + WRONG_KEY], "wrong", id="lengths"
        ),
        pytest.param([UNAUTHORIZED + b"Content-Length: -5\r\n\r\n" + WRONG_KEY], "wrong key", id="negative-length"),
        pytest.param([UNAUTHORIZED + b"\r\n", forever(b"x" * 65536)], "", id="at-full-speed"),
        pytest.param([UNAUTHORIZED + b"\r\n", reset], "", id="reset"),
    ],
)
def test_a_401_whose_body_cannot_be_read_is_still_a_401(serve: Serve, ask: Ask, steps: list[Step], says: str) -> None:
    server = serve(*steps)
    result = ask(server)
    assert result[:2] == (5, b"")
    assert "the server answered 401 Unauthorized" in result.stderr
    assert "check the key" in result.stderr
    assert says in result.stderr
    assert result.stderr.isascii()
    assert "\\x" not in result.stderr
    assert len(server.requests) == 1


INTERNAL = b"HTTP/1.1 500 Internal Server Error\r\n\r\n"
FOUND = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/login\r\n\r\n"


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("head", "body", "expected", "says"),
    [
        pytest.param(INTERNAL, forever(b"x" * 65536), 6, "500 Internal Server Error", id="500-at-full-speed"),
        pytest.param(INTERNAL, forever(b"x", every_s=0.1), 6, "500 Internal Server Error", id="500-dribbled"),
        pytest.param(FOUND, forever(b"x" * 65536), 4, "1/login (302)", id="302-at-full-speed"),
        pytest.param(FOUND, hold, 4, "1/login (302)", id="302-silent"),
    ],
)
def test_an_endless_error_body_does_not_delay_the_message(
    serve: Serve, ask: Ask, head: bytes, body: Step, expected: int, says: str
) -> None:
    server = serve(head, body)  # which would go on for longer than the process may
    result = ask(server, "--retries", "0")
    assert result[:2] == (expected, b"")
    assert says in result.stderr
    assert server.connections == 1


@pytest.mark.parametrize("status", ["301", "302", "303", "307", "308"])
def test_a_redirect_is_shown_and_not_followed(serve: Serve, ask: Ask, status: str) -> None:
    elsewhere = serve(*PLAIN_ANSWER)
    server = serve(http(f"{status} Moved", PAGE, f"Location: {elsewhere.url}"))
    result = ask(server)
    assert result[:2] == (4, b"")
    assert elsewhere.url in result.stderr
    assert (len(server.requests), elsewhere.connections) == (1, 0)


@pytest.mark.parametrize(
    "header",
    [
        pytest.param("Retry-After: 0.1", id="a-tenth-of-a-second"),
        pytest.param("retry-after-ms: 100", id="milliseconds"),
        pytest.param("Retry-After: Wed, 21 Oct 2015 07:28:00 GMT", id="a-date-that-has-passed"),
        pytest.param("Retry-After: soon", id="a-word"),
        pytest.param("Retry-After: -1", id="negative"),
        pytest.param("Retry-After: ", id="empty"),
        pytest.param("Retry-After: nan", id="nan"),
        pytest.param("Retry-After: inf", id="inf"),
        pytest.param("Retry-After: Wed, 99 Foo 2015 07:28:00 GMT", id="a-date-that-is-none"),
        pytest.param("Retry-After: Wed Oct 21 07:28:00 2015", id="a-date-of-asctime"),
        pytest.param("X-Nothing: 1", id="absent"),
    ],
)
def test_a_request_to_a_busy_server_is_retried(serve: Serve, ask: Ask, header: str) -> None:
    server = serve(too_many(header), GOOD)
    result = ask(server)
    assert result[:2] == (0, OUT)
    assert len(result.stderr.splitlines()) == 1
    assert "slow down (test); try 2 of 3 in" in result.stderr
    assert len(server.requests) == 2
    assert server.requests[0].body == server.requests[1].body


def test_retry_after_in_seconds_is_obeyed(serve: Serve, ask: Ask) -> None:
    server = serve(too_many("Retry-After: 1"), GOOD)
    assert ask(server)[:2] == (0, OUT)
    assert seconds_between(*server.requests) >= 1


def test_retry_after_as_a_date_is_obeyed(serve: Serve, ask: Ask) -> None:
    begun = time.time()
    server = serve(too_many(f"Retry-After: {formatdate(begun + 3, usegmt=True)}"), GOOD)
    assert ask(server)[:2] == (0, OUT)
    assert len(server.requests) == 2
    assert time.time() >= int(begun) + 3


@pytest.mark.parametrize("value", ["86400", "121", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_a_retry_after_that_is_too_long_ends_the_run_at_once(serve: Serve, ask: Ask, value: str) -> None:
    server = serve(too_many(f"Retry-After: {value}"), GOOD)
    result = ask(server)
    assert result[:2] == (6, b"")
    assert "slow down (test); the server asks to wait" in result.stderr
    assert len(server.requests) == 1


def test_a_server_that_stays_busy_is_reported_with_its_own_message(serve: Serve, ask: Ask) -> None:
    server = serve(BUSY)
    result = ask(server, "--retries", "2")
    assert result[:2] == (6, b"")
    assert len(server.requests) == 3
    assert result.stderr.splitlines()[-1] == (
        "smai: the server answered 503 Service Unavailable: all models are busy (test); try again later"
    )


RETRY_INFO = b'{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.3s"}'
RESET = b'{"headers": {"X-RateLimit-Limit": "20", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "%d"}}'


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        pytest.param(b'[{"error": {"code": 429, "details": [%s]}}]' % RETRY_INFO, [], id="Google, in an array"),
        pytest.param(b'{"error": {"code": 429, "details": [{}, %s]}}' % RETRY_INFO, [], id="Google"),
        pytest.param(b"", ["x-ratelimit-remaining-requests: 0", "x-ratelimit-reset-requests: 300ms"], id="requests"),
        pytest.param(b"", ["x-ratelimit-remaining-tokens: 0", "x-ratelimit-reset-tokens: 0.3s"], id="tokens"),
        pytest.param(
            b'{"error": {"code": 429, "details": [{"retryDelay": "9s"}]}}', ["Retry-After: 0.3"], id="Retry-After first"
        ),
        pytest.param(
            b"",
            ["retry-after-ms: 300", "x-ratelimit-remaining-tokens: 0", "x-ratelimit-reset-tokens: 9s"],
            id="retry-after-ms first",
        ),
    ],
)
def test_the_time_to_wait_is_read_from_every_field_that_servers_use(
    serve: Serve, ask: Ask, body: bytes, headers: list[str]
) -> None:
    server = serve((http("429 Too Many Requests", body, *headers),), GOOD)
    result = ask(server)
    assert result[:2] == (0, OUT)
    assert "; try 2 of 3 in 0.3 s" in result.stderr
    assert seconds_between(*server.requests) >= 0.3


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        pytest.param(b'{"error": {"details": [{"retryDelay": "3600s"}]}}', [], id="Google"),
        pytest.param(
            b'{"error": {"code": 429, "metadata": %s}}' % (RESET % 4_102_444_800_000), [], id="OpenRouter, in 2100"
        ),
        pytest.param(b"", ["x-ratelimit-remaining-requests: 0", "x-ratelimit-reset-requests: 6m0s"], id="OpenAI"),
    ],
)
def test_a_wait_that_is_too_long_ends_the_run_in_whatever_field_the_server_sends_it(
    serve: Serve, ask: Ask, body: bytes, headers: list[str]
) -> None:
    server = serve(http("429 Too Many Requests", body, *headers))
    result = ask(server)
    assert result.status == 6
    assert "; the server asks to wait " in result.stderr
    assert len(server.requests) == 1


def test_smai_waits_until_the_reset_time_that_openrouter_sends(serve: Serve, ask: Ask) -> None:
    at_s = time.time() + 2
    body = b'{"error": {"code": 429, "message": "Rate limit exceeded", "metadata": %s}}' % (RESET % (at_s * 1000))
    server = serve((http("429 Too Many Requests", body),), GOOD)
    assert ask(server)[:2] == (0, OUT)
    assert time.time() >= at_s


@pytest.mark.parametrize(
    "status",
    [
        *("408 Request Timeout", "500 Oops", "502 Oops", "503 Oops", "504 Oops", "529 Oops"),
        *(f"{status} Cloudflare" for status in range(520, 526)),
    ],
)
def test_a_failure_that_may_pass_is_retried(serve: Serve, ask: Ask, status: str) -> None:
    server = serve((http(status, b"", "Retry-After: 0"),), GOOD)
    assert ask(server)[:2] == (0, OUT)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param("429 Too Many Requests", error_body("pay first", "insufficient_quota"), id="quota"),
        pytest.param("500 Oops", error_body("insufficient balance (1008)"), id="MiniMax"),
        pytest.param("400 Bad Request", error_body("Your credit balance is too low"), id="Anthropic"),
        pytest.param("429 Too Many Requests", error_body("pay first", "1113"), id="Z.ai"),
        pytest.param("400 Bad Request", b'[{"error": {"code": 400, "message": "API key not valid."}}]', id="Gemini"),
    ],
)
def test_an_account_without_money_or_a_bad_key_is_status_5_without_a_retry(
    serve: Serve, ask: Ask, status: str, body: bytes
) -> None:
    server = serve(http(status, body, "Retry-After: 0", "x-should-retry: true"))
    assert ask(server).status == 5
    assert len(server.requests) == 1


def test_an_overload_error_with_another_http_status_is_status_6_and_retried(serve: Serve, ask: Ask) -> None:
    body = b'[{"error": {"code": 429, "message": "You exceeded your current quota", "status": "RESOURCE_EXHAUSTED"}}]'
    server = serve(http("400 Bad Request", body, "Retry-After: 0"))
    result = ask(server, "--retries", "1")
    assert result[:2] == (6, b"")
    assert result.stderr.endswith(": You exceeded your current quota (429); try again later\n")
    assert len(server.requests) == 2


def test_a_request_that_is_too_large_for_the_account_is_status_4_and_not_retried(serve: Serve, ask: Ask) -> None:
    server = serve(http("413 Too Large", error_body("Request too large for model", "rate_limit_exceeded")))
    result = ask(server)
    assert result[:2] == (4, b"")
    assert result.stderr.endswith("; shorten the prompt\n")
    assert len(server.requests) == 1


def test_a_403_with_a_web_page_is_status_4_and_does_not_blame_the_key(serve: Serve, ask: Ask) -> None:
    server = serve(http("403 Forbidden", PAGE, "cf-mitigated: challenge", "Content-Type: text/html"))
    result = ask(server)
    assert result[:2] == (4, b"")
    assert result.stderr.startswith("smai: the server answered 403 Forbidden with a web page; a firewall or a proxy ")
    assert "key" not in result.stderr
    assert len(server.requests) == 1


@pytest.mark.parametrize("command", ["ask", "models"])
def test_a_404_from_a_base_url_without_a_path_says_that_v1_may_be_missing(
    serve: Serve, smai: Smai, command: str
) -> None:
    missing = "check --base-url: /v1 may be missing at its end\n"
    server = serve(http("404 Not Found", b"404 page not found", "Content-Type: text/plain"))
    for base_url in (server.url.removesuffix("/v1"), server.url.removesuffix("v1"), server.url):
        result = smai(command, "--base-url", base_url, *(["hi"] if command == "ask" else []))
        assert result[:2] == (4, b"")
        assert "404 page not found; check --base-url" in result.stderr
        assert result.stderr.endswith(missing) is (base_url != server.url)
    for path in ("api", "api/chat", "api/generate"):  # from the documentation of Ollama's own API
        result = smai(command, "--base-url", server.url.replace("v1", path), *(["hi"] if command == "ask" else []))
        assert result.stderr.endswith(f"; check --base-url: Ollama needs /v1 instead of /{path}\n")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param("200 OK", b'{"error": "Unexpected endpoint or method. (POST /chat/completions)"}', id="LM Studio"),
        pytest.param("200 OK", PAGE, id="a web page"),
        pytest.param("405 Method Not Allowed", PAGE, id="405"),
        pytest.param("404 Not Found", error_body("Invalid URL (POST /chat/completions)"), id="OpenAI"),
    ],
)
def test_an_unknown_path_error_of_any_server_says_that_v1_may_be_missing(
    serve: Serve, smai: Smai, status: str, body: bytes
) -> None:
    server = serve(http(status, body))
    result = smai("ask", "--base-url", server.url.removesuffix("/v1"), "hi")
    assert result[:2] == (4, b"")
    assert result.stderr.endswith("; check --base-url: /v1 may be missing at its end\n")


def test_a_404_that_is_about_the_model_does_not_blame_the_base_url(serve: Serve, smai: Smai) -> None:
    server = serve(http("404 Not Found", error_body("model 'x' not found", "model_not_found")))
    result = smai("ask", "--base-url", server.url.removesuffix("/v1"), "hi")
    assert result.stderr.endswith("; check -m/--model; smai models lists the names\n")


def test_a_request_is_not_retried_if_the_server_forbids_it(serve: Serve, ask: Ask) -> None:
    server = serve(http("503 Busy", b"", "Retry-After: 0", "x-should-retry: false"))
    assert ask(server)[:2] == (6, b"")
    assert len(server.requests) == 1


def test_a_request_is_retried_if_the_server_says_so_whatever_the_status(serve: Serve, ask: Ask) -> None:
    server = serve((http("409 Conflict", b"", "Retry-After: 0", "x-should-retry: true"),), GOOD)
    assert ask(server)[:2] == (0, OUT)
    assert len(server.requests) == 2


@pytest.mark.parametrize("flags", [[], ["--raw"], ["--jsonl"]], ids=["text", "raw", "jsonl"])
def test_a_stream_that_breaks_after_a_retry_is_not_requested_again(serve: Serve, ask: Ask, flags: list[str]) -> None:
    server = serve((http("503 Busy", b"", "Retry-After: 0"),), (HEAD, chunk(HELLO), reset), GOOD)
    assert ask(server, *flags).status == 8
    assert len(server.requests) == 2


def test_with_final_a_broken_stream_is_retried_up_to_the_retry_limit(serve: Serve, ask: Ask) -> None:
    server = serve(HEAD, chunk(HELLO), reset)
    assert ask(server, "--final", "--retries", "1")[:2] == (8, b"")
    assert len(server.requests) == 2


def test_a_refused_connection_is_status_3(ask: Ask, closed_port: int) -> None:
    result = ask(None, "--base-url", f"http://127.0.0.1:{closed_port}/v1", "--retries", "0")
    assert result[:2] == (3, b"")
    assert "could not connect to 127.0.0.1 port " in result.stderr


def test_a_refused_connection_is_retried(ask: Ask, closed_port: int) -> None:
    result = ask(None, "--base-url", f"http://127.0.0.1:{closed_port}/v1", "--retries", "1")
    assert result.status == 3
    assert "try 2 of 2" in result.stderr


def test_a_name_that_does_not_resolve_is_status_3(ask: Ask) -> None:
    result = ask(None, "--base-url", "http://nosuch.invalid/v1", "--retries", "0")
    assert result[:2] == (3, b"")
    assert "could not resolve " in result.stderr


@pytest.mark.parametrize("steps", [[], [reset], [b"HTTP/1.1 20"], [b"\r\n"]], ids=["fin", "reset", "part", "blank"])
@pytest.mark.parametrize("flags", [[], ["--final"]], ids=["text", "final"])
def test_a_request_that_is_dropped_without_an_answer_is_not_sent_again(
    serve: Serve, ask: Ask, steps: list[Step], flags: list[str]
) -> None:
    server = serve(tuple(steps), GOOD)
    result = ask(server, *flags)
    assert result[:2] == (8, b"")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", id="ssh"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="http-2-preface"),
        pytest.param(b"HTTP/3.0 200 OK\r\n\r\n", id="http-3"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", id="too-many-headers"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", id="a-header-too-long"),
        pytest.param(b"HTTP/1.1 abc OK\r\n\r\n", id="no-status"),
    ],
)
def test_a_response_that_is_not_http_is_reported_in_one_line(serve: Serve, ask: Ask, line: bytes) -> None:
    server = serve(line)
    result = ask(server)
    assert result[:2] == (8, b"")
    assert len(result.stderr.splitlines()) == 1
    assert len(server.requests) == 1


def test_a_connection_that_is_closed_at_once_is_reported_in_one_line_without_sigpipe(serve: Serve, ask: Ask) -> None:
    def reads_nothing(connection: socket.socket) -> Request:
        reset(connection)
        raise ConnectionError

    server = serve(reads=reads_nothing)
    result = ask(server, "--retries", "0", stdin=b"x" * 1_000_000)
    assert result.status in {3, 8}  # whether the request was on its way is for the network to say
    assert len(result.stderr.splitlines()) == 1


def test_an_untrusted_certificate_is_status_3_and_not_retried(serve: Serve, smai: Smai) -> None:
    server = serve(*PLAIN_ANSWER, tls=certificates().context)
    result = fair(smai("ask", "hi", env={"SMAI_BASE_URL": server.url, "SMAI_API_KEY": KEY}))
    assert result[:2] == (3, b"")
    assert "certificate" in result.stderr
    assert (server.connections, server.requests) == (1, [])


def test_a_missing_ca_file_is_named(serve: Serve, ask: Ask) -> None:
    server = serve(*PLAIN_ANSWER, tls=certificates().context)
    result = ask(server, env={"SSL_CERT_FILE": "/nonexistent/ca.pem"})
    assert result[:2] == (2, b"")
    assert "/nonexistent/ca.pem" in result.stderr


@pytest.mark.parametrize("content", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nMIIB"])
def test_a_ca_file_without_certificates_is_named(serve: Serve, ask: Ask, tmp_path: Path, content: str) -> None:
    (bundle := tmp_path / "ca.pem").write_text(content)
    server = serve(*PLAIN_ANSWER, tls=certificates().context)
    result = ask(server, env={"SSL_CERT_FILE": str(bundle)})
    what = f"the CA bundle {bundle} does not contain certificates in PEM format"
    assert result == (2, b"", f"smai: {what}; check SSL_CERT_FILE\n")
    assert server.requests == []


def test_a_key_log_that_cannot_be_written_is_named(serve: Serve, ask: Ask) -> None:
    server = serve(*PLAIN_ANSWER, tls=certificates().context)
    result = ask(server, env={"SSLKEYLOGFILE": "/nonexistent/log"})
    what = "SSLKEYLOGFILE names /nonexistent/log: No such file or directory"
    assert result == (2, b"", f"smai: {what}; correct it, or unset it\n")


def test_https_to_an_http_port_is_status_3_with_a_hint(serve: Serve, ask: Ask) -> None:
    server = serve(http("400 Bad Request", b"what?"), reads=reads_once)
    result = ask(None, "--base-url", server.url.replace("http:", "https:"))
    assert result[:2] == (3, b"")
    what = "TLS failed: the server does not speak TLS"
    assert result.stderr == f"smai: {what}; did you mean {server.url}?\n"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda v: v.name)
@pytest.mark.parametrize("size", [1, 1_000_000], ids=["small", "large"])
def test_a_server_that_requires_a_client_certificate_is_status_3_with_a_message(
    serve: Serve, ask: Ask, version: ssl.TLSVersion, size: int
) -> None:
    context = tls_context()
    context.minimum_version = context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificates().ca_file)
    server = serve(*PLAIN_ANSWER, tls=context)
    result = ask(server, stdin=b"x" * size)
    assert result[:2] == (3, b""), result.stderr
    assert "a client certificate" in result.stderr
    assert "SSL_CERT_FILE" not in result.stderr  # that is for the server's
    assert len(result.stderr.splitlines()) == 1
    assert server.requests == []


def test_a_server_whose_tls_is_too_old_is_status_3_with_a_message(serve: Serve, ask: Ask) -> None:
    context = tls_context()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    server = serve(*PLAIN_ANSWER, tls=context)
    result = ask(server)
    assert result[:2] == (3, b"")
    assert "TLS failed: the server's version is too old, smai needs TLS 1.2 or later" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_http_to_an_https_port_is_reported_in_one_line(serve: Serve, ask: Ask) -> None:
    server = serve(*PLAIN_ANSWER, tls=certificates().context)
    result = ask(None, "--base-url", server.url.replace("https:", "http:"), "--retries", "0")
    assert result[:2] == (8, b"")
    assert len(result.stderr.splitlines()) == 1


def test_a_base_url_without_a_scheme_gets_a_hint(ask: Ask) -> None:
    result = ask(None, "--base-url", "localhost:11434/v1")
    assert result[:2] == (2, b"")
    assert "did you mean http://localhost:11434/v1" in result.stderr


@pytest.mark.parametrize("bad", ["sk-A\nB", "sk-A\r\nX-Evil: 1", "sk-A B", "sk-A\u00e9", "sk-A\x7f"])
def test_an_invalid_key_is_neither_sent_nor_printed(serve: Serve, ask: Ask, tmp_path: Path, bad: str) -> None:
    server = serve(*PLAIN_ANSWER)
    key_file = tmp_path / "key"
    key_file.write_text(bad)
    key_file.chmod(0o600)
    for result in (ask(server, env={"SMAI_API_KEY": bad}), ask(server, "--key-file", str(key_file))):
        assert result[:2] == (2, b"")
        assert "sk-A" not in result.stderr
    assert server.connections == 0


def authorization(request: Request) -> list[bytes]:
    return [line for line in request.head.split(b"\r\n") if line.lower().startswith(b"authorization")]


BEARER = [b"Authorization: Bearer " + KEY.encode()]


def test_netrc_does_not_replace_the_key(serve: Serve, ask: Ask, environment: dict[str, str]) -> None:
    netrc = Path(environment["HOME"]) / ".netrc"
    netrc.write_text("machine 127.0.0.1 login joe password secret\n")
    netrc.chmod(0o600)
    server = serve(*PLAIN_ANSWER)
    assert ask(server) == (0, OUT, "")
    assert authorization(server.requests[0]) == BEARER
    assert ask(None, "--base-url", server.url) == (0, OUT, "")  # without a key, nothing of netrc either
    assert authorization(server.requests[1]) == []


def test_the_key_from_a_key_file_is_sent_to_the_base_url(serve: Serve, ask: Ask, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(KEY + "\n")
    key_file.chmod(0o600)
    server = serve(*PLAIN_ANSWER)
    assert ask(None, "--base-url", server.url, "--key-file", str(key_file)) == (0, OUT, "")
    assert authorization(server.requests[0]) == BEARER


def test_the_key_of_one_server_does_not_go_to_another(serve: Serve, ask: Ask) -> None:
    home, elsewhere = serve(*PLAIN_ANSWER), serve(*PLAIN_ANSWER)
    assert ask(home, "--base-url", elsewhere.url) == (0, OUT, "")
    assert authorization(elsewhere.requests[0]) == []


def test_a_user_in_the_base_url_does_not_replace_the_key(serve: Serve, ask: Ask) -> None:
    server = serve(*PLAIN_ANSWER)
    assert ask(server, "--base-url", server.url.replace("//", "//joe:secret@")) == (0, OUT, "")
    assert authorization(server.requests[0]) == BEARER


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_a_dead_proxy_is_status_3_and_named(ask: Ask, closed_port: int, variable: str) -> None:
    proxy = f"http://127.0.0.1:{closed_port}"
    result = ask(None, "--base-url", "http://example.invalid/v1", "--retries", "0", env={variable: proxy})
    assert result[:2] == (3, b"")
    assert "proxy" in result.stderr


def test_a_dead_proxy_for_https_is_status_3_and_named(ask: Ask, closed_port: int) -> None:
    env = {"https_proxy": f"http://127.0.0.1:{closed_port}"}
    result = ask(None, "--base-url", "https://example.invalid/v1", "--retries", "0", env=env)
    assert result[:2] == (3, b"")
    assert "proxy" in result.stderr


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://", "nonsense://x"])
def test_a_proxy_that_cannot_be_used_is_status_3_and_named(ask: Ask, proxy: str) -> None:
    env = {"http_proxy": proxy}
    result = ask(None, "--base-url", "http://example.invalid/v1", "--retries", "0", env=env)
    assert result[:2] == (3, b"")
    assert "proxy" in result.stderr


def through_socks(script: Step, *more: Step) -> Script:
    """Return the script of a SOCKS5 proxy (RFC 1928) and its server, which reads a request."""

    def play(connection: socket.socket) -> None:
        connection.sendall(b"\x05\x00")  # no authentication
        connection.recv(65536)
        connection.sendall(b"\x05\x00\x00\x01" + bytes(6))  # connected
        read_request(connection)
        answer(script, *more)(connection)

    return play


def test_a_silent_server_reached_through_a_socks_proxy_is_a_timeout(serve: Serve, ask: Ask) -> None:
    for steps, flags, expected in (
        ([b"".join(PLAIN_ANSWER)], (), (0, OUT, "")),
        ([HEAD, chunk(HELLO), hold], ("--idle-timeout", "1"), (7, b"Hello \n")),
    ):
        proxy = serve(through_socks(*steps), reads=reads_once)
        env = {"all_proxy": proxy.url.removesuffix("/v1").replace("http:", "socks5h:")}
        result = ask(None, "--base-url", "http://example.invalid/v1", *flags, env=env)
        assert result[: len(expected)] == expected


def test_a_proxy_that_refuses_the_tunnel_is_status_3_and_named(serve: Serve, ask: Ask) -> None:
    proxy = serve(http("407 Proxy Authentication Required"), reads=reads_once)
    env = {"https_proxy": proxy.url.removesuffix("/v1")}
    result = ask(None, "--base-url", "https://example.invalid/v1", "--retries", "0", env=env)
    assert result[:2] == (3, b"")
    assert "proxy" in result.stderr
    assert proxy.requests[0].head.startswith(b"CONNECT example.invalid:443 ")


TUNNEL = "https://example.invalid/v1"
FORWARDED = "http://example.invalid/v1"


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("base_url", "steps", "says"),
    [
        (TUNNEL, [http("407 Proxy Authentication Required")], "407 Proxy Authentication Required"),
        (TUNNEL, [http("403 Forbidden")], "403 Forbidden"),
        (TUNNEL, [hold], "it did not answer within 3 s"),
        (TUNNEL, [b"SSH-2.0-OpenSSH_9.6\r\n"], "it does not speak HTTP"),
        (TUNNEL, [b"\x00\x01\x02"], "it does not speak HTTP"),
        (TUNNEL, [b"HTTP/1.1 200 OK\r\n", forever(b"X: y\r\n", every_s=0.05)], "it did not answer within 3 s"),
        (TUNNEL, [], "it dropped the connection"),
        (TUNNEL, [reset], "it dropped the connection"),
        (FORWARDED, [http("407 Proxy Authentication Required", PAGE)], "407 Proxy Authentication Required"),
        (FORWARDED, [b"SSH-2.0-OpenSSH_9.6\r\n"], "it does not speak HTTP"),
        (FORWARDED, [], "it dropped the request without an answer"),
        (FORWARDED, [reset], "it dropped the request without an answer"),
    ],
)
def test_a_proxy_that_fails_is_status_3_named_and_not_retried(
    serve: Serve, ask: Ask, base_url: str, steps: list[Step], says: str
) -> None:
    proxy = serve(*steps, reads=reads_once if base_url == TUNNEL else read_request)
    env = {f"{base_url.split(':', 1)[0]}_proxy": proxy.url.removesuffix("/v1").replace("//", "//me:word@")}
    result = ask(None, "--base-url", base_url, "--connect-timeout", "3" if "3 s" in says else "20", env=env)
    assert result[:2] == (3, b"")
    (line,) = result.stderr.splitlines()
    assert "the proxy" in line
    assert says in line
    assert "_proxy: " in line
    assert "me:word" not in line
    assert proxy.connections <= 1  # none if the machine is so slow that the clock runs out first


@pytest.mark.thorough
def test_a_proxy_that_takes_no_connection_is_status_3_and_named(ask: Ask, silent_port: int) -> None:
    env = {"https_proxy": f"http://127.0.0.1:{silent_port}", "http_proxy": f"http://127.0.0.1:{silent_port}"}
    for base_url in (TUNNEL, FORWARDED):
        result = ask(None, "--base-url", base_url, "--connect-timeout", "3", env=env)
        assert result[:2] == (3, b"")
        assert "it did not answer within 3 s" in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_silence_through_a_proxy_is_an_idle_timeout_that_names_the_proxy(serve: Serve, ask: Ask) -> None:
    env = {"http_proxy": serve(hold).url.removesuffix("/v1")}
    result = ask(None, "--base-url", FORWARDED, "--idle-timeout", "0.5", env=env)
    assert result[:2] == (7, b"")
    assert "no answer began within 0.5 s; raise --idle-timeout, or check HTTP_PROXY" in result.stderr


def test_a_407_without_a_proxy_is_the_server_s_refusal(serve: Serve, ask: Ask) -> None:
    result = ask(serve(http("407 Proxy Authentication Required", error_body("who are you"))))
    assert result[:2] == (4, b"")
    assert "who are you" in result.stderr


def test_a_request_to_a_busy_server_through_a_proxy_is_retried(serve: Serve, ask: Ask) -> None:
    proxy = serve((http("503 Busy", b"", "Retry-After: 0"),), GOOD)
    result = ask(None, "--base-url", FORWARDED, env={"http_proxy": proxy.url.removesuffix("/v1")})
    assert result[:2] == (0, OUT)


def test_a_loopback_server_is_reached_without_the_proxy(serve: Serve, ask: Ask, closed_port: int) -> None:
    proxy = f"http://127.0.0.1:{closed_port}"
    env = dict.fromkeys(["http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"], proxy)
    assert ask(serve(*PLAIN_ANSWER), env=env) == (0, OUT, "")


def test_a_stream_with_http_status_500_is_an_error(serve: Serve, ask: Ask) -> None:
    head = HEAD.replace(b"200 OK", b"500 Oops")
    result = ask(serve(head, chunk(HELLO), LAST_CHUNK), "--retries", "0")
    assert result[:2] == (6, b"")
