"""What follows from a server's error: the cause, and with it the exit status, the next step, and whether to retry.

The rules are the same for HTTP errors, error events in a stream, answers in one piece, and both APIs.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from smai_cli.answer.api_error import ApiError, api_error_in_body, request_id_in, unknown_parameters
from smai_cli.answer.causes import cause_of
from smai_cli.answer.waits import reset_s, retry_after_s, should_retry, wait_in_words
from smai_cli.common.text import one_line
from smai_cli.errors import AccessError, BrokenError, BusyError, Cause, Retry, SmaiError, error_type_for, hint_for

# 520 to 525 are Cloudflare's, for a server that it cannot reach (developers.cloudflare.com/support, 5xx errors).
_RETRIED = frozenset({408, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 525, 529})

# The statuses with which a server refuses a parameter.
_UNPROCESSED = (400, 422)


class HttpAnswer(NamedTuple):
    """An HTTP answer that is not a success; `body` is as much of it as was read, empty if it is not text."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes = b""


def http_error(answer: HttpAnswer) -> SmaiError:
    """Return the failure for an HTTP answer that is not a success, with the server's message in it.

    x-should-retry overrides the status, but a request without money or a valid key is never retried.
    """
    api_error = api_error_in_body(answer.body)
    cause = cause_of(api_error, answer.status) or Cause.REQUEST
    what = f"the server answered {answer.status} {one_line(answer.reason, 60)}".rstrip()
    if cause is Cause.FORBIDDEN and _is_web_page(answer):
        cause = Cause.WEB_PAGE
    if api_error.message or api_error.code:
        what += f": {api_error}"
    elif cause is Cause.WEB_PAGE:
        what += " with a web page"
    request_id = request_id_in(answer.headers)
    if request_id:
        what += f" [request id {one_line(request_id, 100)}]"
    kind = error_type_for(cause)
    is_retried = kind is BusyError and (cause is not Cause.SERVER or answer.status in _RETRIED)
    asked = should_retry(answer.headers)
    if asked is not None and kind is not AccessError:
        is_retried = asked
    waited_s = retry_after_s(answer.headers)
    return kind(
        what,
        hint_for(cause),
        retryable=kind.retryable or is_retried,
        retry=Retry.UNANSWERED if is_retried else Retry.NEVER,
        cause=cause,
        code=api_error.code or None,
        wait_s=_asked_wait_s(api_error, kind) if waited_s is None else waited_s,
        reset_s=reset_s(answer.headers),
        http_status=answer.status,
        request_id=request_id,
        unknown_parameters=unknown_parameters(api_error) if answer.status in _UNPROCESSED else frozenset(),
    )


def answer_error(api_error: ApiError, *, in_stream: bool, has_text: bool) -> SmaiError:
    """Return the failure for an error object in an answer with HTTP status 200.

    `in_stream` says that it came as an event, not as the whole body, `has_text` that text came before it: then it is a
    broken answer, whatever the error says. If the server is busy and nothing was delivered, smai may retry, as after an
    HTTP error. A broken answer may have been billed: only an output mode that holds it back retries it.
    """
    what = f"the server answered with an error: {api_error}"
    if in_stream:
        what = f"the server reported an error in the stream: {api_error}"
    cause = cause_of(api_error)
    kind = error_type_for(cause) if cause else BrokenError
    may_pass = kind in (BusyError, BrokenError)
    if has_text:
        kind = BrokenError
    retry = Retry.UNDELIVERED if kind is BusyError else Retry.HELD_BACK
    return kind(
        what,
        hint_for(cause) if cause else "try again later",
        retryable=may_pass,
        retry=retry if may_pass else Retry.NEVER,
        cause=cause,
        code=api_error.code or None,
        wait_s=_asked_wait_s(api_error, kind),
    )


def _asked_wait_s(api_error: ApiError, kind: type[SmaiError]) -> float | None:
    """Return how many seconds an error asks to wait; in words, only if the server is busy."""
    if api_error.wait_s is not None or kind is not BusyError:
        return api_error.wait_s
    return wait_in_words(f"{api_error.message} {api_error.upstream}")


def _is_web_page(answer: HttpAnswer) -> bool:
    """Return whether an answer is from a firewall in front of the API, such as Cloudflare, and not from the API.

    Cloudflare marks its challenge (developers.cloudflare.com/cloudflare-challenges, detect a challenge page response);
    a client that does not accept HTML gets its error number as text or as JSON (cth9191/higgsfield-api-skill#1).
    """
    body = answer.body.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if answer.headers.get("cf-mitigated", "").strip().lower() == "challenge":
        return True
    if body.startswith((b"{", b"[")):
        return re.search(rb'"cloudflare_error"\s*:\s*true', body) is not None
    if body.startswith(b"<"):
        return not body.startswith(b"<?xml") or b"<html" in body
    return "html" in answer.headers.get("content-type", "").lower() or body.startswith(b"error code: 1")
