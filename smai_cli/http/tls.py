"""TLS contexts as strict as those of urllib3, for one connection or for all connections of a run."""

import functools
import os
import ssl
import sys
import threading
from typing import Any


def ca_bundle(ca_file: str | None) -> str:
    """Return the file or folder with the trusted certificates: `ca_file`, or certifi's, as requests does."""
    if ca_file is None:
        import certifi

        return certifi.where()
    return ca_file


def tls_context(ca_file: str | None, context: ssl.SSLContext | None = None) -> ssl.SSLContext:
    """Return a context as strict as that of urllib3. `ca_file` (None: certifi's) may be a folder.

    `context` is set up and returned if given. Raises OSError for certificates that cannot be read.
    """
    ca_file = ca_bundle(ca_file)
    context = context or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
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


class _SharedContext(ssl.SSLContext):
    """A context that threads share. urllib3 sets its protocols for each connection, while other threads use it."""

    _has_protocols = False

    def set_alpn_protocols(self, alpn_protocols: Any) -> None:
        if not self._has_protocols:
            super().set_alpn_protocols(alpn_protocols)
            self._has_protocols = True


_SHARED_LOCK = threading.Lock()


def shared_tls(ca_file: str | None) -> ssl.SSLContext | None:
    """Return the shared context of a run; None if the certificates cannot be read, which urllib3 then reports.

    Loading the certificates takes some ten times as long as a handshake.
    """
    with _SHARED_LOCK:
        return _make_tls_context(ca_file)


@functools.lru_cache
def _make_tls_context(ca_file: str | None) -> ssl.SSLContext | None:
    try:
        context = tls_context(ca_file, _SharedContext(ssl.PROTOCOL_TLS_CLIENT))
    except OSError:
        return None
    if keys := os.path.expandvars(os.environ.get("SSLKEYLOGFILE", "")):  # as urllib3 does
        context.keylog_filename = keys
    return context
