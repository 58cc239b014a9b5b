"""`-` as the file of an option: it reads stdin, once, and stdin is then not the prompt."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Server, Smai, assert_refused
from process import SMAI
from tapes import GOOD

from smai_cli.mock.server import ReceivedRequest

pytestmark = pytest.mark.preloaded

KEY = "sk-stdin-1234567890"
SCHEMA = {"type": "object"}
MESSAGE = {"role": "user", "content": "before"}


def contents(received: ReceivedRequest) -> list[Any]:
    return [message["content"] for message in received.json["messages"]]


Asked = Callable[[ReceivedRequest], Any]
# The words, the content of stdin, the part of the request to check, and its expected value.
TAKERS: dict[str, tuple[list[str], str, Asked, Any]] = {
    "-s": (["-s", "@-"], "Be brief.\n", contents, ["Be brief.\n", "hi"]),
    "-a": (["-a", "-"], "it broke\n", contents, ["stdin:\n```\nit broke\n```\n\nhi"]),
    "--messages": (["--messages", "-"], json.dumps(MESSAGE), contents, ["before", "hi"]),
    "--schema": (
        ["--schema", "-"],
        json.dumps(SCHEMA),
        lambda received: (received.json["response_format"]["json_schema"]["schema"], contents(received)),
        (SCHEMA, ["hi"]),
    ),
    "-O": (
        ["-O", "tools=@-"],
        '[{"type": "function"}]\n',
        lambda received: (received.json["tools"], contents(received)),
        ([{"type": "function"}], ["hi"]),
    ),
    "--key-file": (
        ["--key-file", "-"],
        f"{KEY}\n",
        lambda received: (received.headers["authorization"], contents(received)),
        (f"Bearer {KEY}", ["hi"]),
    ),
}
WORDS = {name: words for name, (words, *_) in TAKERS.items()}


@pytest.mark.parametrize("taker", TAKERS)
def test_a_dash_as_an_input_file_reads_stdin_which_is_then_not_part_of_the_prompt(
    smai: Smai, server: Server, taker: str
) -> None:
    words, stdin, look, expected = TAKERS[taker]
    mock = server(reply="{}")
    result = smai("ask", "--base-url", mock.url, *words, "hi", stdin=stdin.encode(), env={"SMAI_NO_STDIN": "1"})
    assert result == (0, b"{}\n", "")
    assert look(mock.received[0]) == expected


@pytest.mark.parametrize(
    ("words", "both"),
    [
        ([*WORDS["-s"], *WORDS["-a"], "hi"], "-a - and -s @- both read stdin"),
        ([*WORDS["-a"], *WORDS["-a"], "hi"], "-a - and -a - both read stdin"),
        ([*WORDS["-O"], *WORDS["--schema"], "hi"], "--schema - and -O tools=@- both read stdin"),
        (["-O", "a=@-", "-O", "b=@-", "hi"], "-O a=@- and -O b=@- both read stdin"),
        ([*WORDS["--key-file"], *WORDS["--messages"]], "--messages - and --key-file - both read stdin"),
        ([*WORDS["--key-file"], "a", "-"], "--key-file - and the operand - both read stdin"),
        (["-", "-"], "the operand - and the operand - both read stdin"),
        ([*WORDS["-a"], "-s", "@/dev/stdin", "hi"], "-a - and -s @/dev/stdin both read stdin"),
        (["-n", *WORDS["-s"], "hi"], "-n and - cannot be combined"),
        (["-n", *WORDS["--key-file"], "hi"], "-n and - cannot be combined"),
        (["-s", "@", "hi"], "-s @ needs a file name"),
    ],
)
def test_stdin_cannot_be_read_by_two_options(smai: Smai, server: Server, words: list[str], both: str) -> None:
    mock = server()
    assert_refused(smai("ask", "--base-url", mock.url, *words, stdin=b"x"), mock, both)


def test_dev_stdin_as_an_input_file_is_part_of_the_prompt_only_if_it_is_a_regular_file(
    smai: Smai, server: Server, tmp_path: Path
) -> None:
    mock, path = server(), tmp_path / "text"
    path.write_text("once")
    assert smai("ask", "--base-url", mock.url, "-s", "@/dev/stdin", "hi", stdin=b"once").status == 0
    with path.open("rb") as file:
        assert smai("ask", "--base-url", mock.url, "-s", "@/dev/stdin", "hi", stdin=file).status == 0
    assert [contents(received) for received in mock.received] == [["once", "hi"], ["once", "hi\n\nonce"]]


@pytest.mark.parametrize("words", [["-o", "-"], ["--record", "-"], ["--chat", "-"]], ids=lambda words: words[0])
def test_a_dash_is_refused_as_an_output_file(smai: Smai, server: Server, words: list[str]) -> None:
    mock = server()
    assert_refused(smai("ask", "--base-url", mock.url, *words, "hi", stdin=b"x"), mock, " needs a file name; ")


@pytest.mark.parametrize(
    ("words", "stdin", "said"),
    [
        (["-a", "-"], b"", "stdin is empty"),
        (["-a", "-"], b"\0\1", "stdin is neither text nor an image"),
        (["-s", "@-"], b"\xff", "stdin is not UTF-8: byte 0xff at byte offset 0"),
        (["--schema", "-"], b"{", "stdin, line 1: not JSON"),
        (["-O", "x=@-"], b"\xff", "stdin is not UTF-8"),
        (["--key-file", "-"], b"", "stdin is empty"),
        pytest.param(["-a", "-"], b"x" * (20 * 1024 * 1024 + 1), "stdin is larger than 20 MiB", id="large"),
    ],
)
def test_an_option_value_from_stdin_is_checked_like_one_from_a_file(
    smai: Smai, server: Server, words: list[str], stdin: bytes, said: str
) -> None:
    mock = server()
    assert_refused(smai("ask", "--base-url", mock.url, *words, "hi", stdin=stdin), mock, said)


def test_a_wait_for_an_option_value_on_stdin_is_reported(environment: dict[str, str]) -> None:
    command = [SMAI, "ask", "--mock", "-s", "@-", "hi"]
    with subprocess.Popen(command, env=environment, stdin=-1, stdout=-1, stderr=-1) as run:
        assert run.stdin
        assert run.stderr
        line = b"smai: waiting for the file on stdin that an option names; nothing has arrived for 3 s\n"
        assert run.stderr.readline() == line
        assert run.communicate(b"Be brief.")[1] == b""
    assert run.returncode == 0


def test_the_other_commands_read_a_dash_too(smai: Smai, server: Server, environment: dict[str, str]) -> None:
    mock = server(require_key=KEY)
    for command in ("models", "doctor"):
        assert smai(command, "--base-url", mock.url, "--key-file", "-", stdin=KEY.encode()).status == 0
    assert smai("decode", "-", stdin=GOOD) == (0, b"Hello world\n", "")
    assert smai("count", "-", stdin=b"Hello world").stdout.strip().isdigit()
    serve = [SMAI, "mock", "--tape", "-", "--max-requests", "1"]
    with subprocess.Popen(serve, env=environment, stdin=-1, stdout=-1) as tape:
        assert tape.stdin
        assert tape.stdout
        tape.stdin.write(GOOD)
        tape.stdin.close()
        url = tape.stdout.readline().decode().strip()
        assert smai("ask", "--base-url", url, "hi") == (0, b"Hello world\n", "")
    assert tape.returncode == 0


def test_a_key_file_on_a_terminal_is_refused_because_the_key_would_be_visible(smai: Smai, server: Server) -> None:
    mock = server()
    leader, follower = os.openpty()
    with os.fdopen(leader, "wb", buffering=0), os.fdopen(follower, "rb", buffering=0) as terminal:
        result = smai("ask", "--base-url", mock.url, "--key-file", "-", "hi", stdin=terminal)
    assert_refused(result, mock, "the key would be visible on the terminal")


def test_a_key_on_stdin_is_not_read_for_a_dry_run_and_the_curl_command_says_so(smai: Smai) -> None:
    words = ("--base-url", "http://127.0.0.1:9/v1", "--key-file", "-", "hi")
    shown = smai("ask", "--dry-run", *words, stdin=KEY.encode())
    assert (shown.status, KEY.encode() in shown.stdout, b"--key-file -" in shown.stdout) == (0, False, True)
    curl = smai("ask", "--curl", *words, stdin=KEY.encode())
    assert (curl.status, KEY.encode() in curl.stdout) == (0, False)
    assert "the command has no key" in curl.stderr
