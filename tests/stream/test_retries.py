"""Whether and when a failed request is retried."""

import pytest

from smai_cli.common.clocks import Deadline
from smai_cli.errors import BrokenError, BusyError, ClockError, ConnectError, RefusedError, Retry, SmaiError
from smai_cli.stream.retries import Retries


class Pauses:
    """Retries that do not sleep; the pauses and the lines are recorded."""

    def __init__(self, limit: int, deadline: Deadline | None = None) -> None:
        self.lines: list[str] = []
        self.pauses_s: list[float] = []
        self.retries = Retries(limit, self.lines.append, deadline or Deadline(), sleep=self.pauses_s.append)


@pytest.mark.parametrize(
    ("error", "holds_back", "again"),
    [
        (ConnectError("x"), False, True),
        (ConnectError("x", retry=Retry.NEVER), False, False),
        (BusyError("x"), False, True),
        (RefusedError("x"), False, False),
        (ClockError("x"), True, False),
        (BrokenError("x"), False, False),
        (BusyError("x", retry=Retry.UNDELIVERED), False, False),
        (BusyError("x", retry=Retry.UNDELIVERED), True, True),
        (BrokenError("x"), True, True),
        (BrokenError("x", retry=Retry.NEVER), True, False),
    ],
)
def test_a_failure_is_retried_if_it_is_temporary_and_nothing_was_printed(
    error: SmaiError, holds_back: bool, again: bool
) -> None:
    assert Pauses(1).retries.wait(error, holds_back=holds_back) is (None if again else error)


def test_the_pauses_double_with_jitter_up_to_the_last_retry() -> None:
    pauses = Pauses(3)
    error = BusyError("503")
    assert [pauses.retries.wait(error, holds_back=False) for _ in range(4)] == [None, None, None, error]
    for pause_s, middle_s in zip(pauses.pauses_s, (0.5, 1.0, 2.0), strict=True):
        assert 0.8 * middle_s <= pause_s <= 1.2 * middle_s
    assert pauses.lines[0].startswith("503; try 2 of 4 in 0.")
    assert pauses.lines[2].startswith("503; try 4 of 4 in ")


def test_the_server_decides_the_pause_up_to_two_minutes() -> None:
    pauses = Pauses(5)
    assert pauses.retries.wait(BusyError("503", wait_s=120), holds_back=False) is None
    (pause_s,) = pauses.pauses_s
    assert 120 <= pause_s <= 125
    error = BusyError("503", "try again later", wait_s=120.5)
    assert str(pauses.retries.wait(error, holds_back=False)) == "503; the server asks to wait 121 s; try again then"
    assert str(error) == "503; try again later"


def test_a_pause_is_never_shorter_than_the_server_asks() -> None:
    pauses = Pauses(100)
    while pauses.retries.wait(BusyError("503", wait_s=10), holds_back=False) is None:
        pass
    assert all(10 <= pause_s <= 11 for pause_s in pauses.pauses_s)
    assert len(set(pauses.pauses_s)) > 50


def test_pauses_have_a_limit_for_any_number_of_retries() -> None:
    pauses = Pauses(2000)
    while pauses.retries.wait(BusyError("503"), holds_back=False) is None:
        pass
    assert len(pauses.pauses_s) == 2000
    assert max(pauses.pauses_s) <= 72


def test_a_pause_that_would_end_after_max_time_is_not_started() -> None:
    pauses = Pauses(5, Deadline(5))
    error = BusyError("503", wait_s=10)
    assert "after --max-time" in str(pauses.retries.wait(error, holds_back=False))
    assert pauses.pauses_s == []
