"""Environment and configuration -> the run log, the file with a line for each run."""

import os
from collections.abc import Mapping
from typing import NamedTuple

from smai_cli.config.config_file import Settings, Value
from smai_cli.config.places import config_folder, in_home

VARIABLE = "SMAI_LOG"


class LogFile(NamedTuple):
    """A run log: its path, and the name of its setting in messages."""

    path: str
    setting: str


def find_log(environ: Mapping[str, str], settings: Settings) -> Value | None:
    """Return the effective file name of the run log, as written, and its source; None if it is not set.

    An empty name turns it off.
    """
    if typed := settings.get_typed("log"):
        return typed
    if VARIABLE in environ:
        return Value(environ[VARIABLE], VARIABLE)
    return settings.get("log")


def log_file(environ: Mapping[str, str], settings: Settings) -> LogFile | None:
    """Return the run log, or None without one.

    `~/` is the home directory; any other relative name in the configuration file is relative to its folder. Raises
    UsageError for `~/` without a home directory.
    """
    found = find_log(environ, settings)
    if found is None or not found.value:
        return None
    is_configured = found.source != VARIABLE
    setting = f"log ({found.source})" if is_configured else VARIABLE
    name = in_home(found.value, "log", setting, environ)
    return LogFile(os.path.join(config_folder(environ) or "", name) if is_configured else name, setting)
