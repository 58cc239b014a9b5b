"""What is certain at a first glance at the command line, and what is not and waits."""

import os
from pathlib import Path

import click
import pytest

from smai_cli.cli.commands.ask import ask
from smai_cli.cli.glance import _FLAGS, _VALUES, server_at_a_glance
from smai_cli.cli.parsing.shared_options import APIS

DEFAULT = ("api.smai.ai", 443)
URL = "https://llm.example:8443/v1"
THERE = ("llm.example", 8443)
KEY = {"SMAI_API_KEY": "sk-abc"}
BASE = {"SMAI_BASE_URL": URL}


def glance(
    *args: str, environ: dict[str, str], home: Path | None = None, stdin_is_terminal: bool = True
) -> tuple[str, int] | None:
    return server_at_a_glance(
        args, environ | ({"HOME": str(home)} if home else {}), stdin_is_terminal=stdin_is_terminal
    )


@pytest.mark.parametrize(
    "args",
    [
        ("hi",),
        ("why", "is", "the sky blue?"),
        ("-n", "hi"),
        ("hi", "-n"),
        ("-m", "gpt-4.1-mini", "hi"),
        ("-mgpt-4.1-mini", "hi"),
        ("-nm", "gpt-4.1-mini", "hi"),
        ("-nmgpt-4.1-mini", "hi"),
        ("--model=o3", "-t0.2", "--max-tokens=5", "hi"),
        ("-s", "Be brief.", "-t", "0", "--top-p", "1", "--seed", "7", "--effort", "low", "--stop", "END", "hi"),
        ("-x", "hi"),
        ("-nx", "hi"),
        ("--extract", "--summary=text", "hi"),
        ("--summary", "json", "--accept", "length", "--api=chat", "--no-stream", "--reasoning", "--json", "hi"),
        ("--max-time", "60", "--idle-timeout=5", "--retries", "0", "--jsonl", "hi"),
        ("--raw", "--raw", "hi"),
        ("--", "--dry-run"),
        ("-",),
        ("before", "-", "after"),
    ],
)
def test_a_plain_command_line_is_certain(args: tuple[str, ...]) -> None:
    assert glance("ask", *args, environ=KEY) == DEFAULT
    assert glance("ask", *args, environ=BASE) == THERE


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("--help",),
        ("--version",),
        ("models",),
        ("mock", "hi"),
        ("--", "ask", "hi"),
        ("-n", "ask", "hi"),
        *(
            ("ask", *words)
            for words in (
                (),
                ("-n",),
                (" ",),
                ("hi", ""),
                ("\udcff",),
                ("-", "-"),
                ("-n", "-"),
                ("--help",),
                ("-h", "hi"),
                ("hi", "--help"),
                ("-v", "hi"),
                ("-nv", "hi"),
                ("--verbose", "hi"),
                ("-p", "work", "hi"),
                ("--profile=work", "hi"),
                ("--mock", "hi"),
                ("--dry-run", "hi"),
                ("--curl", "hi"),
                ("--key-file", "-", "hi"),
                ("--key-file=key", "hi"),
                ("-a", "picture.png", "hi"),
                ("--chat", "talk.json", "hi"),
                ("--messages", "-"),
                ("--schema=form.json", "hi"),
                ("-o", "answer.txt", "hi"),
                ("-oanswer.txt", "hi"),
                ("-nq", "-o", "answer.txt", "hi"),
                ("--record", "tape", "hi"),
                ("-O", "n=2", "hi"),
                ("--connect-timeout", "3", "hi"),
                ("-s", "@role.txt", "hi"),
                ("-s@role.txt", "hi"),
                ("--system=@role.txt", "hi"),
                ("-s", "\udcff", "hi"),
                ("--sytem", "x", "hi"),
                ("--mod", "x", "hi"),
                ("-x", "--raw", "hi"),
                ("-x", "--final", "hi"),
                ("-s", "-x", "hi"),
                ("-m", "--final", "hi"),
                ("-m", "--", "hi"),
                ("-model", "o3", "hi"),
                ("-mode1", "o3", "hi", ""),
                ("-m=o3", "hi"),
                ("-m o3", "hi"),
                ("-no-3", "hi"),
                ("\u2014model", "o3", "hi"),
                ("-n-", "hi"),
                ("--no-stdin=1", "hi"),
                ("-m",),
                ("hi", "-m"),
                ("-m", "", "hi"),
                ("--model=", "hi"),
                ("-t", "9", "hi"),
                ("-t", "nan", "hi"),
                ("-t", "warm", "hi"),
                ("--max-tokens", "0", "hi"),
                ("--retries", "-1", "hi"),
                ("--retries", "9" * 5000, "hi"),
                ("--summary", "xml", "hi"),
                ("--raw", "--final", "hi"),
                ("--base-url", "http://127.0.0.1:1/v1", "hi"),
                ("--base-url", "llm.example", "hi"),
                ("--base-url=", "hi"),
            )
        ),
    ],
)
def test_everything_else_waits(args: tuple[str, ...]) -> None:
    assert glance(*args, environ=KEY | BASE) is None


def test_the_last_server_that_is_typed_goes_before_the_environment() -> None:
    args = ("ask", "--base-url", "https://one.example", "--base-url=https://two.example/v1", "hi")
    assert glance(*args, environ=BASE) == ("two.example", 443)


def test_stdin_is_a_prompt_unless_it_is_a_terminal_or_left_alone() -> None:
    assert glance("ask", environ=KEY, stdin_is_terminal=False) == DEFAULT
    assert glance("ask", "-n", environ=KEY, stdin_is_terminal=False) is None
    assert glance("ask", environ=KEY) is None


@pytest.mark.parametrize(
    ("base_url", "server"),
    [
        ("https://LLM.Example", ("llm.example", 443)),
        ("https://127.0.0.1:8443/v1/", ("127.0.0.1", 8443)),
        ("https://llm.example/v1?api-version=1", ("llm.example", 443)),
        ("https://llm.example?v=1", None),
        ("https://llm.example#x", None),
        ("https://user:pw@llm.example/v1", None),
        ("https://user@llm.example/v1", None),
        ("https://[::1]:8443/v1", None),
        ("https://llm.example:/v1", None),
        ("https://llm.example:0/v1", None),
        ("https://llm.example:99999/v1", None),
        ("https://llm..example/v1", None),
        ("https://" + "l" * 64 + ".example/v1", None),
        ("https:///v1", None),
        ("https://bücher.example/v1", None),
        ("https://llm.example/v1 ", None),
        ("https://llm.example/\tv1", None),
        ("https://llm\\.example/v1", None),
        ("HTTPS://llm.example/v1", None),
        ("http://llm.example/v1", None),
        ("llm.example", None),
    ],
)
def test_only_a_simple_https_url_is_certain(base_url: str, server: tuple[str, int] | None) -> None:
    assert glance("ask", "hi", environ={"SMAI_BASE_URL": base_url}) == server


def test_the_default_service_is_asked_with_a_key_only(tmp_path: Path) -> None:
    assert glance("ask", "hi", environ={}, home=tmp_path) is None
    assert glance("ask", "hi", environ={"SMAI_API_KEY": " "}, home=tmp_path) is None
    assert glance("ask", "hi", environ={"SMAI_BASE_URL": "https://api.smai.ai/v1"}, home=tmp_path) is None
    folder = tmp_path / ".config" / "smai"
    folder.mkdir(parents=True)
    (folder / "keys.json").write_text("{}")
    assert glance("ask", "hi", environ={}, home=tmp_path) == DEFAULT


@pytest.mark.parametrize(
    ("text", "environ", "server"),
    [
        ('model = "gpt-4.1"', KEY, DEFAULT),
        ('key_file = "key"', {}, DEFAULT),
        ('model = "gpt-4.1"', {}, None),
        ('base_url = "https://other.example"', KEY, None),
        ('base_url = "https://other.example"', BASE, THERE),
        ('[profile.work]\nbase_url = "https://other.example"', KEY, None),
        ("connect_timeout = 3", KEY, None),
        ("connect_timeout = 3", BASE, None),
        ('"base\\u005furl" = "https://other.example"', KEY, None),
        ("#" * 70000, KEY, None),
    ],
)
def test_a_configuration_that_may_change_the_server_makes_it_wait(
    tmp_path: Path, text: str, environ: dict[str, str], server: tuple[str, int] | None
) -> None:
    folder = tmp_path / "smai"
    folder.mkdir()
    (folder / "config.toml").write_text(text)
    assert glance("ask", "hi", environ=environ | {"XDG_CONFIG_HOME": str(tmp_path)}) == server


def test_a_configuration_that_cannot_be_read_makes_it_wait(tmp_path: Path) -> None:
    (tmp_path / "smai").mkdir()
    os.mkfifo(tmp_path / "smai" / "config.toml")
    assert glance("ask", "hi", environ=KEY | {"XDG_CONFIG_HOME": str(tmp_path)}) is None


@pytest.mark.parametrize("profile", ["work", "openai"])
def test_a_profile_makes_it_wait(profile: str) -> None:
    for environ in (KEY, BASE, KEY | BASE | {"OPENAI_API_KEY": "sk-open"}):
        assert glance("ask", "hi", environ=environ | {"SMAI_PROFILE": profile}) is None
        assert glance("ask", "-p", profile, "hi", environ=environ) is None


def test_a_conversation_in_the_environment_makes_it_wait() -> None:
    assert glance("ask", "hi", environ=KEY | {"SMAI_CHAT": "talk.json"}) is None
    assert glance("ask", "hi", environ=KEY | {"SMAI_CHAT": ""}) == DEFAULT


def test_a_key_file_in_the_environment_is_a_key() -> None:
    assert glance("ask", "hi", environ={"SMAI_KEY_FILE": "/run/secrets/key"}) == DEFAULT
    assert glance("ask", "hi", environ={"OPENAI_API_KEY": "sk-open"}) is None


def test_a_shell_that_completes_connects_to_nothing() -> None:
    assert glance("ask", "hi", environ=BASE | {"_SMAI_COMPLETE": "bash_complete"}) is None


def test_every_option_that_does_not_wait_is_one_of_ask_and_takes_what_it_takes_there() -> None:
    known = {name: option for option in ask.params if isinstance(option, click.Option) for name in option.opts}
    assert {name for name in _FLAGS if known[name].is_flag} == _FLAGS
    assert not [name for name in _VALUES if known[name].is_flag or known[name].nargs != 1]
    for name in ("--summary", "--api"):
        kind = known[name].type
        assert isinstance(kind, click.Choice)
        assert all(map(_VALUES[name], kind.choices))
    assert all(map(_VALUES["--api"], APIS))
