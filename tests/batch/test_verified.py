"""A run verifies its files: whatever other processes do to them, status 0 means that the file is right."""

import codecs
import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from batching import Ask, Desk, MakeChaos, MakeDesk, Questions, command, encoded, reach, results_in
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from outfolder import names, partial
from preload import preloaded
from process import NO_BYTECODE

from smai_cli.batch.feed import Feed
from smai_cli.batch.input.encoding import Encoding
from smai_cli.batch.input.lines import Defaults, Line
from smai_cli.batch.input.shard import Shard
from smai_cli.batch.input.source import Input
from smai_cli.batch.results.partial import PartialFile
from smai_cli.batch.results.plan import Plan
from smai_cli.errors import OutputError, UsageError

pytest_plugins = ["batching"]

BOM = b"\xef\xbb\xbf"
FLOCK = "int flock(int fd, int operation) { return 0; }\n"


def row(number: int) -> bytes:
    """Return a result as a run writes it."""
    value = {"id": None, "index": number, "text": "x" * (number % 7), "exit_status": 0, "error": None}
    return json.dumps(value | {"request": f"sha256:{number:064x}"}).encode() + b"\n"


# Edits of a file by another process: what they do to its bytes, at a place that a number between 0 and 1 says.


def insert_newline(data: bytes, place: float) -> bytes:
    at = int(place * len(data))
    return data[:at] + b"\n" + data[at:]


def remove_byte(data: bytes, place: float) -> bytes:
    at = int(place * len(data))
    return data[:at] + data[at + 1 :]


def flip(data: bytes, place: float) -> bytes:
    at = int(place * len(data))
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :] if at < len(data) else data


def cut(data: bytes, place: float) -> bytes:
    return data[: int(place * len(data))]


def repeat_line(data: bytes, place: float) -> bytes:
    lines = data.splitlines(keepends=True)
    return data + (lines[int(place * len(lines)) % len(lines)] if lines else b"")


def swap(data: bytes, _: float) -> bytes:
    return b"".join(data.splitlines(keepends=True)[::-1])


def edit_text(data: bytes, place: float) -> bytes:
    at = data.find(b'"text"', int(place * len(data)))
    return data if at < 0 else data[: at + 9] + b"edited" + data[at + 9 :]


CONTENT: dict[str, Callable[[bytes, float], bytes]] = {
    "a newline at the end": lambda data, _: data + b"\n",
    "bytes without a newline at the end": lambda data, _: data + b"garbage",
    "a BOM": lambda data, _: data if data.startswith(BOM) else BOM + data,
    "a byte put in": insert_newline,
    "a byte taken out": remove_byte,
    "a byte changed": flip,
    "cut": cut,
    "a line twice": repeat_line,
    "lines in another order": swap,
    "a line edited by hand": edit_text,
}


def append_in_place(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def edit(path: Path, how: str, place: float, *, replaces: bool) -> None:
    """Edit a file as a shell does, in place, or as an editor that puts another file in its place."""
    if not path.exists():
        return
    old = path.read_bytes()
    new = CONTENT[how](old, place)
    if replaces:
        other = path.with_name("other")
        other.write_bytes(new)
        other.rename(path)
    elif new.startswith(old):
        append_in_place(path, new[len(old) :])
    else:
        with path.open("r+b") as file:
            file.write(new)
            file.truncate()


EDITS = st.tuples(st.sampled_from(sorted(CONTENT)), st.floats(0, 1), st.booleans())
STEPS = st.lists(st.just("append") | st.just("sync") | st.just("remove") | EDITS, max_size=12)


def lines_of(folder: Path) -> set[bytes]:
    """Return all lines in the files of a folder, without the BOM of a file."""
    return {line for path in folder.iterdir() for line in path.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines()}


@contextlib.contextmanager
def folder_of_its_own() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@settings(max_examples=100)
@given(before=st.integers(0, 3), steps=STEPS)
@example(before=0, steps=["append", ("a newline at the end", 0.0, False), "append"])
@example(before=0, steps=["append", ("bytes without a newline at the end", 0.0, False), "append"])
@example(before=2, steps=["append", ("a byte changed", 0.5, False)])
@example(before=2, steps=["append", ("a line edited by hand", 0.0, False)])
@example(before=2, steps=["append", ("cut", 0.5, False), "append"])
@example(before=2, steps=["append", ("a BOM", 0.0, True), "append"])
@example(before=2, steps=["append", "remove", "sync", "append"])
@example(before=1, steps=[("a BOM", 0.0, False), ("a byte changed", 0.75, False)])
def test_changes_of_others_to_the_partial_file_are_never_published(before: int, steps: list[Any]) -> None:
    """No result that the edits left is lost before the file is published, and none at all after that."""
    with folder_of_its_own() as folder:
        out = folder / "out"
        partial(out).write_bytes(b"".join(map(row, range(before))))
        file = PartialFile(str(out), resumes=True)
        offsets = [offset for offset, _ in file.lines()]
        left: set[bytes] = set()
        failure = None
        try:
            for step in steps:
                if step == "append":
                    offsets.append(file.append(row(len(offsets))))
                elif step == "sync":
                    file.sync()
                elif step == "remove":
                    partial(out).unlink(missing_ok=True)
                else:
                    how, place, replaces = step
                    edit(partial(out), how, place, replaces=replaces)
            left = lines_of(folder)
            file.publish((offset, 0) for offset in offsets)
        except OutputError as error:
            failure = error
        if failure:
            assert not out.exists(), failure
            assert left <= lines_of(folder)
        else:
            assert out.read_bytes() == b"".join(map(row, range(len(offsets))))
            assert set(names(out)) - {"out.stale"} == {"out"}  # results that this run did not write are put aside


def run_with_edits(
    server: Desk, run: subprocess.Popen[bytes], out: Path, moments: list[tuple[int, tuple[str, float, bool]]]
) -> int:
    """Do each edit after the given number of requests, and let the run go on; return its status."""
    for count, (how, place, replaces) in moments:
        with server.came:
            server.came.wait_for(lambda count=count: len(server.received) >= count or run.poll() is not None, 20)  # type: ignore[misc]
        edit(partial(out), how, place, replaces=replaces)
    run.communicate(timeout=30)
    return run.returncode


LINES = [f"line {number}" for number in range(24)]


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_status_0_means_a_correct_file_whatever_other_processes_do_to_it(
    batch: Ask, desk: MakeDesk, questions: Questions, environment: dict[str, str]
) -> None:
    """A second run with --resume repairs what the first one could not."""
    file = questions(*LINES)

    @settings(max_examples=6, phases=(Phase.explicit, Phase.generate))
    @given(st.lists(st.tuples(st.integers(1, 24), EDITS), min_size=1, max_size=3))
    def check(edits: list[tuple[int, tuple[str, float, bool]]]) -> None:
        with folder_of_its_own() as folder:
            server, out = desk(delay_s=0.001), folder / "answers.jsonl"
            line = command("-j2", "-o", out, "--resume", file)
            run = subprocess.Popen(line, env=environment | reach(server), stderr=subprocess.PIPE)
            status = run_with_edits(server, run, out, sorted(edits))
            assert status in (0, 11)
            assert out.exists() == (status == 0)
            if status:  # an edited result counts as a result, a destroyed one is refused
                again = batch(desk(), "-o", out, "--resume", "--drop-stale", "--drop-stale", file)
                assert again.status == 0 or "contains lines, but no results" in again.stderr
                assert not out.exists() or [it["index"] for it in results_in(out)] == list(range(1, len(LINES) + 1))
            else:
                assert [it["text"] for it in results_in(out)] == LINES

    check()


@pytest.mark.preloaded
def test_a_newline_that_a_shell_appends_during_a_run_does_no_harm(
    desk: MakeDesk, questions: Questions, out: Path, environment: dict[str, str]
) -> None:
    server = desk()
    line = command("-j1", "-o", out, questions(*LINES))
    run = subprocess.Popen(line, env=environment | reach(server), stderr=subprocess.PIPE, text=True)
    server.wait_for(10)
    with partial(out).open("ab") as file:
        file.write(b"\nno newline")
    _, stderr = run.communicate(timeout=20)
    assert run.returncode == 0
    assert [it["text"] for it in results_in(out)] == LINES
    assert stderr == f"smai: {partial(out)}: another process writes to it; its bytes are not results of this run\n"


def test_results_that_another_process_appends_are_not_deleted(tmp_path: Path) -> None:
    out = tmp_path / "out"
    file = PartialFile(str(out), resumes=True)
    offsets = [file.append(row(0))]
    append_in_place(partial(out), row(7))
    offsets.append(file.append(row(1)))
    append_in_place(partial(out), row(8))
    file.publish((offset, 0) for offset in offsets)
    assert out.read_bytes() == row(0) + row(1)
    assert (tmp_path / "out.stale").read_bytes() == row(7) + row(8)


@pytest.fixture(scope="session")
def no_locks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process for which every lock succeeds at once, as on NFS with local locks."""
    return preloaded(tmp_path_factory.mktemp("flock"), FLOCK) | NO_BYTECODE


@pytest.mark.thorough
@pytest.mark.parametrize("attempt", [0, *(pytest.param(it, marks=pytest.mark.nightly) for it in (1, 2))])
def test_two_runs_without_a_working_lock_never_end_with_0_and_a_wrong_file(
    chaos: MakeChaos,
    questions: Questions,
    out: Path,
    environment: dict[str, str],
    no_locks: dict[str, str],
    attempt: int,
) -> None:
    server = chaos(delay_s=0.003, seed=attempt)
    lines = [f"line {number} {'x' * (number % 50)}" for number in range(150)]
    line = command("-j4", "-o", out, "--resume", questions(*lines))
    env = environment | reach(server) | no_locks
    first = subprocess.Popen(line, env=env, stderr=subprocess.DEVNULL)
    while not (partial(out).exists() and partial(out).stat().st_size > 1000 * attempt):
        assert first.poll() is None
    second = subprocess.Popen(line, env=env, stderr=subprocess.DEVNULL)
    statuses = (first.wait(60), second.wait(60))
    assert set(statuses) <= {0, 11}, statuses
    if 0 not in statuses:
        assert subprocess.run(line, env=env, check=False).returncode == 0
    assert [it["text"] for it in results_in(out)] == [text[::-1] for text in lines]


def test_a_file_system_without_locks_is_named_and_the_run_goes_on(
    desk: MakeDesk, questions: Questions, out: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import errno, fcntl\n"
        "def flock(*_):\n"
        "    raise OSError(errno.ENOLCK, 'No locks available')\n"
        "fcntl.flock = flock\n"
    )
    env = environment | reach(desk()) | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command("-o", out, questions("a")), env=env, capture_output=True, text=True, check=False)
    told = "this file system has no locks; make sure that only one run writes to it"
    assert (done.returncode, done.stderr) == (0, f"smai: {partial(out)}: {told}\n")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(shutil.rmtree, "was removed while the run wrote to it, and the results with it", id="removed"),
        pytest.param(lambda folder: folder.rename(folder.with_name("other")), "was moved away while", id="moved"),
    ],
)
def test_a_deleted_output_folder_ends_the_run_at_the_next_sync(
    desk: MakeDesk,
    questions: Questions,
    out: Path,
    environment: dict[str, str],
    change: Callable[[Path], None],
    words: str,
) -> None:
    server = desk(delay_s=0.02)
    line = command("-j1", "-o", out, questions(*(f"{number} {'word ' * 20}" for number in range(500))))
    run = subprocess.Popen(line, env=environment | reach(server), stderr=subprocess.PIPE, text=True)
    server.wait_for(3)
    change(out.parent)
    _, stderr = run.communicate(timeout=30)
    assert run.returncode == 11
    assert f"smai: {out.parent} {words}" in stderr
    assert len(server.received) < 100


@pytest.mark.preloaded
def test_a_partial_file_with_a_bom_is_resumed_and_the_bom_is_not_published(
    batch: Ask, desk: MakeDesk, questions: Questions, out: Path
) -> None:
    server, file = desk(), questions("a", "b", "c")
    assert batch(server, "-o", out, file).status == 0
    first, second, third = out.read_bytes().splitlines(keepends=True)
    for rows, asked in (([third, first], ["b"]), ([second.rstrip()], ["a", "c"]), ([first[:40]], ["a", "b", "c"])):
        out.unlink()
        server.received.clear()
        partial(out).write_bytes(BOM + b"".join(rows))
        assert batch(server, "-o", out, "--resume", file).status == 0
        assert sorted(server.prompts) == asked
        assert [it["text"] for it in results_in(out)] == ["a", "b", "c"]
        assert BOM not in out.read_bytes()


@pytest.mark.preloaded
def test_results_captured_by_a_shell_can_be_resumed(
    batch: Ask, desk: MakeDesk, questions: Questions, out: Path
) -> None:
    """Both ways that the manual page shows: under the name of the partial file, and under the name of the file."""
    file = questions("a", "b", "c")
    captured = batch(desk(), "-j1", questions("c", "a", "b", name="other.jsonl")).stdout
    torn = captured[: captured.index(b"\n", captured.index(b"\n") + 1) + 20]
    for place in (partial(out), out):
        place.write_bytes(torn)
        server = desk()
        assert batch(server, "-o", out, "--resume", file).status == 0
        assert (server.prompts, [it["text"] for it in results_in(out)]) == (["b"], ["a", "b", "c"])
        assert [it["index"] for it in results_in(out)] == [1, 2, 3]
        out.unlink()
    out.write_bytes(captured)  # complete, and in the order in which the answers came
    assert batch(desk(), "-o", out, "--resume", file).status == 0
    assert ([it["text"] for it in results_in(out)], names(out)) == (["a", "b", "c"], ["answers.jsonl"])


# The input.

DEFAULTS = Defaults(model="m", api="chat", system=None, parameters={}, extra_body={})


@settings(max_examples=100)
@given(
    lines=st.lists(st.text("ab é", min_size=1, max_size=4), min_size=1, max_size=8),
    taken=st.integers(0, 8),
    how=st.sampled_from(["a byte changed", "a byte put in", "a byte taken out", "cut", "lines in another order"]),
    place=st.floats(0, 1),
    is_shard=st.booleans(),
)
def test_the_validated_lines_are_sent_or_the_run_ends_and_names_the_line(
    lines: list[str], taken: int, how: str, place: float, is_shard: bool
) -> None:
    with folder_of_its_own() as folder:
        path = folder / "questions"
        old = encoded([f"?{line}" for line in lines])
        path.write_bytes(old)
        os.utime(path, (1, 1))
        with path.open("rb") as file:
            source = Input(file.fileno(), "it", Shard(1, 1) if is_shard else None)
            feed = Feed(source, DEFAULTS, Encoding(), Plan())
            feed.check()
            sent: list[Any] = []

            def take(count: int) -> None:
                while len(sent) < count and (job := feed.take()):
                    assert isinstance(job.line, Line)
                    sent.append(job.line.request.messages[-1].content)

            take(taken)
            edit(path, how, place, replaces=False)
            failure = None
            try:
                take(len(lines))
                feed.check_unchanged()
            except UsageError as error:
                failure = error.describe()
            if failure:
                assert "the input changed during the run: " in failure
                assert "line " in failure
            else:
                now = path.read_bytes().rstrip(b"\n")
                assert now == old.rstrip(b"\n")
                assert len(sent) == len(lines)
            assert sent == [f"?{line}" for line in lines][: len(sent)]


@pytest.mark.thorough
@pytest.mark.preloaded
@pytest.mark.parametrize("size", ["same", "other"])
@pytest.mark.parametrize("is_asked", [True, pytest.param(False, marks=pytest.mark.nightly)])
def test_an_input_edited_in_place_ends_the_run_with_2_and_the_line(
    desk: MakeDesk, questions: Questions, out: Path, environment: dict[str, str], size: str, is_asked: bool
) -> None:
    """Also if the edited line had been sent before in its old form."""
    server = desk()
    server.open.clear()
    file = questions(*(f"{number:04} {'x' * 20_000}" for number in range(20)))
    run = subprocess.Popen(
        command("-j1", "-o", out, file), env=environment | reach(server), stderr=subprocess.PIPE, text=True
    )
    server.wait_for(1)
    number = 1 if is_asked else 15
    old = b'"%04d x' % (number - 1)
    new = b'"%04d y' % (number - 1) if size == "same" else b'"%04d more ' % (number - 1)
    data = file.read_bytes().replace(old, new)
    with file.open("r+b") as opened:
        opened.write(data)
    server.open.set()
    _, stderr = run.communicate(timeout=30)
    assert run.returncode == 2
    assert f"smai: the input changed during the run: line {number} differs" in stderr
    assert names(out) == ["answers.jsonl.partial"]
    assert not any("more" in prompt or "y" in prompt for prompt in server.prompts)


@pytest.mark.preloaded
def test_a_bom_before_the_input_is_not_part_of_it(batch: Ask, desk: MakeDesk, tmp_path: Path) -> None:
    path = tmp_path / "questions"
    for flags, line, text in (([], b'"a"\n', "a"), (["--lines"], b"a\n", "a"), ([], b'\n{"prompt": "b"}\n', "b")):
        path.write_bytes(BOM + line)
        server = desk()
        for operand in (path, "-"):
            result = batch(server, *flags, operand, stdin=BOM + line)
            assert (result.status, result.texts) == (0, [text])
    path.write_bytes(BOM + b"\n")
    assert batch(desk(), path).status == 2


@pytest.mark.thorough
def test_time_in_which_the_process_is_stopped_does_not_count_as_server_silence(
    desk: MakeDesk, questions: Questions, environment: dict[str, str]
) -> None:
    server = desk()
    server.open.clear()
    line = command("--idle-timeout", "4", "--timeout", "4", "--max-time", "5", questions("a"))
    run = subprocess.Popen(line, env=environment | reach(server), stdout=subprocess.PIPE)
    server.wait_for(1)
    run.send_signal(signal.SIGSTOP)
    time.sleep(6)  # the claim is about time that passes
    run.send_signal(signal.SIGCONT)
    server.open.set()
    stdout, _ = run.communicate(timeout=20)
    assert (run.returncode, json.loads(stdout)["text"]) == (0, "a")
