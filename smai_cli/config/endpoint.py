"""Flags, environment and configuration -> the Endpoint: where the request goes, and what may go with it.

A key, and a header of the configuration, belong to an origin (scheme, host, port) and are never sent to another one.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple, NoReturn
from urllib.parse import SplitResult, unquote_plus, urlsplit, urlunsplit

from smai_cli.clocks import Deadline
from smai_cli.config.config_file import NO_SETTINGS, Settings, Value
from smai_cli.config.keys import (
    Secret,
    Secrets,
    checked_key,
    command_in_shell,
    command_words,
    file_in_shell,
    key_from_command,
    key_from_file,
    key_from_stdin,
)
from smai_cli.config.keystore import KeyStore
from smai_cli.config.places import (
    CA_VARIABLES,
    DEFAULT_BASE_URL,
    ca_file_named,
    config_folder,
    config_path,
    home_folder,
)
from smai_cli.errors import UsageError
from smai_cli.files import STDIN_NAME

if TYPE_CHECKING:
    from smai_cli.config.headers import Header

DEFAULT_MODEL = "gpt-4.1"
FOREIGN_KEY_HINT = "use --key-file, SMAI_BASE_URL or smai login"
_STDIN = 0
# In a query, what is known to be no secret: the version of the API is a date, and messages are about it.
_OPEN_NAMES = ("api-version",)
# What the APIs put behind a base URL.
_REQUEST_PATHS = ("/chat/completions", "/responses")
_DEFAULT_PORTS = {"http": 80, "https": 443}


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
        values = [value for name, value in _query(urlsplit(self.base_url).query) if name not in _OPEN_NAMES]
        values = sorted({*values, *map(unquote_plus, values)} - {""}, key=len, reverse=True)
        sent = [secret for header in self.headers for secret in header.secrets]
        return Secrets([*([self.key] if self.key else []), *sent, *map(Secret, values)])

    def key_named(self, hint: str) -> str:
        """Return the next step after a refusal, with the place of `the key` in it, or that there was none."""
        if "the key" not in hint or not self.key_note:
            return hint
        return hint.replace("the key", f"the key from {self.key_note}", 1) if self.key else self.key_note

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
        import ipaddress  # noqa: PLC0415  # for http, and where requests has loaded it anyway

        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return address in ipaddress.ip_network("127.0.0.0/8") or host == "::1"


class KeySource:
    """Where the key for a server is: `where` in words, and `read`, which returns it.

    `read` raises UsageError, or ClockError at the deadline.
    `in_shell` returns what stands for the key between the double quotes of a shell command, None where a shell
    cannot read it. `place`, for a key that was read, returns `where` with the path of its file.
    """

    def __init__(
        self,
        where: str,
        read: Callable[[Deadline], Secret],
        in_shell: Callable[[], str | None] = lambda: None,
        place: Callable[[], str] | None = None,
    ) -> None:
        self.where = where
        self.read = read
        self.in_shell = in_shell
        self.place = place or (lambda: where)


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
        return keyless._replace(key_note=f"no key was sent; {_key_hint(chosen, environ)}")
    return keyless._replace(key=source.read(deadline or Deadline()), key_note=source.place())


def keyless_endpoint(base_url: str, settings: Settings, headers: "tuple[Header, ...]" = ()) -> Endpoint:
    """Return the Endpoint of a server without a key: with the typed `headers`, and what the configuration has for it.

    Raises UsageError for headers to a server that none may go to, and for one that is where the key goes.
    """
    origin = origin_of(base_url)
    key_header = _bound("key_header", origin, settings)
    configured = _bound("headers", origin, settings)
    if configured:
        from smai_cli.config.headers import with_configured  # noqa: PLC0415  # for those who have some

        headers = with_configured(headers, configured.value)
    target = _parse(base_url)
    if headers and not _is_private(target, settings):
        raise UsageError(
            f"a header of {headers[0].source} never goes over plain http to {target.hostname}",
            "use https, or leave the header out for this server",
        )
    name = key_header.value if key_header else None
    if name and name.lower() in [header.name.lower() for header in headers]:
        raise UsageError(f"the header {name} is where the key goes", "give the key as a key, and leave the header out")
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

    For the default service there is always one; where none was given, reading it raises UsageError. Raises
    UsageError for a server that no key may go to.
    """
    target = _parse(base_url)
    source = find_key(base_url, key_file, environ, settings)
    if source:
        _check_private(target, settings)
    elif _origin(target) == _origin(_parse(DEFAULT_BASE_URL)):
        if home := _foreign_home(base_url, environ):
            return KeySource("SMAI_API_KEY, which belongs to another server", lambda _: _foreign_key_alone(home))
        return KeySource("SMAI_API_KEY, which is not set", _no_key, lambda: "$SMAI_API_KEY")
    return source


def _no_key(_: Deadline) -> NoReturn:
    raise UsageError(
        "no API key", "set SMAI_API_KEY, give --key-file, or run smai login once; --mock rehearses without a key"
    )


def _foreign_key_alone(home: str) -> NoReturn:
    raise UsageError(f"no API key: SMAI_API_KEY is set, but belongs to {home}", FOREIGN_KEY_HINT)


def foreign_key(base_url: str, environ: Mapping[str, str]) -> str:
    """Return that SMAI_API_KEY is set and not for the server of `base_url`, or nothing. Raises UsageError."""
    home = _foreign_home(base_url, environ)
    return f"SMAI_API_KEY is set, but belongs to {home}" if home else ""


def _foreign_home(base_url: str, environ: Mapping[str, str]) -> str:
    """Return the server that SMAI_API_KEY belongs to, where it is set and not for that of `base_url`, or nothing."""
    home = environ.get("SMAI_BASE_URL") or DEFAULT_BASE_URL
    if not environ.get("SMAI_API_KEY", "").strip() or origin_of(home) == origin_of(base_url):
        return ""
    parts = _parse(home)
    return f"{parts.scheme}://{parts.netloc}"


def _key_hint(base_url: str, environ: Mapping[str, str]) -> str:
    """Return how a server that is asked without a key can get one."""
    if foreign := foreign_key(base_url, environ):
        return f"{foreign}; {FOREIGN_KEY_HINT}"
    with contextlib.suppress(UsageError):  # a variable that is no URL counts for nothing here
        if origin_of(environ.get("SMAI_BASE_URL") or DEFAULT_BASE_URL) == origin_of(base_url):
            return "set SMAI_API_KEY, or use --key-file or smai login"
    return "use --key-file or smai login"


def endpoint_for(
    base_url: str, key: Secret, settings: Settings = NO_SETTINGS, headers: "tuple[Header, ...]" = ()
) -> Endpoint:
    """Return the Endpoint of a server and a key for it. Raises UsageError for a server that no key may go to."""
    _check_private(_parse(base_url), settings)
    return keyless_endpoint(base_url, settings, headers)._replace(key=key)


def _is_private(target: SplitResult, settings: Settings) -> bool:
    """Return whether a secret may go to a server: over TLS, on this machine, or where the profile of it says so."""
    if target.scheme == "https" or Endpoint(urlunsplit(target)).is_loopback:
        return True
    allowed, of = settings.profile.get("allow_http"), settings.profile.get("base_url")
    return bool(allowed and allowed.value and of and _origin(_parse(of.value)) == _origin(target))


def _check_private(target: SplitResult, settings: Settings) -> None:
    if not _is_private(target, settings):
        raise UsageError(
            f"a key never goes over plain http to {target.hostname}",
            "use https, or leave the key out for this server",
        )


def find_base_url(base_url: str | None, environ: Mapping[str, str], settings: Settings) -> tuple[str, str]:
    """Return the base URL that counts, and where it comes from. Raises UsageError."""
    default = Value(DEFAULT_BASE_URL, "default")
    typed = Value(base_url, "--base-url") if base_url else None
    found, source = typed or settings.find("base_url", environ, "SMAI_BASE_URL") or default
    return urlunsplit(_parse(found, source)), source


def find_key(base_url: str, key_file: str | None, environ: Mapping[str, str], settings: Settings) -> KeySource | None:
    """Return where the key for the server of `base_url` is, or None. Nothing is read but the file of keys.

    A configured key belongs to the server that is configured beside it, or above it. The key of a typed profile goes
    before that of the environment. Raises UsageError.
    """
    origin = origin_of(base_url)
    if key_file == STDIN_NAME:
        return KeySource("stdin (--key-file -)", _key_on_stdin)
    if key_file is not None:
        return KeySource(
            "--key-file",
            lambda deadline: key_from_file(key_file, deadline),
            lambda: file_in_shell(key_file),
            lambda: f"the file {key_file}",
        )
    store = KeyStore(config_folder(environ))
    if settings.is_typed and settings.name:
        typed = _configured_key_for(origin, settings, (settings.profile,), environ)
        if typed or (typed := _kept_key(store, store.find([settings.name], origin))):
            return typed
    if environ.get("SMAI_API_KEY", "").strip() and origin == origin_of(
        environ.get("SMAI_BASE_URL") or DEFAULT_BASE_URL
    ):
        return KeySource(
            "SMAI_API_KEY", lambda _: checked_key(environ["SMAI_API_KEY"], "SMAI_API_KEY"), lambda: "$SMAI_API_KEY"
        )
    source = _configured_key_for(origin, settings, (settings.profile, settings.top), environ)
    return source or _kept_key(store, store.find([settings.name or "", ""], origin))


def _kept_key(store: KeyStore, key: Secret | None) -> KeySource | None:
    return KeySource(f"smai login ({store.path})", lambda _: key) if key else None


def _configured_key_for(
    origin: str, settings: Settings, tables: Iterable[Mapping[str, Value]], environ: Mapping[str, str]
) -> KeySource | None:
    home = settings.top.get("base_url", (DEFAULT_BASE_URL, ""))[0]
    for table in tables:
        source = _configured_key(table, environ)
        if source and origin == origin_of(table.get("base_url", (home, ""))[0]):
            return source
    return None


def _key_on_stdin(deadline: Deadline) -> Secret:
    if os.isatty(_STDIN):
        raise UsageError("the key would be seen on the terminal", "pipe it in, or run smai login once")
    # In a pipeline the key comes when it comes: that is no reason for a notice.
    return key_from_stdin(_STDIN, lambda: None, deadline)


def _configured_key(table: Mapping[str, Value], environ: Mapping[str, str]) -> KeySource | None:
    if file := table.get("key_file"):
        return KeySource(
            f"key_file ({file.source})",
            lambda deadline: key_from_file(_key_path(file, environ), deadline, f"check {file.source}"),
            lambda: file_in_shell(_key_path(file, environ)),
            lambda: f"the file {_key_path(file, environ)} ({file.source})",
        )
    if command := table.get("key_command"):
        return KeySource(
            f"key_command ({command.source})",
            lambda deadline: key_from_command(_key_words(command, environ), command.source, deadline),
            lambda: command_in_shell(_key_words(command, environ), command.source),
        )
    return None


def _key_path(file: Value, environ: Mapping[str, str]) -> str:
    """Return the path of a configured key file. Raises UsageError where it is in a home, and there is none."""
    name: str = file.value
    if not name.startswith("~/"):
        return os.path.join(config_folder(environ) or "", name)
    return _in_home(name, "key_file", file, environ)


def _key_words(command: Value, environ: Mapping[str, str]) -> list[str]:
    """Return the words of a configured key command, `~/` before one as a shell takes it. Raises UsageError."""
    words = command_words(command.value, command.source)
    return [_in_home(word, "key_command", command, environ) if word.startswith("~/") else word for word in words]


def _in_home(name: str, key: str, found: Value, environ: Mapping[str, str]) -> str:
    home = home_folder(environ)
    if home is None:
        raise UsageError(f"there is no home for the {key} {name}", f"set HOME, or check {found.source}")
    return home + name[1:]


def files_to_read(environ: Mapping[str, str], settings: Settings) -> list[tuple[str, str]]:
    """Return the files that a run may read although no option names them, each behind what a message calls it."""
    files = [
        ("the configuration file", config_path(environ)),
        ("the file of keys", KeyStore(config_folder(environ)).path),
    ]
    for table in (settings.profile, settings.top):
        if file := table.get("key_file"):
            with contextlib.suppress(UsageError):  # whoever reads it will say so
                files.append(("key_file", _key_path(file, environ)))
    files += [(name, environ.get(name)) for name in CA_VARIABLES]
    return [(name, path) for name, path in files if path and os.path.exists(path)]


def origin_of(base_url: str) -> str:
    """Return scheme, host and port of a base URL (RFC 6454, section 4). Raises UsageError."""
    scheme, host, port = _origin(_parse(base_url))
    return f"{scheme}://{host}:{port}"


def find_ca_file(environ: Mapping[str, str]) -> str | None:
    """Return the file of certificates that the environment names, or None. Raises UsageError if it cannot be read."""
    named = ca_file_named(environ)
    if named is None:
        return None
    name, path = named
    if not os.access(path, os.R_OK):
        raise UsageError(f"the CA bundle {path} cannot be read", f"check {name}")
    return path


def shown_url(url: str) -> str:
    """Return a URL, or what was meant to be one, as messages show it.

    It has no user and no password, of its query the names only, and no fragment: any of them can be a secret. What
    stands in the place of a port and is none is the beginning of a password.
    """
    before, _, query = url.partition("#")[0].partition("?")
    scheme = re.match(r"(?i)https?:/*|[a-z][a-z0-9+.-]*://|", before)
    head = scheme[0] if scheme else ""
    host, slash, path = before[len(head) :].partition("/")
    host = host.rpartition("@")[2]
    if "@" in path:  # a password with a slash in it, perhaps
        path = f"...@{path.rpartition('@')[2]}"
    if not re.fullmatch(r"(\[[^\]]*\]|[^:]*)(:[0-9]*)?", host):
        host = f"{host.partition(':')[0]}:..."
    shown = "&".join(_shown_pair(name, value) for name, value in _query(query))
    return f"{head}{host}{slash}{path}{'?' if shown else ''}{shown}"


def _shown_pair(name: str, value: str) -> str:
    shown = value if name in _OPEN_NAMES or not value else "..."
    return f"{name}={shown}" if name else shown


def _query(query: str) -> list[tuple[str, str]]:
    """Return the names and the values in a query; what has no sign between them is all value."""
    pairs = [part.partition("=") for part in query.split("&") if part]
    return [(name, value) if sign else ("", name) for name, sign, value in pairs]


def _parse(base_url: str, source: str = "--base-url and SMAI_BASE_URL") -> SplitResult:
    """Split and check a base URL.

    Credentials in it are dropped, because only a key is ever sent, and so is the path that a request puts behind it:
    documentation shows the whole URL, and that is what is copied.
    """
    shown = shown_url(base_url)
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
    return parts._replace(netloc=host if port is None else f"{host}:{port}", path=_base_path(parts.path), fragment="")


def _base_path(path: str) -> str:
    for request_path in _REQUEST_PATHS:
        base = path.rstrip("/").removesuffix(request_path)
        if base != path.rstrip("/"):
            return base
    return path


def _origin(parts: SplitResult) -> tuple[str, str | None, int]:
    """Return scheme, host and port (RFC 6454, section 4)."""
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS[parts.scheme]
