"""The proxy between smai and a server, as the environment names it."""

import os
from typing import NamedTuple
from urllib.parse import urlsplit

from smai_cli.http import lean  # noqa: F401  # before anything imports requests

# isort: split

import requests

from smai_cli.config.endpoint import Endpoint
from smai_cli.errors import ConnectError, Retry, install_hint

# Each may also be in capital letters.
VARIABLES = ("http_proxy", "https_proxy", "all_proxy")
_PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}


class Proxy(NamedTuple):
    """A proxy, and the variable of the environment that names it."""

    scheme: str
    host: str
    port: int
    variable: str


def proxy_for(endpoint: Endpoint) -> Proxy | None:
    """Return the proxy for `endpoint`, as requests finds it in the environment; None without one.

    Raises ConnectError for one that cannot be used.
    """
    if endpoint.is_loopback:
        return None
    proxies = requests.utils.get_environ_proxies(endpoint.base_url)
    found = requests.utils.select_proxy(endpoint.base_url, proxies)
    return parse_proxy(found, endpoint.base_url) if found else None


def parse_proxy(proxy: str, url: str) -> Proxy:
    """Return the proxy with this URL, for requests to `url`. Raises ConnectError for one that cannot be used."""
    names = (f"{urlsplit(url).scheme}_proxy", "all_proxy")
    variable = next((it for name in names for it in (name, name.upper()) if os.environ.get(it)), "HTTPS_PROXY")
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")  # as requests takes it
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        port = None
    if not port or not parts.hostname or parts.scheme not in _PORTS:  # without the URL, which may contain a password
        what = "the proxy is not a URL that smai can use"
        raise ConnectError(what, f"check {variable}", retry=Retry.NEVER, retryable=False)
    if parts.scheme.startswith("socks"):
        from importlib.util import find_spec  # only for a SOCKS proxy

        if find_spec("socks") is None:
            raise ConnectError("a SOCKS proxy needs PySocks", install_hint("PySocks"), retry=Retry.NEVER)
    return Proxy(parts.scheme, parts.hostname, port, variable)
