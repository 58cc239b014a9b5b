"""The configuration file and the built-in profiles -> Settings: values checked, each with the place it came from.

    model = "gpt-4.1"

    [profile.local]
    base_url = "http://localhost:11434/v1"

A profile's values go before those at the top of the file. A table [profile.openai] overrides the built-in profile of
that name, key by key.
"""

import math
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from smai_cli.apis import API_NAMES
from smai_cli.common.files import open_regular
from smai_cli.common.text import one_line
from smai_cli.config.places import config_path
from smai_cli.config.providers import PROVIDERS, Provider
from smai_cli.errors import UsageError

MOST_SECONDS = 1_000_000
_LIMIT_BYTES = 1024 * 1024


class Value(NamedTuple):
    """A value, and its source: the file, and the table of a profile."""

    value: Any
    source: str


class Settings(NamedTuple):
    """What a configuration file says: `top` at its top, `profile` in the chosen profile, by the names in KEYS.

    `profiles` are the names of all profiles, `name` is that of the chosen one or None. `built_in` is the built-in
    profile of that name, or None; its base URL is in `profile` unless the file has another one. `notice` is what a
    user has to know although nothing failed, or empty. `is_typed` says that the profile was chosen on the command
    line: then it goes before the environment. `path` is the file that was read, None where there is none.
    """

    top: dict[str, Value]
    profile: dict[str, Value]
    profiles: tuple[str, ...] = tuple(PROVIDERS)
    name: str | None = None
    built_in: Provider | None = None
    notice: str = ""
    is_typed: bool = False
    path: str | None = None

    def get(self, key: str) -> Value | None:
        """Return the effective value, or None. The model of a built-in profile goes after the file."""
        return self.profile.get(key) or self.top.get(key) or self._built_in_value(key)

    def get_typed(self, key: str) -> Value | None:
        """Return the value that a typed profile has, or None."""
        return self.profile.get(key) if self.is_typed else None

    def find(self, key: str, environ: Mapping[str, str], variable: str) -> Value | None:
        """Return the effective value, which may be that of an environment variable, or None."""
        found = environ.get(variable)
        return self.get_typed(key) or (Value(found, variable) if found else self.get(key))

    @property
    def needs_model(self) -> bool:
        """Whether the user has to name a model: the built-in profile has no default, and the file names none."""
        return self.built_in is not None and self.get("model") is None

    def _built_in_value(self, key: str) -> Value | None:
        is_there = key == "model" and self.built_in and self.built_in.model
        return Value(self.built_in.model, _source_of(self.built_in)) if self.built_in and is_there else None


NO_SETTINGS = Settings({}, {})


def find_settings(environ: Mapping[str, str], profile: str | None, *, is_typed: bool = False) -> Settings:
    """Return the settings with the profile of that name; those of the built-in profiles where there is no file.

    `is_typed` says that the name is from the command line, and not from the environment.

    Raises UsageError, with path and line, for a file that is not TOML, an unknown key, a value of the wrong type, and
    a profile that does not exist.
    """
    path = config_path(environ)
    text, notice = (None, "") if path is None else _read(path)
    if path is None or text is None:
        return _with_profile(Settings({}, {}, notice=notice), profile, {}, is_typed=is_typed)
    top, tables = _parsed(text, path)
    return _with_profile(Settings(top, {}, path=path), profile, tables, is_typed=is_typed)


def _with_profile(
    settings: Settings, name: str | None, tables: Mapping[str, dict[str, Value]], *, is_typed: bool
) -> Settings:
    """Return the settings with the profile `name` chosen, of the file's `tables` or built in. Raises UsageError."""
    settings = settings._replace(profiles=tuple({**tables, **PROVIDERS}), is_typed=is_typed)
    if not name:
        return settings
    if name not in settings.profiles:
        raise UsageError(f"there is no profile {name}", '"smai config --profiles" lists the profiles')
    built_in = PROVIDERS.get(name)
    table = tables.get(name, {})
    if built_in:
        table = {"base_url": Value(built_in.base_url, _source_of(built_in)), **table}
    return settings._replace(profile=table, name=name, built_in=built_in)


def no_model(settings: Settings) -> UsageError:
    """Return the failure of a run with a profile that has no default model, where the user names none."""
    return UsageError(
        f"the profile {settings.name} has no default model",
        f'name a model with -m; "smai models -p {settings.name}" lists them',
    )


def _source_of(built_in: Provider) -> str:
    return f"the built-in profile {built_in.name}"


def _read(path: str) -> tuple[str | None, str]:
    """Return the text of the file, None where there is none, and a notice where nobody can know. Raises UsageError."""
    try:
        with open_regular(path) as file:
            data = file.read(_LIMIT_BYTES + 1)
        if len(data) > _LIMIT_BYTES:
            raise UsageError(f"{path} is larger than 1 MiB", "check the configuration file")
        return data.decode("utf-8-sig"), ""  # editors on Windows begin a file with a byte order mark
    except (FileNotFoundError, NotADirectoryError):
        return None, ""
    except OSError as exc:
        if isinstance(exc, PermissionError) and not os.path.lexists(path):
            # The home of somebody else, as after sudo -u: there is no file for this user. One that is there and
            # cannot be read is another matter, for it may say which server the prompt is for.
            return None, f"{path}: {exc.strerror}; going on without a configuration file"
        raise UsageError(f"{path}: {exc.strerror}", "check the configuration file") from exc
    except UnicodeDecodeError as exc:
        raise UsageError(f"{path} is not UTF-8", "convert it with iconv") from exc


def _parsed(text: str, path: str) -> tuple[dict[str, Value], dict[str, dict[str, Value]]]:
    """Return the values at the top of the file, and those of each profile. Raises UsageError."""
    import tomllib  # only for those who have a file

    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        line = re.search(r" \(at line (\d+), column \d+\)$", str(exc))
        what = f"{path}:{line[1]}: {str(exc)[: line.start()]}" if line else f"{path}: {exc}"
        raise UsageError(what, "fix it, or move it away") from exc
    except (ValueError, RecursionError) as exc:
        raise UsageError(
            f"{path}: a number is too large, or the nesting is too deep", "fix it, or move it away"
        ) from exc
    tables = content.pop("profile", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise UsageError(f"{path}: profile is not a table", "write [profile.NAME]")
    return _checked(content, path), {name: _checked(table, path, name) for name, table in tables.items()}


def _checked(table: dict[str, Any], path: str, profile: str | None = None) -> dict[str, Value]:
    """Return the values of the table of a profile, or of those at the top of the file. Raises UsageError."""
    source = path if profile is None else f"{path} [profile.{one_line(profile, 40)}]"
    values = {}
    for key, value in table.items():
        if key not in KEYS:
            raise UsageError(f"{source}: unknown key {key}", f"the keys are {', '.join(KEYS)}, and [profile.NAME]")
        is_fit, wanted = KEYS[key]
        if not is_fit(value):
            raise UsageError(f"{source}: {key} is not {wanted}", "fix it")
        if key in ("headers", "key_header"):
            value = _header_value(value, source)  # noqa: PLW2901  # the same, with nothing to be seen
        values[key] = Value(value, source)
    _check_http(values, is_profile=profile is not None)
    return values


def _header_value(value: Any, source: str) -> Any:
    """Return headers so that none is ever shown, and a name as it is. Raises UsageError for what can be none."""
    from smai_cli.config.headers import check_name, configured_headers  # for those who have some

    if isinstance(value, dict):
        return configured_headers(value, source)
    check_name(value, source)
    return value


def _check_http(values: dict[str, Value], *, is_profile: bool) -> None:
    """Raise UsageError for leave to use plain http that is not for one server."""
    found = values.get("allow_http")
    if found and not is_profile:
        raise UsageError(
            f"{found.source}: allow_http at the top would be for every server",
            "put it into [profile.NAME], with a base_url",
        )
    if found and "base_url" not in values:
        raise UsageError(f"{found.source}: allow_http without a base_url", "add the base_url that it is for")


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and _in_range(value)


def _in_range(value: float) -> bool:
    return 0 <= value <= MOST_SECONDS  # which NaN is not, and infinity


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _number_to(most: float) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most


def _variable(value: Any) -> bool:
    """Return whether a value can name a variable that holds a key; most keys themselves have small letters.

    SMAI_API_KEY and SMAI_KEY_FILE belong to SMAI_BASE_URL, and so to no profile.
    """
    is_name = isinstance(value, str) and re.fullmatch(r"[A-Z_][A-Z0-9_]*", value)
    return bool(is_name) and value not in ("SMAI_API_KEY", "SMAI_KEY_FILE")


def _members(value: Any) -> bool:
    """Return whether a value is a table of members for a request, none of which smai sets otherwise."""
    return isinstance(value, dict) and _json(value) and _NOT_IN_OPTIONS.isdisjoint(value) and "=" not in "".join(value)


def _json(value: Any) -> bool:
    """Return whether JSON can have a value: TOML has dates and times as well, NaN and infinity."""
    if isinstance(value, dict):
        return all(value) and all(map(_json, value.values()))
    if isinstance(value, list):
        return all(map(_json, value))
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _named_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_text, value))


_NOT_IN_OPTIONS = frozenset(("input", "messages", "model", "stream"))
_NUMBER = f"a number of seconds from 0 to {MOST_SECONDS}"
# Each key: what it must be, in code and in words.
KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model": (_text, "a text"),
    "base_url": (_text, "a text"),
    "key_file": (_text, "a text"),
    "key_command": (lambda value: _text(value) or _texts(value), "a text or a list of texts"),
    "key_env": (_variable, "the name of a variable in capital letters, other than SMAI_API_KEY"),
    "key_header": (_text, "a text"),
    "headers": (_named_texts, "a table of texts"),
    "allow_http": (lambda value: isinstance(value, bool), "true or false"),
    "system": (_text, "a text"),
    "temperature": (_number_to(2), "a number from 0 to 2"),
    "max_tokens": (lambda value: _count(value) and value > 0, "a whole number from 1 up"),
    "top_p": (_number_to(1), "a number from 0 to 1"),
    "effort": (_text, "a text"),
    "options": (_members, f"a table of JSON values, without {', '.join(sorted(_NOT_IN_OPTIONS))}"),
    "api": (lambda value: value in API_NAMES, f"{', '.join(API_NAMES[:-1])} or {API_NAMES[-1]}"),
    "responses_models": (_texts, "a list of texts"),
    "accept": (_texts, "a list of texts"),
    "connect_timeout": (_seconds, _NUMBER),
    "idle_timeout": (_seconds, _NUMBER),
    "max_time": (_seconds, _NUMBER),
    "retries": (_count, "a number from 0 up"),
    "log": (lambda value: isinstance(value, str), "a text"),  # an empty one turns that at the top off
}
