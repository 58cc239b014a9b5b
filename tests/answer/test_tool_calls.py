"""Tool calls whose arguments break off."""

import pytest

from smai_cli.answer.chunk import CallPart
from smai_cli.answer.tool_calls import ToolCalls

WHOLE = '{"a": [1, true, {"b": "x\\"y\\u00e9 \\\\ z"}], "c": -1.5e3, "d": null}'


def unclear_call(arguments: str) -> str:
    """Return what ToolCalls says of one call with these arguments."""
    calls = ToolCalls()
    calls.add([CallPart(number=0, id="c", name="f", arguments=arguments)])
    return calls.unclear_call


def test_arguments_that_break_off_anywhere_are_a_call_without_its_end() -> None:
    """Wherever the token limit cuts them: also within a number, a word, or an escape."""
    assert {unclear_call(WHOLE[:length]) for length in range(1, len(WHOLE))} == {"a tool call without its end"}


@pytest.mark.parametrize(
    "arguments", ["", WHOLE, '{"a": "x" "b"}', "{'a': 1}", '{"a": 1]', '{"a": nope}', "[1, 2", "just text"]
)
def test_other_arguments_are_what_the_model_wrote(arguments: str) -> None:
    assert not unclear_call(arguments)
