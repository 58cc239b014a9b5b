"""What all requests have in common: the URL, the headers, and the settings for the library requests."""

from typing import Any

import requests

from smai_cli import __version__
from smai_cli.common.clocks import Clocks
from smai_cli.common.text import one_line
from smai_cli.config.endpoint import Endpoint
from smai_cli.http.session import Credentials

HEADERS = {
    "User-Agent": f"smai/{__version__}",
    # A proxy that compresses delays deltas until a block is full.
    "Accept-Encoding": "identity",
}
POST_HEADERS = {"Content-Type": "application/json", "Accept": "text/event-stream, application/json"}
GET_HEADERS = {"Accept": "application/json"}
# A server on this machine needs no proxy, and a key over plain http must not go to one.
_NO_PROXIES: Any = {"http": None, "https": None, "all": None}


def request_settings(endpoint: Endpoint, path: str, clocks: Clocks, ca_file: str | None) -> dict[str, Any]:
    """Return the arguments of requests.post or requests.get for a request to `path`, except headers and body."""
    return {
        "url": endpoint.url(path),
        "auth": Credentials(endpoint),
        "stream": True,
        "allow_redirects": False,
        "timeout": (clocks.connect_timeout_s or None, None),
        "verify": ca_file or True,
        "proxies": _NO_PROXIES if endpoint.is_loopback else None,
    }


def describe_request(endpoint: Endpoint, path: str, body: bytes | None) -> str:
    """Return the method, the URL without its query, which may contain a key, and the size of the body."""
    url = endpoint.url(path).split("?", 1)[0]
    return f"GET {url}" if body is None else f"POST {url}, {len(body)} bytes"


def describe_head(response: requests.Response) -> str:
    """Return the status of an answer, and the headers that identify a server or a proxy, on one line."""
    parts = [status_line(response)]
    shown = ("content-type", "content-encoding", "server", "via", "retry-after", "x-request-id", "request-id")
    parts += [f"{name} {response.headers[name]}" for name in shown if name in response.headers]
    return one_line(", ".join(parts))


def status_line(response: requests.Response) -> str:
    """Return the status of an answer and its words, as in `407 Proxy Authentication Required`."""
    return f"{response.status_code} {one_line(response.reason or '', 60)}".rstrip()
