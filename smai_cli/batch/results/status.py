"""Report the progress of shards, each and in total, from their complete or partial results.

Nothing blocks and nothing is changed: a run may be writing at the same time.
"""

import contextlib
import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from smai_cli.batch.input.pin import Pin, read_pin
from smai_cli.batch.results.result import lines_in, read_result, tokens_in
from smai_cli.errors import KINDS, Status, UsageError
from smai_cli.output.outfile import partial_of


class ShardProgress(NamedTuple):
    """The progress of the results in a file: `lines` is None if unknown, `failed` counts by exit status.

    `state` is complete, running, stopped or not started. The tokens include those of failed tries.
    """

    path: str
    pin: Pin | None
    state: str
    lines: int | None
    complete: int
    failed: Counter[int]
    prompt_tokens: int
    completion_tokens: int

    @property
    def left(self) -> int | None:
        """How many lines have no result; None if unknown."""
        return None if self.lines is None else max(0, self.lines - self.complete - self.failed.total())


def progress_of(path: str) -> ShardProgress:
    """Return the progress of the results in `path`, or else in its partial file. Raises UsageError."""
    pin = read_pin(path)
    file, state = path, "complete"
    if os.path.exists(partial_of(os.path.realpath(path))):
        file = partial_of(os.path.realpath(path))
        state = "running" if _is_locked(file) else "stopped"
    elif not os.path.exists(path):
        return ShardProgress(path, pin, "not started", pin.lines if pin else None, 0, Counter(), 0, 0)
    statuses: dict[object, int] = {}
    prompt_tokens = completion_tokens = 0
    try:
        with open(file, "rb") as results:
            for _, data in lines_in(results):
                known = read_result(data)
                if known is None:
                    continue
                if statuses.get(known.number) != Status.COMPLETE:
                    statuses[known.number] = known.status
                usage = tokens_in(data)
                prompt_tokens += usage[0]
                completion_tokens += usage[1]
    except OSError as exc:
        raise UsageError(f"{file}: {exc.strerror}", "name the results of shards") from exc
    counts = Counter(statuses.values())
    complete = counts.pop(Status.COMPLETE, 0)
    lines = pin.lines if pin else None
    if lines is None and state == "complete":
        lines = len(statuses)
    return ShardProgress(path, pin, state, lines, complete, counts, prompt_tokens, completion_tokens)


def as_json(shards: Iterable[ShardProgress]) -> str:
    """Return the progress of the shards as one JSON object, the total first."""
    each = list(shards)
    facts = _facts(_sum(each)) | {"state": dict(Counter(one.state for one in each))}
    return json.dumps({**facts, "shards": [_shard_facts(one) for one in each]}, ensure_ascii=False)


def as_table(shards: Iterable[ShardProgress]) -> str:
    """Return the progress of the shards as a table for people, the total last; each line ends in a newline."""
    each = list(shards)
    rows: list[tuple[str, ...]] = [
        ("SHARD", "STATE", "LINES", "COMPLETE", "FAILED", "LEFT", "TOKENS IN", "TOKENS OUT", "FILE")
    ]
    rows += [_row(one) for one in each]
    if len(each) > 1:
        rows.append(_row(_sum(each)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join("  ".join(_cells(row, widths)).rstrip() + "\n" for row in rows)


def _cells(row: tuple[str, ...], widths: list[int]) -> list[str]:
    """Return the cells of a row: words left-aligned, numbers right-aligned."""
    return [
        cell.ljust(width) if place in (0, 1, len(row) - 1) else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]


def _row(one: ShardProgress) -> tuple[str, ...]:
    pin, left = one.pin, one.left
    return (
        (f"{pin.number}/{pin.total}" if pin.number else f"all {pin.total}") if pin else "-",
        one.state,
        "?" if one.lines is None else str(one.lines),
        str(one.complete),
        ", ".join(f"{count} {KINDS.get(status, 'failed')}" for status, count in sorted(one.failed.items())) or "0",
        "?" if left is None else str(left),
        str(one.prompt_tokens),
        str(one.completion_tokens),
        one.path,
    )


def _sum(shards: list[ShardProgress]) -> ShardProgress:
    states = Counter(one.state for one in shards)
    known = [one.lines for one in shards if one.lines is not None]
    failed: Counter[int] = Counter()
    for one in shards:
        failed.update(one.failed)
    return ShardProgress(
        "",
        Pin(0, len(shards), None, None),
        ", ".join(f"{count} {state}" for state, count in states.items()),
        sum(known) if len(known) == len(shards) else None,
        sum(one.complete for one in shards),
        failed,
        sum(one.prompt_tokens for one in shards),
        sum(one.completion_tokens for one in shards),
    )


def _facts(one: ShardProgress) -> dict[str, Any]:
    return {
        "state": one.state,
        "lines": one.lines,
        "complete_lines": one.complete,
        "failed": {KINDS.get(status, str(status)): count for status, count in sorted(one.failed.items())},
        "without_result": one.left,
        "usage": {
            "prompt_tokens": one.prompt_tokens,
            "completion_tokens": one.completion_tokens,
            "total_tokens": one.prompt_tokens + one.completion_tokens,
        },
    }


def _shard_facts(one: ShardProgress) -> dict[str, Any]:
    pin = one.pin
    return {
        "file": one.path,
        "shard": pin.number if pin else None,
        "of": pin.total if pin else None,
        **_facts(one),
    }


def _is_locked(path: str) -> bool:
    """Return whether a run has the file locked. A run that starts now waits for longer than this check takes."""
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
    return False
