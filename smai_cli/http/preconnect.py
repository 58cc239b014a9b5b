"""The TLS connection to the server, made on a thread while the HTTP libraries are imported.

Name look-up, TCP and TLS take round trips, the imports take CPU time; in parallel they take only the longer of the two.
The connection is as strict as that of urllib3. If it fails, the regular connection is tried, and reports the failure.
The top imports only what every connection needs to begin. importlib is imported there for the thread: an import of a
submodule does not wait for another thread that is importing the package (python/cpython issue 83065), and certifi
imports a submodule of importlib, which the main thread is about to import.
"""

import contextlib
import importlib  # noqa: F401  # before a second thread starts
import math
import select
import socket
import threading
import time
from collections.abc import Mapping

from smai_cli.common.trace import Trace, silent
from smai_cli.http.tcp import Cancellation, TcpConnection, connect, limit_waits, record_answer, resolve

TYPE_CHECKING = False  # what typing.TYPE_CHECKING is, without the time to import typing
if TYPE_CHECKING:
    import ssl

# Servers drop connections without a request; one that is older than this is not used.
_FRESH_S = 5.0
_GONE = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR
_PREVENTING_VARIABLES = ("https_proxy", "all_proxy", "sslkeylogfile")


class Preconnect:
    """A connection that is being made to `host` and `port`; `ca_file` has the trusted certificates (None: certifi's).

    The thread reports each step to `trace`.
    """

    def __init__(
        self, host: str, port: int, ca_file: str | None, connect_timeout_s: float, trace: Trace = silent
    ) -> None:
        self._address = (host, port)
        self._connect_timeout_s = connect_timeout_s
        self._trace = trace
        self._ca_file = ca_file
        self._end_s = time.monotonic() + (connect_timeout_s or math.inf)
        self.cancellation = Cancellation()
        self._context: ssl.SSLContext | None = None
        self._socket: ssl.SSLSocket | None = None
        self._refusal: ssl.SSLCertVerificationError | None = None
        self._made_s = 0.0
        self._lock = threading.Lock()
        self._over = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def is_for(self, base_url: str, ca_file: str | None, connect_timeout_s: float) -> bool:
        """Return whether it is the connection that `preconnect` would make with these arguments."""
        made_for = (self._address, self._ca_file, self._connect_timeout_s)
        return (_server_of(base_url), ca_file, connect_timeout_s) == made_for

    def take(self, host: str, port: int | None) -> "ssl.SSLSocket | None":
        """Wait for the connection and return it, once; None if there is none that can be used.

        The caller has to adopt `cancellation`. Raises ssl.SSLCertVerificationError if the certificate was refused: it
        would be refused again.
        """
        if (host, port) != self._address:
            return None
        self._over.wait()
        if self._refusal:
            raise self._refusal
        made = self._take_socket()
        if made and (time.monotonic() - self._made_s > _FRESH_S or _is_gone(made)):
            made.close()
            self.close()
            return None
        return made

    def close(self, timed_out: bool = False) -> None:
        """Close the connection, and end a `take` that waits for it; from any thread.

        `timed_out` says that a clock did it, not the caller.
        """
        self.cancellation.cancel(timed_out=timed_out)
        self._over.set()
        if made := self._take_socket():
            made.close()

    def _take_socket(self) -> "ssl.SSLSocket | None":
        with self._lock:
            made, self._socket = self._socket, None
        return made

    def _run(self) -> None:
        try:  # whatever happens, `take` must not wait forever
            making = threading.Thread(target=self._make_context, daemon=True)
            making.start()  # parsing a large bundle takes as long as a round trip
            with contextlib.ExitStack() as on_failure:
                reached = self._connect()
                on_failure.enter_context(reached.connection)
                making.join()
                self._shake_hands(reached)
        except (OSError, ValueError, RuntimeError, MemoryError) as exc:  # RuntimeError: no thread
            if not self.cancellation.is_cancelled:
                self._trace(f"no connection ahead: {getattr(exc, 'strerror', None) or exc}")
            self.cancellation.cancel()
        finally:
            self._over.set()

    def _make_context(self) -> None:
        from smai_cli.http.tls import tls_context  # on this thread, while TCP connects

        with contextlib.suppress(OSError):  # a bundle that cannot be read: urllib3 will say so
            self._context = tls_context(self._ca_file)

    def _connect(self) -> TcpConnection:
        """Return a connection to the first address that accepts one. Raises OSError if none does."""
        host, port = self._address
        self._trace(f"resolving {host}")
        found = resolve(host, port, self.cancellation)
        self._trace(f"resolved: {', '.join(address.host for address in found)}")
        nagle_is_off = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reached = connect(found, self._end_s, self.cancellation, [nagle_is_off], self._trace)
        self._trace("connected")
        return reached

    def _shake_hands(self, reached: TcpConnection) -> None:
        import ssl  # it was loaded while TCP connected

        if self._context is None:
            raise OSError("no context")
        plain = reached.connection
        # This limits each read of the handshake; the whole is limited by the clock of the caller of `take`.
        limit_waits(plain, self._end_s - time.monotonic())
        try:
            made = self._context.wrap_socket(plain, server_hostname=self._address[0].rstrip(".").encode("ascii"))
        except ssl.SSLCertVerificationError as exc:
            self._refusal = exc
            self.cancellation.cancel()
            return
        except OSError:
            record_answer(reached.address, self.cancellation, answered=False)
            raise
        with self._lock:
            self._socket, self._made_s = made, time.monotonic()
        if self.cancellation.is_cancelled:
            self.close()
            return
        self._trace(f"TLS is up: {made.version()}")


def preconnect(
    base_url: str, ca_file: str | None, connect_timeout_s: float, environ: Mapping[str, str], trace: Trace = silent
) -> Preconnect | None:
    """Begin to connect to the server of an https base URL; None for http, or if the environment prevents it."""
    server = _server_of(base_url)
    if server is None or prevents_preconnect(environ):
        return None
    return Preconnect(*server, ca_file, connect_timeout_s, trace)


def prevents_preconnect(environ: Mapping[str, str]) -> bool:
    """Return whether the environment prevents a connection in advance.

    With a proxy the connection would be a different one; SSLKEYLOGFILE makes urllib3 log its keys.
    """
    return any(name.lower() in _PREVENTING_VARIABLES for name in environ)


def _server_of(base_url: str) -> tuple[str, int] | None:
    """Return the host and the port of an https base URL; None for http."""
    from urllib.parse import urlsplit  # not needed for an early connection

    parts = urlsplit(base_url)
    return (parts.hostname, parts.port or 443) if parts.scheme == "https" and parts.hostname else None


def _is_gone(made: socket.socket) -> bool:
    """Return whether the server has closed it. Readable does not mean closed: TLS 1.3 sends session tickets."""
    poller = select.poll()
    poller.register(made, _GONE)
    return bool(poller.poll(0))
