"""Parse the head of a request, strictly by RFC 9112.

A head that two programs could read differently is refused: a folded line, a bare CR, a space before a colon.
"""

import re
from http import HTTPStatus
from typing import BinaryIO, NamedTuple

_FIELDS = 100
_LINE_BYTES = 16384
_FIELDS_BYTES = 65536
_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,40}) ([\x21-\x7e]+) HTTP/(\d)\.(\d)\r?\n")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*\r?\n")
_ABSOLUTE = re.compile(r"http://([^/?#]*)(.*)", re.IGNORECASE)


class Refusal(Exception):  # noqa: N818  # an answer, not a failure of smai
    """An error answer in smai's words: `code` is for programs, `kind` is the type of the error object, its `payload`.

    `headers` are sent with it.
    """

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        message: str,
        *,
        kind: str = "invalid_request_error",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers
        self.payload = {"error": {"message": message, "type": kind, "param": None, "code": code}}


class Head(NamedTuple):
    """A request line and header fields; names in lower case.

    `authority` is the host and port of a target in absolute form, None for the usual one; `query` is None without a
    question mark. `is_old` says HTTP/1.0.
    """

    method: str
    authority: str | None
    path: str
    query: str | None
    is_old: bool
    fields: tuple[tuple[str, str], ...]

    def all(self, name: str) -> list[str]:
        """Return the values of every field of this name, in lower case."""
        return [value for other, value in self.fields if other == name]

    def has(self, name: str, word: str) -> bool:
        """Return whether a field of this name lists `word`."""
        return word in [part.strip().lower() for value in self.all(name) for part in value.split(",")]

    @property
    def has_body(self) -> bool:
        """Whether bytes may follow the head."""
        return any(value != "0" for value in self.all("content-length")) or bool(self.all("transfer-encoding"))


def read_head(file: BinaryIO) -> Head | None:
    """Return the next head on a connection; None if the connection ends. Raises Refusal, and what reading raises."""
    line = file.readline(_LINE_BYTES)
    if line in (b"\r\n", b"\n"):  # RFC 9112, section 2.2
        line = file.readline(_LINE_BYTES)
    if not line:
        return None
    found = _REQUEST_LINE.fullmatch(line)
    if not found:
        if len(line) == _LINE_BYTES:
            raise Refusal(HTTPStatus.REQUEST_URI_TOO_LONG, "uri_too_long", "the request line is too long")
        raise _malformed("the request line is not one of HTTP/1.1")
    if found[3] != b"1":
        raise Refusal(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "http_version", "only HTTP/1.1 and HTTP/1.0 are spoken")
    fields = _read_fields(file)
    target = found[2].decode("ascii").partition("#")[0]
    absolute = _ABSOLUTE.fullmatch(target)
    authority, target = (absolute[1], absolute[2] or "/") if absolute else (None, target)
    path, sign, query = target.partition("?")
    return Head(found[1].decode("ascii"), authority, path, query if sign else None, found[4] == b"0", fields)


def _read_fields(file: BinaryIO) -> tuple[tuple[str, str], ...]:
    fields: list[tuple[str, str]] = []
    left = _FIELDS_BYTES
    while (line := file.readline(_LINE_BYTES)) not in (b"\r\n", b"\n"):
        left -= len(line)
        if len(fields) == _FIELDS or len(line) == _LINE_BYTES or left < 0:
            raise too_large_head()
        found = _FIELD.fullmatch(line)
        if not found:
            raise _malformed("a header field is malformed, or was cut")
        fields.append((found[1].decode("ascii").lower(), found[2].decode("latin-1")))
    return tuple(fields)


def too_large_head() -> Refusal:
    """Return the refusal of a head that is too long."""
    return Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", "the head of the request is too large")


def _malformed(message: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, "malformed_http", message)
