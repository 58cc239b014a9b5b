"""smai as the first process of a container, to which the kernel delivers only signals with a handler."""

import functools
import json
import os
import pty
import signal
import subprocess
import termios
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from process import SMAI
from rawserver import (
    HEAD,
    HELLO,
    LAST_CHUNK,
    OUT,
    PATIENCE_S,
    PLAIN_ANSWER,
    STOP,
    WORLD,
    RunningProcess,
    Serve,
    Start,
    chunk,
    error_body,
    event,
    forever,
    hold,
    http,
    until,
)

pytest_plugins = ["rawserver"]
pytestmark = pytest.mark.thorough

PATIENT = (http("503 Service Unavailable", error_body("busy"), "Retry-After: 40"),)
LINE = event("a line\n")
ENDING = [
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGALRM,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
]
stops = pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM], ids=lambda signum: signum.name)
Contain = Callable[..., RunningProcess]


@functools.cache
def container() -> list[str]:
    """Return the command prefix that starts process 1 of a PID namespace; empty if that is not permitted."""
    for more in ([], ["--user", "--map-root-user"]):
        words = ["unshare", *more, "--pid", "--fork", "--kill-child"]
        try:
            if subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0:
                return words
        except OSError:
            break
    return []


def first_process(outer: int) -> int:
    """Return the id that process 1 of the container of `outer` has outside of it."""
    (child,) = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
    return int(child)


def send(run: RunningProcess, signum: signal.Signals) -> None:
    """Send a signal to process 1 as an orchestrator does, from outside."""
    os.kill(first_process(run.child.pid), signum)


@pytest.fixture(autouse=True)
def _needs_a_container() -> None:
    if not container():
        pytest.skip("no PID namespaces")


@pytest.fixture
def contain(start: Start) -> Contain:
    """`contain(server, "ask", "hi")` starts `smai ask hi` as process 1, whose end is an exit status, not a signal."""

    def begin(*server_and_words: object, **more: object) -> RunningProcess:
        server, *words = server_and_words
        return start(server, command=[*container(), SMAI, *words], **more)

    return begin


@pytest.mark.parametrize("signum", ENDING, ids=lambda signum: signum.name)
def test_a_signal_ends_process_1_while_the_model_is_silent_after_the_deltas(
    serve: Serve, contain: Contain, signum: signal.Signals
) -> None:
    run = contain(serve(HEAD, chunk(HELLO), hold), "ask", "hi")
    assert run.out(6) == b"Hello "
    send(run, signum)
    assert run.end() == (128 + signum, b"", "")


@pytest.mark.parametrize("signum", ENDING, ids=lambda signum: signum.name)
def test_process_1_writes_its_line_to_the_run_log_when_a_signal_ends_it(
    serve: Serve, contain: Contain, tmp_path: Path, signum: signal.Signals
) -> None:
    log = tmp_path / "log.jsonl"
    run = contain(serve(HEAD, chunk(HELLO), hold), "ask", "hi", env={"SMAI_LOG": str(log)})
    assert run.out(6) == b"Hello "
    send(run, signum)
    assert run.end() == (128 + signum, b"", "")
    assert [json.loads(line)["exit_status"] for line in log.read_text().splitlines()] == [128 + signum]


@stops
def test_a_signal_ends_process_1_before_the_response_headers(
    serve: Serve, contain: Contain, signum: signal.Signals
) -> None:
    server = serve(hold)
    run = contain(server, "ask", "hi")
    server.next_request()
    send(run, signum)
    assert run.end() == (128 + signum, b"", "")


@stops
def test_a_signal_ends_process_1_during_the_stream_after_a_complete_delta(
    serve: Serve, contain: Contain, signum: signal.Signals
) -> None:
    run = contain(serve(HEAD, forever(chunk(LINE))), "ask", "hi")
    out = run.out(700)
    send(run, signum)
    status, rest, err = run.end()
    assert (status, err) == (128 + signum, "")
    assert out + rest == b"a line\n" * ((len(out) + len(rest)) // 7)


@stops
def test_a_signal_ends_process_1_while_stdout_is_blocked(
    serve: Serve, contain: Contain, signum: signal.Signals
) -> None:
    server = serve(HEAD, chunk(event("x" * (1 << 20))), hold)
    run = contain(server, "ask", "hi")
    assert run.out(1) == b"x"
    send(run, signum)
    assert run.child.wait(PATIENCE_S) == 128 + signum


@stops
def test_a_signal_ends_process_1_while_a_name_is_resolved(
    contain: Contain, dead_resolver: dict[str, str], signum: signal.Signals
) -> None:
    run = contain(None, "ask", "--base-url", "http://example.invalid/v1", "hi", env=dead_resolver)
    assert run.err_line() == "smai: resolving\n"
    send(run, signum)
    assert run.end() == (128 + signum, b"", "")


@stops
def test_a_signal_ends_process_1_in_the_pause_before_a_retry(
    serve: Serve, contain: Contain, signum: signal.Signals
) -> None:
    server = serve(PATIENT, tuple(PLAIN_ANSWER))
    run = contain(server, "ask", "hi")
    assert "try 2 of 3 in 4" in run.err_line()
    send(run, signum)
    assert run.end() == (128 + signum, b"", "")
    assert len(server.requests) == 1


@stops
def test_a_signal_ends_process_1_while_it_waits_for_stdin(contain: Contain, signum: signal.Signals) -> None:
    run = contain(None, "ask", "--mock", stdin=subprocess.PIPE)
    assert "waiting for the prompt on stdin" in run.err_line()
    send(run, signum)
    assert run.child.wait(PATIENCE_S) == 128 + signum


@stops
def test_a_signal_ends_process_1_that_decodes(contain: Contain, signum: signal.Signals) -> None:
    run = contain(None, "decode", stdin=subprocess.PIPE)
    assert run.child.stdin
    run.child.stdin.write(HELLO)
    run.child.stdin.flush()
    assert run.out(6) == b"Hello "
    send(run, signum)
    assert run.child.wait(PATIENCE_S) == 128 + signum


@stops
@pytest.mark.parametrize("command", ["models", "doctor"])
def test_a_signal_ends_process_1_whose_server_does_not_answer(
    serve: Serve, contain: Contain, command: str, signum: signal.Signals
) -> None:
    server = serve(hold)
    run = contain(server, command)
    server.next_request()
    send(run, signum)
    assert run.end().status == 128 + signum


@stops
def test_a_signal_ends_a_mock_that_is_process_1(contain: Contain, signum: signal.Signals) -> None:
    run = contain(None, "mock")
    assert run.out(7) == b"http://"
    send(run, signum)
    assert run.end().status == 128 + signum


@stops
def test_a_signal_ends_process_1_that_waits_for_its_key_command_and_that_command(
    contain: Contain, environment: dict[str, str], signum: signal.Signals
) -> None:
    config = Path(environment["HOME"]) / ".config" / "smai" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("key_command = ['sh', '-c', 'echo smai: asked >&2; sleep 45']\n")
    run = contain(None, "ask", "hi")
    assert run.err_line() == "smai: asked\n"
    send(run, signum)
    assert run.end() == (128 + signum, b"", "")  # its pipes are closed: the kernel has ended the command as well


def test_a_key_command_of_process_1_that_dies_by_a_signal_is_reported(
    contain: Contain, environment: dict[str, str]
) -> None:
    config = Path(environment["HOME"]) / ".config" / "smai" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("key_command = ['sh', '-c', 'kill -TERM $$']\n")
    status, _, err = contain(None, "ask", "hi").end()
    assert (status, "died by signal 15" in err) == (2, True)


@stops
def test_a_signal_restores_the_echo_before_it_ends_a_login_that_is_process_1(
    environment: dict[str, str], signum: signal.Signals
) -> None:
    pid, master = pty.fork()
    if pid == 0:
        command = [*container(), SMAI, "login", "--no-check"]
        os.execvpe(command[0], command, environment)
    shown = b""
    while b"Key for" not in shown:
        shown += os.read(master, 1024)
    assert not termios.tcgetattr(master)[3] & termios.ECHO
    os.kill(first_process(pid), signum)
    _, status = os.waitpid(pid, 0)
    echoes = bool(termios.tcgetattr(master)[3] & termios.ECHO)
    os.close(master)
    assert (os.waitstatus_to_exitcode(status), echoes) == (128 + signum, True)


def test_a_signal_that_the_caller_ignores_does_not_end_process_1(serve: Serve, start: Start) -> None:
    first_delta_read = threading.Event()
    server = serve(HEAD, chunk(HELLO), until(first_delta_read), chunk(WORLD + STOP), LAST_CHUNK)
    run = start(server, command=["sh", "-c", f"trap '' HUP; exec {' '.join(container())} {SMAI} ask hi"])
    assert run.out(6) == b"Hello "
    send(run, signal.SIGHUP)
    first_delta_read.set()
    assert run.end() == (0, b"world\n", "")


@pytest.mark.parametrize("more", [hold, forever(chunk(LINE))], ids=["silence", "stream"])
def test_a_closed_stdout_ends_process_1_with_status_141(serve: Serve, contain: Contain, more: object) -> None:
    run = contain(serve(HEAD, chunk(LINE), more), "ask", "hi")
    assert run.out(7) == b"a line\n"
    assert run.child.stdout
    run.child.stdout.close()
    assert run.child.wait(PATIENCE_S) == 128 + signal.SIGPIPE


def test_process_1_prints_a_complete_answer_and_exits_0(serve: Serve, contain: Contain) -> None:
    assert contain(serve(*PLAIN_ANSWER), "ask", "hi").end() == (0, OUT, "")
