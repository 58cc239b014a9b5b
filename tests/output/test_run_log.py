"""The run log: the real process writes a line for each run, however it ends, without the prompt or the answer."""

import fcntl
import json
import os
import random
import re
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import process
import pytest
from conftest import Config, Server, Smai
from process import SMAI
from servers import SERVER_STREAMS

pytestmark = [pytest.mark.preloaded, pytest.mark.thorough]

ROOT = Path(__file__).parent.parent.parent
KEY = "sk-run-log-0123456789"
SECRETS = ("whisper", "quiet words", KEY, "hunter2", "querysecret", "deploysecret", "chatcmpl")
HEAD = ["time", "command", "origin", "profile", "version"]


@pytest.fixture
def log(environment: dict[str, str], tmp_path: Path) -> Path:
    """The run log in SMAI_LOG, in a folder that does not exist."""
    path = tmp_path / "state" / "log.jsonl"
    environment["SMAI_LOG"] = str(path)
    return path


def lines(log: Path) -> list[dict[str, Any]]:
    """Return the lines of a run log, after checking that each is complete."""
    text = log.read_bytes()
    assert text.endswith(b"\n")
    found = [json.loads(line) for line in text.splitlines()]
    assert all(isinstance(line, dict) for line in found)
    return found


def test_a_run_log_line_contains_the_summary_and_the_server(smai: Smai, server: Server, log: Path) -> None:
    mock = server()
    result = smai("ask", "-n", "--base-url", mock.url, "--summary", "json", "hi")
    (line,) = lines(log)
    summary = json.loads(result.stderr)
    assert list(line) == [*HEAD, *summary]
    assert {name: line[name] for name in summary} == summary
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", line["time"])
    assert (line["command"], line["profile"]) == ("ask", None)
    assert line["origin"] == mock.url.removesuffix("/v1")


def test_a_run_with_a_run_log_requests_usage_from_the_server(smai: Smai, server: Server, log: Path) -> None:
    mock = server()
    assert smai("ask", "-n", "--base-url", mock.url, "hi").stderr == ""
    assert lines(log)[0]["usage_source"] == "server"
    assert mock.received[0].json["stream_options"] == {"include_usage": True}
    dry = json.loads(smai("ask", "-n", "--base-url", mock.url, "--dry-run", "hi").stdout)
    assert dry["body"] == mock.received[0].json


def test_a_new_run_log_is_readable_only_by_its_owner(smai: Smai, log: Path) -> None:
    smai("ask", "-n", "--mock", "hi")
    assert [oct(path.stat().st_mode)[-3:] for path in (log, log.parent)] == ["600", "700"]


@pytest.mark.parametrize("script", [{"reply": "quiet words"}, {"status": 400}, {"status": 401}, {"cut_after": 1}])
def test_no_run_log_line_contains_a_prompt_an_answer_or_a_secret(
    smai: Smai, server: Server, log: Path, script: dict[str, Any]
) -> None:
    mock = server(**script)
    url = mock.url.replace("http://", "http://user:hunter2@") + "/deploysecret?code=querysecret"
    result = smai("ask", "-n", "-s", "whisper", "--base-url", url, "whisper", env={"SMAI_API_KEY": KEY})
    assert result.status != 2, result
    text = log.read_text()
    assert [word for word in SECRETS if word in text] == []
    assert lines(log)[0]["exit_status"] == result.status


def test_a_run_log_line_does_not_contain_the_text_of_a_refusal(smai: Smai, server: Server, log: Path) -> None:
    tape = (SERVER_STREAMS / "openai-refusal.sse").read_bytes()
    result = smai("ask", "-n", "--base-url", server(tape=tape).url, "hi")
    assert (result.status, "help with that" in result.stderr) == (10, True), result
    assert lines(log)[0]["error"]["kind"] == "withheld"
    assert "help with" not in log.read_text()


def test_the_run_log_line_of_a_failure_does_not_contain_the_message_of_the_server(
    smai: Smai, server: Server, log: Path
) -> None:
    result = smai("ask", "-n", "--base-url", server(status=400).url, "hi")
    (line,) = lines(log)
    assert "smai mock was set to refuse" in result.stderr
    assert list(line["error"]) == ["kind", "http_status", "retryable", "request_id"]
    assert (line["error"]["kind"], line["error"]["http_status"], line["exit_status"]) == ("refused", 400, 4)


@pytest.mark.parametrize(
    ("words", "stdin", "status", "kind"),
    [
        (("--base-url", "http://127.0.0.1:1/v1", "--retries", "0", "-n", "hi"), b"", 3, "connect"),
        (("--mock", "--max-time", "0.001", "-n", "hi"), b"", 7, "timeout"),
        (("--mock",), b"\xff", 2, "usage"),
        (("--mock", "-n", "-a", "/nowhere", "hi"), b"", 2, "usage"),
        (("--mock", "-n", "--record", "/dev/full", "hi"), b"", 11, "output"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_run_that_fails_has_its_run_log_line(
    smai: Smai, log: Path, words: tuple[str, ...], stdin: bytes, status: int, kind: str
) -> None:
    assert smai("ask", *words, stdin=stdin).status == status
    (line,) = lines(log)
    assert (line["complete"], line["exit_status"], line["error"]["kind"]) == (False, status, kind)


@pytest.mark.parametrize(
    "words",
    [
        ("ask", "-n", "--mock"),
        ("ask", "-n", "--nonsense", "hi"),
        ("ask", "-n", "hi"),
        ("ask", "-n", "--mock", "--dry-run", "hi"),
        ("ask", "-n", "--mock", "--curl", "hi"),
        ("config",),
    ],
    ids=" ".join,
)
def test_a_command_that_contacts_no_server_has_no_run_log_line(smai: Smai, log: Path, words: tuple[str, ...]) -> None:
    smai(*words)
    assert not log.parent.exists()


def test_the_run_log_line_of_a_mock_run_has_no_origin(smai: Smai, log: Path) -> None:
    smai("ask", "-n", "--mock", "hi")
    assert lines(log)[0]["origin"] is None


# How a run ends otherwise.


@pytest.fixture
def start_silent_run(environment: dict[str, str], server: Server) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """`start_silent_run()` starts a run whose server sends only the first delta, and returns when that is on stdout."""
    mock = server(stall_after=1)
    runs = []

    def start(*before: str) -> subprocess.Popen[bytes]:
        run = subprocess.Popen(
            [*before, SMAI, "ask", "-n", "--base-url", mock.url, "hi"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        runs.append(run)
        assert run.stdout
        assert run.stdout.read(6) == b"Spring"
        return run

    yield start
    for run in runs:
        with run:
            run.kill()


MORE_SIGNALS = [signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1]
SIGNALS = [signal.SIGINT, signal.SIGTERM, *(pytest.param(one, marks=pytest.mark.thorough) for one in MORE_SIGNALS)]


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_run_that_a_signal_ends_has_its_run_log_line(
    start_silent_run: Callable[..., subprocess.Popen[bytes]], log: Path, signum: signal.Signals
) -> None:
    run = start_silent_run()
    run.send_signal(signum)
    assert (run.wait(process.LIMIT_S), run.stderr and run.stderr.read()) == (-signum, b"")
    (line,) = lines(log)
    assert (line["complete"], line["exit_status"], line["error"]["kind"]) == (False, 128 + signum, "signal")
    assert (line["characters"], line["usage_source"]) == (6, "estimate")


def test_a_signal_ends_a_run_silently_even_if_the_run_log_cannot_be_written(
    start_silent_run: Callable[..., subprocess.Popen[bytes]], environment: dict[str, str]
) -> None:
    environment["SMAI_LOG"] = "/dev/full"
    run = start_silent_run()
    run.terminate()
    assert (run.wait(process.LIMIT_S), run.stderr and run.stderr.read()) == (-signal.SIGTERM, b"")


def test_a_run_that_sigpipe_ends_has_its_run_log_line(
    start_silent_run: Callable[..., subprocess.Popen[bytes]], log: Path
) -> None:
    run = start_silent_run()
    assert run.stdout
    run.stdout.close()
    assert run.wait(process.LIMIT_S) == -signal.SIGPIPE
    assert [line["exit_status"] for line in lines(log)] == [128 + signal.SIGPIPE]


def test_a_signal_that_the_caller_ignores_stays_ignored(environment: dict[str, str], server: Server, log: Path) -> None:
    script = f"trap '' TERM; {SMAI} ask -n --base-url {server(delay_s=0.02).url} hi & sleep 1; kill $!; wait $!"
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, check=False)
    assert done.returncode == 0
    assert [line["exit_status"] for line in lines(log)] == [0]


# A run log that cannot be written changes nothing else.


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/dev/full", "No space left on device"),
        ("folder", "Is a directory"),
        ("pipe", "it is not a regular file"),
        ("script", "it does not contain JSON Lines"),
        ("script/log.jsonl", "Not a directory"),
    ],
)
def test_an_unwritable_run_log_is_reported_in_one_line_and_changes_no_status(
    smai: Smai, tmp_path: Path, name: str, words: str
) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "script").write_text("#!/bin/sh\necho hi")
    path = str(tmp_path / name)
    result = smai("ask", "-n", "--mock", "hi", env={"SMAI_LOG": path})
    assert result.status == 0
    assert result.stdout.startswith(b"Spring")
    assert result.stderr == f"smai: {path}: {words}; the run was not logged, check SMAI_LOG\n"
    assert (tmp_path / "script").read_text() == "#!/bin/sh\necho hi"


def test_an_unwritable_run_log_changes_neither_the_status_nor_the_last_line_of_a_failed_run(smai: Smai) -> None:
    line = ("ask", "-n", "--base-url", "http://127.0.0.1:1/v1", "--retries", "0", "--summary", "json", "hi")
    result = smai(*line, env={"SMAI_LOG": "/dev/full"})
    messages = result.stderr.splitlines()
    assert (result.status, len(messages)) == (3, 3)
    assert "/dev/full" in messages[0]
    assert json.loads(messages[-1])["exit_status"] == 3


def test_a_run_log_that_stays_locked_does_not_block_the_run(smai: Smai, log: Path) -> None:
    log.parent.mkdir()
    with log.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = smai("ask", "-n", "--mock", "hi")
    says = f"smai: {log}: another process has it locked; the run was not logged, check SMAI_LOG\n"
    assert (result.status, result.stderr, log.read_bytes()) == (0, says, b"")


def test_a_full_disk_leaves_no_partial_line_in_the_run_log(environment: dict[str, str], log: Path) -> None:
    log.parent.mkdir()
    before = b'{"a": "' + b"x" * 900 + b'"}\n'
    log.write_bytes(before)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))

    done = subprocess.run(
        [SMAI, "ask", "-n", "--mock", "hi"],
        env=environment | process.NO_BYTECODE,
        preexec_fn=limit,
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0
    assert done.stderr.count(b"\n") == 1
    assert b"the run was not logged" in done.stderr
    assert log.read_bytes() == before


# The sources of the setting.


@pytest.mark.thorough
def test_a_typed_profile_overrides_the_variable_which_overrides_the_configuration(
    smai: Smai, config: Config, environment: dict[str, str]
) -> None:
    home = Path(environment["HOME"])
    path = config('log = "~/top.jsonl"\n[profile.p]\nlog = "beside.jsonl"\n[profile.off]\nlog = ""\n')
    ask = ("ask", "-n", "--mock", "hi")
    for more, env in (((), {}), (("-p", "p"), {}), (("-p", "off"), {}), ((), {"SMAI_LOG": ""})):
        assert smai(*ask, *more, env=env).stderr == ""
    assert [line["profile"] for line in lines(home / "top.jsonl")] == [None]
    assert [line["profile"] for line in lines(path.parent / "beside.jsonl")] == ["p"]
    smai(*ask, env={"SMAI_LOG": "~/third.jsonl", "SMAI_PROFILE": "p"})
    assert [line["profile"] for line in lines(home / "third.jsonl")] == ["p"]
    smai(*ask, "-p", "p", env={"SMAI_LOG": "~/third.jsonl"})
    assert [line["profile"] for line in lines(path.parent / "beside.jsonl")] == ["p", "p"]


def test_a_batch_has_one_run_log_line_for_all_its_answers(smai: Smai, environment: dict[str, str]) -> None:
    log = Path(environment["HOME"]) / "log.jsonl"
    result = smai("batch", "--mock", stdin=b'"a secret question"\n"b"\nno JSON\n', env={"SMAI_LOG": str(log)})
    assert result.status == 2
    (line,) = lines(log)
    assert (line["command"], line["lines"], line["complete_lines"], line["failed"]) == ("batch", 3, 2, {"usage": 1})
    assert (line["exit_status"], line["usage"]["completion_tokens"] > 0) == (2, True)
    assert "secret" not in log.read_text()


def test_config_shows_the_run_log(smai: Smai, config: Config) -> None:
    path = config('log = "~/top.jsonl"\n')

    def shown(**env: str) -> str:
        (line,) = [one for one in smai("config", env=env).stdout.decode().splitlines() if "log" in one.split()[:2]]
        return " ".join(line.split())

    assert shown() == f'log = "~/top.jsonl" # {path}'
    assert shown(SMAI_LOG="/x") == 'log = "/x" # SMAI_LOG'
    assert shown(SMAI_LOG="") == 'log = "" # SMAI_LOG'
    assert shown(SMAI_LOG="x") == f'log = "{Path("x").absolute()}" # SMAI_LOG'
    path.write_text("")
    assert shown() == "# log # not set"


def test_without_a_home_the_run_log_is_skipped_with_a_one_line_notice(smai: Smai) -> None:
    result = smai("ask", "-n", "--mock", "hi", env={"HOME": "", "SMAI_LOG": "~/log.jsonl"})
    says = "smai: no home directory for the log ~/log.jsonl; set HOME, or check SMAI_LOG\n"
    assert (result.status, result.stderr) == (0, says)


def test_doctor_checks_that_the_run_log_is_writable_and_does_not_write_to_it(smai: Smai, log: Path) -> None:
    result = smai("doctor", "--mock")
    assert result.status == 0
    assert f"\nok    log            {log}, from SMAI_LOG, is to be made\n" in result.stdout.decode()
    assert not log.parent.exists()
    log.parent.write_text("")
    result = smai("doctor", "--mock")
    assert result.status == 11
    assert f"\nFAIL  log: {log}: Not a directory; check SMAI_LOG\n" in result.stdout.decode()


def test_a_run_without_a_run_log_does_not_load_its_module(environment: dict[str, str]) -> None:
    command = [str(Path(SMAI).with_name("python")), "-X", "importtime", SMAI, "ask", "-n", "--mock", "hi"]
    done = subprocess.run(command, env=environment, capture_output=True, check=True, stdin=subprocess.DEVNULL)
    loaded = set(re.findall(r"smai_cli\.\S+", done.stderr.decode()))
    assert "smai_cli.cli.run" in loaded
    assert not {name for name in loaded if re.search(r"run_log|log_line|log_file|jsonl", name)}


# Many processes, and some that do not live.


@pytest.mark.parametrize(
    ("before", "kept"),
    [(b'{"a": 1}\n{"time": "20', 1), (b'{"a": 1}\n{"b": 2}', 2), (b'{"tim', 0)],
    ids=["torn", "without its newline", "torn, alone"],
)
def test_a_partial_line_of_a_killed_process_is_removed_from_the_run_log(
    smai: Smai, log: Path, before: bytes, kept: int
) -> None:
    log.parent.mkdir()
    log.write_bytes(before)
    assert smai("ask", "-n", "--mock", "hi").stderr == ""
    found = lines(log)
    assert found[:kept] == [{"a": 1}, {"b": 2}][:kept]
    assert [line["exit_status"] for line in found[kept:]] == [0]


@pytest.mark.timeout(600)  # fifty starts on a busy machine
@pytest.mark.parametrize(("count", "killed"), [(5, 1), pytest.param(50, 5, marks=pytest.mark.nightly)])
def test_many_processes_write_one_complete_run_log_line_each(
    environment: dict[str, str], server: Server, log: Path, count: int, killed: int
) -> None:
    mock = server(reply="one two three four five", delay_s=0.02)
    log.parent.mkdir()
    log.write_bytes(b'{"model": "before"}\n{"time": "20')
    runs = {
        f"m-{number}": subprocess.Popen(
            [SMAI, "ask", "-n", "--base-url", mock.url, "--connect-timeout", "0", "-m", f"m-{number}", "hi"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for number in range(count)
    }
    chance = random.Random(count)
    for name in chance.sample(sorted(runs), killed):
        stdout = runs[name].stdout
        assert stdout
        assert stdout.read(1)  # the run has begun, and its end is near
        time.sleep(chance.uniform(0, 0.1))
        runs[name].kill()
    messages = {name: run.communicate()[1] for name, run in runs.items()}
    survivors = sorted(name for name, run in runs.items() if run.returncode == 0)
    assert len(survivors) >= count - killed
    assert {messages[name] for name in survivors} == {b""}
    names = [line["model"] for line in lines(log)]
    assert names[0] == "before"
    assert [names.count(name) for name in survivors] == [1] * len(survivors)
    assert max(map(names.count, names)) == 1


# The commands of the manual.


def recipe(words: str) -> str:
    """Return the command of the manual page below the sentence with `words`, as a user would type it."""
    page = (ROOT / "man" / "smai.1").read_text()
    found = re.search(rf"{words}[^\n]*\n\.Bd [^\n]*\n(.*?)\.Ed\n", page, re.DOTALL)
    assert found, words
    return found[1].replace("\\e", "\\")


def test_the_commands_in_the_manual_count_the_tokens_of_a_day_and_the_failures(
    environment: dict[str, str], smai: Smai, server: Server
) -> None:
    log = Path(environment["HOME"]) / ".local" / "state" / "smai" / "log.jsonl"
    environment["SMAI_LOG"] = "~/.local/state/smai/log.jsonl"
    url = server().url
    for words in ((url, "hi"), (url, "hi"), (server(status=401).url, "hi"), (server(cut_after=2).url, "hi")):
        smai("ask", "-n", "--base-url", *words)
    smai("ask", "-n", "--mock", "hi")

    def rows_of(words: str) -> list[list[str]]:
        command = ["bash", "-euo", "pipefail", "-c", recipe(words)]
        done = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
        return [line.split("\t") for line in done.stdout.splitlines()]

    used = [line["usage"] for line in lines(log) if line["origin"]]
    tokens = sum((one["prompt_tokens"] or 0) + (one["completion_tokens"] or 0) for one in used)
    assert tokens > 80
    days = rows_of("tokens of each day")
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", day) for day, _ in days)
    assert sum(int(count) for _, count in days) == tokens
    assert sorted(rows_of("failures by exit status")) == [["5", "1"], ["8", "1"]]
