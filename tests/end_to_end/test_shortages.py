"""A machine that is short of descriptors, threads, processes or memory: one line, and status 6 if nothing was sent."""

import errno
import json
import os
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conftest import Config, Server
from preload import preloaded
from process import SMAI, Result, can_trace
from rawserver import PLAIN_ANSWER, Serve, certificates, reach

import smai_cli
from smai_cli.common.shortages import failure_of
from smai_cli.errors import BrokenError, ConnectError, OutputError, Status, UsageError

pytest_plugins = ["rawserver"]

LIMIT_S = 20
EMFILE = "Too many open files; try again later, or raise ulimit -n"


def run_with_failing(
    calls: str,
    name: str,
    arguments: list[str],
    environment: dict[str, str],
    *,
    path: str | None = None,
    when: str = "1+",
) -> Result:
    """Run smai while the system answers the system calls `calls`, of those for `path` the ones `when`, with `name`."""
    if not can_trace():
        pytest.skip("strace is not there, or may not trace")
    only = ["-P", path] if path else []
    trace = ["strace", "-qq", "-f", "-o", os.devnull, *only, "-e", f"inject={calls}:error={name}:when={when}"]
    done = subprocess.run(
        [*trace, SMAI, *arguments], stdin=subprocess.DEVNULL, env=environment, capture_output=True, check=False
    )
    return Result(done.returncode, done.stdout, done.stderr.decode())


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with a file of each kind."""
    (tmp_path / "text").write_text("text\n")
    (tmp_path / "messages").write_text('{"role": "user", "content": "hi"}\n')
    (tmp_path / "schema").write_text("{}")
    (tmp_path / "key").write_text("sk-1\n")
    (tmp_path / "key").chmod(0o600)
    return tmp_path


FILES = [
    pytest.param("text", "ask -a {here}/text hi", id="-a"),
    pytest.param("text", "ask -s @{here}/text hi", id="-s"),
    pytest.param("messages", "ask --messages {here}/messages hi", id="--messages"),
    pytest.param("messages", "ask --chat {here}/messages hi", id="--chat"),
    pytest.param("schema", "ask --schema {here}/schema hi", id="--schema"),
    pytest.param("text", "ask -O user=@{here}/text hi", id="-O"),
    pytest.param("key", "ask --key-file {here}/key hi", id="--key-file"),
    pytest.param("key", "ask -H @{here}/key hi", id="-H"),
    pytest.param("out.partial", "ask -o {here}/out hi", id="-o"),
    pytest.param("tape", "ask --record {here}/tape hi", id="--record"),
    pytest.param("text", "count {here}/text", id="count"),
    pytest.param("text", "decode {here}/text", id="decode"),
    pytest.param("text", "batch --lines {here}/text", id="batch"),
    pytest.param("out.partial", "batch --lines {here}/text -o {here}/out", id="batch -o"),
    pytest.param("text", "mock --tape {here}/text", id="mock --tape"),
    pytest.param("log", "mock --log {here}/log", id="mock --log"),
]


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "line"), FILES)
def test_reading_a_file_without_a_free_descriptor_is_status_6_and_nothing_is_sent(
    here: Path, server: Server, environment: dict[str, str], name: str, line: str
) -> None:
    mock = server()
    environment["SMAI_BASE_URL"] = mock.url
    result = run_with_failing("openat", "EMFILE", line.format(here=here).split(), environment, path=f"{here}/{name}")
    assert (result.status, result.stdout) == (6, b""), result
    (message,) = result.stderr.splitlines()
    assert message.endswith(f"/{name}: {EMFILE}")
    assert mock.received == []


def test_reading_the_configuration_without_a_free_descriptor_is_status_6(
    environment: dict[str, str], config: Config
) -> None:
    path = config("model = 'm'\n")
    result = run_with_failing("openat", "ENFILE", ["ask", "hi"], environment, path=str(path))
    says = f"smai: {path}: Too many open files in system; try again later, or allow the system more open files\n"
    assert result == (6, b"", says)


@pytest.mark.parametrize("arguments", [["ask", "hi"], ["models"], ["doctor"]], ids=" ".join)
def test_connecting_without_a_free_descriptor_is_status_6(
    server: Server, environment: dict[str, str], arguments: list[str]
) -> None:
    mock = server()
    command = [*arguments, "--base-url", mock.url, "--retries", "0"]
    result = run_with_failing("socket", "EMFILE", command, environment)
    assert result.status == 6
    assert "Too many open files" in result.stderr + result.stdout.decode()
    assert result.stderr.endswith("; try again later, or raise ulimit -n\n")
    assert mock.received == []


def test_connecting_without_a_free_descriptor_is_retried(server: Server, environment: dict[str, str]) -> None:
    mock = server()
    result = run_with_failing("socket", "EMFILE", ["ask", "--base-url", mock.url, "hi"], environment)
    notice, again, failure = result.stderr.splitlines()
    assert (result.status, "Too many open files" in notice, "Too many open files" in again) == (6, True, True)
    assert failure == f"smai: could not connect to 127.0.0.1 port {urlsplit(mock.url).port}: {EMFILE}"


def test_a_key_command_that_cannot_start_for_lack_of_processes_is_status_6(
    server: Server, environment: dict[str, str], config: Config
) -> None:
    mock = server()
    config(f'base_url = "{mock.url}"\nkey_command = "echo sk-1"\n')
    result = run_with_failing("vfork,fork,clone", "EAGAIN", ["ask", "hi"], environment)
    assert result == (6, b"", "smai: the system cannot start a process for key_command; try again later\n")


def test_a_full_disk_is_status_11(server: Server, environment: dict[str, str], here: Path) -> None:
    arguments = ["ask", "--base-url", server().url, "-o", str(here / "out"), "hi"]
    result = run_with_failing("openat", "ENOSPC", arguments, environment, path=str(here / "out.partial"))
    assert result.status == 11
    assert "No space left on device" in result.stderr


@pytest.mark.parametrize("command", ["ask", "batch", "models", "mock"])
def test_too_few_descriptors_to_load_smai_are_reported_in_one_line(environment: dict[str, str], command: str) -> None:
    folder = str(Path(smai_cli.__file__).parent / "cli")
    result = run_with_failing("openat", "EMFILE", [command], environment, path=folder)
    assert result == (6, b"", "smai: smai could not be loaded: Too many open files; try again later\n")


def test_a_lack_of_descriptors_is_not_reported_as_a_changed_conversation(
    server: Server, environment: dict[str, str], here: Path
) -> None:
    chat = here / "messages"
    arguments = ["ask", "--base-url", server(reply="answer").url, "--chat", str(chat), "hi"]
    result = run_with_failing("openat", "EMFILE", arguments, environment, path=str(chat), when="2+")
    says = f"smai: {chat}: Too many open files; the turn is in {chat}.turn\n"
    assert result == (11, b"answer\n", says)


def caused_by(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


OUT_OF_FILES = OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.mark.parametrize(
    ("exc", "status"),
    [
        pytest.param(MemoryError(), 6, id="memory"),
        pytest.param(RuntimeError("can't allocate lock"), 6, id="memory for a lock"),
        pytest.param(RuntimeError("can't start new thread"), 6, id="threads"),
        pytest.param(OUT_OF_FILES, 6, id="descriptors"),
        pytest.param(ImportError("x.so: cannot open shared object file: Too many open files"), 6, id="a library"),
        pytest.param(ImportError("x.so: failed to map segment from shared object"), 6, id="memory for a library"),
        pytest.param(caused_by(UsageError("x"), OUT_OF_FILES), 6, id="an input"),
        pytest.param(caused_by(ConnectError("x"), OUT_OF_FILES), 6, id="a connection"),
        pytest.param(caused_by(BrokenError("x"), MemoryError()), 8, id="an answer that has begun"),
        pytest.param(caused_by(OutputError("x"), OUT_OF_FILES), 11, id="an answer that has come"),
        pytest.param(UsageError("x"), 2, id="a usage error"),
        pytest.param(ImportError("No module named 'x'"), None, id="a defect"),
        pytest.param(RuntimeError("x"), None, id="another defect"),
        pytest.param(BlockingIOError(errno.EAGAIN, "x"), None, id="a read that would block"),
    ],
)
def test_a_lack_of_resources_is_distinguished_from_a_mistake_and_from_a_defect(
    exc: BaseException, status: int | None
) -> None:
    error = failure_of(exc)
    assert (error.status if error else None) == status
    if status == Status.BUSY:
        assert error
        assert error.retryable


# Lets a process create no more threads, as a limit of processes does (pthread_create(3), EAGAIN).
FEW_THREADS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
static int created;
int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg) {
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (!real) real = dlsym(RTLD_NEXT, "pthread_create");
    created++;
    return REFUSED ? EAGAIN : real(thread, attr, start, arg);
}
"""


@pytest.mark.parametrize("options", [[], ["--connect-timeout", "0"]])
def test_a_run_over_tls_without_a_second_thread_ends_with_one_line(
    serve: Serve, environment: dict[str, str], tmp_path: Path, options: list[str]
) -> None:
    server = serve(*PLAIN_ANSWER, tls=certificates().context)
    env = environment | reach(server) | preloaded(tmp_path, FEW_THREADS.replace("REFUSED", "created > 1"))
    done = subprocess.run(
        [SMAI, "ask", "-n", *options, "hi"], env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    message = "smai: the system cannot start a thread; try again later, or allow more processes\n"
    assert (done.returncode, done.stdout, done.stderr) == (6, "", message)


def test_a_batch_tries_a_line_again_if_the_thread_for_its_request_cannot_be_started(
    server: Server, environment: dict[str, str], tmp_path: Path
) -> None:
    (prompts := tmp_path / "prompts").write_text("a\nb\nc\nd\ne\nf\n")
    env = environment | preloaded(tmp_path, FEW_THREADS.replace("REFUSED", "created == 4"))
    arguments = ["batch", "-j1", "--lines", "--base-url", server(echo=True).url, str(prompts)]
    done = subprocess.run([SMAI, *arguments], env=env, capture_output=True, check=False)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (0, b"")
    assert sorted(it["text"] for it in results) == ["a", "b", "c", "d", "e", "f"]
    assert sum(it["retries"] for it in results) == 1
