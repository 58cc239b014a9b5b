"""Precedence of the settings for the server and its key, and messages about a key that is not used or refused."""

import json
from pathlib import Path

import pytest
from conftest import Config, Server, Smai, sent_authorization
from process import Result

from smai_cli.config.base_url import origin_of
from smai_cli.mock.server import Mock

pytestmark = pytest.mark.preloaded

KEY = "sk-whose-1234567890"
FOREIGN = 'SMAI_API_KEY is set, but belongs to https://api.smai.ai; use --key-file, SMAI_BASE_URL or "smai login{}"'


def key_file(path: Path) -> Path:
    path.touch(0o600)
    path.write_text(KEY)
    return path


def refused(result: Result, hint: str) -> None:
    assert result.status == 5, result
    assert result.stderr.count("\n") == 1
    assert result.stderr.endswith(f"; {hint}\n"), result.stderr
    assert KEY not in result.stderr


# The server.


def test_a_typed_profile_overrides_an_exported_base_url_and_does_not_get_its_key(
    smai: Smai, server: Server, config: Config
) -> None:
    work, exported = server(), server()
    path = config(f'[profile.work]\nbase_url = "{work.url}"\n')
    env = {"SMAI_BASE_URL": exported.url, "SMAI_API_KEY": KEY}
    assert smai("ask", "-p", "work", "hi", env=env).status == 0
    assert (len(work.received), sent_authorization(work), len(exported.received)) == (1, None, 0)
    assert (
        f'base_url = "{work.url}"  # {path} [profile.work]\n' in smai("config", "-p", "work", env=env).stdout.decode()
    )
    typed = smai("ask", "-p", "work", "--base-url", exported.url, "hi", env=env)
    assert (typed.status, len(exported.received), sent_authorization(exported)) == (0, 1, f"Bearer {KEY}")


def test_other_variables_override_a_profile_in_the_environment(smai: Smai, server: Server, config: Config) -> None:
    work, exported = server(), server()
    config(f'[profile.work]\nbase_url = "{work.url}"\nmodel = "theirs"\n')
    env = {"SMAI_BASE_URL": exported.url, "SMAI_API_KEY": KEY, "SMAI_MODEL": "mine", "SMAI_PROFILE": "work"}
    assert smai("ask", "hi", env=env).status == 0
    assert (len(work.received), sent_authorization(exported)) == (0, f"Bearer {KEY}")
    assert exported.received[-1].json["model"] == "mine"
    shown = smai("config", env=env).stdout.decode()
    assert [line.split("  # ")[1] for line in shown.splitlines() if line.startswith(("model", "base_url"))] == [
        "SMAI_MODEL",
        "SMAI_BASE_URL",
    ]
    assert smai("ask", "-p", "work", "hi", env=env).status == 0
    assert work.received[-1].json["model"] == "theirs"


def test_the_environment_supplies_settings_that_a_typed_profile_lacks(
    smai: Smai, server: Server, config: Config
) -> None:
    exported = server()
    config('base_url = "http://127.0.0.1:1/v1"\nmodel = "file"\n[profile.work]\nretries = 0\n')
    env = {"SMAI_BASE_URL": exported.url, "SMAI_MODEL": "mine"}
    assert smai("ask", "-p", "work", "hi", env=env).status == 0
    assert exported.received[-1].json["model"] == "mine"


def test_config_and_doctor_use_the_same_precedence_as_a_run(smai: Smai, server: Server, config: Config) -> None:
    work = server()
    path = config(f'[profile.work]\nbase_url = "{work.url}"\nmodel = "gpt-4.1"\nkey_command = "echo {KEY}"\n')
    env = {"SMAI_BASE_URL": "http://127.0.0.1:1/v1", "SMAI_API_KEY": "sk-other", "SMAI_MODEL": "mine"}
    shown = smai("config", "-p", "work", env=env).stdout.decode()
    sources = {line.split(" = ")[0]: line.split("  # ")[1] for line in shown.splitlines() if " = " in line}
    assert (sources["base_url"], sources["model"]) == (f"{path} [profile.work]",) * 2
    assert shown.endswith(f"# key: set, from key_command ({path} [profile.work])\n")
    result = smai("doctor", "--json", "-p", "work", env=env)
    details = {check["check"]: check["detail"] for check in map(json.loads, result.stdout.splitlines())}
    assert details["base_url"] == f"{work.url}, from {path} [profile.work]"
    assert details["key"] == f"set, from key_command ({path} [profile.work])"
    assert details["model"] == f"gpt-4.1, from {path} [profile.work], is listed"
    assert (result.status, work.received[0].headers["authorization"]) == (0, f"Bearer {KEY}")


def test_doctor_does_not_connect_to_the_exported_server_if_the_typed_profile_is_unreadable(
    smai: Smai, server: Server, config: Config
) -> None:
    exported = server()
    config("modle = 1\n")
    result = smai("doctor", "-p", "work", env={"SMAI_BASE_URL": exported.url, "SMAI_API_KEY": KEY})
    assert (result.status, exported.received) == (2, [])
    assert b"base_url: not checked, because configuration failed" in result.stdout


def test_the_keys_of_a_typed_profile_take_precedence_over_the_environment(
    smai: Smai, server: Server, config: Config
) -> None:
    mock = server()
    env = {"SMAI_BASE_URL": mock.url, "SMAI_API_KEY": "sk-exported"}
    config(f'base_url = "{mock.url}"\n[profile.file]\nkey_command = "echo {KEY}"\n[profile.stored]\n')
    assert smai("login", "--no-check", "-p", "stored", stdin=b"sk-stored", env=env).status == 0
    for options, more, key in (
        ([], {}, "sk-exported"),
        (["-p", "file"], {}, KEY),
        (["-p", "stored"], {}, "sk-stored"),
        ([], {"SMAI_PROFILE": "file"}, "sk-exported"),
        ([], {"SMAI_PROFILE": "stored"}, "sk-exported"),
    ):
        assert smai("models", *options, env=env | more).status == 0
        assert sent_authorization(mock) == f"Bearer {key}"


# A key that is set, and is for another server.


def test_no_message_about_the_key_is_printed_for_a_server_that_needs_none(smai: Smai, server: Server) -> None:
    mock = server()
    result = smai("ask", "--base-url", mock.url, "hi", env={"SMAI_API_KEY": KEY})
    assert (result.status, result.stderr, sent_authorization(mock)) == (0, "", None)
    # Nor is a variable mentioned that is not used.
    assert smai("ask", "--base-url", mock.url, "hi", env={"SMAI_BASE_URL": "no URL"}).status == 0


@pytest.mark.parametrize("command", [["ask", "hi"], ["ask", "--no-stream", "hi"], ["models"]])
def test_a_refusal_says_that_the_key_in_the_environment_is_for_another_server(
    smai: Smai, server: Server, config: Config, command: list[str]
) -> None:
    mock = server(require_key=KEY)
    hint = f"no key was sent; {FOREIGN}"
    refused(smai(*command, "--base-url", mock.url, env={"SMAI_API_KEY": KEY}), hint.format(f" --base-url {mock.url}"))
    config(f'[profile.work]\nbase_url = "{mock.url}"\n')
    refused(smai(*command, "-p", "work", env={"SMAI_API_KEY": KEY}), hint.format(" -p work"))
    assert sent_authorization(mock) is None


def test_config_and_doctor_say_that_the_key_in_the_environment_is_for_another_server(
    smai: Smai, server: Server, config: Config
) -> None:
    config(f'base_url = "{server().url}"\n')
    env = {"SMAI_API_KEY": KEY}
    foreign = FOREIGN.format("")
    assert smai("config", env=env).stdout.decode().endswith(f"\n# key: none for this server; {foreign}\n")
    result = smai("doctor", env=env)
    assert (result.status, f"none for this server: {foreign}" in result.stdout.decode()) == (0, True)
    assert KEY not in result.stdout.decode()


def test_a_missing_key_of_the_default_server_has_the_same_message(smai: Smai) -> None:
    env = {"SMAI_API_KEY": KEY, "SMAI_BASE_URL": "https://other.example:8443/v1"}
    flags = ("--base-url", "https://api.smai.ai/v1")
    words = "SMAI_API_KEY is set, but belongs to https://other.example:8443"
    hint = 'use --key-file, SMAI_BASE_URL or "smai login --base-url https://api.smai.ai/v1"'
    message = f"smai: no API key for https://api.smai.ai: {words}; {hint}\n"
    assert smai("ask", *flags, "hi", env=env) == (2, b"", message)
    result = smai("ask", *flags, "--curl", "hi", env=env)
    assert result.status == 0
    assert b"SMAI_API_KEY" not in result.stdout  # a shell would send it
    assert "a shell cannot read it from SMAI_API_KEY, which belongs to another server" in result.stderr


def test_the_suggested_login_stores_the_key_that_is_missing(smai: Smai, server: Server, config: Config) -> None:
    url = server(require_key=KEY).url
    config(f'[profile.work]\nbase_url = "{url}"\n')
    for options, env in (
        (("--base-url", url), {}),
        (("-p", "work"), {}),
        ((), {"SMAI_BASE_URL": url}),
        ((), {"SMAI_PROFILE": "work"}),
        (("--base-url", url), {"SMAI_API_KEY": KEY}),
    ):
        result = smai("models", *options, env=env)
        assert result.status == 5
        command = result.stderr.split('"')[-2].split()
        assert command[:2] == ["smai", "login"]
        assert smai(*command[1:], stdin=KEY.encode(), env=env).status == 0
        assert smai("models", *options, env=env).status == 0
        assert smai("logout", "--all").status == 0


# Where a key that was refused came from.


def test_a_refusal_names_the_source_of_the_key(smai: Smai, server: Server, config: Config, tmp_path: Path) -> None:
    mock = server(require_key="sk-another")
    url, file = mock.url, key_file(tmp_path / "key")
    path = config(
        f'[profile.file]\nbase_url = "{url}"\nkey_file = "mine"\n'
        f'[profile.command]\nbase_url = "{url}"\nkey_command = "echo {KEY}"\n'
    )
    relative = key_file(path.parent / "mine")
    keys = path.with_name("keys.json")
    env = {"SMAI_BASE_URL": url, "SMAI_API_KEY": KEY}
    refused(smai("ask", "hi", env=env), "check the key from SMAI_API_KEY")
    refused(smai("models", env=env), "check the key from SMAI_API_KEY")
    refused(smai("ask", "--key-file", file, "hi", env=env), f"check the key from the file {file}")
    refused(smai("ask", "-p", "file", "hi"), f"check the key from the file {relative} ({path} [profile.file])")
    refused(smai("ask", "-p", "command", "hi"), f"check the key from key_command ({path} [profile.command])")
    refused(smai("ask", "--base-url", url, "hi"), f'no key was sent; use --key-file or "smai login --base-url {url}"')
    refused(
        smai("ask", "hi", env={"SMAI_BASE_URL": url}),
        'no key was sent; set SMAI_API_KEY, or use --key-file or "smai login"',
    )
    assert smai("login", "--no-check", "--base-url", url, stdin=KEY.encode()).status == 0
    refused(smai("ask", "--base-url", url, "hi"), f"check the key from smai login ({keys})")
    refused(smai("login", "--base-url", url, stdin=KEY.encode()), "the key was not stored; check the key")
    assert origin_of(url) in keys.read_text()


def test_a_403_names_the_source_of_the_key_but_insufficient_credit_does_not(
    smai: Smai, server: Server, quota_server: Mock
) -> None:
    env = {"SMAI_BASE_URL": server(status=403).url, "SMAI_API_KEY": KEY}
    refused(smai("ask", "hi", env=env), "check the key from SMAI_API_KEY and the account")
    with quota_server as mock:
        refused(smai("ask", "hi", env={"SMAI_BASE_URL": mock.url, "SMAI_API_KEY": KEY}), "top up the account")


def test_doctor_names_the_source_of_the_key(smai: Smai, server: Server) -> None:
    env = {"SMAI_BASE_URL": server(require_key="sk-another").url, "SMAI_API_KEY": KEY}
    result = smai("doctor", "--json", env=env)
    hints = {check["check"]: check["hint"] for check in map(json.loads, result.stdout.splitlines())}
    assert (result.status, hints["models"]) == (5, "check the key from SMAI_API_KEY")
