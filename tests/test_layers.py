"""Which package may import which: only higher layers import lower ones."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import smai_cli
from smai_cli.apis import APIS, Api
from smai_cli.errors import SmaiError

PACKAGE = Path(smai_cli.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): ast.parse(path.read_text())
    for path in PACKAGE.rglob("*.py")
}
# The packages, each with those that it may use. Data goes down through them, and no two use each other. All of them may
# use the modules next to them, except `main`, the edge of the process.
PACKAGES = {
    "cli": {"answer", "config", "prompt", "http", "stream", "output", "mock", "doctor", "batch", "serve"},
    "batch": {"answer", "prompt", "http", "stream", "output"},
    "serve": {"answer", "config", "prompt", "http", "stream"},
    "doctor": {"answer", "config", "prompt", "http", "stream"},
    "mock": set(),
    "output": {"answer", "config", "prompt", "http", "stream"},
    "stream": {"answer", "prompt"},
    "http": {"answer", "config"},
    "prompt": set(),
    "config": set(),
    "answer": set(),
}
SHARED = {"__init__", "apis", "errors", "common"}
EDGE = {"main", "__main__"}


def package_of(name: str) -> str:
    return name.split(".", maxsplit=1)[0]


def imports(tree: ast.AST) -> set[str]:
    """Return the full names of the modules that a module imports, anywhere in it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own(tree: ast.AST) -> set[str]:
    """Return the names of the smai modules that a module imports."""
    found = {name.removeprefix("smai_cli.") for name in imports(tree) if name.startswith("smai_cli.")}
    return (found & set(MODULES)) | ({"__init__"} if "smai_cli.__version__" in imports(tree) else set())


def top_levels(tree: ast.AST) -> set[str]:
    return {name.split(".")[0] for name in imports(tree)}


def test_every_module_belongs_to_a_listed_package() -> None:
    assert {package_of(name) for name in MODULES} == set(PACKAGES) | SHARED | EDGE


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_package_uses_only_those_below_it(name: str) -> None:
    package = package_of(name)
    used = {package_of(other) for other in own(MODULES[name])} - {package}
    if package in PACKAGES:
        assert used <= PACKAGES[package] | SHARED
        # What ends the process, only the command line and `main` may call.
        assert package == "cli" or "common.signals" not in own(MODULES[name])
    elif name == "apis":  # only the table loads the dialect that is needed
        assert own(MODULES[name]) == {f"stream.dialects.{api.name}" for api in APIS}
    elif package in SHARED:
        assert used <= SHARED


def test_no_two_packages_use_each_other() -> None:
    below: dict[str, set[str]] = {}
    for package in reversed(PACKAGES):
        assert PACKAGES[package] <= set(below), package
        below[package] = PACKAGES[package]


def test_every_module_is_imported_by_an_explicit_import() -> None:
    """Packagers such as PyInstaller follow imports from the first module; a package runs before its modules."""
    reached: set[str] = set()
    waiting = {"__main__"}
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting |= (own(MODULES[name]) | ({name.rpartition(".")[0]} & set(MODULES))) - reached
    assert reached == set(MODULES)


@pytest.mark.parametrize(
    ("library", "package"),
    [("click", "cli"), ("requests", "http"), ("urllib3", "http"), ("sseclient", "stream"), ("splintr", "output")],
)
def test_each_library_is_imported_by_only_one_package(library: str, package: str) -> None:
    importers = {package_of(name) for name, tree in MODULES.items() if library in top_levels(tree)}
    assert importers - EDGE == {package}


def test_only_one_module_ends_the_process() -> None:
    for name, tree in MODULES.items():
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert name == "common.signals" or not calls & {"sys.exit", "os._exit", "exit", "quit", "os.kill"}, name


def test_only_the_outermost_modules_use_the_standard_streams_and_signals() -> None:
    for name, tree in MODULES.items():
        names = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert (
            package_of(name) in {"cli", *EDGE}
            or name == "common.signals"
            or not names
            & {
                "sys.stdin",
                "sys.stdout",
                "sys.stderr",
                "signal.signal",
            }
        ), name


# What JSON from outside is called, of a server or of a user, and what a library gives; `facts` goes into such.
JSON_NOUNS = {
    "body",
    "call",
    "certificate",
    "choice",
    "completion",
    "delta",
    "error",
    "extra_body",
    "facts",
    "given",
    "item",
    "logprobs",
    "members",
    "message",
    "part",
    "payload",
    "request",
    "response",
    "table",
    "usage",
    "value",
}


def parameters(tree: ast.AST) -> Iterator[tuple[str, str, str]]:
    """Yield the function, the name and the annotation of each parameter in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            for one in (*node.args.args, *node.args.kwonlyargs, node.args.kwarg, node.args.vararg):
                if one and one.annotation:
                    yield node.name, one.arg, ast.unparse(one.annotation)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_untyped_dictionary_of_options_is_passed_below_the_command_line(name: str) -> None:
    for function, parameter, annotation in parameters(MODULES[name]):
        if "Any" in annotation and annotation.startswith(("dict", "Mapping")):
            assert package_of(name) != "cli", f"{function}({parameter})"
            assert parameter in JSON_NOUNS, f"{function}({parameter})"


def test_option_values_have_precise_types_below_the_command_line() -> None:
    for name, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Options") and package_of(name) != "cli":
                fields = [ast.unparse(one.annotation) for one in node.body if isinstance(one, ast.AnnAssign)]
                assert fields, node.name
                assert not [field for field in fields if "Any" in field or "object" in field], node.name


def test_packages_modules_and_functions_respect_their_size_limits() -> None:
    folders = [PACKAGE, *(path for path in PACKAGE.rglob("*") if path.is_dir() and path.name != "__pycache__")]
    assert len([path for path in PACKAGE.iterdir() if path.name != "__pycache__"]) <= 18
    for folder in folders:
        assert len([path for path in folder.glob("*.py") if path.stem != "__init__"]) <= 16, folder
    for path in PACKAGE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 320, path
    for name, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                assert lines <= 45, f"{name}.{node.name} has {lines} lines"


# What SmaiError.__init__ takes, and `__cause__` apart.
ERROR_ATTRIBUTES = {*inspect.signature(SmaiError.__init__).parameters} - {"self"}
ERROR_NAMES = {"error", "failure", "exc", "refusal", "outcome.error"}


def test_failures_are_immutable_and_their_texts_are_never_compared() -> None:
    """The code decides by the kind, status, cause or code of a failure, because servers change their messages."""
    for name, tree in MODULES.items():
        for node in ast.walk(tree):
            targets = node.targets if isinstance(node, ast.Assign) else []
            targets = [node.target] if isinstance(node, ast.AugAssign | ast.AnnAssign) else targets
            for target in [leaf for one in targets for leaf in ast.walk(one) if isinstance(leaf, ast.Attribute)]:
                is_error = ast.unparse(target.value) in ERROR_NAMES
                assert not (is_error and target.attr in ERROR_ATTRIBUTES), f"{name}: {ast.unparse(node)}"
            if isinstance(node, ast.Compare):
                words = [f"{error}.{attribute}" for error in ERROR_NAMES for attribute in ("describe()", "hint")]
                words += [f"str({error})" for error in ERROR_NAMES - {"exc"}]
                sides = [ast.unparse(side) for side in (node.left, *node.comparators)]
                assert not {*words} & {*sides}, f"{name}: {ast.unparse(node)}"


def test_importing_the_pump_needs_no_http_library() -> None:
    reached, waiting = set(), ["stream.pump"]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += own(MODULES[name])
    assert "stream.sse" in reached
    assert not reached & {"http.exchange", "http.connections", "http.failures"}


@pytest.mark.parametrize("api", APIS, ids=lambda api: api.name)
def test_the_path_in_the_api_table_equals_that_of_the_dialect(api: Api) -> None:
    assert api.path == api.load().PATH


def test_no_two_modules_import_each_other() -> None:
    """There are no longer cycles either: a module can be read and tested after those that it imports."""
    below = {name: own(tree) - {name} for name, tree in MODULES.items()}
    while leaves := {name for name, imported in below.items() if not imported}:
        below = {name: imported - leaves for name, imported in below.items() if name not in leaves}
    assert below == {}
