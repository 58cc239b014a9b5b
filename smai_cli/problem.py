"""What a server says of its own failure: the error object of the API, and the exit status it leads to."""

import json
from typing import Any, NamedTuple

from smai_cli.errors import AccessError, Again, BusyError, RefusedError, SmaiError
from smai_cli.text import one_line

_RETRIED = {408, 429, 500, 502, 503, 504}
_HINTS = {
    "invalid_api_key": "check the key",
    "expired_api_key": "make a new key",
    "missing_api_key": "set SMAI_API_KEY or give --key-file",
    "insufficient_quota": "top up the account",
    "context_length_exceeded": "shorten the prompt",
    "invalid_model": "check -m/--model",
    "model_not_found": "check -m/--model",
}


class Problem(NamedTuple):
    """The server's own words: `{"error": {"message": ..., "type": ..., "code": ...}}`; empty where it had none."""

    message: str = ""
    code: str = ""
    param: str = ""

    def __str__(self) -> str:
        """Return message, code and the field that is to blame, fit for one line."""
        details = [detail for detail in (self.code, self.param) if detail and detail not in self.message]
        message = self.message or "no message"
        return one_line(f"{message} ({', '.join(details)})" if details else message)


def problem_of(error: Any) -> Problem:
    """Return the Problem for the value of `error` in a server's JSON: an object, or a mere string."""
    if not isinstance(error, dict):
        return Problem(error if isinstance(error, str) else _dumped(error))
    code = error.get("code") or error.get("type") or ""
    message, param = error.get("message"), error.get("param")
    return Problem(
        message if isinstance(message, str) else _dumped(error),
        str(code),
        param if isinstance(param, str) else "",
    )


def _dumped(error: Any) -> str:
    try:
        return json.dumps(error)
    except RecursionError:  # what could just be parsed may be nested too deep to be written
        return "an error nested too deep to be shown"


def problem_in_body(body: bytes) -> Problem:
    """Return the Problem that the body of an HTTP error holds: JSON, a line of plain text, or nothing for HTML."""
    text = body.decode("utf-8", "replace").strip()
    try:
        payload = json.loads(text)
    except (ValueError, RecursionError):
        return Problem("" if text.startswith("<") else one_line(text, 200))
    if not isinstance(payload, dict):
        return Problem()
    # FastAPI servers say `detail`, Ollama's own errors are a string under `error`.
    return problem_of(payload.get("error") or payload.get("detail") or payload)


def http_error(
    http_status: int, reason: str, problem: Problem, *, wait_s: float | None, request_id: str | None
) -> SmaiError:
    """Return the failure that an HTTP status other than 200 is, with the server's words in it."""
    what = f"the server answered {http_status} {one_line(reason, 60)}".rstrip()
    if problem.message or problem.code:
        what += f": {problem}"
    if request_id:
        what += f" [request id {one_line(request_id, 100)}]"
    if http_status in (401, 402, 403) or "insufficient_quota" in problem.code:
        hint = _HINTS.get(problem.code, "check the key: SMAI_API_KEY or --key-file, and the account")
        return AccessError(what, hint, http_status=http_status, request_id=request_id)
    if http_status in _RETRIED or http_status >= 500:  # noqa: PLR2004
        return BusyError(
            what,
            "try again later",
            again=Again.UNANSWERED if http_status in _RETRIED else Again.NEVER,
            wait_s=wait_s,
            http_status=http_status,
            request_id=request_id,
        )
    hint = _HINTS.get(problem.code, "check -m/--model, the options and --base-url")
    return RefusedError(what, hint, http_status=http_status, request_id=request_id)
