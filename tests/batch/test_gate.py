"""The gate through which all requests of a batch start, against servers that are only arithmetic, with their clock."""

import heapq
import itertools
import math
import random
import threading
from typing import Any, NamedTuple

import pytest

from smai_cli.batch.gate import Gate, Limits, Ticket
from smai_cli.errors import Again, BusyError, SmaiError


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Served(NamedTuple):
    """How a simulated run went: in seconds, against the fastest that the server lets through, and how many were 429."""

    took_s: float
    ratio: float
    busy: float
    most: int
    gates: list[Gate]


class Server(NamedTuple):
    """So many a `rate` in a second, in windows of one (`window`) or by a bucket with a `burst`, or `at_once`."""

    rate: float = 20
    latency_s: float = 0.05
    kind: str = "window"
    burst: float = 0
    at_once: int = 0
    tells: bool = True  # Retry-After: 1
    chance: float = 0.0  # of a 429 for nothing


def simulate(  # noqa: C901  # a server, its clients and the time
    server: Server, lines: int, jobs: int = 64, batches: int = 1, seed: int = 1
) -> Served:
    chance, clock = random.Random(seed), Clock()
    gates = [Gate(Limits(jobs=jobs), now=clock, spread=chance.random) for _ in range(batches)]
    left = [lines] * batches
    window, bucket = [0, 0], [server.burst or server.rate, 0.0]
    running = most = asked = busy = order = done = 0
    ends: list[tuple[float, int, int, Ticket, bool]] = []

    def lets_through() -> bool:
        if chance.random() < server.chance:
            return False
        if server.at_once:
            return running < server.at_once
        if server.kind == "window":
            if window[0] != int(clock.now_s):
                window[:] = [int(clock.now_s), 0]
            window[1] += 1
            return window[1] <= server.rate
        bucket[:] = [min(server.burst or server.rate, bucket[0] + (clock.now_s - bucket[1]) * server.rate), clock.now_s]
        if bucket[0] < 1:
            return False
        bucket[0] -= 1
        return True

    while done < lines * batches:
        wakes = []
        for at, gate in enumerate(gates):
            while left[at] and not gate.is_closed and (wait_s := gate._wait_s()) <= 0:
                ticket = gate._start()
                most = max(most, gate.running)
                left[at] -= 1
                asked += 1
                order += 1
                is_let = lets_through()
                running += is_let
                spent_s = server.latency_s * chance.uniform(0.7, 1.3) if is_let else 0.01
                heapq.heappush(ends, (clock.now_s + spent_s, order, at, ticket, is_let))
            if left[at] and wait_s < math.inf:
                wakes.append(clock.now_s + wait_s + 1e-6)
        assert ends or wakes, "it stands still"
        clock.now_s = min([*wakes, *(ends[0][0] for _ in ends[:1])])
        while ends and ends[0][0] <= clock.now_s:
            _, _, at, ticket, is_let = heapq.heappop(ends)
            if is_let:
                running -= 1
                done += 1
                gates[at].leave(ticket, succeeded=True)
            else:
                busy += 1
                left[at] += 1
                gates[at].hold(ticket, too_many(1.0 if server.tells else None))
    total = lines * batches
    ideal_s = total * server.latency_s / server.at_once if server.at_once else total / server.rate
    return Served(clock.now_s, clock.now_s / ideal_s, busy / asked, most, gates)


def too_many(wait_s: float | None = None, http_status: int = 429) -> BusyError:
    return BusyError("too many", wait_s=wait_s, http_status=http_status, again=Again.UNANSWERED)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    ("server", "lines", "batches", "ratio", "busy"),
    [
        pytest.param(Server(), 600, 1, 1.5, 0.1, id="20 a second"),
        pytest.param(Server(), 1500, 1, 1.5, 0.1, id="for longer"),
        pytest.param(Server(), 200, 1, 1.5, 0.1, id="for ten seconds"),
        pytest.param(Server(kind="bucket"), 600, 1, 1.5, 0.1, id="bucket"),
        pytest.param(Server(kind="bucket", burst=1), 600, 1, 1.5, 0.1, id="bucket of one"),
        pytest.param(Server(kind="bucket", burst=5, latency_s=0.2), 300, 1, 1.5, 0.1, id="bucket of five"),
        pytest.param(Server(latency_s=1), 600, 1, 1.5, 0.1, id="slow answers"),
        pytest.param(Server(latency_s=1, kind="bucket"), 600, 1, 1.5, 0.1, id="slow answers, bucket"),
        pytest.param(Server(latency_s=0.005), 600, 1, 1.5, 0.1, id="fast answers"),
        pytest.param(Server(tells=False), 600, 1, 1.5, 0.1, id="no Retry-After"),
        pytest.param(Server(tells=False, kind="bucket", burst=1), 600, 1, 1.5, 0.1, id="no Retry-After, bucket of one"),
        pytest.param(Server(rate=100, latency_s=0.5), 3000, 1, 1.5, 0.1, id="100 a second"),
        pytest.param(Server(), 400, 3, 1.6, 0.15, id="three batches side by side"),
        pytest.param(Server(kind="bucket"), 400, 3, 1.6, 0.15, id="three batches, bucket"),
        pytest.param(Server(at_once=4, latency_s=1), 300, 1, 1.5, 0.2, id="four at once"),
        pytest.param(Server(at_once=4, latency_s=1, tells=False), 300, 1, 1.5, 0.2, id="four at once, no Retry-After"),
        pytest.param(Server(rate=10**9, chance=0.05), 600, 1, math.inf, 0.1, id="429 for nothing"),
    ],
)
def test_a_limit_is_used_and_hardly_run_into(
    server: Server, lines: int, batches: int, ratio: float, busy: float, seed: int
) -> None:
    served = simulate(server, lines, batches=batches, seed=seed)
    assert served.ratio < ratio
    assert served.busy < busy
    assert served.most <= 64


def test_429s_for_nothing_do_not_slow_a_run_down_for_ever() -> None:
    # One in a hundred, as of servers behind a balancer, one of which is full: 20 at once answer 20 a second.
    served = simulate(Server(rate=10**9, latency_s=1, chance=0.01), 3000, jobs=32)
    assert served.took_s < 400


# One gate by hand.


def make(clock: Clock, **limits: Any) -> Gate:
    return Gate(Limits(**{"jobs": 8, **limits}), now=clock, spread=lambda: 0.5)


def enter(gate: Gate, count: int = 1) -> list[Ticket]:
    """Start as many as may start now, up to `count`."""
    tickets: list[Ticket] = []
    while len(tickets) < count and not gate.is_closed and gate._wait_s() <= 0:
        tickets.append(gate._start())
    return tickets


def one(gate: Gate) -> Ticket:
    (ticket,) = enter(gate)
    return ticket


@pytest.mark.parametrize(("jobs", "first"), [(1, 1), (8, 8), (64, 20), (512, 20)])
def test_it_starts_with_twenty_or_the_ceiling(jobs: int, first: int) -> None:
    assert len(enter(make(Clock(), jobs=jobs), 600)) == first


def test_it_doubles_with_each_round_that_used_it_fully_and_never_passes_the_ceiling() -> None:
    gate = make(Clock(), jobs=100)
    seen = []
    for _ in range(4):
        tickets = enter(gate, 600)
        seen.append(len(tickets))
        for ticket in tickets:
            gate.leave(ticket, succeeded=True)
    assert seen == [20, 40, 80, 100]


def test_a_round_that_did_not_use_it_fully_does_not_raise_it() -> None:
    gate = make(Clock(), jobs=100)
    for _ in range(60):
        (ticket,) = enter(gate)
        gate.leave(ticket, succeeded=True)
    assert gate.jobs == 20


def test_it_is_cut_by_a_quarter_once_for_all_that_was_under_way_and_grows_by_one() -> None:
    clock = Clock()
    gate = make(clock, jobs=20)
    for ticket in enter(gate, 20):
        gate.hold(ticket, too_many(1.0))
    assert gate.jobs == 15
    clock.now_s = 100.0
    for _ in range(600):
        clock.now_s += 60  # nothing is spaced any more
        for ticket in enter(gate, 20):
            gate.leave(ticket, succeeded=True)
        if gate.jobs > 15:
            break
    assert gate.jobs == 16


def test_it_never_falls_below_one_and_grows_again_from_there() -> None:
    clock = Clock()
    gate = make(clock, patience_s=0)
    for _ in range(20):
        clock.now_s += 1000
        gate.hold(one(gate), too_many(0.1))
    assert gate.jobs == 1
    for _ in range(50):
        clock.now_s += 1000
        for ticket in enter(gate, 8):
            gate.leave(ticket, succeeded=True)
    assert gate.jobs == 8


def test_slow_answers_and_failures_of_another_kind_never_cut_it() -> None:
    clock = Clock()
    gate = make(clock)
    for _ in range(20):
        tickets = enter(gate, 8)
        assert len(tickets) == 8
        clock.now_s += 120
        for ticket in tickets:
            gate.leave(ticket, succeeded=False)


def test_without_adapting_the_number_stands_but_all_still_wait() -> None:
    clock = Clock()
    gate = make(clock, jobs=64, adapts=False)
    tickets = enter(gate, 64)
    assert len(tickets) == 64
    gate.hold(tickets[0], too_many(10.0))
    for ticket in tickets[1:]:
        gate.leave(ticket, succeeded=True)
    assert (gate.jobs, enter(gate, 64)) == (64, [])
    clock.now_s = 10.6
    assert len(enter(gate, 64)) == 64


def test_retry_after_stops_every_start_for_at_least_as_long_as_it_says() -> None:
    clock = Clock()
    gate = make(clock)
    first, other = enter(gate, 2)
    gate.hold(first, too_many(12.0))
    gate.hold(other, too_many(3.0))
    for now_s in (0.1, 3.5, 11.9, 12.0):
        clock.now_s = now_s
        assert not enter(gate)
    clock.now_s = 13.3
    assert enter(gate)


def test_without_retry_after_the_pause_doubles_until_something_succeeds() -> None:
    clock, pauses = Clock(), []
    gate = Gate(
        Limits(jobs=4, patience_s=0), lambda _, pause_s, *__: pauses.append(pause_s), now=clock, spread=lambda: 0.0
    )
    for _ in range(9):
        clock.now_s += 1000
        gate.hold(one(gate), too_many())
    assert pauses == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    clock.now_s += 1000
    gate.leave(one(gate), succeeded=True)
    gate.hold(one(gate), too_many())
    assert pauses[-1] == 0.5


def test_a_retry_after_of_nothing_is_not_obeyed_for_ever() -> None:
    """A server that says 0 seconds and means nothing by it would be asked a thousand times a second."""
    clock = Clock()
    gate = make(clock, patience_s=300)
    asked = 0
    while not gate.is_closed:
        wait_s = gate._wait_s()
        clock.now_s += max(0.0, wait_s) + 1e-6
        for ticket in enter(gate):
            asked += 1
            clock.now_s += 0.001
            gate.hold(ticket, too_many(0.0))
    assert clock.now_s >= 300
    assert asked < 1000


def test_starts_are_spaced_by_rpm() -> None:
    clock = Clock()
    gate = make(clock, gap_s=2.0)
    starts: list[int] = []
    while len(starts) < 5:
        if enter(gate):
            starts.append(round(clock.now_s))
        clock.now_s += 0.25
    assert [later - earlier for earlier, later in itertools.pairwise(starts)] == [2, 2, 2, 2]


def test_one_429_after_an_hour_without_a_line_spaces_nothing_by_that_hour() -> None:
    clock = Clock()
    gate = make(clock)
    for _ in range(3):
        clock.now_s += 3600
        gate.leave(one(gate), succeeded=True)
    clock.now_s += 3600
    gate.hold(one(gate), too_many(1.0))
    clock.now_s += 2
    gate.leave(one(gate), succeeded=True)
    clock.now_s += 5
    assert enter(gate)


# Patience.


def test_a_storm_in_which_nothing_succeeds_ends_after_the_patience() -> None:
    clock = Clock()
    gate = make(clock, patience_s=60)
    while not gate.is_closed:
        clock.now_s += 1.0
        for ticket in enter(gate, 8):
            gate.hold(ticket, too_many(1.0))
    assert 60 <= clock.now_s < 90
    assert isinstance(gate.failure, BusyError)
    assert "nothing has succeeded for" in gate.failure.what


def test_a_success_renews_the_patience() -> None:
    clock = Clock()
    gate = make(clock, patience_s=60)
    for _ in range(50):
        clock.now_s += 30.0
        gate.hold(one(gate), too_many(1.0))
        clock.now_s += 20.0
        gate.leave(one(gate), succeeded=True)
    assert not gate.is_closed


def test_an_answer_under_way_is_success_in_sight_however_long_it_takes() -> None:
    """One may run at once, and its model thinks for ten minutes: the 429 of the others are no storm."""
    clock = Clock()
    gate = make(clock, jobs=2, patience_s=60)
    (long,) = enter(gate)
    gate.begins(long)
    gate.jobs = 2
    for _ in range(60):
        clock.now_s += 10.0
        for ticket in enter(gate):
            gate.hold(ticket, too_many(1.0))
        gate.jobs = 2
    assert not gate.is_closed
    gate.leave(long, succeeded=False)
    while not gate.is_closed:
        clock.now_s += 10.0
        for ticket in enter(gate):
            gate.hold(ticket, too_many(1.0))
    assert clock.now_s < 600 + 60 + 30


def test_a_server_that_asks_for_more_than_the_patience_is_not_waited_for() -> None:
    gate = make(Clock(), patience_s=60)
    gate.hold(one(gate), too_many(3600.0))
    assert gate.failure
    assert "the server asks to wait 3600 s" in gate.failure.what


def test_without_patience_there_is_no_end() -> None:
    clock = Clock()
    gate = make(clock, patience_s=0)
    for _ in range(1000):
        clock.now_s += 100
        for ticket in enter(gate):
            gate.hold(ticket, too_many(100_000.0 if clock.now_s < 500 else 1.0))
    assert not gate.is_closed


# By threads.


def test_whoever_waits_hears_that_it_is_closed() -> None:
    gate = Gate(Limits(jobs=1))
    ticket = gate.enter()
    got: list[Any] = []
    waits: list[Any] = [gate.enter, gate.enter, lambda: gate.wait(60)]
    threads = [threading.Thread(target=lambda wait=wait: got.append(wait())) for wait in waits]
    for thread in threads:
        thread.start()
    gate.close(SmaiError("why"))
    gate.close(SmaiError("too late"))
    for thread in threads:
        thread.join(20)
    assert ticket
    assert sorted(map(str, got)) == ["False", "None", "None"]
    assert str(gate.failure) == "why"
    assert gate.enter() is None
