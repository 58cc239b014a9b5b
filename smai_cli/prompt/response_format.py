"""The format that an answer must have, JSON or JSON that matches a schema: the request for it, and the check."""

import re
from typing import Any

from smai_cli.common.files import Read, read_named, shown_name, text_in
from smai_cli.common.text import one_line
from smai_cli.errors import BrokenError, Retry, UsageError, install_hint
from smai_cli.prompt.request import JSON, json_fault


class ResponseFormat:
    """JSON; with a `path`, JSON that matches the schema in that file, read by `read`.

    Raises UsageError if it is not a schema.
    """

    def __init__(self, path: str | None = None, read: Read = read_named) -> None:
        self._validator = None if path is None else _validator(path, read)

    @property
    def as_json(self) -> dict[str, Any]:
        """The parameter response_format of the chat API."""
        if self._validator is None:
            return {"type": "json_object"}
        schema = self._validator.schema
        title = schema.get("title") if isinstance(schema, dict) else None
        name = re.sub(r"[^a-zA-Z0-9_-]+", "_", title if isinstance(title, str) else "")[:64]
        return {"type": "json_schema", "json_schema": {"name": name or "answer", "schema": schema}}

    def fit(self, text: str) -> str:
        """Return the text to deliver: the answer, or the JSON in its only code fence.

        Raises BrokenError for an answer that does not have the format.
        """
        try:
            answer = JSON.decode(text)
        except (ValueError, RecursionError) as exc:
            fenced = _parse_fenced(text)
            if fenced is None:
                raise _mismatch(f"the answer is not JSON: {one_line(text, 80) or 'it is empty'}") from exc
            answer, text = fenced
        self._match(answer)
        return text

    def _match(self, answer: Any) -> None:
        """Raise BrokenError for JSON that does not match the schema."""
        if self._validator is None:
            return
        from jsonschema.exceptions import best_match  # loaded with the validator

        try:
            error = best_match(self._validator.iter_errors(answer))
        except Exception as exc:  # the validator can fail for large numbers or deep nesting
            raise _mismatch(f"the answer cannot be checked against the schema: {one_line(str(exc), 200)}") from exc
        if error:
            raise _mismatch(f"the answer does not match the schema: {_describe_error(error)}")


def _parse_fenced(text: str) -> tuple[Any, str] | None:
    """Return the object or array if the text is one code fence (CommonMark, section 4.5), decoded and as text.

    Models add a fence although they are asked for JSON only. None for any other text.
    """
    text = text.strip()
    opening = re.match(r"(`{3,}|~{3,})[ \t]*[\w+.-]*", text)
    if not opening or not text.endswith(opening[1]):
        return None
    inner = text[opening.end() : -len(opening[1])].strip()
    try:
        answer = JSON.decode(inner)
    except (ValueError, RecursionError):
        return None
    return (answer, inner) if isinstance(answer, dict | list) else None


def _mismatch(what: str) -> BrokenError:
    """Return the failure of a complete answer. It was billed, so smai does not retry by itself."""
    return BrokenError(what, "ask again, or another model", retry=Retry.NEVER)


def _validator(path: str, read: Read) -> Any:
    """Return the validator for the schema in a file, without references to other files. Raises UsageError."""
    try:
        import jsonschema_specifications  # comes with jsonschema
        from jsonschema import validators  # it takes longer to load than all of smai
        from referencing import Resource
        from referencing.jsonschema import DRAFT202012
    except ImportError as exc:
        raise UsageError("--schema needs the package jsonschema", install_hint("jsonschema")) from exc
    schema = _read(path, read)
    path = shown_name(path)
    try:
        kind = validators.validator_for(schema, default=validators.Draft202012Validator)
        kind.check_schema(schema)
        resource = Resource.from_contents(schema, default_specification=DRAFT202012)
        registry = jsonschema_specifications.REGISTRY.with_resource("", resource)
    except Exception as exc:  # the libraries raise various exceptions for an invalid schema
        raise UsageError(f"{path} is not a JSON Schema: {_describe_error(exc)}", "check --schema") from exc
    _resolve_all(registry.resolver_with_root(resource), resource, path)
    return kind(schema, registry=registry)


def _resolve_all(resolver: Any, resource: Any, path: str) -> None:
    """Look up every reference in a schema before the answer is paid for. Raises UsageError."""
    waiting = [(resolver, resource)]
    while waiting:
        resolver, resource = waiting.pop()
        schema = resource.contents if isinstance(resource.contents, dict) else {}
        for name in ("$ref", "$dynamicRef", "$recursiveRef"):
            if isinstance(reference := schema.get(name), str):
                try:
                    resolver.lookup(reference)
                except Exception as exc:  # the libraries raise various exceptions
                    raise UsageError(
                        f"{path} refers to {one_line(reference, 100)}, which is not in it", "put it into the file"
                    ) from exc
        waiting += [(resolver.in_subresource(inner), inner) for inner in resource.subresources()]


def _read(path: str, read: Read) -> Any:
    data, path = read(path, None), shown_name(path)
    text = text_in(data, path)
    try:
        schema = JSON.decode(text)
    except (ValueError, RecursionError) as exc:
        line = getattr(exc, "lineno", 1)
        raise UsageError(f"{path}, line {line}: not JSON: {json_fault(exc)}", "check --schema") from exc
    if not isinstance(schema, dict):
        raise UsageError(f"{path} is not a JSON Schema: not an object", "check --schema")
    return schema


def _describe_error(error: Any) -> str:
    """Return the message of a validator, and its place in the JSON."""
    message = one_line(getattr(error, "message", str(error)), 200)
    place = getattr(error, "json_path", "$")
    return message if place == "$" else f"{message} at {one_line(place, 100)}"
