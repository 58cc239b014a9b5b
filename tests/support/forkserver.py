"""Start smai in a few milliseconds: an interpreter that has imported all of it forks for each run.

Such a run is a separate process, with real pipes, sockets, signals and an exit status. Only its imports are done in
advance; the real start is covered by all tests without the marker `preloaded`.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, NoReturn

_NUMBER = struct.Struct("i")
# Variables that an interpreter reads only at its start.
_READ_AT_THE_START = ("PYTHON", "LC_", "LD_", "OPENSSL", "GLIBC")
_CHUNK_BYTES = 65536


def can_run(environment: Mapping[str, str]) -> bool:
    """Return whether a forked run in this environment is equivalent to a fresh start."""
    at_the_start = [name for name in environment if name.startswith(_READ_AT_THE_START)]
    return hasattr(os, "pidfd_open") and not at_the_start and environment.get("LANG") == "C.UTF-8"


class Child:
    """A run that has begun."""

    def __init__(self, pid: int, told: socket.socket) -> None:
        self.pid = pid
        self._told = told

    def wait(self, limit_s: float) -> int:
        """Wait for the end; return the status, negative if a signal ended it. Raises TimeoutError."""
        with self._told:
            self._told.settimeout(limit_s)
            status: int = _NUMBER.unpack(self._told.recv(_NUMBER.size))[0]
            return status

    def kill(self) -> None:
        """Kill it, if it is still running."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._told.close()


def start(arguments: Sequence[str], environment: Mapping[str, str], fds: Sequence[int]) -> Child:
    """Start `arguments[0]`, which is smai, with the other arguments; `fds` are its stdin, stdout and stderr."""
    ours, theirs = socket.socketpair()
    with theirs:
        socket.send_fds(_control(), [b"!"], [*fds, theirs.fileno()])
    request = {"arguments": list(arguments), "environment": dict(environment), "folder": os.getcwd()}
    ours.sendall(json.dumps(request).encode())
    ours.shutdown(socket.SHUT_WR)
    return Child(_NUMBER.unpack(ours.recv(_NUMBER.size))[0], ours)


def run(
    arguments: Sequence[str], environment: Mapping[str, str], stdin: bytes | IO[bytes] | int, limit_s: float
) -> tuple[int, bytes, bytes]:
    """Run to the end, as `start` begins; return the status, stdout and stderr.

    Raises subprocess.TimeoutExpired after `limit_s`.
    """
    end_s = time.monotonic() + limit_s
    with contextlib.ExitStack() as for_the_child:
        own_stdin, to_stdin = _stdin(stdin, for_the_child)
        stdout, to_stdout = os.pipe()
        stderr, to_stderr = os.pipe()
        for fd in (to_stdout, to_stderr):
            for_the_child.callback(os.close, fd)
        child = start(arguments, environment, [own_stdin, to_stdout, to_stderr])
    try:
        said = _communicate(stdin if isinstance(stdin, bytes) else b"", to_stdin, [stdout, stderr], end_s)
        status = child.wait(max(0.001, end_s - time.monotonic()))
    except TimeoutError:
        child.kill()
        raise subprocess.TimeoutExpired(list(arguments), limit_s) from None
    return status, said[stdout], said[stderr]


def _stdin(given: bytes | IO[bytes] | int, stack: contextlib.ExitStack) -> tuple[int, int | None]:
    """Return the descriptor for the child, and the one to write to; `stack` closes the child's own descriptors."""
    if isinstance(given, bytes):
        reader, writer = os.pipe()
        stack.callback(os.close, reader)
        return reader, writer
    if given == subprocess.DEVNULL:
        null = os.open(os.devnull, os.O_RDWR)
        stack.callback(os.close, null)
        return null, None
    return given if isinstance(given, int) else given.fileno(), None


def _communicate(data: bytes, to_stdin: int | None, outputs: list[int], end_s: float) -> dict[int, bytes]:
    """Write `data`, and read each of `outputs` to its end; all of them are closed. Raises TimeoutError."""
    said = {fd: bytearray() for fd in outputs}
    rest = memoryview(data)
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        closers = {fd: stack.enter_context(open(fd, "rb", buffering=0)) for fd in outputs}
        for fd in outputs:
            selector.register(fd, selectors.EVENT_READ)
        if to_stdin is not None:
            closers[to_stdin] = stack.enter_context(open(to_stdin, "wb", buffering=0))
            os.set_blocking(to_stdin, False)
            selector.register(to_stdin, selectors.EVENT_WRITE)
        while selector.get_map():
            ready = selector.select(end_s - time.monotonic())
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                if key.fd == to_stdin:
                    try:
                        rest = rest[os.write(to_stdin, rest[:_CHUNK_BYTES]) :] if rest else rest
                    except BrokenPipeError:  # it reads no more
                        rest = rest[:0]
                    is_over = not rest
                else:
                    chunk = os.read(key.fd, _CHUNK_BYTES)
                    said[key.fd] += chunk
                    is_over = not chunk
                if is_over:
                    selector.unregister(key.fd)
                    closers[key.fd].close()
    return {fd: bytes(text) for fd, text in said.items()}


@functools.cache
def _control() -> socket.socket:
    """Start the server, once per process; return its control socket. The server ends when that is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        environment = {"PATH": os.defpath, "LANG": "C.UTF-8"}
        command = [sys.executable, __file__, str(theirs.fileno())]
        server = subprocess.Popen(command, env=environment, pass_fds=[theirs.fileno()])
    atexit.register(server.wait)
    atexit.register(ours.close)  # handlers run in reverse order
    return ours


# The server.


def _serve(control: socket.socket) -> None:
    """Fork for every request on `control`; send its sender the pid and, at the end, the status."""
    running: dict[int, tuple[int, socket.socket]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd != control.fileno():
                    selector.unregister(key.fd)
                    _tell_the_end(key.fd, *running.pop(key.fd))
                    continue
                message, fds, _, _ = socket.recv_fds(control, 1, 4)
                if not message:
                    return
                pid = os.fork()
                if pid == 0:
                    _become(fds)
                for fd in fds[:3]:
                    os.close(fd)
                reply = socket.socket(fileno=fds[3])
                reply.send(_NUMBER.pack(pid))
                pidfd = os.pidfd_open(pid)
                running[pidfd] = (pid, reply)
                selector.register(pidfd, selectors.EVENT_READ)


def _tell_the_end(pidfd: int, pid: int, reply: socket.socket) -> None:
    _, status = os.waitpid(pid, 0)
    os.close(pidfd)
    with reply, contextlib.suppress(OSError):  # the test has given up
        reply.send(_NUMBER.pack(os.waitstatus_to_exitcode(status)))


def _become(fds: list[int]) -> NoReturn:
    """Turn this process into the requested smai."""
    with socket.socket(fileno=os.dup(fds[3])) as asked:
        request = json.loads(b"".join(_received(asked)))
    for standard, fd in enumerate(fds[:3]):
        os.dup2(fd, standard)
    os.closerange(3, max(os.sysconf("SC_OPEN_MAX"), 1024))
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    sys.argv = request["arguments"]
    from smai_cli.main import main

    main()


def _received(asked: socket.socket) -> Iterator[bytes]:
    while chunk := asked.recv(_CHUNK_BYTES):
        yield chunk


def _import_all() -> None:
    """Import smai, and what it imports later. No import starts a thread."""
    import smai_cli

    ours = [module.name for module in pkgutil.walk_packages(smai_cli.__path__, "smai_cli.")]
    for name in ["jsonschema", *ours]:
        if name != "smai_cli.__main__":
            with contextlib.suppress(ImportError):  # the module needs an extra
                importlib.import_module(name)
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    _import_all()
    _serve(socket.socket(fileno=int(sys.argv[1])))
    os._exit(0)
