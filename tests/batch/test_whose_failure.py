"""Each failure of one line, of one model and of all lines, before and after the first success, and on resume."""

from pathlib import Path
from typing import Any

import pytest
from batching import Ask, Questions, Run, results_in
from faultserver import FaultServer, Faulty, Plan
from outfolder import partial

pytest_plugins = ["batching", "faultserver"]
pytestmark = [pytest.mark.thorough, pytest.mark.preloaded]

LINES = 30
ACCESS = ["401", "402", "403 money", "429 quota"]
REFUSALS = ["403", "404"]
LIMITS = ["429", "429 in a 200", "429 in the stream", pytest.param("429 after the role", marks=pytest.mark.nightly)]
# The failures of a server, the status of a line that has it as its result, and that of a run that it ends.
SERVER = {
    "500": (6, 6),
    "500 in the stream": (6, 6),
    "502": (6, 6),
    "503": (6, 6),
    "521": (6, 6),
    "reset": (8, 6),
    "timeout": (7, 7),
}


def everything(fault: str | None, first: int = 0) -> Plan:
    """All requests after the `first` ones fail."""
    return lambda _, __, count: fault if count >= first else None


def one_line(fault: str, number: int) -> Plan:
    return lambda prompt, _, __: fault if prompt == f"line {number}" else None


def one_model(fault: str) -> Plan:
    return lambda _, model, __: fault if model == "bad" else None


def lines(*, models: bool = False) -> list[Any]:
    """Return the lines from 1 on; with `models`, every second line uses the model "bad"."""
    prompts = [f"line {number}" for number in range(1, LINES + 1)]
    return [{"prompt": it, "model": ("good", "bad")[at % 2]} for at, it in enumerate(prompts)] if models else prompts


class Bench:
    """Runs a batch over the same lines, one at a time and without retries, until its output file exists."""

    def __init__(self, batch: Ask, questions: Questions, out: Path) -> None:
        self._batch, self._questions, self.out = batch, questions, out
        self.idle_timeout = "20"

    def run(self, server: FaultServer, *flags: str, models: bool = False) -> Run:
        file = self._questions(*lines(models=models))
        fast = ("-j1", "--retries", "0", "--idle-timeout", self.idle_timeout, "--patience", "1")
        return self._batch(server, "-o", self.out, "--resume", *fast, *flags, file)

    @property
    def statuses(self) -> dict[int, int]:
        """The exit status in the last result of each line."""
        file = self.out if self.out.exists() else partial(self.out)
        return {it["index"]: it["exit_status"] for it in (results_in(file) if file.exists() else [])}


@pytest.fixture
def bench(batch: Ask, questions: Questions, out: Path, request: pytest.FixtureRequest) -> Bench:
    made = Bench(batch, questions, out)
    case = getattr(request.node, "callspec", None)
    if case and case.params.get("fault") == "timeout":
        made.idle_timeout = "0.5"
    return made


# The key, the account, money.


@pytest.mark.parametrize("fault", ACCESS)
@pytest.mark.parametrize("number", [1, 5])
def test_a_refused_key_or_account_ends_the_run_at_once_and_resume_sends_the_line_again(
    bench: Bench, faulty: Faulty, fault: str, number: int
) -> None:
    server = faulty(one_line(fault, number))
    result = bench.run(server)
    assert (result.status, len(server.prompts)) == (5, number)
    assert f"smai: line {number}: the server answered" in result.stderr
    assert bench.statuses == dict.fromkeys(range(1, number), 0)
    server.plan = everything(None)
    assert bench.run(server).status == 0
    assert server.prompts[number:] == lines()[number - 1 :]


def test_a_wrong_ca_bundle_ends_the_run_at_once_and_resume_sends_all_lines(
    batch: Ask, questions: Questions, faulty: Faulty, out: Path
) -> None:
    server, file = faulty(everything(None)), questions(*lines())
    wrong = {"SMAI_BASE_URL": server.url.replace("http:", "https:"), "SSL_CERT_FILE": str(file)}
    result = batch(server, "-o", out, "-j1", file, env=wrong)
    assert (result.status, partial(out).exists()) == (2, False)
    what = f"the CA bundle {file} does not contain certificates in PEM format; check SSL_CERT_FILE"
    assert f"smai: line 1: {what}; with -o, --resume sends it again\n" in result.stderr
    assert batch(server, "-o", out, "--resume", file).status == 0
    assert sorted(server.prompts) == sorted(lines())


@pytest.mark.parametrize("fault", ACCESS)
def test_a_model_that_the_account_may_not_use_ends_the_run(bench: Bench, faulty: Faulty, fault: str) -> None:
    server = faulty(one_model(fault))
    assert (bench.run(server, models=True).status, len(server.prompts)) == (5, 2)


# Refusals.


@pytest.mark.parametrize("fault", REFUSALS)
@pytest.mark.parametrize("number", [1, 5])
def test_a_refused_line_is_recorded_and_resume_does_not_send_it_again(
    bench: Bench, faulty: Faulty, fault: str, number: int
) -> None:
    server = faulty(one_line(fault, number))
    assert (bench.run(server).status, server.prompts) == (4, lines())
    assert bench.statuses == {**dict.fromkeys(range(1, LINES + 1), 0), number: 4}
    server.plan = everything(None)
    assert (bench.run(server).status, len(server.prompts)) == (4, LINES)


@pytest.mark.parametrize("fault", REFUSALS)
def test_a_refused_model_fails_only_the_lines_that_use_it(bench: Bench, faulty: Faulty, fault: str) -> None:
    server = faulty(one_model(fault))
    assert (bench.run(server, models=True).status, sorted(server.prompts)) == (4, sorted(lines()))
    assert bench.statuses == {number: (4, 0)[number % 2] for number in range(1, LINES + 1)}


@pytest.mark.parametrize(("fault", "status", "asked_again"), [("403", 5, LINES), ("404", 4, LINES - 10)])
def test_ten_equal_refusals_before_any_success_end_the_run_whatever_their_request_ids(
    bench: Bench, faulty: Faulty, fault: str, status: int, asked_again: int
) -> None:
    server = faulty(everything(fault))
    result = bench.run(server, "-j8")
    assert (result.status, len(server.prompts)) == (status, 10)
    assert "10 lines in a row were refused, the last one line" in result.stderr
    assert list(bench.statuses.values()) == [4] * 10
    server.plan = everything(None)
    bench.run(server)
    assert len(server.prompts) == 10 + asked_again  # a 403 without any success may have been the key


@pytest.mark.parametrize("fault", REFUSALS)
@pytest.mark.parametrize("success", ["this run", "an earlier run", "an answer that has begun"])
def test_after_a_success_no_number_of_refusals_ends_the_run(
    bench: Bench, faulty: Faulty, fault: str, success: str
) -> None:
    server = faulty(everything(fault, first=1))
    if success == "an earlier run":
        bench.run(server, "--halt", "now,fail=1")
    elif success == "an answer that has begun":
        server.plan = lambda _, __, count: fault if count else "cut"
    result = bench.run(server)
    assert set(server.prompts) == set(lines())
    assert result.status == (8 if success == "an answer that has begun" else 4)
    assert list(bench.statuses.values()).count(4) == LINES - 1


def test_refused_lines_at_high_concurrency_do_not_end_the_run(batch: Ask, questions: Questions, faulty: Faulty) -> None:
    """Bad lines are refused before the first good answer begins: at a concurrency of 256, ten are refused soon."""
    count = 600
    server = faulty(lambda prompt, _, __: "400" if int(prompt) % 20 == 0 else "slow")
    result = batch(server, "-j", "256", questions(*map(str, range(count))))
    assert (result.status, len(result.results), len(set(server.prompts))) == (4, count, count)
    assert sum(not it["complete"] for it in result.results) == count / 20


# Limits.


@pytest.mark.parametrize("fault", LIMITS)
@pytest.mark.parametrize("number", [pytest.param(1, marks=pytest.mark.nightly), 9])
def test_a_line_that_is_always_above_a_limit_delays_no_other_line_and_fails_in_the_end(
    bench: Bench, faulty: Faulty, fault: str, number: int
) -> None:
    server = faulty(one_line(fault, number))
    result = bench.run(server, "--patience", "60")
    assert result.status == 6
    assert bench.statuses == {**dict.fromkeys(range(1, LINES + 1), 0), number: 6}
    assert results_in(partial(bench.out))[-1]["index"] == number
    assert results_in(partial(bench.out))[-1]["error"]["retryable"]
    assert server.prompts.count(f"line {number}") == 6
    server.plan = everything(None)
    assert bench.run(server).status == 0


def test_adjacent_lines_that_are_always_above_a_limit_do_not_stop_the_other_lines(bench: Bench, faulty: Faulty) -> None:
    """There are more of them than may wait for a limit while other lines start."""
    bad = range(4, 16)
    server = faulty(lambda prompt, _, __: "429" if int(prompt.split()[-1]) in bad else None)
    result = bench.run(server, "-j1", "--no-adapt", "--patience", "5")
    assert result.status == 6
    assert {number for number, status in bench.statuses.items() if not status} == {*range(1, LINES + 1)} - {*bad}


@pytest.mark.parametrize("fault", LIMITS)
@pytest.mark.parametrize("first", [0, 3])
def test_a_rate_limit_for_all_lines_ends_the_run_when_the_patience_ends_and_no_line_fails(
    bench: Bench, faulty: Faulty, fault: str, first: int
) -> None:
    server = faulty(everything(fault, first))
    result = bench.run(server)
    assert result.status == 6
    assert "nothing has succeeded for 1 s; line" in result.stderr
    assert bench.statuses == dict.fromkeys(range(1, first + 1), 0)
    server.plan = everything(None)
    assert bench.run(server).status == 0


def test_a_rate_limit_within_an_answer_counts_as_a_retry(bench: Bench, faulty: Faulty) -> None:
    """Part of the answer was paid for: a line is not sent again and again."""
    server = faulty(everything("429 after text"))
    result = bench.run(server, "--retries", "1", "--max-time", "25")
    assert result.status == 8
    assert bench.statuses == dict.fromkeys(range(1, LINES + 1), 8)
    assert len(server.prompts) == 2 * LINES


@pytest.mark.parametrize("fault", [*LIMITS, "429 for 1 s", "429 for an hour"])
def test_the_limit_of_one_model_does_not_stop_lines_of_another(bench: Bench, faulty: Faulty, fault: str) -> None:
    server = faulty(one_model(fault))
    result = bench.run(server, models=True)
    assert result.status == 6
    good = {number: 0 for number in range(1, LINES + 1) if number % 2}
    assert {number: status for number, status in bench.statuses.items() if not status} == good
    assert set(bench.statuses.values()) <= {0, 6}
    server.plan = everything(None)
    assert bench.run(server, models=True).status == 0


# Failures of the server.


@pytest.mark.parametrize("fault", SERVER)
@pytest.mark.parametrize("number", [1, 5])
def test_a_failure_of_one_line_is_recorded_and_resume_sends_the_line_again(
    bench: Bench, faulty: Faulty, fault: str, number: int
) -> None:
    status, _ = SERVER[fault]
    server = faulty(one_line(fault, number))
    assert (bench.run(server).status, server.prompts) == (status, lines())
    assert bench.statuses == {**dict.fromkeys(range(1, LINES + 1), 0), number: status}
    server.plan = everything(None)
    assert (bench.run(server).status, server.prompts[LINES:]) == (0, [f"line {number}"])


@pytest.mark.parametrize("fault", [fault for fault in SERVER if fault != "timeout"])
def test_a_failing_model_fails_only_the_lines_that_use_it(bench: Bench, faulty: Faulty, fault: str) -> None:
    status, _ = SERVER[fault]
    server = faulty(one_model(fault))
    assert (bench.run(server, models=True).status, sorted(server.prompts)) == (status, sorted(lines()))
    assert bench.statuses == {number: (status, 0)[number % 2] for number in range(1, LINES + 1)}


@pytest.mark.parametrize("fault", SERVER)
def test_ten_failures_of_the_server_before_any_success_end_the_run(bench: Bench, faulty: Faulty, fault: str) -> None:
    _, status = SERVER[fault]
    server = faulty(everything(fault))
    result = bench.run(server)
    assert (result.status, len(server.prompts)) == (status, 10)
    assert "10 attempts in a row failed, the last one of line 10: " in result.stderr
    server.plan = everything(None)
    assert bench.run(server).status == 0


# A reset line has its result at once: on a busy machine all lines may have one before the outage is noticed.
SLOW = ("reset", "timeout")
AWAY = [pytest.param(fault, marks=pytest.mark.nightly) if fault in SLOW else fault for fault in SERVER]


@pytest.mark.parametrize("fault", AWAY)
@pytest.mark.parametrize("success", ["this run", "an earlier run"])
def test_a_permanent_outage_ends_the_run_when_the_patience_ends(
    bench: Bench, faulty: Faulty, fault: str, success: str
) -> None:
    _, status = SERVER[fault]
    server = faulty(everything(fault, first=3))
    if success == "an earlier run":
        bench.run(server, "--halt", "now,fail=1")
    asked = len(server.prompts)
    result = bench.run(server)
    assert result.status == status
    assert ("the server is unavailable" in result.stderr) == (
        fault != "timeout"
    )  # ten of those take longer than the patience
    assert "nothing has succeeded for" in result.stderr
    assert len(server.prompts) - asked <= 3 + 10 + 4
    server.plan = everything(None)
    assert bench.run(server).status == 0
    assert len(bench.statuses) == LINES


@pytest.mark.parametrize("first", [0, 3])
def test_a_server_that_refuses_connections_ends_the_run_with_status_3(bench: Bench, faulty: Faulty, first: int) -> None:
    server = faulty(everything(None))
    if first:
        server.plan = lambda _, __, count: server.go_away() if count == first - 1 else None
    else:
        server.go_away()
    result = bench.run(server)
    assert result.status == 3
    assert ("nothing has succeeded for" if first else "10 attempts in a row failed") in result.stderr
    server.plan = everything(None)
    server.come_back()
    assert bench.run(server).status == 0
    assert len(bench.statuses) == LINES
