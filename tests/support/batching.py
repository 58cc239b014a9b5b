"""`smai batch` as the real process: an input, a server that echoes the prompt, and the results.

A test module names this one in `pytest_plugins` and gets the fixtures `out`, `questions`, `batch`, `desk` and `chaos`.
(PYTEST_DONT_REWRITE: the module is imported before it is named, and pytest would warn.)
"""

import contextlib
import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import process
import pytest

from smai_cli.mock.script import Script, prompt_of
from smai_cli.mock.server import Mock, MockRefusal, ReceivedRequest

KEY = "sk-batch-9a1c77e0d3"
CHAOS = Path(__file__).with_name("chaosserver.py")


class Run(NamedTuple):
    """The visible outcome of a run; `results` are the objects on stdout."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def results(self) -> list[dict[str, Any]]:
        return results_in(self.stdout)

    @property
    def texts(self) -> list[str]:
        return [result["text"] for result in self.results]


def results_in(source: bytes | Path) -> list[dict[str, Any]]:
    """Return the results in a file, or in bytes, after checking that every line is complete."""
    data = source.read_bytes() if isinstance(source, Path) else source
    assert not data or data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


def encoded(lines: Sequence[Any]) -> bytes:
    """Return lines of JSON; bytes are not encoded again."""
    return b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)


class Desk(Mock):
    """A mock that echoes the prompt; `refuse` maps a prompt to an HTTP status or a Refusal.

    `next_statuses` apply to the next requests, whatever their prompts. `most` is the highest number of concurrent
    requests. While `open` is clear, none is answered.
    """

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self.refuse: dict[str, int | MockRefusal] = {}
        self.next_statuses: Iterator[int] = iter(())
        self.open = threading.Event()
        self.open.set()
        self.came = threading.Condition()
        self.now = self.most = 0

    def check(self, received: ReceivedRequest) -> None:
        with self.came:
            self.now += 1
            self.most = max(self.most, self.now)
            self.came.notify_all()
        try:
            while not self.open.wait(0.05) and not self.over.is_set():
                pass
            for status in self.next_statuses:
                raise MockRefusal(status)
            refusal = self.refuse.get(prompt_of(received.json))
            if refusal is not None:
                raise refusal if isinstance(refusal, MockRefusal) else MockRefusal(refusal)
        finally:
            with self.came:
                self.now -= 1

    def wait_for(self, count: int) -> None:
        """Wait until `count` requests have arrived."""
        with self.came:
            assert self.came.wait_for(lambda: len(self.received) >= count, 20)

    @property
    def prompts(self) -> list[str]:
        return [prompt_of(received.json) for received in self.received]


class Chaos:
    """The server of chaosserver.py, in a separate process."""

    def __init__(self, options: dict[str, Any]) -> None:
        command = [sys.executable, str(CHAOS), json.dumps(options)]
        self._server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._server.stdout
        self._origin = f"http://127.0.0.1:{int(self._server.stdout.readline())}"
        self.url = f"{self._origin}/v1"

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self._origin}/stats") as answer:
            return json.load(answer)  # type: ignore[no-any-return]

    def close(self) -> None:
        self._server.kill()
        self._server.wait()
        assert self._server.stdout
        self._server.stdout.close()


class HasUrl(Protocol):
    """A server of any kind, at a base URL."""

    @property
    def url(self) -> str: ...


Questions = Callable[..., Path]
Ask = Callable[..., Run]
MakeDesk = Callable[..., Desk]
MakeChaos = Callable[..., Chaos]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The file of `-o`, in an empty folder."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "answers.jsonl"


@pytest.fixture
def questions(tmp_path: Path) -> Questions:
    """`questions("a", {"prompt": "b"})` writes a file with these lines."""

    def write(*lines: Any, name: str = "questions.jsonl") -> Path:
        path = tmp_path / name
        path.write_bytes(encoded(lines))
        return path

    return write


@pytest.fixture
def desk() -> Iterator[MakeDesk]:
    """`desk(finish_reason="length")` starts a Desk."""
    with contextlib.ExitStack() as stack:

        def start(**script: Any) -> Desk:
            made: Desk = stack.enter_context(Desk(Script(**{"delay_s": 0.0, "echo": True, **script})))
            return made

        yield start


@pytest.fixture
def chaos() -> Iterator[MakeChaos]:
    """`chaos(busy=0.1)` starts a Chaos."""
    with contextlib.ExitStack() as stack:

        def start(**options: Any) -> Chaos:
            return stack.enter_context(contextlib.closing(Chaos(options)))

        yield start


@pytest.fixture
def batch(environment: dict[str, str]) -> Ask:
    """`batch(server, "-j2", file)` runs `smai batch -j2 FILE` against a server; `stdin` is bytes for a pipe."""

    def run(
        server: HasUrl,
        *arguments: Any,
        stdin: bytes | IO[Any] | int = subprocess.DEVNULL,
        env: dict[str, str] | None = None,
    ) -> Run:
        result = process.run(("batch", *arguments), environment | reach(server) | (env or {}), stdin)
        assert "Traceback" not in result.stderr, result.stderr
        assert KEY not in result.stderr
        assert KEY.encode() not in result.stdout
        return Run(*result)

    return run


def reach(server: HasUrl) -> dict[str, str]:
    """Return the environment in which smai uses this server, with its key."""
    return {"SMAI_BASE_URL": server.url, "SMAI_API_KEY": KEY}


def command(*arguments: Any) -> list[str]:
    """Return the command line of `smai batch`."""
    return [process.SMAI, "batch", *map(str, arguments)]
