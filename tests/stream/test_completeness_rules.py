"""Every order of events needs a normal reason for each choice to get status 0; and every rule is necessary."""

import ast
import copy
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
from completeness import DONE, PING, ROWS, USAGE, Row, chunk, event
from contents import CONTENTS
from hypothesis import example, given
from hypothesis import strategies as st
from pumping import Pieces, run_pump
from sse_events import parse_chunks

from smai_cli.answer import completeness
from smai_cli.answer.choice import chunks_of_answer
from smai_cli.answer.chunk import Chunk, UnreadKind
from smai_cli.answer.completeness import AnswerParts
from smai_cli.answer.outcome import TEXT_NEEDS
from smai_cli.answer.tool_calls import ToolCalls
from smai_cli.errors import BrokenError, SmaiError, Status

# Any order of events.


class Step(NamedTuple):
    """One event of a server: about one choice, an error, or neither (`choice` is None)."""

    data: bytes
    choice: int | None = None
    has_content: bool = False
    reason: str | None = None
    is_error: bool = False


NORMAL = {"stop", "tool_calls", "eos"}
CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
REASONS = [None, "stop", "tool_calls", "eos", "length", "content_filter", "abort", "error", ""]
DELTAS = [{}, {"content": ""}, {"content": "a"}, {"reasoning": "r"}, {"tool_calls": [CALL]}, {"role": "assistant"}]
ERRORS = [event({"error": {"message": "no"}}), event({"error": {}}), event("no", "error"), event({"detail": "no"})]


def _step(choice: int, delta: dict[str, object], reason: str | None) -> Step:
    text = delta.get("content")
    rest = {name: value for name, value in delta.items() if name != "content"}
    data = chunk(text if isinstance(text, str) else None, reason, choice, **rest)
    return Step(data, choice, any(delta.get(name) for name in ("content", "reasoning", "tool_calls")), reason or None)


CHUNKS = st.builds(_step, st.integers(0, 1), st.sampled_from(DELTAS), st.sampled_from(REASONS))
NOTHING = st.sampled_from([Step(PING), Step(USAGE), Step(event("")), Step(b": ping\n\n")])
STEPS = st.one_of(CHUNKS, CHUNKS, CHUNKS, NOTHING, st.sampled_from([Step(error, is_error=True) for error in ERRORS]))


def may_be_complete(steps: list[Step], due: int | None, *, has_end: bool) -> bool:
    """Return whether nothing contradicts a complete answer, and each choice has a normal reason after its text.

    For text after a reason for calls, the end that `has_end` stands for is enough: the server has run the tool.
    """
    if any(step.is_error for step in steps):
        return False
    if due == 1:  # whatever their index, all chunks are about the one requested choice
        steps = [step if step.choice is None else step._replace(choice=0) for step in steps]
    for index in {step.choice for step in steps if step.choice is not None} if due is None else range(due):
        own = [step for step in steps if step.choice == index]
        last_text = max((at for at, step in enumerate(own) if step.has_content), default=-1)
        reasons = [step.reason for step in own if step.reason]
        has_resumed = has_end and reasons[-1:] == ["tool_calls"]
        if not (has_resumed or any(step.reason for step in own[max(last_text, 0) :])):
            return False
    return {step.reason for step in steps if step.reason} <= NORMAL


@given(
    steps=st.lists(STEPS, max_size=10),
    is_done=st.booleans(),
    is_framed=st.booleans(),
    due=st.sampled_from([None, 1, 2]),
)
@example(steps=[_step(0, {}, "tool_calls"), _step(0, {"content": "a"}, None)], is_done=False, is_framed=True, due=None)
def test_status_0_implies_a_normal_reason_after_the_text_of_each_choice(
    steps: list[Step], is_done: bool, is_framed: bool, due: int | None
) -> None:
    # A lone choice may have any index: here the first one has the first.
    steps = [_step(0, {"role": "assistant"}, None), *steps]
    tape = [step.data for step in steps] + ([DONE] if is_done else [])
    for mode in ("text", "final"):
        outcome, _ = run_pump(Pieces(*tape, is_framed=is_framed), mode, due=due)
        has_end = is_done or is_framed
        assert outcome.status != Status.COMPLETE or may_be_complete(steps, due, has_end=has_end)


@given(steps=st.lists(CHUNKS, max_size=8), due=st.sampled_from([None, 1, 2]))
@example(steps=[_step(0, {"content": "a"}, None), _step(0, {}, "stop"), _step(1, {}, "tool_calls")], due=None)
def test_a_broken_connection_is_a_success_only_after_the_end_of_a_complete_answer(
    steps: list[Step], due: int | None
) -> None:
    complete, _ = run_pump(Pieces(*(step.data for step in steps)), due=due)
    broken, _ = run_pump(Pieces(*(step.data for step in steps), failure=BrokenError("reset")), due=due)
    assert (broken.status == 0) <= (complete.status == 0)
    # A reason for calls counts at the end of the body: some servers run the tool and continue the answer.
    is_for_calls = any(step.reason == "tool_calls" for step in steps)
    assert broken.status != 0 or broken.is_final or is_for_calls


# Every rule is necessary.

SOURCE = Path(completeness.__file__)
# Functions, and names in statements, that serve messages, speed or memory, and do not change a verdict.
UNJUDGED = ("empty_answer_error", "_unannounced_failure", "worst", "reason", "__init__", "rank")
UNJUDGED_NAMES = ("needs_care", "_is_in_one_piece", "_CHOICES_LIMIT", "reason not in self.reasons", "what")
NEEDS = (
    TEXT_NEEDS,
    TEXT_NEEDS | {UnreadKind.CALL},
    frozenset({UnreadKind.TEXT, UnreadKind.CALL}),
    frozenset[UnreadKind](),
)


class Answer(NamedTuple):
    """The chunks of an answer, parsed once for all mutants, and the AnswerParts of it."""

    name: str
    accept: tuple[str, ...]
    due: int | None
    chunks: tuple[Chunk, ...]
    reading: AnswerParts
    output_limit: int | None = None


def answer(row: Row) -> Answer | None:
    """Return the answer of a row; None for one that cannot be parsed, or is an error."""
    chunks = []
    calls = ToolCalls()
    try:
        for one in chunks_of_answer(parse_chunks(row.events, row.dialect), row.due):
            chunks.append(one)
            calls.add(one.calls)
            if one.api_error:
                return None
            if one.done:
                break
    except SmaiError:
        return None
    reading = AnswerParts(
        has_text=any(one.text for one in chunks),
        has_reasoning=any(one.reasoning for one in chunks),
        calls=len(calls),
        unclear_call=calls.unclear_call,
        refusal="".join(one.refusal for one in chunks),
    )
    return Answer(f"{row.dialect}, {row.name}", row.accept, row.due, tuple(chunks), reading, row.output_limit)


def judge(module: ModuleType, answer: Answer, how: str) -> list[int]:
    """Return the statuses that `module` gives an answer, for each set of needs, and whether it is final.

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
    """Return whether `module` has the same verdicts as the real one, which test_completeness.py checks."""
    try:
        return all(judge(module, answer, how) == expected for answer, how, expected in EXPECTED)
    except Exception:  # noqa: BLE001  # a mutant that falls over is noticed
        return False


CONTENT_ROWS = [Row(content.name, [content.stream], 0, due=1) for content in CONTENTS]
ANSWERS = [found for row in ROWS + CONTENT_ROWS if (found := answer(row)) and found.chunks]
EXPECTED = [
    (answer, how, judge(completeness, answer, how)) for answer in ANSWERS for how in ("framed", "connection", "open")
]


def mutants() -> Iterator[tuple[str, ast.Module]]:
    """Yield the module with one rule removed: an operand, a condition, a word, a statement."""
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
    """Yield `node` and its descendants, except for statements and conditions that do not change a verdict."""
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


@pytest.mark.nightly
@pytest.mark.timeout(180)
def test_removing_any_rule_changes_a_verdict() -> None:
    assert is_right(completeness)
    unnoticed = []
    for name, tree in mutants():
        module = ModuleType("mutant")
        exec(compile(tree, str(SOURCE), "exec"), vars(module))
        if is_right(module):
            unnoticed.append(name)
    assert not unnoticed, "\n".join(unnoticed)


@pytest.mark.parametrize("words", [["stop", "length"], ["abort", "stop"], ["length", "content_filter"], ["x", "error"]])
def test_the_worst_reason_counts_in_any_order(words: list[str]) -> None:
    ranks = [completeness.rank(word) for word in words]
    assert ranks[0] != ranks[1]
    expected = words[ranks.index(max(ranks))]
    assert completeness.worst(words) == completeness.worst(words[::-1]) == expected
