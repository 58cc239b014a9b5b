"""A gateway in this process, and socket clients for it.

A test module names this one in `pytest_plugins`, and gets the fixture `gateway`.
(PYTEST_DONT_REWRITE: the module is imported before it is named, and pytest would warn.)
"""

import contextlib
import http.client
import json
import select
import socket
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import pytest
from rawserver import KEY, PATIENCE_S, certificates

from smai_cli.common.clocks import Clocks
from smai_cli.config.endpoint import Endpoint
from smai_cli.config.headers import Header
from smai_cli.config.keys import Secret
from smai_cli.serve.gateway import Gateway, Upstream
from smai_cli.serve.handler import GatewayHandler
from smai_cli.serve.limits import ClientLimits
from smai_cli.serve.pages import PageDefaults

TOKEN = "tok-8c1f5a3e9b7d2460"
CHAT = "/v1/chat/completions"
QUESTION = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}).encode()
ALONE = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()

Start = Callable[..., Gateway]


class Answer(NamedTuple):
    """An answer as a client sees it; `is_cut`: its body had no end."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_cut: bool

    @property
    def error(self) -> dict[str, Any]:
        """The error object."""
        error: dict[str, Any] = json.loads(self.body)["error"]
        return error


class Client:
    """A connection to a gateway that sends raw bytes."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)

    def wait_for_reset(self) -> bool:
        """Read nothing until the server breaks the connection; return whether it did."""
        poller = select.poll()
        poller.register(self.socket, 0)  # POLLERR and POLLHUP are always reported
        return bool(poller.poll(PATIENCE_S * 1000))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_until_full(self, data: bytes) -> None:
        """Send the bytes over and over until the server takes no more, or has closed the connection."""
        self.socket.settimeout(0.2)
        # A server with a time limit may reset the connection before every buffer is full.
        with contextlib.suppress(TimeoutError, ConnectionError):
            while True:
                self.socket.sendall(data)

    def end(self) -> None:
        """Half-close the connection, unless the server has already closed it."""
        # ENOTCONN: the server has reset it, as one does that closes before it has read everything.
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def begun(self, method: str = "POST") -> http.client.HTTPResponse:
        """Return the next answer once its head has arrived."""
        response = http.client.HTTPResponse(self.socket, method=method)
        response.begin()
        return response

    def answer(self, method: str = "POST") -> Answer:
        """Return the next answer once it is complete."""
        response = self.begun(method)
        is_cut, body = False, b""
        try:
            body = response.read()
        except http.client.IncompleteRead as cut:
            is_cut, body = True, cut.partial
        except ConnectionResetError:
            is_cut = True
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, body, is_cut)

    def is_closed(self) -> bool:
        """Wait until the server closes the connection; return whether nothing came before."""
        with contextlib.suppress(ConnectionResetError):
            return self.socket.recv(1) == b""
        return True

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def request(
    port: int,
    method: str = "POST",
    path: str = CHAT,
    body: bytes | None = QUESTION,
    *more: str,
    without: tuple[str, ...] = (),
) -> bytes:
    """Return a valid request; `more` are additional lines, `without` the fields to leave out."""
    lines = [f"Host: 127.0.0.1:{port}", f"Authorization: Bearer {TOKEN}"]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines = [line for line in lines if line.partition(":")[0].lower() not in without]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, *more, "", ""]).encode("latin-1") + (body or b"")


def ask(gateway: Gateway, *arguments: Any, **more: Any) -> Answer:
    """Send a request made by `request` on a new connection, and return the answer."""
    sent = request(gateway.port, *arguments, **more)
    with Client(gateway.port) as client:
        client.send(sent)
        return client.answer(sent.partition(b" ")[0].decode())


@pytest.fixture
def gateway() -> Iterator[Start]:
    """`gateway(url)` starts a gateway to `url` with KEY and with `headers` (name to value)."""
    with contextlib.ExitStack() as stack:

        def start(
            url: str,
            key: str | None = KEY,
            *,
            headers: Mapping[str, str] = MappingProxyType({}),
            clocks: Clocks | None = None,
            limits: ClientLimits | None = None,
            **more: Any,
        ) -> Gateway:
            own = tuple(Header(name=name, value=Secret(value), source="-H") for name, value in headers.items())
            endpoint = Endpoint(url, Secret(key) if key else None, own)
            ca_file = certificates().ca_file if url.startswith("https:") else None
            upstream = Upstream(
                endpoint, lambda: clocks or Clocks(connect_timeout_s=PATIENCE_S, idle_timeout_s=PATIENCE_S), ca_file
            )
            server = Gateway(GatewayHandler, upstream, PageDefaults("m"), TOKEN, limits=limits, **more)
            return stack.enter_context(server)

        yield start
