"""Keys: where they are stored, how long smai waits for them, and where they are never shown."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Config, Server, Smai, assert_refused
from process import NO_BYTECODE, SMAI, can_trace
from rawserver import HEAD, OK, Serve, Start, chunk, error_body, forever, http

from smai_cli.config.base_url import origin_of

pytest_plugins = ["rawserver"]
pytestmark = pytest.mark.preloaded
KEY = "sk-keys-1234567890"


@pytest.fixture
def keys(environment: dict[str, str]) -> Path:
    """Return the path of the key store."""
    return Path(environment["HOME"]) / ".config" / "smai" / "keys.json"


def write_keys(keys: Path, stored: Any) -> None:
    keys.parent.mkdir(parents=True, exist_ok=True)
    keys.write_text(stored if isinstance(stored, str) else json.dumps(stored))
    keys.chmod(0o600)


# The file of keys.


def test_many_logins_at_once_store_all_keys(config: Config, environment: dict[str, str], keys: Path) -> None:
    names = [f"p{number}" for number in range(12)]
    config("".join(f"[profile.{name}]\n" for name in names))
    runs = []
    for name in names:
        command = [SMAI, "login", "--no-check", "-p", name]
        run = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        runs.append(run)
    for name, run in zip(names, runs, strict=True):  # all of them wait for their key
        assert run.stdin
        run.stdin.write(f"{KEY}-{name}".encode())
        run.stdin.close()
    for run in runs:
        assert run.wait() == 0
        assert run.stderr
        run.stderr.close()
    assert json.loads(keys.read_text()) == {name: {"https://api.smai.ai:443": f"{KEY}-{name}"} for name in names}
    assert keys.stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(keys.parent)) == [".keys.json.lock", "config.toml", "keys.json"]


def test_a_key_can_be_added_to_many_stored_keys(smai: Smai, server: Server, keys: Path) -> None:
    mock = server(require_key=KEY)
    write_keys(keys, {f"p{number}": {"https://x.example:443": "x" * 100} for number in range(2000)})
    env = {"SMAI_BASE_URL": mock.url}
    assert smai("login", stdin=KEY.encode(), env=env).status == 0
    assert smai("ask", "hi", env=env).status == 0
    assert len(json.loads(keys.read_text())) == 2001


def test_an_invalid_key_store_is_reported(smai: Smai, keys: Path) -> None:
    write_keys(keys, " " * (16 * 1024 * 1024 + 1))
    for command in (["login"], ["logout"], ["ask", "hi"]):
        result = smai(*command, stdin=KEY.encode())
        assert (result.status, "is larger than 16 MiB; remove it" in result.stderr) == (2, True)
    keys.unlink()
    os.mkfifo(keys, 0o600)
    result = smai("ask", "hi")
    assert (result.status, "it is not a regular file" in result.stderr) == (2, True)


def test_logout_removes_the_key_of_a_killed_login(smai: Smai, environment: dict[str, str], keys: Path) -> None:
    if not can_trace():
        pytest.skip("strace is not there, or may not trace")
    new = keys.with_name("keys.json.new")
    keys.parent.mkdir(parents=True)
    trace = ["strace", "-qq", "-f", "-o", os.devnull, "-P", str(new), "-e", "inject=fsync:signal=SIGKILL"]
    command = [*trace, SMAI, "login", "--no-check"]
    env = environment | NO_BYTECODE
    done = subprocess.run(command, env=env, input=KEY.encode(), capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert KEY in new.read_text()
    assert smai("logout") == (0, b"", "smai: removed what an interrupted login had left\n")
    assert not new.exists()
    assert smai("logout") == (0, b"", "smai: there was no key\n")


def test_the_keys_of_a_removed_profile_can_be_removed(smai: Smai, keys: Path) -> None:
    entry = {"https://x.example:443": KEY, "https://y.example:443": KEY}
    write_keys(keys, {"": entry, "gone": entry})
    assert smai("logout", "-p", "gone") == (0, b"", "smai: the keys of the profile gone are removed\n")
    assert json.loads(keys.read_text()) == {"": entry}
    none = "smai: there was no key; smai login --list names those that are stored\n"
    assert smai("logout", "-p", "gone") == (0, b"", none)


def test_a_key_that_does_not_fit_into_a_header_is_refused_from_every_source(
    smai: Smai, server: Server, config: Config, keys: Path, tmp_path: Path
) -> None:
    mock = server()
    path = tmp_path / "key"
    command = json.dumps(["cat", str(path)])
    config(f'base_url = "{mock.url}"\n[profile.command]\nkey_command = {command}\n')
    path.touch(0o600)
    for size in (8192, 8193, 100_000, 10_000_000):
        key = "k" * size
        path.write_text(f" {key}\n")
        env = {"SMAI_BASE_URL": mock.url, "SMAI_API_KEY": key} if size < 100_000 else None
        results = [
            smai("models", "--base-url", mock.url, "--key-file", path),
            smai("models", "-p", "command"),
            smai("login", "--no-check", stdin=path.read_bytes()),
            *([smai("models", env=env)] if env else []),
        ]
        for result in results:
            assert result.status == (0 if size == 8192 else 2)
            assert ("is longer than 8192 bytes" in result.stderr) == (size > 8192)
            assert key[:100] not in result.stderr
        assert all(request.headers["authorization"] == f"Bearer {'k' * 8192}" for request in mock.received)
    assert json.loads(keys.read_text()) == {"": {origin_of(mock.url): "k" * 8192}}


# One key for each server.


A, B, C = "https://a.example:443", "https://b.example:443", "https://c.example:8443"


def login(smai: Smai, base_url: str, key: str, *options: str) -> None:
    assert smai("login", "--no-check", "--base-url", base_url, *options, stdin=key.encode()).status == 0


def test_a_login_to_another_server_keeps_the_key_of_the_first(smai: Smai, server: Server, keys: Path) -> None:
    first, second = server(require_key="sk-first-1"), server(require_key="sk-second-2")
    login(smai, first.url, "sk-first-0")
    login(smai, second.url, "sk-second-2")
    login(smai, first.url, "sk-first-1")
    for mock in (first, second):
        assert smai("models", "--base-url", mock.url).status == 0
    assert json.loads(keys.read_text()) == {
        "": {origin_of(first.url): "sk-first-1", origin_of(second.url): "sk-second-2"}
    }


def test_a_profile_has_its_own_key_for_the_same_server(smai: Smai, server: Server, config: Config) -> None:
    mock = server()
    config(f'base_url = "{mock.url}"\n[profile.work]\n')
    login(smai, mock.url, "sk-own-1")
    login(smai, mock.url, "sk-work-2", "-p", "work")
    for options, key in ([], "sk-own-1"), (["-p", "work"], "sk-work-2"):
        assert smai("models", *options).status == 0
        assert mock.received[-1].headers["authorization"] == f"Bearer {key}"
    assert smai("logout", "-p", "work").stderr == f"smai: the key for {origin_of(mock.url)} is removed\n"
    assert smai("models", "-p", "work").status == 0
    assert mock.received[-1].headers["authorization"] == "Bearer sk-own-1"


def test_logins_to_many_servers_at_once_all_store_their_keys(environment: dict[str, str], keys: Path) -> None:
    write_keys(keys, {"": {A: "sk-a"}})
    origins = [f"https://s{number}.example:443" for number in range(8)]
    runs = []
    for origin in origins:
        command = [SMAI, "login", "--no-check", "--base-url", origin]
        runs.append(subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE))
    for origin, run in zip(origins, runs, strict=True):
        assert run.stdin
        run.stdin.write(f"sk-{origin[8:10]}".encode())
        run.stdin.close()
    for run in runs:
        assert run.wait() == 0
        assert run.stderr
        run.stderr.close()
    assert json.loads(keys.read_text()) == {"": {A: "sk-a"} | {origin: f"sk-{origin[8:10]}" for origin in origins}}


def test_login_lists_servers_without_keys_and_exits_0_if_there_are_none(smai: Smai, config: Config, keys: Path) -> None:
    config("modle = 1\n")  # it is not read
    assert smai("login", "--list") == (0, b"", "smai: no key is stored; smai login stores one\n")
    write_keys(keys, {"": {B: KEY, A: KEY}, "work": {A: KEY}})
    listed = b"https://a.example\nhttps://b.example\nhttps://a.example\twork\n"  # without the default port
    assert smai("login", "--no-check", "--list") == (0, listed, f"smai: the keys are stored in {keys}\n")
    keys.chmod(0o644)
    assert smai("login", "--list").status == 2
    assert smai("login", "--list", env={"HOME": ""}).status == 0


def test_logout_removes_the_key_of_one_server(smai: Smai, config: Config, keys: Path) -> None:
    config(f'base_url = "{B}/v1"\n[profile.work]\nbase_url = "{C}/v1"\n')
    stored = {"": {A: "sk-a", B: "sk-b", C: "sk-c"}, "work": {A: "sk-d", C: "sk-e"}}
    none = "smai: there was no key; smai login --list names those that are stored\n"
    for options, env, profile, origin in (
        (["--base-url", f"{A}/other"], {}, "", A),
        ([], {}, "", B),
        ([], {"SMAI_BASE_URL": A}, "", A),
        (["-p", "work"], {"SMAI_BASE_URL": A}, "work", C),
        ([], {"SMAI_BASE_URL": A, "SMAI_PROFILE": "work"}, "work", A),
        (["-p", "work", "--base-url", A], {}, "work", A),
    ):
        write_keys(keys, stored)
        shown = origin.removesuffix(":443")
        assert smai("logout", *options, env=env) == (0, b"", f"smai: the key for {shown} is removed\n")
        left = {name: dict(table) for name, table in stored.items()}
        del left[profile][origin]
        assert json.loads(keys.read_text()) == left
        assert smai("logout", *options, env=env) == (0, b"", none)
        assert json.loads(keys.read_text()) == left


def test_logout_all_removes_every_key_and_needs_no_configuration(smai: Smai, config: Config, keys: Path) -> None:
    path = config("modle = 1\n")
    write_keys(keys, {"": {A: KEY, B: KEY}, "work": {A: KEY}})
    assert smai("logout", "--all", "-p", "work").stderr == (
        "smai: --all and -p/--profile cannot be combined; choose one of the two\n"
    )
    assert smai("logout", "--all", "--base-url", A).status == 2
    result = smai("logout")  # the server is unknown
    assert (result.status, f"{path}: unknown key modle" in result.stderr) == (2, True)
    assert result.stderr.endswith(", or name the server with --base-url\n")
    assert smai("logout", "--base-url", B).status == 0
    assert json.loads(keys.read_text()) == {"": {A: KEY}, "work": {A: KEY}}
    assert smai("logout", "--all", env={"SMAI_PROFILE": "work"}) == (0, b"", "smai: all keys are removed\n")
    assert KEY not in keys.read_text()
    assert smai("logout", "--all") == (0, b"", "smai: there was no key\n")


# What proves a key to login.


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        pytest.param([http("200 OK", b"<html>sign in</html>")], 4, id="html"),
        pytest.param([http("200 OK", error_body("no such key"))], 8, id="an error"),
        pytest.param([http("200 OK", b'{"ok": true}')], 4, id="other JSON"),
        pytest.param([http("200 OK", b"")], 8, id="nothing"),
        pytest.param([http("200 OK", b'{"data": [{"id"')], 8, id="cut"),
        pytest.param([HEAD, forever(chunk(b"[" + b" " * 1_000_000))], 8, id="endless"),
    ],
)
def test_login_accepts_a_key_only_if_the_server_lists_its_models(
    serve: Serve, smai: Smai, keys: Path, steps: list[Any], status: int
) -> None:
    server = serve(*steps)
    result = smai("login", "--base-url", server.url, "--retries", "0", stdin=KEY.encode())
    assert (result.status, result.stderr.count("\n")) == (status, 1)
    assert "the key was not stored; " in result.stderr
    assert not keys.exists()


CHALLENGE = http("403 Forbidden", b"<html>Just a moment...", "cf-mitigated: challenge", "Content-Type: text/html")


def test_an_answer_from_a_firewall_does_not_count_as_a_refused_key(serve: Serve, smai: Smai, keys: Path) -> None:
    server = serve(CHALLENGE)
    result = smai("login", "--base-url", server.url, stdin=KEY.encode())
    assert (result.status, result.stdout, len(server.requests)) == (0, b"", 1)
    notice, stored = result.stderr.splitlines()
    assert notice == "smai: the key is stored unchecked: the server answered 403 Forbidden with a web page"
    assert stored.startswith("smai: the key for http://127.0.0.1")
    assert KEY in keys.read_text()


def test_a_key_is_not_stored_after_a_403(serve: Serve, smai: Smai, keys: Path) -> None:
    result = smai("login", "--base-url", serve(http("403 Forbidden", error_body("no"))).url, stdin=KEY.encode())
    assert (result.status, keys.exists()) == (5, False)
    assert result.stderr.endswith("; the key was not stored; check the key and the account\n")


# Clocks.

NEVER = ["--max-time", "0.5"]


def test_max_time_ends_a_key_command_and_the_wait_for_a_pipe(
    smai: Smai, server: Server, config: Config, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    config(f'base_url = "{server().url}"\nkey_command = ["sleep", "60"]\n')
    url = ["--base-url", server().url]
    for options in ([], [*url, "--key-file", str(pipe)]):
        for command in (["ask", "hi"], ["models"], ["doctor"]):
            result = smai(*command, *NEVER, *options)
            assert result.status == 7, (command, options)
            assert "timed out: the run took 0.5 s in all" in result.stderr + result.stdout.decode()
    summary = smai("ask", "hi", *NEVER, "--summary", "json").stderr.splitlines()[-1]
    assert json.loads(summary)["exit_status"] == 7


def test_max_time_ends_the_wait_for_a_key_on_stdin(start: Start, keys: Path) -> None:
    run = start(None, command=[SMAI, "login", "--no-check", *NEVER], stdin=subprocess.PIPE)
    assert run.child.wait() == 7
    assert run.err_line() == "smai: timed out: the run took 0.5 s in all; raise --max-time, or try again\n"
    assert not keys.exists()


@pytest.mark.parametrize(
    ("command", "status"),
    [
        pytest.param(f"echo {KEY}; sleep 1000 & ", 0, id="a child holds stdout"),
        pytest.param(f"yes {KEY} & echo {KEY}", 0, id="a child goes on writing"),
        pytest.param(f"echo {KEY}; sleep 1000 & exit 3", 2, id="it failed all the same"),
        pytest.param(f"echo {KEY}; exec >&-; sleep 0.2", 0, id="stdout closed before the end"),
        pytest.param(f"printf %s {KEY}; sleep 1000 &", 0, id="no line end"),
    ],
)
def test_a_key_command_ends_with_its_process_even_if_its_stdout_stays_open(
    server: Server, config: Config, start: Start, command: str, status: int
) -> None:
    mock = server(require_key=KEY)
    config(f'base_url = "{mock.url}"\nkey_command = {json.dumps(["sh", "-c", command])}\n')
    run = start(None, command=[SMAI, "ask", "hi"], stderr=subprocess.DEVNULL)
    # Wait for the process, not for its output, which its child may keep open. A key command may take a minute.
    assert run.child.wait(30) == status


@pytest.mark.parametrize("sign", ["\\014", "\\013", "\\034", "\\205", "\\r"])
def test_a_key_command_line_with_a_control_character_is_refused(
    smai: Smai, server: Server, config: Config, sign: str
) -> None:
    mock = server()
    config(f"base_url = \"{mock.url}\"\nkey_command = ['printf', '{KEY}{sign}{KEY}\\n']\n")
    result = smai("ask", "hi")
    assert_refused(result, mock, "the output of key_command contains a character that a key cannot have")


# Where they are never shown.


def test_a_key_that_is_typed_as_an_operand_of_login_is_not_repeated(smai: Smai) -> None:
    for words in ([KEY], ["--no-check", "--", KEY, KEY]):
        result = smai("login", *words)
        assert result.status == 2
        assert (
            result.stderr
            == "smai: a key on the command line would be visible in ps; leave it out, and smai login asks for it\n"
        )


URLS = [
    "https://me:{secret}@host.invalid/v1",
    "https://host.invalid/v1?api-key={secret}",
    "https://host.invalid/v1?{secret}#{secret}",
    "http://me:{secret}/v1",
    "http://me:{secret}@host.invalid:99999/v1",
    "http://me:{secret}@/v1",
    "ftp://me:{secret}@host.invalid/v1?key={secret}",
    "me:{secret}@host.invalid/v1",
    "http://me:{secret}@192.0.2.1/v1?key={secret}",
    "https://me:{secret} x@host.invalid/v1",
]
COMMANDS = [
    ["ask", "-v", "--summary", "json", "--retries", "0", "--connect-timeout", "1", "-n", "hi"],
    ["ask", "--dry-run", "-n", "hi"],
    ["models", "-v", "--retries", "0", "--connect-timeout", "1"],
    ["doctor", "--retries", "0", "--connect-timeout", "1"],
    ["doctor", "--json", "--retries", "0", "--connect-timeout", "1"],
    ["config"],
    ["login", "--retries", "0", "--connect-timeout", "1"],
]


@pytest.mark.parametrize("url", URLS)
def test_no_secret_in_a_base_url_is_shown(smai: Smai, url: str) -> None:
    secret = "hush-hush-1234"
    env = {"SMAI_BASE_URL": url.format(secret=secret), "SMAI_API_KEY": KEY}
    for command in COMMANDS:
        result = smai(*command, stdin=KEY.encode(), env=env)
        shown = result.stderr + result.stdout.decode()
        assert "hush" not in shown, (command, shown)
        assert KEY not in shown, (command, shown)
        assert "Traceback" not in shown


ECHOES: list[Callable[[str], bytes]] = [
    lambda words: http("401 Unauthorized", error_body(words), f"x-request-id: {words}"),
    lambda words: http("404 Not Found", f"Cannot GET /v1?key={words}".encode()),
    lambda words: http("302 Found", b"", f"Location: https://me:{words}@x.example/v1?key={words}"),
    lambda words: http("200 OK", json.dumps({"error": {"message": words, "code": words}}).encode()),
    lambda words: http("200 OK", json.dumps({words: words}).encode()),
    lambda words: http("200 OK", f"{words} {{".encode()),
    lambda words: http(f"503 {words}", error_body(words), f"Retry-After: {words}"),
    lambda words: OK[:-2] + f"via: {words}\r\n\r\n".encode() + f"data: {{{words}\n\n".encode(),
]


@pytest.mark.parametrize("echo", ECHOES)
def test_a_secret_that_a_server_repeats_is_not_shown(serve: Serve, smai: Smai, echo: Callable[[str], bytes]) -> None:
    words = f"Bearer hunter2 {KEY} hush-hush%2F1234 hush-hush/1234"
    server = serve(*[(echo(words),)] * 20)
    url = f"{server.url}?code=hush-hush%2F1234&api-version=1"
    asking = [command for command in COMMANDS if "--retries" in command and "--json" not in command]
    for command, key in [*((command, KEY) for command in asking), (asking[0], "hunter2")]:
        result = smai(*command, stdin=key.encode(), env={"SMAI_BASE_URL": url, "SMAI_API_KEY": key})
        shown = result.stderr + result.stdout.decode()
        assert key not in shown, (command, shown)
        assert "hush" not in shown, (command, shown)
