"""The TLS connection to the server, made on a thread while the imports of the HTTP libraries run.

Name look-up, TCP and TLS cost round trips, the imports cost CPU; side by side they cost the larger of the two.
The connection is the same that urllib3 would make, and no more lenient. Whatever goes wrong here is left to the
usual way, which then reports it. To take this module out, take out its users: `_begin_early` in main.py and `approach`
in cli/server.py, which start it, and `connect` in connections.py; checks.py takes only `tls_context` from here.
The imports at the top are those without which no connection can begin: what comes later is imported later. One is for
the thread beside the main one: who imports a part of a package does not wait for another thread that has begun with the
package (python/cpython issue 83065), and certifi imports a part of importlib, which the main thread is about to import.
"""

import contextlib
import importlib  # noqa: F401  # whole before there is a second thread
import math
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping

from smai_cli.common.trace import Trace, silent
from smai_cli.http.tcp import Cancellation, Reached, connect, limit, note, resolve

TYPE_CHECKING = False  # what typing.TYPE_CHECKING is, without the time to import typing
if TYPE_CHECKING:
    import ssl

# A server may drop a connection on which nothing is asked; one that is older than this is not used.
_FRESH_S = 5.0
_GONE = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR
_IN_THE_WAY = ("https_proxy", "all_proxy", "sslkeylogfile")


class Preconnect:
    """A connection to `host` and `port` in the making; `ca_file` vouches for its certificate (None: certifi's).

    `trace` hears of each step, from the thread.
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
        self._socket: ssl.SSLSocket | None = None
        self._refusal: ssl.SSLCertVerificationError | None = None
        self._made_s = 0.0
        self._lock = threading.Lock()
        self._over = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def is_for(self, base_url: str, ca_file: str | None, connect_timeout_s: float) -> bool:
        """Return whether it is the connection that `preconnect` would make for these."""
        made_for = (self._address, self._ca_file, self._connect_timeout_s)
        return (_server_of(base_url), ca_file, connect_timeout_s) == made_for

    def take(self, host: str, port: int | None) -> "ssl.SSLSocket | None":
        """Wait for the connection and return it, once; None where there is none that can be used.

        It is to be adopted from `cancellation`. Raises ssl.SSLCertVerificationError where the certificate was refused:
        it would be again.
        """
        if (host, port) != self._address:
            return None
        self._over.wait()
        if self._refusal:
            raise self._refusal
        made = self._taken()
        if made and (time.monotonic() - self._made_s > _FRESH_S or _is_gone(made)):
            made.close()
            self.close()
            return None
        return made

    def close(self, timed_out: bool = False) -> None:
        """Let go of the connection, and of the wait for it, from any thread.

        `timed_out` says that a clock did it, and not the caller.
        """
        self.cancellation.cancel(timed_out=timed_out)
        self._over.set()
        if made := self._taken():
            made.close()

    def _taken(self) -> "ssl.SSLSocket | None":
        with self._lock:
            made, self._socket = self._socket, None
        return made

    def _run(self) -> None:
        try:  # whatever happens, `take` must not wait for ever
            context = _Later(self._make_context)  # parsing a large bundle takes as long as a round trip
            with contextlib.ExitStack() as on_failure:
                reached = self._connected()
                on_failure.enter_context(reached.connection)
                self._shake_hands(reached, context.result())
        except (OSError, ValueError, RuntimeError, MemoryError) as exc:  # RuntimeError: no thread
            if not self.cancellation.is_cancelled:
                self._trace(f"no connection ahead: {getattr(exc, 'strerror', None) or exc}")
            self.cancellation.cancel()
        finally:
            self._over.set()

    def _make_context(self) -> "ssl.SSLContext":
        from smai_cli.http.tls import tls_context  # on this thread, while TCP connects

        return tls_context(self._ca_file)

    def _connected(self) -> Reached:
        """Return a connection to the first address that takes one. Raises OSError where none does."""
        host, port = self._address
        self._trace(f"resolving {host}")
        found = resolve(host, port, self.cancellation)
        self._trace(f"resolved: {', '.join(address.host for address in found)}")
        nagle_is_off = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reached = connect(found, self._end_s, self.cancellation, [nagle_is_off], self._trace)
        self._trace("connected")
        return reached

    def _shake_hands(self, reached: Reached, context: "ssl.SSLContext") -> None:
        import ssl  # it was loaded while TCP connected

        plain = reached.connection
        # Each read of the handshake has this long. The clock of whoever takes it runs beside it.
        limit(plain, self._end_s - time.monotonic())
        try:
            made = context.wrap_socket(plain, server_hostname=self._address[0].rstrip(".").encode("ascii"))
        except ssl.SSLCertVerificationError as exc:
            self._refusal = exc
            self.cancellation.cancel()
            return
        except OSError:
            note(reached.address, self.cancellation, answered=False)
            raise
        with self._lock:
            self._socket, self._made_s = made, time.monotonic()
        if self.cancellation.is_cancelled:
            self.close()
            return
        self._trace(f"TLS is up: {made.version()}")


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


def preconnect(
    base_url: str, ca_file: str | None, connect_timeout_s: float, environ: Mapping[str, str], trace: Trace = silent
) -> Preconnect | None:
    """Begin to connect to the server of an https base URL; None for http, and where the environment interferes."""
    server = _server_of(base_url)
    if server is None or is_in_the_way(environ):
        return None
    return Preconnect(*server, ca_file, connect_timeout_s, trace)


def is_in_the_way(environ: Mapping[str, str]) -> bool:
    """Return whether the environment interferes with a connection made ahead.

    A proxy would make it another one, SSLKEYLOGFILE asks urllib3 to write its keys down.
    """
    return any(name.lower() in _IN_THE_WAY for name in environ)


def _server_of(base_url: str) -> tuple[str, int] | None:
    """Return the host and the port of an https base URL; None for http."""
    from urllib.parse import urlsplit  # an early connection begins without it

    parts = urlsplit(base_url)
    return (parts.hostname, parts.port or 443) if parts.scheme == "https" and parts.hostname else None


def _is_gone(made: socket.socket) -> bool:
    """Return whether the server has closed it. That it can be read says nothing: TLS 1.3 sends session tickets."""
    poller = select.poll()
    poller.register(made, _GONE)
    return bool(poller.poll(0))
