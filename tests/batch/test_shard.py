"""--shard: which lines of an input a task of an engine sends, and that shards are not mixed up."""

import fcntl
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from process import Result, clean_environment, run

from smai_cli.batch.input.shard import Shard, parse_shard
from smai_cli.errors import UsageError

pytestmark = [pytest.mark.preloaded, pytest.mark.thorough]

SLURM = {
    "SLURM_ARRAY_TASK_ID": "3",
    "SLURM_ARRAY_TASK_COUNT": "8",
    "SLURM_ARRAY_TASK_MIN": "0",
    "SLURM_ARRAY_TASK_MAX": "7",
    "SLURM_ARRAY_TASK_STEP": "1",
    "SLURM_PROCID": "0",  # also without srun
}
STEP = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8"}
GRID_ENGINE = {"SGE_TASK_ID": "3", "SGE_TASK_FIRST": "1", "SGE_TASK_LAST": "8", "SGE_TASK_STEPSIZE": "1"}
LSF = {"LSB_JOBINDEX": "3", "LSB_JOBINDEX_END": "8", "LSB_JOBINDEX_STEP": "1"}
KUBERNETES = {"JOB_COMPLETION_INDEX": "3"}
PARALLEL = {"PARALLEL_SEQ": "3"}
# Engines with a count variable, and without.
WITH_COUNT = {
    "Slurm array task": SLURM,
    "srun task": STEP,
    "AWS Batch index": {"AWS_BATCH_JOB_ARRAY_INDEX": "3", "AWS_BATCH_JOB_ARRAY_SIZE": "8"},
    "Cloud Run task": {"CLOUD_RUN_TASK_INDEX": "3", "CLOUD_RUN_TASK_COUNT": "8"},
    "Google Batch task": {"BATCH_TASK_INDEX": "3", "BATCH_TASK_COUNT": "8"},
    "Grid Engine task": GRID_ENGINE,
    "LSF index": LSF,
}
WITHOUT_COUNT = {
    "Kubernetes index": KUBERNETES,
    "PBS index": {"PBS_ARRAY_INDEX": "3"},
    "Nomad index": {"NOMAD_ALLOC_INDEX": "3"},
    "GNU parallel job": PARALLEL,
}
ALL = WITH_COUNT | WITHOUT_COUNT
# Refused environments, with words of the message; all but the first ones list the variables that are set.
REFUSED = {
    "no engine": ("auto/8", {}, "no variable of a job scheduler is set"),
    "a batch script of Slurm that is no array": ("auto/8", {"SLURM_PROCID": "0"}, "SLURM_PROCID=0"),
    "srun with one task": ("auto/8", STEP | {"SLURM_STEP_NUM_TASKS": "1"}, "SLURM_STEP_NUM_TASKS=1"),
    "Grid Engine without an array": ("auto/8", {"SGE_TASK_ID": "undefined"}, "SGE_TASK_ID=undefined"),
    "LSF without an array": ("auto/8", {"LSB_JOBINDEX": "0"}, "LSB_JOBINDEX=0"),
    "two engines": ("auto/8", SLURM | PARALLEL, "Slurm (SLURM_ARRAY_TASK_ID=3) and GNU parallel (PARALLEL_SEQ=3)"),
    "several tasks of srun in an array": ("auto/8", SLURM | STEP, "Slurm (SLURM_ARRAY_TASK_ID=3) and srun"),
    "no number": ("auto/8", {"JOB_COMPLETION_INDEX": "3rd"}, "JOB_COMPLETION_INDEX='3rd' is not a number"),
    "an empty number": ("auto/8", {"JOB_COMPLETION_INDEX": ""}, "JOB_COMPLETION_INDEX='' is not a number"),
    "a negative number": ("auto/8", {"PBS_ARRAY_INDEX": "-1"}, "PBS_ARRAY_INDEX='-1' is not a number"),
    "an index after the last": ("auto/2", KUBERNETES, "JOB_COMPLETION_INDEX=3 is more than 2"),
    "an index after the count": ("auto", {"BATCH_TASK_INDEX": "9", "BATCH_TASK_COUNT": "8"}, "BATCH_TASK_INDEX=9"),
    "no count": ("auto", KUBERNETES, "JOB_COMPLETION_INDEX=3, but Kubernetes gives no count"),
    "no count where there should be one": ("auto", {"BATCH_TASK_INDEX": "3"}, "BATCH_TASK_COUNT is not set"),
    "a count that is no number": ("auto", {"BATCH_TASK_INDEX": "3", "BATCH_TASK_COUNT": "x"}, "BATCH_TASK_COUNT='x'"),
    "a count of 1": ("auto", {"CLOUD_RUN_TASK_INDEX": "0", "CLOUD_RUN_TASK_COUNT": "1"}, "CLOUD_RUN_TASK_COUNT=1"),
    "a part of an array": (
        "auto",
        SLURM | {"SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "2", "SLURM_ARRAY_TASK_MAX": "3"},
        "SLURM_ARRAY_TASK_MIN=2: this is only part of an array",
    ),
    "an array with gaps": ("auto", SLURM | {"SLURM_ARRAY_TASK_COUNT": "3"}, "this is only part of an array"),
    "an array in steps": ("auto", SLURM | {"SLURM_ARRAY_TASK_STEP": "2"}, "SLURM_ARRAY_TASK_STEP=2"),
    "a part of Grid Engine's": ("auto", GRID_ENGINE | {"SGE_TASK_FIRST": "3"}, "SGE_TASK_FIRST=3"),
    "LSF in steps": ("auto", LSF | {"LSB_JOBINDEX_STEP": "2"}, "LSB_JOBINDEX_STEP=2"),
}


@pytest.mark.parametrize("task", ALL)
def test_auto_of_n_reads_the_index_of_every_engine(task: str) -> None:
    assert parse_shard("auto/8", ALL[task]) == Shard(3, 8, f"{task} 3")


@pytest.mark.parametrize("task", WITH_COUNT)
def test_auto_takes_the_count_from_the_engine_too(task: str) -> None:
    assert parse_shard("auto", WITH_COUNT[task]) == Shard(3, 8, f"{task} 3")


@pytest.mark.parametrize("case", REFUSED)
def test_auto_refuses_a_task_that_is_not_part_of_an_array(case: str) -> None:
    text, environment, told = REFUSED[case]

    with pytest.raises(UsageError) as caught:
        parse_shard(text, environment)

    assert told in caught.value.describe()
    assert "--shard" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    ["", "3", "3/", "/8", "0/8", "9/8", "3/0", "-1/8", "3/8/2", "a/8", "auto/", "auto/0", "Auto/8", "1/2x", "٣/8"],
)
def test_a_shard_that_does_not_exist_is_refused_whatever_the_engine_says(text: str) -> None:
    with pytest.raises(UsageError):
        parse_shard(text, SLURM)


@given(st.integers(1, 300), st.integers(0, 1))
def test_an_array_that_starts_at_0_or_1_runs_each_shard_once(count: int, first: int) -> None:
    shards = [
        parse_shard(f"auto/{count}", {"JOB_COMPLETION_INDEX": str(index)}) for index in range(first, first + count)
    ]

    assert sorted(shard.number for shard in shards) == list(range(1, count + 1))


def test_tasks_of_an_array_that_run_again_keep_their_shards() -> None:
    whole = {str(index): parse_shard("auto", SLURM | {"SLURM_ARRAY_TASK_ID": str(index)}) for index in range(8)}
    part = SLURM | {"SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "2", "SLURM_ARRAY_TASK_MAX": "3"}

    assert [parse_shard("auto/8", part | {"SLURM_ARRAY_TASK_ID": index}) for index in "23"] == [whole["2"], whole["3"]]


def test_a_single_srun_task_in_an_array_takes_the_index_of_the_array() -> None:
    one = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}
    assert parse_shard("auto/8", SLURM | one).source == "Slurm array task 3"


def test_a_single_shard_needs_an_explicit_count() -> None:
    assert parse_shard("1/1", {}) == Shard(1, 1)
    assert parse_shard("auto/1", KUBERNETES | {"JOB_COMPLETION_INDEX": "0"}) == Shard(1, 1, "Kubernetes index 0")


def batch(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Result:
    return run(("batch", "--mock", *arguments), clean_environment(folder, PWD=str(folder)) | dict(environment or {}))


def prompts(folder: Path, count: int, start: str = "") -> str:
    file = folder / "prompts.jsonl"
    file.write_text(start + "".join(f'{{"id": {number}, "prompt": "p{number}"}}\n' for number in range(1, count + 1)))
    return str(file)


def indices(file: Path) -> list[int]:
    return [json.loads(line)["index"] for line in file.read_text().splitlines()]


def test_the_shards_together_contain_each_line_once(tmp_path: Path) -> None:
    source, name = prompts(tmp_path, 10, start='"first"\n\n'), str(tmp_path / "out.{shard}.jsonl")

    runs = [
        batch(
            tmp_path,
            "--shard",
            "auto",
            "-o",
            name,
            source,
            environment=SLURM
            | {"SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MAX": "2", "SLURM_ARRAY_TASK_ID": str(index)},
        )
        for index in range(3)
    ]

    assert [(done.status, done.stderr) for done in runs] == [
        (0, "smai: shard 3/3 (Slurm array task 0)\n"),
        (0, "smai: shard 1/3 (Slurm array task 1)\n"),
        (0, "smai: shard 2/3 (Slurm array task 2)\n"),
    ]
    # A line keeps its number; the second one is blank.
    assert indices(tmp_path / "out.1.jsonl") == [1, 4, 7, 10]
    assert indices(tmp_path / "out.2.jsonl") == [5, 8, 11]
    assert indices(tmp_path / "out.3.jsonl") == [3, 6, 9, 12]


@pytest.mark.parametrize("case", ["no engine", "LSF without an array", "two engines", "a part of an array"])
def test_a_refused_shard_is_status_2_and_no_file_is_created(tmp_path: Path, case: str) -> None:
    text, environment, told = REFUSED[case]
    source = prompts(tmp_path, 3)

    done = batch(tmp_path, "--shard", text, "-o", str(tmp_path / "out.{shard}"), source, environment=environment)

    assert (done.status, done.stdout) == (2, b"")
    assert told in done.stderr
    assert list(tmp_path.iterdir()) == [Path(source)]


def test_a_shard_without_lines_succeeds_and_its_file_is_empty(tmp_path: Path) -> None:
    source, out = prompts(tmp_path, 2), tmp_path / "out"
    for _ in range(2):
        assert batch(tmp_path, "--shard", "3/3", "--resume", "-o", str(out), source) == (0, b"", "")
        assert out.read_bytes() == b""


def test_every_shard_refuses_an_input_without_lines(tmp_path: Path) -> None:
    (source := tmp_path / "prompts").write_text("\n\n")

    done = batch(tmp_path, "--shard", "3/3", "-o", str(tmp_path / "out"), str(source))

    assert (done.status, list(tmp_path.iterdir())) == (2, [source])
    assert "has no lines" in done.stderr


def test_a_shard_of_a_pipe_without_lines_for_that_shard_succeeds(tmp_path: Path) -> None:
    words = ("batch", "--mock", "--shard")
    assert run((*words, "2/2"), clean_environment(tmp_path), b'"first"\n')[:2] == (0, b"")
    assert run((*words, "2/2"), clean_environment(tmp_path), b"\n")[:2] == (2, b"")


def test_a_name_with_the_shard_placeholder_is_refused_without_shard(tmp_path: Path) -> None:
    done = batch(tmp_path, "-o", str(tmp_path / "out.{shard}"), prompts(tmp_path, 2))

    assert done.status == 2
    assert "there is no shard; give --shard as well" in done.stderr


def test_a_run_with_another_shard_refuses_the_results_of_a_shard(tmp_path: Path) -> None:
    source, out = prompts(tmp_path, 9), str(tmp_path / "out")
    assert batch(tmp_path, "--shard", "2/3", "-o", out, source).status == 0
    held = Path(out).read_bytes()

    def message_of(*arguments: str) -> str:
        done = batch(tmp_path, *arguments, "--resume", "-o", out, source)
        assert (done.status, Path(out).read_bytes()) == (2, held)
        return done.stderr

    assert "has results of shard 2/3, and this is 2/4; N must stay 3" in message_of("--shard", "2/4")
    assert "and this is 3/3; each shard needs its own file: put {shard} into -o" in message_of("--shard", "3/3")
    assert "has results of shard 2/3; --shard 2/3 continues it" in message_of()
    Path(source).write_text(Path(source).read_text().replace("p1", "p0"))
    assert "has results of shard 2/3 of another input" in message_of("--shard", "2/3")


def test_a_change_anywhere_in_a_large_input_is_noticed(tmp_path: Path) -> None:
    """Also in a line of another shard, after the first megabytes, and of the same length."""
    source, out = tmp_path / "prompts", tmp_path / "out"
    source.write_text(f'"{"x" * 3_000_000}"\n"second"\n"third"\n')
    words = ("--shard", "2/3", "-o", str(out), "--resume", str(source))
    assert batch(tmp_path, *words).status == 0
    assert batch(tmp_path, *words).status == 0
    source.write_text(source.read_text().replace("third", "other"))
    assert "has results of shard 2/3 of another input" in batch(tmp_path, *words).stderr


def test_the_hash_of_a_piped_input_is_recorded_at_its_end_like_that_of_a_file(tmp_path: Path) -> None:
    source, out = prompts(tmp_path, 5), tmp_path / "out"
    words = ("batch", "--mock", "--shard", "2/3", "-o", str(out), "--resume")
    data = Path(source).read_bytes()
    assert run(words, clean_environment(tmp_path), data).status == 0
    pinned = (tmp_path / "out.shard").read_bytes()
    assert json.loads(pinned)["input_sha256"] == hashlib.sha256(data).hexdigest()
    assert run((*words, source), clean_environment(tmp_path)) == (0, b"", "")
    assert run(words, clean_environment(tmp_path), data) == (0, b"", "")
    assert (tmp_path / "out.shard").read_bytes() == pinned
    other = data.replace(b"p3", b"p0")  # of another shard
    refused = run(words, clean_environment(tmp_path), other)
    assert (refused.status, "has results of shard 2/3 of another input" in refused.stderr) == (2, True)


def test_an_input_with_appended_lines_counts_as_the_same_input(tmp_path: Path) -> None:
    source, out = prompts(tmp_path, 5), tmp_path / "out"
    assert batch(tmp_path, "--shard", "2/3", "-o", str(out), source).status == 0
    prompts(tmp_path, 9)

    assert batch(tmp_path, "--shard", "2/3", "--resume", "-o", str(out), source) == (0, b"", "")

    assert indices(out) == [2, 5, 8]
    assert json.loads((tmp_path / "out.shard").read_text())["lines"] == 3


def test_a_bad_line_of_another_shard_does_not_stop_this_one(tmp_path: Path) -> None:
    source = tmp_path / "prompts"
    source.write_text('"a"\nno JSON\n"c"\n')

    done = batch(tmp_path, "--shard", "1/2", str(source))

    assert sorted(json.loads(line)["index"] for line in done.stdout.splitlines()) == [1, 3]
    assert batch(tmp_path, "--shard", "2/2", str(source)).status == 2


@pytest.mark.thorough  # it waits for five seconds
def test_a_second_run_of_a_shard_waits_and_then_says_to_try_again(tmp_path: Path) -> None:
    source, out = prompts(tmp_path, 3), str(tmp_path / "out")
    with open(f"{out}.partial", "w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)

        done = batch(tmp_path, "--shard", "1/2", "--resume", "-o", out, source)

    assert (done.status, done.stdout) == (6, b"")
    assert "another run is writing" in done.stderr
