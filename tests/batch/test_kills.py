"""Kills, full disks and chaos: every line ends in exactly one complete result, and little is paid twice."""

import contextlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from batching import Ask, Chaos, MakeChaos, MakeDesk, Questions, command, reach, results_in
from outfolder import names, partial
from process import NO_BYTECODE, can_trace

pytest_plugins = ["batching"]

traced = pytest.mark.skipif(not can_trace(), reason="strace cannot trace here")


def prompts_with_duplicates(count: int) -> list[str]:
    return [f"line {number}" if number % 10 else "twin" for number in range(count)]


def run_with_kills(
    server: Chaos, line: list[str], environment: dict[str, str], kills: int, within_s: tuple[float, float]
) -> None:
    """Run until the batch succeeds, after `kills` kills at random moments."""
    chance = random.Random(3)
    for number in [chance.choice([signal.SIGKILL, signal.SIGTERM]) for _ in range(kills)] + [None] * 5:
        run = subprocess.Popen(line, env=environment | reach(server), stderr=subprocess.DEVNULL)
        if number:
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(chance.uniform(*within_s))
            run.send_signal(number)
        status = run.wait(900)  # a server that refuses a seventh of all requests gets few at once
        if status == 0:
            return
        assert status in {6, 8, -signal.SIGKILL, -signal.SIGTERM}
    raise AssertionError("it does not end well")


@pytest.mark.parametrize(
    ("lines", "jobs", "kills"),
    [
        pytest.param(80, 8, 3, id="small", marks=pytest.mark.timeout(180)),
        pytest.param(1500, 32, 25, id="large", marks=[pytest.mark.nightly, pytest.mark.timeout(1500)]),
    ],
)
def test_server_failures_and_kills_never_lose_repeat_or_cut_off_a_result(
    chaos: MakeChaos, questions: Questions, out: Path, environment: dict[str, str], lines: int, jobs: int, kills: int
) -> None:
    server = chaos(busy=0.15, cut=0.1, retry_after="0", delay_s=0.02)
    prompts = prompts_with_duplicates(lines)
    line = command("-o", out, "--resume", "-j", jobs, "--grace", "2", questions(*prompts))
    run_with_kills(server, line, environment, kills, (0.4, 1.6))
    results = results_in(out)
    assert [it["index"] for it in results] == list(range(1, lines + 1))
    assert [it["text"] for it in results] == [prompt[::-1] for prompt in prompts]
    assert all(it["complete"] and it["error"] is None and it["exit_status"] == 0 for it in results)
    stats = server.stats()
    paid = sum(stats["asked"].values())
    assert paid <= lines + stats["cuts"] + kills * jobs
    assert names(out) == ["answers.jsonl"]


# A kill at every step.


def trace(
    server: Any, line: list[str], environment: dict[str, str], inject: str, log: Path, status: int | None = None
) -> subprocess.CompletedProcess[bytes]:
    calls = "write,fsync,fdatasync,rename,unlink,ftruncate"
    flags = ["-f", "-qq", "-o", str(log), "-y", "-e", f"trace={calls}", *(["-e", inject] if inject else [])]
    done = subprocess.run(
        ["strace", *flags, *line], env=environment | reach(server) | NO_BYTECODE, capture_output=True, check=False
    )
    assert status is None or done.returncode == status, (inject, done.stderr)
    return done


def calls_on_results(log: Path) -> list[tuple[str, int]]:
    """Return each call that touches a file of the results: its name, and which one of that name it is in its thread."""
    counts: Counter[tuple[str, str]] = Counter()
    found: dict[tuple[str, int], None] = {}
    for line in log.read_text(errors="replace").splitlines():
        call = re.match(r"(\d+) +(\w+)\((?:\d+<([^>]*)>)?", line)
        if call:
            counts[call[1], call[2]] += 1
            if "/out" in (call[3] or "") or call[2] in {"rename", "unlink"}:
                found[call[2], counts[call[1], call[2]]] = None
    return list(found)


@traced
@pytest.mark.thorough
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "when",
    [
        "first run",
        pytest.param("resumed", marks=pytest.mark.nightly),
        pytest.param("grown", marks=pytest.mark.nightly),
        pytest.param("stale", marks=pytest.mark.nightly),
    ],
)
def test_after_a_kill_at_any_step_the_next_run_completes_the_results(
    batch: Ask, desk: MakeDesk, questions: Questions, out: Path, environment: dict[str, str], tmp_path: Path, when: str
) -> None:
    """Kill the run before each write, sync, rename and unlink of a file with results."""
    server, log = desk(), tmp_path / "trace"
    before = tmp_path / "before"
    before.mkdir()
    first = questions("a", "b", name="first.jsonl")
    file = questions("b", "c", "b") if when == "stale" else questions("a", "b", "c", "b")
    flags = ["--drop-stale"] if when == "stale" else []
    if when != "first run":
        assert batch(server, "-o", out, first).status == 0
        if when == "resumed":
            out.rename(partial(out))
        for path in out.parent.iterdir():
            shutil.copy(path, before / path.name)
    line = command("-j1", "-o", out, "--resume", *flags, file)

    def reset() -> None:
        shutil.rmtree(out.parent)
        shutil.copytree(before, out.parent)

    trace(server, line, environment, "", log, 0)
    steps = calls_on_results(log)
    assert len(steps) > 4
    texts = [json.loads(row) for row in file.read_text().splitlines()]
    for call, count in steps:
        reset()
        server.received.clear()
        trace(server, line, environment, f"inject={call}:signal=KILL:when={count}", log, -signal.SIGKILL)
        assert batch(server, *line[2:]).status == 0, (call, count)
        assert [it["text"] for it in results_in(out)] == texts, (call, count)
        assert len(server.received) <= len(texts) + 1
        stale = out.with_name("answers.jsonl.stale")
        assert names(out) == ["answers.jsonl", *(["answers.jsonl.stale"] if when == "stale" else [])]
        if when == "stale":
            assert "a" in [it["text"] for it in results_in(stale)]


@traced
@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_a_full_disk_at_any_step_is_reported_and_leaves_no_partial_line(
    batch: Ask, desk: MakeDesk, questions: Questions, out: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    server, log, file = desk(), tmp_path / "trace", questions("a", "b", "c")
    line = command("-j1", "-o", out, "--resume", file)
    trace(server, line, environment, "", log, 0)
    for call, count in [step for step in calls_on_results(log) if step[0] in {"write", "fsync", "fdatasync", "rename"}]:
        shutil.rmtree(out.parent)
        out.parent.mkdir()
        server.received.clear()
        done = trace(server, line, environment, f"inject={call}:error=ENOSPC:when={count}", log)
        if done.returncode:  # that of the folder is of no consequence
            assert done.returncode == 11, (call, count, done.stderr)
            assert b"No space left on device" in done.stderr or call == "write"  # the message is a write, too
            assert names(out) in ([], ["answers.jsonl.partial"])
            if partial(out).exists():
                results_in(partial(out))
        assert batch(server, *line[2:]).status == 0
        assert [it["text"] for it in results_in(out)] == ["a", "b", "c"]
        assert len(server.received) <= 4


def test_a_file_size_limit_is_reported_and_the_run_can_be_resumed(
    batch: Ask, desk: MakeDesk, questions: Questions, out: Path, environment: dict[str, str]
) -> None:
    server, again = desk(), desk()  # a request of the first run may still be on its way when that has ended
    lines = [f"{number} {'x' * 200}" for number in range(40)]
    file = questions(*lines)
    done = subprocess.run(
        command("-o", out, "--resume", file),
        env=environment | reach(server) | NO_BYTECODE,
        capture_output=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)),
    )
    assert done.returncode == 11
    assert f"{partial(out)}: File too large".encode() in done.stderr
    kept = results_in(partial(out))
    assert 2 < len(kept) < 40
    assert batch(again, "-o", out, "--resume", file).status == 0
    assert [it["text"] for it in results_in(out)] == lines
    assert len(again.received) == 40 - len(kept)


@pytest.mark.parametrize("flags", [[], ["-k"]])
def test_a_full_stdout_ends_the_run_with_status_11(
    desk: MakeDesk, questions: Questions, environment: dict[str, str], flags: list[str]
) -> None:
    server = desk()
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command(*flags, questions(*prompts_with_duplicates(50))),
            env=environment | reach(server),
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 11
    assert b"stdout: No space left on device" in done.stderr
    assert len(server.received) <= 20


def test_a_read_only_folder_is_reported_before_anything_is_sent(
    batch: Ask, desk: MakeDesk, questions: Questions
) -> None:
    server = desk()
    for name in ("/proc/answers.jsonl", "/nonexistent/answers.jsonl"):
        result = batch(server, "-o", name, questions("a"))
        assert (result.status in {2, 11}, server.received) == (True, [])
        assert len(result.stderr.splitlines()) == 1
        assert "answers.jsonl" in result.stderr


def test_a_full_disk_loses_no_answer_that_was_written(
    batch: Ask, desk: MakeDesk, questions: Questions, tmp_path: Path
) -> None:
    """A separate file system of 64 kB."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "smai-test", str(small)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("nothing may be mounted here")
    try:
        server, again, place = desk(), desk(), small / "answers.jsonl"
        lines = [f"{number} {'x' * 1000}" for number in range(60)]
        file = questions(*lines)
        full = batch(server, "-o", place, "--resume", file)
        assert full.status == 11
        assert "No space left on device; free some space, then run it again" in full.stderr
        kept = len(results_in(partial(place)))
        assert 10 < kept < 60
        subprocess.run(["mount", "-o", "remount,size=1m", str(small)], check=True)
        assert batch(again, "-o", place, "--resume", file).status == 0
        assert [it["text"] for it in results_in(place)] == lines
        assert len(again.received) == 60 - kept
    finally:
        subprocess.run(["umount", str(small)], check=True)
