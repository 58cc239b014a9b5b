"""No command sends a control character from outside to a terminal; a pipe gets the exact bytes."""

import ast
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import Config, Server, Smai
from gateways import TOKEN, Client, request
from process import SMAI
from rawserver import Serve, data, http
from terminal import run_on_terminal, terminal

import smai_cli

pytestmark = pytest.mark.thorough

pytest_plugins = ["rawserver"]

# The controls of C1, DEL, and the bidirectional controls of Unicode; C0 is in OBEYED only, for JSON always escapes it.
CONTROLS = "".join(
    map(chr, [0x7F, *range(0x80, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])
)
EVIL = f"x{CONTROLS}y"
OBEYED = EVIL + "\x1b\x07\x08\r"
# How U+202E is shown in a text and in JSON, and in a shell command; and U+0080, where a name is shortened.
SHOWN = (b"\\u202e", b"\\342\\200\\256", b"\\x80")


def assert_harmless(seen: bytes) -> None:
    """Check that `seen` has no control sequence for the terminal, and that it has the hostile text, escaped."""
    text = seen.decode()
    assert not set(text) & set(OBEYED) - set("xy"), seen
    assert any(shown in seen for shown in SHOWN), seen


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Config) -> Path:
    """A folder to run in, with a configuration and files that an attacker wrote."""
    path = config(f"model = {json.dumps(EVIL)}\n[profile.{json.dumps(EVIL)}]\nsystem = {json.dumps(OBEYED)}\n")
    keys = path.with_name("keys.json")
    keys.write_text(json.dumps({EVIL: {"https://x.example:443": "sk-1"}}))
    keys.chmod(0o600)
    (tmp_path / "text").write_text(EVIL)
    (tmp_path / "in.jsonl").write_text(json.dumps({"id": EVIL, "prompt": EVIL}, ensure_ascii=False) + "\n")
    (tmp_path / EVIL).write_text("key-of-a-file\n")
    (tmp_path / EVIL).chmod(0o600)
    monkeypatch.chdir(tmp_path)
    return tmp_path


EXACT = [
    pytest.param(["ask", "-m", EVIL, EVIL], id="ask"),
    pytest.param(["ask", "--final", EVIL], id="final"),
    pytest.param(["ask", "--no-stream", EVIL], id="no-stream"),
    pytest.param(["ask", "--dry-run", "-m", EVIL, "-a", "text", f"it's {EVIL}"], id="dry-run"),
    pytest.param(["ask", "--curl", "-m", EVIL, "-a", "text", f"it's {EVIL}"], id="curl"),
    pytest.param(["ask", "--curl", "--key-file", EVIL, "hi"], id="curl with a file"),
    pytest.param(["batch", "in.jsonl"], id="batch"),
    pytest.param(["batch", "-k", "in.jsonl"], id="batch in order"),
    pytest.param(["batch", "--dry-run", "-m", EVIL, "in.jsonl"], id="batch --dry-run"),
]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("arguments", EXACT)
def test_a_terminal_gets_escapes_and_a_pipe_gets_the_exact_bytes(
    smai: Smai, server: Server, environment: dict[str, str], arguments: list[str]
) -> None:
    environment["SMAI_BASE_URL"] = server(echo=True).url
    piped = smai(*arguments)
    assert EVIL.encode() in piped.stdout
    status, seen = run_on_terminal([SMAI, *arguments], environment)
    assert (status, piped.status) == (0, 0)
    assert_harmless(seen)


@pytest.mark.usefixtures("here")
def test_merge_and_status_escape_control_characters_on_a_terminal(
    smai: Smai, server: Server, environment: dict[str, str]
) -> None:
    environment["SMAI_BASE_URL"] = server(echo=True).url
    name = f"out{EVIL}"
    assert smai("batch", "--shard", "1/1", "in.jsonl", "-o", name).status == 0
    for options in (["--status"], ["--status", "--summary", "json"], ["--merge"]):
        assert EVIL.encode() in smai("batch", *options, name).stdout
        status, seen = run_on_terminal([SMAI, "batch", *options, name], environment)
        assert status == 0
        assert_harmless(seen)


SHELLS = [shell for shell in ("bash", "zsh", "ksh") if shutil.which(shell)]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("shell", SHELLS)
def test_a_curl_command_that_is_copied_from_a_terminal_sends_the_same_request(
    smai: Smai, server: Server, environment: dict[str, str], shell: str
) -> None:
    mock = server(echo=True)
    options = ["--base-url", mock.url, "-m", EVIL, "--key-file", EVIL, "--summary", "none"]
    arguments = [*options, "-a", "text", f"it's {EVIL}"]
    status, seen = run_on_terminal([SMAI, "ask", "--curl", *arguments], environment)
    assert status == 0
    subprocess.run([shell, "-c", seen], env=environment, capture_output=True, check=True)
    assert smai("ask", *arguments).status == 0
    copied, asked = mock.received
    assert copied.json == asked.json
    assert copied.headers["authorization"] == asked.headers["authorization"] == "Bearer key-of-a-file"


@pytest.mark.usefixtures("here")
def test_the_body_of_a_copied_curl_command_needs_no_modern_shell(server: Server, environment: dict[str, str]) -> None:
    mock = server(echo=True)
    _, seen = run_on_terminal([SMAI, "ask", "--curl", "--base-url", mock.url, f"it's {EVIL}"], environment)
    subprocess.run(["sh", "-c", seen], env=environment, capture_output=True, check=True)
    assert mock.received[0].json["messages"][0]["content"] == f"it's {EVIL}"


@pytest.mark.usefixtures("here")
def test_the_path_of_the_configuration_is_shown_on_a_terminal(smai: Smai, environment: dict[str, str]) -> None:
    environment["XDG_CONFIG_HOME"] = f"/{OBEYED}"
    assert smai("config", "--path").stdout == f"/{OBEYED}/smai/config.toml\n".encode()
    status, seen = run_on_terminal([SMAI, "config", "--path"], environment)
    assert status == 0
    assert_harmless(seen)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "arguments",
    [
        ["ask", "-p", EVIL, "--dry-run", "hi"],
        ["ask", "-v", "--mock", "--chat", "text", "-p", f"no{EVIL}", "hi"],
        ["batch", "--mock", "-o", f"no/{EVIL}", "in.jsonl"],
        ["config"],
        ["config", "-p", EVIL],
        ["count", "text", "-m", "\u202e"],
        ["decode", f"no{EVIL}"],
        ["doctor", "--mock", "-p", EVIL],
        ["doctor", "--mock", "-p", EVIL, "--json"],
        ["login", "--list"],
        ["logout", EVIL],
        ["mock", "--tape", f"no{EVIL}"],
        ["models", "--mock", "-p", f"no{EVIL}"],
        ["ask", f"--{OBEYED}"],
        [OBEYED],
    ],
    ids=lambda arguments: (
        " ".join(arguments[:2]).replace(EVIL, "").encode("ascii", "ignore").decode().strip("\x1b\x07\x08\r\x7f")
    ),
)
def test_no_name_can_control_the_terminal_in_any_command(environment: dict[str, str], arguments: list[str]) -> None:
    _, seen = run_on_terminal([SMAI, *arguments], environment)
    assert_harmless(seen)


@pytest.mark.parametrize(
    ("status", "arguments"),
    [
        ("200 OK", ["models"]),
        ("200 OK", ["models", "--json"]),
        ("200 OK", ["ask", "-v", "--no-stream", "hi"]),
        (f"404 {EVIL}", ["ask", "-v", "hi"]),
        (f"404 {EVIL}", ["doctor"]),
        ("401 Unauthorized", ["batch", "in.jsonl"]),
    ],
    ids=lambda value: value.encode("ascii", "ignore").decode() if isinstance(value, str) else " ".join(value),
)
@pytest.mark.usefixtures("here")
def test_no_response_of_a_server_can_control_the_terminal(
    serve: Serve, environment: dict[str, str], arguments: list[str], status: str
) -> None:
    listing: dict[str, Any] = {"object": "list", "data": [{"id": OBEYED}]}
    error: dict[str, Any] = {"error": {"message": OBEYED, "code": EVIL}}
    answer = listing if arguments[0] == "models" else error
    body = json.dumps(answer, ensure_ascii=False).encode()
    environment["SMAI_BASE_URL"] = serve(http(status, body, f"x-request-id: {EVIL}")).url
    _, seen = run_on_terminal([SMAI, *arguments], environment)
    assert_harmless(seen)


@pytest.mark.parametrize(
    "options",
    [["--final", "--tool-calls"], ["--reasoning", "-v"], ["--summary", "json"]],
    ids=" ".join,
)
@pytest.mark.usefixtures("here")
def test_no_part_of_an_answer_can_control_the_terminal(
    serve: Serve, environment: dict[str, str], options: list[str]
) -> None:
    call = {"index": 0, "id": OBEYED, "function": {"name": OBEYED, "arguments": OBEYED}}
    deltas = [{"reasoning_content": OBEYED}, {"content": OBEYED}, {"tool_calls": [call]}]
    chunks: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}], "model": OBEYED})
    body = b"".join(data(json.dumps(chunk, ensure_ascii=False)) for chunk in chunks) + data("[DONE]")
    environment["SMAI_BASE_URL"] = serve(http("200 OK", body, "Content-Type: text/event-stream")).url
    status, seen = run_on_terminal([SMAI, "ask", *options, "hi"], {**environment, "NO_COLOR": "1"})
    assert status == 0, seen
    assert_harmless(seen)


def test_no_error_message_of_the_upstream_server_can_control_the_terminal(
    serve: Serve, environment: dict[str, str]
) -> None:
    url = serve(http("302 Found", b"", f"Location: /{EVIL}")).url
    command = [SMAI, "serve", "-v", "--base-url", url]
    with (
        terminal() as tty,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=tty.slave, env=environment) as process,
    ):
        assert process.stdout
        found = re.search(rb":(\d+)/#token=(.+)", process.stdout.readline())
        assert found
        with Client(int(found[1])) as client:
            client.send(request(int(found[1])).replace(TOKEN.encode(), found[2]))
            client.answer()
        tty.read_until(b"\r\n")
        process.kill()
    assert not set(tty.seen.decode()) & set(OBEYED) - set("xy\r")


def test_every_command_prints_through_the_function_that_escapes_for_terminals() -> None:
    for path in (Path(smai_cli.__file__).parent / "cli").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert called not in ("print", "click.echo", "click.secho"), path
            assert not re.search(r"(?i)(output(\(\))?|std(out|err)|^os)\.write$", called), f"{path}: {called}"
