"""Unit tests of the clocks."""

import time

import pytest

from smai_cli.common.clocks import Deadline, IdleClock
from smai_cli.errors import ClockError


def test_a_deadline_without_a_limit_never_ends() -> None:
    assert Deadline().left_s() == float("inf")
    assert Deadline(5).left_s() <= 5


def wait_out(clock: IdleClock) -> None:
    """Wait as a reader does that receives nothing, until the clock says that it is over."""
    while True:
        time.sleep(clock.next_wait_s())


def test_the_idle_clock_ends_a_wait_and_says_that_nothing_came() -> None:
    with pytest.raises(ClockError, match=r"nothing arrived for 0\.05 s"):
        wait_out(IdleClock(0.05))


def test_the_message_says_if_only_comments_came() -> None:
    clock = IdleClock(0.05)
    clock.silent = False
    with pytest.raises(ClockError, match="only comments"):
        wait_out(clock)


def test_the_deadline_ends_a_wait_before_a_longer_idle_limit() -> None:
    with pytest.raises(ClockError, match=r"the run took 0\.05 s in all"):
        wait_out(IdleClock(60, Deadline(0.05)))


def test_a_finished_answer_shortens_the_wait() -> None:
    clock = IdleClock(600)
    clock.start()
    clock.finish(0.05)
    with pytest.raises(ClockError, match=r"for 0\.05 s"):
        wait_out(clock)


def test_a_late_event_resets_the_full_limit() -> None:
    clock = IdleClock(600)
    clock.finish(0.05)
    clock.reset()
    clock.start()
    assert clock.left_s() > 500


def test_a_wait_is_at_most_a_second_long() -> None:
    assert IdleClock(600).next_wait_s() <= 1


def test_waits_that_bring_no_event_do_not_restart_the_limit() -> None:
    clock = IdleClock(600)
    clock.finish(5)
    clock.next_wait_s()
    before_s = clock.left_s()
    while time.monotonic() == time.monotonic():  # until the clock of the system has moved
        pass
    clock.next_wait_s()
    assert clock.left_s() < before_s


def test_time_in_which_something_is_written_does_not_count() -> None:
    clock = IdleClock(0.05)
    clock.start()
    clock.hold()
    time.sleep(0.1)
    clock.release()
    assert clock.next_wait_s() > 0
