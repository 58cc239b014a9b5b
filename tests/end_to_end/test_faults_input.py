"""Stdin: pipes that never close, lists that a loop reads, bytes that are not text."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rawserver import HEAD, OUT, PATIENCE_S, PLAIN_ANSWER, Ask, RunningProcess, Serve, Start, event, hold

pytest_plugins = ["rawserver"]


def write(run: RunningProcess, data: bytes) -> None:
    assert run.child.stdin
    run.child.stdin.write(data)
    run.child.stdin.flush()


@pytest.mark.parametrize("flags", [["-n"], ["--no-stdin"]])
def test_n_does_not_wait_for_a_stdin_that_never_closes(serve: Serve, start: Start, flags: list[str]) -> None:
    server = serve(*PLAIN_ANSWER)
    run = start(server, *flags, stdin=subprocess.PIPE)
    assert run.out(len(OUT)) == OUT
    assert run.child.wait(PATIENCE_S) == 0  # stdin is still open
    assert server.requests[0].prompt == "hi"


def test_smai_no_stdin_does_not_wait_for_a_stdin_that_never_closes(serve: Serve, start: Start) -> None:
    run = start(serve(*PLAIN_ANSWER), stdin=subprocess.PIPE, env={"SMAI_NO_STDIN": "1"})
    assert run.child.wait(PATIENCE_S) == 0


def test_without_n_a_notice_explains_the_wait(serve: Serve, start: Start) -> None:
    server = serve(*PLAIN_ANSWER)
    run = start(server, stdin=subprocess.PIPE)
    notice = run.err_line()
    assert notice.startswith("smai: waiting for the prompt on stdin")
    assert "-n" in notice
    assert server.connections == 0
    write(run, b"late")
    assert run.end() == (0, OUT, "")  # closes stdin; one notice is enough
    assert server.requests[0].prompt == "hi\n\nlate"


def test_stdin_that_arrives_in_pieces_is_read_to_its_end(serve: Serve, start: Start) -> None:
    server = serve(*PLAIN_ANSWER)
    run = start(server, stdin=subprocess.PIPE)
    for piece in (b"one\n", "caf\u00e9".encode()[:-1], "\u00e9".encode()[1:], b"\n\n"):
        write(run, piece)
    assert run.end() == (0, OUT, "")
    assert server.requests[0].prompt == "hi\n\none\ncaf\u00e9\n\n"


@pytest.mark.parametrize("shell", ["bash", "dash"])
@pytest.mark.parametrize("flag", ["", "-n"], ids=["as-it-is", "with-n"])
def test_a_shell_loop_over_a_file_sends_each_line(serve: Serve, sh: Ask, tmp_path: Path, shell: str, flag: str) -> None:
    (tmp_path / "list").write_text("one\ntwo\nthree\n")
    server = serve(*PLAIN_ANSWER)
    line = f'while read -r l; do smai ask {flag} "$l" || exit; done < list'
    result = sh(server, line, shell=shell, cwd=tmp_path)
    assert result[:2] == (0, 3 * OUT)
    assert [request.prompt for request in server.requests] == ["one", "two", "three"]
    assert len(result.stderr.splitlines()) == (0 if flag else 3)


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_a_shell_loop_over_a_pipe_with_n_sends_each_line(serve: Serve, sh: Ask, shell: str) -> None:
    server = serve(*PLAIN_ANSWER)
    result = sh(server, "printf 'one\\ntwo\\n' | while read -r l; do smai ask -n \"$l\"; done", shell=shell)
    assert result == (0, 2 * OUT, "")
    assert [request.prompt for request in server.requests] == ["one", "two"]


def test_a_file_on_stdin_is_read_if_its_offset_is_0(serve: Serve, sh: Ask, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text\n")
    server = serve(*PLAIN_ANSWER)
    assert sh(server, "smai ask summarise < file", cwd=tmp_path) == (0, OUT, "")
    assert server.requests[0].prompt == "summarise\n\ntext\n"


@pytest.mark.parametrize(
    ("stdin", "says"),
    [
        pytest.param(b"caf\xe9 noir", "byte 0xe9 at byte offset 3", id="latin-1"),
        pytest.param("caf\u00e9".encode()[:-1], "byte 0xc3 at byte offset 3", id="cut-in-a-character"),
        pytest.param(b"\xff\xfea\x00\x00\xd8", "UTF-16-LE at byte offset 4", id="utf-16"),
    ],
)
def test_stdin_that_is_not_utf_8_is_reported_with_its_offset_and_nothing_is_sent(
    serve: Serve, ask: Ask, stdin: bytes, says: str
) -> None:
    server = serve(*PLAIN_ANSWER)
    result = ask(server, stdin=stdin)
    assert result[:2] == (2, b"")
    assert says in result.stderr
    assert server.connections == 0


def test_an_operand_that_is_not_utf_8_is_reported_and_nothing_is_sent(serve: Serve, sh: Ask) -> None:
    server = serve(*PLAIN_ANSWER)
    result = sh(server, r"smai ask $'caf\351'")
    assert result[:2] == (2, b"")
    assert "byte 0xe9 at byte offset 3" in result.stderr
    assert server.connections == 0


@pytest.mark.thorough
@pytest.mark.parametrize(
    "flags",
    [
        ["-a", "fifo"],
        ["--messages", "fifo"],
        ["--schema", "fifo"],
        ["-s", "@fifo"],
        ["--key-file", "fifo"],
        ["--record", "fifo"],
    ],
    ids=lambda flags: flags[0],
)
@pytest.mark.parametrize("is_open", [False, True], ids=["nobody opens it", "nobody writes"])
def test_max_time_ends_the_wait_for_a_silent_named_pipe(
    serve: Serve, start: Start, tmp_path: Path, flags: list[str], is_open: bool
) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    server = serve(*PLAIN_ANSWER)
    held = os.open(tmp_path / "fifo", os.O_RDWR) if is_open and flags[0] != "--record" else None
    result = start(server, "-n", "--max-time", "0.5", *flags, cwd=tmp_path).end()
    assert result == (7, b"", "smai: timed out: the run took 0.5 s in all; raise --max-time, or try again\n")
    assert server.connections == 0
    if held is not None:
        os.close(held)


@pytest.mark.thorough
def test_max_time_ends_a_run_even_if_stderr_has_no_reader(serve: Serve, start: Start) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    for flags in ([], ["-v"]):
        run = start(serve(HEAD, hold), "-n", "--max-time", "1", *flags, stderr=writer)
        assert run.child.wait(PATIENCE_S) == 7
    os.close(reader)
    os.close(writer)


def test_max_time_ends_the_wait_for_stdin_and_for_a_key_command(start: Start, environment: dict[str, str]) -> None:
    run = start(None, "--base-url", "http://127.0.0.1:9/v1", "--max-time", "0.5", stdin=subprocess.PIPE)
    assert (run.child.wait(PATIENCE_S), run.err_line()[:16]) == (7, "smai: timed out:")
    folder = Path(environment["HOME"]) / ".config" / "smai"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text('base_url = "https://127.0.0.1:9/v1"\nkey_command = "sleep 20"\n')
    run = start(None, "-n", "--max-time", "0.5")
    assert (run.child.wait(PATIENCE_S), run.err_line()[:16]) == (7, "smai: timed out:")


ENDLESS = [
    pytest.param([], "stdin is larger than 256 MiB", id="the prompt"),
    pytest.param(["--messages", "-"], "stdin is larger than 256 MiB", id="messages on stdin"),
    pytest.param(["-n", "--messages", "/dev/zero"], "/dev/zero is larger than 64 MiB", id="messages"),
    pytest.param(["-n", "--schema", "/dev/zero"], "/dev/zero is larger than 64 MiB", id="schema"),
    pytest.param(["-n", "-s", "@/dev/zero"], "/dev/zero is larger than 64 MiB", id="system text"),
    pytest.param(["-n", "-a", "/dev/zero"], "/dev/zero is larger than 20 MiB", id="attachment"),
]


@pytest.mark.parametrize(("flags", "says"), ENDLESS)
def test_an_endless_input_is_reported_in_one_line(serve: Serve, ask: Ask, flags: list[str], says: str) -> None:
    server = serve(*PLAIN_ANSWER)
    with Path("/dev/zero").open("rb") as zero:
        result = ask(server, *flags, stdin=zero)
    assert result == (2, b"", f"smai: {says}; shorten the input\n")
    assert server.connections == 0


bounded = pytest.mark.skipif(sys.platform == "darwin", reason="no limit on the memory of a process")


@bounded
@pytest.mark.parametrize("line", ["smai ask", *(f"smai ask {' '.join(case.values[0])} hi" for case in ENDLESS[1:5])])  # type: ignore[arg-type]
def test_an_input_that_does_not_fit_in_memory_is_reported_in_one_line(serve: Serve, sh: Ask, line: str) -> None:
    server = serve(*PLAIN_ANSWER)
    result = sh(server, f"ulimit -v 90000; {line} </dev/zero")
    says = "smai: there is not enough memory; try again later, send less, or allow the process more memory\n"
    assert result == (6, b"", says)
    assert server.connections == 0


@bounded
@pytest.mark.parametrize("line", ["smai ask -n hi", "smai models", "smai ask -n --max-time 9 hi"])
def test_a_failure_to_start_a_thread_is_reported_in_one_line(serve: Serve, sh: Ask, line: str) -> None:
    server = serve(*PLAIN_ANSWER)
    # A thread needs a stack as large as the limit of the process, which does not fit.
    result = sh(server, f"ulimit -s 4000000; ulimit -v 2000000; {line} | cat; exit ${{PIPESTATUS[0]}}")
    says = "smai: the system cannot start a thread; try again later, or allow more processes\n"
    assert result == (6, b"", says)
    assert server.requests == []


@bounded
def test_an_answer_that_does_not_fit_in_memory_is_not_complete(sh: Ask, tmp_path: Path) -> None:
    (tmp_path / "tape").write_bytes(event("x" * 1_000_000) * 100 + event(finish_reason="stop"))
    result = sh(None, "ulimit -v 90000; smai decode --final -o answer tape", cwd=tmp_path)
    assert result[:2] == (8, b"")
    assert result.stderr.startswith("smai: there is not enough memory for the rest of the answer; ")
    assert not (tmp_path / "answer").exists()


def test_decode_reports_a_directory_in_one_line(sh: Ask) -> None:
    result = sh(None, "smai decode /")
    assert result[:2] == (2, b"")
    assert "/: Is a directory" in result.stderr


def test_control_characters_and_nul_of_stdin_arrive_exactly(serve: Serve, ask: Ask) -> None:
    server = serve(*PLAIN_ANSWER)
    assert ask(server, stdin=b"\0\x1b[31m\a\r\n\xe2\x80\xa8") == (0, OUT, "")
    assert server.requests[0].prompt == "hi\n\n\0\x1b[31m\a\r\n\u2028"
