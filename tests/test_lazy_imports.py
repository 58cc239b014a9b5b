"""What libraries import and hardly use is loaded at its first use, and nobody notices. Each in a new interpreter."""

import subprocess
import sys

import process
import pytest
from rawserver import PLAIN_ANSWER, Serve, reach

from smai_cli.lazy_imports import SELDOM_USED

pytest_plugins = ["rawserver"]


def python(script: str) -> str:
    """Run a script in an interpreter of its own, with the imports as `smai` has them; return what it prints."""
    begin = "import sys\nfrom smai_cli.lazy_imports import import_lazily, LazyModule\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", begin + script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def loaded_by_a_run(environment: dict[str, str], *arguments: str) -> set[str]:
    """Run smai; return the names of the modules that it has loaded, from what the interpreter says of each."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", process.SMAI, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


def test_a_run_loads_none_of_them(environment: dict[str, str], serve: Serve) -> None:
    """If this fails, a library uses one of them while it is imported by now, and the name is of no use in the list."""
    server = serve(*PLAIN_ANSWER)
    # Of a server without TLS, smai looks at the address.
    seldom = {*SELDOM_USED} - {"ipaddress"}
    assert loaded_by_a_run(environment | reach(server), "ask", "hi") & seldom == set()
    assert "ipaddress" not in loaded_by_a_run(environment, "--version")


@pytest.mark.parametrize("command", ["batch", "mock", "serve"])
def test_a_command_that_runs_long_has_all_of_them_loaded_before_it_begins(
    environment: dict[str, str], command: str
) -> None:
    """Descriptors may have run out when the first traceback is printed, and the files may be others by then."""
    assert {"linecache", "tokenize"} <= loaded_by_a_run(environment, command, "--help")


@pytest.mark.parametrize("name", SELDOM_USED)
def test_whoever_uses_one_has_all_of_it(name: str) -> None:
    script = f"""
import_lazily()
import {name} as early
assert type(early) is LazyModule
assert vars(sys.modules["{name}"]).keys() == {{"__name__", "__doc__", "__package__", "__loader__", "__spec__"}}
public = early.__all__ if hasattr(early, "__all__") else ["__file__"]
import {name} as late
assert type(late) is not LazyModule
assert all(getattr(early, member) is getattr(late, member) for member in public)
"""
    assert python(script) == ""


def test_from_one_of_them_a_part_is_imported_as_ever() -> None:
    script = """
import_lazily()
from shutil import which
from zipfile import ZipFile
import idna, shutil, zipfile
assert which is shutil.which and ZipFile is zipfile.ZipFile
print(idna.encode("bücher.example").decode())
"""
    assert python(script) == "xn--bcher-kva.example\n"


def test_what_one_of_them_does_not_have_is_missing_as_ever() -> None:
    script = """
import_lazily()
import shutil
try:
    shutil.nothing
except AttributeError as error:
    print(error)
try:
    from zipfile import nothing
except ImportError as error:
    print(error.name)
"""
    assert python(script) == "module 'shutil' has no attribute 'nothing'\nzipfile\n"


def test_whoever_has_one_of_them_already_keeps_it() -> None:
    assert python("import shutil\nimport_lazily()\nprint(type(sys.modules['shutil']) is LazyModule)") == "False\n"


def test_threads_that_use_one_for_the_first_time_all_get_it() -> None:
    script = """
import threading
sys.setswitchinterval(1e-6)
import_lazily()
import idna, zipfile
together, found = threading.Barrier(20), []

def use():
    together.wait()
    found.append((idna.encode("bücher.example"), zipfile.is_zipfile(sys.executable)))

threads = [threading.Thread(target=use) for _ in range(20)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(found) == 20, len(found)
print(set(found))
"""
    assert python(script) == "{(b'xn--bcher-kva.example', False)}\n"


def test_a_defect_is_reported_also_where_nothing_can_be_loaded_any_more() -> None:
    script = """
import sys
from smai_cli.cli import group
from smai_cli.main import main

def fails(*arguments, **more):
    raise KeyError("a defect")

group.smai.main = fails
sys.modules["traceback"] = None
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "KeyError('a defect')\nsmai: this is a defect in smai; please report it with the lines above\n"
    )
