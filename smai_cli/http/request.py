"""What every request says, whatever it asks: where it goes, its headers, and the settings of requests."""

from typing import Any

import requests

from smai_cli import __version__
from smai_cli.common.clocks import Clocks
from smai_cli.common.text import one_line
from smai_cli.config.endpoint import Endpoint
from smai_cli.http.session import Credentials

HEADERS = {
    "User-Agent": f"smai/{__version__}",
    # A proxy that compresses holds deltas back until a block is full.
    "Accept-Encoding": "identity",
}
POST_HEADERS = {"Content-Type": "application/json", "Accept": "text/event-stream, application/json"}
GET_HEADERS = {"Accept": "application/json"}
# On this machine no proxy is in the way, and a key in plain http must not go to one.
_NO_PROXIES: Any = {"http": None, "https": None, "all": None}


def request_settings(endpoint: Endpoint, path: str, clocks: Clocks, ca_file: str | None) -> dict[str, Any]:
    """Return what a request to `path` says to requests, whatever it asks."""
    return {
        "url": endpoint.url(path),
        "auth": Credentials(endpoint),
        "stream": True,
        "allow_redirects": False,
        "timeout": (clocks.connect_timeout_s or None, None),
        "verify": ca_file or True,
        "proxies": _NO_PROXIES if endpoint.is_loopback else None,
    }


def shown_url_of(endpoint: Endpoint, path: str) -> str:
    """Return the URL without its query, in which some put a key."""
    return endpoint.url(path).split("?", 1)[0]


def shown_head(response: requests.Response) -> str:
    """Return the status of an answer, and the headers by which a server or a proxy in between is found."""
    parts = [status_line(response)]
    shown = ("content-type", "content-encoding", "server", "via", "retry-after", "x-request-id", "request-id")
    parts += [f"{name} {response.headers[name]}" for name in shown if name in response.headers]
    return one_line(", ".join(parts))


def status_line(response: requests.Response) -> str:
    """Return the status of an answer and its words, as in `407 Proxy Authentication Required`."""
    return f"{response.status_code} {one_line(response.reason or '', 60)}".rstrip()
