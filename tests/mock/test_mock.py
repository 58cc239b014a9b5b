"""`smai mock`: the mock server as a process."""

import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from conftest import Smai, StartMock
from process import SMAI
from tapes import BY_NAME

from smai_cli.mock.script import POEM

pytestmark = pytest.mark.preloaded


def test_the_first_line_is_a_base_url_on_loopback_that_answers(start_mock: StartMock, smai: Smai) -> None:
    _, url = start_mock()
    assert url.startswith("http://127.0.0.1:")
    assert url.endswith("/v1")
    assert smai("ask", "--base-url", url, "hi").stdout == POEM.encode()


def test_max_requests_ends_the_mock_with_status_0(start_mock: StartMock, smai: Smai) -> None:
    process, url = start_mock("--max-requests", "2", "--reply", "ok")
    assert smai("ask", "--base-url", url, "hi").stdout == b"ok\n"
    assert process.poll() is None
    assert smai("ask", "--base-url", url, "hi").stdout == b"ok\n"
    assert process.wait(10) == 0


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_mock(start_mock: StartMock, signum: int) -> None:
    process, _ = start_mock()
    process.send_signal(signum)
    assert process.wait(10) == -signum


def test_a_chosen_port_is_used_and_a_taken_one_is_status_2(start_mock: StartMock, smai: Smai) -> None:
    _, url = start_mock()
    port = url.removesuffix("/v1").rsplit(":", 1)[1]
    result = smai("mock", "--port", port)
    assert (result.status, result.stdout) == (2, b"")
    assert result.stderr == f"smai: port {port}: Address already in use; choose another --port\n"


def test_a_tape_is_replayed_byte_for_byte(start_mock: StartMock, smai: Smai, tmp_path: Path) -> None:
    tape = tmp_path / "tape.sse"
    for name in ("good", "crlf", "comments-and-fields", "pretty-printed"):
        tape.write_bytes(BY_NAME[name].bytes)
        _, url = start_mock("--tape", str(tape))
        assert smai("ask", "--raw", "--base-url", url, "hi").stdout == BY_NAME[name].bytes


@pytest.mark.parametrize(
    ("arguments", "status", "stdout"),
    [
        (["--status", "429", "--retry-after", "86400"], 6, b""),
        (["--status", "401"], 5, b""),
        (["--fail-first", "1", "--retry-after", "0"], 0, b"a b c\n"),
        (["--cut-after", "2"], 8, b"a b\n"),
        (["--cut-after", "3"], 8, b"a b c\n"),
        (["--error-after", "1"], 8, b"a\n"),
        (["--stall-after", "3"], 7, b"a b c\n"),
        (["--no-done"], 0, b"a b c\n"),
        (["--no-done", "--finish-reason", "none"], 8, b"a b c\n"),
        (["--finish-reason", "length"], 9, b"a b c\n"),
        (["--require-key", "sk-other"], 5, b""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_option_of_the_mock_produces_each_fault(
    start_mock: StartMock, smai: Smai, arguments: list[str], status: int, stdout: bytes
) -> None:
    _, url = start_mock("--reply", "a b c", *arguments)
    result = smai("ask", "--base-url", url, "--idle-timeout", "1", "hi")
    assert (result.status, result.stdout) == (status, stdout)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/chat/completions", b"{", 400),
        ("/chat/completions", b'{"model": 1}', 400),
        ("/responses", b'{"model": "m", "input": "hi", "instructions": 5}', 400),
        ("/elsewhere", b"{}", 404),
    ],
)
def test_a_malformed_request_is_refused(start_mock: StartMock, path: str, body: bytes, status: int) -> None:
    _, url = start_mock()
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url + path, body)
    assert refused.value.code == status
    refused.value.close()


@pytest.mark.nightly
def test_a_hundred_processes_at_once_are_all_answered(start_mock: StartMock, environment: dict[str, str]) -> None:
    _, url = start_mock("--tape", str(Path(__file__).parents[1] / "streams" / "good.sse"))
    asking = [
        subprocess.Popen([SMAI, "ask", "--base-url", url, "-n", "hi"], stdout=subprocess.PIPE, env=environment)
        for _ in range(100)
    ]
    results = [(process.communicate()[0], process.returncode) for process in asking]
    assert results == [(b"Hello world\n", 0)] * 100


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "OPTIONS"])
def test_other_http_methods_are_refused_and_the_mock_continues(start_mock: StartMock, smai: Smai, method: str) -> None:
    process, url = start_mock()
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(f"{url}/models", method=method))
    refused.value.close()
    assert refused.value.code == 501
    assert smai("models", "--base-url", url).status == 0
    assert process.poll() is None


def test_the_faults_of_an_answer_apply_to_the_list_of_models(start_mock: StartMock, smai: Smai) -> None:
    _, url = start_mock("--status", "503", "--retry-after", "0", "--fail-first", "1", "--require-key", "sk-rehearsal")
    assert smai("models", "--base-url", url).status == 5
    _, url = start_mock("--status", "503", "--retry-after", "0", "--fail-first", "1")
    result = smai("models", "--base-url", url)
    assert result.status == 0
    assert "try 2 of 3 in 0.0 s" in result.stderr
