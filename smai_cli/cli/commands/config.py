"""`smai config`: show the effective settings and their sources."""

import contextlib
import json
import os
from typing import Any

import click

from smai_cli.cli.commands.ask import ask
from smai_cli.cli.parsing.server_options import profile_name_option
from smai_cli.cli.parsing.shared_options import is_typed
from smai_cli.common.text import escaped, on_a_line
from smai_cli.config.base_url import find_base_url, shown_url
from smai_cli.config.config_file import KEYS, Settings, find_settings
from smai_cli.config.key_source import expected_variable, find_key, foreign_key, foreign_key_hint
from smai_cli.config.log_file import VARIABLE, find_log
from smai_cli.config.places import config_path
from smai_cli.errors import UsageError
from smai_cli.output.descriptors import Output, say

_VARIABLES = {"model": "SMAI_MODEL"}
_KEYS_OF_KEYS = ("key_file", "key_command", "key_env")


@click.command(epilog="Manual: man smai-config.")
@profile_name_option
@click.option("--path", is_flag=True, help="Print the path of the configuration file.")
@click.option("--profiles", is_flag=True, help="List all profiles: server, variable of the key, and whether it is set.")
def config(profile: str | None, *, path: bool, profiles: bool) -> int:
    """Show the settings and their sources, or list the profiles.

    The output is a valid configuration file, without the key and the values of headers.
    """
    output = Output()
    if path:
        found = config_path(os.environ)
        if found is None:
            raise UsageError("no home directory, so no configuration file", "set HOME or XDG_CONFIG_HOME")
        output.show(os.fsencode(f"{found}\n"))  # a script needs the very name
        return 0
    if profiles:
        output.show_lines(_profile_lines())
        return 0
    settings = find_settings(os.environ, profile, is_typed=is_typed("profile"))
    if settings.notice:
        say(settings.notice)
    output.show_lines(_lines(settings))
    return 0


def _profile_lines() -> list[str]:
    """Return a line for each profile, in columns: name, server, variable of the key, and state of the key."""
    rows = [_row_or_error(name) for name in find_settings(os.environ, None).profiles]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return ["  ".join([*(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows]


def _row_or_error(name: str) -> tuple[str, str, str, str]:
    """Return the columns of a profile; if it cannot be used, the last one is the reason."""
    try:
        return _profile_row(name)
    except UsageError as error:
        return on_a_line(name), "-", "-", on_a_line(str(error))


def _profile_row(name: str) -> tuple[str, str, str, str]:
    settings = find_settings(os.environ, name, is_typed=True)
    base_url, _ = find_base_url(None, os.environ, settings)
    variable = expected_variable(base_url, settings)
    key = find_key(base_url, None, os.environ, settings)
    if variable:
        is_used = key is not None and key.where.partition(" ")[0] == variable
        state = "set" if os.environ.get(variable, "").strip() else "not set"
        state += f", and the key is from {key.where}" if key and not is_used else ""
    else:
        state = f"key from {key.where}" if key else "no key"
    return on_a_line(name), on_a_line(shown_url(base_url)), variable or "-", on_a_line(state)


def _lines(settings: Settings) -> list[str]:
    rows = [_row(name, *_found(name, settings)) for name in KEYS if name not in _KEYS_OF_KEYS]
    width = min(40, max(len(value) for value, _ in rows))
    base_url, _ = find_base_url(None, os.environ, settings)
    key = find_key(base_url, None, os.environ, settings)
    return [
        on_a_line(f"# profile: {settings.name or 'none'}{', built in' if settings.built_in else ''}"),
        *(f"{value:{width}}  # {on_a_line(source)}" for value, source in rows),
        on_a_line(f"# key: set, from {key.where}" if key else f"# key: {_no_key(base_url, settings)}"),
    ]


def _no_key(base_url: str, settings: Settings) -> str:
    """Return the text for a missing key, or why a key that is set is not used."""
    foreign = foreign_key(base_url, os.environ)
    if not foreign:
        return "not set"
    return f"none for this server; {foreign}; {foreign_key_hint(base_url, os.environ, settings)}"


def _found(name: str, settings: Settings) -> tuple[Any, str]:
    """Return a value and its source; None if there is no value."""
    if name == "base_url":
        return find_base_url(None, os.environ, settings)
    if name == "log":
        return _found_log(settings)
    if found := settings.find(name, os.environ, _VARIABLES.get(name, "")):
        return found
    if name == "model" and settings.needs_model:
        return None, ""
    return next((option.default for option in ask.params if option.name == name), None), "default"


def _found_log(settings: Settings) -> tuple[Any, str]:
    """Return the path of the run log and its source; a relative name in a variable is below the current folder."""
    name, source = find_log(os.environ, settings) or (None, "default")
    if name and source == VARIABLE and not name.startswith("~/"):
        with contextlib.suppress(OSError):  # the current folder was removed
            name = os.path.abspath(name)
    return name, source


def _row(name: str, value: Any, source: str) -> tuple[str, str]:
    """Return `name = value` in TOML, commented out if there is no value."""
    if name == "headers" and value:  # hidden parts would be lost in a file
        names = ", ".join(f'{_as_toml(header.name)} = "..."' for header in value)
        return f"# {name} = {{{names}}}", source
    if not isinstance(value, str | int | float | list | dict):  # None, or click's value for no default
        return f"# {name}", "not set"
    shown = shown_url(value) if name == "base_url" and isinstance(value, str) else value
    # Hidden parts of a URL would be lost in a file, and allow_http is not allowed at its top.
    is_comment = shown != value or name == "allow_http"
    return f"{'# ' * is_comment}{name} = {_as_toml(shown)}", source


def _as_toml(value: Any) -> str:
    """Return a value as TOML: strings, numbers and booleans are the same as in JSON."""
    if isinstance(value, dict):
        members = (f"{_as_toml(key)} = {_as_toml(member)}" for key, member in value.items())
        return "{" + ", ".join(members) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_as_toml, value)) + "]"
    return escaped(json.dumps(value, ensure_ascii=False))
