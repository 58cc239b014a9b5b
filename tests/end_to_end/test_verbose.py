"""-v: the steps of a run on stderr, with times and without the key."""

import json
import re
import threading

import pytest
from conftest import Server, Smai
from process import STEP, Result, read_steps
from rawserver import (
    BODY,
    HEAD,
    KEY,
    LAST_CHUNK,
    OUT,
    PLAIN_ANSWER,
    Ask,
    Serve,
    Start,
    certificates,
    chunk,
    http,
    length_head,
    until,
)
from terminal import terminal

pytest_plugins = ["rawserver"]


def at(result: Result, what: str) -> float:
    return next(float(line[1]) for line in map(STEP.fullmatch, result.stderr.splitlines()) if line and line[2] == what)


def test_a_run_over_tls_reports_each_step(serve: Serve, ask: Ask) -> None:
    server = serve(*PLAIN_ANSWER, tls=certificates().context)
    result = ask(server, "-v", "-n")
    assert result[:2] == (0, OUT)
    port = server.url.rsplit(":", 1)[1].removesuffix("/v1")
    lines = read_steps(result)
    assert len(lines) == result.stderr.count("\n")
    lines.remove("stdin is not read")  # while another thread connects
    assert lines == [
        "resolving 127.0.0.1",
        "resolved: 127.0.0.1",
        f"connecting to 127.0.0.1 port {port}",
        "connected",
        "TLS is up: TLSv1.3",
        "using the connection that was opened early",
        f"request sent: POST {server.url}/chat/completions, {len(server.requests[0].body)} bytes",
        "headers: 200 OK, content-type text/event-stream",
        "first delta",
        "finished: stop",
        "end of the events",
        "end: 12 bytes on stdout, exit status 0",
    ]


def test_steps_that_cannot_be_distinguished_are_reported_as_one(serve: Serve, ask: Ask) -> None:
    server = serve(length_head(len(BODY) - 14) + BODY[:-14])
    result = ask(server, "--verbose", "-n", "--raw")
    port = server.url.rsplit(":", 1)[1].removesuffix("/v1")
    assert read_steps(result) == [
        "stdin is not read",
        f"connecting to 127.0.0.1 port {port}",
        "connected",
        f"request sent: POST {server.url}/chat/completions, {len(server.requests[0].body)} bytes",
        "headers: 200 OK, content-type text/event-stream",
        "first delta",
        "finished: stop",
        "end of the body",
        f"end: {len(BODY) - 14} bytes on stdout, exit status 0",
    ]


def test_each_step_is_reported_when_it_happens(serve: Serve, start: Start) -> None:
    begin, go_on = threading.Event(), threading.Event()
    server = serve(until(begin), HEAD, until(go_on), *PLAIN_ANSWER[1:])
    run = start(server, "-v", "-n")
    while "request sent" not in run.err_line():
        pass
    begin.set()
    assert "headers: 200 OK" in run.err_line()
    go_on.set()
    assert "first delta" in run.err_line()
    assert run.end()[:2] == (0, OUT)


def test_a_retry_is_reported_with_its_time_and_the_steps_start_again(serve: Serve, ask: Ask) -> None:
    busy = http("503 Service Unavailable", b"busy", "Retry-After: 0", "x-request-id: req-1")
    result = ask(serve((busy,), tuple(PLAIN_ANSWER)), "-v", "-n")
    lines = read_steps(result)
    assert len(lines) == result.stderr.count("\n")
    assert [line.split(":")[0].split(" 127")[0] for line in lines] == [
        "stdin is not read", "connecting to", "connected", "request sent", "headers",
        "the server answered 503 Service Unavailable",
        "connecting to", "connected", "request sent", "headers", "first delta", "finished", "end of the events", "end",
    ]  # fmt: skip
    assert "try 2 of 3 in 0.0 s" in lines[5]
    assert "headers: 503 Service Unavailable, retry-after 0, x-request-id req-1" in lines


def test_a_failure_has_the_same_message_as_without_verbose(serve: Serve, ask: Ask) -> None:
    server = serve(http("404 Not Found", b'{"error":{"message":"no such model"}}'))
    plain, verbose = ask(server, "-n"), ask(server, "-n", "-v")
    assert plain.stderr in verbose.stderr
    assert read_steps(verbose)[-1] == "end: 0 bytes on stdout, exit status 4"


def test_an_early_connection_that_fails_is_reported_once(smai: Smai) -> None:
    env = {"SMAI_BASE_URL": "https://127.0.0.1:1/v1", "SMAI_API_KEY": KEY}
    result = smai("ask", "-v", "--retries", "0", "hi", env=env)
    assert result.status == 3
    lines = read_steps(result)
    assert "no connection ahead: Connection refused" in lines
    assert "connecting to 127.0.0.1 port 1" in lines
    assert result.stderr.count("smai: could not connect to 127.0.0.1 port 1: Connection refused") == 1


def test_a_proxy_is_named_without_its_password(serve: Serve, ask: Ask) -> None:
    proxy = serve(http("403 Forbidden"))
    env = {"SMAI_BASE_URL": "https://smai.invalid/v1", "SMAI_API_KEY": KEY, "https_proxy": "http://me:word@127.0.0.1:1"}
    env["https_proxy"] = proxy.url.removesuffix("/v1").replace("//", "//me:word@")
    result = ask(None, "-v", "-n", "--retries", "0", env=env)
    assert result.status == 3
    assert any(line.startswith("connecting to the proxy 127.0.0.1 port ") for line in read_steps(result))
    assert "word" not in result.stderr


def test_no_line_contains_a_key_that_the_server_repeats(serve: Serve, ask: Ask) -> None:
    head = HEAD.replace(b"\r\n\r\n", f"\r\nx-request-id: {KEY}\r\n\r\n".encode())
    server = serve(head, chunk(BODY.replace(b'"stop"', f'"{KEY}"'.encode())), LAST_CHUNK)
    result = ask(server, "-v", "-n")  # it checks that the key is not shown
    assert any("x-request-id ..." in line for line in read_steps(result))
    assert "finished: ..." in read_steps(result)


def test_the_query_of_a_url_is_not_shown(serve: Serve, ask: Ask) -> None:
    server = serve(*PLAIN_ANSWER)
    result = ask(None, "-v", "-n", "--base-url", f"{server.url}?code=hush")
    assert result[:2] == (0, OUT)
    assert "hush" not in result.stderr


def test_a_terminal_gets_the_same_plain_lines_without_a_status_line(serve: Serve, start: Start) -> None:
    go_on = threading.Event()
    server = serve(HEAD, until(go_on), *PLAIN_ANSWER[1:])
    with terminal() as tty:
        run = start(server, "-n", "-v", stderr=tty.slave, env={"TERM": "xterm"})
        tty.read_until(b"headers: 200")
        go_on.set()
        assert run.end()[:2] == (0, OUT)
        tty.read_rest()
        assert all(STEP.fullmatch(line) for line in tty.seen.decode().removesuffix("\r\n").split("\r\n"))


def test_the_summary_is_the_last_line_and_uses_the_same_clock(smai: Smai, server: Server) -> None:
    result = smai("ask", "--base-url", server().url, "-v", "--summary", "json", "hi")
    summary = json.loads(result.stderr.splitlines()[-1])
    assert summary["first_delta_s"] <= at(result, "first delta") + 0.001
    assert at(result, next(line for line in read_steps(result) if line.startswith("headers"))) <= (
        summary["first_delta_s"] + 0.001
    )


@pytest.mark.parametrize(
    "flags", [["--final"], ["--jsonl"], ["--no-stream"], ["--api", "responses"]], ids=lambda f: f[0]
)
def test_stdout_is_the_same_as_without_verbose(smai: Smai, server: Server, flags: list[str]) -> None:
    url = server().url
    plain, verbose = (smai("ask", "--base-url", url, *flags, *more, "hi") for more in ([], ["-v"]))
    assert re.sub(rb'"created(_at)?":\d+', b"", plain.stdout) == re.sub(rb'"created(_at)?":\d+', b"", verbose.stdout)
    assert "first delta" in read_steps(verbose)


def test_the_first_reasoning_and_the_first_delta_are_reported_separately(smai: Smai, server: Server) -> None:
    tape = (
        b'data: {"choices":[{"delta":{"reasoning":"Hm"}}]}\n\ndata: {"choices":[{"delta":{"content":"42"}}]}\n\n'
        b"data: [DONE]\n\n"
    )
    lines = read_steps(smai("ask", "--base-url", server(tape=tape).url, "-v", "hi"))
    assert lines[-4:-1] == ["first delta of reasoning", "first delta", "end of the events"]


def test_models_reports_its_steps(smai: Smai, server: Server) -> None:
    url = server().url
    lines = read_steps(smai("models", "-v", "--base-url", url))
    assert f"request sent: GET {url}/models" in lines
    assert lines[-1] == "end of the body"
