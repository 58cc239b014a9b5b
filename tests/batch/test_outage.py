"""A server that is unavailable for a while: how many requests it gets meanwhile, and that nothing is lost."""

import itertools
import json
import threading
import time
from typing import Any

import pytest
from batching import Ask, Questions, results_in
from faultserver import FaultServer, Faulty

from smai_cli.batch.load.outage import Outage

pytest_plugins = ["batching", "faultserver"]
pytestmark = pytest.mark.preloaded

JOBS = 8


def prompts(count: int) -> list[str]:
    return [f"line {number}" for number in range(count)]


class TemporaryFault:
    """A server fails for `duration_s`, from the request with the number `first`; `asked_s` has all request times."""

    def __init__(self, fault: str, first: int, duration_s: float) -> None:
        self.asked_s: list[float] = []
        self._fault, self._first, self._duration_s = fault, first, duration_s
        self._lock = threading.Lock()

    def __call__(self, _: str, __: str, count: int) -> str | None:
        now_s = time.monotonic()
        with self._lock:
            if count < self._first or (self.asked_s and now_s > self.asked_s[0] + self._duration_s):
                return None
            self.asked_s.append(now_s)
            return self._fault


@pytest.mark.parametrize(
    ("fault", "duration_s"),
    [
        ("502", 1.5),
        pytest.param("503", 6.0, marks=pytest.mark.thorough),
        *(pytest.param(it, 6.0, marks=pytest.mark.nightly) for it in ("500", "521", "502")),
    ],
)
def test_an_unavailable_server_is_only_probed_and_every_line_is_complete_later(
    batch: Ask, questions: Questions, faulty: Faulty, fault: str, duration_s: float
) -> None:
    absence = TemporaryFault(fault, 40, duration_s)
    server = faulty(absence)
    result = batch(server, "-k", "-j", JOBS, questions(*prompts(200)))
    assert (result.status, result.texts) == (0, prompts(200))
    # Those that run when the outage begins, ten in a row until it is noticed, and then less than two a second.
    assert len(absence.asked_s) <= JOBS + 10 + 2 * duration_s
    assert max(it["retries"] for it in result.results) <= 2
    assert "the server is unavailable" in result.stderr
    assert "the server answers again, after" in result.stderr
    assert len(result.stderr.splitlines()) <= 5


@pytest.mark.thorough
@pytest.mark.parametrize("jobs", [pytest.param(1, marks=pytest.mark.nightly), 64])
def test_a_server_that_temporarily_accepts_no_connections_costs_no_line(
    batch: Ask, questions: Questions, faulty: Faulty, jobs: int
) -> None:
    def leave(server: FaultServer) -> None:
        server.go_away()
        threading.Timer(3.0, server.come_back).start()

    server = faulty(lambda _, __, count: leave(server) if count == 39 else None)
    result = batch(server, "-k", "-j", jobs, questions(*prompts(200)))
    assert (result.status, result.texts) == (0, prompts(200))
    assert len(server.requests) == 200


def test_failures_during_an_outage_do_not_count_as_retries(batch: Ask, questions: Questions, faulty: Faulty) -> None:
    """Without retries the first nine failures are results, and all others are answers in the end."""
    absence = TemporaryFault("502", 40, 2.0)
    server = faulty(absence)
    result = batch(server, "-k", "-j1", "--retries", "0", questions(*prompts(100)))
    assert (result.status, len(result.results)) == (6, 100)
    assert sum(not it["complete"] for it in result.results) == 9
    assert all(it["retries"] == 0 for it in result.results)


@pytest.mark.thorough
def test_resume_continues_a_run_that_gave_up(batch: Ask, questions: Questions, faulty: Faulty, tmp_path: Any) -> None:
    server, out = faulty(TemporaryFault("502", 40, 3600.0)), tmp_path / "answers.jsonl"
    file = questions(*prompts(200))
    result = batch(server, "-o", out, "-j", JOBS, "--patience", "2", file)
    assert result.status == 6
    assert "nothing has succeeded for 2 s; line" in result.stderr
    server.plan = lambda *_: None
    before = len(server.requests)
    assert batch(server, "-o", out, "--resume", "-j", JOBS, file).status == 0
    assert len(server.requests) - before == 160
    assert [it["text"] for it in results_in(out)] == prompts(200)


@pytest.mark.thorough
def test_a_limit_on_concurrent_requests_is_not_an_outage(batch: Ask, questions: Questions, faulty: Faulty) -> None:
    """Twelve of the first twenty are refused at once, while the other eight are answered."""
    running = itertools.count()
    free = threading.Semaphore(8)

    def plan(*_: object) -> str | None:
        next(running)
        if not free.acquire(blocking=False):
            return "503"
        threading.Timer(0.6, free.release).start()
        return "slow"

    result = batch(faulty(plan), "-j", "32", "--retries", "20", questions(*prompts(60)))
    assert (result.status, len(result.results)) == (0, 60)
    assert "attempts in a row failed" not in result.stderr


def test_adjacent_lines_that_always_fail_do_not_stop_the_other_lines(
    batch: Ask, questions: Questions, faulty: Faulty
) -> None:
    """They look like an outage, but the server answers a line that was read later."""
    bad = prompts(35)[20:]
    server = faulty(lambda prompt, _, __: "500" if prompt in bad else None)
    result = batch(server, "-j1", "--retries", "0", "--patience", "5", questions(*prompts(60)))
    assert (result.status, len(result.results)) == (6, 60)
    assert "nothing has succeeded" not in result.stderr
    assert sorted(it["index"] for it in result.results if not it["complete"]) == list(range(21, 36))


def test_each_kind_of_failure_is_summed_up_in_one_line_with_five_line_numbers(
    batch: Ask, questions: Questions, faulty: Faulty
) -> None:
    def plan(prompt: str, _: str, __: int) -> str | None:
        number = int(prompt.removeprefix("line "))
        return "400" if number % 10 == 1 else "403" if number % 10 == 2 else None

    lines = [{"id": f"id-{number}", "prompt": prompt} for number, prompt in enumerate(prompts(100))]
    result = batch(faulty(plan), "-j1", "--summary", "json", questions(*lines))
    said = result.stderr.splitlines()
    assert said[0].startswith('smai: line 2 ("id-1"): the server answered 400')
    assert said[1].startswith('smai: line 3 ("id-2"): the server answered 403')
    names = ", ".join(f'"id-{number}"' for number in (1, 11, 21, 31, 41))
    assert said[2] == f"smai: 10 lines failed in this way (refused, HTTP 400): {names} and 5 more"
    assert said[3].startswith("smai: 10 lines failed in this way (refused, HTTP 403): ")
    assert json.loads(said[4])["failed"] == {"refused": 20}


def probe_times(outage: Outage, until_s: float) -> list[float]:
    """Return the times of the probes of a server that is unavailable from 0 to `until_s`."""
    now_s, times = 0.0, []
    outage.begin(now_s)
    while now_s < until_s:
        now_s += outage.wait_s(now_s)
        outage.probe = object()
        assert outage.wait_s(now_s) == float("inf")
        times.append(now_s)
        if now_s < until_s:
            outage.fail_probe(now_s, last_s=float("inf"))
    return times


def test_the_pause_before_a_probe_grows_with_the_outage_to_at_most_thirty_seconds() -> None:
    times = probe_times(Outage(lambda: 0.0), 600.0)
    assert times[:7] == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]
    assert 9.0 < next(later - earlier for earlier, later in itertools.pairwise(times) if earlier >= 60) < 11.0
    assert [later - earlier for earlier, later in itertools.pairwise(times[-3:])] == [30.0, 30.0]
    assert len(times) < 60


@pytest.mark.parametrize("away_s", [1.0, 3.0, 6.0, 20.0, 120.0, 3600.0])
def test_the_end_of_an_outage_is_noticed_soon(away_s: float) -> None:
    outage = Outage(lambda: 1.0)  # the longest pauses
    last_s = probe_times(outage, away_s)[-1]
    assert last_s - away_s <= min(33.0, max(0.55, 0.165 * away_s))
    assert outage.end(last_s) == last_s
    assert not outage.is_on


def test_an_answer_to_an_older_request_makes_the_next_probe_start_earlier() -> None:
    """The server may have refused requests above its concurrency limit: now one of them has ended."""
    outage = Outage(lambda: 0.0)
    outage.begin(0.0)
    outage.fail_probe(20.0, last_s=float("inf"))
    assert outage.wait_s(20.0) == 3.0
    outage.note_reply(21.0)
    assert outage.wait_s(21.0) == 0.5
    assert outage.is_on


def test_the_last_probe_is_sent_when_the_patience_ends() -> None:
    outage = Outage(lambda: 0.0)
    outage.begin(0.0)
    outage.fail_probe(1.0, last_s=1.25)
    assert outage.wait_s(1.0) == 0.25
