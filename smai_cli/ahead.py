"""The TLS connection to the server, made on a thread while the imports of the HTTP libraries run.

Name look-up, TCP and TLS cost round trips, the imports cost CPU; side by side they cost the larger of the two.
The connection is the same that urllib3 would make, and no more lenient. Whatever goes wrong here is left to the
usual way, which then reports it. To take this module out, take out its two users: `approach` in target.py,
which starts it, and `connect` in connections.py; checks.py takes only `tls_context` from here.
"""

import contextlib
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from smai_cli.tell import Tell, silent

if TYPE_CHECKING:
    import ssl

# A server may drop a connection on which nothing is asked; one that is older than this is not used.
_FRESH_S = 5.0
_GONE = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR
_IN_THE_WAY = ("https_proxy", "all_proxy", "sslkeylogfile")


class Ahead:
    """A connection to `host` and `port` in the making; `ca_file` vouches for its certificate (None: certifi's).

    `tell` hears of each step, from the thread.
    """

    def __init__(
        self, host: str, port: int, ca_file: str | None, connect_timeout_s: float, tell: Tell = silent
    ) -> None:
        self._address = (host, port)
        self._tell = tell
        self._ca_file = ca_file
        self._timeout_s = connect_timeout_s or None
        self._socket: ssl.SSLSocket | None = None
        self._refusal: ssl.SSLCertVerificationError | None = None
        self._made_s = 0.0
        self._thread = threading.Thread(target=self._connect, daemon=True)
        self._thread.start()

    def take(self, host: str, port: int | None) -> "ssl.SSLSocket | None":
        """Wait for the connection and return it, once; None where there is none that can be used.

        Raises ssl.SSLCertVerificationError where the certificate was refused: it would be again.
        """
        if (host, port) != self._address:
            return None
        self._thread.join()
        if self._refusal:
            raise self._refusal
        made, self._socket = self._socket, None
        if made and (time.monotonic() - self._made_s > _FRESH_S or _is_gone(made)):
            made.close()
            return None
        return made

    def _connect(self) -> None:
        context = _Later(lambda: tls_context(self._ca_file))  # parsing a large bundle takes as long as a round trip
        try:
            with contextlib.ExitStack() as on_failure:
                plain = on_failure.enter_context(self._connected())
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._shake_hands(plain, context.result())
        except (OSError, ValueError) as exc:
            self._tell(f"no connection ahead: {getattr(exc, 'strerror', None) or exc}")

    def _connected(self) -> socket.socket:
        """Return a connection to the first address that takes one. Raises OSError where none does."""
        host, port = self._address
        self._tell(f"resolving {host}")
        # As bytes, which getaddrinfo takes as well, the name needs no codec: loading the one for IDNA takes 5 ms.
        found = socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)
        self._tell(f"resolved: {', '.join(str(address[0]) for *_, address in found)}")
        failure = OSError("no address")
        for family, kind, protocol, _, address in found:
            self._tell(f"connecting to {address[0]} port {port}")
            try:
                plain = self._opened(socket.socket(family, kind, protocol), address)
            except OSError as exc:
                failure = exc
            else:
                self._tell("connected")
                return plain
        raise failure

    def _opened(self, plain: socket.socket, address: Any) -> socket.socket:
        try:
            plain.settimeout(self._timeout_s)
            plain.connect(address)
        except OSError:
            plain.close()
            raise
        return plain

    def _shake_hands(self, plain: socket.socket, context: "ssl.SSLContext") -> None:
        import ssl  # noqa: PLC0415  # it was loaded while TCP connected

        try:
            self._socket = context.wrap_socket(plain, server_hostname=self._address[0].rstrip(".").encode("ascii"))
            self._made_s = time.monotonic()
            self._tell(f"TLS is up: {self._socket.version()}")
        except ssl.SSLCertVerificationError as exc:
            self._refusal = exc


class _Later:
    """The context that `make` returns, made on a thread."""

    def __init__(self, make: "Callable[[], ssl.SSLContext]") -> None:
        self._make = make
        self._made: ssl.SSLContext | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def result(self) -> "ssl.SSLContext":
        """Wait for it. Raises OSError if it could not be made."""
        self._thread.join()
        if self._made is None:
            raise OSError("no context")
        return self._made

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # a bundle that cannot be read: urllib3 will say so
            self._made = self._make()


def connect_ahead(
    base_url: str, ca_file: str | None, connect_timeout_s: float, environ: Mapping[str, str], tell: Tell = silent
) -> Ahead | None:
    """Begin to connect to the server of an https base URL; None for http, and where the environment interferes.

    A proxy would make the connection another one, SSLKEYLOGFILE asks urllib3 to write its keys down.
    """
    parts = urlsplit(base_url)
    if parts.scheme != "https" or not parts.hostname or any(name.lower() in _IN_THE_WAY for name in environ):
        return None
    return Ahead(parts.hostname, parts.port or 443, ca_file, connect_timeout_s, tell)


def tls_context(ca_file: str | None) -> "ssl.SSLContext":
    """Return a context as strict as the one of urllib3; `ca_file` may be a folder. Raises OSError for a bad one."""
    import ssl  # noqa: PLC0415  # on this thread, while TCP connects

    if ca_file is None:
        import certifi  # noqa: PLC0415  # as requests does

        ca_file = certifi.where()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    context.post_handshake_auth = True
    context.hostname_checks_common_name = False
    if sys.version_info >= (3, 13):
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["http/1.1"])
    if os.path.isdir(ca_file):  # as requests takes it
        context.load_verify_locations(capath=ca_file)
    else:
        context.load_verify_locations(ca_file)
    return context


def _is_gone(made: socket.socket) -> bool:
    """Return whether the server has closed it. That it can be read says nothing: TLS 1.3 sends session tickets."""
    poller = select.poll()
    poller.register(made, _GONE)
    return bool(poller.poll(0))
