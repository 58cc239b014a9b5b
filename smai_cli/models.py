"""The answer to GET /models -> the models that it lists. Pure."""

import json
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from smai_cli.errors import Again, BrokenError, RefusedError
from smai_cli.problem import problem_of
from smai_cli.text import escaped, one_line

PATH = "/models"
_MAX_BYTES = 16 * 1024 * 1024


class Model(NamedTuple):
    """A model of a server: its id, and the server's object for it as JSON on one line."""

    id: str
    line: str


def read_list(pieces: Iterable[bytes]) -> list[Model]:
    """Read the body of an answer to its end; return the models in it, as parse_list does.

    Raises BrokenError for one that is too large, and whatever `pieces` raises.
    """
    body = bytearray()
    for piece in pieces:
        body += piece
        if len(body) > _MAX_BYTES:
            what = f"the list of models is larger than {_MAX_BYTES} bytes"
            raise BrokenError(what, "check --base-url", again=Again.NEVER, retryable=False)
    return parse_list(bytes(body))


def parse_list(body: bytes) -> list[Model]:
    """Return the models in the body of an answer, sorted by the code points of their ids, each id once.

    The body is the API's list object, or a bare array as some compatible servers send it. Raises BrokenError for
    JSON that is cut or malformed, RefusedError for an error object and for what is no list of models.
    """
    text = body.decode("utf-8-sig", "replace").strip()
    if text and text[0] not in "{[":
        raise RefusedError("the server answered something that is no list of models", "check --base-url")
    try:
        payload, end = _JSON.raw_decode(text)
        if end < len(text):
            raise _no_list(text)
        models = [_model(entry) for entry in _entries(payload, text)]
    except (ValueError, RecursionError) as exc:
        shown = one_line(text, 80) or "nothing came"
        raise BrokenError(f"the list of models is cut, or is not JSON: {shown}", "try again later") from exc
    return sorted({model.id: model for model in reversed(models)}.values())


def _entries(payload: Any, text: str) -> list[Any]:
    """Return the objects of a list. Raises RefusedError."""
    if isinstance(payload, dict):
        if error := payload.get("error"):
            raise RefusedError(f"the server answered with an error: {problem_of(error)}", "check --base-url")
        # Servers without a model send null for an empty list.
        is_empty = payload.get("object") == "list" and payload.get("data", ...) is None
        payload = [] if is_empty else payload.get("data")
    if not isinstance(payload, list):
        raise _no_list(text)
    return payload


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


def _finite(number: str) -> float | None:
    value = float(number)
    return value if math.isfinite(value) else None


# NaN and Infinity become null: JSON has neither (RFC 8259, section 6).
_JSON = json.JSONDecoder(parse_constant=lambda _: None, parse_float=_finite)
