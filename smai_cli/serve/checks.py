"""What a request must be before anything happens for it, in the order in which it is checked.

A page of another site may send requests to this machine, and every process of it may: neither is to get an answer that
somebody else pays for, nor to learn anything. The name of the host comes first: with DNS rebinding a foreign page is
same-origin with the gateway, and sends Origin and no Sec-Fetch headers as the page itself would.
"""

import hmac
import re
from http import HTTPStatus
from typing import NamedTuple

from smai_cli.serve.head import Head, Refusal

BODY_LIMIT_BYTES = 64 * 1024 * 1024
_DEFAULT_PORT = 80
_API = "/v1"
# The endpoints of the API, each with its method.
API_METHODS = {"/v1/chat/completions": "POST", "/v1/responses": "POST", "/v1/models": "GET"}
_KNOWN_METHODS = ("GET", "HEAD", "POST")
_BEARER = re.compile(r"(?i:bearer) +(\S+) *")


class Door(NamedTuple):
    """Where the server is, and who may pass: the `token` of this run. `pages` are the paths of what is static."""

    port: int
    token: str
    pages: frozenset[str]

    @property
    def hosts(self) -> list[str]:
        """What a browser sends as Host for this server."""
        suffixes = [f":{self.port}", *([""] if self.port == _DEFAULT_PORT else [])]
        return [f"{name}{suffix}" for name in ("127.0.0.1", "localhost") for suffix in suffixes]


def check(head: Head, door: Door) -> None:
    """Raise Refusal for a request that is not to be answered, as far as its head tells."""
    _check_origin(head, door)
    is_api = head.path == _API or head.path.startswith(f"{_API}/")
    if is_api and not all(value in ("same-origin", "none") for value in head.all("sec-fetch-site")):
        raise _forbidden("cross_site", "a page of another site may not ask here")
    _check_path(head, door)
    if is_api and not is_token(head, door.token):
        raise Refusal(
            HTTPStatus.UNAUTHORIZED,
            "invalid_api_key",
            "the token is missing or wrong; it stands in the first line of smai serve, behind #token=, "
            "and is another one in each run",
            headers=(("WWW-Authenticate", "Bearer"),),
        )


def _check_origin(head: Head, door: Door) -> None:
    named = [*head.all("host"), *([] if head.authority is None else [head.authority])]
    if len(head.all("host")) != 1 or not all(name.lower() in door.hosts for name in named):
        raise _forbidden("foreign_host", f"the host must be {door.hosts[0]} or localhost:{door.port}")
    origins = head.all("origin")
    if len(origins) > 1 or not all(origin in [f"http://{host}" for host in door.hosts] for origin in origins):
        raise _forbidden("foreign_origin", "a page of another origin may not ask here")


def _check_path(head: Head, door: Door) -> None:
    allowed = "GET, HEAD" if head.path in door.pages else API_METHODS.get(head.path)
    if head.method not in _KNOWN_METHODS or (allowed and head.method not in allowed.split(", ")):
        message = f"{head.path} takes {allowed} only" if allowed else "only GET, HEAD and POST are known"
        raise Refusal(
            HTTPStatus.METHOD_NOT_ALLOWED,
            "method_not_allowed",
            message,
            headers=(("Allow", allowed or ", ".join(_KNOWN_METHODS)),),
        )
    if not allowed:
        known = ", ".join(API_METHODS)
        raise Refusal(HTTPStatus.NOT_FOUND, "not_found", f"there is nothing at this path; the API is at {known}")
    if head.path in API_METHODS and head.query is not None:
        raise Refusal(HTTPStatus.NOT_FOUND, "not_found", f"{head.path} takes no query")


def is_token(head: Head, token: str) -> bool:
    """Return whether a request has the token, once, and nothing else in its place; in constant time."""
    given = head.all("authorization")
    found = _BEARER.fullmatch(given[0]) if len(given) == 1 else None
    return hmac.compare_digest(found[1].encode() if found else b"", token.encode())


def body_length(head: Head) -> int:
    """Return how many bytes the body of a POST has. Raises Refusal."""
    types = head.all("content-type")
    if len(types) != 1 or types[0].partition(";")[0].strip().lower() != "application/json":
        what = "the Content-Type must be application/json"
        raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", what)
    if any(coding.lower() != "identity" for coding in head.all("content-encoding")):
        # It would go on without its header (RFC 9110, section 15.5.16).
        what = "the request must not be compressed"
        raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", what)
    lengths = head.all("content-length")
    if head.all("transfer-encoding") or len(lengths) != 1 or not re.fullmatch("[0-9]+", lengths[0]):
        what = "the request must say its length, once, in Content-Length, and have no Transfer-Encoding"
        raise Refusal(HTTPStatus.LENGTH_REQUIRED, "length_required", what)
    digits = lengths[0].lstrip("0") or "0"
    if len(digits) > len(str(BODY_LIMIT_BYTES)) or int(digits) > BODY_LIMIT_BYTES:
        what = f"the request is larger than {BODY_LIMIT_BYTES // 1024 // 1024} MiB"
        raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "request_too_large", what)
    return int(digits)


def _forbidden(code: str, message: str) -> Refusal:
    return Refusal(HTTPStatus.FORBIDDEN, code, message, kind="permission_error")
