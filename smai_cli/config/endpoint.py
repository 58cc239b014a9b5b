"""Options, environment and configuration -> the Endpoint: the server, and the key and headers that may go to it.

A key, and a configured header, belong to an origin (scheme, host, port) and are never sent to another one.
"""

import contextlib
import functools
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import SplitResult, unquote_plus, urlsplit, urlunsplit

from smai_cli.common.clocks import Deadline
from smai_cli.config.base_url import OPEN_NAMES, find_base_url, origin_of, origin_parts, parse_base_url, query_in
from smai_cli.config.config_file import NO_SETTINGS, Settings
from smai_cli.config.key_source import (
    KEY_FILE_VARIABLE,
    KeySource,
    configured_value,
    expected_variable,
    find_key,
    key_hint,
    key_path,
    missing_key_source,
)
from smai_cli.config.keys import Secret, Secrets
from smai_cli.config.keystore import KeyStore
from smai_cli.config.places import CA_VARIABLES, DEFAULT_BASE_URL, ca_file_named, config_folder, config_path
from smai_cli.config.providers import PROVIDERS, Provider
from smai_cli.errors import Cause, SmaiError, UsageError, hint_for

if TYPE_CHECKING:
    from smai_cli.config.headers import Header

_ABOUT_THE_KEY = (Cause.KEY, Cause.EXPIRED_KEY, Cause.MISSING_KEY, Cause.ACCOUNT, Cause.FORBIDDEN)

# Ollama's own API, which its documentation shows first; its chat API is at /v1.
_OLLAMA_PATHS = ("api", "api/chat", "api/generate")


class Endpoint(NamedTuple):
    """A base URL (without credentials), and what is sent to its origin: the key, or None, and headers.

    The key is sent in the header `key_header`, or as `Authorization: Bearer` if that is None. `key_note` says where the
    key came from, or how to get one; it may be empty.
    """

    base_url: str
    key: Secret | None = None
    headers: "tuple[Header, ...]" = ()
    key_header: str | None = None
    key_note: str = ""

    def url(self, path: str) -> str:
        """Return the URL of `path` (`/chat/completions`) below the base URL, with the query of the base URL."""
        parts = urlsplit(self.base_url)
        return urlunsplit(parts._replace(path=parts.path.rstrip("/") + path))

    @property
    def secrets(self) -> Secrets:
        """What no message may show: key, headers, and the values in the URL's query, encoded and decoded."""
        values = [value for name, value in query_in(urlsplit(self.base_url).query) if name not in OPEN_NAMES]
        values = sorted({*values, *map(unquote_plus, values)} - {""}, key=len, reverse=True)
        sent = [secret for header in self.headers for secret in header.secrets]
        return Secrets([*([self.key] if self.key else []), *sent, *map(Secret, values)])

    def explain(self, error: SmaiError) -> SmaiError:
        """Return a refusal with a better hint: where the key came from, or that /v1 may be missing."""
        if error.cause in _ABOUT_THE_KEY and self.key_note:
            hint = hint_for(error.cause, f"the key from {self.key_note}") if self.key else self.key_note
            return error.replaced(hint=hint)
        path = urlsplit(self.base_url).path.strip("/")
        if error.cause is Cause.NOT_FOUND and not path:
            return error.replaced(hint="check --base-url: /v1 may be missing at its end")
        if error.cause is Cause.NOT_FOUND and path in _OLLAMA_PATHS:
            return error.replaced(hint=f"check --base-url: Ollama needs /v1 instead of /{path}")
        return error

    def for_list(self) -> "Endpoint":
        """Return the Endpoint for GET /models, for which a provider may use another header for the key."""
        provider = next((row for row in PROVIDERS.values() if row.list_key_header and self._is_at(row)), None)
        names = {header.name.lower() for header in self.headers}
        if provider is None or self.key_header or provider.list_key_header in names:
            return self
        from smai_cli.config.headers import Header  # for one provider

        more = [(name, value) for name, value in provider.list_headers if name not in names]
        headers = (Header(name=name, value=Secret(value), source=provider.name) for name, value in more)
        return self._replace(key_header=provider.list_key_header, headers=(*self.headers, *headers))

    def _is_at(self, provider: Provider) -> bool:
        return origin_of(provider.base_url) == origin_of(self.base_url)

    @property
    def is_tls(self) -> bool:
        """Whether the base URL is https."""
        return self.base_url.startswith("https:")

    @property
    def is_loopback(self) -> bool:
        """Whether the server is on this machine: localhost, 127.0.0.0/8 or ::1, written out in full.

        Names below .localhost do not count: RFC 6761 (section 6.3) asks resolvers to resolve them to this machine, but
        not every getaddrinfo does, and the answer of a name server may lead anywhere.
        """
        return _is_loopback(urlsplit(self.base_url).hostname or "")


@functools.cache  # asked for each request
def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    import ipaddress  # for http, and where requests has loaded it anyway

    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address in ipaddress.ip_network("127.0.0.0/8") or host == "::1"


def find_endpoint(  # noqa: PLR0913  # all sources of settings
    base_url: str | None,
    key_file: str | None,
    environ: Mapping[str, str],
    settings: Settings = NO_SETTINGS,
    deadline: Deadline | None = None,
    *,
    headers: "tuple[Header, ...]" = (),
) -> Endpoint:
    """Return the Endpoint according to `--base-url`, `--key-file`, `-H`, the environment and the configuration.

    Raises UsageError for a base URL, a key or a header that cannot be used, and if the default service has no key;
    ClockError if the key cannot be read before the deadline.
    """
    chosen, _ = find_base_url(base_url, environ, settings)
    keyless = keyless_endpoint(chosen, settings, headers)
    source = find_private_key(chosen, key_file, environ, settings)
    if source is None:
        return keyless._replace(key_note=f"no key was sent; {key_hint(chosen, environ, settings)}")
    return keyless._replace(key=source.read(deadline or Deadline()), key_note=source.place())


def keyless_endpoint(base_url: str, settings: Settings, headers: "tuple[Header, ...]" = ()) -> Endpoint:
    """Return the Endpoint of a server, without a key: with the typed `headers` and the configured ones.

    Raises UsageError for headers that would go over plain http, and for one with the name of the key's header.
    """
    origin = origin_of(base_url)
    key_header = configured_value("key_header", origin, settings)
    configured = configured_value("headers", origin, settings)
    if configured:
        from smai_cli.config.headers import merge_headers  # only if configured

        headers = merge_headers(headers, configured.value)
    target = parse_base_url(base_url)
    if headers and not _is_private(target, settings):
        raise UsageError(
            f"a header of {headers[0].source} never goes over plain http to {target.hostname}",
            "use https, leave the header out, or set allow_http in a profile for this server",
        )
    name = key_header.value if key_header else None
    if name and name.lower() in [header.name.lower() for header in headers]:
        raise UsageError(f"the header {name} is reserved for the key", "set it as the key, not as a header")
    return Endpoint(urlunsplit(target), headers=headers, key_header=name)


def find_private_key(
    base_url: str, key_file: str | None, environ: Mapping[str, str], settings: Settings
) -> KeySource | None:
    """Return the source of the key for `base_url`, or None if requests are sent without one.

    The default service, and a server whose profile names a variable, need a key: if it is missing, reading the source
    raises UsageError. Raises UsageError for a server to which a key would go over plain http.
    """
    target = parse_base_url(base_url)
    source = find_key(base_url, key_file, environ, settings)
    if source:
        _check_private(target, settings)
    elif origin_parts(target) == origin_parts(parse_base_url(DEFAULT_BASE_URL)) or expected_variable(
        base_url, settings
    ):
        return missing_key_source(base_url, environ, settings)
    return source


def endpoint_for(
    base_url: str, key: Secret, settings: Settings = NO_SETTINGS, headers: "tuple[Header, ...]" = ()
) -> Endpoint:
    """Return the Endpoint of a server with a key. Raises UsageError if the key would go over plain http."""
    _check_private(parse_base_url(base_url), settings)
    return keyless_endpoint(base_url, settings, headers)._replace(key=key)


def _is_private(target: SplitResult, settings: Settings) -> bool:
    """Return whether a secret may go to a server: over TLS, on this machine, or if its profile has allow_http."""
    if target.scheme == "https" or Endpoint(urlunsplit(target)).is_loopback:
        return True
    allowed, of = settings.profile.get("allow_http"), settings.profile.get("base_url")
    return bool(allowed and allowed.value and of and origin_parts(parse_base_url(of.value)) == origin_parts(target))


def _check_private(target: SplitResult, settings: Settings) -> None:
    if not _is_private(target, settings):
        raise UsageError(
            f"a key never goes over plain http to {target.hostname}",
            "use https, leave the key out, or set allow_http in a profile for this server",
        )


def files_to_read(environ: Mapping[str, str], settings: Settings) -> list[tuple[str, str]]:
    """Return the files that a run may read although no option names them, as (name in messages, path)."""
    files = [
        ("the configuration file", config_path(environ)),
        ("the file of keys", KeyStore(config_folder(environ)).path),
    ]
    for table in (settings.profile, settings.top):
        if file := table.get("key_file"):
            with contextlib.suppress(UsageError):  # reported when it is read
                files.append(("key_file", key_path(file, environ)))
    files += [(name, environ.get(name)) for name in (KEY_FILE_VARIABLE, *CA_VARIABLES)]
    return [(name, path) for name, path in files if path and os.path.exists(path)]


def find_ca_file(environ: Mapping[str, str]) -> str | None:
    """Return the file of certificates in the environment, or None. Raises UsageError if it cannot be read."""
    named = ca_file_named(environ)
    if named is None:
        return None
    name, path = named
    if not os.access(path, os.R_OK):
        raise UsageError(f"the CA bundle {path} cannot be read", f"check {name}")
    return path
