"""Flags, environment and configuration -> the Endpoint: where the request goes, and what may go with it.

A key, and a header of the configuration, belong to an origin (scheme, host, port) and are never sent to another one.
"""

import contextlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import SplitResult, unquote_plus, urlsplit, urlunsplit

from smai_cli.common.clocks import Deadline
from smai_cli.config.base_url import OPEN_NAMES, find_base_url, origin_of, origin_parts, parsed, query_in
from smai_cli.config.config_file import NO_SETTINGS, Settings, Value
from smai_cli.config.key_source import (
    KEY_FILE_VARIABLE,
    KeySource,
    expected_variable,
    find_key,
    key_hint,
    key_path,
    missing_key,
)
from smai_cli.config.keys import Secret, Secrets
from smai_cli.config.keystore import KeyStore
from smai_cli.config.places import CA_VARIABLES, DEFAULT_BASE_URL, ca_file_named, config_folder, config_path
from smai_cli.config.providers import PROVIDERS, Provider
from smai_cli.errors import Cause, SmaiError, UsageError, hint_for

if TYPE_CHECKING:
    from smai_cli.config.headers import Header

DEFAULT_MODEL = "gpt-4.1"
_ABOUT_THE_KEY = (Cause.KEY, Cause.EXPIRED_KEY, Cause.MISSING_KEY, Cause.ACCOUNT, Cause.FORBIDDEN)


class Endpoint(NamedTuple):
    """A base URL (no credentials in it), and what goes to its origin: the key, or None, and headers.

    The key goes in the header `key_header`, without one as `Authorization: Bearer`. `key_note` says where it came from,
    or without one what to do about that; it may be empty.
    """

    base_url: str
    key: Secret | None = None
    headers: "tuple[Header, ...]" = ()
    key_header: str | None = None
    key_note: str = ""

    def url(self, path: str) -> str:
        """Return the URL of `path` (`/chat/completions`) below the base URL; a query of the base URL stays."""
        parts = urlsplit(self.base_url)
        return urlunsplit(parts._replace(path=parts.path.rstrip("/") + path))

    @property
    def secrets(self) -> Secrets:
        """What no message may show: key, headers, and the values of the URL's query, as they are and decoded."""
        values = [value for name, value in query_in(urlsplit(self.base_url).query) if name not in OPEN_NAMES]
        values = sorted({*values, *map(unquote_plus, values)} - {""}, key=len, reverse=True)
        sent = [secret for header in self.headers for secret in header.secrets]
        return Secrets([*([self.key] if self.key else []), *sent, *map(Secret, values)])

    def explain(self, error: SmaiError) -> SmaiError:
        """Return a refusal with a better hint: where the key came from, or that /v1 may be missing."""
        if error.cause in _ABOUT_THE_KEY and self.key_note:
            hint = hint_for(error.cause, f"the key from {self.key_note}") if self.key else self.key_note
            return error.replaced(hint=hint)
        if error.cause is Cause.NOT_FOUND and not urlsplit(self.base_url).path.strip("/"):
            return error.replaced(hint="check --base-url: /v1 may be missing at its end")
        return error

    def for_list(self) -> "Endpoint":
        """Return how GET /models asks this server: a provider may take the key in another header there."""
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
        """Whether it is asked over https."""
        return self.base_url.startswith("https:")

    @property
    def is_loopback(self) -> bool:
        """Whether the server is on this machine: localhost, 127.0.0.0/8 or ::1, written out in full.

        Names below .localhost are none of it: RFC 6761 (section 6.3) asks resolvers to keep them here, but not
        every getaddrinfo does, and a name that is asked of a name server may lead anywhere.
        """
        host = urlsplit(self.base_url).hostname or ""
        if host == "localhost":
            return True
        import ipaddress  # for http, and where requests has loaded it anyway

        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return address in ipaddress.ip_network("127.0.0.0/8") or host == "::1"


def find_endpoint(  # noqa: PLR0913  # what may say where to ask, and with what
    base_url: str | None,
    key_file: str | None,
    environ: Mapping[str, str],
    settings: Settings = NO_SETTINGS,
    deadline: Deadline | None = None,
    *,
    headers: "tuple[Header, ...]" = (),
) -> Endpoint:
    """Return the Endpoint that `--base-url`, `--key-file`, `-H`, the environment and the configuration choose.

    Raises UsageError for a base URL, a key or a header that cannot be used, and where the default service has no key;
    ClockError for a key that is not there at the deadline.
    """
    chosen, _ = find_base_url(base_url, environ, settings)
    keyless = keyless_endpoint(chosen, settings, headers)
    source = find_private_key(chosen, key_file, environ, settings)
    if source is None:
        return keyless._replace(key_note=f"no key was sent; {key_hint(chosen, environ, settings)}")
    return keyless._replace(key=source.read(deadline or Deadline()), key_note=source.place())


def keyless_endpoint(base_url: str, settings: Settings, headers: "tuple[Header, ...]" = ()) -> Endpoint:
    """Return the Endpoint of a server without a key: with the typed `headers`, and what the configuration has for it.

    Raises UsageError for headers to a server that none may go to, and for one that is reserved for the key.
    """
    origin = origin_of(base_url)
    key_header = _bound("key_header", origin, settings)
    configured = _bound("headers", origin, settings)
    if configured:
        from smai_cli.config.headers import with_configured  # for those who have some

        headers = with_configured(headers, configured.value)
    target = parsed(base_url)
    if headers and not _is_private(target, settings):
        raise UsageError(
            f"a header of {headers[0].source} never goes over plain http to {target.hostname}",
            "use https, or leave the header out for this server",
        )
    name = key_header.value if key_header else None
    if name and name.lower() in [header.name.lower() for header in headers]:
        raise UsageError(f"the header {name} is reserved for the key", "set it as the key, not as a header")
    return Endpoint(urlunsplit(target), headers=headers, key_header=name)


def _bound(name: str, origin: str, settings: Settings) -> Value | None:
    """Return what the configuration says for the server of `origin`: beside its base_url, or below it."""
    home = settings.top.get("base_url", (DEFAULT_BASE_URL, ""))[0]
    for table in (settings.profile, settings.top):
        if name in table and origin == origin_of(table.get("base_url", (home, ""))[0]):
            return table[name]
    return None


def find_private_key(
    base_url: str, key_file: str | None, environ: Mapping[str, str], settings: Settings
) -> KeySource | None:
    """Return where the key is that goes with a request to `base_url`, None where it goes without one.

    For the default service there is always one, and for a server whose profile names a variable; where that is not
    set, reading it raises UsageError. Raises UsageError for a server that no key may go to.
    """
    target = parsed(base_url)
    source = find_key(base_url, key_file, environ, settings)
    if source:
        _check_private(target, settings)
    elif origin_parts(target) == origin_parts(parsed(DEFAULT_BASE_URL)) or expected_variable(base_url, settings):
        return missing_key(base_url, environ, settings)
    return source


def endpoint_for(
    base_url: str, key: Secret, settings: Settings = NO_SETTINGS, headers: "tuple[Header, ...]" = ()
) -> Endpoint:
    """Return the Endpoint of a server and a key for it. Raises UsageError for a server that no key may go to."""
    _check_private(parsed(base_url), settings)
    return keyless_endpoint(base_url, settings, headers)._replace(key=key)


def _is_private(target: SplitResult, settings: Settings) -> bool:
    """Return whether a secret may go to a server: over TLS, on this machine, or where the profile of it says so."""
    if target.scheme == "https" or Endpoint(urlunsplit(target)).is_loopback:
        return True
    allowed, of = settings.profile.get("allow_http"), settings.profile.get("base_url")
    return bool(allowed and allowed.value and of and origin_parts(parsed(of.value)) == origin_parts(target))


def _check_private(target: SplitResult, settings: Settings) -> None:
    if not _is_private(target, settings):
        raise UsageError(
            f"a key never goes over plain http to {target.hostname}",
            "use https, or leave the key out for this server",
        )


def files_to_read(environ: Mapping[str, str], settings: Settings) -> list[tuple[str, str]]:
    """Return the files that a run may read although no option names them, each behind what a message calls it."""
    files = [
        ("the configuration file", config_path(environ)),
        ("the file of keys", KeyStore(config_folder(environ)).path),
    ]
    for table in (settings.profile, settings.top):
        if file := table.get("key_file"):
            with contextlib.suppress(UsageError):  # whoever reads it will say so
                files.append(("key_file", key_path(file, environ)))
    files += [(name, environ.get(name)) for name in (KEY_FILE_VARIABLE, *CA_VARIABLES)]
    return [(name, path) for name, path in files if path and os.path.exists(path)]


def find_ca_file(environ: Mapping[str, str]) -> str | None:
    """Return the file of certificates that the environment names, or None. Raises UsageError if it cannot be read."""
    named = ca_file_named(environ)
    if named is None:
        return None
    name, path = named
    if not os.access(path, os.R_OK):
        raise UsageError(f"the CA bundle {path} cannot be read", f"check {name}")
    return path
