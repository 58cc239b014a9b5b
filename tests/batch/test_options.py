"""Options that limit, check or show a run: --token-limit, --fail-empty, --dry-run, -k; and messages, each once."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from batching import Ask, MakeDesk, Questions, command, encoded, reach, results_in
from outfolder import partial
from pumping import Sink

from smai_cli.batch.results.outputs import InOrder

pytest_plugins = ["batching"]


def test_a_token_limit_does_not_wait_for_an_open_pipe(desk: MakeDesk, environment: dict[str, str]) -> None:
    server = desk()
    run = subprocess.Popen(
        command("-j2", "--token-limit", "3"),
        env=environment | reach(server),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert run.stdin
    run.stdin.write(encoded(["one two three four five"]))
    run.stdin.flush()
    assert run.wait(20) == 2  # the pipe is still open
    assert run.stderr
    assert b"--token-limit is 3; the rest of the input is left" in run.stderr.read()
    run.communicate()


def test_max_time_on_an_open_pipe_is_never_a_success(
    desk: MakeDesk, environment: dict[str, str], tmp_path: Path
) -> None:
    """Every line that has arrived is answered, and more may follow."""
    out = tmp_path / "answers.jsonl"
    run = subprocess.Popen(
        command("--max-time", "1", "-o", out),
        env=environment | reach(desk()),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert run.stdin
    run.stdin.write(encoded(["a"]))
    run.stdin.flush()
    assert run.wait(20) == 7
    assert b"the run took 1 s in all" in run.communicate()[1]
    assert not out.exists()
    assert len(results_in(Path(f"{out}.partial"))) == 1


@pytest.mark.preloaded
def test_max_time_before_an_earlier_failure_is_sent_again_is_not_a_success(
    batch: Ask, desk: MakeDesk, questions: Questions, tmp_path: Path
) -> None:
    server, out = desk(), tmp_path / "answers.jsonl"
    server.refuse["b"] = 500
    arguments = ("-o", out, "--resume", questions("a", "b"))
    assert batch(server, "--retries", "0", *arguments).status == 6
    server.open.clear()
    assert batch(server, "--max-time", "1", "--allow-failed", "1", *arguments).status == 7
    assert not out.exists()


@pytest.mark.preloaded
def test_a_token_limit_says_how_many_lines_are_left(batch: Ask, desk: MakeDesk, questions: Questions) -> None:
    result = batch(desk(), "-j1", "--token-limit", "3", questions("one two three", "b", "c"))
    assert result.status == 2
    assert "--token-limit is 3; lines left: 2; with -o, --resume sends the rest" in result.stderr


@pytest.mark.preloaded
def test_a_token_limit_counts_attempts_whose_answer_was_cut_off(
    batch: Ask, desk: MakeDesk, questions: Questions
) -> None:
    server = desk(cut_after=20)
    result = batch(server, "-j1", "--retries", "9", "--token-limit", "50", questions("word " * 30, "b"))
    assert result.status == 2
    assert 1 < len(server.received) < 9
    assert "--token-limit is 50" in result.stderr


@pytest.mark.preloaded
@pytest.mark.parametrize(("flags", "status"), [([], 0), (["--fail-empty"], 8)])
def test_an_empty_answer_fails_its_line_with_fail_empty(
    batch: Ask, desk: MakeDesk, questions: Questions, flags: list[str], status: int
) -> None:
    result = batch(desk(echo=False, reply=" \n"), "--retries", "0", *flags, questions("a"))
    (it,) = result.results
    assert (result.status, it["exit_status"], it["complete"]) == (status, status, not status)


@pytest.mark.preloaded
def test_dry_run_names_members_that_are_not_sent(batch: Ask, desk: MakeDesk, questions: Questions) -> None:
    file = questions({"prompt": "a", "temprature": 1}, {"prompt": "b", "temprature": 1, "metadata": {}, "top_p": 1})
    shown = json.loads(batch(desk(), "--dry-run", file).stdout)
    assert shown["not_sent"] == {"temprature": 2, "metadata": 1}
    template = batch(desk(), "--dry-run", "--template", "{word}", questions({"word": "a", "lang": "en"}))
    assert json.loads(template.stdout)["not_sent"] == {"lang": 1}


def test_with_k_one_notice_reports_many_results_that_wait_for_an_earlier_line() -> None:
    notices: list[str] = []
    sink = Sink()
    results = InOrder(sink, notices.append)
    for place in range(620):
        assert results.may_take(place, place + 3)
    for place in range(1, 620):
        results.append(place, b"%d\n" % place)
        assert len(notices) == (place >= 500)
    assert notices == ["500 results wait for line 3; without -k each is printed at once"]
    results.append(0, b"0\n")
    assert b"".join(sink.writes) == b"".join(b"%d\n" % place for place in range(620))


@pytest.mark.preloaded
def test_a_message_names_the_line_number_once(batch: Ask, desk: MakeDesk) -> None:
    result = batch(desk(), stdin=encoded([{"id": "x", "prompt": "a"}, {"id": "x", "prompt": "b"}]))
    assert result.status == 2
    assert "smai: line 2: the id is used twice\n" in result.stderr or 'smai: line 2 ("x"): the id' in result.stderr
    assert result.stderr.count("line 2") == 1


@pytest.mark.preloaded
@pytest.mark.parametrize(
    "change",
    [
        {"response": None, "custom_id": "a"},
        {"response": {"body": None}, "custom_id": "a"},
        {"response": {"body": {"usage": [1]}}, "custom_id": "a"},
        {"usage": {"prompt_tokens": "many"}},
        {"usage": 5},
        {"response": "text"},
    ],
)
def test_status_reports_a_results_file_that_was_edited(
    batch: Ask, desk: MakeDesk, questions: Questions, out: Path, change: dict[str, Any]
) -> None:
    assert batch(desk(), "-o", out, questions("a", "b")).status == 0
    first, second = results_in(out)
    out.write_bytes(encoded([first | change, b"garbage\n", second]))
    result = batch(desk(), "--status", out)
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout.splitlines()[1].split()[:4] == [b"-", b"complete", b"2", b"2"]


def test_an_event_above_the_limit_is_a_final_failure(
    batch: Ask, desk: MakeDesk, questions: Questions, out: Path
) -> None:
    """A retry would return the same answer, and cost the same again."""
    event = json.dumps({"choices": [{"index": 0, "delta": {"content": "x" * (17 * 1024 * 1024)}}]})
    server, file = desk(tape=f"data: {event}\n\n".encode()), questions("a")
    for _ in range(2):
        result = batch(server, "-o", out, "--resume", file)
        assert (result.status, len(server.received)) == (8, 1)
    assert "the server sent an event larger than 16 MiB" in results_in(partial(out))[0]["error"]["message"]
