"""How long a server asks to wait before a retry: the headers of its answer, or its error object -> seconds."""

import re
import time
from collections.abc import Mapping
from typing import Any

# LiteLLM passes on the headers of its upstream with this prefix.
_UPSTREAM = "llm_provider-"
_UNITS_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "\u00b5s": 1e-6, "ns": 1e-9}
_PART = r"(\d+(?:\.\d+)?)(ms|us|\u00b5s|ns|[dhms])"
# How an error says in words how long to wait, in lower case.
_WORDED_PART = r"(\d+(?:\.\d+)?)\s*(ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hours?|d|days?)(?![a-z])"
_IN_WORDS = rf"\b(?:again|retry|wait|resets?)\s+(?:(?:in|after|for)\s+)?((?:{_WORDED_PART}(?:[\s,]+(?:and\s+)?)?)+)"
_SEARCHED = 1000
# Members of error objects, without underscores and in lower case.
_MEMBERS_S = ("retryafter", "retryafterseconds", "retrydelay", "resetsinseconds", "resetseconds", "resetsat")
_MEMBER_MS = "retryafterms"
# A number above the first is a time in seconds since 1970, above the second a time in milliseconds.
_EPOCH_S = 1e9
_EPOCH_MS = 1e11
# Of each limit there is how much remains, and when it is restored.
_LIMITS = ("-requests", "-tokens", "")


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return how many seconds the server asks to wait; None if it does not say, or not in a known form.

    Retry-After is a number of seconds or an HTTP date (RFC 9110, section 10.2.3); OpenAI adds retry-after-ms, which
    takes precedence. LiteLLM's own header takes precedence over that of its upstream. A date without a zone, as
    asctime writes it, is in UTC (section 5.6.7).
    """
    if "retry-after" not in headers and "retry-after-ms" not in headers:
        headers = _of_upstream(headers)
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    seconds = _span_s(headers.get("retry-after"))
    return _until_date_s(headers.get("retry-after")) if seconds is None else seconds


def reset_s(headers: Mapping[str, str]) -> float | None:
    """Return how many seconds until every exhausted rate limit is restored; None if none is exhausted.

    The headers are OpenAI's (platform.openai.com/docs/guides/rate-limits), which many servers send: the time is 1s,
    6m0s or 20ms, as Go writes it, a number of seconds, or a time since 1970. Azure says -1 if it does not know what
    remains (openai/openai-dotnet#838).
    """
    waits = [
        _span_s(of.get(f"x-ratelimit-reset{limit}"))
        for of in (headers, _of_upstream(headers))
        for limit in _LIMITS
        if _number(of.get(f"x-ratelimit-remaining{limit}")) == 0
    ]
    return max((seconds for seconds in waits if seconds is not None), default=None)


def should_retry(headers: Mapping[str, str]) -> bool | None:
    """Return the value of x-should-retry, which OpenAI and Anthropic send; None without it."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower())


def wait_in(error: dict[str, Any]) -> float | None:
    """Return how many seconds an error object asks to wait; None if it does not say.

    Google puts it into `details` (google.rpc.RetryInfo: `"retryDelay": "45.8s"`), Cloudflare into `retry_after`,
    OpenRouter into the headers in `metadata`, where X-RateLimit-Reset is in milliseconds since 1970. ChatGPT's server
    for Codex has `resets_in_seconds` and `resets_at` (router-for-me/CLIProxyAPI#1666), CLIProxyAPI `reset_seconds`.
    """
    details = error.get("details")
    for members in (*(details if isinstance(details, list) else [details]), error, error.get("metadata")):
        if isinstance(members, dict) and (seconds := _wait_of(members)) is not None:
            return seconds
    return None


def wait_in_words(message: str) -> float | None:
    """Return how many seconds the message of an error asks to wait; None if it does not say.

    OpenAI: "Please try again in 6m0s.", Azure: "Please retry after 2 seconds.", Gemini: "Please retry in 45.8s." They
    also say it in a header or in a member, but gateways do not pass those on.
    """
    found = re.search(_IN_WORDS, message[:_SEARCHED].lower())
    if not found:
        return None
    return sum(float(count) * _UNITS_S[_short(unit)] for count, unit in re.findall(_WORDED_PART, found[1]))


def _short(unit: str) -> str:
    return "ms" if unit.startswith(("ms", "mil")) else unit[0]


def _wait_of(members: dict[str, Any]) -> float | None:
    """Return the wait in a member such as `retry_after` or `retryDelay`, or in a copy of headers."""
    for name, value in members.items():
        plain = re.sub("[^a-z]", "", name.lower())
        seconds = _span_s(value) if plain in (*_MEMBERS_S, _MEMBER_MS) else None
        if seconds is not None:
            return seconds / 1000 if plain == _MEMBER_MS else seconds
    copied = members.get("headers")
    headers = {str(name).lower(): str(value) for name, value in copied.items()} if isinstance(copied, dict) else {}
    seconds = retry_after_s(headers)
    return _span_s(headers.get("x-ratelimit-reset")) if seconds is None else seconds


def _of_upstream(headers: Mapping[str, str]) -> dict[str, str]:
    lowered = ((name.lower(), value) for name, value in headers.items())
    return {name.removeprefix(_UPSTREAM): value for name, value in lowered if name.startswith(_UPSTREAM)}


def _span_s(value: Any) -> float | None:
    """Return the seconds in a number, in `6m0s`, in Google's `{"seconds": 6, "nanos": 0}`, or until a time since 1970.

    None for anything else.
    """
    if isinstance(value, dict):
        seconds, nanos = _number(value.get("seconds")), _number(value.get("nanos", 0))
        return None if seconds is None or nanos is None else seconds + nanos * _UNITS_S["ns"]
    number = _number(value)
    if number is not None:
        if number < _EPOCH_S:
            return number
        return max(0.0, (number / 1000 if number >= _EPOCH_MS else number) - time.time())
    text = value.strip().lower() if isinstance(value, str) else ""
    if not re.fullmatch(f"({_PART})+", text):
        return None
    return sum(float(count) * _UNITS_S[unit] for count, unit in re.findall(_PART, text))


def _number(value: Any) -> float | None:
    """Return a finite number that is not negative, also from a string; None for anything else."""
    try:
        number = float(value) if isinstance(value, (str, int, float)) else -1.0
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number < float("inf") and not isinstance(value, bool) else None


def _until_date_s(date: str | None) -> float | None:
    from datetime import UTC  # only for a date
    from email.utils import parsedate_to_datetime

    try:
        when = parsedate_to_datetime(date or "")
        return max(0.0, (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
