"""Flags, environment and configuration -> the Endpoint: where the request goes, and the key that may go with it.

A key belongs to an origin (scheme, host, port) and is never sent to another one.
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit, urlunsplit

from smai_cli.errors import UsageError
from smai_cli.keys import KeyStore, Secret, checked_key, key_from_command, key_from_file
from smai_cli.settings import NO_SETTINGS, Settings, Value, config_folder

DEFAULT_BASE_URL = "https://api.smai.ai/v1"
DEFAULT_MODEL = "gpt-4.1"
CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|::1")


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


class KeySource(NamedTuple):
    """Where the key for a server is: `where` in words, and `read`, which returns it or raises UsageError."""

    where: str
    read: Callable[[], Secret]


def find_endpoint(
    base_url: str | None, key_file: str | None, environ: Mapping[str, str], settings: Settings = NO_SETTINGS
) -> Endpoint:
    """Return the Endpoint that `--base-url`, `--key-file`, the environment and the configuration choose.

    Raises UsageError for a base URL or a key that cannot be used, and where the default service has no key.
    """
    chosen, _ = find_base_url(base_url, environ, settings)
    target = _parse(chosen)
    source = find_key(chosen, key_file, environ, settings)
    if source:
        _check_private(target)
    if source is None and _origin(target) == _origin(_parse(DEFAULT_BASE_URL)):
        raise UsageError(
            "no API key",
            "set SMAI_API_KEY, give --key-file, or run smai login once; --mock rehearses without a key",
        )
    return Endpoint(chosen, source.read() if source else None)


def endpoint_for(base_url: str, key: Secret) -> Endpoint:
    """Return the Endpoint of a server and a key for it. Raises UsageError for a server that no key may go to."""
    target = _parse(base_url)
    _check_private(target)
    return Endpoint(urlunsplit(target), key)


def _check_private(target: SplitResult) -> None:
    if target.scheme == "http" and not Endpoint(urlunsplit(target)).is_loopback:
        raise UsageError(
            f"a key never goes over plain http to {target.hostname}",
            "use https, or leave the key out for this server",
        )


def find_base_url(base_url: str | None, environ: Mapping[str, str], settings: Settings) -> tuple[str, str]:
    """Return the base URL that counts, and where it comes from. Raises UsageError."""
    configured = settings.get("base_url") or Value(DEFAULT_BASE_URL, "default")
    given = ((base_url, "--base-url"), (environ.get("SMAI_BASE_URL"), "SMAI_BASE_URL"), configured)
    found, source = next((value, source) for value, source in given if value)
    return urlunsplit(_parse(found, source)), source


def find_key(base_url: str, key_file: str | None, environ: Mapping[str, str], settings: Settings) -> KeySource | None:
    """Return where the key for the server of `base_url` is, or None. Nothing is read but the file of keys.

    A configured key belongs to the server that is configured beside it, or above it. Raises UsageError.
    """
    origin = origin_of(base_url)
    if key_file is not None:
        return KeySource("--key-file", lambda: key_from_file(key_file))
    if environ.get("SMAI_API_KEY", "").strip() and origin == origin_of(
        environ.get("SMAI_BASE_URL") or DEFAULT_BASE_URL
    ):
        return KeySource("SMAI_API_KEY", lambda: checked_key(environ["SMAI_API_KEY"], "SMAI_API_KEY"))
    home = settings.top.get("base_url", (DEFAULT_BASE_URL, ""))[0]
    for table in (settings.profile, settings.top):
        source = _configured_key(table, environ)
        if source and origin == origin_of(table.get("base_url", (home, ""))[0]):
            return source
    store = KeyStore(config_folder(environ))
    stored = store.find(settings.name, origin)
    return KeySource(f"smai login ({store.path})", lambda: stored) if stored else None


def _configured_key(table: Mapping[str, Value], environ: Mapping[str, str]) -> KeySource | None:
    if file := table.get("key_file"):
        folder, home = config_folder(environ) or "", environ.get("HOME", "")
        path = os.path.join(folder, re.sub("^~(?=/)", lambda _: home, file.value))
        return KeySource(f"key_file ({file.source})", lambda: key_from_file(path, f"check {file.source}"))
    if command := table.get("key_command"):
        return KeySource(f"key_command ({command.source})", lambda: key_from_command(command.value, command.source))
    return None


def origin_of(base_url: str) -> str:
    """Return scheme, host and port of a base URL (RFC 6454, section 4). Raises UsageError."""
    scheme, host, port = _origin(_parse(base_url))
    return f"{scheme}://{host}:{port}"


def find_ca_file(environ: Mapping[str, str]) -> str | None:
    """Return the file of certificates that the environment names, or None. Raises UsageError if it cannot be read."""
    for name in CA_VARIABLES:
        if path := environ.get(name):
            if not os.access(path, os.R_OK):
                raise UsageError(f"the CA bundle {path} cannot be read", f"check {name}")
            return path
    return None


def _parse(base_url: str, source: str = "--base-url and SMAI_BASE_URL") -> SplitResult:
    """Split and check a base URL; credentials in it are dropped, because only a key is ever sent."""
    shown = re.sub(r"^(\w+://)?.*@", r"\1", base_url)
    if not base_url.isprintable() or " " in base_url:
        raise UsageError("the base URL holds a space or a control character", f"check {source}")
    try:
        parts = urlsplit(base_url)
        port = parts.port
    except ValueError as exc:
        raise UsageError(f"the base URL {shown} is not a URL", f"check {source}") from exc
    if parts.scheme not in _DEFAULT_PORTS:
        rest = shown.split("://", 1)[-1]
        raise UsageError(
            f"the base URL {shown} does not begin with http:// or https://",
            f"did you mean http://{rest}",
        )
    if not parts.hostname or any(not 0 < len(label) < 64 for label in parts.hostname.rstrip(".").split(".")):  # noqa: PLR2004
        raise UsageError(f"the base URL {shown} has no valid host", f"check {source}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return parts._replace(netloc=host if port is None else f"{host}:{port}", fragment="")


def _origin(parts: SplitResult) -> tuple[str, str | None, int]:
    """Return scheme, host and port (RFC 6454, section 4)."""
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS[parts.scheme]
