"""The fixtures: the real process, and the product's own mock as the server it talks to."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import hypothesis
import process
import pytest

from smai_cli.mock.script import Script
from smai_cli.mock.server import Mock, MockRefusal, ReceivedRequest

# Under nohup, or in the background of a script, SIGINT is ignored, and every child would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
for _number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
    signal.signal(_number, signal.SIG_DFL)

# A busy machine takes longer.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

Smai = Callable[..., process.Result]
Server = Callable[..., Mock]
Config = Callable[[str], Path]
StartMock = Callable[..., "tuple[subprocess.Popen[bytes], str]"]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:  # noqa: ARG001  # the hook's signature
    """Run two tests per processor: half of the time a test waits for a process."""
    return 2 * (os.cpu_count() or 1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-preload", action="store_true", help="start every process anew, also with the marker preloaded"
    )


@pytest.fixture(autouse=True)
def _preloaded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    is_preloaded = request.node.get_closest_marker("preloaded") and not request.config.getoption("no_preload")
    monkeypatch.setattr(process, "PRELOADED", bool(is_preloaded))


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A clean environment with an empty home; tests may add to it."""
    home = tmp_path / "home"
    home.mkdir()
    return process.clean_environment(home)


@pytest.fixture
def smai(environment: dict[str, str]) -> Smai:
    """`smai("ask", "hi", stdin=b"...", env={...})` runs the real process and returns its Result."""

    def run(
        *arguments: Any, stdin: bytes | IO[Any] | int = subprocess.DEVNULL, env: dict[str, str] | None = None
    ) -> process.Result:
        return process.run(arguments, environment | (env or {}), stdin)

    return run


@pytest.fixture
def config(environment: dict[str, str]) -> Config:
    """`config(text)` writes the configuration file and returns its path."""

    def write(text: str) -> Path:
        path = Path(environment["HOME"]) / ".config" / "smai" / "config.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


@pytest.fixture
def server() -> Iterator[Server]:
    """`server(reply="...", cut_after=2)` starts a mock with that script; its requests are in `received`."""
    with contextlib.ExitStack() as stack:

        def start(**script: Any) -> Mock:
            return stack.enter_context(Mock(Script(**{"delay_s": 0.0, **script})))

        yield start


def sent_authorization(mock: Mock) -> str | None:
    """Return the header with the key in the last request that `mock` received."""
    found: str | None = mock.received[-1].headers.get("authorization")
    return found


@pytest.fixture
def start_mock(environment: dict[str, str]) -> Iterator[StartMock]:
    """`start_mock("--delay", "0")` runs `smai mock` and returns the process and its base URL."""
    with contextlib.ExitStack() as stack:

        def run(*arguments: str) -> tuple[subprocess.Popen[bytes], str]:
            command = [process.SMAI, "mock", "--delay", "0", *arguments]
            mock = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, env=environment))
            stack.callback(mock.kill)
            assert mock.stdout
            return mock, mock.stdout.readline().decode().rstrip("\n")

        yield run


@pytest.fixture
def no_extra(tmp_path: Path) -> dict[str, str]:
    """The environment of an smai without the extra `tokens`: its package cannot be imported."""
    stub = tmp_path / "hidden" / "splintr"
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text("raise ImportError('not installed')\n")
    return {"PYTHONPATH": str(stub.parent)}


def assert_refused(result: process.Result, mock: Mock, *words: str) -> None:
    """Check that nothing was sent, and that stderr has one line with `words`."""
    assert (result.status, result.stdout) == (2, b""), result
    assert mock.received == []
    (line,) = result.stderr.splitlines()
    assert line.startswith("smai: ")
    for word in words:
        assert word in line


class _Picky(Mock):
    """A mock that refuses `stream_options`, as some compatible servers do."""

    refusal = 400

    def check(self, received: ReceivedRequest) -> None:
        if "stream_options" in received.json:
            raise MockRefusal(self.refusal, {"detail": [{"loc": ["body", "stream_options"], "msg": "Extra inputs"}]})


@pytest.fixture
def picky_server() -> Callable[[int], Mock]:
    """`with picky_server(422) as mock:` is a server that answers 422 to `stream_options`."""

    def make(status: int) -> Mock:
        mock = _Picky(Script(delay_s=0.0))
        mock.refusal = status
        return mock

    return make


class _Poor(Mock):
    """A mock whose account is out of money."""

    def check(self, received: ReceivedRequest) -> None:
        raise MockRefusal(429, {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}})


@pytest.fixture
def quota_server() -> Mock:
    """`with quota_server as mock:` is a server that answers 429 insufficient_quota."""
    return _Poor(Script())
