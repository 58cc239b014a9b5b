"""The answers to GET /models -> the models that they list. Does no I/O itself: a callable sends the requests."""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote_plus, urlencode, urlsplit, urlunsplit

from smai_cli.answer.api_error import ApiError, error_in, error_of_array
from smai_cli.answer.meaning import answer_error
from smai_cli.common.text import escaped, one_line
from smai_cli.errors import BrokenError, Cause, RefusedError, Retry
from smai_cli.stream.json_text import LENIENT

PATH = "/models"
_MAX_BYTES = 16 * 1024 * 1024
_MAX_PAGES = 1000
# Members with a token for the next page, and the query parameters for it: Cohere's, Google's, and those of gateways.
# `next` is often a URL, as with Hugging Face and Replicate.
_TOKENS = {
    "next_page_token": ("page_token",),
    "nextPageToken": ("pageToken",),
    "next_cursor": ("cursor",),
    "nextCursor": ("cursor",),
    "next_offset": ("offset",),
    "next_page": ("page",),
    "nextPage": ("page",),
    "next_token": ("next_token",),
    "next_url": ("cursor",),
    "nextLink": ("cursor",),
    "next": ("cursor", "page_token", "page", "next"),
}
_HAS_MORE = ("has_more", "hasMore", "has_next", "hasNext", "has_next_page", "hasNextPage")
# The number of all models; if the list has fewer, the rest is missing.
_TOTALS = ("total", "total_count", "totalCount", "total_size", "totalSize", "count")
# Some servers put all of these into one of these objects.
_PLACES = ("pagination", "paging", "page_info", "pageInfo", "meta", "links", "_links")
# The query parameter for the id of the last model so far: OpenAI's, and Anthropic's
# (docs.anthropic.com/en/api/models-list). Gateways use one or the other (newo-ether/Agora#41).
_CURSORS = ("after", "after_id")
# A link to the next page in a header (RFC 8288), as Hugging Face sends it.
_NEXT_LINK = re.compile(r'<([^>]*)>[^,<]*;\s*rel="?next\b', re.IGNORECASE)
_NOTHING = ("", "false", "null", "none")


class Model(NamedTuple):
    """A model of a server: its id, and the server's object for it as JSON on one line."""

    id: str
    line: str

    def is_called(self, name: str) -> bool:
        """Return whether a request may call it `name`, which is shorter than the id with Ollama and with Gemini."""
        return self.id in (name, f"{name}:latest", f"models/{name}")


class Listing(NamedTuple):
    """All models of a server, sorted by the code points of their ids, each id once.

    `odd` is how many entries had no id, `example` the first of them as JSON on one line.
    """

    models: list[Model]
    odd: int = 0
    example: str = ""


class ListPage(NamedTuple):
    """The list in one answer, in the server's order.

    `odd` are the entries without an id, as JSON. `queries` are the query strings that may fetch the next page, the most
    likely first; None at the end of the list. `total` is the number of all entries according to the server, 0 if it
    does not say.
    """

    models: list[Model]
    odd: list[str]
    queries: list[str] | None = None
    total: int = 0

    @property
    def entries(self) -> int:
        """How many entries it has, with and without an id."""
        return len(self.models) + len(self.odd)


# The answer of a server: its body in pieces, and its Link header, which may be empty.
ListAnswer = tuple[Iterable[bytes], str]


def read_list(ask: Callable[[str], ListAnswer]) -> Listing:
    """Return all models of a server.

    `ask` sends the request with a query string, which is empty at first, and returns the answer. All pages are
    fetched, however the server marks that there are more. Raises what `parse_page` and `ask` raise, RefusedError
    for a list in which no entry has an id, and BrokenError for a list that is too large or cannot be fetched to its
    end: a part of it is never returned.
    """
    return _Reader(ask).listing()


class _Reader:
    """Reads a list page by page; `_models` are the models so far."""

    def __init__(self, ask: Callable[[str], ListAnswer]) -> None:
        self._ask = ask
        self._size = 0
        self._entries = 0
        self._parameter = ""  # the query parameter of the previous page
        self._models: dict[str, Model] = {}
        self._odd: list[str] = []

    def listing(self) -> Listing:
        """Return the complete list."""
        page = self._read("")
        for _ in range(_MAX_PAGES):
            self._entries += page.entries
            self._odd += page.odd
            self._models = {model.id: model for model in reversed(page.models)} | self._models
            queries = self._queries(page)
            if queries is None:
                return self._all()
            page = self._next_page(queries)
        what = f"the list of models has more than {_MAX_PAGES} parts"
        raise BrokenError(what, "check --base-url", retry=Retry.NEVER, retryable=False)

    def _all(self) -> Listing:
        if self._odd and not self._models:
            raise RefusedError(
                f"the server lists no model with an id: {one_line(self._odd[0], 80)}", "check --base-url"
            )
        return Listing(sorted(self._models.values()), len(self._odd), self._odd[0] if self._odd else "")

    def _queries(self, page: ListPage) -> list[str] | None:
        """Return the query strings that may fetch the page after `page`; None at the end of the list."""
        if page.queries is None and page.total <= self._entries:
            return None
        queries = [*(page.queries or ())]
        if page.total > self._entries:
            queries.append(urlencode({"offset": self._entries}))
        return sorted(dict.fromkeys(queries), key=lambda query: query.split("=")[0] != self._parameter)

    def _next_page(self, queries: list[str]) -> ListPage:
        """Return the next page. Raises BrokenError if no query returns a new model."""
        for query in queries:
            try:
                page = self._read(query)
            except RefusedError:  # the server does not know this parameter
                continue
            is_the_end = page.queries is None and page.total <= self._entries
            if is_the_end or any(model.id not in self._models for model in page.models):
                self._parameter = query.split("=")[0]
                return page
        raise BrokenError(
            "the list of models is cut off: the server says that there is more, but does not send it",
            "-m also takes a model that is not listed",
            retry=Retry.NEVER,
            retryable=False,
        )

    def _read(self, query: str) -> ListPage:
        body = bytearray()
        pieces, link = self._ask(query)
        for piece in pieces:
            body += piece
            if self._size + len(body) > _MAX_BYTES:
                what = f"the list of models is larger than {_MAX_BYTES} bytes"
                raise BrokenError(what, "check --base-url", retry=Retry.NEVER, retryable=False)
        self._size += len(body)
        return parse_page(bytes(body), link)


def with_query(base_url: str, query: str) -> str:
    """Return `base_url` with `query` added to its query, in place of parameters with the same names."""
    parts = urlsplit(base_url)
    names = {name for name, _ in parse_qsl(query, keep_blank_values=True)}
    kept = [pair for pair in parts.query.split("&") if unquote_plus(pair.split("=")[0]) not in names]
    return urlunsplit(parts._replace(query="&".join(filter(None, (*kept, query)))))


def parse_page(body: bytes, link: str) -> ListPage:
    """Return the list in the body of an answer; `link` is its Link header.

    The body is the API's list object, or a bare array from some compatible servers. Raises BrokenError for JSON that is
    cut or malformed, RefusedError for anything but a list, and the failure in an error object.
    """
    text = body.decode("utf-8-sig", "replace").strip()
    if text and text[0] not in "{[":
        what = "the server answered something that is not a list of models"
        raise RefusedError(what, "check --base-url", cause=Cause.NOT_FOUND)
    try:
        payload, end = LENIENT.raw_decode(text)
        if end < len(text):
            raise _not_a_list(text)
        models, odd = _entries(payload, text)
    except (ValueError, RecursionError) as exc:
        shown = one_line(text, 80) or "it is empty"
        raise BrokenError(f"the list of models is cut off, or is not JSON: {shown}", "try again later") from exc
    page = ListPage(models, odd)
    if isinstance(payload, dict):
        page = page._replace(queries=_queries_in(payload, page), total=_total_in(payload))
    if linked := _NEXT_LINK.search(link):
        page = page._replace(queries=[*_queries_of(linked[1], ()), *(page.queries or ())])
    return page


def _entries(payload: Any, text: str) -> tuple[list[Model], list[str]]:
    """Return the models in a list, and entries without an id. Raises RefusedError, or the failure in an error."""
    if api_error := _api_error(payload):
        raise answer_error(api_error, in_stream=False, has_text=False)
    if isinstance(payload, dict):
        # Servers without a model send null for an empty list.
        is_empty = payload.get("object") == "list" and payload.get("data", ...) is None
        payload = [] if is_empty else payload.get("data")
    # PHP writes a list from which an entry was removed as an object.
    if isinstance(payload, dict) and payload and all(map(_has_id, payload.values())):
        payload = list(payload.values())
    if not isinstance(payload, list):
        raise _not_a_list(text)
    models, odd = [], []
    for entry in payload:
        line = escaped(json.dumps(entry, ensure_ascii=False, allow_nan=False))
        name = entry.get("id") if isinstance(entry, dict) else None
        if isinstance(name, str) and name.strip():
            models.append(Model(name, line))
        else:
            odd.append(line)
    return models, odd


def _api_error(payload: Any) -> ApiError | None:
    """Return the ApiError in an answer, or None; Gemini sends an array."""
    if isinstance(payload, list) and not any(map(_has_id, payload)):
        payload = error_of_array(payload)
    return error_in(payload) if isinstance(payload, dict) else None


def _has_id(entry: Any) -> bool:
    return isinstance(entry, dict) and "id" in entry


def _queries_in(payload: dict[str, Any], page: ListPage) -> list[str] | None:
    """Return `ListPage.queries` for a page: None at the end of the list, [] if more follows but no query is known."""
    queries: list[str] = []
    has_more = False
    for members in _places(payload):
        for name, parameters in _TOKENS.items():
            value = members.get(name)
            value = value.get("href") if isinstance(value, dict) else value  # HAL
            if _is_set(value):
                has_more = True
                queries += _queries_of(value, parameters)
        number, pages = _int(members, "page", "current_page"), _int(members, "total_pages", "totalPages")
        if any(_is_set(members.get(name)) for name in _HAS_MORE) or 0 < number < pages:
            has_more = True
            queries += [urlencode({"page": number + 1})] if number else []
            offset = _int(members, "offset") + page.entries
            queries += [urlencode({"offset": offset})] if "offset" in members else []
            queries += _after(payload, page.models)
    return queries if has_more else None


def _after(payload: dict[str, Any], models: list[Model]) -> list[str]:
    """Return the query strings with the id of the last model so far."""
    last_id = payload.get("last_id")
    if not isinstance(last_id, str) or not last_id:
        last_id = models[-1].id if models else ""
    # OpenAI's list is an object "list", Anthropic's has no such member.
    cursors = _CURSORS if payload.get("object") == "list" else _CURSORS[::-1]
    return [urlencode({cursor: last_id}, errors="surrogatepass") for cursor in cursors] if last_id else []


def _queries_of(value: Any, parameters: tuple[str, ...]) -> list[str]:
    """Return the query strings for a token, or the query of a URL; [] without one, and for true."""
    if value is True or not isinstance(value, (str, int)):
        return []
    if isinstance(value, str) and ("://" in value or value.startswith(("/", "?"))):
        # Only the query is used: the key must not go to another host.
        query = parse_qsl(value.partition("#")[0].partition("?")[2], keep_blank_values=True)
        return [urlencode(query, errors="surrogatepass")] if query else []
    return [urlencode({parameter: value}, errors="surrogatepass") for parameter in parameters]


def _total_in(payload: dict[str, Any]) -> int:
    """Return the number of all models; 0 if the server does not say, or says whether there are more."""
    places = _places(payload)
    if any(name in members for members in places for name in _HAS_MORE):
        return 0
    return max(_int(members, *_TOTALS) for members in places)


def _places(payload: dict[str, Any]) -> list[dict[str, Any]]:
    return [payload, *(payload[name] for name in _PLACES if isinstance(payload.get(name), dict))]


def _is_set(value: Any) -> bool:
    return bool(value) and not (isinstance(value, str) and value.strip().lower() in _NOTHING)


def _int(members: dict[str, Any], *names: str) -> int:
    """Return the largest whole number under one of `names`, 0 without one."""
    values = (members.get(name) for name in names)
    return max((value for value in values if isinstance(value, int) and not isinstance(value, bool)), default=0)


def _not_a_list(text: str) -> RefusedError:
    what = f"the server answered JSON that is not a list of models: {one_line(text, 80)}"
    return RefusedError(what, "check --base-url", cause=Cause.NOT_FOUND)
