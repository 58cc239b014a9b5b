"""The API to use for a line, and the digests of the line and of its request.

Digests are those of canonical JSON: independent of the order of members and the spelling of numbers.
"""

import contextlib
import functools
import hashlib
import json
import json.encoder
import secrets
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from smai_cli.apis import choose_api
from smai_cli.batch.input.lines import Line
from smai_cli.errors import UsageError
from smai_cli.prompt.request import Message, Request

# A system text and a prompt.
_MOST = 2
_escaped = json.encoder.encode_basestring  # as json.dumps does without ensure_ascii


class Encoding:
    """Makes requests from lines; `more` are additional patterns of models that use the Responses API.

    With `extract`, results have the first code block of an answer, so their digests differ from those of other results.

    Most lines of an input differ only in their prompt: the rest of the body is encoded once.
    """

    def __init__(self, more: Iterable[str] = (), *, extract: bool = False) -> None:
        self._salt = b"extract " if extract else b""
        self._dialect_for = functools.lru_cache(64)(lambda api, model: choose_api(api, model, more).load())
        self._frame: _Frame | None = None

    def dialect(self, line: Line) -> ModuleType:
        """Return the API to use for a line."""
        dialect: ModuleType = self._dialect_for(line.api, line.request.model)
        return dialect

    def digest(self, line: Line) -> bytes:
        """Return the SHA-256 of the canonical body of its request without streaming.

        Raises UsageError if the request cannot be encoded.
        """
        request = line.request
        frame = self._frame
        if frame is None or not frame.fits(line):
            frame = self._frame = self._make_frame(line)
        prompt = request.messages[-1].content if request.messages else None
        if frame.before is None or not isinstance(prompt, str):
            return hashlib.sha256(self._salt + self._canonical(request, line)).digest()
        try:
            escaped = _escaped(prompt).encode()
        except UnicodeEncodeError:  # half a surrogate pair: _canonical reports it
            escaped = self._canonical(request, line)
        return frame.digest(escaped)

    def digest_of_prompt(self, line: Line) -> Callable[[bytes], bytes] | None:
        """Return a function from a prompt, as JSON, to the digest of a line that differs from `line` only in it.

        None if there is none. Raises UsageError.
        """
        frame = self._make_frame(line)
        return frame.digest if frame.before else None

    def _make_frame(self, line: Line) -> "_Frame":
        request = line.request
        if not request.messages or len(request.messages) > _MOST or not isinstance(request.messages[-1].content, str):
            return _Frame(line, None, b"")
        mark = secrets.token_hex()
        marked = (*request.messages[:-1], request.messages[-1]._replace(content=mark))
        body = self._canonical(request._replace(messages=marked), line)
        before, found, after = body.partition(_escaped(mark).encode())
        return _Frame(line, hashlib.sha256(self._salt + before) if found else None, after)

    def _canonical(self, request: Request, line: Line) -> bytes:
        """Return the body of a request in canonical form. Raises UsageError."""
        body: bytes = self.dialect(line).encode_request(request._replace(stream=False))
        try:
            return _canonical_json(body)
        except RecursionError as exc:
            raise UsageError("the request is nested too deep", "check the JSON that was given") from exc


class _Frame:
    """The rest of the body of a request: `before` the prompt, as an unfinished digest, and `after` it."""

    def __init__(self, line: Line, before: "hashlib._Hash | None", after: bytes) -> None:
        self.before = before
        self.after = after
        self._line = line

    def digest(self, prompt: bytes) -> bytes:
        """Return the SHA-256 of the body with `prompt` (JSON) inserted."""
        assert self.before  # noqa: S101  # the caller has checked
        digest = self.before.copy()
        digest.update(prompt)
        digest.update(self.after)
        return digest.digest()

    def fits(self, line: Line) -> bool:
        """Return whether `line` differs only in its prompt from the line of this frame."""
        one, other = self._line.request, line.request
        return (
            # Lines without settings of their own share the objects of the options.
            one.options is other.options
            and one.extra_body is other.extra_body
            and one.model == other.model
            and self._line.api == line.api
            and len(one.messages) == len(other.messages)
            and one.messages[:-1] == other.messages[:-1]
            and all(map(_is_alike, one.messages[-1:], other.messages[-1:]))
        )


def _is_alike(one: Message, other: Message) -> bool:
    return one.role == other.role and one.fields == other.fields


def digest_of_line(data: bytes, *, is_text: bool) -> bytes:
    """Return the SHA-256 of a line of the input, independent of the options.

    With `is_text`, or if the line is not JSON, it is that of the bytes without the line end.
    """
    content = data.removesuffix(b"\n").removesuffix(b"\r")
    if not is_text:
        with contextlib.suppress(ValueError, RecursionError):
            content = _canonical_json(content.decode("utf-8-sig"))
    return hashlib.sha256(content).digest()


def _canonical_json(data: bytes | str) -> bytes:
    """Return JSON with its members sorted, without white space, and with 1 for 1.0 and 1e0.

    Raises ValueError if `data` is not JSON, RecursionError if it is nested too deeply.
    """
    value: Any = json.loads(data, parse_float=_number)
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode(errors="surrogatepass")


def _number(text: str) -> int | float:
    value = float(text)
    return int(value) if value.is_integer() else value
