"""The server to which smai connects before it has parsed the command line, and when it does not."""

import os
from pathlib import Path

import click
import pytest

from smai_cli.cli.commands.ask import ask
from smai_cli.cli.early_connect import FLAGS, VALUES, likely_server

DEFAULT = ("api.smai.ai", 443)
URL = "https://llm.example:8443/v1"
THERE = ("llm.example", 8443)
BASE = {"SMAI_BASE_URL": URL}


@pytest.mark.parametrize(
    "words",
    [
        ("hi",),
        ("-",),
        (),
        ("-n", "hi"),
        ("-m", "gpt-4.1-mini", "hi"),
        ("-mgpt-4.1-mini", "hi"),
        ("--model=o3", "-t0.2", "--max-tokens=5", "hi"),
        ("-s", "Be brief.", "-t", "0", "--top-p", "1", "--seed", "7", "--effort", "low", "--stop", "END", "hi"),
        ("--extract", "--summary=text", "hi"),
        ("--max-time", "60", "--idle-timeout=5", "--retries", "0", "--jsonl", "hi"),
        ("--", "--dry-run"),
    ],
)
def test_options_that_do_not_change_the_server_let_smai_connect_early(words: tuple[str, ...]) -> None:
    assert likely_server(["ask", *words], {}) == DEFAULT
    assert likely_server(["ask", *words], BASE) == THERE


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("--help",),
        ("models",),
        ("mock", "hi"),
        ("--", "ask", "hi"),
        *(
            ("ask", *words)
            for words in (
                ("--help",),
                ("-h", "hi"),
                ("-v", "hi"),
                ("-nv", "hi"),
                ("-p", "work", "hi"),
                ("--profile=work", "hi"),
                ("--mock", "hi"),
                ("--dry-run", "hi"),
                ("--curl", "hi"),
                ("--key-file", "-", "hi"),
                ("-a", "picture.png", "hi"),
                ("--chat", "talk.json", "hi"),
                ("-o", "answer.txt", "hi"),
                ("--connect-timeout", "3", "hi"),
                ("--no-stdin=1", "hi"),
                ("--sytem", "x", "hi"),
                ("--base-url", "http://127.0.0.1:1/v1", "hi"),
                ("--base-url",),
                ("--base-url=", "hi"),
            )
        ),
    ],
)
def test_any_other_command_line_does_not_connect_early(args: tuple[str, ...]) -> None:
    assert likely_server(args, BASE) is None


def test_the_last_base_url_option_overrides_the_environment() -> None:
    args = ("ask", "--base-url", "https://one.example", "--base-url=https://two.example/v1", "hi")
    assert likely_server(args, BASE) == ("two.example", 443)


@pytest.mark.parametrize(
    ("base_url", "server"),
    [
        ("https://LLM.Example", ("llm.example", 443)),
        ("https://127.0.0.1:8443/v1/", ("127.0.0.1", 8443)),
        ("https://llm.example/v1?api-version=1", ("llm.example", 443)),
        ("https://llm.example?v=1", None),
        ("https://llm.example#x", None),
        ("https://user:pw@llm.example/v1", None),
        ("https://[::1]:8443/v1", None),
        ("https://llm.example:/v1", None),
        ("https://llm.example:0/v1", None),
        ("https://llm.example:99999/v1", None),
        ("https://llm.example:" + "9" * 5000 + "/v1", None),
        ("https://llm.example:000443" + "9" * 5000 + "/v1", None),
        ("https://llm.example:000443999/v1", None),
        ("https://llm..example/v1", None),
        ("https://" + "l" * 64 + ".example/v1", None),
        ("https:///v1", None),
        ("https://bücher.example/v1", None),
        ("https://llm.example/v1 ", None),
        ("https://llm.example/\tv1", None),
        ("http://llm.example/v1", None),
        ("llm.example", None),
    ],
)
def test_an_early_connection_is_made_only_to_a_simple_https_url(base_url: str, server: tuple[str, int] | None) -> None:
    assert likely_server(["ask", "hi"], {"SMAI_BASE_URL": base_url}) == server


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ('model = "gpt-4.1"', THERE),
        ('key_file = "key"', THERE),
        ('base_url = "https://other.example"', None),
        ('[profile.work]\nmodel = "x"', None),
        ("connect_timeout = 3", None),
        ('"base\\u005furl" = "https://other.example"', None),
        ("#" * 70000, None),
    ],
)
def test_a_configuration_that_may_change_the_server_prevents_an_early_connection(
    tmp_path: Path, text: str, server: tuple[str, int] | None
) -> None:
    folder = tmp_path / "smai"
    folder.mkdir()
    (folder / "config.toml").write_text(text)
    assert likely_server(["ask", "hi"], BASE | {"XDG_CONFIG_HOME": str(tmp_path)}) == server


def test_an_unreadable_configuration_prevents_an_early_connection(tmp_path: Path) -> None:
    (tmp_path / "smai").mkdir()
    os.mkfifo(tmp_path / "smai" / "config.toml")
    assert likely_server(["ask", "hi"], BASE | {"XDG_CONFIG_HOME": str(tmp_path)}) is None


@pytest.mark.parametrize(
    "variable", [{"SMAI_PROFILE": "work"}, {"SMAI_CHAT": "talk.json"}, {"_SMAI_COMPLETE": "bash_complete"}]
)
def test_a_variable_that_may_change_the_server_prevents_an_early_connection(variable: dict[str, str]) -> None:
    assert likely_server(["ask", "hi"], BASE | variable) is None


def test_the_lists_contain_only_options_of_ask() -> None:
    known = {name: option for option in ask.params if isinstance(option, click.Option) for name in option.opts}
    assert {name for name in FLAGS if known[name].is_flag} == FLAGS
    assert not [name for name in VALUES if known[name].is_flag or known[name].nargs != 1]
