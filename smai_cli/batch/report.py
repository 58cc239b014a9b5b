"""The reports of a batch on stderr: its progress, and the final counts."""

import time
from collections.abc import Callable
from typing import Any

from smai_cli.batch.batch import Batch
from smai_cli.batch.results.plan import Plan
from smai_cli.batch.tally import Tally
from smai_cli.errors import KINDS
from smai_cli.output.descriptors import StatusLine

_DRAWN_EVERY_S = 0.2
_RATE_S = 10.0
_MINUTE_S, _HOUR_S = 60, 3600


def end_line(plan: Plan, tally: Tally, place: str | None) -> str:
    """Return the final line of a run: `4980 of 5000 complete, 12 length, 8 busy; tokens: ...; answers.jsonl`."""
    parts = [f"{plan.complete} of {len(plan)} complete"]
    parts += [f"{count} {KINDS.get(status, 'failed')}" for status, count in plan.failures().items()]
    if missing := plan.missing():
        parts.append(f"{missing} without a result")
    tokens = f"tokens: {tally.prompt_tokens} in, {tally.completion_tokens} out"
    return "; ".join([", ".join(parts), tokens, *([place] if place else [])])


def end_facts(plan: Plan, tally: Tally) -> dict[str, Any]:
    """Return the same as the members of a JSON object."""
    return {
        "complete": plan.complete == len(plan),
        "lines": len(plan),
        "complete_lines": plan.complete,
        "failed": {KINDS.get(status, str(status)): count for status, count in plan.failures().items()},
        "without_result": plan.missing(),
        "answers": tally.answers,
        "retries": tally.retries,
        "usage": {
            "prompt_tokens": tally.prompt_tokens,
            "completion_tokens": tally.completion_tokens,
            "total_tokens": tally.tokens,
        },
    }


class RunProgress(StatusLine):
    """A status line on a terminal while a batch runs, or with `say` a separate line at intervals."""

    def __init__(self, batch: Batch, plan: Plan, *, is_known: bool, say: Callable[[str], None] | None = None) -> None:
        super().__init__(_DRAWN_EVERY_S)
        self._batch = batch
        self._plan = plan
        self._is_known = is_known
        self._say = say
        self._begun_s = time.monotonic()
        self._past: list[tuple[float, int, int]] = [(self._begun_s, 0, 0)]

    def text(self, width: int) -> str:
        """Return the current text of the line, with as many of its parts as fit into `width` columns."""
        plan, tally, now_s = self._plan, self._batch.tally, time.monotonic()
        done, failed = plan.settled, tally.failures.total()
        self._past = [past for past in self._past if now_s - past[0] <= _RATE_S] or self._past[-1:]
        then_s, answers, tokens = self._past[0]
        self._past.append((now_s, tally.answers, tally.tokens))
        span_s = max(now_s - then_s, 0.001)
        rate, token_rate = (tally.answers - answers) / span_s, (tally.tokens - tokens) / span_s
        parts = [f"smai: {done} of {len(plan)}" if self._is_known else f"smai: {done} done"]
        if failed:
            parts.append(f", {failed} failed")
        parts.append(f", {self._batch.running} running")
        parts.append(f"; {rate:.1f}/s, {token_rate:.0f} tokens/s")
        if self._is_known and tally.answers:
            left_s = (len(plan) - done) * (now_s - self._begun_s) / tally.answers
            parts.append(f"; {_show_duration(left_s)} left")
        line = parts[0]
        for part in parts[1:]:
            if len(line) + len(part) < width:
                line += part
        return line

    def _run(self) -> None:
        if self._say is None:
            super()._run()
            return
        while not self._over.wait(_MINUTE_S):
            self._say(self.text(1000).removeprefix("smai: "))


def _show_duration(seconds: float) -> str:
    if seconds < 2 * _MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    return f"{seconds / _HOUR_S:.1f} h"
