"""Translate what goes wrong with an exchange, exceptions of many kinds and HTTP errors, into a SmaiError."""

import http.client
import os
import re
import socket
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3

from smai_cli.answer.api_error import request_id_in
from smai_cli.common.clocks import Clocks
from smai_cli.common.frozen import Frozen
from smai_cli.common.shortages import shortage_among
from smai_cli.common.text import one_line
from smai_cli.config.base_url import origin_parts, shown_url
from smai_cli.config.endpoint import Endpoint
from smai_cli.config.places import ca_file_named
from smai_cli.errors import (
    BrokenError,
    ClockError,
    ConnectError,
    RefusedError,
    Retry,
    ShortageError,
    SmaiError,
    UsageError,
)
from smai_cli.http.proxies import proxy_for

# The message of http.client if a proxy does not connect to the server.
_TUNNEL_REFUSED = "Tunnel connection failed: "
_NETWORK_HINT = "check the network or --base-url"
FAILURES = (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError)


def answer_timeout(limit_s: float, *, is_forwarded: bool) -> ClockError:
    """Return the failure of an answer that did not begin within `limit_s` seconds; a proxy may have the request."""
    hint = "check HTTP_PROXY" if is_forwarded else "try again"
    return ClockError(f"timed out: no answer began within {limit_s:g} s", f"raise --idle-timeout, or {hint}")


def connect_timeout(limit_s: float) -> ClockError:
    """Return the failure of a connection that was not made within `limit_s` seconds."""
    return ClockError(
        f"timed out: no connection within {limit_s:g} s",
        "raise --connect-timeout, or try again",
        retry=Retry.UNANSWERED,
    )


class Route(Frozen):
    """Where a request goes: the server as `HOST port N`, its host, the base path, and the proxy like the server.

    `variable` is the environment variable with the proxy. Without a proxy, both are empty.
    """

    server: str
    host: str
    path: str
    proxy: str = ""
    variable: str = ""


def route_to(endpoint: Endpoint) -> Route:
    """Return the route to the server of `endpoint`; the proxy is the one that requests finds in the environment."""
    parts = urlsplit(endpoint.base_url)
    host = parts.hostname or ""
    server = f"{host} port {origin_parts(parts)[2]}"
    proxy = proxy_for(endpoint)
    if not proxy:
        return Route(server=server, host=host, path=parts.path)
    shown = f"{proxy.host} port {proxy.port}"
    return Route(server=server, host=host, path=parts.path, proxy=shown, variable=proxy.variable)


def proxy_timeout(route: Route, limit_s: float) -> ConnectError:
    """Return the failure of a proxy that did not connect within `limit_s` seconds, to us or to the server."""
    return _proxy_failure(route, f"it did not answer within {limit_s:g} s")


def proxy_refusal(route: Route, answer: str) -> ConnectError:
    """Return the failure of a proxy that answers itself; `answer` is, say, `407 Proxy Authentication Required`."""
    if answer.startswith("407"):
        return _proxy_failure(route, f"it answered {answer}", f"check the user and the password in {route.variable}")
    if answer.startswith("5"):  # the server did not answer the proxy; it may later
        return _proxy_failure(route, f"it answered {answer}", retry=Retry.UNANSWERED)
    return _proxy_failure(route, f"it answered {answer}", retryable=False)


def _proxy_failure(
    route: Route, what: str, hint: str = "", retry: Retry = Retry.NEVER, *, retryable: bool = True
) -> ConnectError:
    return ConnectError(
        f"could not connect through the proxy {route.proxy} of {route.variable}: {what}",
        hint or f"check {route.variable}",
        retry=retry,
        retryable=retryable,
    )


def translate_failure(
    exc: Exception, route: Route, *, connected: bool, is_forwarded: bool, clocks: Clocks
) -> SmaiError:
    """Return the SmaiError for an exception before the headers of the answer, with the innermost cause.

    `route` is where the request went. `connected` says that the request, or a part of it, was sent, `is_forwarded` that
    it was sent to a proxy.
    """
    chain = list(iter_causes(exc))
    timeouts = (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)
    # urllib3 makes NewConnectionError, a refused connection, a kind of timeout.
    timed_out = any(
        isinstance(cause, timeouts) and not isinstance(cause, urllib3.exceptions.NewConnectionError) for cause in chain
    )
    if unusable := _url_failure(chain) or (None if connected else _tls_file_failure(chain) or _shortage(chain, route)):
        return unusable
    if connected and is_forwarded and not timed_out:
        return _forwarding_failure(chain, route)
    # urllib3 also blames the proxy for what a server does to a request that came through the tunnel.
    if not connected and _contains(chain, requests.exceptions.ProxyError, urllib3.exceptions.ProxyError):
        return _tunnel_failure(chain, route, clocks.connect_timeout_s, timed_out=timed_out)
    if _contains(chain, requests.exceptions.SSLError, urllib3.exceptions.SSLError):
        return tls_error(reason_of(chain), route.server, route.path)
    if connected:
        return _lost_request_failure(chain, clocks.connect_timeout_s, timed_out=timed_out)
    return _connection_failure(chain, route, clocks.connect_timeout_s, timed_out=timed_out)


def _url_failure(chain: list[BaseException]) -> UsageError | None:
    """Return the failure of an unusable base URL; None for any other failure."""
    if _contains(chain, requests.exceptions.InvalidURL, urllib3.exceptions.LocationValueError):
        if any("IDNA" in str(cause) for cause in chain):
            return UsageError("the host of the URL is not a valid DNS name", "check --base-url, and HTTPS_PROXY")
        return UsageError(f"the base URL cannot be used: {reason_of(chain)}", "check --base-url and SMAI_BASE_URL")
    return None


def _tls_file_failure(chain: list[BaseException]) -> UsageError | None:
    """Return the failure of a file on this machine that is needed for TLS; None for any other failure."""
    log = os.path.expandvars(os.environ.get("SSLKEYLOGFILE", ""))  # as urllib3 reads it
    if log and any(isinstance(cause, OSError) and cause.filename == log for cause in chain):
        return UsageError(f"SSLKEYLOGFILE names {log}: {reason_of(chain)}", "correct it, or unset it")
    bundle = ca_file_named(os.environ)
    if bundle and any(isinstance(cause, ssl.SSLError) and str(cause.strerror).startswith("[X509") for cause in chain):
        name, path = bundle
        return UsageError(f"the CA bundle {path} does not contain certificates in PEM format", f"check {name}")
    return None


def _shortage(chain: list[BaseException], route: Route) -> ShortageError | None:
    """Return the failure of a connection for which the machine lacks resources; None for any other failure."""
    if not (shortage := shortage_among(chain)):
        return None
    what = f"could not connect to {route.server}: {reason_of(chain)}"
    return ShortageError(what, shortage.hint, retry=Retry.UNANSWERED)


def _tunnel_failure(chain: list[BaseException], route: Route, limit_s: float, *, timed_out: bool) -> SmaiError:
    """Return the failure of a connection through a proxy."""
    answers = [str(cause)[len(_TUNNEL_REFUSED) :] for cause in chain if str(cause).startswith(_TUNNEL_REFUSED)]
    if answers:
        return proxy_refusal(route, one_line(answers[0], 100))
    if timed_out:
        return proxy_timeout(route, limit_s)
    if _is_not_http(chain):
        return _proxy_failure(route, "it does not speak HTTP", retryable=False)
    if _contains(chain, ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected):
        return _proxy_failure(route, "it dropped the connection")
    return _proxy_failure(route, reason_of(chain), retry=Retry.UNANSWERED)


def _forwarding_failure(chain: list[BaseException], route: Route) -> SmaiError:
    """Return the failure of a proxy that got the request but did not answer; it may have been billed."""
    if _is_not_http(chain):
        return _proxy_failure(route, "it does not speak HTTP", retryable=False)
    return _proxy_failure(route, f"it dropped the request without an answer: {reason_of(chain)}")


def _is_not_http(chain: list[BaseException]) -> bool:
    return _contains(chain, http.client.HTTPException) and not _contains(chain, http.client.RemoteDisconnected)


def _connection_failure(chain: list[BaseException], route: Route, limit_s: float, *, timed_out: bool) -> SmaiError:
    """Return the failure of a connection before anything was sent."""
    if _contains(chain, urllib3.exceptions.NameResolutionError, socket.gaierror):
        return ConnectError(f"could not resolve {route.host}: {reason_of(chain)}", _NETWORK_HINT)
    if timed_out and limit_s:
        return connect_timeout(limit_s)
    hint = "is the server running?" if _contains(chain, ConnectionRefusedError) else _NETWORK_HINT
    return ConnectError(f"could not connect to {route.server}: {reason_of(chain)}", hint)


def _lost_request_failure(chain: list[BaseException], limit_s: float, *, timed_out: bool) -> SmaiError:
    """Return the failure of a connection after the request, or a part of it, was sent."""
    if timed_out:
        what = f"timed out: the server did not read the request for {limit_s:g} s"
        return ClockError(what, "raise --connect-timeout, or try again")
    if _is_not_http(chain):
        malformed = f"the server's answer is malformed HTTP: {reason_of(chain)}"
        return BrokenError(malformed, "check --base-url, or try again later", retry=Retry.NEVER)
    return BrokenError(
        f"the server dropped the request without an answer: {reason_of(chain)}",
        "it may have been billed, so smai does not send it again by itself",
        retry=Retry.NEVER,
    )


def tls_error(reason: str, server: str, path: str = "") -> ConnectError:
    """Return the failure of a TLS handshake; smai does not retry it, because the certificate would be the same.

    `reason` is OpenSSL's message, `server` has the form `HOST port N`, and `path` is that of the base URL.
    """
    words = reason.upper()
    reason = re.sub(r"^\[[A-Z]+: \w+\] | \(_ssl\.c:\d+\)", "", reason).rstrip(".")  # the place in OpenSSL and Python
    what, retryable = f"TLS failed: {reason}", False
    if "ALERT" in words and "CERTIFICATE" in words:  # an alert is from the server
        what = f"TLS failed: the server requires a client certificate ({reason})"
        hint = "smai cannot give one; ask whoever runs the server for another way"
    elif "HANDSHAKE_FAILURE" in words:
        hint = "the server may require a client certificate, which smai does not support, or an outdated cipher"
    elif "PROTOCOL_VERSION" in words or "UNSUPPORTED_PROTOCOL" in words:
        what = f"TLS failed: the server's version is too old, smai needs TLS 1.2 or later ({reason})"
        hint = "ask whoever runs the server"
    elif "HAS EXPIRED" in words or "NOT YET VALID" in words:
        hint = "check the clock of this machine, or ask whoever runs the server for a new certificate"
    elif "MISMATCH" in words:
        hint = "check --base-url"
    elif "CERTIFICATE" in words:
        hint = "check --base-url, or name the CA in SSL_CERT_FILE"
    elif "WRONG_VERSION_NUMBER" in words or "RECORD LAYER" in words:
        host, _, port = server.rpartition(" port ")
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}{path}"
        what, hint = "TLS failed: the server does not speak TLS", f"did you mean {url}?"
    else:
        hint, retryable = "try again", True
    return ConnectError(what, hint, retry=Retry.NEVER, retryable=retryable)


def iter_causes(exc: BaseException) -> Iterator[BaseException]:
    """Yield `exc` and the exceptions inside it; requests and urllib3 also put them into `args` and `reason`."""
    seen: set[int] = set()
    waiting: list[Any] = [exc]
    while waiting:
        cause = waiting.pop(0)
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            waiting += [*cause.args, getattr(cause, "reason", None), cause.__cause__, cause.__context__]


def _contains(chain: list[BaseException], *kinds: type[BaseException]) -> bool:
    return any(isinstance(cause, kinds) for cause in chain)


def reason_of(chain: list[BaseException]) -> str:
    """Return the system's message for the innermost cause, on one line."""
    if _contains(chain, http.client.IncompleteRead):  # also for a chunk size that is not a number
        return "it was cut, or is malformed HTTP"
    for cause in chain:
        if isinstance(cause, OSError) and cause.strerror and not isinstance(cause, requests.RequestException):
            return one_line(cause.strerror, 200)
    # A URL in the message of a library may contain the password of a proxy.
    return one_line(re.sub(r"//[^/\s]*@", "//", str(chain[-1])), 200) or type(chain[-1]).__name__


def _keep_text(body: bytes) -> bytes:
    """Return the body of an error, or nothing if it is not text, for instance in an unknown content coding."""
    text = body.decode("utf-8", "replace")
    strange = sum(character < " " or character == "\ufffd" for character in text if character not in "\t\r\n")
    return b"" if strange * 10 > len(text) else body


def redirect_refusal(response: requests.Response) -> RefusedError:
    """Return the failure of an answer that redirects."""
    target = one_line(shown_url(response.headers.get("location", "nowhere")), 200)
    return RefusedError(
        f"the server redirects to {target} ({response.status_code}), and smai does not follow redirects",
        "check --base-url",
        http_status=response.status_code,
        request_id=request_id_in(response.headers),
    )


def response_failure(response: requests.Response, body: bytes) -> SmaiError:
    """Return the failure for an HTTP answer that is not a success; `body` is as much of it as was read."""
    from smai_cli.answer.meaning import HttpAnswer, http_error  # only for a failure

    return http_error(HttpAnswer(response.status_code, response.reason or "", response.headers, _keep_text(body)))
