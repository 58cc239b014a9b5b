"""The notices of a batch on stderr: one line for each kind of failure and episode."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable

from smai_cli.batch.feed import Job
from smai_cli.batch.input.lines import describe_line
from smai_cli.batch.load.control import Episode
from smai_cli.common.text import one_line
from smai_cli.errors import SmaiError

# How many ids of each kind the final report lists.
_IDS = 5
# This many episodes of a kind are reported as they happen, then one per interval.
_EPISODES = 3
_EPISODE_EVERY_S = 60.0


class Notices:
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
        what = "request" if model is None else f"request to {one_line(model, 60)}"
        effects = [f"no {what} starts for {episode.pause_s:.1f} s"] if episode.pause_s else []
        if episode.before != episode.after:
            effects.append(f"{episode.after} at once instead of {episode.before}")
        if episode.rate is not None:
            effects.append(f"at most {episode.rate:.3g} a second")
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
