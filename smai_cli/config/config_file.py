"""The configuration file and the built-in profiles -> Settings: checked values, each with its source."""

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from smai_cli.apis import API_NAMES
from smai_cli.common.clocks import MOST_SECONDS
from smai_cli.common.files import open_regular
from smai_cli.common.frozen import Frozen
from smai_cli.common.text import one_line
from smai_cli.config.places import config_path
from smai_cli.config.providers import PROVIDERS, Provider
from smai_cli.errors import UsageError

_LIMIT_BYTES = 1024 * 1024


class Value(NamedTuple):
    """A value and its source, as messages name it: an option, a variable, or the file with the table of a profile."""

    value: Any
    source: str


class Settings(Frozen):
    """The values of a configuration file, by the names in KEYS: `top` at its top, `profile` in the chosen profile.

    `profiles` are the names of all profiles, `name` is that of the chosen one or None. `built_in` is the built-in
    profile of that name, or None; its base URL is in `profile` unless the file overrides it. `notice` is a notice for
    the user, or empty. `is_typed` says that the profile was chosen on the command line: then it takes precedence over
    the environment. `path` is the file that was read, or None.
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
        """Return the effective value, or None. The file takes precedence over the model of a built-in profile."""
        return self.profile.get(key) or self.top.get(key) or self._built_in_value(key)

    def value_of(self, key: str, default: Any = None) -> Any:
        """Return the effective value itself, or `default`."""
        found = self.get(key)
        return found.value if found else default

    def get_typed(self, key: str) -> Value | None:
        """Return the value in the profile if that was chosen on the command line, or None."""
        return self.profile.get(key) if self.is_typed else None

    def find(self, key: str, environ: Mapping[str, str], variable: str) -> Value | None:
        """Return the effective value of a key or of its environment variable, or None."""
        found = environ.get(variable)
        return self.get_typed(key) or (Value(found, variable) if found else self.get(key))

    @property
    def needs_model(self) -> bool:
        """Whether the user has to name a model: neither the built-in profile nor the file has a default."""
        return self.built_in is not None and self.get("model") is None

    def _built_in_value(self, key: str) -> Value | None:
        is_there = key == "model" and self.built_in and self.built_in.model
        return Value(self.built_in.model, _source_of(self.built_in)) if self.built_in and is_there else None


NO_SETTINGS = Settings(top={}, profile={})


def find_settings(environ: Mapping[str, str], profile: str | None, *, is_typed: bool = False) -> Settings:
    """Return the settings with the profile of that name; without a file, those of the built-in profiles.

    `is_typed` says that the name is from the command line, not from the environment.

    Raises UsageError, with path and line, for a file that is not TOML, an unknown key, a value of the wrong type, and
    a profile that does not exist.
    """
    path = config_path(environ)
    text, notice = (None, "") if path is None else _read(path)
    if path is None or text is None:
        return _with_profile(NO_SETTINGS.replaced(notice=notice), profile, {}, is_typed=is_typed)
    top, tables = _parse(text, path)
    return _with_profile(Settings(top=top, profile={}, path=path), profile, tables, is_typed=is_typed)


def _with_profile(
    settings: Settings, name: str | None, tables: Mapping[str, dict[str, Value]], *, is_typed: bool
) -> Settings:
    """Return the settings with the profile `name`, from the file's `tables` or built in. Raises UsageError."""
    settings = settings.replaced(profiles=tuple({**tables, **PROVIDERS}), is_typed=is_typed)
    if not name:
        return settings
    if name not in settings.profiles:
        raise _unknown_profile_error(name, settings.profiles)
    built_in = PROVIDERS.get(name)
    table = tables.get(name, {})
    if built_in:
        table = {"base_url": Value(built_in.base_url, _source_of(built_in)), **table}
    return settings.replaced(profile=table, name=name, built_in=built_in)


def _unknown_profile_error(name: str, profiles: Iterable[str]) -> UsageError:
    """Return the failure for a profile that does not exist; it names a similar one, whatever its case."""
    from smai_cli.common.spelling import nearest  # for this failure only

    names = {one.lower(): one for one in profiles}
    meant = nearest(name.lower(), names)
    hint = f"did you mean {names[meant]}?" if meant else '"smai config --profiles" lists the profiles'
    return UsageError(f"no such profile: {name}", hint)


def missing_model_error(settings: Settings) -> UsageError:
    """Return the failure of a run without a model, if the profile has no default."""
    return UsageError(
        f"the profile {settings.name} has no default model",
        f'name a model with -m; "smai models -p {settings.name}" lists them',
    )


def _source_of(built_in: Provider) -> str:
    return f"the built-in profile {built_in.name}"


def _read(path: str) -> tuple[str | None, str]:
    """Return the text of the file, or None, and a notice if its folder cannot be read. Raises UsageError."""
    try:
        with open_regular(path) as file:
            data = file.read(_LIMIT_BYTES + 1)
        if len(data) > _LIMIT_BYTES:
            raise UsageError(f"{path} is larger than 1 MiB", "check the configuration file")
        return data.decode("utf-8-sig"), ""  # editors on Windows add a byte order mark
    except (FileNotFoundError, NotADirectoryError):
        return None, ""
    except OSError as exc:
        if isinstance(exc, PermissionError) and not os.path.lexists(path):
            # The home directory of another user, as after sudo -u: this user has no file. A file that exists but
            # cannot be read is an error, because it may say which server the prompt is for.
            return None, f"{path}: {exc.strerror}; going on without a configuration file"
        raise UsageError(f"{path}: {exc.strerror}", "check the configuration file") from exc
    except UnicodeDecodeError as exc:
        raise UsageError(f"{path} is not UTF-8", "convert it with iconv") from exc


def _parse(text: str, path: str) -> tuple[dict[str, Value], dict[str, dict[str, Value]]]:
    """Return the values at the top of the file, and those of each profile. Raises UsageError."""
    import tomllib  # only with a file

    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        line = re.search(r" \(at line (\d+), column \d+\)$", str(exc))
        what = f"{path}:{line[1]}: {str(exc)[: line.start()]}" if line else f"{path}: {exc}"
        is_unquoted = str(exc).startswith("Invalid value")
        raise UsageError(what, "put text in quotes" if is_unquoted else "fix it, or move it away") from exc
    except (ValueError, RecursionError) as exc:
        raise UsageError(
            f"{path}: a number is too large, or the nesting is too deep", "fix it, or move it away"
        ) from exc
    tables = content.pop("profile", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise UsageError(f"{path}: profile is not a table", "write [profile.NAME]")
    return _check_table(content, path), {name: _check_table(table, path, name) for name, table in tables.items()}


def _hint_for_unknown(key: str, value: Any) -> str:
    """Return what to write instead of a key that does not exist."""
    from smai_cli.common.spelling import nearest  # for failures only

    if isinstance(value, dict):
        return f"write [profile.{key if key in PROVIDERS else 'NAME'}]"
    if key.replace("_", "").lower() in ("key", "apikey", "token"):
        return "smai login stores a key, and key_file or key_env names one"
    if meant := nearest(key.replace("-", "_").lower(), KEYS):
        return f"did you mean {meant}?"
    return f"the keys are {', '.join(KEYS)}, and [profile.NAME]"


def _check_table(table: dict[str, Any], path: str, profile: str | None = None) -> dict[str, Value]:
    """Return the values of the table of a profile, or of those at the top of the file. Raises UsageError."""
    source = path if profile is None else f"{path} [profile.{one_line(profile, 40)}]"
    values = {}
    for key, value in table.items():
        if key not in KEYS:
            raise UsageError(f"{source}: unknown key {key}", _hint_for_unknown(key, value))
        is_fit, wanted = KEYS[key]
        if not is_fit(value):
            raise UsageError(f"{source}: {key} is not {wanted}", "fix it")
        if key in ("headers", "key_header"):
            value = _header_value(value, source)  # noqa: PLW2901  # the same, but hidden
        values[key] = Value(value, source)
    _check_http(values, is_profile=profile is not None)
    return values


def _header_value(value: Any, source: str) -> Any:
    """Return the value of `headers` as Headers, whose values are never shown, and that of `key_header` unchanged.

    Raises UsageError for an invalid header.
    """
    from smai_cli.config.headers import check_name, configured_headers  # only if configured

    if isinstance(value, dict):
        return configured_headers(value, source)
    check_name(value, source)
    return value


def _check_http(values: dict[str, Value], *, is_profile: bool) -> None:
    """Raise UsageError for an allow_http that is not for one server."""
    found = values.get("allow_http")
    if found and not is_profile:
        raise UsageError(
            f"{found.source}: allow_http at the top would be for every server",
            "put it into [profile.NAME], with a base_url",
        )
    if found and "base_url" not in values:
        raise UsageError(f"{found.source}: allow_http without a base_url", "add the base_url that it is for")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number_up_to(most: float) -> Callable[[Any], bool]:
    # False for NaN and infinity.
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most


def _is_key_variable(value: Any) -> bool:
    """Return whether a value can be the name of a variable with a key; most keys have lower-case letters.

    SMAI_API_KEY and SMAI_KEY_FILE belong to SMAI_BASE_URL, not to a profile.
    """
    is_name = isinstance(value, str) and re.fullmatch(r"[A-Z_][A-Z0-9_]*", value)
    return bool(is_name) and value not in ("SMAI_API_KEY", "SMAI_KEY_FILE")


def _is_members_table(value: Any) -> bool:
    """Return whether a value is a table of members for a request, without those that smai sets itself."""
    return (
        isinstance(value, dict) and _is_json(value) and _NOT_IN_OPTIONS.isdisjoint(value) and "=" not in "".join(value)
    )


def _is_json(value: Any) -> bool:
    """Return whether JSON can represent a value: TOML also has dates, times, NaN and infinity."""
    if isinstance(value, dict):
        return all(value) and all(map(_is_json, value.values()))
    if isinstance(value, list):
        return all(map(_is_json, value))
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _is_text_table(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _is_text_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value))


_NOT_IN_OPTIONS = frozenset(("input", "messages", "model", "stream"))
_TEXT = (_is_text, "a string with text in it")
_SECONDS = (_is_number_up_to(MOST_SECONDS), f"a number of seconds from 0 to {MOST_SECONDS}")
# Each key: the check of its value, and a description of valid values.
KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model": _TEXT,
    "base_url": _TEXT,
    "key_file": _TEXT,
    "key_command": (
        lambda value: _is_text(value) or _is_text_list(value),
        "a string or a list of strings, with text in them",
    ),
    "key_env": (_is_key_variable, "the name of a variable in capital letters, other than SMAI_API_KEY"),
    "key_header": _TEXT,
    "headers": (_is_text_table, "a table of strings"),
    "allow_http": (lambda value: isinstance(value, bool), "true or false"),
    "system": _TEXT,
    "temperature": (_is_number_up_to(2), "a number from 0 to 2"),
    "max_tokens": (lambda value: _is_count(value) and value > 0, "a whole number of 1 or more"),
    "top_p": (_is_number_up_to(1), "a number from 0 to 1"),
    "effort": _TEXT,
    "options": (_is_members_table, f"a table of JSON values, without {', '.join(sorted(_NOT_IN_OPTIONS))}"),
    "api": (lambda value: value in API_NAMES, f"{', '.join(API_NAMES[:-1])} or {API_NAMES[-1]}"),
    "responses_models": (_is_text_list, "a list of strings with text in them"),
    "accept": (_is_text_list, "a list of strings with text in them"),
    "connect_timeout": _SECONDS,
    "idle_timeout": _SECONDS,
    "max_time": _SECONDS,
    "retries": (_is_count, "a whole number of 0 or more"),
    "log": (lambda value: isinstance(value, str), "a string"),  # empty turns it off
}
