"""Findings of a security review: each was once a traceback, a leak, a hang or a wrong status."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import Server, Smai
from process import SMAI
from rawserver import HEAD, HELLO, STOP, Ask, Serve, Start, chunk, hold, http, reach, until

from smai_cli.config.keys import Secret

pytest_plugins = ["rawserver"]
pytestmark = pytest.mark.preloaded
KEY = "sk-verysecretkey-0123456789"


@pytest.mark.parametrize("depth", [300, 400, 480, 960, 971, 980])
def test_deeply_nested_parts_are_not_text_and_cause_no_traceback(smai: Smai, depth: int) -> None:
    nested = '[{"text":' * depth + '""' + "}]" * depth
    for payload in (f'{{"choices":[{{"delta":{{"content":{nested}}}}}]}}', f'{{"error":{nested}}}'):
        result = smai("decode", stdin=f"data: {payload}\n\n".encode())
        assert (result.status, result.stdout) == (8, b"")
        assert "Traceback" not in result.stderr


def test_neither_a_server_message_nor_a_file_name_can_forge_a_line_on_stderr(smai: Smai) -> None:
    reason = json.dumps({"choices": [{"delta": {"content": "x"}, "finish_reason": "\x1b[2J\nsmai: fake"}]})
    results = [
        smai("decode", "--summary", "text", stdin=f"data: {reason}\n\n".encode()),
        smai("decode", "/x\x1b[2J\nsmai: fake"),
        smai("ask", "--key-file", "/x\x1b[2J\nsmai: fake", "hi"),
    ]
    for result in results:
        assert "\x1b" not in result.stderr
        assert "\nsmai: fake" not in result.stderr


@pytest.mark.parametrize("filler", [0, 100, 185, 470, 485, 495])
def test_no_part_of_the_key_is_printed_wherever_a_server_message_is_truncated(
    serve: Serve, smai: Smai, filler: int
) -> None:
    body = json.dumps({"error": {"message": "x" * filler + KEY, "code": "invalid_api_key"}}).encode()
    server = serve(http("401 Unauthorized", body, f"x-request-id: {KEY}"))
    result = smai("ask", "--summary", "json", "hi", env=reach(server) | {"SMAI_API_KEY": KEY})
    assert result.status == 5
    assert "verysecret" not in result.stderr


def test_a_key_too_short_to_be_a_secret_is_not_replaced_in_output() -> None:
    assert Secret("o").hidden_in("404 Not Found") == "404 Not Found"
    assert Secret(KEY).hidden_in(f"a {KEY} b {KEY[:10]}... c") == "a ... b ...... c"


@pytest.mark.parametrize(
    "base_url",
    ["joe:secret@localhost:1/v1", "ftp://joe:pa@secret@h", "http://joe:secret/x@h", "http://joe:secret@h:99999/"],
)
def test_no_password_of_a_base_url_is_shown(smai: Smai, base_url: str) -> None:
    result = smai("ask", "--base-url", base_url, "hi")
    assert result.status == 2
    assert "secret" not in result.stderr


@pytest.mark.parametrize("proxy", ["http://joe:secret@h:99999", "http://joe:secret@", "http://"])
def test_an_invalid_proxy_url_is_reported_without_its_password(smai: Smai, proxy: str) -> None:
    result = smai("ask", "--base-url", "https://example.invalid/v1", "hi", env={"https_proxy": proxy})
    assert result == (3, b"", "smai: the proxy is not a URL that smai can use; check https_proxy\n")


@pytest.mark.thorough
@pytest.mark.parametrize("flags", [[], ["--raw"]])
def test_decode_exits_after_the_end_of_the_answer_even_if_comments_keep_arriving(
    environment: dict[str, str], flags: list[str]
) -> None:
    with subprocess.Popen(
        [SMAI, "decode", *flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=0
    ) as process:
        assert process.stdin
        process.stdin.write(HELLO + STOP)
        try:
            while process.poll() is None:
                process.stdin.write(b": ping\n\n")
                time.sleep(0.2)
        except BrokenPipeError:
            pass
        assert process.wait(20) == 0


@pytest.mark.parametrize("option", ["--connect-timeout", "--idle-timeout", "--max-time"])
def test_a_limit_longer_than_the_system_can_wait_is_refused(smai: Smai, option: str) -> None:
    result = smai("ask", "--mock", option, "1e10", "hi")
    assert (result.status, result.stdout) == (2, b"")
    assert smai("ask", "--mock", option, "1000000", "hi").status == 0


@pytest.mark.nightly
def test_time_in_which_the_process_was_stopped_does_not_count_as_idle(serve: Serve, start: Start) -> None:
    import threading

    go_on = threading.Event()
    server = serve(HEAD, chunk(HELLO), until(go_on), chunk(STOP), hold)
    started = start(server, "--idle-timeout", "6")
    assert started.out(6) == b"Hello "
    time.sleep(1)
    os.kill(started.child.pid, signal.SIGSTOP)
    time.sleep(6)
    os.kill(started.child.pid, signal.SIGCONT)
    time.sleep(0.5)
    go_on.set()
    # 7.5 s after the last event, of which 6 s were no waiting; then finish_reason without an end: 5 s of grace.
    assert started.end()[:2] == (0, b"\n")


@pytest.mark.parametrize(
    "choice",
    ['{"text":"hi\\n","finish_reason":"stop"}', '{"index":"0","delta":{"content":"hi\\n"},"finish_reason":"stop"}'],
)
def test_text_in_an_older_response_format_is_printed(smai: Smai, choice: str) -> None:
    stream = f'data: {{"choices":[{choice}]}}\n\ndata: [DONE]\n\n'.encode()
    assert smai("decode", stdin=stream) == (0, b"hi\n", "")


def test_the_model_is_in_the_summary_after_a_retry_too(smai: Smai, server: Server) -> None:
    result = smai("ask", "--base-url", server(status=503).url, "--retries", "1", "--summary", "json", "hi")
    assert json.loads(result.stderr.splitlines()[-1])["model"] == "gpt-4.1"


def test_jsonl_prints_null_for_numbers_that_json_does_not_have(smai: Smai) -> None:
    stream = b'data: {"a":NaN,"b":1e999,\ndata: "choices":[{"finish_reason":"stop"}]}\n\n'
    result = smai("decode", "--jsonl", stdin=stream)
    assert json.loads(result.stdout, parse_constant=pytest.fail)["b"] is None


def test_a_complete_body_on_a_connection_that_stays_open_is_a_complete_answer(serve: Serve, ask: Ask) -> None:
    body = b'{"choices":[{"message":{"content":"hi\\n"},"finish_reason":"stop"}]}'
    server = serve(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + body, hold)
    assert ask(server, "--idle-timeout", "1") == (0, b"hi\n", "")


def test_the_stream_of_another_api_is_refused_and_not_retried(smai: Smai) -> None:
    lines = b'{"message":{"content":"a"},"done":false}\n{"message":{"content":"b"},"done":true}\n'
    result = smai("decode", stdin=lines)
    assert (result.status, result.stdout) == (4, b"")


def test_the_mock_answers_http_1_0_and_refuses_malformed_requests(smai: Smai, server: Server) -> None:
    url = f"{server(reply='ok').url}/chat/completions"
    good = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True})
    old = subprocess.run(["curl", "-sN0", url, "-d", good], capture_output=True, check=True)
    assert smai("decode", stdin=old.stdout).stdout == b"ok\n"
    for bad in ({"messages": ["hi"]}, {"messages": [], "stream_options": "x"}):
        answer = subprocess.run(
            ["curl", "-s", url, "-d", json.dumps({"model": "m", **bad})], capture_output=True, check=True
        )
        assert b"invalid_request" in answer.stdout
    assert smai("mock", "--reply", b"caf\xe9").status == 2


def test_a_defect_is_reported_even_if_no_module_can_be_imported() -> None:
    script = """
import sys
from smai_cli.cli import group
from smai_cli.main import main

def fails(*arguments, **more):
    raise KeyError("a defect")

group.smai.main = fails
sys.modules["traceback"] = None
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "KeyError('a defect')\nsmai: this is a defect in smai; please report it with the lines above\n"
    )
