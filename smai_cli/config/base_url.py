"""Find, check, compare and show base URLs."""

import re
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit, urlunsplit

from smai_cli.apis import APIS
from smai_cli.config.config_file import Settings, Value
from smai_cli.config.places import DEFAULT_BASE_URL
from smai_cli.errors import UsageError

# Query parameters that are not secret: the API version is a date, and messages show it.
OPEN_NAMES = ("api-version",)
# What the APIs append to a base URL.
_REQUEST_PATHS = tuple(api.path for api in APIS)
# Other paths that users copy. Without the version, such a path may be the base: Azure has https://.../models.
_OTHER_PATHS = r"(/v\d+)/(models|chat|completions)$"
DEFAULT_PORTS = {"http": 80, "https": 443}


def origin_of(base_url: str) -> str:
    """Return scheme, host and port of a base URL (RFC 6454, section 4). Raises UsageError."""
    scheme, host, port = origin_parts(parse_base_url(base_url))
    return f"{scheme}://[{host}]:{port}" if ":" in str(host) else f"{scheme}://{host}:{port}"


def shown_origin(origin: str) -> str:
    """Return an origin as messages show it: without the port that its scheme implies."""
    scheme = origin.partition("://")[0]
    return origin.removesuffix(f":{DEFAULT_PORTS.get(scheme)}")


def find_base_url(base_url: str | None, environ: Mapping[str, str], settings: Settings) -> tuple[str, str]:
    """Return the effective base URL and its source, as a message names it. Raises UsageError."""
    default = Value(DEFAULT_BASE_URL, "default")
    typed = Value(base_url, "--base-url") if base_url else None
    found, source = typed or settings.find("base_url", environ, "SMAI_BASE_URL") or default
    return urlunsplit(parse_base_url(found, source)), source


def shown_url(url: str) -> str:
    """Return a URL, valid or not, as messages show it.

    User, password, fragment and the values in the query are left out: any of them can be secret. So is anything in
    place of the port that is not a number: it may be the beginning of a password.
    """
    before, _, query = url.partition("#")[0].partition("?")
    scheme = re.match(r"(?i)https?:/*|[a-z][a-z0-9+.-]*://|", before)
    head = scheme[0] if scheme else ""
    host, slash, path = before[len(head) :].partition("/")
    host = host.rpartition("@")[2]
    if "@" in path:  # perhaps a password with a slash
        path = f"...@{path.rpartition('@')[2]}"
    if not re.fullmatch(r"(\[[^\]]*\]|[^:]*)(:[0-9]*)?", host):
        host = f"{host.partition(':')[0]}:..."
    shown = "&".join(_shown_pair(name, value) for name, value in query_in(query))
    return f"{head}{host}{slash}{path}{'?' if shown else ''}{shown}"


def _shown_pair(name: str, value: str) -> str:
    shown = value if name in OPEN_NAMES or not value else "..."
    return f"{name}={shown}" if name else shown


def query_in(query: str) -> list[tuple[str, str]]:
    """Return the names and values in a query; a part without `=` is a value without a name."""
    pairs = [part.partition("=") for part in query.split("&") if part]
    return [(name, value) if sign else ("", name) for name, sign, value in pairs]


def parse_base_url(base_url: str, source: str = "--base-url and SMAI_BASE_URL") -> SplitResult:
    """Split and check a base URL; `source` is where it comes from, for messages. Raises UsageError.

    Credentials in it are dropped, because only a key is ever sent. So is the path of a request at its end, because
    users copy the whole URL from documentation.
    """
    if not base_url.isprintable() or " " in base_url:
        raise UsageError("the base URL contains a space or a control character", f"check {source}")
    try:
        parts = urlsplit(base_url)
        port = parts.port
    except ValueError as exc:
        raise UsageError(f"the base URL {shown_url(base_url)} is not a URL", f"check {source}") from exc
    if parts.scheme not in DEFAULT_PORTS:
        shown = shown_url(base_url)
        if "unix" in parts.scheme:
            raise UsageError(f"the base URL {shown} names a Unix socket", "use a server that listens on a port")
        rest = re.sub(r"^[\"']*(https?:?/+)?|[\"']+$", "", shown.split("://", 1)[-1])
        scheme = "http" if _is_on_this_machine(rest) else "https"
        raise UsageError(
            f"the base URL {shown} does not begin with http:// or https://",
            f"did you mean {scheme}://{rest}?",
        )
    if not parts.hostname or any(not 0 < len(label) < 64 for label in parts.hostname.rstrip(".").split(".")):  # noqa: PLR2004
        raise UsageError(f"the base URL {shown_url(base_url)} has no valid host", f"check {source}")
    if port == 0:
        raise UsageError(f"the base URL {shown_url(base_url)} has no valid port", f"check {source}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return parts._replace(netloc=host if port is None else f"{host}:{port}", path=_base_path(parts.path), fragment="")


def _is_on_this_machine(place: str) -> bool:
    """Return whether a URL without its scheme seems to name this machine, or one in its network."""
    host = place.partition("/")[0].rpartition(":")[0] or place.partition("/")[0]
    return host == "localhost" or "." not in host or host.replace(".", "").isdigit()


def _base_path(path: str) -> str:
    shortest = path.rstrip("/")
    for request_path in _REQUEST_PATHS:
        base = shortest.removesuffix(request_path)
        if base != shortest:
            return base
    return re.sub(_OTHER_PATHS, r"\1", shortest) if re.search(_OTHER_PATHS, shortest) else path


def origin_parts(parts: SplitResult) -> tuple[str, str | None, int]:
    """Return scheme, host and port (RFC 6454, section 4)."""
    return parts.scheme, parts.hostname, parts.port or DEFAULT_PORTS[parts.scheme]
