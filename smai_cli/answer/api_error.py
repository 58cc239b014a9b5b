"""Read the error that a server reports, in any form; `meaning` decides what follows from it.

OpenAI's `error` object is one form among many: a string, Gemini's array, FastAPI's `detail`, Cloudflare's `errors`,
an error in place of a chunk (vLLM, FastChat), MiniMax's `base_resp`, Groq's `x_groq`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from smai_cli.answer.waits import wait_in
from smai_cli.common.text import one_line

# Members that can mark a JSON object as an error. `object` and `type` are in every chunk: there, the value decides.
MARKS = frozenset({"error", "errors", "detail", "error_code", "error_message", "base_resp", "x_groq"})
# An object with one of these is not an error of FastAPI, even if it has a `detail`.
_CONTENTS = frozenset({"choices", "data", "object", "output", "response"})
_MESSAGES = ("message", "msg", "status_msg", "error_msg", "error_message", "detail", "title", "text")
# Where servers put the name or the number of an error; the first one found is shown.
_KINDS = ("code", "type", "error_code", "status_code", "statusCode", "http_code", "status", "error_type", "reason")
_NO_ERROR = (None, 0, "0", "")
# A number that is, or begins with, an HTTP status. Any other number means something else at each server.
_HTTP_LIKE = "[45][0-9]{2}([0-9]{2})?"
_LISTED = 3
_DEPTH = 3
# Parameters that some servers do not know, and that smai can leave out or rename.
_DISPENSABLE = ("max_tokens", "max_completion_tokens")
_OF_USAGE = ("stream_options", "include_usage")
# How servers reject a parameter that they do not know, or do not support for this model. Not compiled before an error.
_UNKNOWN = (
    r"(?i)unsupported|unrecogni[sz]ed|unknown|unexpected|extra (inputs|fields)|extra_forbidden|does ?n[o']t support"
    r"|not (be )?(support|permit|allow|recogni[sz]|accept)|\binstead\b"
)
# How they reject a value.
_OUT_OF_RANGE = (
    r"(?i)(unsupported|invalid)[ _]value|too (large|high|big|small|low|many)|at (most|least)|between|maximum|minimum"
    r"|(less|greater|smaller|larger|more|fewer) than|exceed|out of range|[<>]"
)


class ApiError(NamedTuple):
    """An error as the server reports it: `{"error": {"message": ..., "type": ..., "code": ...}}`; fields may be empty.

    `kinds` are all names and numbers by which the server classifies it, `code` the one to show. `upstream` is the
    message of a gateway's upstream server, if the gateway adds a message to it. `wait_s` is how many seconds the
    error object asks to wait, None if it does not say.
    """

    message: str = ""
    code: str = ""
    param: str = ""
    kinds: tuple[str, ...] = ()
    upstream: str = ""
    wait_s: float | None = None

    def __str__(self) -> str:
        """Return the message, the code and the rejected parameter, on one line."""
        message = ": ".join(filter(None, (self.message, self.upstream))) or "no message"
        details = [detail for detail in (self.code, self.param) if detail and detail not in message]
        return one_line(f"{message} ({', '.join(details)})" if details else message)


def error_in(payload: dict[str, Any]) -> ApiError | None:
    """Return the ApiError in an event, or in a body with HTTP status 200; None without one.

    `{"error": {}}` is an error. null, an empty list, the code 0 and a blank object next to an answer are not.
    """
    if MARKS.isdisjoint(payload) and payload.get("type") != "error" and payload.get("object") != "error":
        return None  # nearly all of them
    api_error = _error_in(payload)
    return api_error and _with_wait(api_error, payload)


def error_of_array(payload: Any) -> dict[str, Any] | None:
    """Return the first object of an array if it is an error, as Gemini sends them; None for anything else."""
    first = payload[0] if isinstance(payload, list) and payload else None
    return first if isinstance(first, dict) and error_in(first) else None


def unmarked_error_in(payload: dict[str, Any]) -> ApiError | None:
    """Return the ApiError for an object that is not a chunk, if its values show that it is an error; None otherwise.

    Examples: `{"code": 500, "msg": ...}`, `{"success": false, "message": ...}`, `{"status": "error", ...}`.
    """
    if not any(payload.get(name) and isinstance(payload[name], str) for name in _MESSAGES):
        return None
    numbers = (str(payload.get(name)) for name in ("code", "status", "status_code", "statusCode"))
    is_error = payload.get("success") is False or payload.get("status") in ("error", "failed", "fail")
    return api_error_of(payload) if is_error or any(map(is_http_like, numbers)) else None


def request_id_in(headers: Mapping[str, str]) -> str | None:
    """Return the request id in the headers of an answer; None without one."""
    return headers.get("x-request-id") or headers.get("request-id")


def is_http_like(number: str) -> bool:
    """Return whether a number is, or begins with, an HTTP status of a failure."""
    return bool(re.fullmatch(_HTTP_LIKE, number))


def api_error_of(error: Any, depth: int = 0) -> ApiError:
    """Return the ApiError for the value of `error` in a server's JSON: an object, a list of them, or a string.

    Gateways wrap an error in another one, also as JSON in its message; `depth` is how many were unwrapped.
    """
    if isinstance(error, list):
        return _api_error_of_list(error, depth)
    if isinstance(error, str):
        wrapped = _wrapped_in(error, depth)
        return wrapped or ApiError(error, kinds=() if " " in error else (error,))
    if not isinstance(error, dict):
        return ApiError(_dump(error))
    return _with_wait(_api_error_of_object(error, depth), error)


def unknown_parameters(api_error: ApiError) -> frozenset[str]:
    """Return the parameters that a server does not know, as far as smai can leave them out or rename them.

    A refusal that names `stream_options` or its member always counts: its value cannot be wrong.

    OpenAI: "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'
    instead.", code unsupported_parameter. Mistral, by FastAPI: "max_completion_tokens: Extra inputs are not permitted"
    (editor-code-assistant/eca#231). LiteLLM: "does not support parameters: {'max_completion_tokens': 4096}"
    (BerriAI/litellm#10910). A value that is too large does not count: the user's limit must not be lost.
    """
    text = " ".join((api_error.message, api_error.upstream, api_error.param, *api_error.kinds))
    is_unknown = re.search(_UNKNOWN, text) and not re.search(_OUT_OF_RANGE, text)
    names = (*_OF_USAGE, *_DISPENSABLE) if is_unknown else _OF_USAGE
    return frozenset(name for name in names if re.search(rf"\b{name}\b", text))


def api_error_in_body(body: bytes) -> ApiError:
    """Return the ApiError in the body of an HTTP error: JSON, an event, or plain text; an empty one for HTML."""
    text = body.decode("utf-8-sig", "replace").strip()
    event = re.search(r"^data:(.*)", text, re.MULTILINE) if text.startswith(("data:", "event:")) else None
    if event:  # a gateway that promised a stream
        text = event[1].strip()
    try:
        payload = json.loads(text)
    except (ValueError, RecursionError):
        return ApiError("" if text.startswith("<") else one_line(text, 200))
    payload = error_of_array(payload) or (payload[0] if isinstance(payload, list) and payload else payload)
    if isinstance(payload, dict):
        return error_in(payload) or api_error_of(payload)
    return api_error_of(payload) if isinstance(payload, str) else ApiError()


def _api_error_of_object(error: dict[str, Any], depth: int) -> ApiError:
    message = next((error[name] for name in _MESSAGES if error.get(name) and isinstance(error[name], str)), None)
    inner = error.get("error") or (error.get("detail") if message is None else None)
    if inner and depth < _DEPTH and (message is None or isinstance(inner, dict)):
        return api_error_of(inner, depth + 1)
    wrapped = _wrapped_in(message or "", depth)
    if message is None:
        message = _dump(error) if error else ""
    values = [*_kinds(error)]
    kinds = tuple(str(value) for value in values if isinstance(value, str) or is_http_like(str(value)))
    param = error.get("param")
    upstream = _upstream_error(error)
    api_error = ApiError(
        message,
        str(values[0]) if values else "",
        param if isinstance(param, str) else "",
        kinds,
        "" if upstream.message in message else upstream.message,
        upstream.wait_s,
    )
    if wrapped is None:
        return api_error
    return api_error._replace(
        message=wrapped.message,
        code=wrapped.code or api_error.code,
        kinds=(*wrapped.kinds, *kinds),
        wait_s=wrapped.wait_s,
    )


def _wrapped_in(message: str, depth: int) -> ApiError | None:
    """Return the ApiError that the message of another one contains as JSON; None for an ordinary message."""
    if not message.lstrip().startswith(("{", "[")) or depth >= _DEPTH:
        return None
    try:
        payload = json.loads(message)
    except (ValueError, RecursionError):
        return None
    payload = error_of_array(payload) or payload
    return api_error_of(payload, depth + 1) if isinstance(payload, dict) and payload else None


def _upstream_error(error: dict[str, Any]) -> ApiError:
    """Return what OpenRouter's `metadata.raw` says of the server that it asked; an empty one if it says nothing."""
    metadata = error.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    return api_error_in_body(raw.encode(errors="replace")) if isinstance(raw, str) else ApiError()


def _with_wait(api_error: ApiError, payload: dict[str, Any]) -> ApiError:
    return api_error._replace(wait_s=wait_in(payload)) if api_error.wait_s is None else api_error


def _error_in(payload: dict[str, Any]) -> ApiError | None:  # noqa: PLR0911  # one for each form
    error = payload.get("error")
    if (error or error == {}) and not _is_blank(error, payload):
        if isinstance(error, (str, bool)):
            return _with_the_rest(payload, error)
        return _with_number(api_error_of(error), payload)
    groq = payload.get("x_groq")
    if isinstance(groq, dict) and groq.get("error"):
        return api_error_of(groq["error"])
    base = payload.get("base_resp")
    if isinstance(base, dict) and base.get("status_code") not in _NO_ERROR:
        # Its numbers mean something else than the same numbers of other servers.
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


def _is_blank(error: Any, payload: dict[str, Any]) -> bool:
    """Return whether an error object next to an answer has members, all of them empty.

    Apertis sends such an object with each complete answer (BerriAI/litellm#18407).
    """
    has_answer = payload.get("choices") or payload.get("output")
    return bool(has_answer and error and isinstance(error, dict)) and not any(error.values())


def _with_number(api_error: ApiError, payload: dict[str, Any]) -> ApiError:
    """Return an error with the HTTP status that is next to its object (raine/claude-code-proxy PR 139)."""
    numbers = (str(payload.get(name)) for name in ("status_code", "statusCode", "status", "code"))
    return api_error._replace(kinds=(*api_error.kinds, *filter(is_http_like, numbers)))


def _with_the_rest(payload: dict[str, Any], error: str | bool) -> ApiError:
    """Return the ApiError of a payload whose `error` is a word, a sentence or true; its other members add to it."""
    rest = api_error_of({name: value for name, value in payload.items() if name != "error"})
    if not isinstance(error, str):
        return rest
    has_message = any(isinstance(payload.get(name), str) for name in ("message", "msg"))
    if has_message and " " not in error:  # a name in place of the object
        return rest._replace(code=error, kinds=(error, *rest.kinds))
    own = api_error_of(error)
    return rest._replace(message=own.message, code=own.code or rest.code, kinds=(*own.kinds, *rest.kinds))


def _api_error_of_list(errors: list[Any], depth: int) -> ApiError:
    """Return the ApiError of the first object, or FastAPI's message for each field, without the input it repeats."""
    entries = [entry for entry in errors if isinstance(entry, dict)]
    if not entries:
        return ApiError(errors[0]) if errors and isinstance(errors[0], str) else ApiError(_dump(errors))
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


def _dump(error: Any) -> str:
    try:
        return json.dumps(error)
    except RecursionError:  # JSON that can be parsed may still be nested too deep to be written
        return "an error nested too deep to be shown"
