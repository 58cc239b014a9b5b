"""Headers for a server or its gateway: typed, in a file or configured -> names, and values that are never shown."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from smai_cli.common.clocks import Deadline
from smai_cli.common.files import text_in, too_large
from smai_cli.common.frozen import Frozen
from smai_cli.config.keys import Secret, read_secret_file
from smai_cli.errors import UsageError

_LIMIT_BYTES = 1024 * 1024
# RFC 9110, section 5.6.2.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Headers that smai sets itself: for the body, the answer, the connection, and the key.
_OWN = (
    "accept",
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
)
_HINTS = dict.fromkeys(_OWN, "leave it out") | {
    "authorization": "give the key with --key-file, SMAI_API_KEY or smai login",
    "proxy-authorization": "put user and password into HTTPS_PROXY or HTTP_PROXY",
}
# A prefix of a secret that is not secret itself: hiding it would spoil many messages.
_BEFORE_SECRET = re.compile(r"(?i)(bearer|basic|token|key|api-?key)\s+|https?://")
_SIGNS = re.compile(r"""[\s,;="'{}\[\]]+""")
_LONG_PART = 8


class Header(Frozen):
    """A header to send; `source` is its origin in messages, `file` the file of `-H @FILE` that contains it."""

    name: str
    value: Secret
    source: str
    file: str | None = None

    @property
    def secrets(self) -> list[Secret]:
        """What no message may show: the value, and each long part of it, which a server may repeat separately."""
        whole = self.value.reveal()
        parts = (part for part in _SIGNS.split(whole) if len(part) >= _LONG_PART and not part.isalpha())
        bare = (
            _BEFORE_SECRET.sub("", text, count=1) if _BEFORE_SECRET.match(text) else text for text in (whole, *parts)
        )
        return [Secret(text) for text in sorted({*bare} - {""}, key=len, reverse=True)]


def typed_headers(options: Sequence[str], deadline: Deadline) -> tuple[Header, ...]:
    """Return the headers of the options `-H`, each `Name: value`, or `@FILE` for a file of such lines.

    Raises UsageError, which does not show values, or ClockError for a pipe that does not end before the deadline.
    """
    headers: list[Header] = []
    for number, text in enumerate(options, 1):
        if text.startswith("@"):
            headers += _in_file(text[1:], deadline)
        else:
            headers.append(_header_in(text, "-H" if len(options) == 1 else f"-H number {number}"))
    return _check_unique(headers)


def configured_headers(table: Mapping[str, Any], source: str) -> tuple[Header, ...]:
    """Return the headers in a table of the configuration; `source` is the file and the table. Raises UsageError."""
    return _check_unique([_make_header(name, value, source) for name, value in table.items()])


def merge_headers(typed: tuple[Header, ...], configured: Iterable[Header]) -> tuple[Header, ...]:
    """Return the typed headers, and the configured ones with other names (compared as in RFC 9110, section 5.1)."""
    names = {header.name.lower() for header in typed}
    return (*typed, *(header for header in configured if header.name.lower() not in names))


def check_name(name: str, source: str) -> None:
    """Raise UsageError for an invalid header name, or a header that smai sets itself."""
    if not _TOKEN.fullmatch(name):  # not shown, because it may be a secret in the wrong place
        raise UsageError(f"{source}: the text before the colon is not a header name", "write 'Name: value'")
    if hint := _HINTS.get(name.lower()):
        raise UsageError(f"{source}: smai sets the header {name} itself", hint)


def _in_file(path: str, deadline: Deadline) -> list[Header]:
    if path in ("", "-"):
        raise UsageError(f"-H @{path} needs a file name", "put the name after the @; @./- is a file called -")
    name = f"the header file {path}"
    data = read_secret_file(path, name, _LIMIT_BYTES, deadline, "check -H")
    if len(data) > _LIMIT_BYTES:
        raise too_large(name, _LIMIT_BYTES)
    lines = [line.removesuffix("\r") for line in text_in(data, name).split("\n")]
    headers = [_header_in(line, f"{path}:{number}", path) for number, line in enumerate(lines, 1) if line]
    if not headers:
        raise UsageError(f"{name} is empty", "put lines into it, each 'Name: value'")
    return headers


def _header_in(text: str, source: str, file: str | None = None) -> Header:
    name, colon, value = text.partition(":")
    if not colon:
        raise UsageError(f"{source}: a header without a colon", "write 'Name: value'; @FILE reads such lines")
    return _make_header(name, value, source, file)


def _make_header(name: str, value: str, source: str, file: str | None = None) -> Header:
    check_name(name, source)
    value = value.strip(" \t")
    if not value:
        raise UsageError(
            f"{source}: the header {name} has no value", "write 'Name: value', in quotes; is a variable empty?"
        )
    if not value.replace("\t", " ").isprintable():
        raise UsageError(
            f"{source}: the value of the header {name} contains a line end or another invisible character",
            "remove it",
        )
    return Header(name=name, value=Secret(value), source=source, file=file)


def _check_unique(headers: list[Header]) -> tuple[Header, ...]:
    seen: set[str] = set()
    for header in headers:
        if header.name.lower() in seen:
            raise UsageError(f"{header.source}: the header {header.name} is given twice", "give it once")
        seen.add(header.name.lower())
    return tuple(headers)
