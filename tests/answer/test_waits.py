"""How long a server asks to wait, in its headers and in its error object."""

import time
from email.utils import formatdate
from typing import Any

import pytest

from smai_cli.answer.waits import reset_s, retry_after_s, should_retry, wait_in, wait_in_words


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9.0),
        ({"llm_provider-retry-after": "2"}, 2.0),
        ({"llm_provider-retry-after-ms": "250", "llm_provider-retry-after": "2"}, 0.25),
        ({"llm_provider-retry-after-ms": "250"}, 0.25),
        ({"retry-after": "1m30s"}, 90.0),
        ({"llm_provider-retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "5", "llm_provider-retry-after": "2"}, 5.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 99 Oct 2015 07:28:00 GMT"}, None),
        ({"retry-after": "Wednesday, 21-Oct-15 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed Oct 21 07:28:00 2015"}, 0.0),
    ],
)
def test_retry_after_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds


def test_retry_after_as_a_future_date() -> None:
    seconds = retry_after_s({"retry-after": formatdate(time.time() + 100, usegmt=True)})
    assert seconds is not None
    assert 90 < seconds <= 100


@pytest.mark.parametrize("zone", ["UTC", "America/Los_Angeles", "Asia/Tokyo"])
@pytest.mark.parametrize("form", ["%a, %d %b %Y %H:%M:%S", "%a, %d %b %Y %H:%M:%S -0000", "%a %b %e %H:%M:%S %Y"])
def test_a_date_without_a_zone_is_in_utc(monkeypatch: pytest.MonkeyPatch, zone: str, form: str) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        seconds = retry_after_s({"retry-after": time.strftime(form, time.gmtime(time.time() + 100))})
    finally:
        monkeypatch.undo()
        time.tzset()
    assert seconds is not None
    assert 90 < seconds <= 100


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, None),
        ({"x-should-retry": "true"}, True),
        ({"x-should-retry": " False "}, False),
        ({"x-should-retry": "perhaps"}, None),
    ],
)
def test_x_should_retry_is_read(headers: dict[str, str], said: bool | None) -> None:
    assert should_retry(headers) is said


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"remaining-requests": "0", "reset-requests": "1s"}, 1.0),
        ({"remaining-requests": "0", "reset-requests": "6m0s"}, 360.0),
        ({"remaining-requests": "0", "reset-requests": "20ms"}, 0.02),
        ({"remaining-tokens": "0", "reset-tokens": "2m59.5s"}, 179.5),
        ({"remaining-tokens": "0", "reset-tokens": "1h2m3s"}, 3723.0),
        ({"remaining-tokens": "0", "reset-tokens": "10"}, 10.0),
        ({"remaining-tokens": "0", "reset-tokens": "0.5"}, 0.5),
        ({"remaining-tokens": "0", "reset-tokens": "soon"}, None),
        ({"remaining-tokens": "0", "reset-tokens": ""}, None),
        ({"remaining-tokens": "0"}, None),
        ({"remaining-tokens": "1", "reset-tokens": "9s"}, None),
        ({"remaining-tokens": "-1", "reset-tokens": "0"}, None),
        ({"reset-tokens": "9s"}, None),
        ({"remaining-requests": "0", "reset-requests": "3s", "remaining-tokens": "0", "reset-tokens": "5s"}, 5.0),
        ({"remaining-requests": "7", "reset-requests": "9s", "remaining-tokens": "0", "reset-tokens": "5s"}, 5.0),
        ({"remaining": "0", "reset": "4"}, 4.0),
    ],
)
def test_the_reset_of_an_exhausted_limit_is_read(headers: dict[str, str], seconds: float | None) -> None:
    named = {f"x-ratelimit-{name}": value for name, value in headers.items()}
    assert reset_s(named) == seconds
    assert reset_s({f"llm_provider-{name}": value for name, value in named.items()}) == seconds


@pytest.mark.parametrize("unit", [1, 1000])
def test_a_time_since_1970_is_in_seconds_or_in_milliseconds(unit: int) -> None:
    at = str(int((time.time() + 100) * unit))
    for seconds in (
        reset_s({"x-ratelimit-remaining": "0", "x-ratelimit-reset": at}),
        wait_in({"code": 429, "metadata": {"headers": {"X-RateLimit-Limit": "20", "X-RateLimit-Reset": at}}}),
    ):
        assert seconds is not None
        assert 90 < seconds <= 100


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        ({}, None),
        ({"details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3s"}]}, 3.0),
        ({"details": [{"reason": "x"}, {"retryDelay": "45.837906927s"}]}, 45.837906927),
        ({"details": [{"retryDelay": {"seconds": "8", "nanos": 500_000_000}}]}, 8.5),
        ({"details": {"retryDelay": "3s"}}, 3.0),
        ({"details": [{"retryDelay": "soon"}]}, None),
        ({"details": [{"retryDelay": None}, None, "x"]}, None),
        ({"details": "text"}, None),
        ({"metadata": {"headers": {"retry-after": "5"}}}, 5.0),
        ({"metadata": {"headers": {"X-RateLimit-Reset": "1"}}}, 1.0),
        ({"metadata": {"headers": {"X-RateLimit-Reset": 1_700_000_000_000}}}, 0.0),
        ({"metadata": {"headers": {"X-RateLimit-Reset": "x"}}}, None),
        ({"metadata": {"headers": None}}, None),
        ({"metadata": []}, None),
        ({"retry_after": 30}, 30.0),
        ({"retry_after": True}, None),
        ({"retryAfter": 2}, 2.0),
        ({"retry-after": "2"}, 2.0),
        ({"retry_after_ms": 2500}, 2.5),
        ({"plan_type": "plus", "resets_at": None, "resets_in_seconds": 9568}, 9568.0),
        ({"resets_at": 1_700_000_000}, 0.0),
        ({"reset_seconds": 56, "reset_time": "56s"}, 56.0),
        ({"details": [{"retry_delay": {"seconds": 2}}]}, 2.0),
    ],
)
def test_an_error_object_says_how_long_to_wait(error: dict[str, Any], seconds: float | None) -> None:
    assert wait_in(error) == seconds


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Rate limit reached on tokens per min (TPM): Limit 30000. Please try again in 2s. Visit x", 2.0),
        ("Rate limit reached. Please try again in 20ms.", 0.02),
        ("Rate limit reached. Please try again in 6m0s.", 360.0),
        ("Rate limit reached. Please try again in 0m2.5s.", 2.5),
        ("You exceeded your current quota.\nPlease retry in 45.837906927s.", 45.837906927),
        ("Requests have exceeded the call rate limit. Please retry after 2 seconds.", 2.0),
        ("Your quota will reset after 1 hour and 5 minutes.", 3900.0),
        ("Too many requests, please wait 20 seconds", 20.0),
        ("Too many tokens, please wait before trying again.", None),
        ("Please try again later. Limit 30 requests in 60 s", None),
        ("Please try again in 2 steps", None),
        ("", None),
    ],
)
def test_the_message_of_an_error_says_how_long_to_wait(message: str, seconds: float | None) -> None:
    assert wait_in_words(message) == pytest.approx(seconds)
