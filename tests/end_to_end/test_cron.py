"""Under cron: no terminal, a minimal environment, odd standard inputs; the mail is one line and the status is right."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Server
from process import SMAI, clean_environment

from smai_cli.mock.script import POEM

BIN = str(Path(SMAI).parent)
ENVIRONMENTS: dict[str, Callable[[Path], dict[str, str]]] = {
    "with HOME": lambda home: {"PATH": f"{BIN}:{os.defpath}", "HOME": str(home)},
    "without HOME, LANG and TERM": lambda _: {"PATH": f"{BIN}:{os.defpath}"},
    "with a HOME that is not there": lambda _: {"PATH": f"{BIN}:{os.defpath}", "HOME": "/nonexistent/home"},
    "with LC_ALL=C": lambda home: {"PATH": f"{BIN}:{os.defpath}", "HOME": str(home), "LC_ALL": "C"},
}
INPUTS = {"closed": "<&-", "/dev/null": "</dev/null", "a pipe that never ends, with -n": "-n"}
ENDINGS: list[tuple[dict[str, Any], int]] = [
    ({}, 0),
    ({"status": 401}, 5),
    ({"cut_after": 3}, 8),
]


@pytest.mark.thorough
@pytest.mark.parametrize("name", ENVIRONMENTS)
@pytest.mark.parametrize("stdin", INPUTS)
def test_a_job_runs_in_a_minimal_environment_and_mails_one_line_for_a_failure(
    server: Server, tmp_path: Path, name: str, stdin: str
) -> None:
    environment = ENVIRONMENTS[name](tmp_path)
    reader, writer = os.pipe()  # it is never written to or closed
    for script, status in ENDINGS:
        command = f'exec smai ask --base-url {server(**script).url} "Grüße" {INPUTS[stdin]}'
        job = subprocess.run(["sh", "-c", command], env=environment, stdin=reader, capture_output=True, check=False)
        assert job.returncode == status
        assert job.stderr.count(b"\n") == (status != 0)
        assert job.stdout == POEM.encode() or status
    os.close(reader)
    os.close(writer)


def test_a_pipe_that_never_ends_gets_a_notice_and_the_deadline_ends_the_wait(server: Server) -> None:
    reader, writer = os.pipe()
    command = f"exec smai ask --base-url {server().url} --max-time 4 hi"
    environment = clean_environment("/nonexistent")
    job = subprocess.run(["sh", "-c", command], env=environment, stdin=reader, capture_output=True, check=False)
    os.close(reader)
    os.close(writer)
    assert job.returncode == 7
    assert job.stderr.splitlines() == [
        b"smai: waiting for the prompt on stdin; nothing has arrived for 3 s; -n does not read stdin",
        b"smai: timed out: the run took 4 s in all; raise --max-time, or try again",
    ]


def test_the_message_for_a_missing_key_names_the_server_and_two_ways_to_set_the_key(tmp_path: Path) -> None:
    for environment in (clean_environment(tmp_path), {"PATH": f"{BIN}:{os.defpath}"}):
        job = subprocess.run(["sh", "-c", "smai ask hi <&-"], env=environment, capture_output=True, check=False)
        assert job.returncode == 2
        assert job.stderr.count(b"\n") == 1
        assert b"no API key for https://api.smai.ai;" in job.stderr
        assert all(way in job.stderr for way in (b"SMAI_API_KEY", b"smai login"))


def test_a_run_creates_no_files_in_the_home_directory(server: Server, tmp_path: Path) -> None:
    environment = clean_environment(tmp_path)
    job = subprocess.run([SMAI, "ask", "-n", "--base-url", server().url, "hi"], env=environment, check=False)
    assert (job.returncode, list(tmp_path.iterdir())) == (0, [])
