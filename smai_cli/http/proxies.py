"""The proxy between smai and a server, as the environment names it."""

from urllib.parse import urlsplit

from smai_cli.http import lean  # noqa: F401  # before anything imports requests

# isort: split

import requests

from smai_cli.config.endpoint import Endpoint

# Each may also be in capital letters.
VARIABLES = ("http_proxy", "https_proxy", "all_proxy")
_PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}


def proxy_for(endpoint: Endpoint) -> str | None:
    """Return the URL of the proxy for `endpoint`, as requests finds it in the environment; None without one."""
    if endpoint.is_loopback:
        return None
    proxies = requests.utils.get_environ_proxies(endpoint.base_url)
    return requests.utils.select_proxy(endpoint.base_url, proxies)


def parse_proxy(url: str) -> tuple[str, str, int] | None:
    """Return scheme, host and port in the URL of a proxy; None if it cannot be used."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")  # as requests takes it
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None
    return (parts.scheme, parts.hostname, port) if parts.hostname and port else None
