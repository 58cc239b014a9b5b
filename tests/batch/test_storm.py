"""Servers that are too busy, refuse or fail: how many requests a run sends, when it gives up, and its status."""

import json
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from batching import KEY, Ask, MakeChaos, MakeDesk, Questions, Run, command, encoded, reach, results_in

from smai_cli.mock.server import MockRefusal

pytestmark = pytest.mark.thorough

pytest_plugins = ["batching"]


def numbered(count: int) -> list[str]:
    return [f"line {number}" for number in range(count)]


def summary(run: Run) -> dict[str, Any]:
    return json.loads(run.stderr.splitlines()[-1])  # type: ignore[no-any-return]


@pytest.mark.nightly
def test_a_rate_limit_per_second_is_respected_without_a_failed_line(
    batch: Ask, chaos: MakeChaos, questions: Questions
) -> None:
    server = chaos(limit=20)
    result = batch(server, "-j", "64", "-k", questions(*numbered(100)))
    assert (result.status, len(result.results)) == (0, 100)
    stats = server.stats()
    assert stats["asked"] == {f"line {number}": 1 for number in range(100)}
    assert result.stderr.count("\n") < 8


@pytest.mark.nightly
@pytest.mark.timeout(180)
def test_a_batch_takes_hardly_longer_than_the_rate_limit_requires(
    batch: Ask, chaos: MakeChaos, questions: Questions
) -> None:
    server = chaos(limit=20)
    result = batch(server, "-j", "64", questions(*numbered(400)))
    assert result.status == 0
    stats = server.stats()
    assert stats["seconds"] < 1.5 * 400 / 20
    assert stats["statuses"].get("429", 0) < 0.1 * 400


@pytest.mark.nightly
@pytest.mark.timeout(180)
def test_three_batches_at_the_same_time_share_a_rate_limit(
    chaos: MakeChaos, questions: Questions, environment: dict[str, str], tmp_path: Path
) -> None:
    server = chaos(limit=20)
    file = questions(*numbered(150))
    runs = [
        subprocess.Popen(command("-j64", "-o", tmp_path / f"{at}.jsonl", file), env=environment | reach(server))
        for at in range(3)
    ]
    assert [run.wait(120) for run in runs] == [0, 0, 0]
    stats = server.stats()
    assert set(stats["asked"].values()) == {3}
    assert stats["seconds"] < 3 * 450 / 20
    assert stats["statuses"].get("429", 0) < 0.2 * 450


def test_a_429_does_not_count_as_a_retry_and_any_other_failure_does(
    batch: Ask, desk: MakeDesk, questions: Questions
) -> None:
    """With --retries 0 a line is sent once, but a request that got 429 is sent again."""
    file = questions("a")
    too_early = desk(status=429, fail_first=4, retry_after="0")
    result = batch(too_early, "--retries", "0", file)
    assert (result.status, len(too_early.received), result.results[0]["retries"]) == (0, 5, 0)
    for status in (503, 500, 529):
        failing = desk(status=status, fail_first=4, retry_after="0")
        result = batch(failing, "--retries", "1", file)
        assert (result.status, len(failing.received), result.results[0]["retries"]) == (6, 2, 1)


def test_a_429_does_not_restore_used_retries(batch: Ask, desk: MakeDesk, questions: Questions) -> None:
    server = desk(retry_after="0")
    server.next_statuses = iter([500, 429, 500, 429, 500, 429, 500, 429])
    result = batch(server, "--retries", "2", questions("a"))
    assert (result.status, len(server.received)) == (6, 5)


def test_a_broken_answer_is_requested_again_and_the_last_one_counts(
    batch: Ask, desk: MakeDesk, questions: Questions
) -> None:
    server = desk(flaky=(("cut", 0.5),), seed=3)
    lines = numbered(12)
    result = batch(server, "-k", "--retries", "9", questions(*lines))
    assert (result.status, result.texts) == (0, lines)
    assert sum(it["retries"] for it in result.results) == len(server.received) - len(lines) > 0


def test_endless_429s_end_the_run_when_the_patience_ends_with_few_requests(
    batch: Ask, desk: MakeDesk, questions: Questions, tmp_path: Path
) -> None:
    server = desk(status=429, retry_after="0")
    out = tmp_path / "answers.jsonl"
    result = batch(server, "-o", out, "-j", "64", "--patience", "2", questions(*numbered(500)))
    assert result.status == 6
    assert "nothing has succeeded for" in result.stderr
    assert "raise --patience" in result.stderr
    assert len(server.received) < 120
    assert len(result.stderr.splitlines()) < 10
    # No line has failed: --resume can send all of them.
    assert not out.exists()
    assert not Path(f"{out}.partial").exists()


def test_a_retry_after_of_an_hour_ends_the_run_without_a_wait(batch: Ask, desk: MakeDesk, questions: Questions) -> None:
    server = desk(status=429, retry_after="3600")
    result = batch(server, "-j1", questions("a", "b"))
    assert (result.status, len(server.received)) == (6, 1)
    assert "the server asks to wait 3600 s" in result.stderr


def test_a_retry_after_of_ages_stops_only_the_lines_of_its_model(
    batch: Ask, desk: MakeDesk, questions: Questions
) -> None:
    """A time in microseconds since 1970, say, is longer than a thread can wait."""
    server = desk()
    server.refuse["x"] = MockRefusal(429, headers={"Retry-After": "1764547200000000"})
    file = questions({"prompt": "x", "model": "other"}, *numbered(10))
    result = batch(server, "-j2", file)
    assert (result.status, sorted(result.texts)) == (6, numbered(10))


def test_a_line_whose_retry_after_is_an_hour_fails_without_a_wait(
    batch: Ask, desk: MakeDesk, questions: Questions
) -> None:
    server = desk()
    server.refuse["b"] = MockRefusal(500, headers={"Retry-After": "3600"})
    result = batch(server, "-k", questions("a", "b", "c"))
    assert (result.status, [it["complete"] for it in result.results]) == (6, [True, False, True])
    assert len(server.received) == 3


def test_x_should_retry_false_is_obeyed(batch: Ask, desk: MakeDesk, questions: Questions) -> None:
    server = desk()
    for status in (429, 500):
        server.refuse[str(status)] = MockRefusal(status, headers={"x-should-retry": "false"})
    result = batch(server, "-k", questions("429", "500"))
    assert (result.status, len(server.received)) == (6, 2)


@pytest.mark.parametrize(
    "flags",
    [
        ["-j", "5"],
        pytest.param(["-j", "5", "--no-adapt"], marks=pytest.mark.nightly),
        pytest.param(["-j", "1"], marks=pytest.mark.nightly),
    ],
)
def test_no_more_requests_run_at_once_than_the_option_allows(
    batch: Ask, desk: MakeDesk, questions: Questions, flags: list[str]
) -> None:
    server = desk(delay_s=0.005, flaky=(("429", 0.1), ("cut", 0.1)))
    assert batch(server, *flags, "--retries", "9", questions(*numbered(30))).status == 0
    assert server.most <= int(flags[1])


@pytest.mark.nightly
def test_requests_run_up_to_the_concurrency_limit(batch: Ask, chaos: MakeChaos, questions: Questions) -> None:
    server = chaos(delay_s=0.1, deltas=5)
    assert batch(server, "-j", "20", questions(*numbered(60))).status == 0
    assert server.stats()["most"] == 20


def test_starts_are_spaced_by_rpm(batch: Ask, desk: MakeDesk, questions: Questions) -> None:
    begun_s = time.monotonic()
    assert batch(desk(), "--rpm", "120", questions(*numbered(5))).status == 0
    assert time.monotonic() - begun_s >= 2.0


def test_connections_are_used_again(batch: Ask, chaos: MakeChaos, questions: Questions) -> None:
    server = chaos()
    assert batch(server, "-j", "4", questions(*numbered(200))).status == 0
    assert server.stats()["connections"] <= 4 + 1  # and the one of stats()


# What can never succeed.


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "invalid_api_key"), (429, "insufficient_quota"), (429, "credit_balance_exhausted"), (402, "x")],
)
def test_a_key_or_an_account_that_is_refused_ends_the_run_at_once(
    batch: Ask, chaos: MakeChaos, questions: Questions, tmp_path: Path, status: int, code: str
) -> None:
    server = chaos(status=status, code=code, retry_after="")
    out = tmp_path / "answers.jsonl"
    result = batch(server, "-o", out, "-j", "8", questions(*numbered(1000)))
    assert result.status == 5
    assert server.stats()["statuses"][str(status)] <= 8
    assert len(result.stderr.splitlines()) <= 2
    assert not list(tmp_path.glob("answers*"))  # no line has a result: after the repair, all are sent


def test_a_batch_that_gives_up_does_not_wait_for_its_open_stdin(desk: MakeDesk, environment: dict[str, str]) -> None:
    server = desk(status=401)
    run = subprocess.Popen(
        command("-k"), env=environment | reach(server), stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert run.stdin
    run.stdin.write(encoded(["a"]))
    run.stdin.flush()
    assert run.wait(20) == 5
    run.stdin.close()


def test_ten_equal_refusals_before_any_success_end_the_run_and_one_success_does_not(
    batch: Ask, desk: MakeDesk, questions: Questions
) -> None:
    server = desk(status=404)
    result = batch(server, "-j1", questions(*numbered(50)))
    assert (result.status, len(server.received), len(result.results)) == (4, 10, 10)
    assert "10 lines in a row were refused, the last one line 10: " in result.stderr
    assert "--resume-failed sends them again" in result.stderr
    server = desk()
    server.refuse = dict.fromkeys(numbered(50)[1:], 400)
    result = batch(server, "-j1", questions(*numbered(50)))
    assert (result.status, len(server.received)) == (4, 50)


def test_an_unreachable_server_ends_the_run_and_the_lines_can_be_resumed(
    batch: Ask, desk: MakeDesk, questions: Questions, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    file, out = questions(*numbered(40)), tmp_path / "answers.jsonl"
    env = {"SMAI_BASE_URL": f"http://127.0.0.1:{port}/v1"}
    server = desk()
    result = batch(server, "-o", out, "--retries", "0", file, env=env)
    assert result.status == 3
    assert "refused" in result.stderr
    assert len(result.stderr.splitlines()) <= 5
    assert batch(server, "-o", out, "--resume", file).status == 0
    assert len(results_in(out)) == 40


@pytest.mark.parametrize(("halt", "asked"), [("soon,fail=3", 3), ("now,fail=3", 3), ("soon,fail=10%", 4)])
def test_halt_ends_the_run_after_the_given_number_of_failures(
    batch: Ask, desk: MakeDesk, questions: Questions, halt: str, asked: int
) -> None:
    server = desk(finish_reason="length")
    result = batch(server, "-j1", "--halt", halt, questions(*numbered(40)))
    assert (result.status, len(server.received), len(result.results)) == (9, asked, asked)
    assert "halted: " in result.stderr


@pytest.mark.parametrize(
    ("halt", "flags", "status"), [("soon,fail=1", ("--allow-failed", "1"), 0), ("now,fail=1", (), 4)]
)
def test_halt_changes_nothing_if_the_last_line_is_the_one_that_fails(
    batch: Ask, desk: MakeDesk, questions: Questions, tmp_path: Path, halt: str, flags: tuple[str, ...], status: int
) -> None:
    out = tmp_path / "answers.jsonl"
    server = desk()
    _answer_only(server, "c")
    result = batch(server, "-j1", "-o", out, "--halt", halt, *flags, questions("a", "b", "c"))
    assert result.status == status
    assert "halted" not in result.stderr
    assert out.exists() == (status == 0)


def test_halt_soon_waits_for_running_requests_and_now_does_not(
    desk: MakeDesk, questions: Questions, environment: dict[str, str]
) -> None:
    for halt, texts in (("now,fail=1", ["bad"]), ("soon,fail=1", ["bad", "slow"])):
        server = desk()
        server.open.clear()
        run = subprocess.Popen(
            command("--halt", halt, "-j2", "--retries", "0", questions("slow", {"prompt": "bad", "model": "?"}, "c")),
            env=environment | reach(server),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        _answer_only(server, "bad")
        assert run.stdout
        first = run.stdout.readline()
        if halt.startswith("soon"):
            server.open.set()
        rest, _ = run.communicate(timeout=20)
        server.open.set()
        results = results_in(first + rest)
        assert [it["index"] for it in results] == [2, 1][: len(texts)]
        assert run.returncode == 4


def _answer_only(server: Any, prompt: str) -> None:
    """Have a server refuse one prompt; if it is not open, it answers no other."""
    check = server.check

    def refuse(received: Any) -> None:
        if received.json["messages"][-1]["content"] == prompt:
            raise MockRefusal(400)
        check(received)

    server.check = refuse


def test_no_request_starts_after_the_token_limit_is_reached(
    batch: Ask, chaos: MakeChaos, questions: Questions, tmp_path: Path
) -> None:
    server, out = chaos(), tmp_path / "answers.jsonl"
    file = questions(*numbered(10))
    result = batch(server, "-o", out, "-j1", "--token-limit", "20", file)  # five a line
    assert result.status == 2
    assert "20 tokens are used, and --token-limit is 20" in result.stderr
    assert "6 without a result" in result.stderr
    assert server.stats()["statuses"] == {"200": 4}
    assert batch(server, "-o", out, "--resume", "-j1", "--token-limit", "30", file).status == 0
    assert len(results_in(out)) == 10


def test_a_token_limit_reports_every_line_that_is_left(batch: Ask, chaos: MakeChaos, questions: Questions) -> None:
    """Lines that were read but not started are not sent either: that is not a success."""
    server = chaos(delay_s=0.02)
    result = batch(server, "-j", "8", "--rpm", "1200", "--token-limit", "5", questions(*numbered(8)))
    assert (result.status, len(result.results) < 8) == (2, True)


# Clocks.


@pytest.mark.nightly
def test_a_timeout_fails_one_line_and_the_others_continue(batch: Ask, chaos: MakeChaos, questions: Questions) -> None:
    server = chaos(hold_after=2)
    result = batch(server, "-j1", "--timeout", "1", questions("a", "b", "c"))
    assert (result.status, [it["complete"] for it in result.results]) == (7, [True, True, False])
    assert "the line took 1 s in all" in result.results[2]["error"]["message"]


@pytest.mark.nightly
@pytest.mark.parametrize("jobs", ["1", "3"])
def test_max_time_ends_the_run_and_is_never_a_success(
    batch: Ask, chaos: MakeChaos, questions: Questions, tmp_path: Path, jobs: str
) -> None:
    """With a concurrency of three, no line waits for its turn when the time is over."""
    server, out = chaos(hold_after=2), tmp_path / "answers.jsonl"
    file = questions("a", "b", "c", "d")
    result = batch(server, "-j", jobs, "-o", out, "--max-time", "2", file)
    assert result.status == 7
    assert "the run took 2 s in all" in result.stderr
    assert len(results_in(Path(f"{out}.partial"))) == 2


# Notices.


def test_a_thousand_failures_are_summed_up_in_a_few_lines(batch: Ask, desk: MakeDesk, questions: Questions) -> None:
    server = desk()
    server.refuse = dict.fromkeys(numbered(300)[1:], 400)
    result = batch(server, "-j1", questions(*({"id": line, "prompt": line} for line in numbered(300))))
    told = result.stderr.splitlines()
    assert result.status == 4
    assert len(told) == 3
    assert told[0].startswith('smai: line 2 ("line 1"): ')
    assert told[1].startswith("smai: 299 lines failed in this way (refused, HTTP 400): ")
    assert "and 294 more" in told[1]
    assert "1 of 300 complete, 299 refused" in told[2]


def test_the_status_is_that_of_the_first_failure_worth_trying_again(
    batch: Ask, desk: MakeDesk, questions: Questions
) -> None:
    server = desk()
    server.refuse = {"a": 400, "c": 503}
    assert batch(server, "--retries", "0", questions("ok", "a", "b", "c")).status == 6
    server.refuse = {"a": 400}
    assert batch(server, "--retries", "0", questions("ok", "a", "b", "c")).status == 4


def test_a_key_that_the_server_repeats_is_hidden_in_all_output(
    batch: Ask, desk: MakeDesk, questions: Questions, tmp_path: Path
) -> None:
    server = desk()
    body = {"error": {"message": f"the header says {KEY}", "code": f"bad {KEY}"}}
    server.refuse = {"a": MockRefusal(400, body), "b": MockRefusal(500, body, {"x-request-id": KEY})}
    out = tmp_path / "answers.jsonl"
    result = batch(server, "-o", out, "-v", "--retries", "0", "--summary", "json", questions("a", "b", "c"))
    assert result.status == 6
    data = Path(f"{out}.partial").read_bytes()
    assert KEY.encode() not in data
    assert b"the header says ..." in data


def test_the_summary_shows_the_final_counts(batch: Ask, desk: MakeDesk, questions: Questions, tmp_path: Path) -> None:
    server, out = desk(), tmp_path / "answers.jsonl"
    server.refuse["b"] = 400
    file = questions("a", "b", "c")
    told = summary(batch(server, "-o", out, "--summary", "json", file))
    assert told["exit_status"] == 4
    assert (told["lines"], told["complete_lines"], told["failed"]) == (3, 2, {"refused": 1})
    assert (told["complete"], told["answers"], told["output"]) == (False, 3, f"{out}.partial")
    server.refuse.clear()
    assert summary(batch(server, "-o", out, "--resume-failed", "--summary", "json", file))["complete"]
    # The counts are also printed if nothing is left to do.
    last = summary(batch(server, "-o", out, "--resume", "--summary", "json", file))
    assert (last["complete"], last["answers"], last["output"]) == (True, 0, str(out))


def test_the_summary_names_a_file_of_results_only_if_there_is_one(
    batch: Ask, desk: MakeDesk, questions: Questions, tmp_path: Path
) -> None:
    server, out = desk(), tmp_path / "answers.jsonl"
    server.refuse["b"] = 400
    file = questions("a", "b")
    told = summary(batch(server, "-o", out, "--allow-failed", "1", "--summary", "json", file))
    assert (told["exit_status"], told["output"]) == (0, str(out))
    # Nothing is sent: the results stay in the output file.
    told = summary(batch(server, "-o", out, "--resume", "--summary", "json", file))
    assert (told["exit_status"], told["answers"], told["output"]) == (4, 0, str(out))
    # The first line is refused, and no result is left.
    server.refuse["a"] = 401
    told = summary(batch(server, "-j1", "-o", tmp_path / "new", "--summary", "json", file))
    assert (told["exit_status"], told["output"]) == (5, None)
    assert not list(tmp_path.glob("new*"))


def test_few_descriptors_reduce_the_concurrency_without_a_failure(
    chaos: MakeChaos, questions: Questions, environment: dict[str, str]
) -> None:
    server = chaos(delay_s=0.02)
    line = f"ulimit -n 128; exec smai batch -j 512 {questions(*numbered(200))}"
    done = subprocess.run(
        ["bash", "-c", line], env=environment | reach(server), capture_output=True, check=False, timeout=60
    )
    assert (done.returncode, len(results_in(done.stdout))) == (0, 200)
    assert b"at once, not 512: only 128 file descriptors; raise ulimit -n" in done.stderr
    assert server.stats()["most"] <= 32
