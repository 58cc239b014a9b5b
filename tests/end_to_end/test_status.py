"""The table of exit statuses, each caused by a fault of the mock or a mistake of the user."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import Config, Server, Smai
from process import SMAI

from smai_cli.errors import Status
from smai_cli.mock.script import POEM

pytestmark = pytest.mark.preloaded

FIRST = b"Spring\n"


@pytest.mark.parametrize(
    ("script", "flags", "status", "stdout", "words"),
    [
        pytest.param({}, [], 0, POEM.encode(), "", id="0 complete"),
        pytest.param({"done": False}, [], 0, POEM.encode(), "", id="0 finish_reason without [DONE]"),
        pytest.param({"finish_reason": "none"}, ["--accept", "done"], 0, POEM.encode(), "", id="0 [DONE], accepted"),
        pytest.param(
            {"finish_reason": "none"}, [], 8, POEM.encode(), "[DONE], but without finish_reason", id="8 [DONE] alone"
        ),
        pytest.param({"finish_reason": "tool_calls"}, [], 0, POEM.encode(), "", id="0 tool_calls"),
        pytest.param(
            {"status": 404}, [], 4, b"", "404 Not Found: The model does not exist (model_not_found)", id="4 404"
        ),
        pytest.param({"status": 400}, [], 4, b"", "(invalid_request)", id="4 400"),
        pytest.param({"status": 302}, [], 4, b"", "does not follow redirects", id="4 redirect"),
        pytest.param({"status": 401}, [], 5, b"", "Incorrect API key provided (invalid_api_key)", id="5 401"),
        pytest.param({"status": 403}, [], 5, b"", "the key may not do this", id="5 403"),
        pytest.param({"require_key": "sk-other"}, [], 5, b"", "(invalid_api_key)", id="5 another key"),
        pytest.param({"status": 429}, ["--retries", "0"], 6, b"", "Rate limit reached", id="6 429"),
        pytest.param({"status": 503}, ["--retries", "0"], 6, b"", "(model_overloaded)", id="6 503"),
        pytest.param({"status": 501}, [], 6, b"", "501 Not Implemented", id="6 501, not retried"),
        pytest.param({"stall_after": 1}, ["--idle-timeout", "1"], 7, FIRST, "nothing arrived for 1 s", id="7 idle"),
        pytest.param({"stall_after": 1}, ["--max-time", "4"], 7, FIRST, "took 4 s in all", id="7 total"),
        pytest.param({"cut_after": 1}, [], 8, FIRST, "broke before the answer was complete", id="8 cut"),
        pytest.param({"cut_after": 0}, [], 8, b"", "broke before", id="8 cut before any text"),
        pytest.param({"error_after": 1}, [], 8, FIRST, "The server had an error (server_error)", id="8 error event"),
        pytest.param({"done": False, "finish_reason": "none"}, [], 8, POEM.encode(), "ended before", id="8 no ending"),
        pytest.param({"finish_reason": "length"}, [], 9, POEM.encode(), "hit the token limit", id="9 length"),
        pytest.param({"finish_reason": "content_filter"}, [], 10, POEM.encode(), "withheld", id="10 content_filter"),
        pytest.param({"finish_reason": "length"}, ["--accept", "length"], 0, POEM.encode(), "", id="0 accepted"),
    ],
)
def test_each_failure_of_the_server_has_its_exit_status(
    smai: Smai, server: Server, script: dict[str, Any], flags: list[str], status: int, stdout: bytes, words: str
) -> None:
    result = smai("ask", "--base-url", server(**script).url, *flags, "hi")
    assert (result.status, result.stdout) == (status, stdout)
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == (status != 0)


def test_the_status_of_a_defect_is_not_that_of_a_documented_failure() -> None:
    assert [int(status) for status in Status] == list(range(12))


def test_a_refused_connection_is_status_3_after_the_retries(smai: Smai) -> None:
    result = smai("ask", "--base-url", "http://127.0.0.1:1/v1", "--retries", "1", "hi")
    assert result.status == 3
    notice, message = result.stderr.splitlines()
    assert notice.startswith("smai: could not connect to 127.0.0.1 port 1: Connection refused; try 2 of 2 in 0.")
    assert message == "smai: could not connect to 127.0.0.1 port 1: Connection refused; is the server running?"


def test_insufficient_credit_is_status_5_and_not_retried(smai: Smai, quota_server: Any) -> None:
    with quota_server as mock:
        result = smai("ask", "--base-url", mock.url, "hi")
    assert result.status == 5
    assert len(mock.received) == 1
    assert result.stderr.endswith("top up the account\n")


def test_a_full_disk_is_status_11(environment: dict[str, str], server: Server) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [SMAI, "ask", "--base-url", server().url, "hi"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment,
            check=False,
        )
    assert (done.returncode, done.stderr) == (
        11,
        b"smai: stdout: No space left on device; free some space, then run it again\n",
    )


def test_failures_of_the_first_requests_are_retried_as_the_server_asks(smai: Smai, server: Server) -> None:
    mock = server(fail_first=2, status=503, retry_after="0.1")
    result = smai("ask", "--base-url", mock.url, "--summary", "json", "hi")
    assert (result.status, result.stdout) == (0, POEM.encode())
    *notices, summary = result.stderr.splitlines()
    assert [notice.rsplit(";", 1)[1] for notice in notices] == [" try 2 of 3 in 0.1 s", " try 3 of 3 in 0.1 s"]
    assert json.loads(summary)["retries"] == len(mock.received) - 1 == 2


def test_a_request_is_never_retried_after_text_was_printed(smai: Smai, server: Server) -> None:
    mock = server(cut_after=1)
    assert smai("ask", "--base-url", mock.url, "hi").status == 8
    assert len(mock.received) == 1


def test_final_requests_a_broken_answer_again_because_nothing_was_printed(smai: Smai, server: Server) -> None:
    mock = server(cut_after=3)
    result = smai("ask", "--base-url", mock.url, "--final", "--retries", "1", "hi")
    assert (result.status, result.stdout) == (8, b"")
    assert len(mock.received) == 2


def test_a_retry_after_of_more_than_a_minute_ends_the_run_at_once(smai: Smai, server: Server) -> None:
    mock = server(status=429, retry_after="86400")
    result = smai("ask", "--base-url", mock.url, "hi")
    assert result.status == 6
    assert result.stderr.endswith("the server asks to wait 86400 s; try again then\n")
    assert len(mock.received) == 1


def test_the_json_summary_contains_the_error_of_a_refused_request(smai: Smai, server: Server) -> None:
    result = smai("ask", "--base-url", server(status=401).url, "--summary", "json", "hi")
    error = json.loads(result.stderr.splitlines()[-1])["error"]
    assert error.pop("message").startswith("the server answered 401 Unauthorized: Incorrect API key provided")
    assert error == {"kind": "access", "http_status": 401, "retryable": False, "request_id": "req-mock"}


USAGE = [
    pytest.param(["ask"], {"SMAI_API_KEY": "sk-1"}, "the prompt is empty; ", id="no prompt"),
    pytest.param(["ask", ""], {"SMAI_API_KEY": "sk-1"}, "the prompt is empty; ", id="empty prompt"),
    pytest.param(["ask", " \n"], {"SMAI_API_KEY": "sk-1"}, "the prompt is empty; ", id="blank prompt"),
    pytest.param(["ask", "--mock", "-n"], {}, "-n keeps stdin from being read", id="no prompt with -n"),
    pytest.param(["ask", "--mock"], {"SMAI_NO_STDIN": "1"}, "SMAI_NO_STDIN keeps stdin", id="no prompt without stdin"),
    pytest.param(
        ["ask", b"caf\xe9"], {}, "operand 1 is not UTF-8: byte 0xe9 at byte offset 3", id="undecodable operand"
    ),
    pytest.param(["ask", "-s", b"\xff", "hi"], {}, "-s/--system is not UTF-8", id="undecodable system"),
    pytest.param(["ask", "--raw", "--jsonl", "hi"], {}, "--raw and --jsonl cannot be combined", id="two modes"),
    pytest.param(["ask", "--mock", "--base-url", "http://x", "hi"], {}, "cannot be combined", id="two servers"),
    pytest.param(["ask", "--mock", "--key-file", "k", "hi"], {}, "cannot be combined", id="a key for the mock"),
    pytest.param(["ask", "-n", "-"], {}, "-n and - cannot be combined", id="-n and -"),
    pytest.param(["ask", "-", "-"], {}, "both read stdin", id="- twice"),
    pytest.param(["ask", "-t", "nan", "hi"], {}, "is not a number from 0 to 2", id="NaN"),
    pytest.param(["ask", "--idle-timeout", "inf", "hi"], {}, "is not a number from 0 to 1000000", id="infinite clock"),
    pytest.param(["ask", "--nope", "hi"], {}, "no such option", id="no such option"),
    pytest.param(["ask", "--modle", "hi"], {}, "no such option: --modle; did you mean --model?\n", id="like an option"),
    pytest.param(["nope"], {}, "no such command: nope; did you mean: smai ask nope?", id="no such command"),
    pytest.param(["aks", "hi"], {}, "no such command: aks; did you mean: smai ask hi?\n", id="mistyped command"),
    pytest.param(
        ["ask", "hi"],
        {},
        'no API key for https://api.smai.ai; run "smai login" or set SMAI_API_KEY; --mock needs no key',
        id="no key",
    ),
    pytest.param(["ask", "hi"], {"SMAI_API_KEY": " "}, "no API key", id="blank key"),
    pytest.param(
        ["ask", "hi"],
        {"SMAI_API_KEY": "sk-A\nB"},
        "contains a character that a key cannot have",
        id="key with a newline",
    ),
    pytest.param(
        ["ask", "hi"], {"SMAI_API_KEY": "sk-Ä"}, "contains a character that a key cannot have", id="key beyond ASCII"
    ),
    pytest.param(
        ["ask", "hi"],
        {"SMAI_API_KEY": '"sk-1"'},
        "SMAI_API_KEY contains quotation marks around the key; remove them",
        id="key in quotation marks",
    ),
    pytest.param(
        ["ask", "--base-url", "localhost:1/v1", "hi"], {}, "did you mean http://localhost:1/v1", id="no scheme"
    ),
    pytest.param(["ask", "--base-url", "ftp://x/v1", "hi"], {}, "does not begin with http:// or https://", id="ftp"),
    pytest.param(["ask", "--base-url", "http://", "hi"], {}, "has no valid host", id="no host"),
    pytest.param(["ask", "--base-url", "http://" + "a" * 64 + "/v1", "hi"], {}, "has no valid host", id="long label"),
    pytest.param(["ask", "--base-url", "http://x:99999/", "hi"], {}, "is not a URL", id="port out of range"),
    pytest.param(["ask", "--base-url", "http://localhost:0/", "hi"], {}, "has no valid port", id="port 0"),
    pytest.param(["ask", "--base-url", "unix:///run/llm.sock", "hi"], {}, "names a Unix socket", id="Unix socket"),
    pytest.param(["ask", "--base-url", "http://a b/", "hi"], {}, "contains a space", id="space in the URL"),
    pytest.param(["ask", "hi"], {"SMAI_BASE_URL": "nonsense"}, "does not begin with http", id="bad SMAI_BASE_URL"),
    pytest.param(["mock", "--tape", "/nonexistent"], {}, "No such file or directory", id="no tape"),
    pytest.param(["mock", "--tape", "/x", "--reply", "y"], {}, "cannot be combined", id="tape and reply"),
    pytest.param(
        ["mock", "--status", "200"], {}, "is not a whole number from 300 to 599", id="status that is no failure"
    ),
]


@pytest.mark.parametrize(("arguments", "env", "words"), USAGE)
def test_bad_input_is_one_line_and_status_2(smai: Smai, arguments: list[Any], env: dict[str, str], words: str) -> None:
    result = smai(*arguments, env=env)
    assert (result.status, result.stdout) == (2, b"")
    assert words in result.stderr
    assert result.stderr.startswith("smai: ")
    assert len(result.stderr.splitlines()) == 1
    assert "; " in result.stderr
    assert "sk-" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["ask", "--summary", "json", "--nope", "hi"], "no such option", id="no such option"),
        pytest.param(["ask", "hi", "--summary=json", "-t", "x"], "is not a number from 0 to 2", id="a bad value"),
        pytest.param(["ask", "--summary", "json", "--raw", "--jsonl", "hi"], "cannot be combined", id="two modes"),
        pytest.param(["ask", "--summary", "json", "-p", "x", "hi"], "no such profile: x", id="no such profile"),
        pytest.param(["decode", "--summary", "json", "--nope"], "no such option", id="decode"),
        pytest.param(["ask", "--summary", "json", "hi"], ": unknown key modle", id="a broken configuration"),
    ],
)
def test_the_json_summary_is_printed_for_status_2_even_if_no_run_began(
    smai: Smai, config: Config, arguments: list[str], words: str
) -> None:
    if "modle" in words:
        config("modle = 1\n")
    result = smai(*arguments)
    message, summary = result.stderr.splitlines()
    assert (result.status, words in message) == (2, True)
    found = json.loads(summary)
    assert (found["exit_status"], found["complete"], found["error"]["kind"]) == (2, False, "usage")
    assert f"smai: {found['error']['message']}" == message


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"caf\xe9 au lait", "stdin is not UTF-8: byte 0xe9 at byte offset 3"),
        (b"a" * 70_000 + b"\xff", "byte offset 70000"),
        ("ok".encode("utf-32"), "stdin is not UTF-8, but UTF-32; convert it with iconv"),
        ("\ufeffok".encode("utf-16-le") + b"\x00", "stdin is not UTF-16-LE at byte offset 6"),
    ],
)
def test_undecodable_stdin_is_status_2_with_the_offset_and_nothing_is_sent(
    smai: Smai, server: Server, data: bytes, words: str
) -> None:
    mock = server()
    result = smai("ask", "--base-url", mock.url, stdin=data)
    assert result.status == 2
    assert words in result.stderr
    assert mock.received == []


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        pytest.param(None, 0o600, "No such file or directory; check --key-file", id="missing"),
        pytest.param(b"", 0o600, "is empty; ", id="empty"),
        pytest.param(b"sk-1\nsk-2\n", 0o600, "contains a character", id="two lines"),
        pytest.param(b"sk-\xc3\xa4\n", 0o600, "contains a character", id="beyond ASCII"),
        pytest.param(b"sk-secret\n", 0o644, "others can read the key file", id="readable by all"),
        pytest.param(b"sk-secret\n", 0o640, "others can read the key file", id="readable by the group"),
    ],
)
def test_a_key_file_that_cannot_be_trusted_is_refused(
    smai: Smai, tmp_path: Path, content: bytes | None, mode: int, words: str
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    result = smai("ask", "--key-file", path, "hi")
    assert result.status == 2
    assert words in result.stderr
    assert "sk-" not in result.stderr
    assert ("chmod 600" in result.stderr) == (mode != 0o600)


def test_a_directory_is_not_a_key_file(smai: Smai, tmp_path: Path) -> None:
    assert "Is a directory" in smai("ask", "--key-file", tmp_path, "hi").stderr


def test_a_ca_bundle_that_cannot_be_read_is_status_2(smai: Smai) -> None:
    env = {"SMAI_API_KEY": "sk-1", "REQUESTS_CA_BUNDLE": "/nonexistent.pem"}
    result = smai("ask", "hi", env=env)
    assert (result.status, result.stderr) == (
        2,
        "smai: the CA bundle /nonexistent.pem cannot be read; check REQUESTS_CA_BUNDLE\n",
    )


def test_a_cron_job_without_home_locale_and_stdin_exits_0_with_utf_8_output(server: Server) -> None:
    shell = f'exec "$0" ask --base-url {server(reply="Grüße").url} hi <&-'
    done = subprocess.run(
        ["env", "-i", "sh", "-c", shell, SMAI],
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "Grüße\n".encode(), b"")
