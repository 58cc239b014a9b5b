"""A proxy that impersonates every server: it terminates TLS with certificates of its own CA, and records requests.

With HTTPS_PROXY and SSL_CERT_FILE, smai sends it everything for the real server, and nothing leaves the machine.
"""

import contextlib
import json
import socket
import ssl
import threading
from pathlib import Path
from typing import Any, NamedTuple, Self

import trustme
from rawserver import ESTABLISHED

PATIENCE_S = 20.0
_REFUSAL = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"


class RecordedRequest(NamedTuple):
    """A request: its server as `host:port`, and its content; header names are in lower case."""

    server: str
    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class RecordingProxy:
    """Use it as a context manager. `recorded` are the requests, `tunnels` the servers of CONNECT requests.

    While `refuses` is true, each request is answered with 401.
    """

    def __init__(self, folder: Path) -> None:
        self.refuses = False
        self.recorded: list[RecordedRequest] = []
        self.tunnels: list[str] = []
        self._authority = trustme.CA()
        ca_file = folder / "proxy-ca.pem"
        self._authority.cert_pem.write_to_path(str(ca_file))
        self._listener = socket.create_server(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.environment = {"HTTPS_PROXY": url, "SSL_CERT_FILE": str(ca_file)}

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.settimeout(PATIENCE_S)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            server = _head(connection).split()[1]
            self.tunnels.append(server)
            connection.sendall(ESTABLISHED)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._authority.issue_cert(server.partition(":")[0]).configure_cert(context)
            with context.wrap_socket(connection, server_side=True) as peer:
                request = _request(server, peer)
                self.recorded.append(request)
                peer.sendall(_REFUSAL if self.refuses else _answer(request))


def _head(connection: socket.socket) -> str:
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            raise OSError
        data += byte
    return data.decode()


def _request(server: str, connection: socket.socket) -> RecordedRequest:
    first, *lines = _head(connection).splitlines()
    method, path, _ = first.split()
    pairs = (line.partition(":") for line in lines if line)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    left = int(headers.get("content-length", "0"))
    body = b""
    while len(body) < left:
        body += connection.recv(left - len(body))
    return RecordedRequest(server, method, path, headers, json.loads(body or b"{}"))


def _answer(request: RecordedRequest) -> bytes:
    """Return a list of one model, or a complete answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    listed = {"object": "list", "data": [{"id": "the-model", "object": "model"}]}
    body = json.dumps(listed if request.method == "GET" else {"model": "the-model", "choices": [choice]}).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
