"""Options, environment and configuration -> where the key for a server is. A key belongs to one origin."""

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn

from smai_cli.clocks import Deadline
from smai_cli.config.base_url import origin_of, parsed
from smai_cli.config.config_file import Settings, Value
from smai_cli.config.keys import (
    Secret,
    checked_key,
    command_in_shell,
    command_words,
    file_in_shell,
    key_from_command,
    key_from_file,
    key_from_stdin,
)
from smai_cli.config.keystore import KeyStore
from smai_cli.config.places import DEFAULT_BASE_URL, config_folder, home_folder
from smai_cli.errors import UsageError
from smai_cli.files import STDIN_NAME

FOREIGN_KEY_HINT = "use --key-file, SMAI_BASE_URL or smai login"
_STDIN = 0


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
            lambda deadline: key_from_file(key_path(file, environ), deadline, f"check {file.source}"),
            lambda: file_in_shell(key_path(file, environ)),
            lambda: f"the file {key_path(file, environ)} ({file.source})",
        )
    if command := table.get("key_command"):
        return KeySource(
            f"key_command ({command.source})",
            lambda deadline: key_from_command(_key_words(command, environ), command.source, deadline),
            lambda: command_in_shell(_key_words(command, environ), command.source),
        )
    return None


def key_path(file: Value, environ: Mapping[str, str]) -> str:
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


def foreign_key(base_url: str, environ: Mapping[str, str]) -> str:
    """Return that SMAI_API_KEY is set and not for the server of `base_url`, or nothing. Raises UsageError."""
    home = _foreign_home(base_url, environ)
    return f"SMAI_API_KEY is set, but belongs to {home}" if home else ""


def _foreign_home(base_url: str, environ: Mapping[str, str]) -> str:
    """Return the server that SMAI_API_KEY belongs to, where it is set and not for that of `base_url`, or nothing."""
    home = environ.get("SMAI_BASE_URL") or DEFAULT_BASE_URL
    if not environ.get("SMAI_API_KEY", "").strip() or origin_of(home) == origin_of(base_url):
        return ""
    parts = parsed(home)
    return f"{parts.scheme}://{parts.netloc}"


def key_hint(base_url: str, environ: Mapping[str, str]) -> str:
    """Return how a server that is asked without a key can get one."""
    if foreign := foreign_key(base_url, environ):
        return f"{foreign}; {FOREIGN_KEY_HINT}"
    with contextlib.suppress(UsageError):  # a variable that is no URL counts for nothing here
        if origin_of(environ.get("SMAI_BASE_URL") or DEFAULT_BASE_URL) == origin_of(base_url):
            return "set SMAI_API_KEY, or use --key-file or smai login"
    return "use --key-file or smai login"


def missing_key(base_url: str, environ: Mapping[str, str]) -> KeySource:
    """Return what stands for the key of a server that needs one and has none; reading it raises UsageError."""
    if home := _foreign_home(base_url, environ):
        return KeySource("SMAI_API_KEY, which belongs to another server", lambda _: _foreign_key_alone(home))
    return KeySource("SMAI_API_KEY, which is not set", _no_key, lambda: "$SMAI_API_KEY")


def _no_key(_: Deadline) -> NoReturn:
    raise UsageError(
        "no API key", "set SMAI_API_KEY, give --key-file, or run smai login once; --mock rehearses without a key"
    )


def _foreign_key_alone(home: str) -> NoReturn:
    raise UsageError(f"no API key: SMAI_API_KEY is set, but belongs to {home}", FOREIGN_KEY_HINT)
