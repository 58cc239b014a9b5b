"""The requests sessions of smai: with its own connections, its key, and without redirects."""

import functools
import socket
from typing import TYPE_CHECKING, Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.connection import HTTPConnection

from smai_cli.config.endpoint import Endpoint
from smai_cli.http.connections import Connection, TlsConnection
from smai_cli.http.preconnect import Preconnect
from smai_cli.http.progress import CurrentExchange, Progress
from smai_cli.http.proxies import parse_proxy
from smai_cli.http.tls import shared_tls

if TYPE_CHECKING:
    import ssl

# With these, a NAT that drops the connection while the model thinks is noticed after 30 s plus the system's probes.
_SOCKET_OPTIONS = [
    *HTTPConnection.default_socket_options,
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *([(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)] if hasattr(socket, "TCP_KEEPIDLE") else []),
]


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = Connection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = TlsConnection


class _Adapter(HTTPAdapter):
    """The adapter of requests, with our connections. Its retries are off: they send twice and hide answers.

    It looks up its pool once, and shares its TLS context with all other workers.
    """

    def __init__(self, preconnect: Preconnect | None, current: CurrentExchange) -> None:
        self._current = current
        self._pool: Any = None
        self._tls: ssl.SSLContext | None = None
        self._pools: Any = {
            "http": functools.partial(_Pool, current=current),
            "https": functools.partial(_TlsPool, current=current, preconnect=preconnect),
        }
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools for the servers."""
        super().init_poolmanager(*args, socket_options=_SOCKET_OPTIONS, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Return the manager of the pools for servers that are reached through `proxy`."""
        manager = super().proxy_manager_for(proxy, socket_options=_SOCKET_OPTIONS, **kwargs)
        if proxy.lower().startswith("socks"):
            from smai_cli.http import socks  # only with such a proxy

            manager.pool_classes_by_scheme = socks.pools(self._current)
        else:
            manager.pool_classes_by_scheme = self._pools
        return manager

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        """Return the pool for a request."""
        if self._pool is None:
            proxy = requests.utils.select_proxy(request.url or "", proxies) or ""
            # urllib3 makes the context for TLS to a proxy.
            if (request.url or "").startswith("https:") and not proxy.lower().startswith("https:"):
                self._tls = shared_tls(None if verify is True else verify)
            self._pool = super().get_connection_with_tls_context(request, verify, proxies, cert)
        return self._pool

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> Any:
        host, tls = super().build_connection_pool_key_attributes(request, True if self._tls else verify, cert)
        return host, ({**tls, "ssl_context": self._tls} if self._tls else tls)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        if not self._tls:
            super().cert_verify(conn, url, verify, cert)  # type: ignore[no-untyped-call]


class Credentials(AuthBase):
    """The key of the endpoint, if any, and its headers. They go to the server only, not to a proxy in a CONNECT.

    As the `auth` of a request it also prevents that ~/.netrc or the user in a URL replaces the key.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Put the key into the request, in place of any other, and the headers, in UTF-8 as curl does."""
        request.headers.pop("Authorization", None)
        for header in self._endpoint.headers:
            # http.client sends bytes unchanged, but a str in Latin-1.
            request.headers[header.name] = header.value.reveal().encode()  # type: ignore[assignment]
        if key := self._endpoint.key:
            name = self._endpoint.key_header
            request.headers[name or "Authorization"] = key.reveal() if name else f"Bearer {key.reveal()}"
        return request


class Session(requests.Session):
    """A session for requests to one server that differ only in their bodies; everything else is prepared once.

    It follows no redirect and keeps no cookies.
    """

    def __init__(self, server: tuple[str, str | None], progress: Progress, preconnect: Preconnect | None) -> None:
        super().__init__()
        self.server = server
        self.current = CurrentExchange(progress)
        self.is_used_again = False
        self._adapter = _Adapter(preconnect, self.current)
        self._settings: dict[str, Any] | None = None
        self._prepared: dict[tuple[Any, Any], requests.PreparedRequest] = {}
        for prefix in ("http://", "https://"):
            self.mount(prefix, self._adapter)

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """Return the request ready to be sent."""
        what = request.method, request.url
        if what not in self._prepared:
            bare = requests.Request(request.method, request.url, headers=request.headers, auth=lambda ready: ready)
            self._prepared[what] = super().prepare_request(bare)
        ready = self._prepared[what].copy()
        if request.data:
            ready.body = request.data
            ready.prepare_content_length(request.data)
        ready.prepare_auth(request.auth)
        return ready

    def merge_environment_settings(self, url: Any, *args: Any) -> Any:
        """Return the settings with the proxies in the environment, computed once. Raises ConnectError."""
        if self._settings is None:
            self._settings = dict(super().merge_environment_settings(url, *args))
            if proxy := requests.utils.select_proxy(url, self._settings["proxies"]):
                parse_proxy(proxy, url)
        return self._settings

    def send(self, request: requests.PreparedRequest, **settings: Any) -> requests.Response:
        """Send it, without redirects, hooks and cookies."""
        settings.pop("allow_redirects", None)
        return self._adapter.send(request, **settings)
