"""Options, environment and configuration -> the source of the key for a server. A key belongs to one origin."""

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn

from smai_cli.common.clocks import Deadline
from smai_cli.common.files import STDIN, STDIN_NAME
from smai_cli.config.base_url import find_base_url, origin_of, shown_origin, shown_url
from smai_cli.config.config_file import Settings, Value
from smai_cli.config.keys import (
    Secret,
    check_key,
    command_in_shell,
    command_words,
    file_in_shell,
    key_from_command,
    key_from_file,
    key_from_stdin,
)
from smai_cli.config.keystore import KeyStore
from smai_cli.config.places import DEFAULT_BASE_URL, config_folder, in_home
from smai_cli.config.providers import PROVIDERS, provider_with_key
from smai_cli.errors import UsageError

KEY_FILE_VARIABLE = "SMAI_KEY_FILE"


class KeySource:
    """The source of the key for a server: its name `where`, and `read`, which returns the key.

    `read` raises UsageError, or ClockError at the deadline.
    `in_shell` returns the expression for the key within double quotes in a shell command, None if a shell cannot read
    the key. `place`, for a key that was read, returns `where` with the path of its file.
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


def find_key(base_url: str, key_file: str | None, environ: Mapping[str, str], settings: Settings) -> KeySource | None:
    """Return the source of the key for the server of `base_url`, or None. Only the file of keys is read.

    A configured key belongs to the base_url in the same table, or else to that at the top of the file. The key of a
    typed profile takes precedence over the environment. Raises UsageError.
    """
    origin = origin_of(base_url)
    if key_file == STDIN_NAME:
        return KeySource("stdin (--key-file -)", _key_on_stdin)
    if key_file is not None:
        return _key_in_file("--key-file", lambda: key_file, "check --key-file")
    store = KeyStore(config_folder(environ))
    if settings.is_typed and settings.name:
        typed = _configured_key_for(origin, settings, (settings.profile,), environ)
        typed = typed or _stored_key(store, store.find([settings.name], origin))
        if typed or (typed := _built_in_key(origin, settings, environ)):
            return typed
    source = _key_of_smai(environ)
    if source and origin == origin_of(environ.get("SMAI_BASE_URL") or DEFAULT_BASE_URL):
        return source
    source = _configured_key_for(origin, settings, (settings.profile, settings.top), environ)
    source = source or _stored_key(store, store.find([settings.name or "", ""], origin))
    return source or _built_in_key(origin, settings, environ)


def _key_of_smai(environ: Mapping[str, str]) -> KeySource | None:
    """Return the source of the key for SMAI_BASE_URL: SMAI_API_KEY, else the file that SMAI_KEY_FILE names, or None.

    `~/` at the beginning of SMAI_KEY_FILE is the home directory.
    """
    variable = variable_of_smai(environ)
    if variable != KEY_FILE_VARIABLE:
        return _key_of_variable(variable, variable, environ) if variable else None

    def path() -> str:
        return in_home(environ[KEY_FILE_VARIABLE], "key file", KEY_FILE_VARIABLE, environ)

    return _key_in_file(KEY_FILE_VARIABLE, path, f"check {KEY_FILE_VARIABLE}", f" ({KEY_FILE_VARIABLE})")


def _key_in_file(where: str, path: Callable[[], str], hint: str, named_by: str = "") -> KeySource:
    """Return the file at `path()` as a source; `hint` is for a file that cannot be used."""
    return KeySource(
        where,
        lambda deadline: key_from_file(path(), deadline, hint),
        lambda: file_in_shell(path()),
        lambda: f"the file {path()}{named_by}",
    )


def variable_of_smai(environ: Mapping[str, str]) -> str | None:
    """Return which of SMAI_API_KEY and SMAI_KEY_FILE is used, None if neither is set."""
    return next((name for name in ("SMAI_API_KEY", KEY_FILE_VARIABLE) if environ.get(name, "").strip()), None)


def _key_of_variable(name: str, where: str, environ: Mapping[str, str]) -> KeySource:
    return KeySource(where, lambda _: check_key(environ[name], name), lambda: f"${name}")


def _stored_key(store: KeyStore, key: Secret | None) -> KeySource | None:
    return KeySource(f"smai login ({store.path})", lambda _: key) if key else None


def _built_in_key(origin: str, settings: Settings, environ: Mapping[str, str]) -> KeySource | None:
    """Return the variable with the key of the built-in profile as a source, if it is set and for this origin."""
    name = _built_in_variable(origin, settings)
    return _key_of_variable(name, name, environ) if name and environ.get(name, "").strip() else None


def _built_in_variable(origin: str, settings: Settings) -> str | None:
    """Return the variable of the built-in profile, only for its own origin; a key_env in its table replaces it."""
    built_in = settings.built_in
    if built_in is None or "key_env" in settings.profile or origin != origin_of(built_in.base_url):
        return None
    return built_in.key_env


def _configured_key_for(
    origin: str, settings: Settings, tables: Iterable[Mapping[str, Value]], environ: Mapping[str, str]
) -> KeySource | None:
    for table in tables:
        if origin == _origin_of_table(table, settings):
            _check_key_env(table.get("key_env"), origin)
            if source := _configured_key(table, environ):
                return source
    return None


def _check_key_env(variable: Value | None, origin: str) -> None:
    """Raise UsageError for the variable of a provider whose key would go to the default service."""
    provider = next((row for row in PROVIDERS.values() if variable and row.key_env == variable.value), None)
    if variable and provider and origin == origin_of(DEFAULT_BASE_URL):
        raise UsageError(
            f"{variable.source}: {variable.value} is not a key of the default service",
            f"add the base_url that it is for, or use the built-in profile {provider.name}",
        )


def _origin_of_table(table: Mapping[str, Value], settings: Settings) -> str:
    """Return the origin for which a table is: that of its base_url, or of that at the top, or the default service."""
    default = settings.top.get("base_url", (DEFAULT_BASE_URL, ""))[0]
    return origin_of(table.get("base_url", (default, ""))[0])


def configured_value(name: str, origin: str, settings: Settings) -> Value | None:
    """Return the configured value of `name` if its table is for the server of `origin`, or None."""
    tables = (table for table in (settings.profile, settings.top) if name in table)
    return next((table[name] for table in tables if origin == _origin_of_table(table, settings)), None)


def _key_on_stdin(deadline: Deadline) -> Secret:
    if os.isatty(STDIN):
        raise UsageError("the key would be visible on the terminal", "pipe it in, or run smai login once")
    # No notice while waiting: the command before the pipe may take its time.
    return key_from_stdin(STDIN, lambda: None, deadline)


def _configured_key(table: Mapping[str, Value], environ: Mapping[str, str]) -> KeySource | None:
    if file := table.get("key_file"):
        source = file.source
        return _key_in_file(f"key_file ({source})", lambda: key_path(file, environ), f"check {source}", f" ({source})")
    if command := table.get("key_command"):
        return KeySource(
            f"key_command ({command.source})",
            lambda deadline: key_from_command(_key_words(command, environ), command.source, deadline),
            lambda: command_in_shell(_key_words(command, environ)),
        )
    variable = table.get("key_env")
    if variable and environ.get(variable.value, "").strip():
        return _key_of_variable(variable.value, f"{variable.value} (key_env, {variable.source})", environ)
    return None


def key_path(file: Value, environ: Mapping[str, str]) -> str:
    """Return the path of a configured key file. Raises UsageError for `~/` without a home directory."""
    return os.path.join(config_folder(environ) or "", in_home(file.value, "key_file", file.source, environ))


def _key_words(command: Value, environ: Mapping[str, str]) -> list[str]:
    """Return the words of a configured key command, with `~/` expanded as in a shell. Raises UsageError."""
    words = command_words(command.value, command.source)
    return [in_home(word, "key_command", command.source, environ) for word in words]


def foreign_key(base_url: str, environ: Mapping[str, str]) -> str:
    """Return a sentence if smai's own key is set, but for another server than `base_url`; else empty.

    Raises UsageError.
    """
    variable = variable_of_smai(environ)
    owner = environ.get("SMAI_BASE_URL") or DEFAULT_BASE_URL
    if not variable or origin_of(owner) == origin_of(base_url):
        return ""
    return f"{variable} is set, but belongs to {shown_origin(origin_of(owner))}"


def expected_variable(base_url: str, settings: Settings) -> str | None:
    """Return the variable that the configuration, or a built-in profile, names for the key of a server, or None."""
    origin = origin_of(base_url)
    variable = configured_value("key_env", origin, settings)
    return str(variable.value) if variable else _built_in_variable(origin, settings)


def key_hint(base_url: str, environ: Mapping[str, str], settings: Settings) -> str:
    """Return the hint for giving a key to a server that got none."""
    if foreign := foreign_key(base_url, environ):
        return f"{foreign}; {foreign_key_hint(base_url, environ, settings)}"
    origin = origin_of(base_url)
    for provider in PROVIDERS.values():
        is_set = environ.get(provider.key_env or "", "").strip()
        if is_set and provider != settings.built_in and origin == origin_of(provider.base_url):
            return f"{provider.key_env} is set: -p {provider.name} uses it"
    with contextlib.suppress(UsageError):  # an invalid URL in the variable is ignored here
        if origin_of(environ.get("SMAI_BASE_URL") or DEFAULT_BASE_URL) == origin:
            return f'set SMAI_API_KEY, or use --key-file or "{_login_command(base_url, environ, settings)}"'
    return f'use --key-file or "{_login_command(base_url, environ, settings)}"'


def foreign_key_hint(base_url: str, environ: Mapping[str, str], settings: Settings) -> str:
    """Return the hint if smai's own key is set, but for another server than `base_url`."""
    return f'use --key-file, SMAI_BASE_URL or "{_login_command(base_url, environ, settings)}"'


def _login_command(base_url: str, environ: Mapping[str, str], settings: Settings) -> str:
    """Return the command that stores a key for the server of a run with these settings."""
    if settings.name and origin_of(base_url) == _origin_of_table(settings.profile, settings):
        return f"smai login -p {settings.name}"
    with contextlib.suppress(UsageError):  # an invalid URL in the variable is ignored here
        if find_base_url(None, environ, settings)[0] == base_url:
            return "smai login"
    return f"smai login --base-url {shown_url(base_url)}"


def missing_key_source(base_url: str, environ: Mapping[str, str], settings: Settings) -> KeySource:
    """Return the source for a missing key of a server that needs one; reading it raises UsageError."""
    server = shown_origin(origin_of(base_url))
    variable = expected_variable(base_url, settings)
    if variable is None and (foreign := foreign_key(base_url, environ)):
        hint = foreign_key_hint(base_url, environ, settings)

        def refuse(_: Deadline) -> NoReturn:
            raise UsageError(f"no API key for {server}: {foreign}", hint)

        return KeySource(f"{foreign.partition(' ')[0]}, which belongs to another server", refuse)
    variable = variable or "SMAI_API_KEY"
    ways = [f'run "{_login_command(base_url, environ, settings)}" or set {variable}']
    other = provider_with_key(environ)
    if other and variable == "SMAI_API_KEY":
        ways.append(f'{other.key_env} is set: "smai ask -p {other.name}" uses it')
    hint = "; ".join([*ways, "--mock needs no key"])

    def fail(_: Deadline) -> NoReturn:
        raise UsageError(f"no API key for {server}", hint)

    return KeySource(f"{variable}, which is not set", fail, lambda: f"${variable}")
