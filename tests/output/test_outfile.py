"""-o/--output: the file is the old or the new one, whatever happens; --record always keeps the received bytes."""

import os
import resource
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import Server, Smai
from outfolder import names, partial
from process import NO_BYTECODE, SMAI, can_trace

from smai_cli.mock.script import POEM

pytestmark = pytest.mark.preloaded

FIRST = b"Spring"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "answer.txt"


@pytest.mark.parametrize("mode", [[], ["--final"], ["--raw"], ["--jsonl"], ["--no-stream"], ["--api", "responses"]])
def test_a_complete_answer_is_written_to_the_file_and_streamed_to_stdout_in_every_mode(
    smai: Smai, server: Server, file: Path, mode: list[str]
) -> None:
    result = smai("ask", "--base-url", server().url, *mode, "-o", file, "hi")
    assert result.status == 0
    assert file.read_bytes() == result.stdout
    assert names(file) == ["answer.txt"]


def test_quiet_leaves_stdout_empty(smai: Smai, server: Server, file: Path) -> None:
    result = smai("ask", "--base-url", server().url, "-q", "-o", file, "hi")
    assert result == (0, b"", "")
    assert file.read_bytes() == POEM.encode()


def test_a_quiet_run_continues_when_stdout_has_no_reader(
    server: Server, environment: dict[str, str], file: Path
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [SMAI, "ask", "--base-url", server(delay_s=0.01).url, "-q", "-o", str(file), "hi"]
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=writer, check=False)
    os.close(writer)
    assert (done.returncode, file.read_bytes()) == (0, POEM.encode())


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("script", "flags", "status", "kept"),
    [
        pytest.param({"cut_after": 1}, [], 8, True, id="cut"),
        pytest.param({"cut_after": 1}, ["--raw"], 8, True, id="cut raw"),
        pytest.param({"cut_after": 1}, ["--final", "--retries", "0"], 8, False, id="cut final"),
        pytest.param({"finish_reason": "length"}, [], 9, True, id="length"),
        pytest.param({"finish_reason": "content_filter"}, [], 10, True, id="withheld"),
        pytest.param({"stall_after": 1}, ["--idle-timeout", "1"], 7, True, id="idle"),
        pytest.param({"stall_after": 1}, ["--max-time", "4"], 7, True, id="deadline"),
        pytest.param({"status": 401}, [], 5, False, id="401"),
    ],
)
def test_a_failure_leaves_the_file_unchanged_and_the_partial_answer_next_to_it(
    smai: Smai, server: Server, file: Path, script: dict[str, Any], flags: list[str], status: int, kept: bool
) -> None:
    file.write_text("old")
    partial(file).write_text("of an earlier run, and longer than what comes now" * 100)
    result = smai("ask", "--base-url", server(**script).url, *flags, "-o", file, "hi")
    assert (result.status, file.read_text()) == (status, "old")
    assert partial(file).exists() == kept
    if kept:
        assert partial(file).read_bytes() == result.stdout


def test_an_accepted_finish_reason_creates_the_file(smai: Smai, server: Server, file: Path) -> None:
    url = server(finish_reason="length").url
    assert smai("ask", "--base-url", url, "--accept", "length", "-o", file, "hi").status == 0
    assert file.read_text() == POEM


def test_the_mode_and_the_symbolic_link_of_an_output_file_are_kept(
    smai: Smai, server: Server, file: Path, tmp_path: Path
) -> None:
    url = server().url
    file.write_text("old")
    file.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(file)
    assert smai("ask", "--base-url", url, "-o", link, "hi").status == 0
    assert (link.is_symlink(), file.read_text(), file.stat().st_mode & 0o777) == (True, POEM, 0o640)
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "new")
    assert smai("ask", "--base-url", url, "-o", dangling, "hi").status == 0
    assert (dangling.is_symlink(), (tmp_path / "new").read_text()) == (True, POEM)


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("missing/answer", 11, "No such file or directory"),
        (".", 2, "is not a regular file"),
        ("/dev/null", 2, "is not a regular file"),
        ("-", 2, "-o needs a file name"),
        ("fifo", 2, "is not a regular file"),
        ("new/", 2, "is the name of a directory"),
        ("new/.", 2, "is the name of a directory"),
        ("/dev/stdout", 2, "is not a regular file"),
    ],
)
def test_an_unusable_path_is_reported_before_any_request(
    smai: Smai, server: Server, tmp_path: Path, name: str, status: int, words: str
) -> None:
    os.mkfifo(tmp_path / "fifo")
    mock = server()
    result = smai("ask", "--base-url", mock.url, "-o", name if name[0] in "-/" else f"{tmp_path}/{name}", "hi")
    assert (result.status, result.stdout, mock.received) == (status, b"", [])
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_process_substitution_is_refused_as_an_output_file(server: Server, environment: dict[str, str]) -> None:
    line = f"smai ask --base-url {server().url} -n -o >(cat) hi"
    done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"/dev/fd/" in done.stderr
    assert b" is not a regular file; " in done.stderr


def test_the_partial_file_of_an_earlier_run_is_not_reused(
    server: Server, environment: dict[str, str], file: Path
) -> None:
    other = file.with_name("other")
    other.write_text("mine")
    other.chmod(0o644)
    partial(file).hardlink_to(other)
    line = f'umask 077; smai ask -n --base-url {server().url} -q -o "{file}" hi'
    subprocess.run(["bash", "-c", line], env=environment, check=True)
    assert (file.read_text(), file.stat().st_mode & 0o777) == (POEM, 0o600)
    assert (other.read_text(), names(file)) == ("mine", ["answer.txt", "other"])


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("other", path)])
def test_an_existing_file_with_the_name_of_the_partial_file_is_not_touched(
    smai: Smai, server: Server, file: Path, make: Any
) -> None:
    make(partial(file))
    mock = server()
    result = smai("ask", "--base-url", mock.url, "-o", file, "hi")
    assert (result.status in (2, 11), result.stdout, mock.received) == (True, b"", [])
    assert result.stderr.startswith(f"smai: {partial(file)}")
    assert names(file) == ["answer.txt.partial"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_or_file_is_reported_before_any_request(smai: Smai, server: Server, file: Path) -> None:
    mock = server()
    file.write_text("old")
    file.chmod(0o400)
    assert smai("ask", "--base-url", mock.url, "-o", file, "hi").status == 2
    file.chmod(0o600)
    file.parent.chmod(0o500)
    assert smai("ask", "--base-url", mock.url, "-o", file, "hi").status == 11
    file.parent.chmod(0o700)
    assert (mock.received, file.read_text()) == ([], "old")


def test_a_full_disk_is_status_11_and_the_file_is_unchanged(
    server: Server, environment: dict[str, str], file: Path
) -> None:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))

    file.write_text("old")
    command = [SMAI, "ask", "--base-url", server().url, "-o", str(file), "hi"]
    done = subprocess.run(
        command,
        env=environment | NO_BYTECODE,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        preexec_fn=limit,
    )
    assert done.returncode == 11
    assert done.stderr.decode().startswith(f"smai: {partial(file)}: File too large; ")
    assert done.stderr.count(b"\n") == 1
    assert (file.read_text(), len(partial(file).read_bytes())) == ("old", 64)


def test_a_full_stdout_is_status_11_and_the_file_is_not_created(
    server: Server, environment: dict[str, str], file: Path
) -> None:
    command = [SMAI, "ask", "--base-url", server().url, "-o", str(file), "hi"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=full, check=False)
    assert (done.returncode, file.exists()) == (11, False)


def test_two_runs_cannot_write_the_same_output_file_at_once(
    server: Server, environment: dict[str, str], smai: Smai, file: Path
) -> None:
    mock = server(stall_after=2)
    command = [SMAI, "ask", "--base-url", mock.url, "-o", str(file), "hi"]
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as first:
        assert first.stdout
        assert os.read(first.stdout.fileno(), 6) == FIRST
        result = smai("ask", "--base-url", mock.url, "-o", file, "hi")
        assert (result.status, len(mock.received)) == (6, 1)
        assert result.stderr == f"smai: another run is writing {file}; wait for it, or choose another file\n"
        first.kill()
    assert smai("ask", "--base-url", server().url, "-o", file, "hi").status == 0
    assert file.read_text() == POEM


def test_an_interrupt_during_the_stream_keeps_the_file_and_the_partial_answer(
    server: Server, environment: dict[str, str], file: Path
) -> None:
    file.write_text("old")
    command = [SMAI, "ask", "--base-url", server(stall_after=1).url, "-o", str(file), "hi"]
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as run:
        assert run.stdout
        assert os.read(run.stdout.fileno(), 6) == FIRST
        run.send_signal(signal.SIGINT)
        assert run.wait(30) == -signal.SIGINT
    assert (file.read_text(), partial(file).read_bytes()) == ("old", FIRST)


@pytest.mark.thorough
@pytest.mark.parametrize("call", ["openat", "flock", "unlink", "fchmod", "write", "fsync", "rename"])
def test_a_run_that_is_killed_at_any_system_call_leaves_the_old_file_or_the_new_one(
    server: Server, environment: dict[str, str], file: Path, call: str
) -> None:
    if not can_trace():
        pytest.skip("strace is not there, or may not trace")
    ask = ["ask", "--base-url", server(reply="a b").url, "-q", "-o", str(file), "hi"]
    trace = ["strace", "-qq", "-o", os.devnull, "-P", str(file), "-P", str(partial(file)), "-P", str(file.parent)]
    seen = []
    for number in range(1, 30):
        file.write_bytes(b"old")
        partial(file).write_bytes(b"of an earlier run")
        command = [*trace, "-e", f"inject={call}:signal=SIGKILL:when={number}", SMAI, *ask]
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        seen.append(file.read_bytes())
        assert seen[-1] in (b"old", b"a b\n"), number
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    assert len(seen) > 1
    assert (seen[0] == b"old" or call == "rename", seen[-1]) == (True, b"a b\n")


def test_the_replacement_of_a_private_file_is_private_from_the_start(
    server: Server, environment: dict[str, str], file: Path, tmp_path: Path
) -> None:
    if not can_trace():
        pytest.skip("strace is not there, or may not trace")
    chat = file.with_name("talk")
    for private in (file, chat):
        private.touch(0o600)
    log = tmp_path / "log"
    trace = ["strace", "-f", "-qq", "-o", str(log), "-e", "trace=openat"]
    words = [SMAI, "ask", "-q", "--base-url", server().url, "-o", str(file), "--chat", str(chat), "hi"]
    subprocess.run([*trace, *words], env=environment, stdin=subprocess.DEVNULL, check=True)
    made = [line for line in log.read_text().splitlines() if "O_EXCL" in line and str(file.parent) in line]
    assert len(made) == 2, made
    for line in made:
        assert "O_CLOEXEC, 0600)" in line


def test_decode_can_write_an_output_file(smai: Smai, server: Server, file: Path) -> None:
    tape = smai("ask", "--base-url", server().url, "--raw", "hi").stdout
    assert smai("decode", "-q", "-o", file, stdin=tape) == (0, b"", "")
    assert file.read_text() == POEM
    assert smai("decode", "-q", "-o", file, stdin=tape[: len(tape) // 2]).status == 8
    assert file.read_text() == POEM
    assert POEM.startswith(partial(file).read_text().removesuffix("\n"))


def test_a_tool_call_is_also_in_the_file(smai: Smai, server: Server, file: Path) -> None:
    tape = (
        b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{}"}}]},'
        b'"finish_reason":"tool_calls"}]}\n\ndata: [DONE]\n\n'
    )
    result = smai("ask", "--base-url", server(tape=tape).url, "--tool-calls", "-o", file, "hi")
    assert result.stdout == file.read_bytes()
    assert b'"name": "f"' in result.stdout


@pytest.mark.parametrize("mode", [[], ["--final"], ["--jsonl"], ["--raw"], ["-q", "-o", "answer"]])
def test_record_saves_the_body_in_every_mode(
    smai: Smai, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    url = server().url
    raw = smai("ask", "--base-url", url, "--raw", "hi").stdout
    result = smai("ask", "--base-url", url, *mode, "--summary", "none", "--record", "tape.sse", "hi")
    tape = (tmp_path / "tape.sse").read_bytes()
    assert result.status == 0
    assert len(tape) == len(raw)
    assert smai("decode", "tape.sse").stdout == POEM.encode()


def test_the_recording_of_a_failed_run_decodes_to_the_same_failure_and_contains_no_key(
    smai: Smai, server: Server, tmp_path: Path
) -> None:
    tape, url = tmp_path / "tape.sse", server(cut_after=2).url
    env = {"SMAI_BASE_URL": url, "SMAI_API_KEY": "sk-record-123456"}
    result = smai("ask", "--record", tape, "hi", env=env)
    again = smai("decode", tape)
    assert (result.status, again.status, again.stdout) == (8, 8, result.stdout)
    assert b"sk-record" not in tape.read_bytes()


def test_the_recording_of_a_run_with_retries_contains_the_last_attempt(
    smai: Smai, server: Server, tmp_path: Path
) -> None:
    tape = tmp_path / "tape.sse"
    result = smai("ask", "--base-url", server(cut_after=2).url, "--final", "--retries", "1", "--record", tape, "hi")
    assert (result.status, tape.read_bytes().count(b'"role"')) == (8, 1)


def test_a_recording_that_cannot_be_written_is_status_11_before_any_request(
    smai: Smai, server: Server, tmp_path: Path
) -> None:
    mock = server()
    result = smai("ask", "--base-url", mock.url, "--record", tmp_path / "no" / "tape", "hi")
    assert (result.status, result.stdout, mock.received) == (11, b"", [])
    assert smai("ask", "--base-url", mock.url, "--record", "/dev/full", "hi").status == 11


def test_a_terminal_shows_control_characters_and_the_file_has_them(
    server: Server, environment: dict[str, str], file: Path
) -> None:
    leader, follower = os.openpty()
    command = [SMAI, "ask", "--base-url", server(reply="a\x1b[31mb\n").url, "-o", str(file), "hi"]
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=follower, check=False)
    shown = os.read(leader, 1000)
    assert (done.returncode, shown) == (0, b"a^[[31mb\r\n")
    assert file.read_bytes() == b"a\x1b[31mb\n"
    os.close(leader)
    os.close(follower)


# Tapes that are there already, and tapes of two runs.


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        pytest.param(["-a", "nosuch"], 2, id="usage"),
        pytest.param(["--api", "responses", "--schema", "tape"], 2, id="no schema"),
        pytest.param(["--base-url", "http://127.0.0.1:9/v1", "--retries", "0"], 3, id="no connection"),
        pytest.param(["-o", "no/such"], 11, id="another file"),
    ],
)
def test_a_run_that_fails_before_any_byte_keeps_the_old_recording(
    smai: Smai, file: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], status: int
) -> None:
    monkeypatch.chdir(file.parent)
    url = [] if "--base-url" in flags else ["--mock"]
    for content in (b"old", None):
        if content:
            file.write_bytes(content)
        else:
            file.unlink()
        assert smai("ask", *url, *flags, "--record", file.name, "hi").status == status
        assert (file.read_bytes() if file.exists() else None) == content
    assert names(file) == []


def test_a_refused_request_keeps_the_old_recording_and_an_answer_replaces_it(
    smai: Smai, server: Server, file: Path
) -> None:
    file.write_text("old " * 10_000)
    assert smai("ask", "--base-url", server(status=401).url, "--record", file, "hi").status == 5
    assert file.read_text() == "old " * 10_000
    url = server().url
    assert smai("ask", "--base-url", url, "--record", file, "hi").status == 0
    assert file.read_bytes().startswith(b"data: ")
    assert b"old" not in file.read_bytes()


def test_two_runs_cannot_write_the_same_recording_at_once(
    server: Server, environment: dict[str, str], smai: Smai, file: Path
) -> None:
    mock = server(stall_after=1)
    command = [SMAI, "ask", "--base-url", mock.url, "--record", str(file), "hi"]
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as first:
        assert first.stdout
        assert os.read(first.stdout.fileno(), 6) == FIRST
        tape = file.read_bytes()
        result = smai("ask", "--base-url", mock.url, "--record", file, "hi")
        assert (result.status, len(mock.received), file.read_bytes()) == (6, 1, tape)
        assert result.stderr == f"smai: another run is writing {file}; wait for it, or choose another file\n"
        first.kill()
    assert smai("ask", "--base-url", server().url, "--record", file, "hi").status == 0
    assert smai("decode", file).stdout == POEM.encode()
