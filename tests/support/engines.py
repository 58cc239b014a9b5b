"""Real engines on this machine, and the scripts of smai-engines(7) for them."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import pytest
from process import clean_environment

PAGE = Path(__file__).parents[2] / "man" / "smai-engines.7"
# Daemons are in folders that only an administrator has in PATH.
TOOLS_PATH = f"{os.defpath}:/usr/sbin:/sbin"
PATIENCE_S = 60.0


def need(*tools: str) -> None:
    """Skip a test whose tools are missing; fail it in CI, where they must be installed."""
    missing = [tool for tool in tools if not shutil.which(tool, path=TOOLS_PATH)]
    if missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"not installed: {', '.join(missing)}")


def until(is_so: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Poll until `is_so` returns true; fail with `what` after `patience_s`."""
    end_s = time.monotonic() + patience_s
    while not is_so():
        assert time.monotonic() < end_s, what
        time.sleep(0.05)


def of_page(heading: str) -> str:
    """Return the first display under a heading of the page, as a reader copies it."""
    source = PAGE.read_text(encoding="utf-8").partition(f"\n.Ss {heading}\n")[2].partition("\n.Ss ")[0]
    found = re.search(r"^\.Bd -literal\n(.*?)^\.Ed$", source, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found[1].replace("\\e", "\\")


def line_of_page(start: str) -> str:
    """Return the only command of the page that begins with `start`."""
    (line,) = re.findall(rf"^\.Dl \$ ({start}.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return str(line).replace("\\(dq", '"')


class Engine:
    """An engine that a script in batch/ starts and stops, with all its files in `folder`."""

    def __init__(self, script: str, folder: Path, variable: str) -> None:
        self._script = str(Path(__file__).with_name(script))
        self._environment = clean_environment(folder, **{variable: str(folder)})
        self._environment["PATH"] += ":/usr/sbin:/sbin"
        self.variables: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._call("start")
        told = self._call("env").split()
        self.variables = dict(word.split("=", 1) for word in told if "=" in word)
        return self

    def __exit__(self, *_: object) -> None:
        self._call("stop")

    def run(self, *words: str, folder: Path, more: Mapping[str, str] | None = None) -> str:
        """Run a command in a folder to its end; return its output, and fail if it fails."""
        done = subprocess.run(
            words, cwd=folder, env=self.environment(folder, more), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout.strip()

    def environment(self, folder: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
        return clean_environment(folder, **self.variables, **(more or {}))

    def _call(self, what: str) -> str:
        # Daemons keep inherited descriptors open, so the output goes to a file, not a pipe.
        log = Path(self._environment["HOME"]) / f"{what}.out"
        with log.open("w") as out:
            status = subprocess.run(
                ["bash", self._script, what], env=self._environment, stdout=out, stderr=out, check=False, timeout=60
            ).returncode
        assert status == 0, log.read_text()
        return log.read_text()
