"""The connection begins before click is imported, if the command line shows the server.

No clock is read: a fake module `click`, found before the real one, waits until the test lets it go on.
"""

import os
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from process import LIMIT_S, SMAI, run
from rawserver import OUT, PLAIN_ANSWER, Ask, Request, Serve, certificates, reach, read_request

pytest_plugins = ["rawserver"]

THE_REAL_ONE = """
import sys
sys.path.remove({folder!r})
del sys.modules["click"]
import click
"""
# A connection has a thread, which this listener blocks.
COUNTS_THREADS = """
import os, threading
os.write(1, str(threading.active_count() - 1).encode())
os._exit(0)
"""


def stub_click(tmp_path: Path, before: str) -> dict[str, str]:
    """Return the environment in which `before` runs at the import of click, and then the real one is imported."""
    folder = tmp_path / "stub"
    folder.mkdir()
    (folder / "click.py").write_text(before + THE_REAL_ONE.format(folder=str(folder)))
    return {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}


def test_the_connection_is_made_before_click_is_imported(serve: Serve, ask: Ask, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    env = stub_click(tmp_path, f"open({str(gate)!r}).close()")

    def lets_click_go(connection: socket.socket) -> Request:
        gate.write_bytes(b"")  # TLS is up: click may be imported
        return read_request(connection)

    server = serve(*PLAIN_ANSWER, tls=certificates().context, reads=lets_click_go)
    assert ask(server, env=env) == (0, OUT, "")
    assert (server.connections, len(server.requests)) == (1, 1)


def test_a_wrongly_predicted_server_gets_no_request(serve: Serve, ask: Ask, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    is_left = threading.Event()

    def is_told_nothing(connection: socket.socket) -> Request:
        gate.write_bytes(b"")  # TLS is up: click may be imported
        assert connection.recv(1) == b""
        is_left.set()
        raise ConnectionError

    seen = serve(*PLAIN_ANSWER, tls=certificates().context, reads=is_told_nothing)
    meant = serve(*PLAIN_ANSWER, tls=certificates().context)
    # Between the first look and the parsed command line the environment becomes another one.
    env = stub_click(tmp_path, f"open({str(gate)!r}).close(); import os; os.environ['SMAI_BASE_URL'] = {meant.url!r}")
    assert ask(seen, env=env) == (0, OUT, "")
    assert is_left.wait(LIMIT_S)
    assert (meant.connections, len(meant.requests), seen.requests) == (1, 1, [])


def test_the_server_in_the_configuration_file_gets_only_one_connection(
    serve: Serve, environment: dict[str, str], tmp_path: Path
) -> None:
    server = serve(*PLAIN_ANSWER, tls=certificates().context)
    folder = tmp_path / "config" / "smai"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(f'base_url = "{server.url}"\n')
    env = {"XDG_CONFIG_HOME": str(folder.parent), "SSL_CERT_FILE": certificates().ca_file}
    assert run(("ask", "-n", "hi"), environment | env) == (0, OUT, "")
    assert (server.connections, len(server.requests)) == (1, 1)


def test_ctrl_c_during_the_imports_prints_nothing(serve: Serve, environment: dict[str, str], tmp_path: Path) -> None:
    is_up = threading.Event()

    def says_so(connection: socket.socket) -> Request:
        is_up.set()
        return read_request(connection)

    server = serve(*PLAIN_ANSWER, tls=certificates().context, reads=says_so)
    env = environment | reach(server) | stub_click(tmp_path, "import time; time.sleep(600)")
    with subprocess.Popen(
        [SMAI, "ask", "-n", "hi"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert is_up.wait(LIMIT_S)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, out, err) == (-signal.SIGINT, b"", b"")
    assert server.requests == []


def test_the_early_connection_does_not_reuse_closed_standard_descriptors(
    serve: Serve, environment: dict[str, str]
) -> None:
    server = serve(*PLAIN_ANSWER, tls=certificates().context)
    env = environment | reach(server)
    done = subprocess.run(["sh", "-c", "smai ask hi <&- 2>&-"], env=env, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, OUT)
    assert [request.prompt for request in server.requests] == ["hi"]


PLAIN = ("ask", "-n", "hi")
ROWS = [
    pytest.param(PLAIN, {}, 1, id="plain"),
    pytest.param(("ask", "-n", "--mock", "hi"), {}, 0, id="mock"),
    pytest.param(PLAIN, {"https_proxy": "http://127.0.0.1:1"}, 0, id="proxy"),
    *(
        pytest.param(args, env, 0, id=" ".join([*env, *args]), marks=pytest.mark.thorough)
        for args, env in (
            (("ask", "--help"), {}),
            (("ask", "-nv", "hi"), {}),
            (("ask", "-n", "--dry-run", "hi"), {}),
            (("ask", "-n", "--curl", "hi"), {}),
            (("ask", "-n", "-o", "answer.txt", "hi"), {}),
            (("ask", "-n", "--misspelt", "hi"), {}),
            (("ask", "-n", "-p", "work", "hi"), {}),
            (("models",), {}),
            ((), {"_SMAI_COMPLETE": "bash_complete", "COMP_WORDS": "smai ask h", "COMP_CWORD": "2"}),
            (PLAIN, {"ALL_PROXY": "socks5://127.0.0.1:1"}),
            (PLAIN, {"SSLKEYLOGFILE": "/dev/null"}),
            (PLAIN, {"SSL_CERT_FILE": "/nonexistent"}),
            (PLAIN, {"SMAI_BASE_URL": "http://127.0.0.1:1/v1"}),
        )
    ),
]


@pytest.mark.parametrize(("args", "env", "threads"), ROWS)
def test_an_early_connection_starts_only_if_the_server_is_certain(
    environment: dict[str, str], tmp_path: Path, args: tuple[str, ...], env: dict[str, str], threads: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        there = {"SMAI_BASE_URL": f"https://127.0.0.1:{listener.getsockname()[1]}/v1"}
        # The thread of the early connection, and that of its certificates while they are read.
        result = run(args, environment | there | stub_click(tmp_path, COUNTS_THREADS) | env)
        assert (result.status, result.stderr) == (0, "")
        assert min(int(result.stdout), 1) == threads
        if not threads:
            with pytest.raises(BlockingIOError):
                listener.accept()
