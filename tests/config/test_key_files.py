"""Keys in containers: SMAI_KEY_FILE, and which files are accepted although others can read them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Config, Server, Smai, sent_authorization
from process import SMAI

KEY = "sk-container-5b8e2f6a91"


def secret(path: Path, mode: int = 0o600) -> Path:
    path.write_text(f"{KEY}\n")
    path.chmod(mode)
    return path


# SMAI_KEY_FILE.


def test_the_key_file_in_the_environment_is_used_only_for_the_server_in_the_environment(
    smai: Smai, server: Server, tmp_path: Path
) -> None:
    mock, other = server(), server()
    env = {"SMAI_KEY_FILE": str(secret(tmp_path / "key"))}
    assert smai("ask", "hi", env=env | {"SMAI_BASE_URL": mock.url}).status == 0
    assert sent_authorization(mock) == f"Bearer {KEY}"
    assert smai("ask", "--base-url", other.url, "hi", env=env).status == 0
    assert smai("ask", "--base-url", other.url, "hi", env=env | {"SMAI_BASE_URL": mock.url}).status == 0
    assert [request.headers.get("authorization") for request in other.received] == [None, None]


def test_the_key_takes_precedence_over_its_file_and_an_empty_name_is_ignored(
    smai: Smai, server: Server, tmp_path: Path
) -> None:
    mock = server()
    env = {"SMAI_BASE_URL": mock.url, "SMAI_KEY_FILE": str(secret(tmp_path / "key"))}
    assert smai("ask", "hi", env=env | {"SMAI_API_KEY": "sk-itself-123456"}).status == 0
    assert sent_authorization(mock) == "Bearer sk-itself-123456"
    assert smai("ask", "hi", env=env | {"SMAI_API_KEY": ""}).status == 0
    assert sent_authorization(mock) == f"Bearer {KEY}"
    assert smai("ask", "hi", env=env | {"SMAI_KEY_FILE": ""}).status == 0
    assert sent_authorization(mock) is None


def test_a_missing_or_public_file_is_an_error_that_names_the_variable(
    smai: Smai, server: Server, tmp_path: Path
) -> None:
    mock = server()
    env = {"SMAI_BASE_URL": mock.url}
    missing = smai("ask", "hi", env=env | {"SMAI_KEY_FILE": "/nowhere/key"})
    message = "smai: the key file /nowhere/key: No such file or directory; check SMAI_KEY_FILE\n"
    assert (missing.status, missing.stderr) == (2, message)
    path = secret(tmp_path / "key", 0o644)
    result = smai("ask", "hi", env=env | {"SMAI_KEY_FILE": str(path)})
    assert (result.status, mock.received) == (2, [])
    assert result.stderr == f"smai: others can read the key file {path}; run chmod 600 {path}\n"


def test_config_doctor_and_the_message_for_a_refused_key_name_the_key_file(
    smai: Smai, server: Server, environment: dict[str, str]
) -> None:
    mock = server(require_key="sk-another")
    path = secret(Path(environment["HOME"]) / "key")
    env = {"SMAI_BASE_URL": mock.url, "SMAI_KEY_FILE": "~/key"}
    assert smai("config", env=env).stdout.endswith(b"# key: set, from SMAI_KEY_FILE\n")
    assert b"set, from SMAI_KEY_FILE" in smai("doctor", env=env).stdout
    assert smai("ask", "hi", env=env).stderr.endswith(f"check the key from the file {path} (SMAI_KEY_FILE)\n")
    foreign = smai("ask", "--base-url", server(require_key="sk").url, "hi", env={"SMAI_KEY_FILE": str(path)})
    assert "no key was sent; SMAI_KEY_FILE is set, but belongs to https://api.smai.ai" in foreign.stderr


def test_the_answer_does_not_replace_the_key_file(smai: Smai, server: Server, tmp_path: Path) -> None:
    path = secret(tmp_path / "key")
    env = {"SMAI_BASE_URL": server().url, "SMAI_KEY_FILE": str(path)}
    result = smai("ask", "-o", path, "hi", env=env)
    assert (result.status, path.read_text()) == (2, f"{KEY}\n")
    assert "SMAI_KEY_FILE" in result.stderr


# Files that others can read.


def run(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False, text=True
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("mode", [0o444, 0o644, 0o440])
def test_a_key_file_that_others_can_read_is_refused(smai: Smai, tmp_path: Path, mode: int) -> None:
    path = secret(tmp_path / "key", mode)
    result = smai("ask", "--key-file", path, "--base-url", "http://127.0.0.1:1/v1", "hi")
    assert (result.status, result.stderr) == (2, f"smai: others can read the key file {path}; run chmod 600 {path}\n")


@pytest.mark.parametrize("mode", [0o444, 0o644])
def test_a_key_file_on_a_read_only_mount_is_accepted(
    server: Server, environment: dict[str, str], tmp_path: Path, mode: int
) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    path = secret(folder / "key", mode)
    mount = f'mount --bind "{folder}" "{folder}" && mount -o remount,bind,ro "{folder}"'
    inside = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or run([*inside, mount], environment)[0]:
        pytest.skip("this user cannot mount")
    mock = server()
    ask = f'"{SMAI}" ask --key-file "{path}" --base-url {mock.url} hi'
    assert run([*inside, f"{mount} && {ask}"], environment) == (0, "")
    assert sent_authorization(mock) == f"Bearer {KEY}"
    status, message = run([*inside, ask], environment)
    assert (status, f"run chmod 600 {path}" in message) == (2, True)


def test_a_key_file_of_another_user_is_accepted_if_this_user_cannot_write_it(
    server: Server, environment: dict[str, str], tmp_path: Path
) -> None:
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root can make a file of another user")
    mock = server()
    path = secret(tmp_path / "key", 0o644)
    os.chown(path, 12345, 12345)
    # Root ignores modes, unless it drops its capabilities.
    user = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
    ask = [SMAI, "ask", "--base-url", mock.url, "--key-file", str(path), "hi"]
    assert run([*user, *ask], environment) == (0, "")
    assert sent_authorization(mock) == f"Bearer {KEY}"
    message = f"smai: others can read the key file {path}; have its owner run chmod 600 {path}\n"
    assert run(ask, environment) == (2, message)  # root can write it
    path.chmod(0o666)
    assert run([*user, *ask], environment) == (2, message)


def test_a_header_file_follows_the_same_rules_as_a_key_file(
    server: Server, environment: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "headers"
    path.write_text(f"X-Gateway-Key: {KEY}\n")
    path.chmod(0o644)
    mock = server()
    ask = [SMAI, "ask", "--base-url", mock.url, "-H", f"@{path}", "hi"]
    assert run(ask, environment) == (2, f"smai: others can read the header file {path}; run chmod 600 {path}\n")
    if os.geteuid() == 0 and shutil.which("setpriv"):
        os.chown(path, 12345, 12345)
        assert run(["setpriv", "--inh-caps=-all", "--bounding-set=-all", *ask], environment) == (0, "")
        assert mock.received[-1].headers["x-gateway-key"] == KEY


# SMAI_CHAT.


def test_a_conversation_named_in_the_environment_continues_from_run_to_run(
    smai: Smai, server: Server, tmp_path: Path, config: Config
) -> None:
    mock = server(reply="Tea.")
    config(f'base_url = "{mock.url}"\n')
    env = {"SMAI_CHAT": str(tmp_path / "talk.json")}
    assert smai("ask", "What?", env=env).stdout == b"Tea.\n"
    assert smai("ask", "Why?", env=env).stdout == b"Tea.\n"
    assert [message["content"] for message in mock.received[-1].json["messages"]] == ["What?", "Tea.", "Why?"]
    assert smai("ask", "Alone.", env=env | {"SMAI_CHAT": ""}).status == 0
    assert [message["content"] for message in mock.received[-1].json["messages"]] == ["Alone."]
    other = tmp_path / "other.json"
    assert smai("ask", "--chat", other, "Other.", env=env).status == 0
    assert [message["content"] for message in mock.received[-1].json["messages"]] == ["Other."]


def test_typed_messages_take_precedence_over_the_conversation_in_the_environment(
    smai: Smai, server: Server, tmp_path: Path
) -> None:
    mock = server()
    messages = tmp_path / "messages.json"
    messages.write_text('[{"role": "user", "content": "Typed."}]')
    talk = tmp_path / "talk.json"
    result = smai("ask", "--base-url", mock.url, "--messages", messages, env={"SMAI_CHAT": str(talk)})
    assert (result.status, talk.exists()) == (0, False)
    assert [message["content"] for message in mock.received[-1].json["messages"]] == ["Typed."]
