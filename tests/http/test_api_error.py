"""What servers say of their failures, in every form, and the one meaning that it has."""

import json
from typing import Any

import pytest

from smai_cli.errors import AccessError, Again, BrokenError, BusyError, RefusedError, SmaiError
from smai_cli.http.api_error import ApiError, api_error_in_body, api_error_of, error_in
from smai_cli.http.meaning import answer_error, http_error, meaning_of

# What each server sends: HTTP status, body, the kind that it is, and a word of the next step.
SENT: dict[str, tuple[int, Any, type[SmaiError], str]] = {
    "quota": (429, {"error": {"message": "x", "code": "insufficient_quota"}}, AccessError, "top up"),
    "quota as type": (429, {"error": {"message": "x", "type": "insufficient_quota"}}, AccessError, "top up"),
    "credits": (429, {"error": {"message": "x", "code": "credit_balance_exhausted"}}, AccessError, "top up"),
    "spend limit": (429, {"error": {"code": "organization_spend_limit_exceeded"}}, AccessError, "raise the limit"),
    "project limit": (429, {"error": {"code": "project_spend_limit_exceeded"}}, AccessError, "raise the limit"),
    "usage limit": (429, {"error": {"code": "organization_usage_limit_exceeded"}}, AccessError, "raise the limit"),
    "hard limit": (400, {"error": {"code": "billing_hard_limit_reached"}}, AccessError, "raise the limit"),
    "not active": (429, {"error": {"message": "x", "type": "billing_not_active"}}, AccessError, "top up"),
    "deactivated": (401, {"error": {"message": "x", "code": "account_deactivated"}}, AccessError, "and the account"),
    "DeepSeek": (
        402,
        {"error": {"message": "Insufficient Balance", "type": "unknown_error", "code": "invalid_request_error"}},
        AccessError,
        "top up",
    ),
    "DeepSeek behind a gateway": (
        400,
        {"error": {"message": "Insufficient Balance", "code": "invalid_request_error"}},
        AccessError,
        "top up",
    ),
    "Moonshot": (429, {"error": {"message": "x", "type": "exceeded_current_quota_error"}}, AccessError, "top up"),
    "Zhipu": (429, {"error": {"code": "1113", "message": "\u4f59\u989d\u4e0d\u8db3"}}, AccessError, "top up"),
    "Z.ai": (429, {"error": {"code": "1113", "message": "x"}}, AccessError, "top up"),
    "Z.ai, too fast": (429, {"error": {"code": "1302", "message": "x"}}, BusyError, "later"),
    "MiniMax": (500, {"error": {"type": "api_error", "message": "insufficient balance (1008)"}}, AccessError, "top up"),
    "MiniMax, by http_code": (
        500,
        {"type": "error", "error": {"type": "x", "message": "y", "http_code": "402"}},
        AccessError,
        "account",
    ),
    "DashScope": (400, {"error": {"message": "good standing", "type": "Arrearage"}}, AccessError, "top up"),
    "Volcengine": (429, {"error": {"code": "AccountOverdueError", "message": "x"}}, AccessError, "top up"),
    "one-api": (403, {"error": {"code": "insufficient_user_quota", "message": "x"}}, AccessError, "top up"),
    "Anthropic, no credits": (
        400,
        {"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low to"}},
        AccessError,
        "top up",
    ),
    "xAI, no credits": (
        429,
        {"code": "Some resource has been exhausted", "error": "Your team has either used all available credits or"},
        AccessError,
        "top up",
    ),
    "LiteLLM, budget": (422, {"error": {"type": "budget_exceeded", "code": "422"}}, AccessError, "raise the limit"),
    "LiteLLM, budget, with 429": (
        429,
        {"error": {"message": "x", "type": "budget_exceeded", "code": "429"}},
        AccessError,
        "raise the limit",
    ),
    "LiteLLM, another key than the master key": (
        400,
        {"error": {"message": "No connected db.", "type": "no_db_connection", "param": None, "code": "400"}},
        AccessError,
        "check the key",
    ),
    "LiteLLM, its database is away": (
        503,
        {"error": {"message": "Service Unavailable", "type": "no_db_connection", "param": "None", "code": "503"}},
        BusyError,
        "later",
    ),
    "invalid key": (400, {"error": {"message": "x", "code": "invalid_api_key"}}, AccessError, "check the key"),
    "expired key": (400, {"error": {"message": "x", "code": "expired_api_key"}}, AccessError, "replace the key"),
    "missing key": (400, {"error": {"message": "x", "code": "missing_api_key"}}, AccessError, "the key reaches"),
    "Gemini, invalid key": (
        400,
        [{"error": {"code": 400, "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}}],
        AccessError,
        "check the key",
    ),
    "Gemini, invalid key in words": (
        400,
        [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key.", "status": "X"}}],
        AccessError,
        "check the key",
    ),
    "401": (401, {}, AccessError, "check the key"),
    "402": (402, {"error": {"code": "quota_exceeded"}}, AccessError, "account"),
    "403": (403, {"detail": "no"}, AccessError, "check the key"),
    "Gemini, too fast, in the words of an empty account": (
        429,
        [{"error": {"code": 429, "message": "You exceeded your current quota", "status": "RESOURCE_EXHAUSTED"}}],
        BusyError,
        "later",
    ),
    "rate limit": (429, {"error": {"message": "x", "code": "rate_limit_exceeded"}}, BusyError, "later"),
    "rate limit with another status": (400, {"error": {"type": "rate_limit_error"}}, BusyError, "later"),
    "slow down": (400, {"error": {"code": "slow_down"}}, BusyError, "later"),
    "overloaded": (529, {"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, BusyError, "later"),
    "OpenRouter": (400, {"error": {"message": "x", "code": 429}}, BusyError, "later"),
    "Azure": (400, {"error": {"message": "x", "code": "429"}}, BusyError, "later"),
    "Cerebras": (400, {"type": "too_many_tokens_error", "code": "token_quota_exceeded"}, BusyError, "later"),
    "503": (503, "<html>", BusyError, "later"),
    "context": (400, {"error": {"message": "x", "code": "context_length_exceeded"}}, RefusedError, "shorten"),
    "context, with 500": (500, {"error": {"message": "x", "code": "context_length_exceeded"}}, RefusedError, "shorten"),
    "DeepSeek, context": (
        400,
        {"error": {"message": "This model's maximum context length is 9 tokens", "code": "invalid_request_error"}},
        RefusedError,
        "shorten",
    ),
    "Groq, too large": (
        413,
        {"error": {"message": "Request too large for model", "type": "tokens", "code": "rate_limit_exceeded"}},
        RefusedError,
        "shorten",
    ),
    "OpenAI, too large": (
        429,
        {"error": {"message": "Request too large for gpt-4o", "type": "tokens", "code": "rate_limit_exceeded"}},
        RefusedError,
        "shorten",
    ),
    "413": (413, "<html>", RefusedError, "shorten"),
    "model": (404, {"error": {"message": "x", "code": "model_not_found"}}, RefusedError, "check -m/--model"),
    "model, with 403": (403, {"error": {"message": "x", "code": "model_not_found"}}, RefusedError, "check -m/--model"),
    "invalid model": (400, {"error": {"message": "x", "code": "invalid_model"}}, RefusedError, "check -m/--model"),
    "Ollama": (404, {"error": "model 'x:7b' not found, try pulling it first"}, RefusedError, "check -m/--model"),
    "vLLM": (
        404,
        {"object": "error", "message": "The model `x` does not exist.", "type": "NotFoundError", "code": 404},
        RefusedError,
        "check -m/--model",
    ),
    "policy": (400, {"error": {"code": "content_policy_violation"}}, RefusedError, "rephrase"),
    "Azure, policy": (400, {"error": {"code": "content_filter"}}, RefusedError, "rephrase"),
    "DashScope, policy": (400, {"error": {"code": "data_inspection_failed"}}, RefusedError, "rephrase"),
    "FastChat, context": (400, {"object": "error", "message": "x", "code": 40303}, RefusedError, "shorten"),
    "FastChat, key": (400, {"object": "error", "message": "x", "code": 40102}, AccessError, "check the key"),
    "422 that repeats a prompt": (
        422,
        {"detail": [{"loc": ["body", "n"], "msg": "a number", "type": "int", "input": "insufficient balance"}]},
        RefusedError,
        "options",
    ),
    "a number of its own": (500, {"error": {"message": "x", "code": 1113}}, BusyError, "later"),
    "404": (404, "not found", RefusedError, "--base-url"),
    "no error object": (418, {"object": "teapot"}, RefusedError, "--base-url"),
}  # fmt: skip


def body(payload: Any) -> bytes:
    return payload.encode() if isinstance(payload, str) else json.dumps(payload).encode()


def refused(http_status: int, payload: Any, should_retry: bool | None = None) -> SmaiError:
    api_error = api_error_in_body(body(payload))
    return http_error(http_status, "Oops", api_error, wait_s=None, request_id=None, should_retry=should_retry)


@pytest.mark.parametrize("case", SENT.values(), ids=SENT.keys())
def test_an_http_error_means_what_its_words_say(case: tuple[int, Any, type[SmaiError], str]) -> None:
    http_status, payload, kind, step = case
    error = refused(http_status, payload)
    assert type(error) is kind
    assert step in error.hint
    assert error.http_status == http_status
    assert (error.again is Again.NEVER) is (kind is not BusyError)


@pytest.mark.parametrize("http_status", [408, 429, 500, 502, 503, 504, 529])
def test_a_status_that_may_pass_is_tried_again_before_an_answer(http_status: int) -> None:
    assert refused(http_status, {}).again is Again.UNANSWERED


@pytest.mark.parametrize("http_status", [501, 520, 524, 599])
def test_any_other_status_from_500_on_is_busy_and_not_tried_again(http_status: int) -> None:
    error = refused(http_status, {})
    assert (error.status, error.again, error.retryable) == (6, Again.NEVER, True)


@pytest.mark.parametrize(
    ("http_status", "payload", "should_retry", "again"),
    [
        (503, {}, False, Again.NEVER),
        (429, {"error": {"code": "rate_limit_exceeded"}}, False, Again.NEVER),
        (409, {}, True, Again.UNANSWERED),
        (501, {}, True, Again.UNANSWERED),
        (401, {}, True, Again.NEVER),
        (429, {"error": {"code": "insufficient_quota"}}, True, Again.NEVER),
    ],
)
def test_the_server_s_word_on_retries_counts_but_for_money_and_keys(
    http_status: int, payload: Any, should_retry: bool, again: Again
) -> None:
    error = refused(http_status, payload, should_retry)
    assert error.again is again
    assert error.retryable is (error.status != 5)


# An error object in an answer with status 200.

KNOWN: dict[str, tuple[Any, type[SmaiError], Again]] = {
    "money": ({"error": {"code": "insufficient_quota"}}, AccessError, Again.NEVER),
    "money, by number": ({"error": {"code": 402, "message": "x"}}, AccessError, Again.NEVER),
    "key": ({"error": {"code": "invalid_api_key"}}, AccessError, Again.NEVER),
    "rate": ({"error": {"code": "rate_limit_exceeded"}}, BusyError, Again.HELD_BACK),
    "overload": ({"type": "error", "error": {"type": "overloaded_error"}}, BusyError, Again.HELD_BACK),
    "mock's overload": ({"error": {"type": "server_error", "code": "model_overloaded"}}, BusyError, Again.HELD_BACK),
    "OpenRouter": ({"error": {"code": 502, "message": "x"}, "choices": []}, BusyError, Again.HELD_BACK),
    "Gemini": ({"error": [{"code": 429, "status": "RESOURCE_EXHAUSTED"}]}, BusyError, Again.HELD_BACK),
    "Gemini, by name": ({"error": {"status": "RESOURCE_EXHAUSTED"}}, BusyError, Again.HELD_BACK),
    "MiniMax": ({"base_resp": {"status_code": 1002, "status_msg": "x"}}, BusyError, Again.HELD_BACK),
    "MiniMax, key": ({"base_resp": {"status_code": 1004, "status_msg": "x"}}, AccessError, Again.NEVER),
    "MiniMax, money": ({"base_resp": {"status_code": 1008, "status_msg": "x"}}, AccessError, Again.NEVER),
    "FastChat": ({"text": "x", "error_code": 42903}, BusyError, Again.HELD_BACK),
    "context": ({"error": {"code": "context_length_exceeded"}}, RefusedError, Again.NEVER),
    "request": ({"error": {"type": "invalid_request_error", "message": "x"}}, RefusedError, Again.NEVER),
    "vLLM": ({"object": "error", "message": "x", "type": "BadRequestError", "code": 400}, RefusedError, Again.NEVER),
}
# What says in a stream no more than that the answer broke.
VAGUE = [KNOWN[name] for name in ("OpenRouter", "request", "vLLM")]
UNKNOWN: dict[str, Any] = {
    "nothing": {"error": {}},
    "a sentence": {"error": "it broke"},
    "a name": {"error": {"message": "x", "type": "server_error", "code": "server_error"}},
    "a number": {"error": {"message": "x", "code": 7}},
    "MiniMax": {"base_resp": {"status_code": 1000, "status_msg": "unknown error"}},
}


@pytest.mark.parametrize("in_stream", [True, False])
@pytest.mark.parametrize("case", KNOWN.values(), ids=KNOWN.keys())
def test_an_error_in_a_200_before_any_text_is_what_it_would_be_as_an_http_error(
    case: tuple[Any, type[SmaiError], Again], in_stream: bool
) -> None:
    payload, kind, again = case
    api_error = error_in(payload)
    assert api_error
    error = answer_error(api_error, in_stream=in_stream, has_text=False)
    if in_stream and case in VAGUE:
        kind = BrokenError
    assert (type(error), error.again) == (kind, again)
    assert error.what.startswith("the server reported an error" if in_stream else "the server answered with an error: ")


@pytest.mark.parametrize("case", KNOWN.values(), ids=KNOWN.keys())
def test_an_error_after_text_is_a_broken_answer_with_the_hint_of_its_meaning(
    case: tuple[Any, type[SmaiError], Again],
) -> None:
    payload, kind, again = case
    api_error = error_in(payload)
    assert api_error
    error = answer_error(api_error, in_stream=True, has_text=True)
    meaning = meaning_of(api_error)
    assert meaning
    assert (type(error), error.hint, error.again) == (BrokenError, meaning.hint, again)
    assert error.retryable is (kind is BusyError)


@pytest.mark.parametrize("payload", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_an_error_that_says_nothing_known_is_8_in_a_stream_and_4_in_one_piece(payload: Any) -> None:
    api_error = error_in(payload)
    assert api_error
    for has_text in (True, False):
        error = answer_error(api_error, in_stream=True, has_text=has_text)
        assert (error.status, error.again, error.hint) == (8, Again.HELD_BACK, "try again later")
    error = answer_error(api_error, in_stream=False, has_text=False)
    assert (error.status, error.again, error.hint) == (4, Again.NEVER, "check the request and --base-url")


def test_no_error_in_a_200_is_tried_again_where_something_was_delivered() -> None:
    for payload, *_ in KNOWN.values():
        for has_text in (True, False):
            api_error = error_in(payload) or ApiError()
            assert answer_error(api_error, in_stream=True, has_text=has_text).again is not Again.UNANSWERED


# The forms.


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        ({"error": {"message": "m", "code": "c"}}, "m (c)"),
        ({"error": {"message": "m", "code": None, "type": "t", "param": "p"}}, "m (t, p)"),
        ({"error": "m"}, "m"),
        ({"error": {}}, "no message"),
        ({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}, '{"code": 429, "status": "RESOURCE_EXHAUSTED"}'),
        ({"error": [{"message": "m", "code": 429}, {"message": "n"}]}, "m (429)"),
        ({"error": "name", "message": "m"}, "m (name)"),
        ({"error": "a sentence", "code": "The caller may not"}, "a sentence (The caller may not)"),
        ({"error": True, "message": "m", "status_code": 500}, "m (500)"),
        ({"error": True}, "no message"),
        ({"error": {"error": {"message": "m"}}}, "m"),
        ({"errors": [{"code": 7003, "message": "m"}], "success": False}, "m (7003)"),
        ({"errors": {"n": ["too large"]}}, '{"n": ["too large"]}'),
        ({"errors": ["m"]}, "m"),
        ({"detail": "m"}, "m"),
        ({"detail": {"message": "m", "code": "c"}}, "m (c)"),
        ({"detail": [{"loc": ["body", "messages", 0], "msg": "missing", "type": "x"}]}, "messages.0: missing"),
        ({"object": "error", "message": "m", "type": "NotFoundError", "code": 404}, "m (404)"),
        ({"type": "error", "message": "m", "code": "c", "sequence_number": 1}, "m (c)"),
        ({"type": "error", "error": {"type": "t", "message": "m"}}, "m (t)"),
        ({"text": "m", "error_code": 50001}, "m (50001)"),
        ({"error_code": 17, "error_msg": "m"}, "m (17)"),
        ({"base_resp": {"status_code": 1004, "status_msg": "m"}}, "m (1004)"),
        ({"id": "1", "choices": [], "x_groq": {"id": "r", "error": "over capacity"}}, "over capacity"),
        ({"id": "1", "choices": [{"delta": {}}], "error": {"code": 502, "message": "m"}}, "m (502)"),
    ],
)
def test_an_error_is_read_in_every_form(payload: Any, shown: str) -> None:
    api_error = error_in(payload)
    assert api_error is not None
    assert str(api_error) == shown
    assert str(api_error_in_body(body(payload))) == shown


CHOICE = {"index": 0, "delta": {"content": "hi"}, "finish_reason": None}


@pytest.mark.parametrize(
    "payload",
    [
        {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [CHOICE]},
        {"choices": [CHOICE], "error": None, "errors": [], "detail": None, "base_resp": None, "x_groq": None},
        {"choices": [CHOICE], "error": "", "detail": "", "error_code": 0},
        {"choices": [CHOICE], "error": False, "error_code": None, "x_groq": {"id": "r"}},
        {"choices": [CHOICE], "base_resp": {"status_code": 0, "status_msg": ""}},
        {"choices": [CHOICE], "detail": "of something", "message": "hello", "code": 0, "status": "ok"},
        {"choices": [], "usage": {"total_tokens": 3}, "detail": "of the usage"},
        {"type": "ping"},
        {"type": "response.created", "response": {"error": None, "status": "in_progress"}},
        {"object": "response", "error": None, "output": []},
        {},
    ],
)
def test_an_ordinary_payload_is_no_error(payload: Any) -> None:
    assert error_in(payload) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"upstream connect error\n", "upstream connect error"),
        (b'"Unauthorized"', "Unauthorized"),
        (b'{"code": "INSUFFICIENT_BALANCE", "message": "m"}', "m (INSUFFICIENT_BALANCE)"),
        (b'[{"error": {"message": "m"}}]', "m"),
        (b"<html>502</html>", "no message"),
        (b"[]", "no message"),
        (b"null", "no message"),
        (b"", "no message"),
        (b'{"error": ' * 90 + b"{}" + b"}" * 90, '{"error": ' * 50),
        (b"[" * 90 + b"]" * 90, ""),
    ],
)
def test_a_body_in_any_form_is_read(text: bytes, shown: str) -> None:
    assert str(api_error_in_body(text)).startswith(shown)


def test_a_name_without_end_keeps_nobody_busy() -> None:
    api_error = api_error_of({"message": "credit " * 100_000, "code": "expired" * 100_000})
    assert meaning_of(api_error) is None
