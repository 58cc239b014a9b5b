"""No order of events gets status 0 without a whole word for each choice; and no rule of the verdict can be left out."""

import ast
import copy
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
from completeness import DONE, PING, ROWS, USAGE, Row, chunk, event
from contents import CONTENTS
from hypothesis import given
from hypothesis import strategies as st
from pumping import Pieces, pumped
from sse_events import parsed

from smai_cli.answer import completeness
from smai_cli.answer.choice import chunks_of_answer
from smai_cli.answer.chunk import Chunk, Unread
from smai_cli.answer.completeness import Reading
from smai_cli.answer.outcome import TEXT_NEEDS
from smai_cli.answer.tool_calls import ToolCalls
from smai_cli.errors import BrokenError, SmaiError, Status

# No order of events.


class Said(NamedTuple):
    """One event of a server about one choice, or an error, or nothing (`choice` is None)."""

    data: bytes
    choice: int | None = None
    brings: bool = False
    reason: str | None = None
    is_error: bool = False


WHOLE = {"stop", "tool_calls", "eos"}
CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
REASONS = [None, "stop", "tool_calls", "eos", "length", "content_filter", "abort", "error", ""]
BROUGHT = [{}, {"content": ""}, {"content": "a"}, {"reasoning": "r"}, {"tool_calls": [CALL]}, {"role": "assistant"}]
ERRORS = [event({"error": {"message": "no"}}), event({"error": {}}), event("no", "error"), event({"detail": "no"})]


def _said(choice: int, brought: dict[str, object], reason: str | None) -> Said:
    text = brought.get("content")
    rest = {name: value for name, value in brought.items() if name != "content"}
    data = chunk(text if isinstance(text, str) else None, reason, choice, **rest)
    return Said(data, choice, any(brought.get(name) for name in ("content", "reasoning", "tool_calls")), reason or None)


CHUNKS = st.builds(_said, st.integers(0, 1), st.sampled_from(BROUGHT), st.sampled_from(REASONS))
NOTHING = st.sampled_from([Said(PING), Said(USAGE), Said(event("")), Said(b": ping\n\n")])
STEPS = st.one_of(CHUNKS, CHUNKS, CHUNKS, NOTHING, st.sampled_from([Said(error, is_error=True) for error in ERRORS]))


def may_be_complete(steps: list[Said], due: int | None) -> bool:
    """Return whether nothing that a server said is against it, and each choice has a whole reason behind its text."""
    if any(step.is_error for step in steps):
        return False
    if due == 1:  # whatever their index, all chunks are about the one choice that was asked for
        steps = [step if step.choice is None else step._replace(choice=0) for step in steps]
    for index in {step.choice for step in steps if step.choice is not None} if due is None else range(due):
        told = [step for step in steps if step.choice == index]
        last_text = max((at for at, step in enumerate(told) if step.brings), default=-1)
        if not any(step.reason for step in told[max(last_text, 0) :]):
            return False
    return {step.reason for step in steps if step.reason} <= WHOLE


@given(
    steps=st.lists(STEPS, max_size=10),
    is_done=st.booleans(),
    is_framed=st.booleans(),
    due=st.sampled_from([None, 1, 2]),
)
def test_status_0_implies_a_whole_reason_behind_the_text_of_each_choice(
    steps: list[Said], is_done: bool, is_framed: bool, due: int | None
) -> None:
    # A lone choice may have any index: here the first one has the first.
    steps = [_said(0, {"role": "assistant"}, None), *steps]
    tape = [step.data for step in steps] + ([DONE] if is_done else [])
    for mode in ("text", "final"):
        outcome, _ = pumped(Pieces(*tape, is_framed=is_framed), mode, due=due)
        assert outcome.status != Status.COMPLETE or may_be_complete(steps, due)


@given(steps=st.lists(CHUNKS, max_size=8), due=st.sampled_from([None, 1, 2]))
def test_what_is_final_is_final_also_when_the_connection_breaks(steps: list[Said], due: int | None) -> None:
    whole, _ = pumped(Pieces(*(step.data for step in steps)), due=due)
    broken, _ = pumped(Pieces(*(step.data for step in steps), failure=BrokenError("reset")), due=due)
    assert (broken.status == 0) <= (whole.status == 0)
    assert broken.status != 0 or broken.is_final


# No rule can be left out.

SOURCE = Path(completeness.__file__)
# What is there for a message, for speed or for memory, and changes no verdict: functions, and names in statements.
UNJUDGED = ("emptiness", "_unannounced", "worst", "reason", "__init__", "rank")
UNJUDGED_NAMES = ("needs_care", "_is_in_one_piece", "_CHOICES_LIMIT", "reason not in self.reasons", "what")
NEEDS = (TEXT_NEEDS, TEXT_NEEDS | {Unread.CALL}, frozenset({Unread.TEXT, Unread.CALL}), frozenset[Unread]())


class Answer(NamedTuple):
    """The chunks of an answer, parsed once for all mutants, and what was read of it."""

    name: str
    accept: tuple[str, ...]
    due: int | None
    chunks: tuple[Chunk, ...]
    reading: Reading
    output_limit: int | None = None


def answer(row: Row) -> Answer | None:
    """Return the answer of a row; None for one that cannot be parsed, or is an error."""
    chunks = []
    calls = ToolCalls()
    try:
        for one in chunks_of_answer(parsed(row.events, row.dialect), row.due):
            chunks.append(one)
            calls.add(one.calls)
            if one.api_error:
                return None
            if one.done:
                break
    except SmaiError:
        return None
    reading = Reading(
        has_text=any(one.text for one in chunks),
        has_reasoning=any(one.reasoning for one in chunks),
        calls=len(calls),
        has_nameless_call=calls.is_nameless,
        refusal="".join(one.refusal for one in chunks),
    )
    return Answer(f"{row.dialect}, {row.name}", row.accept, row.due, tuple(chunks), reading, row.output_limit)


def judged(module: ModuleType, answer: Answer, how: str) -> list[int]:
    """Return the statuses that the state machine of `module` gives an answer, by what is needed, and if it is final.

    `how` it ends: with the framed end of the body, with the connection, or not at all as yet.
    """
    machine = module.Completeness(answer.accept, answer.due, answer.output_limit)
    for one in answer.chunks:
        machine.record(one)
    if how != "open" and not answer.chunks[-1:][0].done:
        machine.end_body(is_framed=how == "framed")
    errors = [machine.verdict(answer.reading, needs) for needs in NEEDS]
    return [*(error.status if error else Status.COMPLETE for error in errors), machine.is_final]


def is_right(module: ModuleType) -> bool:
    """Return whether `module` judges every answer as the real one does, which test_completeness.py checks."""
    try:
        return all(judged(module, answer, how) == expected for answer, how, expected in EXPECTED)
    except Exception:  # noqa: BLE001  # a mutant that falls over is noticed
        return False


CONTENT_ROWS = [Row(content.name, [content.stream], 0, due=1) for content in CONTENTS]
ANSWERS = [found for row in ROWS + CONTENT_ROWS if (found := answer(row)) and found.chunks]
EXPECTED = [
    (answer, how, judged(completeness, answer, how)) for answer in ANSWERS for how in ("framed", "connection", "open")
]


def mutants() -> Iterator[tuple[str, ast.Module]]:
    """Yield the module with one rule left out: an operand, a condition, a word, a statement."""
    tree = ast.parse(SOURCE.read_text())
    places = [
        (node, number)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and function.name not in UNJUDGED
        for node in _judged_nodes(function)
        for number in range(_ways(node))
    ]
    words = [node for node in ast.walk(tree) if isinstance(node, ast.Set)]
    places += [(node, number) for node in words for number in range(len(node.elts))]
    for node, number in places:
        memo: dict[int, object] = {}
        mutated = copy.deepcopy(tree, memo)
        twin = memo[id(node)]
        assert isinstance(twin, ast.AST)
        _mutate(twin, number)
        line = getattr(node, "lineno", 0)
        yield f"{line}: {ast.unparse(node).splitlines()[0]} #{number}", ast.fix_missing_locations(mutated)


def _judged_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield `node` and what is below it, without statements and conditions that change no verdict."""
    head = node.test if isinstance(node, ast.If) else node if isinstance(node, ast.Assign) else None
    if head and any(name in ast.unparse(head) for name in UNJUDGED_NAMES):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _judged_nodes(child)


def _ways(node: ast.AST) -> int:
    if isinstance(node, ast.BoolOp):
        return len(node.values)
    return 2 if isinstance(node, ast.If) else 1 if isinstance(node, ast.Assign) else 0


def _mutate(node: ast.AST, number: int) -> None:
    if isinstance(node, ast.BoolOp):
        node.values[number] = ast.Constant(isinstance(node.op, ast.And))
    elif isinstance(node, ast.Set):
        del node.elts[number]
    elif isinstance(node, ast.If):
        node.test = ast.Constant(bool(number))
    elif isinstance(node, ast.Assign):
        node.targets = [ast.Name("_", ast.Store())]


@pytest.mark.thorough
@pytest.mark.timeout(180)
def test_no_rule_can_be_left_out_unnoticed() -> None:
    assert is_right(completeness)
    unnoticed = []
    for name, tree in mutants():
        module = ModuleType("mutant")
        exec(compile(tree, str(SOURCE), "exec"), vars(module))
        if is_right(module):
            unnoticed.append(name)
    assert not unnoticed, "\n".join(unnoticed)


@pytest.mark.parametrize("words", [["stop", "length"], ["abort", "stop"], ["length", "content_filter"], ["x", "error"]])
def test_the_worst_of_several_reasons_is_worst_in_any_order(words: list[str]) -> None:
    ranks = [completeness.rank(word) for word in words]
    assert ranks[0] != ranks[1]
    expected = words[ranks.index(max(ranks))]
    assert completeness.worst(words) == completeness.worst(words[::-1]) == expected
