"""A host and a port -> a TCP connection to whichever address answers, within one time limit.

A Cancellation ends the attempt, and any later use of the connection, from any thread.
"""

import contextlib
import errno
import math
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence

from smai_cli.common.frozen import Frozen
from smai_cli.common.trace import Trace, silent

TYPE_CHECKING = False  # what typing.TYPE_CHECKING is, without the time to import typing
if TYPE_CHECKING:
    from typing import Any

# A timeout of 0 would make the socket non-blocking.
_SHORTEST_S = 0.001


class Cancellation:
    """Ends what threads do on sockets: a blocking connect, handshake, write or read fails.

    Each connection is shut down through a duplicate descriptor: during the TLS handshake, which may take as long as the
    server likes, the original belongs to another object. `is_resolving` says that a name is being looked up, which
    cannot be interrupted; `timed_out` that a clock ended it. If `aborts` is set, the server gets an RST.
    """

    def __init__(self) -> None:
        self.is_cancelled = False
        self.is_resolving = False
        self.timed_out = False
        self.aborts = False
        self._lock = threading.Lock()
        self._handles: set[socket.socket] = set()
        self._calls: list[Callable[[bool], None]] = []

    def cancel(self, *, timed_out: bool = False, aborts: bool = False) -> None:
        """Shut down every connection; later ones fail. May be called again, and from any thread.

        `aborts` sends the server an RST. A FIN would come after data that the server does not read, and a
        server that is blocked in sending would not notice it.
        """
        with self._lock:
            if not self.is_cancelled:
                self.timed_out = timed_out
                self.aborts = self.aborts or aborts
            self.is_cancelled = True
            handles, calls = self._handles, self._calls
            self._handles, self._calls = set(), []
        for handle in handles:
            _shut_down(handle, aborts=self.aborts)
        for call in calls:
            call(self.timed_out)

    def check(self) -> None:
        """Raise OSError if it was cancelled."""
        if self.is_cancelled:
            raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))

    def watch(self, connection: socket.socket) -> socket.socket:
        """Shut down `connection` on `cancel`; return the handle for `forget`. Raises OSError if it was cancelled."""
        handle = connection.dup()
        with self._lock:
            if not self.is_cancelled:
                self._handles.add(handle)
                return handle
        _shut_down(handle, aborts=self.aborts)
        raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))

    def forget(self, handle: socket.socket) -> None:
        """Stop watching a connection."""
        with self._lock:
            self._handles.discard(handle)
        handle.close()

    def adopt(self, other: "Cancellation") -> None:
        """Take over the connections that `other` watches. Raises OSError if it was cancelled."""
        handles = other.release()
        with self._lock:
            if not self.is_cancelled:
                self._handles |= handles
                return
        for handle in handles:
            _shut_down(handle, aborts=self.aborts)
        self.check()

    def release(self) -> set[socket.socket]:
        """Stop watching all connections; return their handles."""
        with self._lock:
            handles, self._handles = self._handles, set()
        return handles

    def on_cancel(self, call: Callable[[bool], None]) -> None:
        """Register `call` for `cancel`; it is called at once if already cancelled. Its argument is `timed_out`."""
        with self._lock:
            if not self.is_cancelled:
                self._calls.append(call)
                return
        call(self.timed_out)


class Address(Frozen):
    """One of the addresses of a host and a port, in the form of the socket module."""

    family: int
    kind: int
    protocol: int
    place: "Any"

    @property
    def host(self) -> str:
        """The address without its port."""
        return str(self.place[0])


class TcpConnection(Frozen):
    """A TCP connection, its address, and why those that were tried before accepted none."""

    connection: socket.socket
    address: Address
    others: "tuple[tuple[Address, OSError], ...]" = ()


# Which addresses have answered in this process, and which have not. It only affects the order of the attempts.
_ANSWERED: dict[Address, bool] = {}


def resolve(host: str, port: int | None, cancellation: Cancellation) -> list[Address]:
    """Return the addresses of a host: first those that have answered before, last those that failed.

    Raises socket.gaierror, UnicodeError for an invalid name, or OSError if it was cancelled.
    """
    # getaddrinfo also accepts bytes: then the codec for IDNA, which takes 5 ms, need not be loaded.
    name = host.encode("ascii") if host.isascii() else host
    cancellation.is_resolving = True
    try:
        cancellation.check()
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    finally:
        cancellation.is_resolving = False
    cancellation.check()
    addresses = (
        Address(family=family, kind=kind, protocol=protocol, place=place) for family, kind, protocol, _, place in found
    )
    return sorted(dict.fromkeys(addresses), key=lambda address: {True: 0, None: 1, False: 2}[_ANSWERED.get(address)])


def connect(
    addresses: Sequence[Address],
    end_s: float,
    cancellation: Cancellation,
    options: Sequence[tuple[int, int, int | bytes]] = (),
    trace: Trace = silent,
) -> TcpConnection:
    """Return a connection to the first address that accepts one, until `end_s` on the monotonic clock.

    Each address but the last gets half of the remaining time, so that a dead one leaves enough for the next.
    `options` are set on the socket. Raises the OSError of the last address, a TimeoutError if it did not answer.
    """
    others: list[tuple[Address, OSError]] = []
    for number, address in enumerate(addresses, 1):
        left_s = end_s - time.monotonic()
        trace(f"connecting to {address.host} port {address.place[1]}")
        try:
            connection = _open(address, left_s if number == len(addresses) else left_s / 2, cancellation, options)
        except OSError as exc:
            record_answer(address, cancellation, answered=False)
            cancellation.check()
            others.append((address, exc))
            if number < len(addresses):
                trace(f"no connection to {address.host}: {exc.strerror or exc}")
        else:
            record_answer(address, cancellation, answered=True)
            return TcpConnection(connection=connection, address=address, others=tuple(others))
    raise others[-1][1] if others else OSError("no address")


def record_answer(address: Address, cancellation: Cancellation, *, answered: bool) -> None:
    """Record whether an address answers, unless the caller cancelled the attempt."""
    if not cancellation.is_cancelled or cancellation.timed_out:
        _ANSWERED[address] = answered


def limit_waits(connection: socket.socket, limit_s: float) -> None:
    """Limit each wait of `connection` to `limit_s` seconds, which may be infinite."""
    connection.settimeout(None if limit_s == math.inf else max(limit_s, _SHORTEST_S))


def _open(
    address: Address, limit_s: float, cancellation: Cancellation, options: Sequence[tuple[int, int, int | bytes]]
) -> socket.socket:
    plain = socket.socket(address.family, address.kind, address.protocol)
    handle = None
    try:
        for option in options:
            plain.setsockopt(*option)
        limit_waits(plain, limit_s)
        handle = cancellation.watch(plain)
        plain.connect(address.place)
        cancellation.check()  # a socket that is shut down while it connects may look as if it were connected
    except BaseException:
        if handle:
            cancellation.forget(handle)
        plain.close()
        raise
    return plain


def _shut_down(handle: socket.socket, *, aborts: bool) -> None:
    with contextlib.suppress(OSError):
        if aborts:  # takes effect when the last descriptor is closed, which the blocked thread does next
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handle.shutdown(socket.SHUT_RDWR)
    handle.close()
