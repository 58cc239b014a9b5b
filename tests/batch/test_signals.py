"""Signals, pipes, terminals and other effects of a shell, cron or an engine on a run."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from batching import Ask, Desk, MakeChaos, MakeDesk, Questions, command, encoded, reach, results_in
from outfolder import partial
from process import SMAI
from terminal import terminal

pytestmark = pytest.mark.thorough

pytest_plugins = ["batching"]

StartBatch = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start_batch(environment: dict[str, str]) -> Iterator[StartBatch]:
    """`start_batch(server, "-j2", file)` starts a run with pipes."""
    with contextlib.ExitStack() as stack:

        def start(server: Any, *arguments: Any, **how: Any) -> subprocess.Popen[bytes]:
            streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            env = environment | reach(server) | how.pop("env", {})
            run = subprocess.Popen(command(*arguments), env=env, **{**streams, **how})
            stack.enter_context(run)
            stack.callback(run.kill)
            return run

        yield start


def start_and_wait(desk: MakeDesk, count: int, run: Callable[[Desk], Any]) -> tuple[Desk, Any]:
    """Return a server that does not answer, and the run against it, once `count` requests have arrived."""
    server = desk()
    server.open.clear()
    running = run(server)
    server.wait_for(count)
    return server, running


@pytest.mark.parametrize(
    "number", ["INT", "TERM", *(pytest.param(it, marks=pytest.mark.nightly) for it in ("HUP", "USR1", "USR2", "XCPU"))]
)
def test_the_first_signal_lets_running_requests_end_and_starts_no_more(
    batch: Ask, desk: MakeDesk, questions: Questions, start_batch: StartBatch, tmp_path: Path, number: str
) -> None:
    signum = signal.Signals[f"SIG{number}"]
    out, file = tmp_path / "answers.jsonl", questions("a", "b", "c", "d")
    server, run = start_and_wait(desk, 2, lambda server: start_batch(server, "-j2", "-o", out, file))
    run.send_signal(signum)
    time.sleep(0.1)
    server.open.set()
    _, stderr = run.communicate(timeout=20)
    assert run.returncode == -signum
    assert sorted(it["text"] for it in results_in(Path(f"{out}.partial"))) == ["a", "b"]
    assert b"2 of 4 complete, 2 without a result" in stderr
    assert len(server.received) == 2
    assert batch(server, "-o", out, "--resume", file).status == 0
    assert [it["text"] for it in results_in(out)] == ["a", "b", "c", "d"]


def test_an_answer_that_exceeds_the_grace_period_has_no_result(
    desk: MakeDesk, questions: Questions, start_batch: StartBatch
) -> None:
    _, run = start_and_wait(desk, 1, lambda server: start_batch(server, "--grace", "0.5", questions("a")))
    begun_s = time.monotonic()
    run.send_signal(signal.SIGTERM)
    stdout, _ = run.communicate(timeout=20)
    assert (run.returncode, stdout) == (-signal.SIGTERM, b"")
    assert time.monotonic() - begun_s >= 0.5


def test_a_second_ctrl_c_ends_a_batch_at_once_and_a_second_sigterm_is_ignored(
    desk: MakeDesk, questions: Questions, start_batch: StartBatch
) -> None:
    server, run = start_and_wait(desk, 1, lambda server: start_batch(server, questions("a")))
    for number in (signal.SIGTERM, signal.SIGTERM):
        run.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            run.wait(0.3)
    run.send_signal(signal.SIGINT)
    assert run.wait(5) == -signal.SIGINT
    server.open.set()


def test_two_sigterms_in_one_millisecond_are_one(desk: MakeDesk, questions: Questions, start_batch: StartBatch) -> None:
    server, run = start_and_wait(desk, 1, lambda server: start_batch(server, questions("a", "b"), "-j1"))
    run.send_signal(signal.SIGTERM)
    run.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    server.open.set()
    stdout, _ = run.communicate(timeout=20)
    assert (run.returncode, [it["text"] for it in results_in(stdout)]) == (-signal.SIGTERM, ["a"])


@pytest.mark.parametrize("flags", [[], ["-k"]])
def test_a_run_that_waits_for_lines_ends_at_the_signal_without_the_grace(
    desk: MakeDesk, start_batch: StartBatch, flags: list[str]
) -> None:
    server = desk()
    run = start_batch(server, *flags, stdin=subprocess.PIPE)
    assert run.stdin
    assert run.stdout
    run.stdin.write(encoded(["a"]))
    run.stdin.flush()
    assert json.loads(run.stdout.readline())["text"] == "a"
    begun_s = time.monotonic()
    run.send_signal(signal.SIGTERM)
    assert run.wait(20) == -signal.SIGTERM
    assert time.monotonic() - begun_s < 10


def test_a_signal_while_a_pipe_is_open_creates_no_output_file(
    desk: MakeDesk, start_batch: StartBatch, tmp_path: Path
) -> None:
    """Every line that has arrived is answered, and more may follow."""
    out = tmp_path / "answers.jsonl"
    run = start_batch(desk(), "-o", out, stdin=subprocess.PIPE)
    assert run.stdin
    run.stdin.write(encoded(["a"]))
    run.stdin.flush()
    while not partial(out).exists() or not partial(out).read_bytes().endswith(b"\n"):
        assert run.poll() is None
        time.sleep(0.01)
    run.send_signal(signal.SIGTERM)
    assert run.wait(20) == -signal.SIGTERM
    assert not out.exists()
    assert [it["text"] for it in results_in(partial(out))] == ["a"]


def test_a_reader_that_stops_reading_stdout_does_not_keep_a_batch_running(
    desk: MakeDesk, questions: Questions, start_batch: StartBatch
) -> None:
    server = desk(echo=False, reply="x" * 200_000)
    run = start_batch(server, "--grace", "0.2", questions("a", "b"))
    server.wait_for(2)
    time.sleep(0.5)
    run.send_signal(signal.SIGTERM)
    assert run.wait(20) == -signal.SIGTERM


def test_a_reader_that_pauses_gets_everything_in_complete_lines(
    chaos: MakeChaos, questions: Questions, start_batch: StartBatch
) -> None:
    run = start_batch(chaos(size=30_000, deltas=2), "-j8", questions(*(f"{number}" for number in range(40))))
    assert run.stdout
    time.sleep(1.0)
    results = results_in(run.stdout.read())
    assert (run.wait(20), len(results)) == (0, 40)


def test_a_batch_ends_by_sigpipe_when_its_reader_exits(
    desk: MakeDesk, questions: Questions, environment: dict[str, str]
) -> None:
    server = desk()
    file = questions(*(f"line {number}" for number in range(3000)))
    line = f"smai batch -j2 {file} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", line], env=environment | reach(server), capture_output=True, check=False, timeout=30
    )
    first, status = done.stdout.splitlines()
    assert json.loads(first)["complete"]
    assert (int(status), done.stderr) == (128 + signal.SIGPIPE, b"")
    assert len(server.received) < 3000


def test_a_batch_with_o_does_not_need_a_reader_of_stdout(
    desk: MakeDesk, questions: Questions, environment: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "answers.jsonl"
    line = f"smai batch -o {out} {questions('a')} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], env=environment | reach(desk()), check=False, timeout=30)
    assert (done.returncode, len(results_in(out))) == (0, 1)


@pytest.mark.nightly
def test_a_batch_that_is_stopped_and_continued_loses_no_result(
    desk: MakeDesk, questions: Questions, start_batch: StartBatch
) -> None:
    lines = [f"line {number}" for number in range(400)]
    server = desk(delay_s=0.01)
    # A new process group, as of a job of a shell: nothing stops in one without a parent outside of it (POSIX, 2.4.3).
    run = start_batch(server, "-j4", "-k", questions(*lines), process_group=0)
    server.wait_for(6)
    run.send_signal(signal.SIGTSTP)
    os.waitid(os.P_PID, run.pid, os.WSTOPPED)
    time.sleep(1.0)
    run.send_signal(signal.SIGCONT)
    stdout, _ = run.communicate(timeout=30)
    assert (run.returncode, [it["text"] for it in results_in(stdout)]) == (0, lines)


def test_a_batch_under_nohup_ignores_sighup(desk: MakeDesk, questions: Questions, environment: dict[str, str]) -> None:
    server = desk()
    server.open.clear()
    run = subprocess.Popen(
        ["bash", "-c", f"trap '' HUP; exec smai batch {questions('a')}"],
        env=environment | reach(server),
        stdout=subprocess.PIPE,
    )
    server.wait_for(1)
    run.send_signal(signal.SIGHUP)
    server.open.set()
    stdout, _ = run.communicate(timeout=20)
    assert (run.returncode, len(results_in(stdout))) == (0, 1)


@pytest.mark.parametrize(
    ("redirection", "status", "lines"),
    [("<&-", 0, 1), ("2>&-", 0, 1), (">&-", 11, 0), ("<&- 2>&-", 0, 1)],
)
def test_closed_descriptors_do_no_harm(
    desk: MakeDesk, questions: Questions, environment: dict[str, str], redirection: str, status: int, lines: int
) -> None:
    server = desk()
    line = f"exec smai batch {questions('a')} {redirection}"
    done = subprocess.run(["bash", "-c", line], env=environment | reach(server), capture_output=True, check=False)
    assert (done.returncode, len(results_in(done.stdout)), len(server.received)) == (status, lines, lines)


def test_a_batch_runs_in_an_empty_environment(desk: MakeDesk, questions: Questions) -> None:
    done = subprocess.run(
        ["env", "-i", SMAI, "batch", "--base-url", desk().url, str(questions("ü"))], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr, [it["text"] for it in results_in(done.stdout)]) == (0, b"", ["ü"])


# What a person sees.


@pytest.mark.parametrize("columns", [80, 40])
def test_on_a_terminal_a_progress_line_is_shown_and_erased_at_the_end(
    chaos: MakeChaos, questions: Questions, start_batch: StartBatch, columns: int
) -> None:
    server = chaos(delay_s=0.05, deltas=2)
    with terminal(columns) as tty:
        run = start_batch(
            server, "-j2", questions(*(f"p{n}" for n in range(60))), stderr=tty.slave, env={"TERM": "xterm"}
        )
        tty.read_until(b" of 60, 2 running")
        tty.resize(60 if columns == 40 else 40)
        assert run.stdout
        stdout = run.stdout.read()
        assert (run.wait(20), len(results_in(stdout))) == (0, 60)
        screen = tty.read_rest()
        drawn = tty.drawn()
    assert all(len(line) < columns or len(line) < 60 for line in drawn)
    (last,) = screen.splitlines()
    assert last.startswith("smai: 60 of 60 complete; tokens: ")


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}])
def test_no_progress_line_is_drawn_on_a_terminal_that_cannot_or_should_not_draw(
    chaos: MakeChaos, questions: Questions, start_batch: StartBatch, env: dict[str, str]
) -> None:
    with terminal() as tty:
        run = start_batch(
            chaos(delay_s=0.05, deltas=2), "-j4", questions(*map(str, range(50))), stderr=tty.slave, env=env
        )
        run.communicate(timeout=30)
        assert "running" not in tty.read_rest()


def test_without_a_terminal_a_successful_run_prints_no_summary(
    chaos: MakeChaos, questions: Questions, start_batch: StartBatch
) -> None:
    run = start_batch(chaos(delay_s=0.05, deltas=2), "-j4", questions(*map(str, range(50))))
    assert (run.communicate(timeout=30)[1], run.returncode) == (b"", 0)


@pytest.mark.nightly
@pytest.mark.timeout(120)
def test_progress_prints_a_line_every_minute(chaos: MakeChaos, questions: Questions, start_batch: StartBatch) -> None:
    run = start_batch(chaos(hold_after=1), "--progress", "--max-time", "64", questions("a", "b"))
    _, stderr = run.communicate(timeout=100)
    (line,) = [line for line in stderr.decode().splitlines() if "running" in line]
    assert line.startswith("smai: 1 of 2, 1 running; 0.0/s")


def test_a_failure_is_printed_on_a_separate_line_from_the_progress(
    chaos: MakeChaos, questions: Questions, start_batch: StartBatch
) -> None:
    server = chaos(delay_s=0.05, deltas=2, status=400, only="bad")
    with terminal() as tty:
        lines = [*(f"p{number}" for number in range(50)), "bad"]
        run = start_batch(server, "-j2", questions(*lines), stderr=tty.slave, env={"TERM": "xterm"})
        run.communicate(timeout=30)
        first, last = tty.read_rest().splitlines()
    assert run.returncode == 4
    assert first.startswith("smai: line 51: the server answered 400")
    assert last.startswith("smai: 50 of 51 complete, 1 refused; tokens: ")


def test_the_summary_of_a_run_that_a_signal_ends_is_not_a_success(
    desk: MakeDesk, questions: Questions, start_batch: StartBatch
) -> None:
    server, run = start_and_wait(
        desk, 1, lambda server: start_batch(server, "-j1", "--summary", "json", questions("a", "b"))
    )
    run.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    server.open.set()
    _, stderr = run.communicate(timeout=20)
    told = json.loads(stderr.splitlines()[-1])
    assert (told["signal"], told["exit_status"], told["complete"], told["without_result"]) == (15, 143, False, 1)


# What a run needs.


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_memory_does_not_grow_with_the_input(
    chaos: MakeChaos, questions: Questions, start_batch: StartBatch, tmp_path: Path
) -> None:
    peaks = []
    for count in (1000, 100_000):
        server = chaos(deltas=1)
        file = questions(*({"id": f"{number:06}", "prompt": "x" * 1000} for number in range(count)))
        run = start_batch(server, "-j16", "-o", tmp_path / f"{count}.jsonl", file)
        peaks.append(peak_of(run))
        assert run.returncode == 0
    assert peaks[1] - peaks[0] <= 20 * 1024, peaks


def peak_of(run: subprocess.Popen[bytes]) -> int:
    """Return the most memory in KiB that a process has had (not ru_maxrss, which begins with that of its parent)."""
    peak = 0
    while run.poll() is None:
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{run.pid}/status").read_text().splitlines()
            peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        time.sleep(0.05)
    return peak


def test_an_answer_of_twenty_megabytes_is_one_complete_result(
    chaos: MakeChaos, questions: Questions, batch: Ask, tmp_path: Path
) -> None:
    out = tmp_path / "answers.jsonl"
    result = batch(chaos(size=20_000_000, deltas=40), "-o", out, "-j2", questions("a", "b"))
    assert (result.status, [len(it["text"]) for it in results_in(out)]) == (0, [20_000_000] * 2)


@pytest.mark.thorough
def test_threads_and_descriptors_do_not_grow_with_the_number_of_requests(
    chaos: MakeChaos, start_batch: StartBatch
) -> None:
    """Some answers break, some requests are refused, and some connections close."""
    server = chaos(busy=0.02, cut=0.1, retry_after="0")
    run = start_batch(server, "-j4", "--retries", "9", stdin=subprocess.PIPE)
    assert run.stdin
    assert run.stdout
    seen = []
    for begin in (0, 100):
        run.stdin.write(encoded([f"line {number}" for number in range(begin, begin + 100)]))
        run.stdin.flush()
        for _ in range(100):
            assert json.loads(run.stdout.readline())["complete"]
        process = Path(f"/proc/{run.pid}")
        seen.append((len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))))
    assert seen[1][0] <= 32 + 3 * 4
    assert seen[1][1] <= seen[0][1] + 4
    run.stdin.close()
    assert run.wait(20) == 0
