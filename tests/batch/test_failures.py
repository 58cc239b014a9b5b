"""What a failure belongs to: the table of the function that decides it."""

import pytest

from smai_cli.batch.failures import History, Kind, Owner, Past, kind_of, owner_of
from smai_cli.errors import (
    AccessError,
    BrokenError,
    BusyError,
    Cause,
    ClockError,
    ConnectError,
    CutShortError,
    OutputError,
    RefusedError,
    Retry,
    SmaiError,
    UsageError,
    WithheldError,
)

LINE, MODEL, SERVER, RUN = Owner.LINE, Owner.MODEL, Owner.SERVER, Owner.RUN

KEY = AccessError("?", http_status=401, cause=Cause.KEY)
MONEY = AccessError("?", http_status=429, cause=Cause.MONEY, code="insufficient_quota")
SPENT = AccessError("?", http_status=403, cause=Cause.SPENDING_LIMIT, code="organization_spend_limit_exceeded")
FLAGGED = AccessError("?", http_status=403, cause=Cause.FORBIDDEN)
BLOCKED = RefusedError("?", http_status=403, cause=Cause.WEB_PAGE)
NOT_FOUND = RefusedError("?", http_status=404, cause=Cause.MODEL)
BAD_BUNDLE = UsageError("?")
FULL = OutputError("?")
LIMIT = BusyError("?", http_status=429, cause=Cause.RATE_LIMIT)
LIMIT_IN_200 = BusyError("?", cause=Cause.RATE_LIMIT, code="429", retry=Retry.HELD_BACK)
LIMIT_IN_TEXT = BrokenError("?", cause=Cause.RATE_LIMIT, code="429", retry=Retry.HELD_BACK)
FINAL_LIMIT = BusyError("?", http_status=429, cause=Cause.RATE_LIMIT, retry=Retry.NEVER)
CONNECT = ConnectError("?")
TIMEOUT = ClockError("?")
RESET = BrokenError("?", retry=Retry.NEVER)
FAILURES = [BusyError("?", http_status=status, cause=Cause.SERVER) for status in (500, 502, 504, 521)]
OVERLOAD = BusyError("?", http_status=503, cause=Cause.OVERLOAD)
LIMIT_BY_NAME = BusyError("?", http_status=503, cause=Cause.RATE_LIMIT)
SERVER_FAILURES = [*FAILURES, OVERLOAD, LIMIT_BY_NAME, CONNECT, TIMEOUT, RESET]
ANSWERS = [CutShortError("?"), WithheldError("?"), FINAL_LIMIT]

FIRST = Past()
NINTH, TENTH = Past(in_a_row=9, is_of_several=True), Past(in_a_row=10, is_of_several=True)
AFTER, AFTER_TENTH = (past._replace(has_answered=True) for past in (FIRST, TENTH))
AFTER_TENTH_OF_ONE = AFTER_TENTH._replace(is_of_several=False)
OFTEN = AFTER._replace(refusals=5, others=20)

TABLE = [
    # The key, the account, money, a full disk, this machine: at once, whatever has happened before.
    *((failure, past, RUN) for failure in (KEY, MONEY, SPENT, FULL, BAD_BUNDLE) for past in (FIRST, AFTER, OFTEN)),
    # A refusal is the line's, unless ten are equal before any success.
    *((failure, past, LINE) for failure in (FLAGGED, BLOCKED, NOT_FOUND) for past in (FIRST, NINTH, AFTER)),
    *((failure, TENTH, RUN) for failure in (FLAGGED, BLOCKED, NOT_FOUND)),
    *((failure, AFTER_TENTH, LINE) for failure in (FLAGGED, BLOCKED, NOT_FOUND)),
    # A limit is the model's, unless the line alone runs into it.
    *((failure, past, MODEL) for failure in (LIMIT, LIMIT_IN_200, LIMIT_IN_TEXT) for past in (FIRST, TENTH, AFTER)),
    (LIMIT, AFTER._replace(refusals=5, others=19), MODEL),
    (LIMIT, AFTER._replace(refusals=4, others=400), MODEL),
    (LIMIT, OFTEN, LINE),
    # A server failure is the line's until ten in a row are those of several lines.
    *((failure, past, LINE) for failure in SERVER_FAILURES for past in (FIRST, NINTH, AFTER, AFTER_TENTH_OF_ONE)),
    *((failure, TENTH, RUN) for failure in SERVER_FAILURES),
    *((failure, TENTH._replace(is_of_several=False), RUN) for failure in SERVER_FAILURES),
    *((failure, AFTER_TENTH, SERVER) for failure in SERVER_FAILURES),
    # An answer that began is not a failure of the server, and neither is one that was cut or withheld.
    *((failure, AFTER_TENTH._replace(has_begun=True), LINE) for failure in (RESET, TIMEOUT)),
    *((failure, past, LINE) for failure in ANSWERS for past in (FIRST, TENTH, AFTER_TENTH)),
    # The patience ends what waits, whatever it waits for, and nothing else.
    *((it, AFTER_TENTH._replace(is_patience_over=True), RUN) for it in (LIMIT, LIMIT_IN_200, *SERVER_FAILURES)),
    *((it, AFTER_TENTH._replace(is_patience_over=True), LINE) for it in (FLAGGED, NOT_FOUND, *ANSWERS)),
    *((it, AFTER._replace(is_patience_over=True), LINE) for it in SERVER_FAILURES),
]


@pytest.mark.parametrize(
    ("failure", "past", "owner"),
    TABLE,
    ids=[f"{type(it).__name__} {it.http_status or it.code} {past} {owner.name}" for it, past, owner in TABLE],
)
def test_a_failure_is_attributed_to_a_line_a_model_the_server_or_the_run(
    failure: SmaiError, past: Past, owner: Owner
) -> None:
    assert owner_of(failure, past) is owner


# What is in a row.


def add(history: History, failure: SmaiError, number: int) -> Past:
    """Add the failure of the request `number`, which is the first of its line."""
    return history.add_failure(failure, kind_of(failure, has_begun=False), number, number, 0.0)


def refusal(message: str, code: str = "a", http_status: int = 400) -> RefusedError:
    return RefusedError(message, http_status=http_status, cause=Cause.REQUEST, code=code)


def test_refusals_count_as_equal_if_their_status_and_code_match_whatever_the_message() -> None:
    history = History(has_answered=False)
    assert [add(history, refusal(f"request {number}"), number).in_a_row for number in (1, 2, 3)] == [1, 2, 3]
    assert add(history, refusal("request 4", code="b"), 4).in_a_row == 1
    assert add(history, refusal("request 5", http_status=404), 5).in_a_row == 1


@pytest.mark.parametrize("between", [LIMIT, NOT_FOUND, CutShortError("?")])
def test_server_failures_of_any_kind_are_consecutive_until_the_server_answers(between: SmaiError) -> None:
    history = History(has_answered=True)
    counts = [add(history, failure, number).in_a_row for number, failure in enumerate(SERVER_FAILURES, 1)]
    assert counts == list(range(1, len(SERVER_FAILURES) + 1))
    add(history, between, len(counts) + 1)
    assert add(history, CONNECT, len(counts) + 2).in_a_row == 1


def fail(history: History, number: int, place: int) -> None:
    history.add_failure(CONNECT, Kind.SERVER, number, place, 0.0)


def test_failures_of_two_lines_are_an_outage_but_those_of_one_line_are_not() -> None:
    history = History(has_answered=True)
    for number in range(1, 13):
        fail(history, number, place=7)
    assert not history.is_server_away
    for number in range(20, 30):
        fail(history, number, place=number % 2)
    assert history.is_server_away
    history.add_answer(30)
    assert not history.is_server_away


# In any order of the ends, the numbers of the requests decide what is in a row.
IN_A_ROW_IN_SOME_ORDER = (105, 100, 103, 101, 104, 109, 102, 107, 106, 108)


def test_ten_server_failures_with_an_answer_between_their_requests_are_not_an_outage() -> None:
    """At 30 % random failures and 64 at once, ten fail before the first answer begins, and that is not an outage."""
    history = History(has_answered=True)
    for number in range(1, 60, 3):
        fail(history, number, place=number)
        assert not history.is_server_away
    for number in IN_A_ROW_IN_SOME_ORDER:
        assert not history.is_server_away
        fail(history, number, place=number)
    assert history.is_server_away


@pytest.mark.parametrize(("number", "is_away"), [(99, True), (110, False)])
def test_only_an_answer_to_a_later_request_shows_that_the_server_is_back(number: int, *, is_away: bool) -> None:
    history = History(has_answered=True)
    for count, failed in enumerate(IN_A_ROW_IN_SOME_ORDER):
        if count == 5:
            history.add_answer(99)
        fail(history, failed, place=failed)
    assert history.is_server_away
    history.add_answer(number)
    assert history.is_server_away == is_away


def test_failures_of_requests_older_than_the_last_answer_are_not_an_outage() -> None:
    history = History(has_answered=True)
    history.add_answer(110)
    for number in IN_A_ROW_IN_SOME_ORDER:
        fail(history, number, place=number)
    assert not history.is_server_away


def test_refusals_are_consecutive_in_the_order_of_their_requests() -> None:
    """Every twentieth of 256 requests is refused: the refusals come first, while requests between them still run."""
    history = History(has_answered=False)
    assert {add(history, refusal("?"), number).in_a_row for number in range(20, 401, 20)} == {1}
    rows = [add(history, refusal("?"), 1000 + number).in_a_row for number in IN_A_ROW_IN_SOME_ORDER]
    assert (max(rows[:-1]) < 10, rows[-1]) == (True, 10)


def test_at_most_ten_requests_run_while_all_may_fail_the_same_way() -> None:
    history = History(has_answered=False)
    assert not history.may_all_fail(20)  # nothing has failed yet
    add(history, refusal("?"), 3)
    assert not history.may_all_fail(9)
    assert history.may_all_fail(10)
    add(history, refusal("?", code="b"), 4)  # the others may fail as this one did, but 3 did not
    assert not history.may_all_fail(12)
    assert history.may_all_fail(13)
    add(history, LIMIT, 5)
    assert not history.may_all_fail(13)
    add(history, refusal("?", code="b"), 6)
    assert history.may_all_fail(15)
    history.add_answer(7)
    assert not history.may_all_fail(30)


def test_a_refused_line_ends_the_wait_for_the_server() -> None:
    history = History(has_answered=True)
    history.add_failure(LIMIT, Kind.LIMIT, 1, 0, 5.0)
    history.add_failure(CONNECT, Kind.SERVER, 2, 1, 6.0)
    assert history.waiting_since_s == 5.0
    history.add_failure(NOT_FOUND, Kind.REFUSAL, 3, 2, 7.0)
    assert history.waiting_since_s is None
