"""The ledger: a line of JSON for each run, in a file that many processes append to.

A line has what a summary has and where it was asked, and nothing of what was asked or answered.
"""

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from smai_cli import __version__
from smai_cli.answer.outcome import Outcome
from smai_cli.common.frozen import Frozen
from smai_cli.common.jsonl import append_line
from smai_cli.output.summary import summary_fields

if TYPE_CHECKING:
    from signal import Signals

# A line takes less than a millisecond: whoever has the lock for longer is stopped, or is not smai.
WAIT_S = 2.0
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Asked(Frozen):
    """What a line says of a run beside its outcome.

    `base_url` is None where the server inside smai was asked. `hide` keeps secrets out of the words of a server.
    """

    command: str
    base_url: str | None
    profile: str | None
    hide: Callable[[str], str]


def append(
    path: str, asked: Asked, outcome: Outcome, *, killed_by: "Signals | None" = None, wait_s: float = WAIT_S
) -> None:
    """Append the line of a run, or of one of its answers, to the ledger `path`.

    `outcome` has ended, unless `killed_by` is the signal by which the process dies now. Raises OSError, and the ledger
    has nothing of it, also where another process has the ledger locked for `wait_s`.
    """
    fields = summary_fields(outcome)
    if killed_by:
        fields |= _death(outcome, killed_by)
    elif fields["error"]:
        del fields["error"]["message"]  # it may quote the prompt, or the answer
    _hide(fields, asked.hide)
    append_facts(path, asked, fields, wait_s=wait_s)


def append_facts(path: str, asked: Asked, facts: dict[str, Any], *, wait_s: float = WAIT_S) -> None:
    """Append a line with `facts`, in which nothing is secret, to the ledger `path`. Raises OSError as append does."""
    head = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": asked.command,
        "origin": shown_origin(asked.base_url) if asked.base_url else None,
        "profile": asked.profile,
        "version": __version__,
    }
    append_line(path, f"{json.dumps(head | facts)}\n".encode(), wait_s)


def shown_origin(base_url: str) -> str:
    """Return scheme, host and port of a base URL that was checked, without a port that goes without saying."""
    parts = urlsplit(base_url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = "" if parts.port in (None, _DEFAULT_PORTS.get(parts.scheme)) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


def _death(outcome: Outcome, killed_by: "Signals") -> dict[str, Any]:
    """Return what a summary would say of a run that a signal ends; the status is that which a shell shows."""
    elapsed_s = outcome.elapsed_s or outcome.now() - outcome.started_s
    error = {"kind": "signal", "http_status": None, "retryable": False, "request_id": None}
    return {"complete": False, "elapsed_s": round(elapsed_s, 6), "exit_status": 128 + killed_by, "error": error}


def _hide(payload: dict[str, Any], hide: Callable[[str], str]) -> None:
    """Keep secrets out of what a server has said, word by word: the line stays JSON."""
    for table, name in ((payload, "model"), (payload, "finish_reason"), (payload["error"] or {}, "request_id")):
        if isinstance(table.get(name), str):
            table[name] = hide(table[name])
