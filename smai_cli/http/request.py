"""What all requests have in common: the URL, the headers, and the settings for the library requests."""

from typing import Any

from smai_cli.http import lean  # noqa: F401  # before anything imports requests

# isort: split

import requests

from smai_cli import __version__
from smai_cli.common.clocks import Clocks
from smai_cli.common.text import one_line
from smai_cli.config.endpoint import Endpoint
from smai_cli.errors import UsageError
from smai_cli.http.failures import FAILURES, iter_causes, reason_of
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


def request_settings(
    endpoint: Endpoint, path: str, body: bytes | None, clocks: Clocks, ca_file: str | None
) -> dict[str, Any]:
    """Return the arguments of requests.post, except the body, or of requests.get if that is None."""
    endpoint = endpoint.for_list() if body is None else endpoint
    return {
        "url": endpoint.url(path),
        "headers": HEADERS | (GET_HEADERS if body is None else POST_HEADERS),
        "auth": Credentials(endpoint),
        "stream": True,
        "allow_redirects": False,
        "timeout": (clocks.connect_timeout_s or None, None),
        "verify": ca_file or True,
        "proxies": _NO_PROXIES if endpoint.is_loopback else None,
    }


def prepare_post(endpoint: Endpoint, path: str, body: bytes) -> tuple[str, dict[str, str]]:
    """Return the URL and the headers with which an Exchange would send `body`; nothing is sent.

    The headers are without the key and without those of the endpoint. Raises UsageError for an unusable base URL.
    """
    request = requests.Request("POST", endpoint.url(path), headers=HEADERS | POST_HEADERS, data=body)
    request.auth = Credentials(Endpoint(endpoint.base_url))
    try:
        ready = requests.Session().prepare_request(request)
    except FAILURES as exc:  # a host that is not valid in IDNA (RFC 5891)
        reason = reason_of(list(iter_causes(exc)))
        raise UsageError(f"the base URL cannot be used: {reason}", "check --base-url and SMAI_BASE_URL") from exc
    return ready.url or "", dict(ready.headers)


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
