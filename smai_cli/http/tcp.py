"""A host and a port -> a TCP connection, by whichever of the addresses answers, within one clock.

A Cancellation ends it, and whatever is done on the connection afterwards, from any thread.
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

# Python takes a timeout of 0 for a socket that never waits.
_SHORTEST_S = 0.001


class Cancellation:
    """Ends what threads do on sockets: a connect, a handshake, a write or a read that blocks returns, and fails.

    A connection is shut down by a descriptor of its own: TLS hands the first one on to another object while it
    shakes hands, for as long as the server likes. `is_deaf` says that a name is being looked up, which nothing
    interrupts; `timed_out` that a clock has ended it. While `aborts` is set the server is to get an RST.
    """

    def __init__(self) -> None:
        self.is_cancelled = False
        self.is_deaf = False
        self.timed_out = False
        self.aborts = False
        self._lock = threading.Lock()
        self._handles: set[socket.socket] = set()
        self._calls: list[Callable[[bool], None]] = []

    def cancel(self, *, timed_out: bool = False, aborts: bool = False) -> None:
        """Shut every connection down, from any thread, more than once if need be; later ones come to nothing.

        `aborts` has the server get an RST. A FIN would stand behind what it does not read, and would not be noticed by
        one that waits for room to send.
        """
        with self._lock:
            if not self.is_cancelled:
                self.timed_out = timed_out
                self.aborts = self.aborts or aborts
            self.is_cancelled = True
            handles, calls = self._handles, self._calls
            self._handles, self._calls = set(), []
        for handle in handles:
            _shut(handle, aborts=self.aborts)
        for call in calls:
            call(self.timed_out)

    def check(self) -> None:
        """Raise OSError once it was cancelled."""
        if self.is_cancelled:
            raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))

    def watch(self, connection: socket.socket) -> socket.socket:
        """Shut `connection` down when it is cancelled; return what `forget` takes. Raises OSError once it was."""
        handle = connection.dup()
        with self._lock:
            if not self.is_cancelled:
                self._handles.add(handle)
                return handle
        _shut(handle, aborts=self.aborts)
        raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))

    def forget(self, handle: socket.socket) -> None:
        """Watch a connection no longer."""
        with self._lock:
            self._handles.discard(handle)
        handle.close()

    def adopt(self, other: "Cancellation") -> None:
        """Take over the connections that `other` watches. Raises OSError once it was cancelled."""
        handles = other.release()
        with self._lock:
            if not self.is_cancelled:
                self._handles |= handles
                return
        for handle in handles:
            _shut(handle, aborts=self.aborts)
        self.check()

    def release(self) -> set[socket.socket]:
        """Watch nothing any longer; return the descriptors by which it was watched."""
        with self._lock:
            handles, self._handles = self._handles, set()
        return handles

    def on_cancel(self, call: Callable[[bool], None]) -> None:
        """Have `call` called when it is cancelled, or at once where it was; it hears whether a clock did it."""
        with self._lock:
            if not self.is_cancelled:
                self._calls.append(call)
                return
        call(self.timed_out)


class Address(Frozen):
    """One of the addresses of a host and a port, as the socket module has it."""

    family: int
    kind: int
    protocol: int
    place: "Any"

    @property
    def host(self) -> str:
        """The address without its port."""
        return str(self.place[0])


class Reached(Frozen):
    """A TCP connection, its address, and why those that were tried before took none."""

    connection: socket.socket
    address: Address
    others: "tuple[tuple[Address, OSError], ...]" = ()


# Which addresses have answered in this process, and which have not. Only the order of the tries hangs on it.
_ANSWERED: dict[Address, bool] = {}


def resolve(host: str, port: int | None, cancellation: Cancellation) -> list[Address]:
    """Return the addresses of a host, first those that have answered before, last those that have not.

    Raises socket.gaierror, UnicodeError for what cannot be a name, or OSError once it was cancelled.
    """
    # As bytes, which getaddrinfo takes as well, a name needs no codec: loading the one for IDNA takes 5 ms.
    name = host.encode("ascii") if host.isascii() else host
    cancellation.is_deaf = True
    try:
        cancellation.check()
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    finally:
        cancellation.is_deaf = False
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
) -> Reached:
    """Return a connection to the first address that takes one, until `end_s` on the monotonic clock.

    Each address but the last gets half of the time that is left, so that a dead one leaves enough for the next.
    `options` are set on the socket. Raises the OSError of the last address, a TimeoutError where it did not answer.
    """
    others: list[tuple[Address, OSError]] = []
    for number, address in enumerate(addresses, 1):
        left_s = end_s - time.monotonic()
        trace(f"connecting to {address.host} port {address.place[1]}")
        try:
            connection = _opened(address, left_s if number == len(addresses) else left_s / 2, cancellation, options)
        except OSError as exc:
            note(address, cancellation, answered=False)
            cancellation.check()
            others.append((address, exc))
            if number < len(addresses):
                trace(f"no connection to {address.host}: {exc.strerror or exc}")
        else:
            note(address, cancellation, answered=True)
            return Reached(connection=connection, address=address, others=tuple(others))
    raise others[-1][1] if others else OSError("no address")


def note(address: Address, cancellation: Cancellation, *, answered: bool) -> None:
    """Keep in mind whether an address answers; where the caller has ended it, nothing is known."""
    if not cancellation.is_cancelled or cancellation.timed_out:
        _ANSWERED[address] = answered


def limit(connection: socket.socket, limit_s: float) -> None:
    """Have each wait of `connection` end after so many seconds; infinite ones are no limit."""
    connection.settimeout(None if limit_s == math.inf else max(limit_s, _SHORTEST_S))


def _opened(
    address: Address, limit_s: float, cancellation: Cancellation, options: Sequence[tuple[int, int, int | bytes]]
) -> socket.socket:
    plain = socket.socket(address.family, address.kind, address.protocol)
    handle = None
    try:
        for option in options:
            plain.setsockopt(*option)
        limit(plain, limit_s)
        handle = cancellation.watch(plain)
        plain.connect(address.place)
        cancellation.check()  # a socket that is shut down while it connects may look as if it were connected
    except BaseException:
        if handle:
            cancellation.forget(handle)
        plain.close()
        raise
    return plain


def _shut(handle: socket.socket, *, aborts: bool) -> None:
    with contextlib.suppress(OSError):
        if aborts:  # when the last of its descriptors is closed, which whoever is blocked in it does next
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handle.shutdown(socket.SHUT_RDWR)
    handle.close()
