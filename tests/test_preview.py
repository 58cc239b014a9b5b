"""--dry-run and --curl: exactly what would be sent, and nothing sent."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import Server, Smai

KEY = "sk-preview-1234567890"
PROMPTS = [
    'it\'s "quoted" `and` $HOME \\n !! %s',
    "two\nlines\n\n",
    "Grüße, 世界 😀\u2028",
    "-n --flag",
    "tab\tbell\x07",
]


def same_request(asked: Any, sent: Any) -> bool:
    """Return whether two requests, as the mock got them, ask for the same."""
    names = ("content-type", "accept", "authorization", "user-agent")
    return (asked.body, asked.path, [asked.headers.get(name) for name in names]) == (
        sent.body,
        sent.path,
        [sent.headers.get(name) for name in names],
    )


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_the_curl_command_sends_the_very_request(
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


def test_the_curl_command_carries_a_body_that_no_argument_could(
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


def test_a_key_command_is_not_run_for_a_look(smai: Smai, environment: dict[str, str], tmp_path: Path) -> None:
    folder = Path(environment["HOME"]) / ".config" / "smai"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(f'key_command = "touch {tmp_path}/ran"\n')
    preview = json.loads(smai("ask", "--dry-run", "hi").stdout)
    assert "key_command" in preview["headers"]["Authorization"]
    assert not (tmp_path / "ran").exists()


def test_an_estimate_is_marked(smai: Smai) -> None:
    size = json.loads(smai("ask", "--dry-run", "-m", "llama3.2", "12345678").stdout)["size"]
    assert (size["tokens"], size["tokens_source"]) == (2, "estimate")


def test_files_are_in_it_and_a_conversation_is_not_touched(smai: Smai, tmp_path: Path) -> None:
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
def test_a_host_that_no_name_server_takes_is_one_message(smai: Smai, look: str) -> None:
    result = smai("ask", look, "--base-url", f"http://ü{'a' * 62}.example/v1", "hi")
    assert (result.status, result.stdout, result.stderr.count("\n")) == (2, b"", 1)
    assert result.stderr.startswith("smai: the base URL cannot be used: ")


def test_a_full_disk_is_11(environment: dict[str, str]) -> None:
    with Path("/dev/full").open("wb") as full:
        for look in ("--dry-run", "--curl"):
            command = ["smai", "ask", look, "hi"]
            done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=full, check=False)
            assert done.returncode == 11


@pytest.mark.parametrize("other", [["--curl"], ["-o", "x"], ["--record", "x"]])
def test_a_look_goes_with_nothing_that_would_be_written(smai: Smai, other: list[str]) -> None:
    assert smai("ask", "--dry-run", *other, "hi").status == 2
