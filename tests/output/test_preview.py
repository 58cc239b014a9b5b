"""--dry-run and --curl: exactly what would be sent, and nothing sent."""

import json
import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Config, Server, Smai

pytestmark = [pytest.mark.preloaded, pytest.mark.thorough]

KEY = "sk-preview-1234567890"
PROMPTS = [
    'it\'s "quoted" `and` $HOME \\n !! %s',
    "two\nlines\n\n",
    "Grüße, 世界 😀\u2028",
    "-n --flag",
    "tab\tbell\x07",
]


def same_request(asked: Any, sent: Any) -> bool:
    """Return whether two requests, as the mock received them, are the same."""
    names = ("content-type", "accept", "authorization", "user-agent")
    return (asked.body, asked.path, [asked.headers.get(name) for name in names]) == (
        sent.body,
        sent.path,
        [sent.headers.get(name) for name in names],
    )


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_the_curl_command_sends_the_same_request(
    smai: Smai, server: Server, environment: dict[str, str], prompt: str, api: str
) -> None:
    mock = server()
    env = {"SMAI_BASE_URL": mock.url, "SMAI_API_KEY": KEY}
    arguments = ["--api", api, "-s", "be 'terse'", "-O", "user=me", "--summary", "none"]
    command = smai("ask", "--curl", *arguments, stdin=prompt.encode(), env=env)
    assert (command.status, mock.received) == (0, [])
    assert KEY.encode() not in command.stdout
    assert smai("ask", *arguments, stdin=prompt.encode(), env=env).status == 0
    done = subprocess.run(["sh", "-c", command.stdout], env=environment | env, capture_output=True, check=False)
    assert done.returncode == 0
    assert same_request(mock.received[0], mock.received[1])
    assert smai("decode", stdin=done.stdout).status == 0


def test_the_curl_command_can_send_a_body_too_long_for_an_argument(
    smai: Smai, server: Server, environment: dict[str, str]
) -> None:
    mock = server()
    prompt = b"it's long " * 100_000
    command = smai("ask", "--curl", "--base-url", mock.url, stdin=prompt)
    subprocess.run(["bash"], input=command.stdout, env=environment, capture_output=True, check=True)
    assert mock.received[0].json["messages"][0]["content"] == prompt.decode()


def test_a_dry_run_prints_the_request_with_its_size_and_sends_nothing(smai: Smai, server: Server) -> None:
    mock = server()
    env = {"SMAI_BASE_URL": mock.url, "SMAI_API_KEY": KEY}
    arguments = ["-m", "gpt-4o", "-t", "0.5", "-s", "hello world", "tiktoken is great!"]
    shown = smai("ask", "--dry-run", *arguments, env=env)
    assert (shown.status, shown.stderr, mock.received) == (0, "", [])
    preview = json.loads(shown.stdout)
    assert smai("ask", *arguments, env=env).status == 0
    sent = mock.received[0]
    assert preview["body"] == sent.json
    assert (preview["method"], preview["url"]) == (sent.method, f"{mock.url}/chat/completions")
    headers = {name.lower(): value for name, value in preview["headers"].items()}
    assert headers.pop("authorization") == "Bearer (SMAI_API_KEY)"
    assert {name: sent.headers[name] for name in headers} == headers
    assert preview["size"] == {"bytes": len(sent.body), "characters": 29, "tokens": 8, "tokens_source": "local"}


def test_a_dry_run_needs_no_key_and_no_network(smai: Smai) -> None:
    preview = json.loads(smai("ask", "--dry-run", "hi").stdout)
    assert preview["url"] == "https://api.smai.ai/v1/chat/completions"
    assert preview["headers"]["Authorization"] == "Bearer (SMAI_API_KEY, which is not set)"
    assert b'"Authorization: Bearer $SMAI_API_KEY"' in smai("ask", "--curl", "hi").stdout
    local = smai("ask", "--curl", "--base-url", "http://localhost:1/v1", "hi").stdout
    assert b"Authorization" not in local


HOSTILE: list[str | bytes] = [
    "key",
    "-k",
    "it's",
    'a "b" c',
    "$(touch ran)",
    "`touch ran`",
    "two\nlines",
    "a\\",
    "*",
    b"caf\xe9",
    "a=b",
]
SHELLS = ["sh", "dash", "bash"]
NOT_THIS_ONE = "sk-that-of-the-environment"


def as_bytes(name: str | bytes) -> bytes:
    return os.fsencode(name)


@pytest.fixture
def run_here(environment: dict[str, str], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """`run_here(["smai", ...])` runs a command in an empty folder, with a key of the service in its environment."""
    folder = tmp_path / "here"
    folder.mkdir()

    def run(command: Any, **env: str) -> subprocess.CompletedProcess[bytes]:
        found = environment | {"SMAI_API_KEY": NOT_THIS_ONE} | env
        return subprocess.run(
            command, cwd=folder, env=found, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )

    return run


def test_the_curl_command_takes_the_key_from_the_file_that_a_run_would_take(
    server: Server, run_here: Callable[..., Any], tmp_path: Path
) -> None:
    mock = server(require_key=KEY)
    for name in map(as_bytes, HOSTILE):
        path = os.fsencode(tmp_path / "here") + b"/" + name
        Path(os.fsdecode(path)).write_bytes(f"{KEY}\r\n".encode())
        os.chmod(path, 0o600)
        command = run_here(["smai", "ask", "--curl", "--base-url", mock.url, "--key-file", name, "hi"])
        assert (command.returncode, command.stderr) == (0, b"")
        for shell in SHELLS:
            run_here([shell, "-c", command.stdout])
            assert mock.received.pop().headers["authorization"] == f"Bearer {KEY}"
    assert sorted(map(as_bytes, os.listdir(tmp_path / "here"))) == sorted(map(as_bytes, HOSTILE))


def test_the_curl_command_runs_the_key_command_that_a_run_would_run(
    server: Server, run_here: Callable[..., Any], config: Config, environment: dict[str, str], tmp_path: Path
) -> None:
    mock = server(require_key=KEY)
    found = {"PATH": f"{tmp_path}:{environment['PATH']}"}
    for name in (name for name in HOSTILE if isinstance(name, str)):
        program = tmp_path / name
        test = f'[ "$1" = {shlex.quote(name)} ]'
        program.write_text(f"#!/bin/sh\ncat\n{test} && printf '{KEY}\\r\\n'\necho more\n")
        program.chmod(0o755)
        config(f'base_url = "{mock.url}"\nkey_command = {json.dumps([name, name])}\n')
        command = run_here(["smai", "ask", "--curl", "hi"], **found)
        assert (command.returncode, command.stderr) == (0, b"")
        for shell in SHELLS:
            run_here([shell, "-c", command.stdout], **found)
            request = mock.received.pop()
            assert request.headers["authorization"] == f"Bearer {KEY}"
            assert request.json["messages"][0]["content"] == "hi"
    assert os.listdir(tmp_path / "here") == []


def test_a_configured_key_file_is_named_with_its_full_path(smai: Smai, config: Config) -> None:
    path = config('key_file = "it\'s"\n')
    assert rf"""$(tr -d '\r' <'{path.with_name("it")!s}'"'"'s')""".encode() in smai("ask", "--curl", "hi").stdout
    config('key_file = "~/k"\n')
    home = path.parents[2]
    assert rf"Authorization: Bearer $(tr -d '\r' <{home}/k)".encode() in smai("ask", "--curl", "hi").stdout


def test_the_curl_command_omits_a_key_that_a_shell_cannot_read_with_a_notice(
    smai: Smai, server: Server, environment: dict[str, str]
) -> None:
    mock = server()
    env = {"SMAI_BASE_URL": mock.url}
    assert smai("login", stdin=KEY.encode(), env=env).status == 0
    for options in ("", "--key-file <(echo sk-of-a-pipe)", "--key-file /dev/stdin"):
        line = f"smai ask --curl {options} hi"
        done = subprocess.run(["bash", "-c", line], env=environment | env, input=b"x", capture_output=True, check=False)
        assert done.returncode == 0
        assert b"Authorization" not in done.stdout
        assert done.stderr.count(b"\n") == 1
        assert done.stderr.startswith(b"smai: the command has no key, because a shell cannot read it from ")


def test_a_dry_run_refuses_what_ask_refuses(smai: Smai, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(KEY)
    key.chmod(0o600)
    for arguments, env in (
        (["--base-url", "http://192.0.2.1/v1", "--key-file", key], {}),
        ([], {"SMAI_BASE_URL": "http://127.0.0.999/v1", "SMAI_API_KEY": KEY}),
    ):
        for look in ("--curl", "--dry-run"):
            result = smai("ask", look, *arguments, "hi", env=env)
            assert (result.status, result.stdout, result.stderr.count("\n")) == (2, b"", 1)
            assert "a key never goes over plain http" in result.stderr


def test_the_query_of_a_url_is_in_the_command_and_its_names_in_the_dry_run(smai: Smai) -> None:
    url = "https://x.example/v1?code=hush&api-version=2024-10-21"
    assert (
        b"/v1/chat/completions?code=hush&api-version=2024-10-21"
        in smai("ask", "--curl", "--base-url", url, "hi").stdout
    )
    preview = json.loads(smai("ask", "--dry-run", "--base-url", url, "hi").stdout)
    assert preview["url"] == "https://x.example/v1/chat/completions?code=...&api-version=2024-10-21"


def test_a_dry_run_shows_a_path_that_is_not_utf_8(environment: dict[str, str], tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.makedirs(folder + b"/smai")
    Path(os.fsdecode(folder + b"/smai/config.toml")).write_text('key_file = "k"\n')
    result = subprocess.run(
        ["smai", "ask", "--dry-run", "hi"],
        env={**{os.fsencode(k): os.fsencode(v) for k, v in environment.items()}, b"XDG_CONFIG_HOME": folder},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert "caf\udce9" in json.loads(result.stdout)["headers"]["Authorization"]


def test_a_key_command_is_not_run_for_a_dry_run(smai: Smai, environment: dict[str, str], tmp_path: Path) -> None:
    folder = Path(environment["HOME"]) / ".config" / "smai"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(f'key_command = "touch {tmp_path}/ran"\n')
    preview = json.loads(smai("ask", "--dry-run", "hi").stdout)
    assert "key_command" in preview["headers"]["Authorization"]
    assert not (tmp_path / "ran").exists()


def test_an_estimated_token_count_is_marked(smai: Smai) -> None:
    size = json.loads(smai("ask", "--dry-run", "-m", "llama3.2", "12345678").stdout)["size"]
    assert (size["tokens"], size["tokens_source"]) == (2, "estimate")


def test_a_preview_contains_files_and_leaves_a_conversation_unchanged(smai: Smai, tmp_path: Path) -> None:
    chat, picture = tmp_path / "chat.jsonl", tmp_path / "a.png"
    chat.write_text('{"role":"user","content":"one"}\n{"role":"assistant","content":"two"}\n')
    picture.write_bytes(b"\x89PNG\r\n\x1a\n")
    before = chat.read_bytes()
    preview = json.loads(smai("ask", "--dry-run", "--chat", chat, "-a", picture, "three").stdout)
    contents = [message["content"] for message in preview["body"]["messages"]]
    assert contents[:2] == ["one", "two"]
    assert [part["type"] for part in contents[2]] == ["image_url", "text"]
    assert (chat.read_bytes(), sorted(os.listdir(tmp_path))) == (before, ["a.png", "chat.jsonl", "home"])


@pytest.mark.parametrize("look", ["--dry-run", "--curl"])
def test_an_invalid_host_name_is_reported_in_one_line(smai: Smai, look: str) -> None:
    result = smai("ask", look, "--base-url", f"http://ü{'a' * 62}.example/v1", "hi")
    assert (result.status, result.stdout, result.stderr.count("\n")) == (2, b"", 1)
    assert result.stderr.startswith("smai: the base URL cannot be used: ")


def test_a_full_disk_is_status_11(environment: dict[str, str]) -> None:
    with Path("/dev/full").open("wb") as full:
        for look in ("--dry-run", "--curl"):
            command = ["smai", "ask", look, "hi"]
            done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=full, check=False)
            assert done.returncode == 11


@pytest.mark.parametrize("other", [["--curl"], ["-o", "x"], ["--record", "x"]])
def test_a_dry_run_excludes_options_that_write_files(smai: Smai, other: list[str]) -> None:
    assert smai("ask", "--dry-run", *other, "hi").status == 2


@pytest.mark.parametrize("option", ["--dry-run", "--curl"])
def test_only_a_preview_that_fails_prints_the_json_summary(smai: Smai, option: str) -> None:
    words = ["ask", option, "--summary", "json", "hi", "--base-url"]
    result = smai(*words, "ftp://host")
    assert (result.status, result.stdout) == (2, b"")
    assert json.loads(result.stderr.splitlines()[1])["exit_status"] == 2
    assert smai(*words, "http://127.0.0.1:9/v1").stderr == ""
