"""Real engines that start smai on many machines: each line gets one answer, whatever they kill and repeat."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from batching import CHAOS
from engines import Engine, line_of_page, need, of_page, until
from process import SMAI, clean_environment

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(180)]

LINES = 400
SHARDS = 4
# One answer in twenty is cut, in addition to all other faults.
STORM = {"cut": 0.05, "busy": 0.0, "delay_s": 0.05}
Chaos = Callable[..., "Server"]


class Server:
    """A server for many requests, at `url`."""

    def __init__(self, port: str) -> None:
        self._root = f"http://127.0.0.1:{port}"
        self.url = f"{self._root}/v1"

    def asked(self) -> int:
        """Return how many answers have begun."""
        with urllib.request.urlopen(f"{self._root}/stats") as answer:
            return sum(json.load(answer)["asked"].values())


@pytest.fixture
def chaos() -> Iterator[Chaos]:
    with ExitStack() as stack:

        def start(**options: object) -> Server:
            command = [sys.executable, str(CHAOS), json.dumps(STORM | options)]
            child = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(child.kill)
            assert child.stdout
            return Server(child.stdout.readline().strip())

        yield start


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    need("slurmctld", "slurmd", "sbatch", "munged")
    with Engine("slurm.sh", tmp_path_factory.mktemp("slurm"), "SLURM_TEST_DIR") as engine:
        yield engine


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    need("sshd", "ssh", "parallel")
    with Engine("sshd.sh", tmp_path_factory.mktemp("sshd"), "SSHD_TEST_DIR") as engine:
        yield engine


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """A folder with questions.jsonl, whose questions all differ."""
    lines = [json.dumps({"id": number, "prompt": f"p{number}"}) for number in range(1, LINES + 1)]
    (tmp_path / "questions.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def results(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def count(folder: Path, shard: int) -> int:
    """Return how many results a shard has so far."""
    for name in (f"out.{shard}.jsonl.partial", f"out.{shard}.jsonl"):
        if (folder / name).exists():
            return (folder / name).read_bytes().count(b"\n")
    return 0


def assert_each_line_once(folder: Path) -> None:
    """Check that all.jsonl has one complete answer for each line, its own, in the order of the input."""
    found = results(folder / "all.jsonl")
    assert [line["id"] for line in found] == list(range(1, LINES + 1))
    assert [line["text"] for line in found] == [f"p{number}"[::-1] for number in range(1, LINES + 1)]
    assert all(line["complete"] for line in found)


def merge(folder: Path) -> None:
    command = [SMAI, "batch", "--merge", "-o", "all.jsonl", "out.{shard}.jsonl"]
    done = subprocess.run(command, cwd=folder, env=clean_environment(folder), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def sbatch_script(folder: Path) -> str:
    """Return the script of the page, with fewer shards."""
    script = folder / "smai.sbatch"
    script.write_text(of_page("Slurm").replace("auto/8", f"auto/{SHARDS}"))
    return str(script)


def test_a_slurm_array_that_is_requeued_or_cancelled_gives_each_line_one_result(
    slurm: Engine, questions: Path, chaos: Chaos
) -> None:
    script, server = sbatch_script(questions), {"SMAI_BASE_URL": chaos().url}

    def submit(*options: str) -> str:
        return slurm.run("sbatch", "--parsable", *options, folder=questions, more=server)

    def state(job: str) -> str:
        return slurm.run("squeue", "-h", "-r", "-o", "%T", "-j", job, folder=questions)

    job = submit("--array=0-3", script)
    until(lambda: min(count(questions, shard) for shard in (1, 2, 3, 4)) >= 2, "no results")
    slurm.run("scontrol", "requeue", f"{job}_1", folder=questions)
    slurm.run("scancel", f"{job}_2", f"{job}_3", folder=questions)
    until(lambda: "RUNNING" not in state(f"{job}_2") + state(f"{job}_3"), "scancel did nothing")
    assert count(questions, 2) < LINES / SHARDS
    again = submit("--array=2,3", script)
    join = line_of_page("sbatch --dependency").replace("JOB", f"{job}_0:{job}_1:{again}")
    slurm.run("sh", "-c", join, folder=questions)
    until((questions / "all.jsonl").exists, "no merge")

    assert_each_line_once(questions)
    logs = {index: (questions / f"smai.{index}.log").read_text() for index in range(4)}
    starts = {index: log.count(f"smai: shard {index or 4}/4 (Slurm array task {index})") for index, log in logs.items()}
    # More often if an earlier task still had the file, or had used up its retries: then its script starts it again.
    assert all(starts[index] >= least for index, least in enumerate([1, 2, 2, 2])), starts


def test_the_signal_of_slurm_ends_a_task_cleanly_and_its_script_requeues_it(
    slurm: Engine, questions: Path, chaos: Chaos
) -> None:
    script, server = Path(sbatch_script(questions)), chaos(delay_s=0.3, cut=0)
    script.write_text(script.read_text().replace(" batch ", " batch -j 2 "))
    # The shortest limit that there is; Slurm looks at its clock every half a minute.
    limit = ("--array=1", "--time=1", "--signal=TERM@59")
    job = slurm.run("sbatch", "--parsable", *limit, str(script), folder=questions, more={"SMAI_BASE_URL": server.url})

    def shown() -> str:
        return slurm.run("scontrol", "show", "job", f"{job}_1", folder=questions)

    until(lambda: "Restarts=1" in shown(), "not requeued")
    slurm.run("scancel", job, folder=questions)

    # What was under way has ended, so nothing was paid for nothing.
    assert 0 < len(results(questions / "out.1.jsonl.partial")) == server.asked() < LINES / SHARDS
    assert "without a result; tokens:" in (questions / "smai.1.log").read_text()


def test_srun_without_sbatch_runs_all_shards_at_the_same_time(slurm: Engine, questions: Path, chaos: Chaos) -> None:
    slurm.run(
        *("srun", "-n", str(SHARDS), SMAI, "batch", "--retries", "9", "--shard", "auto", "-o", "out.{shard}.jsonl"),
        "questions.jsonl",
        folder=questions,
        more={"SMAI_BASE_URL": chaos(delay_s=0, cut=0).url},
    )

    merge(questions)
    assert_each_line_once(questions)


def test_gnu_parallel_numbers_the_shards(questions: Path, chaos: Chaos) -> None:
    need("parallel")
    command = line_of_page("parallel --plus").replace("seq 8", f"seq {SHARDS}")
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=questions,
        env=clean_environment(questions, SMAI_BASE_URL=chaos(delay_s=0, cut=0).url),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr

    merge(questions)
    assert_each_line_once(questions)


def test_gnu_parallel_runs_a_shard_again_after_its_ssh_connection_breaks(
    sshd: Engine, questions: Path, chaos: Chaos
) -> None:
    command = of_page("GNU parallel").replace("seq 8", f"seq {SHARDS}").replace("{}/8", f"{{}}/{SHARDS}")
    command = command.replace("host1,host2", sshd.variables["PARALLEL_LOGINS"])
    command = command.replace("exec smai batch", f"exec {SMAI} batch --base-url {chaos().url}")
    # A folder below HOME would be mistaken for one below the HOME of the other machine.
    (home := questions / "home").mkdir()
    environment = sshd.environment(home)
    with subprocess.Popen(["bash", "-c", command], cwd=questions, env=environment, stderr=subprocess.PIPE) as run:
        until(lambda: min(count(questions, shard) for shard in (1, 2, 3, 4)) >= 2, "no results")
        os.kill(connection(run.pid), signal.SIGKILL)
        _, told = run.communicate()
    assert run.returncode == 0, told

    merge(questions)
    assert_each_line_once(questions)
    tries = (questions / "smai.log").read_text().splitlines()[1:]
    assert len(tries) == SHARDS, tries


def connection(parent: int) -> int:
    """Return the process of one connection of ssh below a process."""
    waiting = [parent]
    while waiting:
        children = Path(f"/proc/{waiting[0]}/task/{waiting.pop(0)}/children").read_text().split()
        for child in map(int, children):
            if Path(f"/proc/{child}/comm").read_text().strip() == "ssh":
                return child
            waiting.append(child)
    raise AssertionError("there is no connection")


def test_kubernetes_accepts_the_manifest_in_the_manual(tmp_path: Path) -> None:
    manifest = tmp_path / "job.yaml"
    manifest.write_text(of_page("Kubernetes"))
    tool = Path(SMAI).with_name("kubernetes-validate")

    done = subprocess.run([tool, "--strict", str(manifest)], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_the_retry_rules_in_the_manual_fit_the_limits_of_aws_batch() -> None:
    strategy = json.loads("{" + of_page("AWS Batch") + "}")["retryStrategy"]
    assert 1 <= strategy["attempts"] <= 10
    assert len(strategy["evaluateOnExit"]) <= 5
    assert {rule["onExitCode"] for rule in strategy["evaluateOnExit"]} == {"2", "4", "5", "9", "10"}


class Pod:
    """smai as the first process of a PID namespace, as a container has it, with the index that Kubernetes gives it."""

    def __init__(self, folder: Path, url: str, index: int, *more: str) -> None:
        words = [word.strip()[2:] for word in of_page("Kubernetes").splitlines() if word.startswith(" " * 12 + "- ")]
        words = [word.replace("/data/", f"{folder}/").replace("auto/8", f"auto/{SHARDS}") for word in words]
        command = [
            "unshare",
            "--pid",
            "--fork",
            "--kill-child",
            SMAI,
            *words[: words.index(f"{folder}/questions.jsonl") + 1],
            *more,
        ]
        environment = clean_environment(folder, SMAI_BASE_URL=url, JOB_COMPLETION_INDEX=str(index))
        self._child = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    def kill(self, signum: int) -> None:
        """Send a signal to the first process, as a node does."""
        (first,) = Path(f"/proc/{self._child.pid}/task/{self._child.pid}/children").read_text().split()
        os.kill(int(first), signum)

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the status that the node sees, and the messages."""
        _, told = self._child.communicate()
        return self._child.returncode, told


def may_have_a_namespace() -> bool:
    command = ["unshare", "--pid", "--fork", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_a_pod_of_an_indexed_job_resumes_after_sigterm_and_after_sigkill(questions: Path, chaos: Chaos) -> None:
    need("unshare")
    if not may_have_a_namespace():
        pytest.skip("nobody may have a PID namespace here")
    server = chaos(cut=0)

    def at_least(number: int) -> Pod:
        pod = Pod(questions, server.url, 0)
        until(lambda: count(questions, 4) >= number, "no results")
        return pod

    pod = at_least(5)
    pod.kill(signal.SIGTERM)
    pod.kill(signal.SIGTERM)
    status, told = pod.end()
    assert status == 128 + signal.SIGTERM
    assert "shard 4/4 (Kubernetes index 0)" in told
    first = count(questions, 4)
    assert 5 <= first == server.asked() < LINES / SHARDS

    pod = at_least(first + 8)
    pod.kill(signal.SIGKILL)
    status, told = pod.end()  # the status is that of unshare, which may have its own for it
    assert (status != 0, "complete" in told) == (True, False)

    status, told = Pod(questions, server.url, 0).end()
    assert (status, f"{LINES // SHARDS} of {LINES // SHARDS} complete" in told) == (0, True)
    assert [line["index"] for line in results(questions / "out.4.jsonl")] == list(range(4, LINES + 1, SHARDS))
    # The KILL cost no more than what was under way.
    assert LINES / SHARDS <= server.asked() <= LINES / SHARDS + 8


def test_a_pod_that_waits_for_answers_exits_after_the_grace_period(questions: Path, chaos: Chaos) -> None:
    need("unshare")
    if not may_have_a_namespace():
        pytest.skip("nobody may have a PID namespace here")
    server = chaos(cut=0, delay_s=0, hold_after=10)
    pod = Pod(questions, server.url, 0, "--grace", "0.2")
    until(lambda: count(questions, 4) == 10, "no results")
    pod.kill(signal.SIGTERM)

    status, told = pod.end()

    assert (status, count(questions, 4)) == (128 + signal.SIGTERM, 10)
    assert "10 of 100 complete, 90 without a result" in told
    assert Pod(questions, chaos(cut=0, delay_s=0).url, 0).end()[0] == 0
    assert len(results(questions / "out.4.jsonl")) == LINES / SHARDS
