"""A hint to install a package is a command that works in the environment of this smai."""

import re
import sys
from pathlib import Path

import pytest
from conftest import Smai
from process import PYTHON

import smai_cli
from smai_cli.errors import install_hint


def test_a_missing_package_comes_with_the_command_for_this_interpreter(smai: Smai, tmp_path: Path) -> None:
    stub = tmp_path / "stub"
    stub.mkdir()
    (stub / "jsonschema.py").write_text("raise ImportError('not installed')\n")
    schema = tmp_path / "schema.json"
    schema.write_text("{}")
    result = smai("ask", "--mock", "--schema", schema, "hi", env={"PYTHONPATH": str(stub)})
    assert result.status == 2
    assert result.stderr.endswith(f"; {PYTHON} -m pip install jsonschema\n")


def test_in_a_pipx_environment_the_hint_is_a_pipx_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = tmp_path / "venvs" / "smai-cli"
    prefix.mkdir(parents=True)
    monkeypatch.setattr(sys, "prefix", str(prefix))
    assert install_hint("jsonschema") == f"{sys.executable} -m pip install jsonschema"
    (prefix / "pipx_metadata.json").write_text("{}")
    assert install_hint("jsonschema") == "pipx inject smai-cli jsonschema"


def test_only_one_module_contains_install_commands() -> None:
    sources = {path: path.read_text() for path in Path(smai_cli.__file__).parent.rglob("*.py")}
    written = {path.name for path, text in sources.items() if re.search(r"pip(x)? (un)?in(stall|ject)", text)}
    assert written == {"errors.py"}
