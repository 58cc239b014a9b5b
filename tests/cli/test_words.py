"""Common mistakes in command lines: none is misread and sent."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
from conftest import Server, Smai, assert_refused
from process import Result
from test_docs import GUIDES, PAGES, displays

from smai_cli.cli.commands.ask import ask
from smai_cli.cli.group import COMMANDS
from smai_cli.cli.group import smai as group
from smai_cli.cli.parsing.words import check_words, options_of
from smai_cli.errors import UsageError
from smai_cli.mock.script import prompt_of

pytestmark = pytest.mark.preloaded

ROOT = Path(__file__).parent.parent.parent
CONTEXT = click.Context(group, info_name="smai")


def command(name: str) -> click.Command:
    found = group.get_command(CONTEXT, name)
    assert found
    return found


def long_options(name: str) -> list[str]:
    return [option for option in options_of(command(name)) if option.startswith("--")]


def assert_status_2(result: Result, *words: str) -> None:
    """Check that the status is 2 and one line on stderr contains `words`."""
    assert (result.status, result.stdout) == (2, b""), result
    (line,) = result.stderr.splitlines()
    assert line.startswith("smai: ")
    assert [word for word in words if word not in line] == []


# Options.


@pytest.mark.parametrize("option", long_options("ask"))
def test_ask_refuses_a_long_option_with_one_dash_and_names_it(smai: Smai, server: Server, option: str) -> None:
    mock = server()
    result = smai("ask", "--base-url", mock.url, option[1:], "x", "hi")
    assert_refused(result, mock, f"no such option: {option[1:]}; did you mean {option}?")


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("form", ["{}", "{}=x", "{} x"])
def test_every_command_refuses_a_long_option_with_one_dash_even_with_a_value(name: str, form: str) -> None:
    for option in long_options(name):
        with pytest.raises(UsageError) as caught:
            check_words(command(name), [form.format(option[1:])])
        assert caught.value.describe() == f"no such option: {option[1:]}"


@pytest.mark.parametrize(
    "word",
    [
        *("-modle", "-sytem", "-streem", "-stream", "-max_tokens", "-max", "-mod", "-sys", "-system-prompt", "-out"),
        *(
            "-output-format",
            "-stdin",
            "-no-log",
            "-nostream",
            "-no-stdin-please",
            "-option",
            "-mcp",
            "-model=x",
            "-m=x",
        ),
        *("-m x", "-s x", "-so what?", "-no idea", "-maybe later", "-model trains are fun", "-or this", "-nm x"),
        *("- buy milk", "--what is this", "-- really", "-1 or -2?", "--stop it", "--mock me"),
        *("\u2014model", "\u2013\u2013final", "\u2013m", "\u2014\u2014max-tokens=5", "\u2212x", "\u2013-jsonl"),
        *("--final=yes", "--no-stream=1", "-m", "--stop"),
    ],
)
@pytest.mark.parametrize("before", [[], ["hi"]])
def test_a_word_that_may_be_a_mistyped_option_is_refused(
    smai: Smai, server: Server, before: list[str], word: str
) -> None:
    mock = server()
    assert_refused(smai("ask", "--base-url", mock.url, *before, word, stdin=b"the prompt"), mock)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["-mgpt-4.1", "hi"], id="a value without a space"),
        pytest.param(["-mmistral", "hi"], id="a value of letters only"),
        pytest.param(["-nqxmo3", "-o", "out", "hi"], id="several short options"),
        pytest.param(["--system=-x", "hi"], id="an option as a value, with the sign"),
        pytest.param(["--system=--final", "--stop=-n", "hi"], id="likewise, and long"),
        pytest.param(["-s", "- be brief", "hi"], id="a value that begins with a dash"),
        pytest.param(["-s", "--be brief", "hi"], id="likewise, with two"),
        pytest.param(["--", "-m", "--final", "-model"], id="after two dashes"),
        pytest.param(["hi", "--", "--what is this"], id="a prompt after two dashes"),
        pytest.param(["\u2014 a dash", "and \u2013model"], id="dashes in a text"),
        pytest.param(["-O", "a=-x", "-O", "b=", "hi"], id="parameters"),
        pytest.param(["-t0", "hi"], id="a number"),
    ],
)
def test_an_unambiguous_command_line_is_accepted(words: list[str]) -> None:
    check_words(ask, words)


@pytest.mark.parametrize("form", ["empty", "empty with a sign", "an option", "another option", "two dashes"])
def test_an_option_without_a_value_does_not_take_the_next_option_as_its_value(form: str) -> None:
    for name, option in options_of(ask).items():
        words = {
            "empty": [name, ""],
            "empty with a sign": [f"{max(option.opts, key=len)}=", "hi"],
            "an option": [name, "--final", "hi"],
            "another option": [name, "-n", "hi"],
            "two dashes": [name, "--", "hi"],
        }
        if not option.is_flag:
            with pytest.raises(UsageError, match=r"has an empty value|needs a file name|needs a value"):
                check_words(ask, words[form])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-m", ""], "-m has an empty value"),
        (["--accept", ""], "--accept has an empty value"),
        (["--base-url="], "--base-url has an empty value"),
        (["--effort", " "], "--effort has an empty value"),
        (["-m", "--final"], "-m needs a value, and --final is an option"),
        (["-q", "-o", "-n"], "-o needs a value, and -n is an option"),
    ],
)
def test_an_unset_variable_is_status_2(
    smai: Smai, server: Server, tmp_path: Path, words: list[str], message: str
) -> None:
    mock = server()
    result = smai("ask", *words, "hi", env={"SMAI_BASE_URL": mock.url, "PWD": str(tmp_path)})
    assert_refused(result, mock, message, "is a variable empty?")


# Operands.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with files that a pattern may name."""
    made = tmp_path / "folder"
    (made / "src").mkdir(parents=True)
    for name in ("a.py", "b.py", "c d.py", "notes.txt"):
        (made / name).write_text(f"in {name}\n")
    (made / "m1.json").write_text("[]")
    (made / "m2.json").write_text("[]")
    return made


def in_folder(folder: Path, environment: dict[str, str], mock: Any, line: str) -> Result:
    """Run a line of a shell in the folder."""
    env = environment | {"SMAI_BASE_URL": mock.url}
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    return Result(done.returncode, done.stdout, done.stderr.decode())


@pytest.mark.parametrize(
    ("line", "operand"),
    [
        ("smai ask -a *.py Review", "b.py"),
        ("smai ask --attach *.py Review", "b.py"),
        ("smai ask Review -a *.py", "b.py"),
        ("smai ask -a a.py src Review", "src"),
        ("smai ask -a a.py -- Review; smai ask -a a.py 'c d.py'", "'c d.py'"),
        ("smai ask --messages *.json hi", "m2.json"),
        ("smai ask --schema *.json hi", "m2.json"),
        ("smai ask -o *.py hi", "b.py"),
        ("smai ask --record *.py hi", "b.py"),
        ("smai ask --chat m*.json hi", "m2.json"),
    ],
)
def test_a_pattern_in_place_of_one_file_is_refused(
    environment: dict[str, str], server: Server, folder: Path, line: str, operand: str
) -> None:
    mock = server()
    result = in_folder(folder, environment, mock, line)
    assert result.status == 2
    assert re.search(rf"^smai: the operand {re.escape(operand)} is the name of a (file|directory), and ", result.stderr)
    assert len(mock.received) == line.count(";")
    assert (folder / "a.py").read_text() == "in a.py\n"


@pytest.mark.parametrize(
    ("line", "notice"),
    [
        ("smai ask notes.txt", "the operand notes.txt is sent as text; -a notes.txt attaches the file"),
        ("smai ask Explain notes.txt", "the operand notes.txt is sent as text; -a notes.txt attaches the file"),
        ("smai ask 'c d.py'", "the operand 'c d.py' is sent as text; -a 'c d.py' attaches the file"),
        ("smai ask *.py Review", "3 operands are names of files and are sent as text; -a FILE attaches a file"),
        ("smai ask -a a.py -- notes.txt", "the operand notes.txt is sent as text; -a notes.txt attaches the file"),
        ("smai ask Review src", None),
        ("smai ask 'Review notes.txt'", None),
        ("smai ask -a a.py Review", None),
        ("smai ask -a a.py - <notes.txt", None),
    ],
)
def test_a_file_name_as_an_operand_of_ask_gets_a_notice(
    environment: dict[str, str], server: Server, folder: Path, line: str, notice: str | None
) -> None:
    result = in_folder(folder, environment, server(), line)
    assert (result.status, result.stderr) == (0, f"smai: {notice}\n" if notice else "")


def test_batch_and_decode_accept_a_file_as_an_operand(smai: Smai, folder: Path) -> None:
    (folder / "lines").write_text('"hi"\n')
    tape = ROOT / "tests" / "streams" / "good.sse"
    assert smai("batch", "--mock", "-o", folder / "out", folder / "lines").status == 0
    assert smai("decode", "-o", folder / "out", tape).status == 0


# Loops over a list with foreign lines.

HOSTILE = [
    "--messages=private.json",
    "-a private.json",
    "-s@private.json",
    "--base-url=localhost",
    "--help",
    "--",
    "-model",
    "- item",
    "-x",
    "$(touch pwned)",
    "x' ; touch pwned; '",
    "private.json",
]


def loops() -> list[str]:
    """Return the shell loops over the lines of a list in the README and the manual."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    for page in [*PAGES, *GUIDES]:
        blocks += displays(page, "EXAMPLES")
    return [block for block in blocks if re.search(r"(<|:::: ?) ?(list.txt|words)\b", block) and "smai ask" in block]


def test_the_loops_in_the_documentation_use_two_dashes() -> None:
    assert len(loops()) >= 4
    assert [loop for loop in loops() if " -- " not in loop] == []


@pytest.mark.thorough
@pytest.mark.parametrize("loop", loops(), ids=lambda loop: loop.splitlines()[0][:40])
def test_a_loop_sends_every_line_of_its_list_as_text(
    environment: dict[str, str], server: Server, folder: Path, loop: str
) -> None:
    if loop.startswith("parallel") and not Path("/usr/bin/parallel").exists():
        pytest.skip("GNU parallel is not installed")
    (folder / "private.json").write_text('[{"role": "user", "content": "SECRET"}]')
    for name in ("list.txt", "words"):
        (folder / name).write_text("".join(f"{line}\n" for line in HOSTILE))
    mock = server(reply="ok")

    result = in_folder(folder, environment, mock, loop)

    prompts = [prompt_of(received.json) for received in mock.received]
    assert sorted(re.sub(r"^Define[\w ]*: ", "", prompt) for prompt in prompts) == sorted(HOSTILE)
    assert {message["role"] for received in mock.received for message in received.json["messages"]} == {"user"}
    assert "SECRET" not in json.dumps([received.json for received in mock.received])
    assert not (folder / "pwned").exists()
    assert result.status == 0
    assert set(result.stderr.splitlines()) <= {
        "smai: the operand private.json is sent as text; -a private.json attaches the file"
    }


def test_ask_says_how_to_enter_text_that_begins_with_a_dash(smai: Smai) -> None:
    result = smai("ask", "--mock", "- buy milk")
    assert_status_2(result, "text that begins with a dash goes after --: smai ask -- '- buy milk'")
    assert smai("ask", "--mock", "--", "- buy milk").status == 0
    assert b" -- " in smai("ask", "--help").stdout


@pytest.mark.parametrize(
    "words",
    [
        ["-H Authorization: Bearer SECRET"],
        ["-HAuthorization: Bearer SECRET"],
        ["--header Authorization: Bearer SECRET"],
        ["-H=Authorization:SECRET"],
        ["--api-key=SECRET"],
        ["--api-key", "SECRET"],
        ["-H", "", "SECRET"],
    ],
)
def test_no_message_repeats_what_may_be_a_secret(smai: Smai, words: list[str]) -> None:
    result = smai("ask", "--mock", *words, "hi")
    assert_status_2(result)
    assert "SECRET" not in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--api-key", "SECRET", "hi"],
        ["--api-key=SECRET", "ask", "hi"],
        ["--key=SECRET", "hi"],
        ["-H", "X-Key: SECRET", "ask", "hi"],
        ["-HX-Key:SECRET", "hi"],
        ["--header=X-Key:SECRET", "hi"],
        ["aks", "--api-key", "SECRET", "hi"],
        ["chat", "-H", "X-Key: SECRET", "hi"],
    ],
)
def test_no_suggested_command_repeats_what_may_be_a_secret(smai: Smai, words: list[str]) -> None:
    result = smai(*words)
    assert_status_2(result)
    assert "SECRET" not in result.stderr
