"""Run the real smai as a user's shell would, in an environment without the settings of this machine."""

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import forkserver

SMAI = str(Path(sys.executable).with_name("smai"))
_SHEBANG = re.match(r"#!(.*python.*)", Path(SMAI).read_text())
# The interpreter of smai under the name in its first line: that may be `python3`, even if `python` runs the tests.
PYTHON = _SHEBANG[1] if _SHEBANG else sys.executable
LIMIT_S = 30
# Whether `run` starts smai with the fork server: the marker `preloaded` sets it.
PRELOADED = False
# A line of -v: the time, and what happened.
STEP = re.compile(r"smai: (\d+\.\d{3}) s: (.+)")
# A process with a file size limit would leave truncated bytecode for all later processes.
NO_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "1"}


class Result(NamedTuple):
    """The visible outcome of a run; `status` is negative if a signal ended it."""

    status: int
    stdout: bytes
    stderr: str


def clean_environment(home: Path | str, **more: str) -> dict[str, str]:
    """Return an environment without variables that could hide a defect (PYTHON*, CA and proxy variables)."""
    return {"PATH": f"{Path(SMAI).parent}:{os.defpath}", "HOME": str(home), "LANG": "C.UTF-8", **more}


def run(
    arguments: tuple[Any, ...], environment: Mapping[str, str], stdin: bytes | IO[Any] | int = subprocess.DEVNULL
) -> Result:
    """Run `smai ARGUMENTS` to its end; `stdin` is bytes for a pipe, or a file."""
    if PRELOADED and forkserver.can_run(environment):
        command = [SMAI, *map(os.fsdecode, map(_bytes, arguments))]
        status, stdout, stderr = forkserver.run(command, environment, stdin, LIMIT_S)
        return Result(status, stdout, stderr.decode())
    given: dict[str, Any] = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
    done = subprocess.run(
        [SMAI, *map(os.fsdecode, map(_bytes, arguments))],
        capture_output=True,
        env=environment,
        timeout=LIMIT_S,
        check=False,
        **given,
    )
    return Result(done.returncode, done.stdout, done.stderr.decode())


@contextlib.contextmanager
def at_most_cpu_s(limit_s: float) -> Iterator[None]:
    """Check the CPU time of the processes that end meanwhile; unlike real time, it does not depend on the load."""

    def used_s() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before_s = used_s()
    yield
    assert used_s() - before_s < limit_s


def read_steps(result: Result) -> list[str]:
    """Return the steps of -v, after checking that they are in the order of time."""
    lines = [STEP.fullmatch(line) for line in result.stderr.splitlines()]
    found = [line for line in lines if line]
    times = [float(line[1]) for line in found]
    assert times == sorted(times)
    return [line[2] for line in found]


def can_trace() -> bool:
    """Return whether strace is installed and permitted."""
    trace = ["strace", "-o", os.devnull, "-e", "inject=close:signal=SIGKILL:when=1", "cat", os.devnull]
    with contextlib.suppress(OSError):
        return subprocess.run(trace, capture_output=True, check=False).returncode == -signal.SIGKILL
    return False


def _bytes(argument: Any) -> bytes:
    return argument if isinstance(argument, bytes) else os.fsencode(str(argument))
