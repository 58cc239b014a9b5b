"""Send a request by GET or POST -> pieces of bytes; or show what would be sent."""

from typing import TYPE_CHECKING

from smai_cli.http import lean  # noqa: F401  # before anything imports requests

# isort: split
import requests

from smai_cli.common.clocks import Clocks
from smai_cli.common.trace import Trace, silent
from smai_cli.config.endpoint import Endpoint
from smai_cli.errors import UsageError
from smai_cli.http.exchange import Exchange
from smai_cli.http.failures import (
    FAILURES,
    iter_causes,
    reason_of,
)
from smai_cli.http.preconnect import Preconnect
from smai_cli.http.request import HEADERS, POST_HEADERS
from smai_cli.http.response_body import ResponseBody
from smai_cli.http.session import Credentials, Session

if TYPE_CHECKING:
    from smai_cli.http.keepalive import KeepAlive


def post(  # noqa: PLR0913  # mostly keyword-only
    endpoint: Endpoint,
    path: str,
    body: bytes,
    clocks: Clocks,
    *,
    ca_file: str | None = None,
    preconnect: Preconnect | None = None,
    trace: Trace = silent,
    keep_alive: "KeepAlive | None" = None,
) -> ResponseBody:
    """POST `body` (JSON) and return the ResponseBody, with an HTTP status of success.

    `ca_file` has the trusted certificates (None: those of requests), `preconnect` may have a connection to the server,
    `trace` is called at each step. `keep_alive` is that of the calling worker: its connection is used again.
    Raises ConnectError, ClockError, RefusedError, AccessError, BusyError or BrokenError.
    """
    return Exchange(
        endpoint, path, body, clocks, ca_file=ca_file, preconnect=preconnect, trace=trace, keep_alive=keep_alive
    ).open()


def get(  # noqa: PLR0913  # as above
    endpoint: Endpoint,
    path: str,
    clocks: Clocks,
    *,
    ca_file: str | None = None,
    preconnect: Preconnect | None = None,
    trace: Trace = silent,
) -> ResponseBody:
    """GET `path` and return the ResponseBody; the rest is as for `post`.

    A GET is not billed: if it was dropped without an answer, it may be retried.
    """
    return Exchange(endpoint, path, None, clocks, ca_file=ca_file, preconnect=preconnect, trace=trace).open()


def prepare_post(endpoint: Endpoint, path: str, body: bytes) -> tuple[str, dict[str, str]]:
    """Return the URL and the headers with which `post` would send `body`; nothing is sent.

    The headers are without the key and without those of the endpoint. Raises UsageError for an unusable base URL.
    """
    request = requests.Request("POST", endpoint.url(path), headers=HEADERS | POST_HEADERS, data=body)
    request.auth = Credentials(Endpoint(endpoint.base_url))
    try:
        ready = Session().prepare_request(request)
    except FAILURES as exc:  # a host that is not valid in IDNA (RFC 5891)
        reason = reason_of(list(iter_causes(exc)))
        raise UsageError(f"the base URL cannot be used: {reason}", "check --base-url and SMAI_BASE_URL") from exc
    return ready.url or "", dict(ready.headers)


def proxy_for(endpoint: Endpoint) -> str | None:
    """Return the URL of the proxy for `endpoint`, as requests finds it in the environment; None without one."""
    if endpoint.is_loopback:
        return None
    proxies = requests.utils.get_environ_proxies(endpoint.base_url)
    return requests.utils.select_proxy(endpoint.base_url, proxies)
