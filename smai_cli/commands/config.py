"""`smai config`: every value that counts, and where it comes from."""

import json
import os
from typing import Any

import click

from smai_cli.cli import profile_option
from smai_cli.commands.ask import ask
from smai_cli.config import find_base_url, find_key
from smai_cli.errors import UsageError
from smai_cli.output import Output
from smai_cli.settings import KEYS, Settings, config_path

_VARIABLES = {"model": "SMAI_MODEL"}


@click.command(epilog="Manual: man smai-config.")
@profile_option
@click.option("--path", is_flag=True, help="Print where the configuration file is, or would be.")
def config(settings: Settings, *, path: bool) -> int:
    """Print every value that counts, and where it comes from.

    The output is a configuration file itself. The key is not in it.
    """
    if path:
        found = config_path(os.environ)
        if found is None:
            raise UsageError("there is no home, so no configuration file", "set HOME or XDG_CONFIG_HOME")
        lines = [found]
    else:
        lines = _lines(settings)
    Output().write("".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))
    return 0


def _lines(settings: Settings) -> list[str]:
    rows = [_row(name, *_found(name, settings)) for name in KEYS if name not in ("key_file", "key_command")]
    width = min(40, max(len(value) for value, _ in rows))
    base_url, _ = find_base_url(None, os.environ, settings)
    key = find_key(base_url, None, os.environ, settings)
    name = f"# profile: {settings.name}" if settings.name else "# profile: none"
    return [
        name,
        *(f"{value:{width}}  # {source}" for value, source in rows),
        f"# key: set, from {key.where}" if key else "# key: not set",
    ]


def _found(name: str, settings: Settings) -> tuple[Any, str]:
    """Return a value and its source; None where there is neither."""
    if name == "base_url":
        return find_base_url(None, os.environ, settings)
    variable = _VARIABLES.get(name, "")
    if os.environ.get(variable):
        return os.environ[variable], variable
    if configured := settings.get(name):
        return configured.value, configured.source
    return next((option.default for option in ask.params if option.name == name), None), "default"


def _row(name: str, value: Any, source: str) -> tuple[str, str]:
    """Return `name = value` as TOML has it, commented out where there is no value."""
    if not isinstance(value, str | int | float | list):  # None, or what click has for no default
        return f"# {name}", "not set"
    # JSON's strings, numbers and lists are TOML's as well.
    return f"{name} = {json.dumps(value, ensure_ascii=False)}", source
