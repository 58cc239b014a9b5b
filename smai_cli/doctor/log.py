"""The check of the ledger: whether a run could give it its line, without writing one."""

import os
from collections.abc import Mapping

from smai_cli.common.jsonl import check_appendable
from smai_cli.config.config_file import Settings
from smai_cli.config.log_file import find_log, log_file
from smai_cli.doctor.checks import CheckResult
from smai_cli.errors import OutputError


def is_named(environ: Mapping[str, str], settings: Settings) -> bool:
    """Return whether there is a ledger to check."""
    found = find_log(environ, settings)
    return bool(found and found.value)


def check_log(environ: Mapping[str, str], settings: Settings) -> CheckResult:
    """Return where the ledger is. Raises OutputError where a run could not write it, UsageError without a home."""
    log = log_file(environ, settings)
    if log is None:
        return CheckResult("none")
    try:
        is_there = check_appendable(log.path)
        where = f"{os.path.abspath(log.path)}, from {log.setting}"
    except OSError as exc:
        raise OutputError(f"{log.path}: {exc.strerror}", f"check {log.setting}") from exc
    return CheckResult(where if is_there else f"{where}, is to be made")
