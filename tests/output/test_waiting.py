"""The status line while smai waits for an answer: shown, and then erased."""

import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from process import SMAI
from rawserver import (
    DONE,
    HEAD,
    HELLO,
    LAST_CHUNK,
    OUT,
    PLAIN_ANSWER,
    STOP,
    WORLD,
    Serve,
    Start,
    chunk,
    data,
    hold,
    http,
    pause,
    payload,
    reach,
    reset,
    until,
)
from terminal import PATIENCE_S, Terminal, terminal

from smai_cli.output.waiting import WaitingLine

pytestmark = pytest.mark.thorough

pytest_plugins = ["rawserver"]

REST = (*map(chunk, (WORLD, STOP, DONE)), LAST_CHUNK)
SUMMARY = re.compile(r"smai: 12 characters; .*; stop")
# Longer than it takes the line to appear.
SLOW = pause(1.6)
XTERM = {"TERM": "xterm"}


@pytest.fixture
def tty() -> Iterator[Terminal]:
    with terminal() as made:
        yield made


def test_a_slow_first_delta_erases_the_status_line(serve: Serve, start: Start, tty: Terminal) -> None:
    begin = threading.Event()
    server = serve(HEAD, until(begin), chunk(HELLO), SLOW, *REST)
    run = start(server, "-n", stderr=tty.slave, env=XTERM)
    at = tty.read_until(b" s, waiting for the first delta\r")
    tty.read_until(b" s, waiting for the first delta\r", at)  # another second is over
    begin.set()
    assert run.out(6) == b"Hello "
    assert tty.read_rest() == ""
    seen = tty.seen
    assert run.end()[:2] == (0, b"world\n")
    tty.read_rest()
    assert tty.seen == seen


def test_with_final_the_status_line_counts_until_the_end_and_only_the_summary_remains(
    serve: Serve, start: Start, tty: Terminal
) -> None:
    go_on = threading.Event()
    server = serve(HEAD, chunk(HELLO), until(go_on), *REST)
    run = start(server, "-n", "--final", stderr=tty.slave, env=XTERM)
    tty.read_until(b" s, 1 delta, ")
    tty.read_until(b"1 delta, 0/s")
    go_on.set()
    assert run.end()[:2] == (0, OUT)
    assert SUMMARY.fullmatch(tty.read_rest())


def test_the_status_line_is_shown_while_waiting_for_an_unstreamed_answer(
    serve: Serve, start: Start, tty: Terminal
) -> None:
    go_on = threading.Event()
    body = b'{"choices":[{"message":{"content":"Hello"},"finish_reason":"stop"}]}'
    server = serve(until(go_on), http("200 OK", body, "Content-Type: application/json"))
    run = start(server, "-n", "--no-stream", stderr=tty.slave, env=XTERM)
    tty.read_until(b" s, waiting for the answer\r")
    go_on.set()
    assert run.end()[:2] == (0, b"Hello\n")
    assert tty.read_rest() == ""


@pytest.mark.parametrize("flags", [[], ["--final", "--summary", "none"], ["--raw"], ["--jsonl"]], ids=lambda f: f[:1])
def test_only_the_answer_remains_if_stdout_is_the_same_terminal(
    serve: Serve, start: Start, tty: Terminal, flags: list[str]
) -> None:
    go_on = threading.Event()
    server = serve(HEAD, until(go_on), *PLAIN_ANSWER[1:])
    run = start(server, "-n", *flags, stdout=tty.slave, stderr=tty.slave, env=XTERM)
    tty.read_until(b"waiting for the first delta")
    go_on.set()
    assert run.end().status == 0
    left = tty.read_rest()
    assert "waiting" not in left
    assert "world" in left
    assert flags in (["--raw"], ["--jsonl"]) or left == "Hello world"


@pytest.mark.parametrize(
    "env",
    [
        pytest.param({"TERM": "dumb"}, id="dumb"),
        pytest.param({"TERM": ""}, id="empty", marks=pytest.mark.nightly),
        pytest.param({}, id="unset", marks=pytest.mark.nightly),
        pytest.param({"TERM": "xterm", "NO_COLOR": "1"}, id="NO_COLOR"),
    ],
)
def test_a_terminal_that_cannot_or_should_not_draw_shows_nothing(
    serve: Serve, start: Start, tty: Terminal, env: dict[str, str]
) -> None:
    run = start(serve(HEAD, SLOW, *PLAIN_ANSWER[1:]), "-n", "--final", stderr=tty.slave, env=env)
    assert run.end()[:2] == (0, OUT)
    tty.read_rest()
    assert re.fullmatch(rf"{SUMMARY.pattern}\r\n", tty.seen.decode())


def test_a_pipe_on_stderr_gets_no_drawing_although_stdout_is_a_terminal(
    serve: Serve, start: Start, tty: Terminal
) -> None:
    line = f"{shlex.quote(SMAI)} ask -n hi --final 2>&1 | cat"
    run = start(serve(HEAD, SLOW, *PLAIN_ANSWER[1:]), command=["sh", "-c", line], stdout=tty.slave, env=XTERM)
    assert run.end().status == 0
    tty.read_rest()
    assert re.fullmatch(rf"Hello world\r\n{SUMMARY.pattern}\r\n", tty.seen.decode())


@pytest.mark.parametrize("columns", [2, 20, 41])
def test_the_status_line_is_never_wider_than_the_terminal(serve: Serve, start: Start, columns: int) -> None:
    go_on = threading.Event()
    server = serve(HEAD, until(go_on), *PLAIN_ANSWER[1:])
    with terminal(columns) as tty:
        run = start(server, "-n", stderr=tty.slave, env=XTERM)
        tty.read_until(b"s\r" if columns == 2 else b"\r\x1b[Ksmai: ")
        go_on.set()
        assert run.end().status == 0
        assert tty.read_rest() == ""
        lines = re.split(r"[\r\n]+|\x1b\[K", tty.seen.decode())
        assert max(map(len, lines)) == min(columns - 1, len("smai: 1 s, waiting for the first delta"))


def test_a_terminal_that_becomes_narrower_gets_a_shorter_line(serve: Serve, start: Start, tty: Terminal) -> None:
    go_on = threading.Event()
    server = serve(HEAD, until(go_on), *PLAIN_ANSWER[1:])
    run = start(server, "-n", stderr=tty.slave, env=XTERM)
    at = tty.read_until(b"waiting for the first delta\r")
    tty.resize(20)
    # The terminal may have wrapped the line, so what is below its beginning is erased with it.
    at = tty.read_until(b"\x1b[J\rsmai: ", at)
    tty.read_until(b" s, wait", at)
    tty.resize(80)
    tty.read_until(b"waiting for the first delta", at)
    go_on.set()
    assert run.end().status == 0
    assert tty.read_rest() == ""


def test_a_failure_message_is_printed_on_its_own_line(serve: Serve, start: Start, tty: Terminal) -> None:
    cut = threading.Event()
    server = serve(HEAD, chunk(HELLO), until(cut), reset)
    run = start(server, "-n", "--final", "--retries", "0", stderr=tty.slave, env=XTERM)
    tty.read_until(b"1 delta")
    cut.set()
    assert run.end()[:2] == (8, b"")
    assert re.fullmatch(r"smai: the connection broke before the answer was complete: .*", tty.read_rest())


def test_a_retry_message_is_printed_on_its_own_line_and_the_status_line_continues(
    serve: Serve, start: Start, tty: Terminal
) -> None:
    cut, go_on = threading.Event(), threading.Event()
    first = (HEAD, chunk(HELLO), until(cut), chunk(data(payload(error={"message": "no"}))), LAST_CHUNK)
    server = serve(first, (HEAD, until(go_on), *PLAIN_ANSWER[1:]))
    run = start(server, "-n", "--final", "--summary", "none", stderr=tty.slave, env=XTERM)
    tty.read_until(b"1 delta")
    cut.set()
    at = tty.read_until(b"try 2 of 3 in ")
    tty.read_until(b"waiting for the first delta", at)
    go_on.set()
    assert run.end()[:2] == (0, OUT)
    assert re.fullmatch(r"smai: the server reported an error in the stream: .*; try 2 of 3 in \S+ s", tty.read_rest())


def reasoning(text: str) -> bytes:
    return chunk(b'data: {"choices":[{"delta":{"reasoning":"%s"}}]}\n\n' % text.encode())


def test_the_status_line_does_not_overwrite_reasoning(serve: Serve, start: Start, tty: Terminal) -> None:
    go_on, end = threading.Event(), threading.Event()
    server = serve(HEAD, reasoning("Let me "), SLOW, reasoning("think"), until(go_on), chunk(HELLO), until(end), *REST)
    run = start(server, "-n", "--final", "--reasoning", stderr=tty.slave, env=XTERM)
    at = tty.read_until(b"think")
    go_on.set()
    tty.read_until(b"1 delta", at)
    assert b"smai" not in tty.seen[:at]
    end.set()
    assert run.end()[:2] == (0, OUT)
    left = tty.read_rest().splitlines()
    assert left[0] == "Let me think"
    assert SUMMARY.fullmatch(left[1])
    assert len(left) == 2


def test_the_status_line_shows_the_progress_of_hidden_reasoning(serve: Serve, start: Start, tty: Terminal) -> None:
    go_on = threading.Event()
    server = serve(HEAD, reasoning("Let me "), reasoning("think"), until(go_on), *PLAIN_ANSWER[1:])
    run = start(server, "-n", stderr=tty.slave, env=XTERM)
    tty.read_until(b" s, thinking, 2 deltas")
    go_on.set()
    assert run.end()[:2] == (0, OUT)
    assert tty.read_rest() == ""


def test_ctrl_c_leaves_a_visible_cursor_at_the_beginning_of_a_line(serve: Serve, start: Start, tty: Terminal) -> None:
    run = start(serve(HEAD, hold), "-n", stderr=tty.slave, env=XTERM)
    tty.read_until(b"waiting for the first delta\r")
    run.child.send_signal(signal.SIGINT)
    assert run.end().status == -signal.SIGINT
    tty.read_rest()
    assert b"\x1b[?" not in tty.seen
    assert tty.seen.endswith(b"\r")


def test_the_status_line_is_erased_when_the_reader_of_stdout_leaves(serve: Serve, start: Start, tty: Terminal) -> None:
    run = start(serve(HEAD, hold), "-n", stderr=tty.slave, env=XTERM)
    tty.read_until(b"waiting for the first delta\r")
    assert run.child.stdout
    run.child.stdout.close()
    assert run.child.wait(PATIENCE_S) == -signal.SIGPIPE
    assert tty.read_rest() == ""


def test_the_status_line_is_erased_at_the_deadline(serve: Serve, start: Start, tty: Terminal) -> None:
    run = start(serve(HEAD, hold), "-n", "--max-time", "2", stderr=tty.slave, env=XTERM)
    assert run.end().status == 7
    left = tty.read_rest()
    assert left.startswith("smai: timed out: the run took 2 s in all; ")
    assert "\n" not in left


def test_no_status_line_is_drawn_while_stdin_is_read(serve: Serve, start: Start, tty: Terminal) -> None:
    run = start(serve(*PLAIN_ANSWER), stdin=subprocess.PIPE, stderr=tty.slave, env=XTERM)
    tty.read_until(b"nothing has arrived for 3 s")
    assert tty.drawn() == []
    assert run.child.stdin
    run.child.stdin.close()
    run.child.stdin = None
    assert run.end()[:2] == (0, OUT)


def test_a_terminal_that_is_read_gets_a_notice_how_to_end_the_prompt(serve: Serve, start: Start, tty: Terminal) -> None:
    server = serve(*PLAIN_ANSWER)
    run = start(server, "-", stdin=tty.slave, stderr=tty.slave, env=XTERM)
    tty.read_until(b"smai: waiting for the prompt on stdin; nothing has arrived for 3 s; end the text with Ctrl-D\r\n")
    os.write(tty.master, b"hi\n\x04")
    assert run.end()[:2] == (0, OUT)


def test_an_operand_for_stdin_gets_a_notice_without_the_option_that_excludes_it(
    serve: Serve, start: Start, tty: Terminal
) -> None:
    run = start(serve(*PLAIN_ANSWER), "-", stdin=subprocess.PIPE, stderr=tty.slave, env=XTERM)
    tty.read_until(b"smai: waiting for the prompt on stdin; nothing has arrived for 3 s\r\n")
    run.child.kill()
    assert run.child.wait(PATIENCE_S) == -signal.SIGKILL


def test_the_rate_is_that_of_the_last_two_seconds() -> None:
    clock = itertools.count(0, 0.1)
    waiting = WaitingLine("the first delta", now=lambda: next(clock))
    assert waiting.text(80) == "smai: 0 s, waiting for the first delta"
    waiting.thoughts = 1
    assert waiting.text(80) == "smai: 0 s, thinking, 1 delta"
    for _ in range(30):
        waiting.deltas += 2
        text = waiting.text(80)
    assert text == "smai: 3 s, 60 deltas, 20/s"
    for _ in range(20):
        text = waiting.text(80)
    assert text == "smai: 5 s, 60 deltas, 0/s"
    waiting.deltas, waiting.thoughts = 1, 0
    assert waiting.text(80) == "smai: 5 s, 1 delta"


# A real terminal program.


@pytest.fixture
def tmux(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., str]]:
    """`tmux("send-keys", ...)` speaks to a shell in a window of 80 columns."""
    program = shutil.which("tmux")
    if program is None:
        pytest.skip("tmux is not installed")
    socket = tmp_path / "tmux"

    def run(*arguments: str, env: dict[str, str] | None = None) -> str:
        command = [program, "-S", str(socket), "-f", os.devnull, *arguments]
        return subprocess.run(
            command, env=environment | (env or {}), capture_output=True, check=True, timeout=PATIENCE_S
        ).stdout.decode()

    yield run
    run("kill-server")


def wait_for_screen(tmux: Callable[..., str], wanted: str) -> str:
    """Wait until `wanted`, a pattern, is on the screen; return the screen."""
    end_s = time.monotonic() + PATIENCE_S
    while not re.search(wanted, screen := tmux("capture-pane", "-p"), re.MULTILINE):
        assert time.monotonic() < end_s, f"{wanted!r} did not come:\n{screen}"
        time.sleep(0.05)
    return screen.rstrip("\n")


def open_shell(tmux: Callable[..., str], env: dict[str, str]) -> None:
    tmux("new-session", "-d", "-x", "80", "-y", "24", "PS1='$ ' exec sh", env=env)
    wait_for_screen(tmux, r"^\$")


def test_in_tmux_the_status_line_appears_is_resized_and_is_erased(serve: Serve, tmux: Callable[..., str]) -> None:
    begin, go_on = threading.Event(), threading.Event()
    server = serve(HEAD, until(begin), chunk(HELLO), until(go_on), *REST)
    open_shell(tmux, reach(server))
    tmux("send-keys", "smai ask -n hi --final; echo status=$?", "Enter")
    wait_for_screen(tmux, r"^smai: [1-9] s, waiting for the first delta$")
    begin.set()
    wait_for_screen(tmux, r"^smai: \d+ s, 1 delta, \d+/s$")
    tmux("resize-window", "-x", "16")
    narrow = wait_for_screen(tmux, r"^smai: \d+ s, 1? ?d?e?$")
    assert narrow.count("smai: ") == 1
    tmux("resize-window", "-x", "100")
    wait_for_screen(tmux, r"^smai: \d+ s, 1 delta, \d+/s$")
    go_on.set()
    wait_for_screen(tmux, r"^status=0\n\$")
    # Including the scrolled lines: tmux keeps wrapped lines there.
    lines = tmux("capture-pane", "-p", "-S", "-").rstrip("\n").splitlines()
    assert lines[0].startswith("$ smai ask -n hi --final")
    assert lines[-4] == "Hello world"
    assert SUMMARY.fullmatch(lines[-3])
    assert lines[-2:] == ["status=0", "$"]
    assert sum(line.startswith("smai: ") for line in lines) == 1


def test_in_tmux_a_late_text_replaces_the_status_line(serve: Serve, tmux: Callable[..., str]) -> None:
    begin = threading.Event()
    server = serve(HEAD, until(begin), *PLAIN_ANSWER[1:])
    open_shell(tmux, reach(server))
    tmux("send-keys", "smai ask -n hi; echo status=$?", "Enter")
    wait_for_screen(tmux, r"^smai: [1-9] s, waiting for the first delta$")
    begin.set()
    assert wait_for_screen(tmux, r"^status=0\n\$").splitlines()[1:] == ["Hello world", "status=0", "$"]


def test_in_tmux_ctrl_c_returns_to_the_shell(serve: Serve, tmux: Callable[..., str]) -> None:
    open_shell(tmux, reach(serve(HEAD, hold)))
    tmux("send-keys", "smai ask -n hi", "Enter")
    wait_for_screen(tmux, r"^smai: [1-9] s, waiting for the first delta$")
    tmux("send-keys", "C-c")
    wait_for_screen(tmux, r"^\$$")
    tmux("send-keys", "echo here", "Enter")
    wait_for_screen(tmux, r"^here$")
    assert tmux("display-message", "-p", "#{cursor_flag}").strip() == "1"


def test_in_tmux_a_job_in_the_background_does_not_draw(serve: Serve, tmux: Callable[..., str]) -> None:
    open_shell(tmux, reach(serve(HEAD, hold)))
    tmux("send-keys", "smai ask -n hi & sleep 2; echo slept", "Enter")
    assert "waiting for" not in wait_for_screen(tmux, r"^slept$")
    tmux("send-keys", "fg", "Enter")
    wait_for_screen(tmux, r"^smai: \d+ s, waiting for the first delta$")
    tmux("send-keys", "C-c")
