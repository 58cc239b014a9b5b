"""The checks that a request must pass, in their order.

A page of another site can send requests to this machine, and so can every process on it. Neither may get an answer that
the user pays for, or learn anything. The host is checked first: with DNS rebinding a foreign page has the same
origin as the gateway, and sends Origin and no Sec-Fetch headers, just as the page of the gateway does.
"""

import hmac
import re
from http import HTTPStatus
from typing import NamedTuple

from smai_cli.apis import APIS
from smai_cli.serve.head import Head, Refusal

BODY_LIMIT_BYTES = 64 * 1024 * 1024
_DEFAULT_PORT = 80
_API = "/v1"
# The page asks for its settings there. The system prompt among them is private.
SETTINGS_PATH = "/config.json"
# The endpoints of the API, each with its method.
API_METHODS = {**{f"{_API}{api.path}": "POST" for api in APIS}, f"{_API}/models": "GET"}
_KNOWN_METHODS = ("GET", "HEAD", "POST")
_BEARER = re.compile(r"(?i:bearer) +(\S+) *")


class Access(NamedTuple):
    """What a request must match: the `port` of this server and the `token` of this run.

    `pages` are the paths that need no token.
    """

    port: int
    token: str
    pages: frozenset[str]

    @property
    def hosts(self) -> list[str]:
        """The values of Host that are this server.

        `localhost` is not one of them. It may mean ::1, where another user can listen on the same port.
        """
        return [f"127.0.0.1:{self.port}", *(["127.0.0.1"] if self.port == _DEFAULT_PORT else [])]


def check(head: Head, access: Access) -> bool:
    """Check the head of a request; return whether it had to show the token. Raises Refusal."""
    _check_origin(head, access)
    is_private = head.path in (_API, SETTINGS_PATH) or head.path.startswith(f"{_API}/")
    if is_private and not all(value in ("same-origin", "none") for value in head.all("sec-fetch-site")):
        raise _forbidden("cross_site", "requests from pages of another site are refused")
    _check_path(head, access)
    if is_private and not is_token(head, access.token):
        raise Refusal(
            HTTPStatus.UNAUTHORIZED,
            "invalid_api_key",
            "the token is missing or wrong; the first line of smai serve has it, after #token=, "
            "and each run makes a new one",
            headers=(("WWW-Authenticate", "Bearer"),),
        )
    return is_private


def _check_origin(head: Head, access: Access) -> None:
    named = [*head.all("host"), *([] if head.authority is None else [head.authority])]
    if len(head.all("host")) != 1 or not all(name in access.hosts for name in named):
        raise _forbidden("foreign_host", f"the host must be {access.hosts[0]}")
    origins = head.all("origin")
    if len(origins) > 1 or not all(origin in [f"http://{host}" for host in access.hosts] for origin in origins):
        raise _forbidden("foreign_origin", "requests from pages of another origin are refused")


def _check_path(head: Head, access: Access) -> None:
    methods = {**dict.fromkeys(access.pages, "GET, HEAD"), SETTINGS_PATH: "GET", **API_METHODS}
    allowed = methods.get(head.path)
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
    """Return whether a request has the token, once, and no other; the comparison takes constant time."""
    given = head.all("authorization")
    found = _BEARER.fullmatch(given[0]) if len(given) == 1 else None
    return hmac.compare_digest(found[1].encode() if found else b"", token.encode())


def body_length(head: Head) -> int:
    """Return the length of the body of a POST in bytes. Raises Refusal."""
    types = head.all("content-type")
    if len(types) != 1 or types[0].partition(";")[0].strip().lower() != "application/json":
        what = "the Content-Type must be application/json"
        raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", what)
    if any(coding.lower() != "identity" for coding in head.all("content-encoding")):
        # The header would not be passed on with it (RFC 9110, section 15.5.16).
        what = "the request must not be compressed"
        raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", what)
    lengths = head.all("content-length")
    if head.all("transfer-encoding") or len(lengths) != 1 or not re.fullmatch("[0-9]+", lengths[0]):
        what = "the request must have one Content-Length, and no Transfer-Encoding"
        raise Refusal(HTTPStatus.LENGTH_REQUIRED, "length_required", what)
    digits = lengths[0].lstrip("0") or "0"
    if len(digits) > len(str(BODY_LIMIT_BYTES)) or int(digits) > BODY_LIMIT_BYTES:
        what = f"the request is larger than {BODY_LIMIT_BYTES // 1024 // 1024} MiB"
        raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "request_too_large", what)
    return int(digits)


def _forbidden(code: str, message: str) -> Refusal:
    return Refusal(HTTPStatus.FORBIDDEN, code, message, kind="permission_error")
