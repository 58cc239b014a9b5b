"""Which line of a model is sent next, while some wait because a rate limit refused them."""

from smai_cli.batch.feed import Job
from smai_cli.batch.input.lines import Defaults, read_line
from smai_cli.batch.load.control import LoadControl
from smai_cli.batch.model_queue import ModelQueue
from smai_cli.batch.results.result import LineIdentity
from smai_cli.batch.tries import Tries
from smai_cli.errors import BusyError

DEFAULTS = Defaults(model="m", api="chat", system=None, parameters={}, extra_body={})


def line(place: int, refusals: int = 0) -> Tries:
    identity = LineIdentity(place + 1, None, b"", 1, "flat", {})
    tries = Tries(Job(place, identity, read_line(place + 1, b'"text"', DEFAULTS)))
    for _ in range(refusals):
        tries.refuse(0)
    return tries


def order(*, refusals: int) -> list[int]:
    """Return the order in which four fresh lines and two refused ones are sent; the pauses of these are over."""
    queue = ModelQueue(LoadControl(8))
    for place in range(2):
        queue.delay(line(place, refusals), 1.0)
    for place in range(2, 6):
        queue.add(line(place))
    return [queue.pop(5.0).job.place for _ in range(6)]


def test_a_line_that_was_refused_up_to_four_times_is_sent_before_fresh_lines() -> None:
    """If it took turns already, a server that refuses everything for some seconds would make it fail."""
    assert order(refusals=1) == order(refusals=4) == [0, 1, 2, 3, 4, 5]


def test_lines_that_were_refused_more_often_take_turns_with_fresh_lines() -> None:
    """If each of them took a start, no other line would be sent where only few requests may start."""
    assert order(refusals=5) == [0, 2, 1, 3, 4, 5]


def test_a_line_that_fails_often_by_chance_does_not_wait_for_minutes() -> None:
    """If the pause doubled without end, one line of a server that refuses 30 % would delay the end of the run."""
    tries, failure = line(0), BusyError("the server answered 503", "try again")
    pauses = [tries.next_pause_s(failure, limit=9) or 0.0 for _ in range(9)]
    assert 0.25 <= pauses[0] <= 0.5 < pauses[3] <= 4 <= max(pauses) <= 8
