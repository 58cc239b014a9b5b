"""Readers that leave, disks that are full, descriptors that are closed or shared, odd locales, and signals."""

import fcntl
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import process
import pytest
from rawserver import (
    DONE,
    HEAD,
    HELLO,
    KEY,
    LAST_CHUNK,
    OUT,
    PATIENCE_S,
    PLAIN_ANSWER,
    STOP,
    WORLD,
    Ask,
    RunningProcess,
    Serve,
    Start,
    Step,
    chunk,
    error_body,
    event,
    forever,
    hold,
    http,
    payload,
    until,
)

pytest_plugins = ["rawserver"]

GOOD = tuple(PLAIN_ANSWER)
BUSY = (http("503 Service Unavailable", error_body("busy"), "Retry-After: 0"),)
PATIENT = (http("503 Service Unavailable", error_body("busy"), "Retry-After: 40"),)
UNAUTHORIZED = http("401 Unauthorized", error_body("wrong key"))
HELLO_JSON = payload("Hello ").encode() + b"\n"
LINE = chunk(event("a line\n"))
MODES = {"text": "", "raw": "--raw", "jsonl": "--jsonl", "final": "--final"}
STREAMING = {"text": "", "raw": "--raw", "jsonl": "--jsonl"}


def by_mode(modes: dict[str, str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("flag", modes.values(), ids=modes.keys())


# stdout is closed.


@by_mode(STREAMING)
def test_closing_stdout_ends_the_wait_for_a_silent_model(serve: Serve, sh: Ask, flag: str) -> None:
    server = serve(HEAD, LINE, hold)
    result = sh(server, f"smai ask {flag} hi | head -1; exit ${{PIPESTATUS[0]}}")
    assert result.status == 141
    assert result.stdout.count(b"\n") == 1
    assert result.stderr == ""


@by_mode(STREAMING)
def test_closing_stdout_ends_an_endless_stream(serve: Serve, sh: Ask, flag: str) -> None:
    server = serve(HEAD, forever(LINE))
    result = sh(server, f"smai ask {flag} hi | head -1; exit ${{PIPESTATUS[0]}}")
    assert result.status == 141
    assert result.stdout.count(b"\n") == 1
    assert result.stderr == ""


@by_mode(MODES)
def test_a_stdout_that_was_closed_at_the_start_ends_the_wait_for_the_headers(serve: Serve, sh: Ask, flag: str) -> None:
    result = sh(serve(hold), f"smai ask {flag} hi | true; exit ${{PIPESTATUS[0]}}")
    assert result == (141, b"", "")


def close_stdout(run: RunningProcess) -> None:
    assert run.child.stdout
    run.child.stdout.close()


def test_closing_stdout_after_the_request_ends_the_wait_for_the_headers(serve: Serve, start: Start) -> None:
    server = serve(hold)
    run = start(server)
    server.next_request()
    close_stdout(run)
    assert run.child.wait(PATIENCE_S) == -signal.SIGPIPE


def test_closing_stdout_ends_the_pause_before_a_retry(serve: Serve, start: Start) -> None:
    server = serve(PATIENT, GOOD)
    run = start(server)
    assert "try 2 of 3 in 4" in run.err_line()
    close_stdout(run)
    assert run.child.wait(PATIENCE_S) == -signal.SIGPIPE
    assert len(server.requests) == 1


def test_closing_stdout_ends_the_wait_for_stdin(serve: Serve, start: Start) -> None:
    server = serve(*PLAIN_ANSWER)
    run = start(server, stdin=subprocess.PIPE)
    assert "waiting for the prompt on stdin" in run.err_line()
    close_stdout(run)
    assert run.child.wait(PATIENCE_S) == -signal.SIGPIPE
    assert server.connections == 0


def test_closing_the_stdout_of_decode_ends_the_wait_for_input(start: Start) -> None:
    run = start(None, command=["smai", "decode"], stdin=subprocess.PIPE)
    assert run.child.stdin
    run.child.stdin.write(HELLO)
    run.child.stdin.flush()
    assert run.out(6) == b"Hello "
    close_stdout(run)
    assert run.child.wait(PATIENCE_S) == -signal.SIGPIPE


def test_the_summary_is_printed_even_if_stdout_closes_after_the_last_byte(serve: Serve, sh: Ask) -> None:
    for _ in range(5):
        result = sh(serve(*GOOD), "smai ask --final hi | head -1; exit ${PIPESTATUS[0]}")
        assert (result.status, result.stdout) == (0, b"Hello world\n")
        assert result.stderr.count("\n") == 1


# Stdout cannot be written.


@by_mode(MODES)
def test_a_full_disk_is_status_11(serve: Serve, sh: Ask, flag: str) -> None:
    result = sh(serve(*PLAIN_ANSWER), f"smai ask {flag} hi > /dev/full")
    assert result[:2] == (11, b"")
    assert result.stderr.splitlines()[0].startswith("smai: stdout: No space left on device; ")


def test_a_full_disk_is_noticed_at_the_first_delta(serve: Serve, sh: Ask) -> None:
    assert sh(serve(HEAD, LINE, hold), "smai ask hi > /dev/full").status == 11


@by_mode(MODES)
def test_a_closed_stdout_is_status_11_and_nothing_is_sent(serve: Serve, sh: Ask, flag: str) -> None:
    server = serve(*PLAIN_ANSWER)
    result = sh(server, f"smai ask {flag} hi >&-")
    assert result[:2] == (11, b"")
    assert result.stderr.startswith("smai: stdout: Bad file descriptor; ")
    assert server.connections == 0


def test_a_stdout_that_is_open_for_reading_only_is_status_11(serve: Serve, sh: Ask) -> None:
    result = sh(serve(*PLAIN_ANSWER), "smai ask hi 1< /dev/null")
    assert result[:2] == (11, b"")
    assert "stdout: Bad file descriptor" in result.stderr


def test_a_file_size_limit_is_status_11(serve: Serve, sh: Ask, tmp_path: Path) -> None:
    server = serve(HEAD, chunk(event("x" * 4000)), chunk(STOP + DONE), LAST_CHUNK)
    result = sh(server, f"ulimit -f 1; trap '' XFSZ; smai ask hi > {tmp_path}/out")
    assert result.status == 11
    assert "stdout: File too large" in result.stderr


def test_a_closed_stdin_is_not_read(serve: Serve, sh: Ask) -> None:
    server = serve(*PLAIN_ANSWER)
    assert sh(server, "smai ask hi <&-") == (0, OUT, "")
    assert server.requests[0].prompt == "hi"


def test_with_all_standard_descriptors_closed_nothing_is_sent(serve: Serve, sh: Ask) -> None:
    server = serve(*PLAIN_ANSWER)
    assert sh(server, "smai ask hi <&- >&- 2>&-") == (11, b"", "")
    assert server.connections == 0


# Stderr cannot be written.

DEAF = pytest.mark.parametrize("stderr", ["2>/dev/full", "2>&-", "2>/dev/null"])


@DEAF
@pytest.mark.parametrize(
    ("steps", "status", "out"),
    [
        pytest.param([UNAUTHORIZED], 5, b"", id="401"),
        pytest.param([HEAD, chunk(HELLO)], 8, b"Hello \n", id="cut"),
        pytest.param([*PLAIN_ANSWER], 0, OUT, id="good"),
    ],
)
def test_a_stderr_that_cannot_be_written_changes_no_status(
    serve: Serve, sh: Ask, stderr: str, steps: list[Step], status: int, out: bytes
) -> None:
    assert sh(serve(*steps), f"smai ask hi {stderr}") == (status, out, "")


@DEAF
def test_a_stderr_that_cannot_be_written_stops_no_retry(serve: Serve, sh: Ask, stderr: str) -> None:
    server = serve(BUSY, GOOD)
    assert sh(server, f"smai ask hi {stderr}") == (0, OUT, "")
    assert len(server.requests) == 2


@DEAF
def test_a_stderr_that_cannot_be_written_does_not_lose_the_answer_of_final(serve: Serve, sh: Ask, stderr: str) -> None:
    assert sh(serve(*PLAIN_ANSWER), f"smai ask --final hi {stderr}") == (0, OUT, "")


@DEAF
def test_a_usage_error_keeps_its_status_without_stderr(sh: Ask, stderr: str) -> None:
    assert sh(None, f"smai ask --no-such-option {stderr}") == (2, b"", "")


def test_a_closed_stderr_pipe_changes_nothing(serve: Serve, sh: Ask) -> None:
    server = serve(BUSY, GOOD)
    result = sh(server, "{ smai ask hi 2>&1 >&3 | true; exit ${PIPESTATUS[0]}; } 3>&1")
    assert result == (0, OUT, "")


# A stdout that does not block.


@pytest.mark.parametrize("flag", MODES.values(), ids=MODES.keys())
def test_a_slow_reader_of_a_non_blocking_pipe_gets_every_byte(serve: Serve, start: Start, flag: str) -> None:
    text = "0123456789abcde\n" * 6250
    body = event(text) * 4 + STOP + DONE
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb", buffering=0) as reader:
        with os.fdopen(write_end, "wb", buffering=0) as writer:
            os.set_blocking(write_end, False)
            fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)
            flags = ["--summary", "none", *filter(None, [flag])]
            run = start(serve(HEAD, chunk(body), LAST_CHUNK), *flags, stdout=writer)
        read = bytearray()
        while piece := reader.read(1024):
            read += piece
    assert run.end() == (0, b"", "")
    lines = [line.removeprefix(b"data: ") for line in body.splitlines() if line.startswith(b"data: {")]
    expected = {"--raw": body, "--jsonl": b"".join(line + b"\n" for line in lines)}
    assert read == expected.get(flag, 4 * text.encode())


def test_a_full_non_blocking_stderr_does_not_delay_the_exit(serve: Serve, start: Start) -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb", buffering=0), os.fdopen(write_end, "wb", buffering=0) as writer:
        os.set_blocking(write_end, False)
        while writer.write(bytes(4096)):  # None when the pipe is full
            pass
        run = start(serve(UNAUTHORIZED), stderr=writer)
        assert run.child.wait(PATIENCE_S) == 5


# Locales.

EMOJI = event("\U0001f600 \u00e9\n")


@pytest.mark.parametrize(
    "env",
    [
        pytest.param({"PYTHONIOENCODING": "latin-1"}, id="PYTHONIOENCODING"),
        pytest.param({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, id="LC_ALL-C"),
        pytest.param({"LC_ALL": "xx_XX.ISO-8859-1"}, id="unknown-locale"),
    ],
)
@pytest.mark.parametrize("flag", ["", "--final"], ids=["text", "final"])
def test_the_answer_is_utf_8_under_every_locale(serve: Serve, ask: Ask, env: dict[str, str], flag: str) -> None:
    server = serve(HEAD, chunk(EMOJI), chunk(STOP + DONE), LAST_CHUNK)
    flags = ["--summary", "none", *filter(None, [flag])]
    assert ask(server, *flags, env=env, stdin="\U0001f600".encode()) == (0, "\U0001f600 \u00e9\n".encode(), "")
    assert server.requests[0].prompt == "hi\n\n\U0001f600"


def test_a_message_is_utf_8_under_every_locale(serve: Serve, start: Start) -> None:
    server = serve(http("400 Bad Request", error_body("caf\u00e9 \U0001f600")))
    run = start(server, env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})
    assert "caf\u00e9 \U0001f600" in run.err_line()


# Signals.


@pytest.fixture(autouse=True)
def signals_at_their_defaults() -> Iterator[None]:
    """A shell that runs the tests in its background ignores SIGINT for them; a handler here is none in a child."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda signum: signum.name)
@by_mode(STREAMING)
def test_a_signal_in_the_stream_kills_smai_and_keeps_the_first_delta(
    serve: Serve, start: Start, flag: str, signum: signal.Signals
) -> None:
    first = {"": b"Hello ", "--raw": HELLO, "--jsonl": HELLO_JSON}[flag]
    run = start(serve(HEAD, chunk(HELLO), hold), *filter(None, [flag]))
    assert run.out(len(first)) == first
    run.child.send_signal(signum)
    status, _, err = run.end()
    assert (status, err) == (-signum, "")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM], ids=lambda signum: signum.name)
@by_mode(MODES)
def test_a_signal_before_the_headers_kills_smai_without_a_message(
    serve: Serve, start: Start, flag: str, signum: signal.Signals
) -> None:
    server = serve(hold)
    run = start(server, *filter(None, [flag]))
    server.next_request()
    run.child.send_signal(signum)
    assert run.end() == (-signum, b"", "")


def test_ctrl_c_in_the_pause_before_a_retry_kills_smai(serve: Serve, start: Start) -> None:
    server = serve(PATIENT, GOOD)
    run = start(server)
    run.err_line()
    run.child.send_signal(signal.SIGINT)
    assert run.end() == (-signal.SIGINT, b"", "")
    assert len(server.requests) == 1


def test_ctrl_c_during_the_wait_for_stdin_kills_smai(start: Start) -> None:
    run = start(None, "--mock", stdin=subprocess.PIPE)
    assert "waiting for the prompt on stdin" in run.err_line()
    run.child.send_signal(signal.SIGINT)
    assert run.end() == (-signal.SIGINT, b"", "")


def test_ctrl_c_while_a_name_is_resolved_kills_smai(start: Start, dead_resolver: dict[str, str]) -> None:
    run = start(None, "--base-url", "http://example.invalid/v1", env=dead_resolver)
    assert run.err_line() == "smai: resolving\n"
    run.child.send_signal(signal.SIGINT)
    assert run.end() == (-signal.SIGINT, b"", "")


def test_ctrl_c_stops_the_loop_of_a_shell(serve: Serve, start: Start) -> None:
    server = serve(HEAD, chunk(HELLO), hold)
    run = start(server, command=["bash", "-c", 'for i in 1 2 3; do smai ask "$i"; done'])
    assert run.out(6) == b"Hello "
    os.killpg(run.child.pid, signal.SIGINT)
    assert run.end() == (-signal.SIGINT, b"", "")
    assert len(server.requests) == 1


@pytest.mark.parametrize("ignored", ["nohup", "trap '' INT;", "trap '' HUP; exec"])
def test_a_signal_that_the_caller_ignores_does_not_end_the_answer(serve: Serve, start: Start, ignored: str) -> None:
    first_delta_read = threading.Event()
    server = serve(HEAD, chunk(HELLO), until(first_delta_read), chunk(WORLD + STOP + DONE), LAST_CHUNK)
    line = f"{ignored} smai ask hi"
    run = start(server, command=["bash", "-c", line])
    assert run.out(6) == b"Hello "
    os.killpg(run.child.pid, signal.SIGINT if "INT" in ignored else signal.SIGHUP)
    first_delta_read.set()
    status, out, _ = run.end()
    assert (status, out) == (0, b"world\n")


def test_a_stopped_process_continues_after_sigcont(serve: Serve, start: Start) -> None:
    first_delta_read = threading.Event()
    server = serve(HEAD, chunk(HELLO), until(first_delta_read), chunk(WORLD + STOP + DONE), LAST_CHUNK)
    run = start(server, "--idle-timeout", "1")
    assert run.out(6) == b"Hello "
    run.child.send_signal(signal.SIGSTOP)
    with pytest.raises(subprocess.TimeoutExpired):  # longer than its clock and the limit for a suspension
        run.child.wait(2.5)
    first_delta_read.set()
    run.child.send_signal(signal.SIGCONT)
    assert run.end() == (0, b"world\n", "")


def test_the_arguments_visible_in_ps_contain_no_key(serve: Serve, start: Start) -> None:
    server = serve(hold)
    run = start(server)
    server.next_request()
    assert KEY.encode() not in Path(f"/proc/{run.child.pid}/cmdline").read_bytes()


def test_python_m_smai_cli_is_the_same_program(serve: Serve, start: Start) -> None:
    python = str(Path(process.SMAI).with_name("python"))
    run = start(serve(*PLAIN_ANSWER), command=[python, "-m", "smai_cli", "ask", "hi"])
    assert run.end() == (0, OUT, "")
