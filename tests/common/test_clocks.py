"""Unit tests of the clocks."""

import threading
import time

import pytest

from smai_cli.common.clocks import Deadline, IdleClock
from smai_cli.errors import ClockError


def test_a_deadline_without_a_limit_never_ends() -> None:
    assert Deadline().left_s() == float("inf")
    assert Deadline(5).left_s() <= 5


def start_watch(clock: IdleClock) -> threading.Event:
    """Watch `clock` in a thread; return an event that is set when it interrupts."""
    interrupted = threading.Event()
    threading.Thread(target=clock.watch, args=(interrupted.set,), daemon=True).start()
    return interrupted


def test_the_idle_clock_fires_while_a_read_waits_and_says_that_nothing_came() -> None:
    clock = IdleClock(0.05)
    clock.start()
    assert start_watch(clock).wait(20)
    with pytest.raises(ClockError, match=r"nothing arrived for 0\.05 s"):
        clock.check()


def test_the_message_says_if_only_comments_came() -> None:
    clock = IdleClock(0.05)
    clock.silent = False
    clock.start()
    assert start_watch(clock).wait(20)
    with pytest.raises(ClockError, match="only comments"):
        clock.check()


def test_the_deadline_fires_before_a_longer_idle_limit() -> None:
    clock = IdleClock(60, Deadline(0.05))
    clock.start()
    assert start_watch(clock).wait(20)
    with pytest.raises(ClockError, match=r"the run took 0\.05 s in all"):
        clock.check()


def test_a_finished_answer_shortens_a_wait_that_has_begun() -> None:
    clock = IdleClock(600)
    clock.start()
    interrupted = start_watch(clock)
    clock.finish(0.05)
    clock.start()
    assert interrupted.wait(20)


def test_a_late_event_resets_the_full_limit() -> None:
    clock = IdleClock(600)
    clock.finish(0.05)
    clock.reset()
    clock.start()
    assert clock.left_s() > 500


def test_empty_reads_do_not_restart_the_grace_period() -> None:
    clock = IdleClock(600)
    clock.finish(5)
    clock.start()
    before_s = clock.left_s()
    while time.monotonic() == time.monotonic():  # until the clock of the system has moved
        pass
    clock.start()
    assert clock.left_s() < before_s


def test_time_in_which_something_is_written_does_not_count() -> None:
    clock = IdleClock(0.05)
    clock.start()
    clock.hold()
    assert not start_watch(clock).wait(0.5)
    clock.check()
    clock.release()
    assert clock.left_s() > 0


def test_closing_a_clock_ends_its_watch() -> None:
    clock = IdleClock()
    clock.start()
    watching = threading.Thread(target=clock.watch, args=(lambda: None,))
    watching.start()
    clock.close()
    watching.join(20)
    assert not watching.is_alive()
