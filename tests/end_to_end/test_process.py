"""The process as a user sees it: deltas in time, pipes, imports, and where the key goes."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import Server, Smai
from process import SMAI

from smai_cli.mock.script import POEM

KEY = "sk-very-secret-0123456789"


@contextmanager
def running(environment: dict[str, str], *arguments: str, **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run smai with a pipe for stdout that the test reads at its own pace."""
    given = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, **more}
    process = subprocess.Popen([SMAI, *arguments], stdout=subprocess.PIPE, env=environment, bufsize=0, **given)
    try:
        with process:
            yield process
    finally:
        process.kill()


@pytest.mark.parametrize("flags", [[], ["--raw"], ["--jsonl"]], ids=["text", "raw", "jsonl"])
def test_the_first_delta_is_on_stdout_while_the_server_holds_back_the_rest(
    environment: dict[str, str], server: Server, flags: list[str]
) -> None:
    mock = server(stall_after=1)
    with running(environment, "ask", "--base-url", mock.url, *flags, "hi") as process:
        assert process.stdout
        seen = b""
        while b"Spring" not in seen:
            piece = process.stdout.read(4096)
            assert piece, "stdout ended before the first delta"
            seen += piece
        assert process.poll() is None
        process.kill()


def test_the_poem_of_the_mock_streams_delta_by_delta(environment: dict[str, str]) -> None:
    with running(environment, "ask", "--mock", "Write a poem") as process:
        assert process.stdout
        first = process.stdout.read(4096)
        rest = b"".join(iter(lambda: process.stdout.read(4096) if process.stdout else b"", b""))
    assert first == b"Spring"
    assert first + rest == POEM.encode()


def test_one_write_per_delta(environment: dict[str, str], tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    tape = (
        "".join(f'data: {{"choices":[{{"delta":{{"content":"w{n} "}}}}]}}\n\n' for n in range(5)) + "data: [DONE]\n\n"
    )
    done = subprocess.run(
        ["strace", "-f", "-e", "trace=write", "-o", trace, SMAI, "decode"],
        input=tape.encode(), capture_output=True, env=environment, check=False,
    )  # fmt: skip
    if not trace.exists():
        pytest.skip("no strace")
    assert done.stdout == b"w0 w1 w2 w3 w4 \n"
    writes = re.findall(r'write\(1, "(.*)", \d+\)', trace.read_text())
    assert writes == ["w0 ", "w1 ", "w2 ", "w3 ", "w4 ", "\\n"]


def test_tee_gets_the_text_that_was_printed_before_head_exits(
    environment: dict[str, str], server: Server, tmp_path: Path
) -> None:
    url = server(delay_s=0.002).url
    script = f'"{SMAI}" ask --base-url {url} hi | tee out.txt | head -1; echo "${{PIPESTATUS[*]}}"'
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, check=True)
    line = POEM.splitlines(keepends=True)[0].encode()
    assert done.stdout.startswith(line)
    assert done.stderr == b""
    kept = (tmp_path / "out.txt").read_bytes()
    assert kept.startswith(line)
    assert POEM.encode().startswith(kept)


def test_closing_stdout_ends_smai_by_sigpipe_even_if_the_model_is_silent(
    environment: dict[str, str], server: Server
) -> None:
    with running(environment, "ask", "--base-url", server(stall_after=1).url, "hi") as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.read(6) == b"Spring"
        process.stdout.close()
        assert process.wait(10) == -signal.SIGPIPE
        assert process.stderr.read() == b""


def test_ctrl_c_kills_by_sigint_and_keeps_the_first_delta(environment: dict[str, str], server: Server) -> None:
    with running(environment, "ask", "--base-url", server(stall_after=1).url, "hi") as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.read(6) == b"Spring"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == -signal.SIGINT
        assert process.stderr.read() == b""


def test_raw_into_decode_is_the_same_as_ask(environment: dict[str, str], server: Server) -> None:
    url = server(reply="Grüße,\nWelt").url
    script = f'"{SMAI}" ask --raw --base-url {url} hi | tee tape.sse | "{SMAI}" decode'
    home = environment["HOME"]
    piped = subprocess.run(["bash", "-c", script], cwd=home, env=environment, capture_output=True, check=True)
    direct = subprocess.run([SMAI, "ask", "--base-url", url, "hi"], env=environment, capture_output=True, check=True)
    assert piped.stdout == direct.stdout == "Grüße,\nWelt\n".encode()
    final = subprocess.run(
        [SMAI, "decode", "--final", "tape.sse"], cwd=home, env=environment, capture_output=True, check=True
    )
    assert final.stdout == direct.stdout


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["ask", "--help"], 0),
        (["mock", "--help"], 0),
        (["count", "--help"], 0),
        (["ask", "--raw", "--final", "hi"], 2),
        (["ask", "--nope"], 2),
        (["ask", "-n"], 2),
        (["ask", "no key"], 2),
        ([], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_help_version_and_usage_errors_import_no_requests(
    environment: dict[str, str], arguments: list[str], status: int
) -> None:
    code = "from smai_cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code, *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == status
    modules = {line.rsplit(b"|", 1)[-1].strip() for line in done.stderr.splitlines() if b"import time:" in line}
    assert b"click" in modules
    assert not modules & {b"requests", b"urllib3", b"sseclient", b"http.client"}


def test_a_short_option_is_found_without_a_search_for_similar_names(environment: dict[str, str]) -> None:
    """click imports difflib for the search, which took 3 ms of each start."""
    code = "import sys; sys.argv[1:] = ['ask', '-m', 'm', 'no key']; from smai_cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], stdin=subprocess.DEVNULL, capture_output=True,
        env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert b"smai_cli.cli.commands.ask" in done.stderr
    assert b"difflib" not in done.stderr


def test_no_pattern_is_compiled_before_it_is_needed(environment: dict[str, str]) -> None:
    """Patterns for failures and for terminals took 3 ms of each start."""
    code = """
import re, sys
compile_pattern = re.compile
def report(*arguments):
    name = sys._getframe(1).f_globals["__name__"]
    if name.startswith("smai_cli."):
        print(name)
    return compile_pattern(*arguments)
re.compile = report
import smai_cli.cli.commands.ask, smai_cli.cli.run, smai_cli.http.exchange, smai_cli.stream.dialects.chat
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    assert done.stdout.split() == [b"smai_cli.cli.parsing.words"]


def test_a_shell_completes_options_without_an_http_library(environment: dict[str, str]) -> None:
    tab = {"_SMAI_COMPLETE": "bash_complete", "COMP_WORDS": "smai ask --max", "COMP_CWORD": "2"}
    done = subprocess.run([SMAI], env=environment | tab, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.split() == [b"plain,--max-tokens", b"plain,--max-time"]


@pytest.mark.parametrize("target", ["full", "closed", "gone"])
def test_help_to_a_full_disk_is_status_11_and_to_a_closed_pipe_sigpipe(
    environment: dict[str, str], target: str
) -> None:
    scripts = {
        "full": f'exec "{SMAI}" --help >/dev/full',
        "closed": f'exec "{SMAI}" --help >&-',
        "gone": f'("{SMAI}" ask --help; echo $? >&2) | true',
    }
    done = subprocess.run(["bash", "-c", scripts[target]], env=environment, capture_output=True, check=False)
    if target == "gone":
        assert done.stderr in (b"141\n", b"0\n")  # 0 if the help was in the pipe before `true` ended
    else:
        assert done.returncode == 11
        assert done.stderr.startswith(b"smai: stdout: ")


def test_no_option_takes_a_key_and_the_arguments_visible_in_ps_contain_none(
    environment: dict[str, str], server: Server
) -> None:
    mock = server(stall_after=1, require_key=KEY)
    keys = {"SMAI_BASE_URL": mock.url, "SMAI_API_KEY": KEY}
    with running(environment | keys, "ask", "hi") as process:
        assert process.stdout
        assert process.stdout.read(6) == b"Spring"
        assert KEY.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        process.kill()
    assert mock.received[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.preloaded
@pytest.mark.parametrize("script", [{"status": 401}, {"status": 503}, {"cut_after": 1}, {"error_after": 1}, {}])
@pytest.mark.parametrize("flags", [["--summary", "json"], ["--raw"], ["--jsonl"], ["--final"]], ids=lambda f: f[-1])
def test_neither_stdout_nor_stderr_contains_the_key(
    smai: Smai, server: Server, script: dict[str, Any], flags: list[str]
) -> None:
    mock = server(**script)
    env = {"SMAI_BASE_URL": mock.url, "SMAI_API_KEY": KEY}
    result = smai("ask", *flags, "--retries", "0", "hi", env=env)
    assert mock.received[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY.encode() not in result.stdout
    assert KEY not in result.stderr


@pytest.mark.preloaded
@pytest.mark.parametrize(
    ("arguments", "env", "authorization"),
    [
        pytest.param([], {"SMAI_BASE_URL": "{url}", "SMAI_API_KEY": KEY}, f"Bearer {KEY}", id="its own origin"),
        pytest.param(["--base-url", "{url}"], {"SMAI_API_KEY": KEY}, None, id="the default's key stays at home"),
        pytest.param(
            ["--base-url", "{url}"],
            {"SMAI_BASE_URL": "http://127.0.0.1:1/v1", "SMAI_API_KEY": KEY},
            None,
            id="another port is another origin",
        ),
        pytest.param(
            ["--base-url", "{url}/deeper"],
            {"SMAI_BASE_URL": "{url}", "SMAI_API_KEY": KEY},
            f"Bearer {KEY}",
            id="another path is the same origin",
        ),
        pytest.param(["--base-url", "{url}", "--key-file", "{file}"], {}, "Bearer sk-from-file", id="--key-file"),
        pytest.param(
            ["--key-file", "{file}"], {"SMAI_BASE_URL": "{url}"}, "Bearer sk-from-file", id="file, environment"
        ),
        pytest.param(["--base-url", "{userinfo}"], {}, None, id="a user in the URL is not sent"),
        pytest.param(
            [], {"SMAI_BASE_URL": "{userinfo}", "SMAI_API_KEY": KEY}, f"Bearer {KEY}", id="nor instead of a key"
        ),
    ],
)
def test_a_key_goes_to_its_own_origin_only(
    smai: Smai, server: Server, tmp_path: Path, arguments: list[str], env: dict[str, str], authorization: str | None
) -> None:
    mock = server()
    key_file = tmp_path / "key"
    key_file.write_text("sk-from-file\n")
    key_file.chmod(0o600)
    netrc = tmp_path / "home" / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password pw\n")
    netrc.chmod(0o600)
    names = {"url": mock.url, "file": str(key_file), "userinfo": mock.url.replace("//", "//user:pw@")}
    smai("ask", *(a.format(**names) for a in arguments), "hi", env={k: v.format(**names) for k, v in env.items()})
    assert mock.received[0].headers.get("authorization") == authorization


def test_a_key_never_goes_over_plain_http_to_another_machine(smai: Smai) -> None:
    env = {"SMAI_BASE_URL": "http://127.evil.example/v1", "SMAI_API_KEY": KEY}
    result = smai("ask", "hi", env=env)
    assert result.status == 2
    assert result.stderr.startswith("smai: a key never goes over plain http to 127.evil.example; use https")


def test_a_wait_for_stdin_is_reported_after_3_seconds_and_continues(
    environment: dict[str, str], server: Server
) -> None:
    mock = server(reply="ok")
    reading, writing = os.pipe()
    with running(environment, "ask", "--base-url", mock.url, "hi", stdin=reading) as process:
        os.close(reading)
        assert process.stdout
        assert process.stderr
        assert process.stderr.readline() == (
            b"smai: waiting for the prompt on stdin; nothing has arrived for 3 s; -n does not read stdin\n"
        )
        assert mock.received == []
        os.write(writing, b"late")
        os.close(writing)
        assert process.stdout.read() == b"ok\n"
        assert process.wait(10) == 0
    assert mock.received[0].json["messages"][0]["content"] == "hi\n\nlate"


def test_dash_n_does_not_wait_for_stdin(environment: dict[str, str], server: Server) -> None:
    reading, writing = os.pipe()
    with running(environment, "ask", "--base-url", server(reply="ok").url, "-n", "hi", stdin=reading) as process:
        assert process.wait(20) == 0
    os.close(reading)
    os.close(writing)


def test_control_characters_are_shown_on_a_terminal_and_exact_in_a_pipe(
    environment: dict[str, str], server: Server, smai: Smai
) -> None:
    url = server(reply="a\x1b[31mb\x9b\x07\tc\r\n").url
    assert smai("ask", "--base-url", url, "hi").stdout == "a\x1b[31mb\x9b\x07\tc\r\n".encode()
    master, slave = os.openpty()
    with subprocess.Popen([SMAI, "ask", "--base-url", url, "-n", "hi"], stdout=slave, env=environment) as process:
        assert process.wait(20) == 0
    os.close(slave)
    shown = os.read(master, 4096)
    os.close(master)
    assert shown == b"a^[[31mb\\x9b^G\tc^M\r\n"
