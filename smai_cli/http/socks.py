"""Connections through a SOCKS proxy, by the package PySocks; loaded only if there is one."""

import functools
import socket
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.contrib.socks import SOCKSConnection, SOCKSHTTPSConnection
from urllib3.exceptions import HTTPError, ProxyError

from smai_cli.http.connections import Connection, TlsConnection
from smai_cli.http.progress import CurrentExchange


class _ViaProxy(Connection):
    """A connection that the proxy makes, and that can be cancelled like any other."""

    def _new_conn(self) -> socket.socket:
        self.progress.is_at_proxy = True
        try:
            made: socket.socket = super(Connection, self)._new_conn()
        except HTTPError as exc:
            raise ProxyError("no way through", exc) from exc
        self.progress.is_at_proxy = False
        self.progress.cancellation.watch(made)
        return made


class _SocksConnection(_ViaProxy, SOCKSConnection):
    pass


class _SocksTlsConnection(_ViaProxy, TlsConnection, SOCKSHTTPSConnection):
    pass


class _SocksPool(HTTPConnectionPool):
    ConnectionCls = _SocksConnection


class _SocksTlsPool(HTTPSConnectionPool):
    ConnectionCls = _SocksTlsConnection


def pools(current: CurrentExchange) -> dict[str, Any]:
    """Return a factory of connection pools for each scheme, all through the proxy, for the `current` exchange."""
    return {
        "http": functools.partial(_SocksPool, current=current),
        "https": functools.partial(_SocksTlsPool, current=current, preconnect=None),
    }
