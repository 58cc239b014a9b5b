"""The reports of a batch on stderr: one line for each kind of failure and episode, and the final counts."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from smai_cli.batch.batch import Batch
from smai_cli.batch.feed import Job
from smai_cli.batch.input.lines import describe_line
from smai_cli.batch.load.control import Episode
from smai_cli.batch.results.plan import Plan
from smai_cli.batch.tally import Tally
from smai_cli.common.text import one_line
from smai_cli.errors import KINDS, SmaiError
from smai_cli.output.descriptors import StatusLine

# How many ids of each kind the final report lists.
_IDS = 5
# This many episodes of a kind are reported as they happen, then one per interval.
_EPISODES = 3
_EPISODE_EVERY_S = 60.0
_DRAWN_EVERY_S = 0.2
_RATE_S = 10.0
_MINUTE_S, _HOUR_S = 60, 3600


class RunReport:
    """The notices of a run, printed with `say`: the first failure of each kind when it happens, the others as counts.

    Of each kind of load episode, three are reported, then one a minute.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._lock = threading.Lock()
        self._failed: dict[_ReportKind, list[str]] = {}
        self._counts: Counter[_ReportKind] = Counter()
        self._episodes: dict[_ReportKind, _Episodes] = {}
        self._is_away_reported = False

    def report_failed_line(self, job: Job, error: SmaiError) -> None:
        """Report the first failed line of each kind, and count the others."""
        kind = (error.kind, error.http_status)
        with self._lock:
            self._counts[kind] += 1
            names = self._failed.setdefault(kind, [])
            if len(names) < _IDS:
                names.append(_job_name(job))
            is_first = self._counts[kind] == 1
        if is_first:
            self._say(f"{describe_line(job.identity.number, job.identity.id)}: {error.describe()}")

    def report_episode(self, error: SmaiError, episode: Episode, model: str | None) -> None:
        """Report that fewer requests run at once, or none for a while; name `model` if there are several."""
        more = self._unreported((error.kind, error.http_status))
        if more is None:
            return
        whose = "all starts" if model is None else f"lines of {one_line(model, 60)}"
        effects = [f"{whose} wait {episode.pause_s:.1f} s"] if episode.pause_s else []
        if episode.before != episode.after:
            effects.append(f"{episode.before} -> {episode.after} at once")
        if episode.rate is not None:
            effects.append(f"{episode.rate:.3g} a second")
        self._say(f"{error.describe()}: {', '.join(effects)}{more}")

    def report_outage(self, error: SmaiError) -> None:
        """Report that the server is unavailable."""
        more = self._unreported(("away", None))
        self._is_away_reported = more is not None
        if more is not None:
            self._say(
                f"{error.describe()}: the server is unavailable; one request at a time is sent until it answers{more}"
            )

    def report_recovery(self, outage_s: float) -> None:
        """Report that the server answers again, if its outage was reported."""
        if self._is_away_reported:
            self._say(f"the server answers again, after {outage_s:.0f} s")

    def end(self) -> None:
        """Report how many lines failed, for each kind of which only the first was reported."""
        for kind, count in self._counts.items():
            if count > 1:
                names = ", ".join(self._failed[kind])
                more = f" and {count - _IDS} more" if count > _IDS else ""
                self._say(f"{count} lines failed in this way ({_show_kind(kind)}): {names}{more}")

    def _unreported(self, kind: "_ReportKind") -> str | None:
        """Return what to say about the unreported earlier episodes of this kind; None to say nothing."""
        now_s = time.monotonic()
        with self._lock:
            episodes = self._episodes.setdefault(kind, _Episodes())
            episodes.count += 1
            if episodes.count > _EPISODES and now_s - episodes.reported_s < _EPISODE_EVERY_S:
                episodes.unreported += 1
                return None
            unreported, episodes.unreported, episodes.reported_s = episodes.unreported, 0, now_s
        return f" ({unreported} times more since the last report)" if unreported else ""


# Failures of one kind share the word for the exit status, and the HTTP status if there was one.
_ReportKind = tuple[str, int | None]


class _Episodes:
    """The episodes of one kind: how many there were, and which were reported."""

    count = 0
    unreported = 0
    reported_s = 0.0


def _job_name(job: Job) -> str:
    return str(job.identity.number) if job.identity.id is None else json.dumps(job.identity.id, ensure_ascii=False)[:60]


def _show_kind(kind: _ReportKind) -> str:
    name, http_status = kind
    return name if http_status is None else f"{name}, HTTP {http_status}"


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
