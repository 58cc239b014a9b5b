"""`smai batch --merge` and `--status`: the results of many machines are joined and counted, and none is lost."""

import fcntl
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from process import Result, clean_environment, run

# What all tests begin with is three runs.
pytestmark = [pytest.mark.thorough, pytest.mark.preloaded, pytest.mark.timeout(180)]

KEYS = ("state", "lines", "complete_lines", "failed", "without_result")
N = 3


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with out.1.jsonl to out.3.jsonl, the results of ten lines, of which the last one has no id."""
    folder = tmp_path_factory.mktemp("shards")
    source = folder / "prompts"
    source.write_text("".join(f'{{"id": "{chr(96 + n)}", "prompt": "p{n}"}}\n' for n in range(1, 10)) + '"p10"\n')
    for number in range(1, N + 1):
        assert shard(folder, f"{number}/{N}").status == 0
    return folder


@pytest.fixture
def folder(shards: Path, tmp_path: Path) -> Path:
    """A copy of the folder `shards`."""
    return shutil.copytree(shards, tmp_path / "copy")


def shard(folder: Path, text: str, *more: str) -> Result:
    out = str(folder / "out.{shard}.jsonl")
    return batch("--mock", "--shard", text, "--resume", "-o", out, str(folder / "prompts"), *more)


def batch(*arguments: str) -> Result:
    return run(("batch", *arguments), clean_environment("/"))


def merge(folder: Path, *names: str) -> Result:
    files = names or [f"out.{number}.jsonl" for number in range(1, N + 1)]
    return batch("--merge", "-o", str(folder / "all"), *(str(folder / name) for name in files))


def indices(data: str | bytes) -> list[int]:
    return [json.loads(line)["index"] for line in data.splitlines()]


def change(file: Path, how: Callable[[list[str]], list[str]]) -> None:
    file.write_text("".join(how(file.read_text().splitlines(keepends=True))))


def failed(line: str) -> str:
    return json.dumps(json.loads(line) | {"exit_status": 9, "complete": False, "error": {"kind": "length"}}) + "\n"


def test_the_results_of_all_shards_are_joined_in_input_order(folder: Path) -> None:
    assert merge(folder) == (0, b"", "")

    merged = (folder / "all").read_text()
    assert indices(merged) == list(range(1, 11))
    assert sorted(merged.splitlines()) == sorted(
        line for n in range(1, N + 1) for line in (folder / f"out.{n}.jsonl").read_text().splitlines()
    )
    assert not (folder / "all.partial").exists()


def test_one_pattern_names_the_files_of_all_shards_and_stdout_is_allowed(folder: Path) -> None:
    done = batch("--merge", str(folder / "out.{shard}.jsonl"), "--summary", "text")

    assert (done.status, indices(done.stdout), done.stderr) == (0, list(range(1, 11)), "smai: 10 of 10 complete\n")


def test_merge_takes_the_first_complete_answer_of_a_line_if_a_shard_is_given_twice(folder: Path) -> None:
    for suffix in ("", ".shard"):
        shutil.copy(folder / f"out.2.jsonl{suffix}", folder / f"again.jsonl{suffix}")
    change(folder / "out.2.jsonl", lambda lines: [failed(lines[0]), *lines[1:]])
    change(folder / "again.jsonl", lambda lines: [lines[0], failed(lines[1]), *lines[2:]])

    assert merge(folder, "out.1.jsonl", "out.2.jsonl", "out.3.jsonl", "again.jsonl").status == 0

    merged = [json.loads(line) for line in (folder / "all").read_text().splitlines()]
    assert [line["index"] for line in merged] == list(range(1, 11))
    assert all(line["complete"] for line in merged)


def test_results_in_the_form_of_openai_are_joined_as_well(tmp_path: Path) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}]}
    lines = [json.dumps({"custom_id": f"c{n}", "body": body}) for n in range(4)]
    (tmp_path / "prompts").write_text("\n".join(lines) + "\n")
    assert [shard(tmp_path, f"{n}/2").status for n in (1, 2)] == [0, 0]

    assert merge(tmp_path, "out.{shard}.jsonl").status == 0

    merged = [json.loads(line) for line in (tmp_path / "all").read_text().splitlines()]
    assert [line["custom_id"] for line in merged] == ["c0", "c1", "c2", "c3"]
    message = json.loads(batch("--status", "--summary", "json", str(tmp_path / "out.{shard}.jsonl")).stdout)
    assert message["usage"]["completion_tokens"] > 0


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def rerun(text: str) -> Callable[[Path], None]:
    def change_shard(folder: Path) -> None:
        remove("out.3.jsonl")(folder)
        assert shard(folder, text).status == 0

    return change_shard


def grow(folder: Path) -> None:
    with (folder / "prompts").open("a") as file:
        file.write('"p11"\n"p12"\n')
    assert shard(folder, "3/3").status == 0


def use_the_id_of_another_line(folder: Path) -> None:
    change(folder / "out.2.jsonl", lambda lines: [json.dumps(json.loads(lines[0]) | {"id": "a"}) + "\n", *lines[1:]])


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a missing one": (remove("out.2.jsonl"), "out.2.jsonl is missing"),
    "one of another N": (rerun("3/4"), "is shard 1/3, and"),
    "one without its pin": (remove("out.2.jsonl.shard"), "out.2.jsonl.shard is missing"),
    "one in the making": (lambda folder: (folder / "out.2.jsonl.partial").touch(), "out.2.jsonl is not complete"),
    "one of an input that has grown": (grow, "if it has grown, run shard 1 again"),
    "one that lost a line": (lambda folder: change(folder / "out.2.jsonl", lambda lines: lines[1:]), "of 2 lines"),
    "one with a torn line": (
        lambda folder: change(folder / "out.2.jsonl", lambda lines: [*lines[:-1], lines[-1][:40]]),
        "has a line that is not a result, after line 5",
    ),
    "one out of order": (lambda folder: change(folder / "out.2.jsonl", lambda lines: lines[::-1]), "not in the order"),
    "lines of another one": (
        lambda folder: shutil.copy(folder / "out.1.jsonl", folder / "out.2.jsonl"),
        "has a result of line 1, not of shard 2/3",
    ),
    "two lines of one id": (use_the_id_of_another_line, 'lines 1 and 2 have the same id, "a"'),
    "a broken pin": (lambda folder: (folder / "out.2.jsonl.shard").write_text("{}"), "does not say which shard"),
}


@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=[] if place < 4 else pytest.mark.thorough) for place, name in enumerate(REFUSED)]
)
def test_an_incomplete_set_of_shards_is_refused_and_no_file_is_created(folder: Path, case: str) -> None:
    spoil, message = REFUSED[case]
    spoil(folder)

    done = merge(folder)

    assert (done.status, done.stdout, (folder / "all").exists()) == (2, b"", False)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_merge_reports_a_shard_whose_file_is_not_given(folder: Path) -> None:
    done = merge(folder, "out.1.jsonl", "out.3.jsonl")
    assert (done.status, done.stderr) == (2, "smai: 1 of 3 shards are missing: 2; name the files of all\n")


def test_a_file_is_not_merged_into_itself(folder: Path) -> None:
    done = batch("--merge", "-o", str(folder / "out.1.jsonl"), str(folder / "out.{shard}.jsonl"))
    assert done.status == 2
    assert "FILE and -o are the same file" in done.stderr
    assert indices((folder / "out.1.jsonl").read_text()) == [1, 4, 7, 10]


@pytest.mark.parametrize(
    "arguments", [("--merge",), ("--status",), ("--merge", "--status", "x"), ("--merge", "-j", "3", "x")]
)
def test_merge_and_status_refuse_options_without_effect(arguments: tuple[str, ...]) -> None:
    assert (batch(*arguments).status, batch(*arguments).stdout) == (2, b"")


def test_status_shows_the_progress_of_each_shard_and_the_total(folder: Path) -> None:
    for name in ("out.1.jsonl", "out.2.jsonl"):
        (folder / name).rename(folder / f"{name}.partial")
    remove("out.3.jsonl")(folder)
    change(folder / "out.2.jsonl.partial", lambda lines: [failed(lines[0]), lines[1], lines[2][:-20]])
    pattern = str(folder / "out.{shard}.jsonl")

    with (folder / "out.1.jsonl.partial").open() as running:
        fcntl.flock(running, fcntl.LOCK_EX)
        table = batch("--status", pattern)
        message = json.loads(batch("--status", "--summary", "json", pattern).stdout)

    assert [[one[key] for key in KEYS] for one in message["shards"]] == [
        ["running", 4, 4, {}, 0],
        ["stopped", 3, 1, {"length": 1}, 1],
        ["not started", 3, 0, {}, 3],
    ]
    assert [message[key] for key in KEYS] == [{"running": 1, "stopped": 1, "not started": 1}, 10, 5, {"length": 1}, 4]
    assert message["usage"] == {"prompt_tokens": 6, "completion_tokens": 240, "total_tokens": 246}
    assert (table.status, table.stderr) == (0, "")
    words = [line.split()[:6] for line in table.stdout.decode().splitlines()]
    assert words[1] == ["1/3", "running", "4", "4", "0", "0"]
    assert words[2] == ["2/3", "stopped", "3", "1", "1", "length"]
    assert len(words) == 5


def test_status_accepts_the_name_of_the_output_or_of_its_partial_file(folder: Path) -> None:
    (folder / "out.1.jsonl").rename(folder / "out.1.jsonl.partial")

    whole, partial = (batch("--status", str(folder / name)) for name in ("out.1.jsonl", "out.1.jsonl.partial"))

    assert whole == partial
    assert b"stopped" in whole.stdout
