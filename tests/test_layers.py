"""Who may import whom: the house stays in the order in which the data meets the files."""

import ast
from pathlib import Path

import pytest

import smai_cli

PACKAGE = Path(smai_cli.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_text())
    for path in PACKAGE.rglob("*.py")
}
EDGE = {
    "main",
    "cli",
    "run",
    "target",
    "typed",
    "utf8",
    "watch",
    "__main__",
    *(name for name in MODULES if name.startswith("commands.")),
}
# What each inner module may import of smai, at most.
INNER = {
    "errors": set(),
    "tell": {"keys"},
    "text": set(),
    "tokens": set(),
    "request": {"errors"},
    "extra": {"errors", "request"},
    "problem": {"text"},
    "meaning": {"errors", "problem", "text"},
    "clocks": {"errors"},
    "retry": {"clocks", "errors"},
    "toml_lines": set(),
    "settings": {"errors", "files", "toml_lines"},
    "left_behind": set(),
    "keys": {"clocks", "errors", "files", "left_behind"},
    "keystore": {"errors", "files", "keys"},
    "config": {"clocks", "errors", "keys", "keystore", "settings"},
    "prompt": {"errors"},
    "files": {"errors", "prompt"},
    "messages": {"errors", "request", "text"},
    "chatfile": {"errors", "files", "messages", "prompt", "request"},
    "attachments": {"errors", "files", "prompt", "text"},
    "form": {"errors", "files", "request", "text"},
    "question": {"attachments", "chatfile", "errors", "files", "form", "messages", "prompt", "request"},
    "output": {"errors", "text"},
    "tcp": {"tell"},
    "ahead": {"tcp", "tell"},
    "early": set(),
    "connections": {"ahead", "config", "early", "tcp", "tell"},
    "failures": {"clocks", "errors", "text"},
    "transport": {
        "__init__",
        "ahead",
        "clocks",
        "config",
        "connections",
        "errors",
        "failures",
        "meaning",
        "problem",
        "retry",
        "tell",
        "text",
    },
    "sse": {"errors"},
    "chunk": {"errors", "problem", "text"},
    "chat": {"chunk", "errors", "problem", "request", "sse", "text"},
    "responses": {"chunk", "completeness", "errors", "problem", "request", "sse", "text"},
    "dialects": {"chunk", "errors", "request"},
    "completion": {"chunk", "completeness", "errors", "meaning", "problem", "text"},
    "writers": {"chunk", "completion", "output", "text"},
    "around": {"chunk", "completion", "output", "request", "tell", "text", "writers"},
    "waiting": {"around", "chunk", "completion", "output", "writers"},
    "cadence": {"around", "chunk", "completion", "writers"},
    "outfile": {"errors", "files", "output"},
    "clash": {"chatfile", "errors", "outfile"},
    "preview": {"chunk", "request", "tokens"},
    "summary": {"chunk", "completion", "text", "tokens"},
    "completeness": {"chunk", "errors", "text"},
    "answer": {"chunk", "errors", "text"},
    "stream": {
        "answer",
        "chunk",
        "clocks",
        "completion",
        "errors",
        "meaning",
        "request",
        "retry",
        "sse",
        "text",
        "writers",
    },
    "models": {"errors", "meaning", "problem", "text"},
    "checks": {"ahead", "clocks", "errors", "failures", "left_behind", "text"},
    "cache": set(),
    "script": set(),
    "mock": {"script"},
}


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


def test_every_module_has_its_place() -> None:
    assert set(MODULES) == EDGE | set(INNER) | {"__init__", "commands.__init__"}


@pytest.mark.parametrize("name", sorted(INNER))
def test_an_inner_module_imports_only_what_stands_before_it(name: str) -> None:
    assert own(MODULES[name]) <= INNER[name]


@pytest.mark.parametrize(
    ("library", "importers"),
    [
        ("requests", {"connections", "failures", "transport"}),
        ("urllib3", {"connections", "failures"}),
        ("sseclient", {"sse"}),
        ("splintr", {"tokens"}),
        ("socket", {"ahead", "checks", "connections", "early", "failures", "mock", "tcp"}),
    ],
)
def test_each_library_has_one_importer(library: str, importers: set[str]) -> None:
    assert {name for name, tree in MODULES.items() if library in top_levels(tree)} == importers


def test_only_the_edge_imports_click() -> None:
    assert {name for name, tree in MODULES.items() if "click" in top_levels(tree)} <= EDGE


def test_only_main_exits() -> None:
    for name, tree in MODULES.items():
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert name == "main" or not calls & {"sys.exit", "os._exit", "exit", "quit", "os.kill"}, name


def test_only_the_edge_names_the_standard_streams_and_signals() -> None:
    for name, tree in MODULES.items():
        names = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert name in EDGE or not names & {"sys.stdin", "sys.stdout", "sys.stderr", "signal.signal"}, name


def test_modules_and_functions_stay_readable() -> None:
    for name, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                assert lines <= 45, f"{name}.{node.name} has {lines} lines"


def test_importing_the_pump_needs_no_http_library() -> None:
    reached, waiting = set(), ["stream"]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += own(MODULES[name])
    assert "transport" not in reached
