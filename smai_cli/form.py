"""The form that an answer must have, JSON or JSON after a schema: what the server is asked for, and the check."""

import re
from typing import Any

from smai_cli.errors import Again, BrokenError, UsageError
from smai_cli.files import read_text
from smai_cli.request import JSON
from smai_cli.text import one_line

_SPECIFICATION = re.compile(r"https?://json-schema\.org/")


class Form:
    """JSON, after the schema in the file `path` if there is one. Raises UsageError for what is no schema."""

    def __init__(self, path: str | None = None) -> None:
        self._validator = None if path is None else _validator(path)

    @property
    def response_format(self) -> dict[str, Any]:
        """The parameter of that name in the chat API."""
        if self._validator is None:
            return {"type": "json_object"}
        schema = self._validator.schema
        title = schema.get("title") if isinstance(schema, dict) else None
        name = re.sub(r"[^a-zA-Z0-9_-]+", "_", title if isinstance(title, str) else "")[:64]
        return {"type": "json_schema", "json_schema": {"name": name or "answer", "schema": schema}}

    def check(self, text: str) -> None:
        """Raise BrokenError for an answer that does not have the form."""
        try:
            answer = JSON.decode(text)
        except (ValueError, RecursionError) as exc:
            raise _mismatch(f"the answer is not JSON: {one_line(text, 80)}") from exc
        if self._validator is None:
            return
        from jsonschema.exceptions import best_match  # noqa: PLC0415  # beside the validator
        from referencing.exceptions import Unresolvable  # noqa: PLC0415

        try:
            error = best_match(self._validator.iter_errors(answer))
        except (Unresolvable, RecursionError) as exc:
            raise _mismatch(f"the answer cannot be checked against the schema: {one_line(str(exc), 200)}") from exc
        if error:
            raise _mismatch(f"the answer is not after the schema: {_located(error)}")


def _mismatch(what: str) -> BrokenError:
    """Return the failure of an answer that was whole, and billed: whether it is worth another one is not for smai."""
    return BrokenError(what, "ask again, or another model", again=Again.NEVER)


def _validator(path: str) -> Any:
    """Return the validator of the schema in a file. Raises UsageError."""
    try:
        from jsonschema import validators  # noqa: PLC0415  # it takes longer to load than all of smai
        from jsonschema.exceptions import SchemaError  # noqa: PLC0415
        from referencing.jsonschema import EMPTY_REGISTRY  # noqa: PLC0415
    except ImportError as exc:
        raise UsageError("--schema needs the package jsonschema", "pip install 'smai-cli[schema]'") from exc
    schema = _read(path)
    kind = validators.validator_for(schema, default=validators.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except (SchemaError, RecursionError) as exc:
        raise UsageError(f"{path} is no JSON Schema: {_located(exc)}", "check --schema") from exc
    for reference in _references(schema):
        if re.match(r"\w+://", reference) and not _SPECIFICATION.match(reference):
            raise UsageError(
                f"{path} refers to {one_line(reference, 100)}, which is not fetched", "put it into the file"
            )
    return kind(schema, registry=EMPTY_REGISTRY)


def _read(path: str) -> Any:
    text = read_text(path, path)
    try:
        schema = JSON.decode(text)
    except (ValueError, RecursionError) as exc:
        line = getattr(exc, "lineno", 1)
        raise UsageError(f"{path}, line {line}: not JSON: {getattr(exc, 'msg', exc)}", "check --schema") from exc
    if not isinstance(schema, dict):
        raise UsageError(f"{path} is no JSON Schema: no object", "check --schema")
    return schema


def _references(value: Any) -> list[str]:
    found = []
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            reference = value.get("$ref")
            found += [reference] if isinstance(reference, str) else []
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return found


def _located(error: Any) -> str:
    """Return what a validator says, and where."""
    message = one_line(getattr(error, "message", str(error)), 200)
    place = getattr(error, "json_path", "$")
    return message if place == "$" else f"{message} at {one_line(place, 100)}"
