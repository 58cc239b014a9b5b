"""Problems that users of other batch tools have reported; each test shows that smai does not have one."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from batching import Ask, MakeChaos, MakeDesk, Questions, command, encoded, reach, results_in
from outfolder import partial

pytest_plugins = ["batching"]
pytestmark = pytest.mark.preloaded


@pytest.mark.parametrize("flags", [[], ["-k"], ["-o"]])
def test_results_are_not_written_only_at_the_end(
    chaos: MakeChaos, questions: Questions, environment: dict[str, str], tmp_path: Path, flags: list[str]
) -> None:
    server, out = chaos(hold_after=2), tmp_path / "answers.jsonl"
    named = ["-o", out] if flags == ["-o"] else flags
    run = subprocess.Popen(
        command(*named, "-j1", questions("a", "b", "c")), env=environment | reach(server), stdout=subprocess.PIPE
    )
    assert run.stdout
    if flags == ["-o"]:
        while not partial(out).exists() or partial(out).read_bytes().count(b"\n") < 2:
            assert run.poll() is None
        texts = [it["text"] for it in results_in(partial(out))]
    else:
        texts = [json.loads(run.stdout.readline())["text"] for _ in range(2)]
    assert texts == ["a", "b"]
    run.kill()
    run.communicate()


def test_the_next_run_does_not_append_to_a_partial_line(
    batch: Ask, desk: MakeDesk, questions: Questions, tmp_path: Path
) -> None:
    server, out, file = desk(), tmp_path / "answers.jsonl", questions("a", "b")
    assert batch(server, "-o", out, file).status == 0
    first, second = out.read_bytes().splitlines(keepends=True)
    out.unlink()
    partial(out).write_bytes(first + second[: len(second) // 2])
    server.refuse["b"] = 500
    assert batch(server, "-o", out, "--resume", "--retries", "0", file).status == 6
    assert [it["text"] for it in results_in(partial(out))] == ["a", ""]


def test_a_run_does_not_resume_by_the_count_the_index_or_a_set_of_prompts(
    batch: Ask, desk: MakeDesk, questions: Questions, tmp_path: Path
) -> None:
    server, out = desk(), tmp_path / "answers.jsonl"
    assert batch(server, "-o", out, questions("b", "twin", "c")).status == 0
    server.received.clear()
    # By count: the first three are done. By index: 1 to 3 are. As a set: both new twins are.
    assert batch(server, "-o", out, "--resume", questions("a", "twin", "b", "twin", "c", "twin")).status == 0
    assert sorted(server.prompts) == ["a", "twin", "twin"]
    assert [(it["index"], it["text"]) for it in results_in(out)] == list(
        enumerate(["a", "twin", "b", "twin", "c", "twin"], 1)
    )


def test_resume_does_not_send_lines_again_that_the_token_limit_cut_off(
    batch: Ask, desk: MakeDesk, questions: Questions, tmp_path: Path
) -> None:
    server, out, file = desk(finish_reason="length"), tmp_path / "answers.jsonl", questions("a", "b")
    for _ in range(3):
        assert batch(server, "-o", out, "--resume", file).status == 9
    assert len(server.received) == 2


@pytest.mark.parametrize("reason", ["length", "content_filter", "none"])
def test_an_answer_without_a_normal_finish_reason_does_not_count_as_a_success(
    batch: Ask, desk: MakeDesk, questions: Questions, reason: str
) -> None:
    result = batch(desk(finish_reason=reason, done=reason != "none"), "--retries", "0", questions("a"))
    (it,) = result.results
    assert (it["complete"], it["error"] is None, it["text"]) == (False, False, "a")
    assert result.status == it["exit_status"] != 0


def test_many_429s_do_not_use_up_the_retries(batch: Ask, chaos: MakeChaos, questions: Questions) -> None:
    """Forty lines, a limit of ten a second, and no retries."""
    lines = [f"line {number}" for number in range(40)]
    result = batch(chaos(limit=10, retry_after=""), "-k", "-j", "40", "--retries", "0", questions(*lines))
    assert (result.status, [it["index"] for it in result.results]) == (0, list(range(1, 41)))


@pytest.mark.nightly
def test_the_concurrency_rises_again_after_many_429s(batch: Ask, chaos: MakeChaos, questions: Questions) -> None:
    """Twelve refusals in a row reduce the concurrency to one or two; then all requests are answered."""
    server = chaos(busy_first=12, retry_after="0", delay_s=0.02)
    assert batch(server, "-j", "6", questions(*(f"line {number}" for number in range(80)))).status == 0
    assert server.stats()["most_streams"] > 2


def test_a_refused_key_ends_a_batch_of_fifty_thousand_lines(batch: Ask, desk: MakeDesk, questions: Questions) -> None:
    server = desk(require_key="another one")
    result = batch(server, "-j", "16", questions(*range_of_prompts(5000)))
    assert (result.status, len(server.received) <= 16, len(result.stderr.splitlines()) <= 2) == (5, True, True)


def range_of_prompts(count: int) -> list[Any]:
    return [{"id": number, "prompt": f"line {number}"} for number in range(count)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_does_not_end_a_batch_with_status_0(
    desk: MakeDesk, questions: Questions, environment: dict[str, str], number: signal.Signals
) -> None:
    server = desk()
    server.open.clear()
    run = subprocess.Popen(
        command("-j2", questions("a", "b", "c")),
        env=environment | reach(server),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    server.wait_for(2)
    run.send_signal(number)
    while run.poll() is None and len(server.received) == 2:
        server.open.set()  # what runs may end
    stdout, stderr = run.communicate(timeout=20)
    assert run.returncode == -number
    assert sorted(it["text"] for it in results_in(stdout)) == ["a", "b"]
    assert b"2 of 3 complete, 1 without a result" in stderr


def test_a_second_run_does_not_send_lines_that_the_first_run_has_paid_for(
    batch: Ask, desk: MakeDesk, tmp_path: Path
) -> None:
    server, out = desk(), tmp_path / "answers.jsonl"
    lines = encoded(["a", "b"])
    for _ in range(2):
        assert batch(server, "-o", out, "--resume", stdin=lines).status == 0
    assert len(server.received) == 2
