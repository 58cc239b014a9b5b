"""Flags and environment -> the Endpoint: where the request goes, and the key that may go with it.

A key belongs to an origin (scheme, host, port) and is never sent to another one.
"""

import os
import re
import stat
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit, urlunsplit

from smai_cli.errors import UsageError

DEFAULT_BASE_URL = "https://api.smai.ai/v1"
DEFAULT_MODEL = "gpt-4.1"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|::1")
_KEY_LIMIT = 65536
_KEY_START = 8


class Secret:
    """A key that no message, repr or traceback shows; `reveal` is called only where it goes on the wire."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        """Return a placeholder."""
        return "Secret(...)"

    __str__ = __repr__

    def hidden_in(self, text: str) -> str:
        """Return `text` without the key, or what a cut left of it: a server may repeat it in its own words.

        A key too short to be a secret is left alone: local servers take any, and `o` is in many words.
        """
        start = self._value[:_KEY_START]
        at = text.find(start) if len(start) == _KEY_START else -1
        while at >= 0:
            end = at + _KEY_START
            while end < len(text) and self._value.startswith(text[at : end + 1]):
                end += 1
            text = f"{text[:at]}...{text[end:]}"
            at = text.find(start, at)
        return text

    def reveal(self) -> str:
        """Return the key itself."""
        return self._value


class Endpoint(NamedTuple):
    """A base URL (no credentials in it) and the key that belongs to its origin, or None."""

    base_url: str
    key: Secret | None = None

    def url(self, path: str) -> str:
        """Return the URL of `path` (`/chat/completions`) below the base URL; a query of the base URL stays."""
        parts = urlsplit(self.base_url)
        return urlunsplit(parts._replace(path=parts.path.rstrip("/") + path))

    @property
    def is_tls(self) -> bool:
        """Whether it is asked over https."""
        return self.base_url.startswith("https:")

    @property
    def is_loopback(self) -> bool:
        """Whether the server is on this machine."""
        return bool(_LOOPBACK.fullmatch(urlsplit(self.base_url).hostname or ""))


def find_endpoint(base_url: str | None, key_file: str | None, environ: Mapping[str, str]) -> Endpoint:
    """Return the Endpoint that `--base-url`, `--key-file` and the environment choose.

    Raises UsageError for a base URL or a key that cannot be used, and where the default service has no key.
    """
    home = _parse(environ.get("SMAI_BASE_URL") or DEFAULT_BASE_URL)
    target = _parse(base_url) if base_url else home
    key = None
    if key_file is not None:
        key = _key_from_file(key_file)
    elif environ.get("SMAI_API_KEY", "").strip() and _origin(target) == _origin(home):
        key = _checked_key(environ["SMAI_API_KEY"], "SMAI_API_KEY")
    endpoint = Endpoint(urlunsplit(target), key)
    if key and target.scheme == "http" and not endpoint.is_loopback:
        raise UsageError(
            f"a key never goes over plain http to {target.hostname}",
            "use https, or leave the key out for this server",
        )
    if key is None and _origin(target) == _origin(_parse(DEFAULT_BASE_URL)):
        raise UsageError(
            "no API key",
            "set SMAI_API_KEY or give --key-file; without a key, --mock rehearses and --base-url goes elsewhere",
        )
    return endpoint


def find_base_url(base_url: str | None, environ: Mapping[str, str]) -> str:
    """Return the base URL of find_endpoint, whether there is a key for it or not. Raises UsageError."""
    return urlunsplit(_parse(base_url or environ.get("SMAI_BASE_URL") or DEFAULT_BASE_URL))


def find_ca_file(environ: Mapping[str, str]) -> str | None:
    """Return the file of certificates that the environment names, or None. Raises UsageError if it cannot be read."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        if path := environ.get(name):
            if not os.access(path, os.R_OK):
                raise UsageError(f"the CA bundle {path} cannot be read", f"check {name}")
            return path
    return None


def _parse(base_url: str) -> SplitResult:
    """Split and check a base URL; credentials in it are dropped, because only a key is ever sent."""
    shown = re.sub(r"^(\w+://)?.*@", r"\1", base_url)
    if not base_url.isprintable() or " " in base_url:
        raise UsageError("the base URL holds a space or a control character", "check --base-url and SMAI_BASE_URL")
    try:
        parts = urlsplit(base_url)
        port = parts.port
    except ValueError as exc:
        raise UsageError(f"the base URL {shown} is not a URL", "check --base-url and SMAI_BASE_URL") from exc
    if parts.scheme not in _DEFAULT_PORTS:
        rest = shown.split("://", 1)[-1]
        raise UsageError(
            f"the base URL {shown} does not begin with http:// or https://",
            f"did you mean http://{rest}",
        )
    if not parts.hostname or any(not 0 < len(label) < 64 for label in parts.hostname.rstrip(".").split(".")):  # noqa: PLR2004
        raise UsageError(f"the base URL {shown} has no valid host", "check --base-url and SMAI_BASE_URL")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return parts._replace(netloc=host if port is None else f"{host}:{port}", fragment="")


def _origin(parts: SplitResult) -> tuple[str, str | None, int]:
    """Return scheme, host and port (RFC 6454, section 4)."""
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS[parts.scheme]


def _key_from_file(path: str) -> Secret:
    """Read a key from a file that nobody else can read, or from a pipe."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # pathlib costs 8 ms before the first byte
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(mode) and mode & 0o077:
                raise UsageError(f"others can read the key file {path}", f"run chmod 600 {path}")
            data = file.read(_KEY_LIMIT)
    except OSError as exc:
        raise UsageError(f"the key file {path}: {exc.strerror}", "check --key-file") from exc
    return _checked_key(data.decode("latin-1"), f"the key file {path}")


def _checked_key(value: str, source: str) -> Secret:
    """Return the key in `value` without the white space around it; nothing of it is ever shown."""
    key = value.strip()
    if not key:
        raise UsageError(f"{source} is empty", "put the key there, alone")
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        raise UsageError(
            f"{source} holds a character that no key has (a line end, a space, or one outside ASCII)",
            "put the key there, alone",
        )
    return Secret(key)
