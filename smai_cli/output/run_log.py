"""The run log: one line of JSON per run, in a file that many processes append to.

A line holds the facts of the summary and the server, but nothing of the prompt or the answer.
"""

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from smai_cli import __version__
from smai_cli.answer.outcome import Outcome
from smai_cli.common.frozen import Frozen
from smai_cli.common.jsonl import append_line
from smai_cli.config.base_url import origin_of, shown_origin
from smai_cli.output.summary import summary_fields

if TYPE_CHECKING:
    from signal import Signals

# A line takes less than a millisecond: a process that holds the lock longer is stopped, or is not smai.
WAIT_S = 2.0


class RunFacts(Frozen):
    """The facts of a run in a line, in addition to its outcome.

    `base_url` is None for the mock. `hide` removes secrets from text that the server sent.
    """

    command: str
    base_url: str | None
    profile: str | None
    hide: Callable[[str], str]


def append(
    path: str, run: RunFacts, outcome: Outcome, *, killed_by: "Signals | None" = None, wait_s: float = WAIT_S
) -> None:
    """Append the line of a run to the run log `path`.

    `outcome` has ended, unless `killed_by` is the signal that ends the process now. Raises OSError and leaves the
    log unchanged, also if another process keeps it locked for `wait_s` seconds.
    """
    fields = summary_fields(outcome)
    if killed_by:
        fields |= _death(outcome, killed_by)
    elif fields["error"]:
        del fields["error"]["message"]  # it may quote the prompt, or the answer
    _hide(fields, run.hide)
    append_facts(path, run, fields, wait_s=wait_s)


def append_facts(path: str, run: RunFacts, facts: dict[str, Any], *, wait_s: float = WAIT_S) -> None:
    """Append a line with `facts`, which contain no secret, to the run log `path`. Raises OSError as append does."""
    head = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": run.command,
        "origin": shown_origin(origin_of(run.base_url)) if run.base_url else None,
        "profile": run.profile,
        "version": __version__,
    }
    append_line(path, f"{json.dumps(head | facts)}\n".encode(), wait_s)


def _death(outcome: Outcome, killed_by: "Signals") -> dict[str, Any]:
    """Return the summary of a run that a signal ends; the exit status is the one that a shell reports."""
    elapsed_s = outcome.elapsed_s or time.monotonic() - outcome.started_s
    error = {"kind": "signal", "http_status": None, "retryable": False, "request_id": None}
    return {"complete": False, "elapsed_s": round(elapsed_s, 6), "exit_status": 128 + killed_by, "error": error}


def _hide(payload: dict[str, Any], hide: Callable[[str], str]) -> None:
    """Remove secrets from the texts of the server, one by one, so that the line stays JSON."""
    for table, name in ((payload, "model"), (payload, "finish_reason"), (payload["error"] or {}, "request_id")):
        if isinstance(table.get(name), str):
            table[name] = hide(table[name])
