"""A host with several addresses: none uses up the time limit, and a retry begins with one that answered."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from process import read_steps
from rawserver import (
    OUT,
    PLAIN_ANSWER,
    Ask,
    Serve,
    certificates,
    fair,
    hold,
    holds_the_greeting,
    http,
)

pytestmark = pytest.mark.thorough

pytest_plugins = ["rawserver"]

Resolver = Callable[..., dict[str, str]]
WAYS = {
    "http": ("http", {}),
    "https-ahead": ("https", {}),
    "https-as-usual": ("https", {"SSLKEYLOGFILE": "/dev/null"}),  # which keeps smai from connecting ahead
}
every_way = pytest.mark.parametrize(
    ("scheme", "env"),
    [
        pytest.param(*way, id=name, marks=[] if name == "https-ahead" else [pytest.mark.nightly])
        for name, way in WAYS.items()
    ],
)


@pytest.fixture
def resolver(tmp_path: Path) -> Resolver:
    """`resolver(port, port)` is the environment of a process for which localhost has these ports, in turn."""

    def play(*ports: int) -> dict[str, str]:
        found = [
            (int(socket.AF_INET), int(socket.SOCK_STREAM), int(socket.IPPROTO_TCP), "", ("127.0.0.1", port))
            for port in ports
        ]
        (tmp_path / "sitecustomize.py").write_text(f"import socket\nsocket.getaddrinfo = lambda *_, **__: {found!r}\n")
        return {"PYTHONPATH": str(tmp_path), "SSL_CERT_FILE": certificates().ca_file}

    return play


def port_of(url: str) -> int:
    return int(url.rsplit(":", 1)[1].removesuffix("/v1"))


def good(serve: Serve, scheme: str, *replies: tuple[bytes, ...]) -> int:
    tls = certificates().context if scheme == "https" else None
    return port_of(serve(*replies, tuple(PLAIN_ANSWER), tls=tls).url)


@every_way
def test_a_dead_first_address_leaves_time_for_the_next(
    serve: Serve, ask: Ask, resolver: Resolver, silent_port: int, scheme: str, env: dict[str, str]
) -> None:
    env = env | resolver(silent_port, good(serve, scheme))
    url = f"{scheme}://localhost:1/v1"
    assert ask(None, "--base-url", url, "--retries", "0", "--connect-timeout", "4", env=env) == (0, OUT, "")


@every_way
def test_several_dead_addresses_leave_time_for_the_last(
    serve: Serve, ask: Ask, resolver: Resolver, silent_port: int, scheme: str, env: dict[str, str]
) -> None:
    another = silent_port  # twice the same would be one
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # it refuses
        env = env | resolver(another, bound.getsockname()[1], good(serve, scheme))
        flags = ["--retries", "0", "--connect-timeout", "4"]
        assert ask(None, "--base-url", f"{scheme}://localhost:1/v1", *flags, env=env) == (0, OUT, "")


@every_way
def test_a_retry_begins_with_the_address_that_answered(
    serve: Serve, ask: Ask, resolver: Resolver, silent_port: int, scheme: str, env: dict[str, str]
) -> None:
    port = good(serve, scheme, (http("503 Busy", b"", "Retry-After: 0"),))
    flags = ["--base-url", f"{scheme}://localhost:1/v1", "--connect-timeout", "4", "-v", "-n"]
    result = ask(None, *flags, env=env | resolver(silent_port, port))
    assert result[:2] == (0, OUT)
    tries = [line for line in read_steps(result) if line.startswith("connecting to ")]
    assert tries == [f"connecting to 127.0.0.1 port {port}" for port in (silent_port, port, port)]


@pytest.mark.parametrize("env", [{}, {"SSLKEYLOGFILE": "/dev/null"}], ids=["ahead", "as-usual"])
def test_a_retry_begins_with_the_next_address_after_an_unfinished_handshake(
    serve: Serve, ask: Ask, resolver: Resolver, env: dict[str, str]
) -> None:
    mute = serve(hold, reads=holds_the_greeting)
    env = env | resolver(port_of(mute.url), good(serve, "https"))
    flags = ["--base-url", "https://localhost:1/v1", "--connect-timeout", "2", "--retries", "1"]
    result = ask(None, *flags, env=env)
    assert result[:2] == (0, OUT)
    assert mute.connections == 1


def test_several_dead_addresses_share_one_timeout(ask: Ask, resolver: Resolver, silent_port: int) -> None:
    flags = ["--base-url", "http://localhost:1/v1", "--connect-timeout", "1", "--retries", "0"]
    result = fair(ask(None, *flags, env=resolver(silent_port, silent_port)))
    assert result[:2] == (7, b"")
    assert "no connection within 1 s" in result.stderr
