"""Connections through a SOCKS proxy, of which only those who have one load anything: the package PySocks speaks it."""

import functools
import socket
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.contrib.socks import SOCKSConnection, SOCKSHTTPSConnection
from urllib3.exceptions import HTTPError, ProxyError

from smai_cli.http.connections import Connection, Sending, TlsConnection


class _ViaProxy:
    """A connection that the proxy makes, and that can be ended as any other."""

    sending: Sending

    def _new_conn(self) -> socket.socket:
        self.sending.is_at_proxy = True
        try:
            made: socket.socket = super(Connection, self)._new_conn()  # type: ignore[misc]
        except HTTPError as exc:
            raise ProxyError("no way through", exc) from exc
        self.sending.is_at_proxy = False
        self.sending.cancellation.watch(made)
        return made


class _SocksConnection(_ViaProxy, Connection, SOCKSConnection):
    pass


class _SocksTlsConnection(_ViaProxy, TlsConnection, SOCKSHTTPSConnection):
    pass


class _SocksPool(HTTPConnectionPool):
    ConnectionCls = _SocksConnection


class _SocksTlsPool(HTTPSConnectionPool):
    ConnectionCls = _SocksTlsConnection


def pools(sending: Sending) -> dict[str, Any]:
    """Return what makes the pools of connections for each scheme, all through the proxy; `sending` hears of them."""
    return {
        "http": functools.partial(_SocksPool, sending=sending),
        "https": functools.partial(_SocksTlsPool, sending=sending, preconnect=None),
    }
