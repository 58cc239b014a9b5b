"""The answers to GET /models -> the models that they list. Pure, but for the asking, which is a callable."""

import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit, urlunsplit

from smai_cli.errors import Again, BrokenError, RefusedError, SmaiError
from smai_cli.http.api_error import ApiError, error_in
from smai_cli.http.meaning import answer_error
from smai_cli.stream.json_text import LENIENT
from smai_cli.text import escaped, one_line

PATH = "/models"
_MAX_BYTES = 16 * 1024 * 1024
_MAX_PAGES = 1000
# The parameter that names the last entry which is known: OpenAI's, and Anthropic's
# (docs.anthropic.com/en/api/models-list). Gateways take the one or the other (newo-ether/Agora#41).
_CURSORS = ("after", "after_id")


class Model(NamedTuple):
    """A model of a server: its id, and the server's object for it as JSON on one line."""

    id: str
    line: str


class Page(NamedTuple):
    """What one answer lists, in the server's order; whether there is more, and the cursor that more comes after."""

    models: list[Model]
    has_more: bool = False
    last_id: str = ""
    cursors: tuple[str, ...] = _CURSORS


def read_list(ask: Callable[[str], Iterable[bytes]]) -> list[Model]:
    """Return all models of a server, sorted by the code points of their ids, each id once.

    `ask` sends the request with a query string, which is empty at first, and returns the body of its answer. A list
    that goes on is followed to its end. Raises what `parse_page` and `ask` raise, and BrokenError for a list that is
    too large, or of which the server does not send the rest: a part of it is not returned.
    """
    size = 0

    def read(query: str) -> Page:
        nonlocal size
        body = bytearray()
        for piece in ask(query):
            body += piece
            if size + len(body) > _MAX_BYTES:
                what = f"the list of models is larger than {_MAX_BYTES} bytes"
                raise BrokenError(what, "check --base-url", again=Again.NEVER, retryable=False)
        size += len(body)
        return parse_page(bytes(body))

    page = read("")
    found = {model.id: model for model in reversed(page.models)}
    for _ in range(_MAX_PAGES):
        if not page.has_more:
            return sorted(found.values())
        page = _next_page(read, page, found)
        found |= {model.id: model for model in reversed(page.models) if model.id not in found}
    what = f"the list of models has more than {_MAX_PAGES} parts"
    raise BrokenError(what, "check --base-url", again=Again.NEVER, retryable=False)


def _next_page(read: Callable[[str], Page], last: Page, found: dict[str, Model]) -> Page:
    """Return the page after `last`. Raises BrokenError where it brings nothing that was not found before."""
    for cursor in last.cursors if last.last_id else ():
        page = read(urlencode({cursor: last.last_id}, errors="surrogatepass"))
        if not page.has_more or any(model.id not in found for model in page.models):
            return page._replace(cursors=(cursor,))
    raise BrokenError(
        "the list of models is cut: the server says that there is more, and does not send it",
        "a model that is not listed can be named with -m all the same",
        again=Again.NEVER,
        retryable=False,
    )


def with_query(base_url: str, query: str) -> str:
    """Return `base_url` with more of a query behind its own."""
    parts = urlsplit(base_url)
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, query)))))


def parse_page(body: bytes) -> Page:
    """Return what the body of an answer lists.

    The body is the API's list object, or a bare array as some compatible servers send it. Raises BrokenError for
    JSON that is cut or malformed, RefusedError for what is no list of models, and for an error object what it means.
    """
    text = body.decode("utf-8-sig", "replace").strip()
    if text and text[0] not in "{[":
        raise RefusedError("the server answered something that is no list of models", "check --base-url")
    try:
        payload, end = LENIENT.raw_decode(text)
        if end < len(text):
            raise _no_list(text)
        models = [_model(entry) for entry in _entries(payload, text)]
    except (ValueError, RecursionError) as exc:
        shown = one_line(text, 80) or "nothing came"
        raise BrokenError(f"the list of models is cut, or is not JSON: {shown}", "try again later") from exc
    if not isinstance(payload, dict) or not payload.get("has_more"):
        return Page(models)
    last_id = payload.get("last_id")
    if not isinstance(last_id, str) or not last_id:
        last_id = models[-1].id if models else ""
    # OpenAI's list is an object "list", Anthropic's has no such member.
    return Page(models, True, last_id, _CURSORS if payload.get("object") == "list" else _CURSORS[::-1])


def _entries(payload: Any, text: str) -> list[Any]:
    """Return the objects of a list. Raises RefusedError, and what an error object means."""
    if api_error := _api_error(payload):
        raise _refusal(api_error)
    if isinstance(payload, dict):
        # Servers without a model send null for an empty list.
        is_empty = payload.get("object") == "list" and payload.get("data", ...) is None
        payload = [] if is_empty else payload.get("data")
    if not isinstance(payload, list):
        raise _no_list(text)
    return payload


def _api_error(payload: Any) -> ApiError | None:
    """Return the ApiError that an answer is, None for another one; Gemini's are arrays."""
    if isinstance(payload, list) and payload and isinstance(payload[0], dict) and "id" not in payload[0]:
        payload = payload[0]
    return error_in(payload) if isinstance(payload, dict) else None


def _refusal(api_error: ApiError) -> SmaiError:
    error = answer_error(api_error, in_stream=False, has_text=False)
    if isinstance(error, RefusedError):
        error.hint = "check --base-url"  # the usual hint is about a request to a model
    return error


def _model(entry: Any) -> Model:
    """Return the view of one entry. Raises RefusedError."""
    name = entry.get("id") if isinstance(entry, dict) else None
    line = json.dumps(entry, ensure_ascii=False, allow_nan=False)
    if not isinstance(name, str) or not name:
        raise RefusedError(f"the server lists a model without an id: {one_line(line, 80)}", "check --base-url")
    return Model(name, escaped(line))


def _no_list(text: str) -> RefusedError:
    what = f"the server answered JSON that is no list of models: {one_line(text, 80)}"
    return RefusedError(what, "check --base-url")
