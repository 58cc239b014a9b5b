"""What follows from the errors of servers: the same, wherever a server reports them."""

import json
from typing import Any

import pytest

from smai_cli.answer.api_error import error_in
from smai_cli.answer.meaning import HttpAnswer, answer_error, http_error
from smai_cli.errors import (
    AccessError,
    BrokenError,
    BusyError,
    Cause,
    RefusedError,
    Retry,
    SmaiError,
    hint_for,
)

_ACCESS = "MONEY SPENDING_LIMIT KEY EXPIRED_KEY MISSING_KEY ACCOUNT REGION FORBIDDEN"
_REFUSED = "WEB_PAGE PROMPT_SIZE MODEL CONTENT NOT_FOUND REQUEST"
_BUSY = "RATE_LIMIT OVERLOAD SERVER"
KINDS: dict[Cause, type[SmaiError]] = {
    Cause[name]: kind
    for names, kind in ((_ACCESS, AccessError), (_REFUSED, RefusedError), (_BUSY, BusyError))
    for name in names.split()
}

# The errors of each server: HTTP status, body, and cause.
SENT: dict[str, tuple[int, Any, Cause]] = {
    "quota": (429, {"error": {"message": "x", "code": "insufficient_quota"}}, Cause.MONEY),
    "quota as type": (429, {"error": {"message": "x", "type": "insufficient_quota"}}, Cause.MONEY),
    "credits": (429, {"error": {"message": "x", "code": "credit_balance_exhausted"}}, Cause.MONEY),
    "spend limit": (429, {"error": {"code": "organization_spend_limit_exceeded"}}, Cause.SPENDING_LIMIT),
    "project limit": (429, {"error": {"code": "project_spend_limit_exceeded"}}, Cause.SPENDING_LIMIT),
    "usage limit": (429, {"error": {"code": "organization_usage_limit_exceeded"}}, Cause.SPENDING_LIMIT),
    "hard limit": (400, {"error": {"code": "billing_hard_limit_reached"}}, Cause.SPENDING_LIMIT),
    "not active": (429, {"error": {"message": "x", "type": "billing_not_active"}}, Cause.MONEY),
    "deactivated": (401, {"error": {"message": "x", "code": "account_deactivated"}}, Cause.ACCOUNT),
    "DeepSeek": (
        402,
        {"error": {"message": "Insufficient Balance", "type": "unknown_error", "code": "invalid_request_error"}},
        Cause.MONEY,
    ),
    "DeepSeek behind a gateway": (
        400,
        {"error": {"message": "Insufficient Balance", "code": "invalid_request_error"}},
        Cause.MONEY,
    ),
    "Moonshot": (429, {"error": {"message": "x", "type": "exceeded_current_quota_error"}}, Cause.MONEY),
    "Zhipu": (429, {"error": {"code": "1113", "message": "\u4f59\u989d\u4e0d\u8db3"}}, Cause.MONEY),
    "Z.ai": (429, {"error": {"code": "1113", "message": "x"}}, Cause.MONEY),
    "Z.ai, too fast": (429, {"error": {"code": "1302", "message": "x"}}, Cause.RATE_LIMIT),
    "MiniMax": (500, {"error": {"type": "api_error", "message": "insufficient balance (1008)"}}, Cause.MONEY),
    "MiniMax, by http_code": (
        500,
        {"type": "error", "error": {"type": "x", "message": "y", "http_code": "402"}},
        Cause.MONEY,
    ),
    "DashScope": (400, {"error": {"message": "good standing", "type": "Arrearage"}}, Cause.MONEY),
    "Volcengine": (429, {"error": {"code": "AccountOverdueError", "message": "x"}}, Cause.MONEY),
    "one-api": (403, {"error": {"code": "insufficient_user_quota", "message": "x"}}, Cause.MONEY),
    "Anthropic, no credits": (
        400,
        {"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low to"}},
        Cause.MONEY,
    ),
    "xAI, no credits": (
        429,
        {"code": "Some resource has been exhausted", "error": "Your team has either used all available credits or"},
        Cause.MONEY,
    ),
    "LiteLLM, budget": (422, {"error": {"type": "budget_exceeded", "code": "422"}}, Cause.SPENDING_LIMIT),
    "LiteLLM, budget, with 429": (
        429,
        {"error": {"message": "x", "type": "budget_exceeded", "code": "429"}},
        Cause.SPENDING_LIMIT,
    ),
    "LiteLLM, another key than the master key": (
        400,
        {"error": {"message": "No connected db.", "type": "no_db_connection", "param": None, "code": "400"}},
        Cause.KEY,
    ),
    "LiteLLM, its database is away": (
        503,
        {"error": {"message": "Service Unavailable", "type": "no_db_connection", "param": "None", "code": "503"}},
        Cause.OVERLOAD,
    ),
    "invalid key": (400, {"error": {"message": "x", "code": "invalid_api_key"}}, Cause.KEY),
    "expired key": (400, {"error": {"message": "x", "code": "expired_api_key"}}, Cause.EXPIRED_KEY),
    "missing key": (400, {"error": {"message": "x", "code": "missing_api_key"}}, Cause.MISSING_KEY),
    "Gemini, invalid key": (
        400,
        [{"error": {"code": 400, "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}}],
        Cause.KEY,
    ),
    "Gemini, invalid key in words": (
        400,
        [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key.", "status": "X"}}],
        Cause.KEY,
    ),
    "401": (401, {}, Cause.ACCOUNT),
    "402": (402, {"error": {"code": "quota_exceeded"}}, Cause.MONEY),
    "403": (403, {"detail": "no"}, Cause.FORBIDDEN),
    "Gemini, too fast, in the words of an empty account": (
        429,
        [{"error": {"code": 429, "message": "You exceeded your current quota", "status": "RESOURCE_EXHAUSTED"}}],
        Cause.RATE_LIMIT,
    ),
    "rate limit": (429, {"error": {"message": "x", "code": "rate_limit_exceeded"}}, Cause.RATE_LIMIT),
    "rate limit with another status": (400, {"error": {"type": "rate_limit_error"}}, Cause.RATE_LIMIT),
    "slow down": (400, {"error": {"code": "slow_down"}}, Cause.RATE_LIMIT),
    "overloaded": (529, {"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, Cause.OVERLOAD),
    "OpenRouter": (400, {"error": {"message": "x", "code": 429}}, Cause.RATE_LIMIT),
    "Azure": (400, {"error": {"message": "x", "code": "429"}}, Cause.RATE_LIMIT),
    "Cerebras": (400, {"type": "too_many_tokens_error", "code": "token_quota_exceeded"}, Cause.RATE_LIMIT),
    "503": (503, "<html>", Cause.OVERLOAD),
    "context": (400, {"error": {"message": "x", "code": "context_length_exceeded"}}, Cause.PROMPT_SIZE),
    "context, with 500": (500, {"error": {"message": "x", "code": "context_length_exceeded"}}, Cause.PROMPT_SIZE),
    "DeepSeek, context": (
        400,
        {"error": {"message": "This model's maximum context length is 9 tokens", "code": "invalid_request_error"}},
        Cause.PROMPT_SIZE,
    ),
    "Groq, too large": (
        413,
        {"error": {"message": "Request too large for model", "type": "tokens", "code": "rate_limit_exceeded"}},
        Cause.PROMPT_SIZE,
    ),
    "OpenAI, too large": (
        429,
        {"error": {"message": "Request too large for gpt-4o", "type": "tokens", "code": "rate_limit_exceeded"}},
        Cause.PROMPT_SIZE,
    ),
    "413": (413, "<html>", Cause.PROMPT_SIZE),
    "model": (404, {"error": {"message": "x", "code": "model_not_found"}}, Cause.MODEL),
    "model, with 403": (403, {"error": {"message": "x", "code": "model_not_found"}}, Cause.MODEL),
    "invalid model": (400, {"error": {"message": "x", "code": "invalid_model"}}, Cause.MODEL),
    "Ollama": (404, {"error": "model 'x:7b' not found, try pulling it first"}, Cause.MODEL),
    "vLLM": (
        404,
        {"object": "error", "message": "The model `x` does not exist.", "type": "NotFoundError", "code": 404},
        Cause.MODEL,
    ),
    "DeepSeek, model": (
        400,
        {"error": {"message": "Model Not Exist", "type": "invalid_request_error", "code": "invalid_request_error"}},
        Cause.MODEL,
    ),
    "xAI, model": (
        400,
        {"code": "Client specified an invalid argument", "error": "Model not found: grok-2-latest"},
        Cause.MODEL,
    ),
    "Fireworks, model": (
        404,
        {"error": {"code": "NOT_FOUND", "message": "Model not found, inaccessible, and/or not deployed"}},
        Cause.MODEL,
    ),
    "Gemini, model": (
        404,
        [{"error": {"code": 404, "message": "models/x is not found for API version v1main", "status": "NOT_FOUND"}}],
        Cause.MODEL,
    ),
    "LiteLLM, model": (
        400,
        {"error": {"message": "/chat/completions: Invalid model name passed in model=x", "code": "400"}},
        Cause.MODEL,
    ),
    "OpenRouter, model": (400, {"error": {"message": "x/y is not a valid model ID", "code": 400}}, Cause.MODEL),
    "Moonshot, model": (
        404,
        {"error": {"message": "Not found the model x or Permission denied", "type": "resource_not_found_error"}},
        Cause.MODEL,
    ),
    "policy": (400, {"error": {"code": "content_policy_violation"}}, Cause.CONTENT),
    "Azure, policy": (400, {"error": {"code": "content_filter"}}, Cause.CONTENT),
    "DashScope, policy": (400, {"error": {"code": "data_inspection_failed"}}, Cause.CONTENT),
    "FastChat, context": (400, {"object": "error", "message": "x", "code": 40303}, Cause.PROMPT_SIZE),
    "FastChat, key": (400, {"object": "error", "message": "x", "code": 40102}, Cause.KEY),
    "422 that repeats a prompt": (
        422,
        {"detail": [{"loc": ["body", "n"], "msg": "a number", "type": "int", "input": "insufficient balance"}]},
        Cause.REQUEST,
    ),
    "OpenRouter, limit of the key": (
        403,
        {"error": {"message": "Key limit exceeded (total limit). Manage it using", "code": 403}},
        Cause.SPENDING_LIMIT,
    ),
    "Gemini, country": (
        400,
        [{"error": {"code": 400, "message": "User location is not supported for the API use.", "status": "X"}}],
        Cause.REGION,
    ),
    "xAI, policy": (
        403,
        {"code": "The caller does not have permission", "error": "Content violates usage guidelines. Team: x"},
        Cause.CONTENT,
    ),
    "OpenAI, policy of reasoning models": (
        400,
        {"error": {"message": "Invalid prompt: your prompt was flagged as potentially violating", "code": "x"}},
        Cause.CONTENT,
    ),
    "Groq, model": (400, {"error": {"message": "x", "code": "model_decommissioned"}}, Cause.MODEL),
    "Codex": (429, {"error": {"message": "x", "type": "usage_limit_reached"}}, Cause.RATE_LIMIT),
    "a number of its own": (500, {"error": {"message": "x", "code": 1113}}, Cause.SERVER),
    "404": (404, "not found", Cause.NOT_FOUND),
    "no error object": (418, {"object": "teapot"}, Cause.REQUEST),
    "xAI, a new team": (
        403,
        {"error": "Your team doesn't have any credits yet.", "code": "no permission"},
        Cause.MONEY,
    ),
    "Gemini, prepaid": (
        429,
        [{"error": {"code": 429, "message": "Your prepayment credits are depleted.", "status": "RESOURCE_EXHAUSTED"}}],
        Cause.MONEY,
    ),
    "DashScope, free tier": (403, {"error": {"code": "AllocationQuota.FreeTierOnly", "message": "x"}}, Cause.MONEY),
    "Anthropic, usage limit": (
        400,
        {"error": {"type": "invalid_request_error", "message": "You have reached your specified API usage limits."}},
        Cause.SPENDING_LIMIT,
    ),
    "OpenAI, country": (403, {"error": {"code": "unsupported_country_region_territory"}}, Cause.REGION),
    "SiliconFlow": (403, {"code": 30001, "message": "Sorry, your account balance is insufficient"}, Cause.MONEY),
    "OpenRouter, credits": (
        402,
        {"error": {"message": "This request requires more credits", "code": 402}},
        Cause.MONEY,
    ),
    "out of funds": (400, {"error": {"code": "balance_not_enough", "message": "x"}}, Cause.MONEY),
    "Fireworks": (
        412,
        {"error": {"message": "Account x is suspended, possibly due to reaching the monthly spending limit"}},
        Cause.SPENDING_LIMIT,
    ),
    "Gemini, expired": (400, [{"error": {"code": 400, "message": "API key expired. Please renew"}}], Cause.EXPIRED_KEY),
    "Workers AI": (400, {"errors": [{"code": 5007, "message": "No such model @cf/x"}], "success": False}, Cause.MODEL),
    "no key, in words": (400, {"error": {"message": "You didn't provide an API key. You need"}}, Cause.MISSING_KEY),
    "llama.cpp, context": (
        400,
        {"error": {"code": 400, "message": "the request exceeds", "type": "exceed_context_size_error", "n_ctx": 4096}},
        Cause.PROMPT_SIZE,
    ),
    "GitHub Copilot, context": (400, {"error": {"code": "model_max_prompt_tokens_exceeded"}}, Cause.PROMPT_SIZE),
    "Azure, no chat": (400, {"error": {"code": "OperationNotSupported"}}, Cause.MODEL),
    "OpenRouter, no endpoint": (404, {"error": {"message": "No endpoints found for x.", "code": 404}}, Cause.MODEL),
    "new-api, sensitive words": (400, {"error": {"code": "sensitive_words_detected"}}, Cause.CONTENT),
    "new-api, no channel": (503, {"error": {"code": "model_not_found", "message": "No available"}}, Cause.MODEL),
    "new-api, upstream": (400, {"error": {"type": "upstream_error", "code": "bad_response"}}, Cause.REQUEST),
    "OpenRouter, flagged": (403, {"error": {"code": 403, "message": "your input was flagged"}}, Cause.FORBIDDEN),
    "OpenRouter, in the words of the server that it asked": (
        400,
        {
            "error": {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {
                    "raw": '{"error": {"message": "maximum context length is 8192 tokens"}}',
                    "provider_name": "x",
                },
            }
        },
        Cause.PROMPT_SIZE,
    ),
    "OpenRouter, where the server that it asked wants money of it": (
        502,
        {"error": {"message": "Provider returned error", "code": 502, "metadata": {"raw": "Insufficient Balance"}}},
        Cause.SERVER,
    ),
    "an error as JSON in the message of another one": (
        429,
        {"error": {"message": '{"error": {"message": "x", "code": "insufficient_quota"}}', "type": "upstream_error"}},
        Cause.MONEY,
    ),
    "an event": (400, 'event: error\ndata: {"error": {"code": "context_length_exceeded"}}\n\n', Cause.PROMPT_SIZE),
    "Mistral": (
        429,
        {"message": "Service tier capacity exceeded", "type": "service_tier_capacity_exceeded"},
        Cause.RATE_LIMIT,
    ),
    "a rate limit, in words only": (400, {"error": "Rate limit reached"}, Cause.RATE_LIMIT),
    "too many requests, in words only": (400, {"message": "Too Many Requests"}, Cause.RATE_LIMIT),
    "no rate limit": (400, {"error": "a separate limit of the request"}, Cause.REQUEST),
    "overload, in words only": (500, {"error": "The model is overloaded"}, Cause.OVERLOAD),
    "Azure, fronted": (405, "<html>", Cause.NOT_FOUND),
    "408": (408, {}, Cause.SERVER),
    "520": (520, "<html>", Cause.SERVER),
    "Anthropic": (500, {"type": "error", "error": {"type": "api_error", "message": "x"}}, Cause.SERVER),
    "a request with a general name": (500, {"error": {"type": "invalid_request_error", "message": "x"}}, Cause.SERVER),
}

# Servers that report a long prompt only in the text of the message.
TOO_LONG = (
    "This model's maximum context length is 65536 tokens. However, you requested 70000 tokens",
    "This endpoint's maximum context length is 131072 tokens. However, you requested about 200000 tokens",
    "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
    "The decoder prompt (length 6000) is longer than the maximum model length of 4096.",
    "The input (9000 tokens) is longer than the model's context length (8192 tokens).",
    "The number of tokens to keep from the initial prompt is greater than the context length",
    "Your input exceeds the context window of this model. Please adjust your input and try again.",
    "the request exceeds the available context size, try increasing it",
    "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000",
    "Requested tokens (3000) exceed context window of 2048",
    "invalid params, context window exceeds limit (2013)",
    "The input token count (1196265) exceeds the maximum number of tokens allowed (1048575).",
    "prompt token count of 130000 exceeds the limit of 128000",
    "Invalid request: Your request exceeded model token limit: 8192",
    "Please reduce the length of the messages or completion.",
    "Range of input length should be [1, 30720]",
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens",
    "too many tokens: total number of tokens in the prompt cannot exceed 4081",
    "Input is too long for requested model.",
    "prompt is too long: 213462 tokens > 200000 maximum",
    "prompt too long; exceeded max context length by 1200 tokens",
    "Trying to keep the first 6009 tokens when context the overflows. However, the model is loaded with ...",
    "Request length 71599 + 2048 is greater than max_seq_len 65536",
    "Prompt length 9000 is greater than max_seq_len 4096",
    "context length exceeded",
    "The provided prompt is 4309 tokens long, but the maximum supported sequence length is just 4096!",
    "litellm.ContextWindowExceededError: litellm.BadRequestError: too much",
)
# Similar messages about a rate limit.
TOO_FAST = (
    "Rate limit reached for gpt-4 on tokens per min (TPM): Limit 10000, Used 9000, Requested 2000.",
    "This request would exceed your organization's rate limit of 40,000 input tokens per minute.",
    "Too many tokens, please wait before trying again.",
)


def body(payload: Any) -> bytes:
    return payload.encode() if isinstance(payload, str) else json.dumps(payload).encode()


def refused(http_status: int, payload: Any, **headers: str) -> SmaiError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return http_error(HttpAnswer(http_status, "Oops", named, body(payload)))


@pytest.mark.parametrize("case", SENT.values(), ids=SENT.keys())
def test_the_cause_of_an_http_error_is_read_from_its_body(case: tuple[int, Any, Cause]) -> None:
    http_status, payload, cause = case
    error = refused(http_status, payload)
    assert error.cause is cause
    assert (type(error), error.hint, error.http_status) == (KINDS[cause], hint_for(cause), http_status)
    assert (error.retry is Retry.NEVER) is (type(error) is not BusyError)


@pytest.mark.parametrize("words", TOO_LONG)
def test_the_message_for_a_prompt_that_is_too_long_is_recognised_from_every_server(words: str) -> None:
    for payload in (
        {"error": {"message": words, "type": "invalid_request_error"}},
        {"object": "error", "message": words},
    ):
        assert refused(400, payload).hint == "shorten the prompt"
        assert in_200(payload).hint == "shorten the prompt"


@pytest.mark.parametrize("words", TOO_FAST)
def test_a_rate_limit_on_tokens_is_not_mistaken_for_a_prompt_that_is_too_long(words: str) -> None:
    assert refused(429, {"error": {"message": words, "type": "rate_limit_error"}}).cause is Cause.RATE_LIMIT


@pytest.mark.parametrize("http_status", [408, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 525, 529])
def test_a_temporary_status_is_retried(http_status: int) -> None:
    assert refused(http_status, {}).retry is Retry.UNANSWERED


@pytest.mark.parametrize("http_status", [501, 505, 519, 526, 530, 599])
def test_any_other_5xx_status_is_busy_and_not_retried(http_status: int) -> None:
    error = refused(http_status, {})
    assert (error.status, error.retry, error.retryable) == (6, Retry.NEVER, True)


@pytest.mark.parametrize(
    ("http_status", "payload", "should_retry", "retry"),
    [
        (503, {}, "false", Retry.NEVER),
        (429, {"error": {"code": "rate_limit_exceeded"}}, "false", Retry.NEVER),
        (409, {}, "true", Retry.UNANSWERED),
        (501, {}, "true", Retry.UNANSWERED),
        (503, {}, "perhaps", Retry.UNANSWERED),
        (401, {}, "true", Retry.NEVER),
        (429, {"error": {"code": "insufficient_quota"}}, "true", Retry.NEVER),
    ],
)
def test_x_should_retry_counts_except_for_money_and_keys(
    http_status: int, payload: Any, should_retry: str, retry: Retry
) -> None:
    error = refused(http_status, payload, x_should_retry=should_retry)
    assert error.retry is retry
    assert error.retryable is (error.status != 5)


def test_a_failure_has_the_error_code_and_the_wait_times_of_the_server() -> None:
    payload = {"error": {"message": "x", "code": "rate_limit_exceeded", "metadata": {"headers": {"Retry-After": "7"}}}}
    error = refused(429, payload)
    assert (error.code, error.wait_s, error.reset_s, error.request_id) == ("rate_limit_exceeded", 7.0, None, None)
    more = {"x_ratelimit_remaining_tokens": "0", "x_ratelimit_reset_tokens": "9s", "x_request_id": "r"}
    error = refused(429, payload, retry_after="3", **more)
    assert (error.wait_s, error.reset_s, error.request_id) == (3.0, 9.0, "r")
    assert refused(429, {}).code is None


# A 403 from a firewall in front of the API.


@pytest.mark.parametrize(
    ("payload", "headers"),
    [
        pytest.param("<!DOCTYPE html><title>Just a moment...</title>", {"cf_mitigated": "challenge"}, id="challenge"),
        pytest.param("", {"cf_mitigated": "challenge"}, id="challenge without a page"),
        pytest.param("\ufeff\n<html><center>nginx", {}, id="a page"),
        pytest.param("<?xml version='1.0'?><!DOCTYPE html><html>", {}, id="XHTML"),
        pytest.param("Forbidden", {"content_type": "text/html; charset=utf-8"}, id="a page by its type"),
        pytest.param("error code: 1010", {"content_type": "text/plain"}, id="Cloudflare's number"),
        pytest.param(
            {"title": "Error 1020: Access denied", "status": 403, "cloudflare_error": True}, {}, id="its JSON"
        ),
    ],
)
def test_a_403_with_a_web_page_is_status_4_and_does_not_blame_the_key(payload: Any, headers: dict[str, str]) -> None:
    error = refused(403, payload, **headers)
    assert (error.status, error.cause, error.retry, error.retryable) == (4, Cause.WEB_PAGE, Retry.NEVER, False)
    assert "key" not in str(error)
    assert "firewall" in error.hint


@pytest.mark.parametrize(
    ("http_status", "payload", "headers"),
    [
        pytest.param(403, {"error": {"message": "no"}}, {"content_type": "text/html"}, id="JSON that is called HTML"),
        pytest.param(403, "<?xml version='1.0'?><Error><Code>AccessDenied", {}, id="XML"),
        pytest.param(403, "Forbidden", {}, id="text"),
        pytest.param(403, "", {}, id="nothing"),
        pytest.param(401, "<html>", {"content_type": "text/html"}, id="401"),
    ],
)
def test_any_other_403_is_status_5(http_status: int, payload: Any, headers: dict[str, str]) -> None:
    assert refused(http_status, payload, **headers).status == 5


# An error object in an answer with status 200.

KNOWN: dict[str, tuple[Any, Cause]] = {
    "money": ({"error": {"code": "insufficient_quota"}}, Cause.MONEY),
    "credits": ({"error": {"code": "credit_balance_exhausted"}}, Cause.MONEY),
    "money, by number": ({"error": {"code": 402, "message": "x"}}, Cause.MONEY),
    "money, in words": ({"error": "Insufficient Balance"}, Cause.MONEY),
    "spend limit": ({"detail": {"code": "organization_spend_limit_exceeded"}}, Cause.SPENDING_LIMIT),
    "key": ({"error": {"code": "invalid_api_key"}}, Cause.KEY),
    "key, by number": ({"error": {"code": 401, "message": "User not found."}}, Cause.ACCOUNT),
    "rate": ({"error": {"code": "rate_limit_exceeded"}}, Cause.RATE_LIMIT),
    "rate, in words": ({"error": "Rate limit exceeded"}, Cause.RATE_LIMIT),
    "overload": ({"type": "error", "error": {"type": "overloaded_error"}}, Cause.OVERLOAD),
    "mock's overload": ({"error": {"type": "server_error", "code": "model_overloaded"}}, Cause.OVERLOAD),
    "Groq": ({"x_groq": {"error": "over capacity"}}, Cause.OVERLOAD),
    "OpenRouter": ({"error": {"code": 502, "message": "x"}, "choices": []}, Cause.SERVER),
    "OpenRouter, rate": ({"error": {"code": 429, "message": "x"}, "choices": []}, Cause.RATE_LIMIT),
    "OpenRouter, a provider": ({"error": {"message": "Provider returned error"}}, Cause.SERVER),
    "Gemini": ({"error": [{"code": 429, "status": "RESOURCE_EXHAUSTED"}]}, Cause.RATE_LIMIT),
    "Gemini, by name": ({"error": {"status": "RESOURCE_EXHAUSTED"}}, Cause.RATE_LIMIT),
    "Gemini, internal": ({"error": {"status": "INTERNAL", "message": "x"}}, Cause.SERVER),
    "Codex": ({"type": "error", "status_code": 429, "error": {"type": "usage_limit_reached"}}, Cause.RATE_LIMIT),
    "CLIProxyAPI": ({"error": {"code": "model_cooldown", "message": "x"}}, Cause.RATE_LIMIT),
    "a number next to the error": ({"error": {"message": "x"}, "status": 503}, Cause.OVERLOAD),
    "MiniMax": ({"base_resp": {"status_code": 1002, "status_msg": "x"}}, Cause.RATE_LIMIT),
    "MiniMax, key": ({"base_resp": {"status_code": 1004, "status_msg": "x"}}, Cause.KEY),
    "MiniMax, money": ({"base_resp": {"status_code": 1008, "status_msg": "x"}}, Cause.MONEY),
    "MiniMax, its servers": ({"base_resp": {"status_code": 1033, "status_msg": "x"}}, Cause.SERVER),
    "FastChat": ({"text": "x", "error_code": 42903}, Cause.RATE_LIMIT),
    "FastChat, its worker": ({"text": "x", "error_code": 50004}, Cause.SERVER),
    "server": ({"error": {"message": "x", "type": "server_error", "code": "server_error"}}, Cause.SERVER),
    "internal": ({"error": {"message": "x", "type": "internal_error"}}, Cause.SERVER),
    "internal, in words": ({"detail": "Internal server error"}, Cause.SERVER),
    "LiteLLM": ({"error": {"message": "x", "type": "APIConnectionError"}}, Cause.SERVER),
    "upstream": ({"error": {"message": "x", "type": "upstream_error"}}, Cause.SERVER),
    "upstream, in words": ({"error": {"message": "upstream connect error or disconnect"}}, Cause.SERVER),
    "connection, in words": ({"errors": [{"message": "Connection reset by peer"}]}, Cause.SERVER),
    "context": ({"error": {"code": "context_length_exceeded"}}, Cause.PROMPT_SIZE),
    "model": ({"error": {"code": "model_not_found"}}, Cause.MODEL),
    "LM Studio, no /v1": ({"error": "Unexpected endpoint or method. (POST /chat/completions)"}, Cause.NOT_FOUND),
    "request": ({"error": {"type": "invalid_request_error", "message": "x"}}, Cause.REQUEST),
    "request of a server": ({"error": {"type": "server_error", "code": "invalid_prompt"}}, Cause.REQUEST),
    "vLLM": ({"object": "error", "message": "x", "type": "BadRequestError", "code": 400}, Cause.REQUEST),
    "vLLM, dead": ({"error": {"message": "EngineCore encountered an issue.", "code": 400}}, Cause.SERVER),
    "OpenRouter, a stream": ({"error": {"message": "JSON error injected into SSE stream", "code": 400}}, Cause.SERVER),
    "Go": ({"error": {"message": "stream error: stream ID 3; INTERNAL_ERROR", "type": "new_api_error"}}, Cause.SERVER),
}
UNKNOWN: dict[str, Any] = {
    "nothing": {"error": {}},
    "a sentence": {"error": "it broke"},
    "a name": {"error": {"message": "x", "type": "odd_error"}},
    "a number": {"error": {"message": "x", "code": 7}},
    "MiniMax": {"base_resp": {"status_code": 1000, "status_msg": "unknown error"}},
    "Venice": {"error_message": "x"},
}


def in_200(payload: Any, *, in_stream: bool = False, has_text: bool = False) -> SmaiError:
    api_error = error_in(payload)
    assert api_error
    return answer_error(api_error, in_stream=in_stream, has_text=has_text)


@pytest.mark.parametrize("in_stream", [True, False])
@pytest.mark.parametrize("case", KNOWN.values(), ids=KNOWN.keys())
def test_an_error_in_a_200_before_any_text_means_the_same_as_an_http_error(
    case: tuple[Any, Cause], in_stream: bool
) -> None:
    payload, cause = case
    error = in_200(payload, in_stream=in_stream)
    assert (error.cause, type(error), error.hint) == (cause, KINDS[cause], hint_for(cause))
    assert error.retry is (Retry.UNDELIVERED if type(error) is BusyError else Retry.NEVER)
    assert error.retryable is (type(error) is BusyError)
    assert error.describe().startswith(
        "the server reported an error" if in_stream else "the server answered with an error: "
    )


@pytest.mark.parametrize("case", KNOWN.values(), ids=KNOWN.keys())
def test_an_error_after_text_is_a_broken_answer_with_the_hint_of_its_meaning(case: tuple[Any, Cause]) -> None:
    payload, cause = case
    before, after = in_200(payload, in_stream=True), in_200(payload, in_stream=True, has_text=True)
    assert (type(after), after.cause, after.hint) == (BrokenError, cause, hint_for(cause))
    assert after.retry is (Retry.NEVER if before.retry is Retry.NEVER else Retry.HELD_BACK)
    assert after.retryable is before.retryable


@pytest.mark.parametrize("payload", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_an_unknown_error_is_status_8_and_retryable(payload: Any) -> None:
    for in_stream, has_text in ((True, True), (True, False), (False, False)):
        error = in_200(payload, in_stream=in_stream, has_text=has_text)
        assert (error.status, error.cause, error.hint) == (8, None, "try again later")
        assert (error.retry, error.retryable) == (Retry.HELD_BACK, True)


def test_an_error_in_a_200_says_how_long_to_wait() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "45.5s"}]
    payload = {"error": {"code": 429, "message": "x", "details": details}}
    assert in_200(payload, in_stream=True).wait_s == in_200(payload).wait_s == refused(429, [payload]).wait_s == 45.5


def test_a_wait_in_the_words_of_an_error_is_obeyed_unless_a_header_or_a_member_has_it() -> None:
    payload = {"error": {"message": "Please try again in 2s.", "code": "rate_limit_exceeded"}}
    assert refused(429, payload).wait_s == in_200(payload).wait_s == 2.0
    assert refused(429, "Please retry after 2 seconds.").wait_s == 2.0
    assert refused(429, payload, retry_after="3").wait_s == 3.0
    assert refused(429, {"error": {**payload["error"], "retry_after": 4}}).wait_s == 4.0
    assert refused(400, {"error": {"message": "Please retry in 2s"}}).wait_s is None


def test_a_wait_in_the_error_of_the_upstream_of_a_gateway_is_obeyed() -> None:
    raw = json.dumps({"error": {"message": "x", "details": [{"retryDelay": "7s"}]}})
    error = {"message": "Provider returned error", "code": 429, "metadata": {"raw": raw}}
    assert refused(429, {"error": error}).wait_s == 7.0


def test_every_cause_has_a_status_and_a_next_step() -> None:
    assert set(KINDS) == set(Cause)
    assert all(hint_for(cause) for cause in Cause)
    assert hint_for(Cause.KEY, "the key from X") == "check the key from X"
