"""--help: options in groups, examples at the top, and lines that fit the terminal."""

import re

import pytest
from conftest import Smai

from smai_cli.cli.group import COMMANDS

pytestmark = pytest.mark.preloaded

SIX = ["Prompt", "Model", "Output", "Reliability", "Server", "Inspect"]


def titles(text: str) -> list[str]:
    return re.findall(r"^(\w+):$", text, re.MULTILINE)


def text_of(smai: Smai, *words: str, columns: int = 80) -> str:
    result = smai(*words, "--help", env={"COLUMNS": str(columns)})
    assert (result.status, result.stderr) == (0, "")
    return result.stdout.decode()


@pytest.mark.parametrize("columns", [120, 80, 60])
@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_no_line_is_longer_than_the_terminal_is_wide(smai: Smai, name: str, columns: int) -> None:
    lines = text_of(smai, *[name] * bool(name), columns=columns).splitlines()
    assert [line for line in lines if len(line) > columns] == []
    assert max(map(len, lines)) <= 100


def test_the_list_of_commands_fits_on_a_terminal_with_24_lines(smai: Smai) -> None:
    assert len(text_of(smai).splitlines()) < 24


def test_the_options_of_ask_and_batch_are_in_groups(smai: Smai) -> None:
    assert titles(text_of(smai, "ask")) == ["Examples", *SIX]
    assert titles(text_of(smai, "batch")) == ["Examples", *SIX[:4], "Speed", "Shards", *SIX[4:]]


@pytest.mark.parametrize("name", ["ask", "batch"])
def test_three_examples_come_before_the_options(smai: Smai, name: str) -> None:
    before, _, _ = text_of(smai, name).partition("\nPrompt:")
    examples = re.findall(rf"^  (?:[^|\n]*\| )?smai {name} .*$", before.partition("Examples:")[2], re.MULTILINE)
    assert len(examples) >= 3
    assert before.index("Examples:") < 200


def test_help_shows_the_value_of_an_option_in_plain_words(smai: Smai) -> None:
    text = "".join(text_of(smai, name) for name in COMMANDS)
    assert re.findall(r"INTEGER|FLOAT|RANGE|NUMBER|x>=", text) == []
    ask = " ".join(text_of(smai, "ask").split())
    assert "--max-tokens N Limit" in ask
    assert "--max-time SECONDS Limit" in ask
    assert "-m, --model NAME The model to ask. [default: gpt-4.1; env: SMAI_MODEL]" in ask
    assert 'smai ask -n -- "$line"' in ask
