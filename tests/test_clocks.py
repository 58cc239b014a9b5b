"""The clocks, on their own."""

import threading

import pytest

from smai_cli.clocks import Clocks, Deadline, IdleClock
from smai_cli.errors import ClockError


def test_no_limit_is_never_over() -> None:
    assert Deadline().left_s() == float("inf")
    assert Deadline(5).left_s() <= 5


def fired(clock: IdleClock) -> bool:
    """Watch `clock` to its end; return whether it interrupted."""
    interrupted = threading.Event()
    watching = threading.Thread(target=clock.watch, args=(interrupted.set,), daemon=True)
    watching.start()
    return interrupted.wait(20)


def test_the_idle_clock_fires_while_a_read_waits_and_says_that_nothing_came() -> None:
    clock = IdleClock(Clocks(idle_timeout_s=0.05))
    clock.start()
    assert fired(clock)
    with pytest.raises(ClockError, match=r"nothing came for 0\.05 s"):
        clock.check()


def test_it_says_when_only_comments_came() -> None:
    clock = IdleClock(Clocks(idle_timeout_s=0.05))
    clock.silent = False
    clock.start()
    assert fired(clock)
    with pytest.raises(ClockError, match="only comments"):
        clock.check()


def test_the_deadline_fires_before_a_longer_idle_limit() -> None:
    clock = IdleClock(Clocks(idle_timeout_s=60, deadline=Deadline(0.05)))
    clock.start()
    assert fired(clock)
    with pytest.raises(ClockError, match=r"the run took 0\.05 s in all"):
        clock.check()


def test_a_finished_answer_shortens_a_wait_that_has_begun() -> None:
    clock = IdleClock(Clocks(idle_timeout_s=600))
    interrupted = threading.Event()
    clock.start()
    threading.Thread(target=clock.watch, args=(interrupted.set,), daemon=True).start()
    clock.restart(0.05)
    assert interrupted.wait(20)


def test_time_in_which_nothing_is_read_does_not_count() -> None:
    clock = IdleClock(Clocks(idle_timeout_s=0.05))
    clock.start()
    clock.stop()
    interrupted = threading.Event()
    threading.Thread(target=clock.watch, args=(interrupted.set,), daemon=True).start()
    assert not interrupted.wait(0.5)
    clock.check()
