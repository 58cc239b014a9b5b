"""Unknown commands and options: the message suggests what was meant, and never its opposite."""

import os
import pty
import re
import subprocess

import click
import pytest
from conftest import Smai
from process import SMAI, Result

from smai_cli.cli.group import COMMANDS
from smai_cli.cli.group import smai as group
from smai_cli.cli.parsing.suggestions import command_hint, option_hint
from smai_cli.cli.parsing.words import options_of

pytestmark = pytest.mark.preloaded

CONTEXT = click.Context(group, info_name="smai")


def options(name: str) -> dict[str, click.Option]:
    command = group.get_command(CONTEXT, name)
    assert command
    return options_of(command)


def hint_in(result: Result) -> str:
    """Return the hint after the first semicolon in the one-line message of a failure with status 2."""
    assert (result.status, result.stdout) == (2, b""), result
    (line,) = result.stderr.splitlines()
    return re.sub(r"^smai: .*?; (?=did|options|SMAI|see|the|-|it|piped|text)", "", line)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["Write a poem"], "did you mean: smai ask 'Write a poem'?"),
        (["Write", "a", "poem"], "did you mean: smai ask Write a poem?"),
        (["hello"], "did you mean: smai ask hello?"),
        (["it's; rm -rf /"], """did you mean: smai ask 'it'"'"'s; rm -rf /'?"""),
        (["Write a poem", "-m", "o3"], "did you mean: smai ask 'Write a poem' -m o3?"),
        (["x" * 300], "did you mean: smai ask ...?"),
        (["a\nb"], "did you mean: smai ask ...?"),
        (["aks", "hi"], "did you mean: smai ask hi?"),
        (["ak", "hi"], "did you mean: smai ask hi?"),
        (["Batch"], "did you mean: smai batch?"),
        (["modles"], "did you mean: smai models?"),
        (["auth"], "did you mean: smai login?"),
        (["auth", "login"], "did you mean: smai login?"),
        (["keys", "set", "openai"], "did you mean: smai login -p openai?"),
        (["init"], "did you mean: smai login?"),
        (["setup"], "did you mean: smai login?"),
        (["profiles"], "did you mean: smai config --profiles?"),
        (["completions", "zsh"], "did you mean: smai completion?"),
        (["list"], "did you mean: smai models?"),
        (["ls"], "did you mean: smai models?"),
        (["logs"], "SMAI_LOG names a file that gets a line for each run, see man smai"),
        (["history"], "SMAI_LOG names a file that gets a line for each run, see man smai"),
        (["chat", "hi"], "did you mean: smai ask hi?"),
        (["run", "llama3.2", "hi"], "did you mean: smai ask -m llama3.2 hi?"),
        (["version"], "did you mean: smai --version?"),
        (["-v"], "did you mean: smai --version?"),
        (["--verson"], "did you mean: smai --version?"),
        (["--halp"], "did you mean: smai --help?"),
        (["help", "nope"], "see smai --help"),
        (["encode"], "did you mean: smai ask encode?"),
        (["logot"], "did you mean: smai logout?"),
        (["loggin"], "did you mean: smai login?"),
        (["-m", "o3", "hi"], "options go after the command, did you mean: smai ask -m o3 hi?"),
        (["--mock", "ask", "hi"], "options go after the command, did you mean: smai ask --mock hi?"),
        (["-model", "o3", "hi"], "options go after the command, did you mean: smai ask --model o3 hi?"),
        (["-no-stream", "ask", "hi"], "options go after the command, did you mean: smai ask --no-stream hi?"),
        (["-p", "work", "models"], "options go after the command, did you mean: smai models -p work?"),
        (["--stream", "ask", "hi"], "the answer streams by default"),
        (["--modle", "o3", "hi"], "did you mean --model?"),
        (["--nope", "hi"], "see smai --help"),
        (["-p", "Write a poem"], "did you mean: smai ask 'Write a poem'?"),
        (["--print", "Write a poem"], "did you mean: smai ask 'Write a poem'?"),
        ([], "did you mean: smai ask?"),
    ],
)
def test_an_option_without_a_command_gets_a_hint(smai: Smai, words: list[str], hint: str) -> None:
    assert hint_in(smai(*words)) == hint
    assert hint_in(smai(*words, stdin=b"hi")) == hint


@pytest.mark.parametrize("name", ["config", "doctor", "login", "logout", "models", "serve"])
def test_a_profile_after_a_command_needs_an_option(smai: Smai, name: str) -> None:
    assert hint_in(smai(name, "openai")) == f"did you mean: smai {name} -p openai?"
    assert "did you mean" not in smai(name, "other").stderr


HABITS = [
    *((f"ask {option}", "did you mean --chat FILE?") for option in ("--continue", "-c", "--cid", "--session", "-r")),
    *((f"ask {option}", "did you mean -a FILE?") for option in ("--file", "-f", "--fragment", "--image")),
    *((f"{name} --stream", "the answer streams by default") for name in ("ask", "batch", "decode")),
    ("ask --timeout", "did you mean --max-time SECONDS?"),
    ("ask --key", "--key-file FILE reads a key, and smai login stores one"),
    ("ask --api-key", "--key-file FILE reads a key, and smai login stores one"),
    ("models --api-key", "--key-file FILE reads a key, and smai login stores one"),
    ("ask --template", "-p NAME uses a profile, and -s @FILE reads a system message"),
    ("ask --extract-last", "did you mean -x?"),
    ("ask --code", "did you mean -x?"),
    ("decode --code", "did you mean -x?"),
    ("ask --log", "SMAI_LOG names a file to which each run adds a line"),
    ("ask --temp", "did you mean -t N?"),
    ("ask --max_tokens", "did you mean --max-tokens?"),
    ("ask --max-output-tokens", "did you mean --max-tokens N?"),
    ("ask --system-prompt", "did you mean -s TEXT?"),
    ("ask --url", "did you mean --base-url URL?"),
    ("ask --host", "did you mean --base-url URL?"),
    ("ask --json-schema", "did you mean --schema FILE?"),
    ("ask --tools", "did you mean -O tools=@FILE?"),
    ("ask --top-k", "did you mean -O top_k=N?"),
    ("ask -d", "the prompt is an operand: smai ask TEXT"),
    ("ask --stdin", "piped stdin is read by default; the operand - places it"),
    ("ask --version", "did you mean: smai --version?"),
    ("ask -k", "--key-file FILE reads a key, and smai login stores one"),
    ("serve --host", "it serves on 127.0.0.1 only"),
    ("batch --continue", "did you mean --resume?"),
    ("batch --file", "the file is an operand: smai batch FILE"),
    ("batch --concurrency", "did you mean -j N?"),
    ("decode -i", "the file is an operand: smai decode FILE"),
    ("ask --modle", "did you mean --model?"),
    ("ask --MODEL", "did you mean --model?"),
    ("ask --mode", "did you mean --model?"),
    ("ask --sytem", "did you mean --system?"),
    ("ask --strem", "the answer streams by default"),
    ("ask --nostream", "did you mean --no-stream?"),
    ("ask --attac", "did you mean --attach?"),
    ("ask --max", "see smai ask --help"),
    ("ask -z", "see smai ask --help"),
    ("ask --nope", "see smai ask --help"),
    ("ask -5", "text that begins with a dash goes after --"),
    ("models --chat", "see smai models --help"),
]


@pytest.mark.parametrize(("words", "hint"), HABITS)
def test_an_unknown_option_gets_a_hint(smai: Smai, words: str, hint: str) -> None:
    assert hint_in(smai(*words.split(), "hi")) == hint


def test_the_hint_for_a_value_with_a_sign_is_the_same(smai: Smai) -> None:
    assert hint_in(smai("ask", "--timeout=5", "hi")) == "did you mean --max-time SECONDS?"


@pytest.mark.parametrize("name", COMMANDS)
def test_no_hint_suggests_the_negation_of_an_option(name: str) -> None:
    known = options(name)
    for option in known:
        word = option.removeprefix("--")
        is_negated = word.startswith("no-")
        opposites = (
            [word.removeprefix("no-")]
            if is_negated
            else [f"{no}{word}" for no in ("no-", "no", "un", "dis", "without-")]
        )
        for opposite in opposites:
            assert f"did you mean {option}?" != option_hint(f"--{opposite}", name, known)


@pytest.mark.parametrize(
    ("name", "typed", "opposite"),
    [
        ("ask", "--stream", "--no-stream"),
        ("ask", "--stdin", "--no-stdin"),
        ("ask", "--strean", "--no-stream"),
        ("ask", "--no-json", "--json"),
        ("ask", "--no-final", "--final"),
        ("ask", "--min-tokens", "--max-tokens"),
        ("ask", "--min-time", "--max-time"),
        ("ask", "--input", "--output"),
        ("ask", "--continue", "--option"),
        ("ask", "--start", "--stop"),
        ("batch", "--adapt", "--no-adapt"),
        ("batch", "--drop-order", "--keep-order"),
        ("batch", "--keep-stale", "--drop-stale"),
        ("batch", "--deny-failed", "--allow-failed"),
    ],
)
def test_no_hint_suggests_an_option_with_the_opposite_meaning(name: str, typed: str, opposite: str) -> None:
    assert f"{opposite}?" not in (option_hint(typed, name, options(name)) or "")


@pytest.mark.parametrize(("typed", "opposite"), [("encode", "decode"), ("auth", "batch"), ("signin", "logout")])
def test_no_hint_suggests_a_command_with_the_opposite_meaning(typed: str, opposite: str) -> None:
    assert f"smai {opposite}?" not in command_hint([typed], list(COMMANDS))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_hint_names_options_that_the_command_has(name: str) -> None:
    known = options(name)
    for words, _ in HABITS:
        hint = option_hint(words.split()[1], name, known) or ""
        if hint.startswith("did you mean -"):
            assert hint.split()[3].rstrip("?") in known


@pytest.mark.parametrize(
    ("words", "same"),
    [
        (["help"], ["--help"]),
        (["help", "ask"], ["ask", "--help"]),
        (["help", "batch"], ["batch", "-h"]),
        (["-V"], ["--version"]),
    ],
)
def test_common_spellings_of_help_and_version_work(smai: Smai, words: list[str], same: list[str]) -> None:
    result = smai(*words)
    assert result == smai(*same)
    assert result.status == 0
    assert result.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ask", "--max-tokens", "abc", "hi"], "--max-tokens: 'abc' is not a whole number of 1 or more"),
        (["ask", "--max-tokens", "0", "hi"], "--max-tokens: '0' is not a whole number of 1 or more"),
        (["ask", "--retries", "-1", "hi"], "--retries: '-1' is not a whole number of 0 or more"),
        (["ask", "--seed", "1.5", "hi"], "--seed: '1.5' is not a whole number"),
        (["ask", "-t", "warm", "hi"], "--temperature: 'warm' is not a number from 0 to 2"),
        (["ask", "--summary", "xml", "hi"], "--summary: 'xml' is not one of 'text', 'json', 'none'"),
        (["batch", "--rpm", "x"], "--rpm: 'x' is not a number of 0 or more"),
        (["batch", "-j", "513"], "--jobs: '513' is not a whole number from 1 to 512"),
        (["ask", "--max-tokens"], "--max-tokens needs a value"),
        (["mock", "--port", "9" * 5000], "--port: '" + "9" * 60 + "...' is not a whole number from 0 to 65535"),
    ],
)
def test_a_bad_value_is_named_with_its_option_and_its_limits(smai: Smai, words: list[str], message: str) -> None:
    result = smai(*words)
    assert hint_in(result) == f"see smai {words[0]} --help"
    assert result.stderr.startswith(f"smai: {message}; ")


def test_smai_alone_on_a_terminal_shows_three_examples_in_six_lines(environment: dict[str, str]) -> None:
    leader, follower = pty.openpty()
    with os.fdopen(leader, "rb"):
        done = subprocess.run([SMAI], env=environment, stdin=follower, capture_output=True, check=False)
        os.close(follower)
    lines = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout, len(lines)) == (2, b"", 6)
    assert sum("smai ask " in line for line in lines) == 3
    assert max(map(len, lines)) <= 80
