"""The configuration file, its profiles, and where each value and each key comes from."""

import contextlib
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import termios
import tomllib
from pathlib import Path

import pytest
from conftest import Config, Server, Smai, sent_authorization
from process import SMAI
from terminal import terminal

from smai_cli.config.base_url import origin_of
from smai_cli.config.config_file import Settings, find_settings
from smai_cli.config.endpoint import find_endpoint
from smai_cli.config.key_source import find_key
from smai_cli.config.places import DEFAULT_BASE_URL
from smai_cli.errors import UsageError

pytestmark = pytest.mark.preloaded

KEY = "sk-settings-1234567890"


def test_the_order_is_option_typed_profile_environment_profile_file_default(
    smai: Smai, server: Server, config: Config
) -> None:
    mock = server()
    base = f'base_url = "{mock.url}"\n'
    steps: list[tuple[str, dict[str, str], list[str], str]] = [
        (base, {}, [], "gpt-4.1"),
        (f'{base}model = "file"\n', {}, [], "file"),
        (f'{base}model = "file"\n[profile.p]\nmodel = "profile"\n', {}, ["-p", "p"], "profile"),
        (f'{base}model = "file"\n[profile.p]\nmodel = "profile"\n', {"SMAI_PROFILE": "p"}, [], "profile"),
        (f'{base}[profile.p]\nmodel = "profile"\n', {"SMAI_MODEL": "env"}, ["-p", "p"], "profile"),
        (f'{base}[profile.p]\nmodel = "profile"\n', {"SMAI_MODEL": "env", "SMAI_PROFILE": "p"}, [], "env"),
        (f'{base}model = "file"\n[profile.p]\nretries = 1\n', {"SMAI_MODEL": "env"}, ["-p", "p"], "env"),
        (f'{base}[profile.p]\nmodel = "profile"\n', {}, ["-p", "p", "-m", "option"], "option"),
        (f'{base}model = "file"\n', {"SMAI_MODEL": "env"}, ["-m", "option"], "option"),
    ]
    for text, env, options, model in steps:
        config(text)
        assert smai("ask", *options, "hi", env=env).status == 0
        assert mock.received[-1].json["model"] == model


def test_every_key_of_the_file_reaches_the_request(smai: Smai, server: Server, config: Config) -> None:
    mock = server(status=503, fail_first=3)
    config(
        f'base_url = "{mock.url}"\nsystem = "terse"\nresponses_models = ["my-*"]\nmodel = "my-1"\nretries = 0\n'
        "connect_timeout = 5\nidle_timeout = 6.5\nmax_time = 20\n"
    )
    assert smai("ask", "hi").status == 6
    assert (mock.received[0].path, mock.received[0].json["instructions"]) == ("/v1/responses", "terse")
    assert len(mock.received) == 1
    config(f'base_url = "{mock.url}"\napi = "chat"\nsystem = "terse"\nmodel = "o3-pro"\n')
    assert smai("ask", "hi").status == 0
    assert mock.received[-1].json["messages"][0] == {"role": "system", "content": "terse"}


def test_the_time_limits_of_the_file_apply(smai: Smai, server: Server, config: Config) -> None:
    config(f'base_url = "{server(stall_after=1).url}"\nidle_timeout = 1\n')
    result = smai("ask", "hi")
    assert (result.status, "nothing arrived for 1 s" in result.stderr) == (7, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("modle = 'x'\n", ": unknown key modle"),
        ("\nmodel = 3\n", ": model is not a string with text in it"),
        ("model = ''\n", ": model is not a string with text in it"),
        ("[profile.a]\n\nretries = true\n", " [profile.a]: retries is not a whole number of 0 or more"),
        ("[profile.a]\nretries = -1\n", " [profile.a]: retries is not"),
        ("[profile.'b c']\nmodel = 'x'\nkey = 'sk'\n", " [profile.b c]: unknown key key"),
        ("idle_timeout = nan\n", ": idle_timeout is not a number of seconds from 0 to 1000000"),
        ("max_time = 1e9\n", ": max_time is not"),
        ("api = 'telnet'\n", ": api is not auto, chat or responses"),
        ("responses_models = 'x'\n", ": responses_models is not a list of strings with text in them"),
        ("profile.a.nope = 1\n", " [profile.a]: unknown key nope"),
        ("[profile.\"a.b\"]\nmodel = 'x'\n[profile.'c']\nnope = 1\n", " [profile.c]: unknown key nope"),
        ('[profile."a.b"]\n\n"no\\u0070e" = 1\n', " [profile.a.b]: unknown key nope"),
        ("[profile]\na.model = 'x'\na . nope = 1\n", " [profile.a]: unknown key nope"),
        ("[profile]\n\na = { model = 'x', nope = 1 }\n", " [profile.a]: unknown key nope"),
        ('system = """\n[profile.a]\nretries = -1\n"""\n[profile.a]\nretries = -1\n', " [profile.a]: retries is not"),
        ("system = @@@\nretries = -1\n@@@\nretries = -1 # @@@ \n".replace("@", "'"), ": retries is not"),
        ('responses_models = [\n  "a", # ]\n  "]",\n]\nretries = -1\n', ": retries is not"),
        ("\ufeffmodel = 3\n", ": model is not a string with text in it"),
        ("model = " + "[" * 100_000, ": a number is too large, or the nesting is too deep"),
        ("retries = " + "9" * 5000, ": a number is too large, or the nesting is too deep"),
        ("max_time = " + "9" * 4000, ": max_time is not a number of seconds"),
        ("model = 'x'\r\n\r\nretries = -1\r\n", ": retries is not"),
        ("[other]\nmodel = 'x'\n", ": unknown key other"),
        ("profile = 3\n", "profile is not a table"),
        ("[profile]\na = 3\n", "profile is not a table"),
        ("model = \n", ":1: Invalid value"),
        ("model 'x'\n", ":1: Expected '='"),
        ("base_url = 'localhost:11434'\n", "does not begin with http:// or https://"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_with_its_place(smai: Smai, config: Config, text: str, words: str) -> None:
    path = config(text)
    result = smai("ask", "hi", env={"SMAI_API_KEY": KEY})
    assert (result.status, result.stdout, result.stderr.count("\n")) == (2, b"", 1)
    assert words in result.stderr
    assert str(path) in result.stderr or "base URL" in result.stderr
    assert smai("ask", "--help").status == 0


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("modle = 'x'", "did you mean model?"),
        ("base-url = 'x'", "did you mean base_url?"),
        ("api_key = 'sk-secret'", "smai login stores a key, and key_file or key_env names one"),
        ("[openai]\nmodel = 'x'", "write [profile.openai]"),
        ("[profiles.work]\nmodel = 'x'", "write [profile.NAME]"),
        ("provider = 'x'", "the keys are model, base_url, key_file, "),
        ("model = gpt-4.1", "put text in quotes"),
    ],
)
def test_a_mistake_in_the_file_gets_a_hint(smai: Smai, config: Config, text: str, hint: str) -> None:
    config(text)
    stderr = smai("config").stderr
    assert f"; {hint}" in stderr
    assert "secret" not in stderr


def test_an_unknown_profile_is_an_error_that_says_how_to_list_profiles(smai: Smai, config: Config) -> None:
    message = 'smai: no such profile: x; "smai config --profiles" lists the profiles\n'
    assert smai("ask", "-p", "x", "hi") == (2, b"", message)
    config("[profile.work]\n[profile.home]\n")
    assert smai("ask", "-p", "x", "hi") == (2, b"", message)


@pytest.mark.parametrize(
    ("typed", "meant"), [("opnai", "openai"), ("OpenAI", "openai"), ("wrok", "Work"), ("lmstuido", "lmstudio")]
)
def test_a_misspelled_profile_is_an_error_that_names_the_nearest_one(
    smai: Smai, config: Config, typed: str, meant: str
) -> None:
    config("[profile.Work]\n")
    message = f"smai: no such profile: {typed}; did you mean {meant}?\n"
    assert smai("ask", "-p", typed, "hi") == smai("models", env={"SMAI_PROFILE": typed}) == (2, b"", message)


def test_a_relative_folder_is_ignored_and_without_a_home_there_is_no_configuration(smai: Smai, config: Config) -> None:
    config("nonsense")
    assert smai("config").status == 2
    assert smai("config", env={"XDG_CONFIG_HOME": "/nowhere"}).status == 0
    assert smai("config", env={"XDG_CONFIG_HOME": "relative"}).status == 2
    assert smai("config", env={"HOME": ""}).status == 0


def test_an_unreadable_file_is_reported(smai: Smai, config: Config) -> None:
    path = config("")
    path.write_bytes(b"model = '\xff'\n")
    assert "is not UTF-8" in smai("ask", "hi").stderr
    path.unlink()
    path.mkdir()
    assert "Is a directory" in smai("ask", "hi").stderr
    path.rmdir()
    os.mkfifo(path)
    assert smai("ask", "hi").stderr == f"smai: {path}: it is not a regular file; check the configuration file\n"
    path.unlink()
    path.write_text("#" * 1024 * 1024 + "#")
    assert "is larger than 1 MiB" in smai("ask", "hi").stderr
    path.unlink()
    path.symlink_to("/dev/null")
    assert smai("config").status == 0


def test_config_prints_every_value_with_its_source_as_a_valid_configuration_file(smai: Smai, config: Config) -> None:
    path = config('model = "file"\nretries = 5\n[profile.p]\nbase_url = "http://localhost:1/v1"\n')
    result = smai("config", "-p", "p", env={"SMAI_MODEL": "env", "SMAI_API_KEY": KEY})
    lines = result.stdout.decode().splitlines()
    assert result.status == 0
    assert KEY not in result.stdout.decode() + result.stderr
    sources = {line.split(" = ")[0]: line.split("  # ")[1].strip() for line in lines if " = " in line}
    assert sources["model"] == "SMAI_MODEL"
    assert sources["retries"] == str(path)
    assert sources["base_url"] == f"{path} [profile.p]"
    assert sources["idle_timeout"] == "default"
    assert lines[0] == "# profile: p"
    assert lines[-1] == (
        "# key: none for this server; SMAI_API_KEY is set, but belongs to https://api.smai.ai; "
        'use --key-file, SMAI_BASE_URL or "smai login -p p"'
    )
    values = tomllib.loads(result.stdout.decode())
    assert (values["model"], values["retries"], values["idle_timeout"]) == ("env", 5, 600)
    assert smai("config").stdout.decode().splitlines()[-1] == "# key: not set"
    assert smai("config", env={"SMAI_API_KEY": KEY}).stdout.decode().splitlines()[-1] == "# key: set, from SMAI_API_KEY"
    path.write_bytes(result.stdout)
    assert tomllib.loads(smai("config").stdout.decode()) == values


def test_a_byte_order_mark_in_the_file_is_ignored(smai: Smai, config: Config) -> None:
    config("\ufeffmodel = 'x'\r\n")
    assert b'model = "x"' in smai("config").stdout


def test_a_relative_home_is_ignored(smai: Smai, environment: dict[str, str], tmp_path: Path) -> None:
    assert smai("config", "--path", env={"HOME": "relative"}).status == 2
    script = 'cd "$0" && HOME=. && smai login --no-check; smai models --mock; smai config'
    done = subprocess.run(
        ["sh", "-c", script, tmp_path], env=environment, input=KEY.encode(), capture_output=True, check=False
    )
    assert done.returncode == 0
    assert b"no home directory to store a key in" in done.stderr
    assert os.listdir(tmp_path) == ["home"]
    path = tmp_path / "xdg" / "smai" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text('key_file = "~/key"\n')
    result = smai("ask", "hi", env={"HOME": ".", "XDG_CONFIG_HOME": str(tmp_path / "xdg")})
    assert (result.status, result.stderr) == (
        2,
        f"smai: no home directory for the key_file ~/key; set HOME, or check {path}\n",
    )


def test_config_escapes_control_characters(smai: Smai, tmp_path: Path) -> None:
    folder = tmp_path / "a\x1b[2J\u202e\n"
    path = folder / "smai" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text('system = "\\u001b[2J\\u009b\\u202e\\u007f\\u2028é"\n[profile."\\u001b[2J\\n"]\nkey_file = "k"\n')
    env = {"XDG_CONFIG_HOME": str(folder), "SMAI_MODEL": "\x1b[2J\x7f"}
    result = smai("config", "-p", "\x1b[2J\n", env=env)
    assert (result.status, result.stderr) == (0, "")
    assert not any(sign in result.stdout.decode() for sign in "\x1b\x7f\x9b\u202e\u2028")
    values = tomllib.loads(result.stdout.decode())
    assert (values["system"], values["model"]) == ("\x1b[2J\x9b\u202e\x7f\u2028é", "\x1b[2J\x7f")
    assert smai("config", "--path", env=env).stdout == os.fsencode(f"{path}\n")


def test_config_comments_out_a_base_url_with_a_hidden_query(smai: Smai) -> None:
    result = smai("config", env={"SMAI_BASE_URL": "https://me:hush1@x.example/v1?code=hush2"})
    assert "hush" not in result.stdout.decode() + result.stderr
    assert '# base_url = "https://x.example/v1?code=..."' in result.stdout.decode()
    assert "base_url" not in tomllib.loads(result.stdout.decode())


def test_a_broken_file_does_not_affect_commands_without_configuration(smai: Smai, config: Config) -> None:
    path = config("modle = 1\n")
    assert smai("config", "--path") == (0, f"{path}\n".encode(), "")
    assert smai("config", "--path", "-p", "x").status == 0
    assert smai("logout") == (0, b"", "smai: there was no key\n")
    for command in (["ask", "hi"], ["models"]):
        result = smai(*command, "--mock")
        assert result.status == 0
        assert result.stderr == f"smai: {path}: unknown key modle; --mock goes on without it\n"
        assert smai(*command).status == 2
        assert smai(*command, "--mock", "-p", "x").status == 2
    assert smai("models", "--mock", "--json").stdout


def test_a_configuration_in_an_inaccessible_home_is_ignored_with_a_notice(
    server: Server, environment: dict[str, str], config: Config
) -> None:
    path = config('model = "mine"\n')
    # Root ignores modes, unless it drops its capabilities.
    user = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []
    if user and not shutil.which("setpriv"):
        pytest.skip("root may enter every home")

    def run(*arguments: str) -> tuple[int, str]:
        command = [*user, SMAI, *arguments]
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False, text=True
        )
        return done.returncode, done.stderr

    ask = ("ask", "--base-url", server().url, "hi")
    warning = f"smai: {path}: Permission denied; going on without a configuration file\n"
    unknown = 'smai: no such profile: mine; "smai config --profiles" lists the profiles\n'
    path.parents[1].chmod(0)
    assert run(*ask) == run("config") == run("models", "--mock") == (0, warning)
    assert run("config", "--path") == (0, "")
    assert run("logout") == (0, "smai: there was no key\n")
    assert run(*ask, "-p", "mine") == (2, unknown)
    # A file that exists may say which server the prompt is for.
    path.parents[1].chmod(0o755)
    path.chmod(0)
    assert run(*ask) == (2, f"smai: {path}: Permission denied; check the configuration file\n")


def test_config_shows_the_path_even_without_a_file(smai: Smai, environment: dict[str, str]) -> None:
    assert smai("config", "--path").stdout.decode() == f"{environment['HOME']}/.config/smai/config.toml\n"
    assert smai("config", "--path", env={"XDG_CONFIG_HOME": "/x"}).stdout == b"/x/smai/config.toml\n"
    assert smai("config", "--path", env={"HOME": ""}).status == 2


def test_a_key_file_of_the_configuration_goes_to_its_server_only(smai: Smai, server: Server, config: Config) -> None:
    mine, other = server(), server()
    path = config(f'base_url = "{mine.url}"\nkey_file = "key"\n[profile.other]\nbase_url = "{other.url}"\n')
    (path.parent / "key").write_text(KEY)
    (path.parent / "key").chmod(0o600)
    assert smai("ask", "hi").status == 0
    assert sent_authorization(mine) == f"Bearer {KEY}"
    assert smai("ask", "-p", "other", "hi").status == 0
    assert sent_authorization(other) is None
    assert smai("ask", "--base-url", other.url, "hi").status == 0
    assert sent_authorization(other) is None
    (path.parent / "key").chmod(0o644)
    result = smai("ask", "hi")
    assert (result.status, "run chmod 600" in result.stderr) == (2, True)


def test_the_key_of_the_environment_does_not_go_to_a_configured_server(
    smai: Smai, server: Server, config: Config
) -> None:
    mock = server()
    config(f'base_url = "{mock.url}"\n')
    assert smai("ask", "hi", env={"SMAI_API_KEY": KEY}).status == 0
    assert sent_authorization(mock) is None
    assert smai("ask", "hi", env={"SMAI_API_KEY": KEY, "SMAI_BASE_URL": mock.url}).status == 0
    assert sent_authorization(mock) == f"Bearer {KEY}"


def test_a_key_command_runs_without_a_shell_and_its_first_line_is_the_key(
    smai: Smai, server: Server, config: Config, tmp_path: Path
) -> None:
    mock = server()
    script = tmp_path / "key command"
    script.write_text(f'#!/bin/sh\necho "asked $1" >&2\necho {KEY}\necho second line\n')
    script.chmod(0o755)
    for command in (f"\"'{script}' $HOME\"", json.dumps([str(script), "$HOME"])):
        config(f'base_url = "{mock.url}"\nkey_command = {command}\n')
        result = smai("ask", "hi", stdin=b"the prompt")
        assert (result.status, result.stderr) == (0, "asked $HOME\n")
        assert sent_authorization(mock) == f"Bearer {KEY}"
        assert mock.received[-1].json["messages"][0]["content"] == "hi\n\nthe prompt"


@pytest.mark.parametrize("command", ["~/bin/get ~/keys/one", ["~/bin/get", "~/keys/one"], "sh ~/bin/get ~/keys/one"])
def test_a_tilde_in_a_key_command_is_expanded(
    smai: Smai, server: Server, config: Config, environment: dict[str, str], command: str | list[str]
) -> None:
    home = Path(environment["HOME"]).rename(Path(environment["HOME"]).with_name("a home"))
    mock = server()
    env = {"HOME": str(home), "XDG_CONFIG_HOME": str(config("").parent.parent)}
    config(f'base_url = "{mock.url}"\nkey_command = {json.dumps(command)}\n')
    (home / "bin").mkdir()
    (home / "bin" / "get").write_text(f'#!/bin/sh\n[ "$1" = "$HOME/keys/one" ] && echo {KEY}\n')
    (home / "bin" / "get").chmod(0o755)
    assert smai("ask", "hi", env=env).status == 0
    assert sent_authorization(mock) == f"Bearer {KEY}"
    line = smai("ask", "--curl", "hi", env=env)
    subprocess.run(["sh", "-c", line.stdout], env=environment | env, check=True, stdin=subprocess.DEVNULL)
    assert sent_authorization(mock) == f"Bearer {KEY}"
    result = smai("ask", "hi", env=env | {"HOME": ""})
    assert (result.status, result.stderr.count("\n")) == (2, 1)
    assert "no home directory for the key_command ~/" in result.stderr


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("false", "key_command failed: exit status 1"),
        ("sh -c 'kill -9 $$'", "key_command failed: died by signal 9"),
        ("/nonexistent/x", "key_command cannot be run: /nonexistent/x: No such file or directory"),
        ("'", "key_command is not a valid command"),
        ("true", "the output of key_command is empty"),
        ("printf 'a b'", "contains a character that a key cannot have"),
    ],
)
def test_a_failing_key_command_is_status_2_before_any_request(
    smai: Smai, server: Server, config: Config, command: str, words: str
) -> None:
    mock = server()
    config(f'base_url = "{mock.url}"\nkey_command = {json.dumps(command)}\n')
    result = smai("ask", "hi")
    assert (result.status, result.stdout, mock.received) == (2, b"", [])
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_login_checks_the_key_and_stores_it_for_its_origin(
    smai: Smai, server: Server, environment: dict[str, str]
) -> None:
    mock, other = server(require_key=KEY), server()
    home = {"SMAI_BASE_URL": mock.url}
    result = smai("login", stdin=f"{KEY}\n".encode(), env=home)
    keys = Path(environment["HOME"]) / ".config" / "smai" / "keys.json"
    assert (result.status, result.stdout) == (0, b"")
    assert result.stderr == f"smai: the key for {origin_of(mock.url)} is stored in {keys}\n"
    assert (keys.stat().st_mode & 0o777, keys.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert [(request.method, request.path) for request in mock.received] == [("GET", "/v1/models")]
    assert smai("ask", "hi", env=home).status == 0
    assert smai("config", env=home).stdout.decode().splitlines()[-1] == f"# key: set, from smai login ({keys})"
    assert smai("ask", "--base-url", other.url, "hi", env=home).status == 0
    assert sent_authorization(other) is None
    keys.chmod(0o644)
    assert "others can read the file of keys" in smai("ask", "hi", env=home).stderr
    keys.chmod(0o600)
    assert smai("logout", env=home).stderr == f"smai: the key for {origin_of(mock.url)} is removed\n"
    assert smai("logout", env=home)[::2] == (0, "smai: there was no key\n")
    assert smai("ask", "hi", env=home).status == 5


def test_login_does_not_store_a_refused_key_unless_it_is_unchecked(
    smai: Smai, server: Server, environment: dict[str, str]
) -> None:
    mock = server(require_key="sk-another")
    result = smai("login", "--base-url", mock.url, stdin=KEY.encode())
    keys = Path(environment["HOME"]) / ".config" / "smai" / "keys.json"
    assert result.status == 5
    assert "the key was not stored" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not keys.exists()
    assert smai("login", "--base-url", mock.url, "--no-check", stdin=KEY.encode()).status == 0
    assert len(mock.received) == 1
    assert KEY in keys.read_text()


def test_each_profile_has_its_own_key(smai: Smai, server: Server, config: Config) -> None:
    mock = server()
    config(f'base_url = "{mock.url}"\n[profile.work]\nretries = 1\n')
    assert smai("login", "--no-check", stdin=b"sk-private").status == 0
    assert smai("ask", "-p", "work", "hi").status == 0
    assert sent_authorization(mock) == "Bearer sk-private"
    assert smai("login", "--no-check", "-p", "work", stdin=b"sk-work").status == 0
    for options, key in ((["-p", "work"], "sk-work"), ([], "sk-private")):
        assert smai("ask", *options, "hi").status == 0
        assert sent_authorization(mock) == f"Bearer {key}"


@pytest.mark.parametrize(
    ("stdin", "env", "words"),
    [
        (b"", {}, "stdin is empty"),
        (b"two words", {}, "contains a character that a key cannot have"),
        (KEY.encode(), {"HOME": ""}, "no home directory to store a key in"),
        (KEY.encode(), {"SMAI_BASE_URL": "http://192.0.2.1/v1"}, "a key never goes over plain http to 192.0.2.1"),
    ],
)
def test_login_without_a_valid_key_a_home_or_https_is_status_2(
    smai: Smai, stdin: bytes, env: dict[str, str], words: str
) -> None:
    result = smai("login", stdin=stdin, env=env)
    assert (result.status, result.stdout, result.stderr.count("\n")) == (2, b"", 1)
    assert words in result.stderr
    assert KEY not in result.stderr


def test_a_broken_key_store_is_reported_and_a_full_or_read_only_home_is_status_11(
    smai: Smai, environment: dict[str, str]
) -> None:
    folder = Path(environment["HOME"]) / ".config"
    folder.write_text("not a folder")
    result = smai("login", "--no-check", stdin=KEY.encode())
    assert result.status in (2, 11)
    assert result.stderr.count("\n") == 1
    folder.unlink()
    (folder / "smai").mkdir(parents=True)
    keys = folder / "smai" / "keys.json"
    keys.write_text("{")
    keys.chmod(0o600)
    assert "is not JSON" in smai("login", "--no-check", stdin=KEY.encode()).stderr


def run_at_key_prompt(arguments: list[str], environment: dict[str, str], typed: bytes) -> tuple[int, bytes]:
    """Run smai on a new terminal, type at its key prompt, and return its status and what the terminal showed."""
    pid, master = pty.fork()
    if pid == 0:
        os.execve(SMAI, [SMAI, *arguments], environment)
    shown = b""
    while b"Key for" not in shown:
        shown += os.read(master, 1024)
    os.write(master, typed)
    try:
        while select.select([master], [], [], 20)[0] and (piece := os.read(master, 1024)):
            shown += piece
    except OSError:  # Linux says so when the last one closes a terminal
        pass
    _, status = os.waitpid(pid, 0)
    os.close(master)
    return os.waitstatus_to_exitcode(status), shown


def test_on_a_terminal_the_key_is_asked_for_without_echo(server: Server, environment: dict[str, str]) -> None:
    mock = server(require_key=KEY)
    status, shown = run_at_key_prompt(["login", "--base-url", mock.url], environment, f"{KEY}\n".encode())
    assert status == 0
    assert KEY.encode() not in shown
    assert b"is stored in" in shown


def test_an_empty_line_at_the_key_prompt_is_status_2(environment: dict[str, str]) -> None:
    status, shown = run_at_key_prompt(["login", "--no-check"], environment, b"\n")
    assert status == 2
    assert b"smai: no key was typed; type or paste it, and press Enter\r\n" in shown


def test_the_end_of_input_at_the_key_prompt_is_reported_on_a_line_of_its_own(environment: dict[str, str]) -> None:
    status, shown = run_at_key_prompt(["login", "--no-check"], environment, b"\x04")
    assert status == 2
    assert b"\r\nsmai: no key was typed; pipe it in, or try again\r\n" in shown


def test_ctrl_c_at_the_key_prompt_dies_by_the_signal(environment: dict[str, str]) -> None:
    status, _ = run_at_key_prompt(["login", "--no-check"], environment, b"half\x03")
    assert status == -2


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_ends_a_login_and_restores_the_echo(environment: dict[str, str], signum: signal.Signals) -> None:
    status, echoes = send_signal_at_key_prompt([], environment, signum)
    assert (status, echoes) == (-signum, True)


def test_a_login_ignores_the_signals_that_its_caller_ignores(environment: dict[str, str]) -> None:
    ignore = ["sh", "-c", "trap '' HUP INT TERM; exec \"$@\"", "-"]
    for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        status, echoes = send_signal_at_key_prompt(ignore, environment, signum, then=f"{KEY}\n".encode())
        assert (status, echoes) == (0, True)


def send_signal_at_key_prompt(
    before: list[str], environment: dict[str, str], signum: signal.Signals, then: bytes = b""
) -> tuple[int, bool]:
    """Send a signal to a login at its key prompt, type `then`, and return its status and whether the echo is on."""
    words = [*before, SMAI, "login", "--no-check"]
    with terminal() as screen:
        child = subprocess.Popen(
            words, env=environment, stdin=screen.slave, stdout=screen.slave, stderr=screen.slave, start_new_session=True
        )
        screen.read_until(b"Key for")
        child.send_signal(signum)
        os.write(screen.master, then)
        status = child.wait(30)
        return status, bool(termios.tcgetattr(screen.slave)[3] & termios.ECHO)


def test_max_time_ends_the_key_prompt_and_restores_the_echo(environment: dict[str, str]) -> None:
    script = '"$0" login --no-check --max-time 1; echo "status $?"; stty -a'
    pid, master = pty.fork()
    if pid == 0:
        os.execve("/bin/sh", ["sh", "-c", script, SMAI], environment)
    shown = b""
    with contextlib.suppress(OSError):  # Linux says so when the last one closes a terminal
        while select.select([master], [], [], 20)[0] and (piece := os.read(master, 1024)):
            shown += piece
    os.waitpid(pid, 0)
    os.close(master)
    assert b"smai: timed out: the run took 1 s in all" in shown
    assert b"status 7" in shown
    assert b" echo " in shown.split(b"status 7")[1]


def test_without_a_terminal_a_missing_key_is_status_2(environment: dict[str, str]) -> None:
    lean = {"PATH": environment["PATH"]}
    for arguments in (["login"], ["ask", "hi"]):
        done = subprocess.run(
            [SMAI, *arguments], env=lean, stdin=subprocess.DEVNULL, capture_output=True, check=False, text=True
        )
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
    assert all(word in done.stderr for word in ("SMAI_API_KEY", "smai login"))


def test_a_key_at_the_top_of_the_file_is_only_for_the_default_server(tmp_path: Path) -> None:
    folder = tmp_path / "smai"
    folder.mkdir()
    (folder / "config.toml").write_text('key_command = "echo sk"\n[profile.p]\nbase_url = "https://x.example/v1"\n')
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    for profile, base_url, found in (
        (None, DEFAULT_BASE_URL, True),
        ("p", "https://x.example/v1", False),
        ("p", DEFAULT_BASE_URL, True),
        (None, "https://x.example/v1", False),
    ):
        settings = find_settings(environ, profile)
        assert (find_key(base_url, None, environ, settings) is not None) == found


def test_without_a_configuration_file_there_are_no_settings() -> None:
    assert find_settings({}, None) == Settings(top={}, profile={})
    with pytest.raises(UsageError, match="no API key"):
        find_endpoint(None, None, {})


def test_login_retries_a_temporary_failure(smai: Smai, server: Server) -> None:
    mock = server(status=503, fail_first=1, retry_after="0")
    result = smai("login", "--base-url", mock.url, "--retries", "1", stdin=KEY.encode())
    assert (result.status, len(mock.received)) == (0, 2)
    assert "try 2 of 2" in result.stderr
    assert smai("login", "--base-url", server(status=503).url, "--retries", "0", stdin=KEY.encode()).status == 6
