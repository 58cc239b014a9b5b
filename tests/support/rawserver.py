"""A socket server that sends exactly the bytes of a test, and smai as the real process that uses it.

A script handles one connection after its request was read; `answer(step, ...)` makes one from bytes to send and
functions to call. A test module names this one in `pytest_plugins` and gets the fixtures `serve`, `ask` and `start`.
(PYTEST_DONT_REWRITE: the module is imported before it is named, and pytest would warn.)
"""

import atexit
import contextlib
import fcntl
import functools
import json
import os
import queue
import select
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import tempfile
import termios
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import process
import pytest
import trustme

KEY = "sk-raw-5e0c1fd7a2"
# Longer than anything may take, even on a busy machine.
PATIENCE_S = 20.0
HOLD_S = 45.0

Script = Callable[[socket.socket], object]
Step = bytes | Script


# The bytes of a server.

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
HEAD = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CLOSE_HEAD = OK + b"Connection: close\r\n\r\n"
OLD_HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
GZIP_HEAD = OK + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
GZIP_CLOSE_HEAD = OK + b"Content-Encoding: gzip\r\nConnection: close\r\n\r\n"
# The answer of a proxy to CONNECT.
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


def length_head(length: int) -> bytes:
    """Return the head of an answer of `length` bytes."""
    return OK + b"Content-Length: %d\r\n\r\n" % length


def payload(text: str = "", finish_reason: str | None = None, **more: Any) -> str:
    """Return the JSON of one chunk of an answer, as a server sends it."""
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish_reason}
    return json.dumps({"object": "chat.completion.chunk", "choices": [choice], **more}, ensure_ascii=False)


def event(text: str = "", finish_reason: str | None = None) -> bytes:
    """Return the event of one delta, or of the end."""
    return data(payload(text, finish_reason))


def data(value: str) -> bytes:
    """Return an event with this data."""
    return b"data: " + value.encode() + b"\n\n"


HELLO = event("Hello ")
WORLD = event("world\n")
STOP = event(finish_reason="stop")
DONE = data("[DONE]")
GOOD = [HELLO, WORLD, STOP, DONE]
BODY = b"".join(GOOD)
OUT = b"Hello world\n"


def chunk(body: bytes) -> bytes:
    """Return `body` as one chunk of the chunked coding."""
    return b"%x\r\n%s\r\n" % (len(body), body)


LAST_CHUNK = b"0\r\n\r\n"
PLAIN_ANSWER = [HEAD, *map(chunk, GOOD), LAST_CHUNK]


def http(status: str, body: bytes = b"", *headers: str) -> bytes:
    """Return a complete HTTP answer; `status` is for example `429 Too Many Requests`."""
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def error_body(message: str, code: str = "") -> bytes:
    """Return an error object of the API."""
    return json.dumps({"error": {"message": message, "type": "test", "code": code or None}}).encode()


def gzipped(*parts: bytes) -> list[bytes]:
    """Return `parts` as one gzip stream, flushed after each."""
    gzip = zlib.compressobj(wbits=31)
    return [*(gzip.compress(part) + gzip.flush(zlib.Z_SYNC_FLUSH) for part in parts), gzip.flush()]


def tls_of(scheme: str) -> dict[str, Any]:
    """Return the parameters of a server that is asked by http or https."""
    return {"tls": certificates().context if scheme == "https" else None}


def reads_once(connection: socket.socket) -> "Request":
    """Take what arrives first for the request: a greeting, or a head without its body."""
    return Request(connection.recv(65536), b"", 0)


def holds_the_greeting(connection: socket.socket) -> "Request":
    """Never answer what begins a connection."""
    hold(connection)
    raise ConnectionError


# Steps of a script other than bytes.


def hold(connection: socket.socket) -> None:
    """Send nothing until the client leaves, longer than any test would wait."""
    connection.settimeout(HOLD_S)
    while connection.recv(65536):
        pass


def ignore(connection: socket.socket) -> None:
    """Read nothing until the client has aborted the connection."""
    poller = select.poll()
    poller.register(connection, 0)  # POLLERR and POLLHUP come unasked
    assert poller.poll(HOLD_S * 1000)


def reset(connection: socket.socket) -> None:
    """Break the connection with RST, after the client's system has received the bytes so far."""
    while struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0]:
        time.sleep(0.005)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def until(happened: threading.Event) -> Script:
    """Send nothing until a test sets `happened`."""
    return lambda _: happened.wait(HOLD_S)


def pause(seconds: float) -> Script:
    """Send nothing for `seconds`; only for servers that must be slow."""
    return lambda _: time.sleep(seconds)


def forever(piece: bytes, every_s: float = 0.0) -> Script:
    """Send `piece` until the client leaves."""

    def send(connection: socket.socket) -> None:
        while True:
            connection.sendall(piece)
            time.sleep(every_s)

    return send


def single_bytes(body: bytes) -> Script:
    """Send every byte in a separate segment."""

    def send(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(body)):
            connection.sendall(body[at : at + 1])

    return send


def answer(*steps: Step) -> Script:
    """Return a script with these steps; then the server closes the connection."""

    def play(connection: socket.socket) -> None:
        for step in steps:
            if isinstance(step, bytes):
                connection.sendall(step)
            else:
                step(connection)

    return play


class Checkpoint:
    """A step of a server: signals that it was reached, and that the client has left."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.gone = threading.Event()

    def __call__(self, connection: socket.socket) -> None:
        self.begun.set()
        with contextlib.suppress(ConnectionError):  # a reset is an end as well
            hold(connection)
        self.gone.set()


# The server.


class Request(NamedTuple):
    """A received request, and when its last byte arrived."""

    head: bytes
    body: bytes
    at_s: float

    @property
    def prompt(self) -> str:
        """The content of the last message."""
        content: str = json.loads(self.body)["messages"][-1]["content"]
        return content


def read_request(connection: socket.socket, every_s: float = 0.0) -> Request:
    """Read a head and the announced body; `every_s` makes it slow."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += _received(connection)
    head, body = head.split(b"\r\n\r\n", 1)
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
    length = int(fields.get(b"content-length", 0))
    rest = bytearray(body)
    while len(rest) < length:
        time.sleep(every_s)
        rest += _received(connection, 1 << 20)
    return Request(head, bytes(rest), time.monotonic())


def _received(connection: socket.socket, size: int = 65536) -> bytes:
    if piece := connection.recv(size):
        return piece
    raise ConnectionError


class RawServer:
    """Plays `scripts` on loopback, one per request in order, and the last one for all further requests.

    `reads` reads the request before the script is played. `requests` lists the received requests; `connections` also
    counts connections without one.
    """

    def __init__(
        self,
        *scripts: Script,
        reads: Callable[[socket.socket], Request] = read_request,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self._lock = threading.Lock()
        self._scripts, self._reads, self._tls = scripts, reads, tls
        self._arrived: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._listener = socket.create_server(
            (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=16
        )
        port = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}/v1"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def script_for(self, _: Request, count: int) -> Script:
        """Return the script for the next request, after `count` requests."""
        return self._scripts[min(count, len(self._scripts) - 1)]

    def next_request(self) -> Request:
        """Wait for the next request and return it."""
        return self._arrived.get(timeout=PATIENCE_S)

    def close(self) -> None:
        """Stop listening, and wait for the scripts; the clients have left by now."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(HOLD_S)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        # Many tests let the client leave: that is not a failure of the server.
        with contextlib.suppress(OSError), connection:
            connection.settimeout(HOLD_S)
            with self._wrapped(connection) as peer:
                request = self._reads(peer)
                with self._lock:
                    script = self.script_for(request, len(self.requests))
                    self.requests.append(request)
                self._arrived.put(request)
                script(peer)

    def _wrapped(self, connection: socket.socket) -> socket.socket:
        return self._tls.wrap_socket(connection, server_side=True) if self._tls else connection


class Certificates(NamedTuple):
    """A server's TLS context for loopback, and the file with its CA."""

    context: ssl.SSLContext
    ca_file: str


def tls_context(*names: str) -> ssl.SSLContext:
    """Return a new context of a server with these names, or with those of loopback, from the same authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _issued(*names).configure_cert(context)
    return context


@functools.cache
def _authority() -> trustme.CA:
    return trustme.CA()


@functools.cache
def _issued(*names: str) -> trustme.LeafCert:
    return _authority().issue_cert(*(names or ("127.0.0.1", "localhost")))


@functools.cache
def certificates() -> Certificates:
    """Return a certificate of an unknown CA."""
    authority = _authority()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _issued().configure_cert(context)
    folder = tempfile.mkdtemp(prefix="smai-ca-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    ca_file = Path(folder) / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    return Certificates(context, str(ca_file))


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A loopback port that neither accepts nor refuses connections: its queue is full, and the system drops the rest.

    On 127.0.0.1 only: another address of loopback may have the same port.
    """
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port: int = listener.getsockname()[1]
        for _ in range(8):  # one fills the queue, the others wait
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        yield port


# The process.


def fair(result: process.Result) -> process.Result:
    """Return `result` after checking the rules for every run: no traceback, no key, one line per message."""
    shown = result.stderr + result.stdout.decode(errors="replace")
    assert "Traceback" not in shown, shown
    assert KEY not in shown, shown
    for line in result.stderr.splitlines():
        assert line.startswith("smai: "), line
    return result


class RunningProcess:
    """A process that is still running."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self.child = child

    def out(self, count: int) -> bytes:
        """Return the next `count` bytes of stdout as soon as they arrive."""
        read = b""
        while len(read) < count:
            read += _some(self.child.stdout, count - len(read), read)
        return read

    def err_line(self) -> str:
        """Return the next line of stderr as soon as it arrives."""
        read = b""
        while not read.endswith(b"\n"):
            read += _some(self.child.stderr, 1, read)
        return read.decode()

    def end(self) -> process.Result:
        """Wait for the end; the Result holds the unread output."""
        out, err = self.child.communicate(timeout=PATIENCE_S)
        return fair(process.Result(self.child.returncode, out or b"", (err or b"").decode()))

    def kill(self) -> None:
        """Kill the process and its children, if they are still running."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()
        for pipe in (self.child.stdin, self.child.stdout, self.child.stderr):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()


def _some(pipe: IO[bytes] | None, count: int, before: bytes) -> bytes:
    assert pipe
    assert select.select([pipe], [], [], PATIENCE_S)[0], f"nothing came after {before!r}"
    piece = os.read(pipe.fileno(), count)
    assert piece, f"the end came after {before!r}"
    return piece


Serve = Callable[..., RawServer]
Ask = Callable[..., process.Result]
Start = Callable[..., RunningProcess]


def reach(server: RawServer | None) -> dict[str, str]:
    """Return the environment in which smai uses `server`, with its key."""
    if server is None:
        return {}
    ca = {"SSL_CERT_FILE": certificates().ca_file} if server.url.startswith("https") else {}
    return {"SMAI_BASE_URL": server.url, "SMAI_API_KEY": KEY, **ca}


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(HEAD, chunk(HELLO), reset)` serves these steps; a tuple of steps for each request in turn works too."""
    with contextlib.ExitStack() as stack:

        def start(*steps: Step | tuple[Step, ...], **more: Any) -> RawServer:
            replies = [step for step in steps if isinstance(step, tuple)]
            if not replies:
                replies = [tuple(step for step in steps if not isinstance(step, tuple))]
            server = RawServer(*(answer(*reply) for reply in replies), **more)
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture
def ask(environment: dict[str, str], serve: Serve) -> Ask:  # noqa: ARG001  # the servers outlive the processes
    """`ask(server, "--raw")` runs `smai ask hi --raw` against `server` to its end."""

    def run(
        server: RawServer | None, *flags: str, env: dict[str, str] | None = None, stdin: Any = subprocess.DEVNULL
    ) -> process.Result:
        return fair(process.run(("ask", "hi", *flags), environment | reach(server) | (env or {}), stdin))

    return run


@pytest.fixture
def start(environment: dict[str, str], serve: Serve) -> Iterator[Start]:  # noqa: ARG001  # as above
    """`start(server, "--raw")` starts `smai ask hi --raw`, `command=[...]` another program; both with pipes."""
    with contextlib.ExitStack() as stack:

        def begin(
            server: RawServer | None,
            *flags: str,
            command: list[str] | None = None,
            env: dict[str, str] | None = None,
            **more: Any,
        ) -> RunningProcess:
            given: dict[str, Any] = {
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
            }
            child = subprocess.Popen(
                command or [process.SMAI, "ask", "hi", *flags],
                env=environment | reach(server) | (env or {}),
                start_new_session=True,
                **(given | more),
            )
            started = RunningProcess(child)
            stack.callback(started.kill)
            return started

        yield begin


@pytest.fixture
def sh(start: Start) -> Ask:
    """`sh(server, "smai ask hi | head -1")` runs a line of bash to its end, or of another `shell`."""

    def run(server: RawServer | None, line: str, shell: str = "bash", **more: Any) -> process.Result:
        return start(server, command=[shell, "-c", line], **more).end()

    return run


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of this machine that has no listener during the test."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
def dead_resolver(tmp_path: Path) -> dict[str, str]:
    """The environment of a process whose name server never answers: getaddrinfo blocks in C, as the real one does.

    A line on stderr says that it was called.
    """
    (tmp_path / "sitecustomize.py").write_text(
        "import ctypes, os, socket\n"
        "def getaddrinfo(*args, **kwargs):\n"
        "    os.write(2, b'smai: resolving\\n')\n"
        "    ctypes.CDLL(None).sleep(45)\n"
        "socket.getaddrinfo = getaddrinfo\n"
    )
    return {"PYTHONPATH": str(tmp_path)}
