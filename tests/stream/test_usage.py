"""The token counts of an answer: where servers put them, and how they write them."""

from typing import Any

import pytest

from smai_cli.answer.chunk import Usage, usage_in, usage_of

COUNTS = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


@pytest.mark.parametrize(
    "payload",
    [
        {"usage": COUNTS, "choices": []},
        {"usage": COUNTS, "choices": [{"usage": {"prompt_tokens": 1}}], "x_groq": {"usage": {"prompt_tokens": 2}}},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": COUNTS}]},
        {"usage": None, "choices": [{"usage": COUNTS}]},
        {"usage": {}, "choices": [], "x_groq": {"id": "req_1", "usage": COUNTS}},
        {"usage": {"total_tokens": 0}, "choices": [], "x_groq": {"usage": COUNTS}},
        {"usage": {"cost": 0.1}, "choices": [{"usage": None}], "x_groq": {"usage": COUNTS}},
    ],
    ids=[
        "API",
        "API before others",
        "Moonshot",
        "Moonshot next to null",
        "Groq",
        "Groq next to zeros",
        "Groq next to no counts",
    ],
)
def test_the_counts_are_found_wherever_the_server_puts_them(payload: dict[str, Any]) -> None:
    assert usage_in(payload) == Usage(7, 3, 10)


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"usage": None},
        {"usage": 5},
        {"usage": [1]},
        {"usage": {}},
        {"usage": {"prompt_tokens": "7"}},
        {"usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}},
        {"choices": None},
        {"choices": {"usage": COUNTS}},
        {"choices": []},
        {"choices": [None]},
        {"choices": [{}, {"usage": COUNTS}]},
        {"x_groq": {"id": "req_1"}},
        {"x_groq": "usage"},
    ],
    ids=str,
)
def test_there_is_no_usage_without_counts(payload: dict[str, Any]) -> None:
    assert usage_in(payload) is None


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (12, 12),
        (12.0, 12),
        (0, 0),
        (0.0, 0),
        (1.5, None),
        (float("nan"), None),
        (float("inf"), None),
        (1e300, None),
        ("12", None),
        (True, None),
        (None, None),
        ([12], None),
    ],
)
def test_a_count_written_as_a_float_is_a_whole_number(value: Any, count: int | None) -> None:
    counts = {"in": value, "out": 3.0, "total_tokens": value, "out_details": {"reasoning_tokens": value}}
    assert usage_of(counts, "in", "out") == Usage(count, 3, count, count)
