"""A table of all messages to users: the exit status, what happened, and what to do next.

The table is diagnostics.txt, next to this file. After a change of a message: python tests/test_diagnostics.py
"""

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import smai_cli
from smai_cli.errors import BrokenError, Cause, SmaiError, Status, error_type_for, hint_for

PACKAGE = Path(smai_cli.__file__).parent
TABLE = Path(__file__).with_name("diagnostics.txt")


def kinds(of: type[SmaiError]) -> Iterator[type[SmaiError]]:
    """Yield all classes of failures, including the private ones of modules."""
    for kind in of.__subclasses__():
        yield kind
        yield from kinds(kind)


for module in pkgutil.walk_packages([str(PACKAGE)], "smai_cli."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
ERRORS = {kind.__name__: int(kind.status) for kind in kinds(SmaiError) if kind.__module__.startswith("smai_cli.")}
NOTICE = "-"


class Row(NamedTuple):
    """A message: the exit status it comes with (`-` for a notice), what happened, and the next step."""

    status: str
    what: str
    next_step: str


def template(node: ast.AST | None, *scopes: ast.AST) -> list[str]:
    """Return the possible values of an expression, with `...` for parts that are only known at run time."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return ["".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values)]  # type: ignore[misc]
    if isinstance(node, ast.IfExp):
        return [*template(node.body, *scopes), *template(node.orelse, *scopes)]
    if isinstance(node, ast.Name):
        for scope in scopes:
            assigned = [
                text
                for inner in (scope.body if isinstance(scope, ast.Module) else ast.walk(scope))
                if isinstance(inner, ast.Assign) and node.id in {ast.unparse(target) for target in inner.targets}
                for text in template(inner.value)
            ]
            if assigned:
                return assigned
    return ["..."]


def rows(path: Path) -> Iterator[Row]:
    """Yield each failure and each notice that a module constructs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        inside = [one for one in functions if one.lineno <= node.lineno <= (one.end_lineno or 0)]
        scopes = [*sorted(inside, key=lambda one: -one.lineno), tree]
        name = ast.unparse(node.func)
        if name in ERRORS:
            whats = template(node.args[0], *scopes)
            steps = template(node.args[1], *scopes) if len(node.args) > 1 else [""]
            yield from (Row(str(ERRORS[name]), what, step) for what in whats for step in steps)
        elif name == "opening_failure":  # the same with the name of a file and the words of the system
            yield from (Row(str(ERRORS["OutputError"]), "...: ...", step) for step in template(node.args[2], *scopes))
        elif name in (
            "say",
            "self.say",
            "self._say",
            "life.say",
            "self.life.say",
            "run.life.say",
            "notice",
            "self._notice",
        ):
            for text in template(node.args[0], *scopes):
                what, _, step = text.partition("; ")
                yield Row(NOTICE, what, step)


def rows_of_causes() -> Iterator[Row]:
    """Yield what a server may report of a failure, with the next step of each cause."""
    for cause in Cause:
        yield Row(
            str(int(error_type_for(cause).status)), "the server answered ...: ...", hint_for(cause, "the key from ...")
        )
    for what in ("the server answered with an error: ...", "the server reported an error in the stream: ..."):
        yield Row(str(int(BrokenError.status)), what, "try again later")


def all_rows() -> list[Row]:
    found = {row for path in sorted(PACKAGE.rglob("*.py")) for row in rows(path)} | {*rows_of_causes()}
    return sorted(found, key=lambda row: (row.status.rjust(2), row))


def table() -> list[Row]:
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    return [Row(*line.split(" | ", 2)) for line in lines]


def test_the_table_contains_exactly_the_messages_of_the_code() -> None:
    assert table() == all_rows(), "run: python tests/test_diagnostics.py"


@pytest.mark.parametrize("row", table() if TABLE.exists() else [], ids=lambda row: row.what[:50])
def test_a_message_says_what_to_do_next_on_one_line(row: Row) -> None:
    assert row.status == NOTICE or row.next_step
    for text in (row.what, row.next_step):
        assert "\n" not in text
        assert not text.endswith(".") or text.endswith("...")
        assert not re.match(r"[A-Z][a-z]", text), "a message begins in lower case"


def test_a_message_suggests_waiting_only_if_its_exit_status_means_a_temporary_failure() -> None:
    final = {Status.USAGE, Status.REFUSED, Status.ACCESS, Status.CUT_SHORT, Status.WITHHELD, Status.OUTPUT}
    rows_of_final = [row for row in table() if row.status in {str(int(status)) for status in final}]
    assert [row for row in rows_of_final if re.search("later|wait", row.next_step)] == []


def test_every_status_of_a_failure_has_a_message() -> None:
    assert {row.status for row in table()} == {NOTICE, *map(str, sorted(ERRORS.values()))}


if __name__ == "__main__":
    TABLE.write_text("".join(f"{' | '.join(row)}\n" for row in all_rows()), encoding="utf-8")
