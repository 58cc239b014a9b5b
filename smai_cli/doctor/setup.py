"""The checks of what is installed and configured on this machine, before anything is asked."""

import importlib.metadata
import os
import platform
from collections.abc import Mapping

from smai_cli import __version__
from smai_cli.common.jsonl import check_appendable
from smai_cli.config.config_file import Settings
from smai_cli.config.keys import is_open_to_others
from smai_cli.config.log_file import find_log, log_file
from smai_cli.config.places import config_path
from smai_cli.doctor.checks import CheckResult
from smai_cli.errors import OutputError

_PACKAGES = ("requests", "urllib3", "sseclient-py")


def find_versions() -> CheckResult:
    """Return the versions of smai, of Python and of the libraries that speak to the server, and the system."""
    system = os.uname()  # not platform.platform, which may start a process
    parts = [f"smai {__version__}", f"Python {platform.python_version()}", *map(_package, _PACKAGES)]
    return CheckResult(f"{', '.join(parts)}, {system.sysname} {system.release} {system.machine}")


def _package(name: str) -> str:
    try:
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{name} of an unknown version"


def find_configuration(settings: Settings) -> CheckResult:
    """Return the configuration file and the profile, and what to do if others can read headers in it."""
    path = config_path(os.environ)
    if path is None:
        return CheckResult("none: there is no home directory")
    if settings.notice:
        return CheckResult(f"none, for {path} is out of reach")
    built_in = f", built-in profile {settings.name}" if settings.built_in else ""
    if settings.path is None:
        return CheckResult(f"none (it would be {path}){built_in}")
    tables = (settings.top, settings.profile)
    has_headers = any(table["headers"].value for table in tables if "headers" in table)
    is_open = has_headers and is_open_to_others(path)
    profile = f", profile {settings.name}" if settings.name else ", no profile"
    return CheckResult(
        f"{path}{built_in or profile}",
        f"others can read it, and it has headers: run chmod 600 {path}" if is_open else "",
    )


def is_log_named(environ: Mapping[str, str], settings: Settings) -> bool:
    """Return whether there is a run log to check."""
    found = find_log(environ, settings)
    return bool(found and found.value)


def check_log(environ: Mapping[str, str], settings: Settings) -> CheckResult:
    """Return where the run log is. Raises OutputError where a run could not write it, UsageError without a home."""
    log = log_file(environ, settings)
    if log is None:
        return CheckResult("none")
    try:
        is_there = check_appendable(log.path)
        where = f"{os.path.abspath(log.path)}, from {log.setting}"
    except OSError as exc:
        raise OutputError(f"{log.path}: {exc.strerror}", f"check {log.setting}") from exc
    return CheckResult(where if is_there else f"{where}, is to be made")
