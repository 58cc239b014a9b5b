"""What a server says of its own failure, in whichever form it says it; `meaning` has what follows from it.

OpenAI's `error` object is one form among many: a string, Gemini's array, FastAPI's `detail`, `errors` of Cloudflare,
an error in place of a chunk (vLLM, FastChat), MiniMax's `base_resp`, Groq's `x_groq`.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from smai_cli.text import one_line

# Members by which a JSON object can be an error; `object` and `type` are in every chunk, and their value decides.
MARKS = frozenset({"error", "errors", "detail", "error_code", "error_message", "base_resp", "x_groq"})
# Members of what is no error of FastAPI, whatever its `detail` is.
_CONTENTS = frozenset({"choices", "data", "object", "output", "response"})
_MESSAGES = ("message", "msg", "status_msg", "error_msg", "error_message", "detail", "title", "text")
# Where servers put the name or the number of an error, in the order of what is shown.
_KINDS = ("code", "type", "error_code", "status_code", "statusCode", "http_code", "status", "error_type", "reason")
_NO_ERROR = (None, 0, "0", "")
# A number that is, or begins with, an HTTP status. What another one means, each server says for itself.
_HTTP_LIKE = "[45][0-9]{2}([0-9]{2})?"
_LISTED = 3
_DEPTH = 3


class ApiError(NamedTuple):
    """The server's own words: `{"error": {"message": ..., "type": ..., "code": ...}}`; empty where it had none.

    `kinds` are all the names and numbers by which the server classes it, `code` the one to show.
    """

    message: str = ""
    code: str = ""
    param: str = ""
    kinds: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return message, code and the field that is to blame, fit for one line."""
        details = [detail for detail in (self.code, self.param) if detail and detail not in self.message]
        message = self.message or "no message"
        return one_line(f"{message} ({', '.join(details)})" if details else message)


def error_in(payload: dict[str, Any]) -> ApiError | None:
    """Return the ApiError that an event, or a body with HTTP status 200, is; None for an ordinary one.

    `{"error": {}}` is a problem. null, an empty list and the code 0 are none.
    """
    if MARKS.isdisjoint(payload) and payload.get("type") != "error" and payload.get("object") != "error":
        return None  # nearly all there are
    return _error_in(payload)


def unmarked_error_in(payload: dict[str, Any]) -> ApiError | None:
    """Return the ApiError that an object is which is no chunk, and which nothing but its values show to be an error.

    `{"code": 500, "msg": ...}`, `{"success": false, "message": ...}` and `{"status": "error", ...}` are some.
    """
    if not any(payload.get(name) and isinstance(payload[name], str) for name in _MESSAGES):
        return None
    numbers = (str(payload.get(name)) for name in ("code", "status", "status_code", "statusCode"))
    is_error = payload.get("success") is False or payload.get("status") in ("error", "failed", "fail")
    return api_error_of(payload) if is_error or any(map(is_http_like, numbers)) else None


def is_http_like(number: str) -> bool:
    """Return whether a number is, or begins with, an HTTP status of a failure."""
    return bool(re.fullmatch(_HTTP_LIKE, number))


def api_error_of(error: Any, depth: int = 0) -> ApiError:
    """Return the ApiError for the value of `error` in a server's JSON: an object, a list of them, or a mere string.

    Gateways wrap an error in another one; `depth` is how many were opened.
    """
    if isinstance(error, list):
        return _api_error_of_list(error, depth)
    if isinstance(error, str):
        return ApiError(error, kinds=() if " " in error else (error,))
    if not isinstance(error, dict):
        return ApiError(_dumped(error))
    message = next((error[name] for name in _MESSAGES if error.get(name) and isinstance(error[name], str)), None)
    inner = error.get("error") or (error.get("detail") if message is None else None)
    if inner and depth < _DEPTH and (message is None or isinstance(inner, dict)):
        return api_error_of(inner, depth + 1)
    if message is None:
        message = _dumped(error) if error else ""
    values = list(_kinds(error))
    kinds = (str(value) for value in values if isinstance(value, str) or is_http_like(str(value)))
    param = error.get("param")
    return ApiError(message, str(values[0]) if values else "", param if isinstance(param, str) else "", tuple(kinds))


def api_error_in_body(body: bytes) -> ApiError:
    """Return the ApiError that the body of an HTTP error holds: JSON, a line of plain text, or nothing for HTML."""
    text = body.decode("utf-8", "replace").strip()
    try:
        payload = json.loads(text)
    except (ValueError, RecursionError):
        return ApiError("" if text.startswith("<") else one_line(text, 200))
    if isinstance(payload, list) and payload:  # Gemini's: [{"error": {...}}], as in Gitlawb/openclaude#749
        payload = payload[0]
    if isinstance(payload, dict):
        return _error_in(payload) or api_error_of(payload)
    return ApiError(payload) if isinstance(payload, str) else ApiError()


def _error_in(payload: dict[str, Any]) -> ApiError | None:  # noqa: PLR0911  # one for each form
    error = payload.get("error")
    if error or error == {}:
        return _beside(payload, error) if isinstance(error, (str, bool)) else api_error_of(error)
    groq = payload.get("x_groq")
    if isinstance(groq, dict) and groq.get("error"):
        return api_error_of(groq["error"])
    base = payload.get("base_resp")
    if isinstance(base, dict) and base.get("status_code") not in _NO_ERROR:
        # Its numbers mean something else than the same ones of other servers.
        return api_error_of(base)._replace(kinds=(f"base_resp {base['status_code']}",))
    if payload.get("errors"):
        return api_error_of(payload["errors"])
    if payload.get("error_message") and "choices" not in payload:  # Venice (NousResearch/hermes-agent#68451)
        return api_error_of(payload)
    # FastChat's workers put `error_code: 0` into every chunk.
    if payload.get("error_code") not in _NO_ERROR or "error" in (payload.get("object"), payload.get("type")):
        return api_error_of({name: value for name, value in payload.items() if name != "error"})
    if payload.get("detail") and _CONTENTS.isdisjoint(payload):
        return api_error_of(payload["detail"])
    return None


def _beside(payload: dict[str, Any], error: str | bool) -> ApiError:
    """Return the ApiError of a payload whose `error` is a word, a sentence or true; the rest may stand beside it."""
    rest = api_error_of({name: value for name, value in payload.items() if name != "error"})
    if not isinstance(error, str):
        return rest
    spoken = any(isinstance(payload.get(name), str) for name in ("message", "msg"))
    if spoken and " " not in error:  # a name in place of the object
        return rest._replace(code=error, kinds=(error, *rest.kinds))
    return rest._replace(message=error, kinds=(*api_error_of(error).kinds, *rest.kinds))


def _api_error_of_list(errors: list[Any], depth: int) -> ApiError:
    """Return the ApiError of the first object, or what FastAPI says of each field, without the input it repeats."""
    entries = [entry for entry in errors if isinstance(entry, dict)]
    if not entries:
        return ApiError(errors[0]) if errors and isinstance(errors[0], str) else ApiError(_dumped(errors))
    if "msg" not in entries[0]:
        return api_error_of(entries[0], depth + 1)
    lines = []
    for entry in entries[:_LISTED]:
        place = entry.get("loc")
        where = ".".join(str(part) for part in place if part != "body") if isinstance(place, list) else ""
        lines.append(f"{where}: {entry['msg']}" if where else str(entry["msg"]))
    return ApiError("; ".join(lines))


def _kinds(error: dict[str, Any]) -> Iterator[str | int]:
    """Yield the names and numbers of an error, also those in OpenRouter's `metadata` and Google's `details`."""
    details = error.get("details")
    for holder in (error, error.get("metadata"), *(details if isinstance(details, list) else ())):
        for name in _KINDS if isinstance(holder, dict) else ():
            value = holder.get(name)
            if isinstance(value, (str, int)) and not isinstance(value, bool) and value not in (*_NO_ERROR, "error"):
                yield value


def _dumped(error: Any) -> str:
    try:
        return json.dumps(error)
    except RecursionError:  # what could just be parsed may be nested too deep to be written
        return "an error nested too deep to be shown"
