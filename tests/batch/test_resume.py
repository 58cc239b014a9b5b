"""-o, FILE.partial and --resume: each line is settled once, whatever happened before, and results are not mixed up."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from batching import Ask, Desk, MakeDesk, Questions, command, encoded, reach, results_in
from outfolder import names, partial

from smai_cli.batch.feed import Feed
from smai_cli.batch.input.encoding import Encoding
from smai_cli.batch.input.lines import Defaults, read_line
from smai_cli.batch.input.shard import Shard
from smai_cli.batch.input.source import Input
from smai_cli.batch.results.earlier import EarlierResults
from smai_cli.batch.results.plan import Plan
from smai_cli.errors import UsageError
from smai_cli.mock.script import Script, prompt_of
from smai_cli.mock.server import ReceivedRequest

pytest_plugins = ["batching"]
pytestmark = pytest.mark.preloaded

Result = dict[str, Any]


def write_partial_results(out: Path, *results: Any) -> None:
    """Write the partial file that a killed run with these results would leave."""
    partial(out).write_bytes(encoded(results))


def test_the_output_file_appears_in_input_order_when_all_lines_are_complete(
    batch: Ask, desk: MakeDesk, questions: Questions, out: Path
) -> None:
    lines = [f"line {number}" for number in range(40)]
    result = batch(desk(flaky=(("cut", 0.1),)), "-o", out, "-j", "16", questions(*lines))
    assert (result.status, result.stdout) == (0, b"")
    assert [it["text"] for it in results_in(out)] == lines
    assert names(out) == ["answers.jsonl"]


def test_the_output_file_does_not_appear_while_a_line_has_failed(
    batch: Ask, desk: MakeDesk, questions: Questions, out: Path
) -> None:
    server = desk()
    server.refuse["b"] = 500
    file = questions("a", "b", "c")
    result = batch(server, "-o", out, "--retries", "0", file)
    assert (result.status, names(out)) == (6, ["answers.jsonl.partial"])
    assert f"2 of 3 complete, 1 busy; tokens: 2 in, 2 out; {partial(out)}" in result.stderr
    server.refuse.clear()
    server.received.clear()
    assert batch(server, "-o", out, "--resume", file).status == 0
    assert (server.prompts, names(out)) == (["b"], ["answers.jsonl"])
    assert [it["text"] for it in results_in(out)] == ["a", "b", "c"]


def test_results_of_an_earlier_run_are_not_touched_without_resume(
    batch: Ask, desk: MakeDesk, questions: Questions, out: Path
) -> None:
    server = desk()
    partial(out).write_bytes(b'{"a whole line": 1}\n{"torn')
    result = batch(server, "-o", out, questions("a"))
    assert (result.status, server.received) == (2, [])
    assert "has results of an earlier run; --resume continues it" in result.stderr
    assert partial(out).read_bytes() == b'{"a whole line": 1}\n{"torn'


@pytest.mark.parametrize("flags", [[], ["--resume"]])
def test_a_file_of_another_user_is_never_repaired_or_appended_to(
    batch: Ask, desk: MakeDesk, questions: Questions, out: Path, flags: list[str]
) -> None:
    partial(out).write_text("The answer that `smai ask -o` has left,\nwithout a newline")
    server = desk()
    result = batch(server, "-o", out, *flags, questions("a"))
    assert (result.status, server.received) == (2, [])
    assert "contains lines, but no results" in result.stderr
    assert partial(out).read_text() == "The answer that `smai ask -o` has left,\nwithout a newline"


def test_a_file_that_a_crash_filled_with_nuls_is_continued(
    batch: Ask, desk: MakeDesk, questions: Questions, out: Path
) -> None:
    partial(out).write_bytes(bytes(100))
    assert batch(desk(), "-o", out, "--resume", questions("a", "b")).status == 0
    assert [result["complete"] for result in results_in(out)] == [True, True]


def test_resume_works_on_the_first_run_and_does_nothing_when_all_lines_are_complete(
    batch: Ask, desk: MakeDesk, questions: Questions, out: Path
) -> None:
    server, file = desk(), questions("a", "b")
    assert batch(server, "-o", out, "--resume", file).status == 0
    before = out.stat()
    again = batch(server, "-o", out, "--resume", file)
    assert (again.status, again.stderr, len(server.received)) == (0, "", 2)
    assert (out.stat().st_mtime_ns, out.stat().st_ino, names(out)) == (
        before.st_mtime_ns,
        before.st_ino,
        ["answers.jsonl"],
    )


@pytest.mark.parametrize("form", ["flat", "openai"])
def test_after_an_input_was_extended_or_reordered_only_new_lines_are_sent(
    batch: Ask, desk: MakeDesk, questions: Questions, out: Path, form: str
) -> None:
    server = desk()
    flags = ("-o", out, "--resume", "--format", form)
    assert batch(server, *flags, questions("a", "same", {"id": "x", "prompt": "b"}, "same")).status == 0
    server.received.clear()
    lines = ["new", b"\n", "same", {"id": "x", "prompt": "b"}, "a", "same", "same"]
    assert batch(server, *flags, questions(*lines)).status == 0
    assert sorted(server.prompts) == ["new", "same"]
    results = results_in(out)
    assert [it["index"] for it in results] == [1, 3, 4, 5, 6, 7]
    texts = [it["text"] if form == "flat" else _content(it) for it in results]
    assert texts == ["new", "same", "b", "a", "same", "same"]
    if form == "openai":
        assert [it["id"] for it in results] == [f"smai-{it['index']}" for it in results]


def _content(result: Result) -> Any:
    return result["response"]["body"]["choices"][0]["message"]["content"]


def test_resume_recognises_results_in_both_formats(batch: Ask, desk: MakeDesk, questions: Questions, out: Path) -> None:
    server, file = desk(), questions("a", {"custom_id": "b", "body": {"messages": [{"role": "user", "content": "b"}]}})
    for form in ("flat", "openai", "flat"):
        assert batch(server, "-o", out, "--resume", "--format", form, file).status == 0
    assert len(server.received) == 2


# Which lines are sent again.

STATUSES = {"e3": 3, "e4": 4, "e6": 6, "e7": 7, "e8": 8, "e9": 9, "e10": 10, "ok": 0}


@pytest.fixture
def mixed_results(batch: Ask, desk: MakeDesk, questions: Questions, out: Path) -> tuple[Desk, Path]:
    """A partial file with a result of each status."""
    server = desk()
    file = questions(*({"id": name, "prompt": name} for name in STATUSES))
    assert batch(server, "-o", out, file).status == 0
    results = results_in(out)
    for result in results:
        result["exit_status"] = STATUSES[result["id"]]
        result["complete"] = not result["exit_status"]
        result["error"] = {"kind": "failed"} if result["exit_status"] else None
    write_partial_results(out, *results)
    out.unlink()
    server.received.clear()
    return server, file


def test_resume_sends_lines_that_may_succeed_and_no_line_that_was_answered(
    batch: Ask, mixed_results: tuple[Desk, Path], out: Path
) -> None:
    server, file = mixed_results
    result = batch(server, "-o", out, "--resume", file)
    assert sorted(server.prompts) == ["e3", "e6", "e7", "e8"]
    assert result.status == 4  # the first of those that are left
    assert names(out) == ["answers.jsonl.partial"]
    server.received.clear()
    # No line is left to send, but not every line has an answer.
    again = batch(server, "-o", out, "--resume", file)
    assert (again.status, server.received) == (4, [])
    assert "5 of 8 complete, 1 refused, 1 length, 1 withheld" in again.stderr


def test_resume_failed_sends_every_failed_line_again(batch: Ask, mixed_results: tuple[Desk, Path], out: Path) -> None:
    server, file = mixed_results
    assert batch(server, "-o", out, "--resume-failed", file).status == 0
    assert sorted(server.prompts) == sorted(set(STATUSES) - {"ok"})
    assert names(out) == ["answers.jsonl"]


class Cutting(Desk):
    """A desk whose answers to "long ..." are cut unless 100 tokens are allowed."""

    def __init__(self) -> None:
        super().__init__(Script(delay_s=0.0, echo=True))

    def check(self, received: ReceivedRequest) -> None:
        super().check(received)
        is_long = prompt_of(received.json).startswith("long") and received.json.get("max_tokens") != 100
        self.script = self.script.replaced(finish_reason="length" if is_long else "stop")


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("form", ["flat", "openai"])
def test_resume_failed_sends_only_lines_that_were_cut_off_again_with_more_tokens(
    batch: Ask, questions: Questions, out: Path, named: bool, form: str
) -> None:
    """As the hint of the first run says, also if lines have no id and one occurs twice, and after a kill."""
    prompts = ["a", "long b", "twin", "long twin", "twin", "long twin", "c"]
    file = questions(*({"id": f"n{at}", "prompt": it} if named else it for at, it in enumerate(prompts)))
    with Cutting() as server:
        flags = ("-j1", "-o", out, "--format", form, file)
        first = batch(server, "--summary", "text", *flags)
        assert first.status == 9
        assert (
            "lines cut off by the token limit: 3; --resume-failed with more --max-tokens sends them again"
            in first.stderr
        )
        rows = partial(out).read_bytes().splitlines(keepends=True)
        server.received.clear()
        assert batch(server, "--resume-failed", "--max-tokens", "100", "--token-limit", "2", *flags).status == 2
        assert batch(server, "--resume-failed", "--max-tokens", "100", *flags).status == 0
        assert sorted(server.prompts) == ["long b", "long twin", "long twin"]
        assert [it["index"] for it in results_in(out)] == list(range(1, 8))
        assert all(it["complete"] for it in results_in(out))
        complete = [row for row in rows if json.loads(row)["complete"]]
        assert set(complete) <= set(out.read_bytes().splitlines(keepends=True))
        # All lines are complete now, and nothing is sent again.
        server.received.clear()
        assert batch(server, "--resume-failed", "--max-tokens", "100", *flags).status == 0
        assert server.received == []


def test_resume_failed_refuses_an_input_whose_prompts_changed(
    batch: Ask, desk: MakeDesk, questions: Questions, out: Path
) -> None:
    server = desk()
    assert batch(server, "-o", out, questions({"id": "a", "prompt": "a"}, "b")).status == 0
    for lines, words in (
        ([{"id": "a", "prompt": "other"}, "b"], 'line 1 ("a")'),
        ([{"id": "a", "prompt": "a"}], "line 2"),
    ):
        result = batch(server, "-o", out, "--resume-failed", "--max-tokens", "9", questions(*lines))
        assert result.status == 2
        assert words in result.stderr


@pytest.mark.parametrize(("allowed", "status"), [("2", 4), ("3", 0), ("37%", 4), ("37.5%", 0), ("100%", 0)])
def test_allow_failed_counts_the_failures_of_all_runs(
    batch: Ask, mixed_results: tuple[Desk, Path], out: Path, allowed: str, status: int
) -> None:
    server, file = mixed_results
    assert batch(server, "-o", out, "--resume", "--allow-failed", allowed, file).status == status
    assert names(out) == (["answers.jsonl.partial"] if status else ["answers.jsonl"])
    if not status:
        assert [it["id"] for it in results_in(out)] == list(STATUSES)


# What is not the same any more.


@pytest.mark.parametrize(
    ("flags", "lines", "words"),
    [
        pytest.param([], [{"id": "a", "prompt": "other"}, "b"], 'line 1 ("a")', id="prompt of an id"),
        pytest.param(["-m", "other"], [{"id": "a", "prompt": "a"}, "b"], 'line 1 ("a")', id="model"),
        pytest.param(["-t", "1"], [{"id": "a", "prompt": "a"}, "b"], 'line 1 ("a")', id="temperature"),
        pytest.param(["-s", "S"], [{"id": "a", "prompt": "a"}, "b"], 'line 1 ("a")', id="system"),
        pytest.param(
            [], [{"id": "a", "prompt": "a"}, "other"], "(line 2 of the earlier run)", id="prompt without an id"
        ),
        pytest.param([], [{"id": "a", "prompt": "a"}], "(line 2 of the earlier run)", id="a line is gone"),
    ],
)
def test_results_of_another_request_are_refused_and_with_drop_stale_moved(
    batch: Ask, desk: MakeDesk, questions: Questions, out: Path, flags: list[str], lines: list[Any], words: str
) -> None:
    server = desk()
    assert batch(server, "-o", out, questions({"id": "a", "prompt": "a"}, "b")).status == 0
    whole = out.read_bytes()
    server.received.clear()
    changed = questions(*lines)
    result = batch(server, "-o", out, "--resume", *flags, changed)
    assert (result.status, server.received, out.read_bytes(), names(out)) == (2, [], whole, ["answers.jsonl"])
    assert words in result.stderr
    assert "--drop-stale" in result.stderr
    twice = ("--drop-stale", "--drop-stale") if flags else ("--drop-stale",)
    if flags:
        refused = batch(server, "-o", out, "--resume", "--drop-stale", *flags, changed)
        assert (refused.status, server.received, out.read_bytes()) == (2, [], whole)
        assert "--drop-stale would drop 2 of 2 complete answers" in refused.stderr
    dropped = batch(server, "-o", out, "--resume", *twice, *flags, changed)
    assert dropped.status == 0
    many = 2 if flags else 1
    assert f"dropped results of changed lines: {many}, complete answers: {many}" in dropped.stderr
    kept, aside = results_in(out), results_in(out.with_name("answers.jsonl.stale"))
    assert [it["index"] for it in kept] == list(range(1, len(lines) + 1))
    # Nothing of what was paid is lost: each result is there or aside.
    assert {it["request"] for it in results_in(whole)} <= {it["request"] for it in [*kept, *aside]}
    assert len(aside) + len(kept) == 2 + len(server.received)


# What the file may look like.


def take_results(batch: Ask, server: Desk, file: Path, out: Path) -> list[Result]:
    """Run a batch, return its results, and remove its output file."""
    assert batch(server, "-o", out, file).status == 0
    results = results_in(out)
    out.unlink()
    server.received.clear()
    return results


def test_resume_removes_a_partial_last_line_and_adds_a_missing_newline(
    batch: Ask, desk: MakeDesk, questions: Questions, out: Path
) -> None:
    server, file = desk(), questions("a", "b", "c")
    results = take_results(batch, server, file, out)
    lines = [json.dumps(it).encode() for it in results]
    for tail, asked in ((lines[2][: len(lines[2]) // 2], ["c"]), (lines[2], [])):
        partial(out).write_bytes(b"\n".join([*lines[:2], tail]))
        assert batch(server, "-o", out, "--resume", file).status == 0
        assert server.prompts == asked
        assert [it["text"] for it in results_in(out)] == ["a", "b", "c"]
        out.unlink()
        server.received.clear()


def test_lines_that_are_not_results_are_reported_and_do_not_count_as_done(
    batch: Ask, desk: MakeDesk, questions: Questions, out: Path
) -> None:
    server, file = desk(), questions("a", "b")
    first, second = take_results(batch, server, file, out)
    strange = [
        b"garbage\n",
        b"\0\0\0\0\n",
        b"[]\n",
        b"5\n",
        b'"text"\n',
        b"\xff\n",
        b"{}\n",
        b"[" * 5000 + b"\n",
        first | {"exit_status": 300},
        first | {"exit_status": -1},
        first | {"exit_status": 255},
        first | {"exit_status": "0"},
        first | {"exit_status": False},
        first | {"id": ["a"]},
        first | {"id": {}},
        first | {"id": True},
        first | {"index": 2**70},
        first | {"copy": -1},
        first | {"copy": 2**70},
        first | {"request": "sha256:00"},
        first | {"request": None},
        first | {"custom_id": 1.5},
        # Edited, so that it contradicts itself.
        first | {"complete": False},
        first | {"error": {"kind": "broken"}},
        first | {"error": "broken"},
        first | {"exit_status": 9},
    ]
    write_partial_results(out, *strange[:3], second, *strange[3:])
    result = batch(server, "-o", out, "--resume", file)
    assert (result.status, server.prompts) == (0, ["a"])
    assert f"lines that are not results: {len(strange)}; input lines without a result are sent again" in result.stderr
    assert [it["text"] for it in results_in(out)] == ["a", "b"]


def test_a_notice_names_the_file_whose_lines_are_not_results(
    batch: Ask, desk: MakeDesk, questions: Questions, out: Path
) -> None:
    """Without a partial file it is the output file, for example one that a shell wrote."""
    out.write_bytes(b'{"id": "torn')
    result = batch(desk(), "-o", out, "--resume", questions("a"))
    assert result.status == 0
    assert f"{out}: lines that are not results: 1; " in result.stderr


def test_of_several_results_of_a_line_the_complete_one_counts(
    batch: Ask, desk: MakeDesk, questions: Questions, out: Path
) -> None:
    server, file = desk(), questions("a")
    (first,) = take_results(batch, server, file, out)
    failed = first | {"exit_status": 6, "complete": False, "error": {"kind": "busy"}, "text": "half"}
    write_partial_results(out, failed, first, failed | {"text": "later"})
    assert batch(server, "-o", out, "--resume", file).status == 0
    assert (server.received, results_in(out)) == ([], [first])


@pytest.mark.parametrize("what", ["a folder", "a named pipe", "a link to a file", "a link to nothing"])
def test_a_partial_file_that_is_not_a_regular_file_is_refused(
    batch: Ask, desk: MakeDesk, questions: Questions, out: Path, tmp_path: Path, what: str
) -> None:
    victim = tmp_path / "victim"
    if what == "a folder":
        partial(out).mkdir()
    elif what == "a named pipe":
        os.mkfifo(partial(out))
    else:
        if what == "a link to a file":
            victim.write_text('{"not": "yours"}')
        partial(out).symlink_to(victim)
    server = desk()
    result = batch(server, "-o", out, "--resume", questions("a"))
    assert (result.status in {2, 11}, server.received) == (True, [])
    assert len(result.stderr.splitlines()) == 1
    assert not victim.exists() or victim.read_text() == '{"not": "yours"}'


def test_the_file_keeps_its_permissions_and_its_symbolic_link(
    batch: Ask, desk: MakeDesk, questions: Questions, out: Path, tmp_path: Path
) -> None:
    real = tmp_path / "real.jsonl"
    real.write_text("old")
    real.chmod(0o640)
    out.symlink_to(real)
    assert batch(desk(), "-o", out, questions("a")).status == 0
    assert (out.is_symlink(), real.stat().st_mode & 0o777) == (True, 0o640)
    assert [it["text"] for it in results_in(real)] == ["a"]
    assert not list(tmp_path.glob("real.jsonl.*"))


def test_a_second_run_on_the_same_output_is_refused_and_the_first_one_completes(
    batch: Ask, desk: MakeDesk, questions: Questions, out: Path, environment: dict[str, str]
) -> None:
    server, file = desk(), questions("a", "b")
    server.open.clear()
    first = subprocess.Popen(command("-o", out, "--resume", file), env=environment | reach(server))
    server.wait_for(1)
    second = batch(desk(), "-o", out, "--resume", file)
    assert second.status == 6
    assert f"another run is writing {out}" in second.stderr
    server.open.set()
    assert first.wait(20) == 0
    assert len(results_in(out)) == 2


def test_a_run_that_waited_for_the_lock_sees_the_results_of_the_other_run(
    desk: MakeDesk, questions: Questions, out: Path, environment: dict[str, str]
) -> None:
    server, file = desk(), questions("a", "b")
    server.open.clear()
    line, env = command("-o", out, "--resume", file), environment | reach(server)
    first = subprocess.Popen(line, env=env)
    server.wait_for(1)
    second = subprocess.Popen(line, env=env)
    while not has_open(second, partial(out)):
        assert second.poll() is None
        time.sleep(0.01)
    server.open.set()
    assert (first.wait(20), second.wait(20)) == (0, 0)
    assert (len(server.received), names(out)) == (2, ["answers.jsonl"])


def has_open(process: subprocess.Popen[Any], path: Path) -> bool:
    """Return whether a process has a file open; True where nothing shows it."""
    folder = Path(f"/proc/{process.pid}/fd")
    if not folder.exists():
        return True
    with contextlib.suppress(FileNotFoundError):  # closed meanwhile
        return any(link.exists() and link.samefile(path) for link in folder.iterdir())
    return False


def test_a_lock_ends_with_its_process(batch: Ask, desk: MakeDesk, questions: Questions, out: Path) -> None:
    with partial(out).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
    assert batch(desk(), "-o", out, "--resume", questions("a")).status == 0


def test_a_batch_that_reads_a_pipe_can_be_resumed(batch: Ask, desk: MakeDesk, out: Path) -> None:
    server = desk()
    server.refuse["b"] = 500
    lines = encoded(["a", "b", b"bad\n"])
    assert batch(server, "-o", out, "--resume", "--retries", "0", stdin=lines).status == 6
    server.refuse.clear()
    server.received.clear()
    lines = encoded(["a", "b"])
    assert batch(server, "-o", out, "--resume", "--drop-stale", stdin=lines).status == 0
    assert (server.prompts, [it["text"] for it in results_in(out)]) == (["b"], ["a", "b"])


def test_answers_of_an_earlier_run_count_as_a_success_if_the_lines_come_from_a_pipe(
    batch: Ask, desk: MakeDesk, out: Path
) -> None:
    """Ten lines that were refused in a row do not end the run: the server has answered before."""
    server = desk()
    bad = [f"bad {number}" for number in range(15)]
    server.refuse = dict.fromkeys(bad, 400)
    assert batch(server, "-j1", "-o", out, "--halt", "now,fail=1", stdin=encoded(["a", bad[0]])).status == 4
    lines = encoded([*bad, "a", "b"])
    assert batch(server, "-j1", "-o", out, "--resume", stdin=lines).status == 4
    assert server.prompts[-1] == "b"


# What a change of the input while it is read does.


def test_an_input_that_shrinks_while_it_is_read_is_reported_and_never_complete(
    desk: MakeDesk, questions: Questions, out: Path, environment: dict[str, str]
) -> None:
    server = desk()
    server.open.clear()
    # More than one block of it: what is read ahead is read.
    file = questions(*(f"{number} {'x' * 10_000}" for number in range(100)))
    run = subprocess.Popen(
        command("-j1", "-o", out, file), env=environment | reach(server), stderr=subprocess.PIPE, text=True
    )
    server.wait_for(1)
    os.truncate(file, 0)
    server.open.set()
    _, stderr = run.communicate(timeout=30)
    assert run.returncode == 2
    assert "the input changed during the run" in stderr
    assert names(out) == ["answers.jsonl.partial"]


@pytest.mark.parametrize("shard", [None, Shard(1, 1)])
def test_an_input_that_changes_between_two_reads_is_not_sent(tmp_path: Path, shard: Shard | None) -> None:
    file = tmp_path / "questions.txt"
    file.write_text("first\nsecond\nthird")
    defaults = Defaults(model="m", api="chat", system=None, parameters={}, extra_body={}, is_text=True)
    with file.open() as opened:
        source = Input(opened.fileno(), "it", shard)
        digest = Encoding().digest(read_line(1, b"first", defaults)).hex()
        found = EarlierResults([(0, encoded([{"id": None, "index": 1, "request": digest, "exit_status": 0}]))])
        feed = Feed(source, defaults, Encoding(), Plan(found))
        feed.check()
        file.write_text("# first\nsecond\nthird")
        with pytest.raises(UsageError, match="the input changed during the run"):
            feed.take()


def test_to_check_a_line_and_its_result_takes_few_calls(tmp_path: Path) -> None:
    """To resume 100,000 results took 1.5 times as long with twice as many calls."""
    calls = 0

    def count(_: object, event: str, __: object) -> None:
        nonlocal calls
        calls += event == "call"

    many = 100
    file = tmp_path / "questions.jsonl"
    file.write_bytes(encoded([{"id": number, "prompt": "a"} for number in range(many)]))
    defaults = Defaults(model="m", api="chat", system=None, parameters={}, extra_body={})
    encoding = Encoding()
    request = encoding.digest(read_line(1, b'"a"', defaults)).hex()  # also imports what the count must not contain
    facts = {"complete": True, "text": "b", "request": request, "line_digest": request, "exit_status": 0}
    results = [encoded([{"id": number, "index": number + 1, **facts}]) for number in range(many)]
    with file.open() as opened:
        sys.setprofile(count)
        try:
            plan = Plan(EarlierResults(enumerate(results)))
            Feed(Input(opened.fileno(), "it"), defaults, encoding, plan).check()
        finally:
            sys.setprofile(None)
    assert plan.settled == many
    assert calls / many < 30


def test_a_resumed_input_with_bad_new_lines_is_refused_and_nothing_is_sent(
    batch: Ask, desk: MakeDesk, questions: Questions, out: Path
) -> None:
    server = desk()
    server.refuse["c"] = 500
    assert batch(server, "-o", out, "-j1", "--retries", "0", questions("a", "c")).status == 6
    server.received.clear()
    result = batch(server, "-o", out, "--resume", questions("a", b"5\n", "c"))
    assert (result.status, server.received) == (2, [])
    assert "line 2: it is JSON, but neither a string nor an object" in result.stderr


def test_an_input_that_grows_during_the_run_is_sent_as_it_was_checked(
    batch: Ask, desk: MakeDesk, questions: Questions, out: Path, environment: dict[str, str]
) -> None:
    server = desk()
    server.open.clear()
    file = questions("a", "b")
    run = subprocess.Popen(command("-j1", "-o", out, file), env=environment | reach(server))
    server.wait_for(1)
    with file.open("ab") as more:
        more.write(b'"c"\nbad\n')
    server.open.set()
    assert run.wait(20) == 0
    assert [it["text"] for it in results_in(out)] == ["a", "b"]
    file.write_bytes(encoded(["a", "b", "c"]))
    assert batch(server, "-o", out, "--resume", file).status == 0
    assert [it["text"] for it in results_in(out)] == ["a", "b", "c"]
    assert len(server.received) == 3


# A kill needs no handler.


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_results_before_a_kill_are_kept_and_not_requested_again(
    batch: Ask, desk: MakeDesk, questions: Questions, out: Path, environment: dict[str, str], number: signal.Signals
) -> None:
    lines = [f"line {at}" for at in range(300)]  # so many that the run does not end before the signal
    server, file = desk(delay_s=0.005), questions(*lines)
    run = subprocess.Popen(
        command("-j4", "-o", out, "--grace", "0.1", file), env=environment | reach(server), stderr=subprocess.PIPE
    )
    server.wait_for(12)
    run.send_signal(number)
    run.communicate(timeout=20)
    assert run.returncode == -number
    before = len(server.received)
    done = [line for line in partial(out).read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    assert len(done) >= before - 4 - 1
    assert batch(server, "-o", out, "--resume", file).status == 0
    assert [it["text"] for it in results_in(out)] == lines
    assert len(server.received) <= len(lines) + 4
