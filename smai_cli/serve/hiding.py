"""Remove the key from an answer, piece by piece, in case the server repeats it.

Each piece is passed on at once, except an end that may be the beginning of a secret: it waits for the next piece.
"""

import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, unquote_plus, urlsplit

from smai_cli.config.base_url import query_in
from smai_cli.config.endpoint import Endpoint

_MARK = b"..."
# A shorter key is one for a local server that accepts any key. It may be part of any word.
_SHORTEST = 8
# The name decides, never the value: an answer may well contain the value of `anthropic-beta`.
_SECRET_NAME = re.compile(r"(?i)authorization|cookie|token|secret|password|(^|[-_]|api)key$")
_SCHEME = re.compile(r"(?i)(bearer|basic|token)\s+")


def secrets_of(endpoint: Endpoint) -> list[str]:
    """Return what an answer must not show, the longest first.

    That is the key, and the values of those headers and URL parameters that are secret by their names.
    """
    named = [(header.name, header.value.reveal()) for header in endpoint.headers]
    named += query_in(urlsplit(endpoint.base_url).query)
    values = {value for name, value in named if _SECRET_NAME.search(name)}
    values |= {unquote_plus(value) for value in values} | {_SCHEME.sub("", value, count=1) for value in values}
    if endpoint.key:
        values.add(endpoint.key.reveal())
    return sorted((value for value in values if len(value) >= _SHORTEST), key=lambda value: (-len(value), value))


class Hider:
    """Removes `secrets` from an answer in pieces, wherever the pieces are cut."""

    def __init__(self, secrets: Iterable[str]) -> None:
        found = {form for secret in secrets for form in _forms(secret)}
        # The longest first: one may begin as another does.
        self._forms = sorted(found, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(re.escape, self._forms)) if found else rb"(?!)")
        self._held = b""

    def hidden_in(self, piece: bytes) -> bytes:
        """Take the next piece; return the part of the answer that can go on."""
        data = self._held + piece
        at, held_at = 0, self._begun_at(data, 0)
        parts = []
        for found in self._pattern.finditer(data):
            if found.start() >= held_at:  # perhaps the beginning of a longer one
                break
            parts += [data[at : found.start()], _MARK]
            at = found.end()
            if at > held_at:
                held_at = self._begun_at(data, at)
        self._held = data[held_at:]
        return b"".join([*parts, data[at:held_at]])

    def rest(self) -> bytes:
        """Return what was held back, at the end of the answer. Half of a secret or more is hidden."""
        held, self._held = self._pattern.sub(_MARK, self._held), b""
        if any(form.startswith(held) and 2 * len(held) >= len(form) for form in self._forms):
            return _MARK if held else b""
        return held

    @classmethod
    def hide(cls, text: str, secrets: Iterable[str]) -> str:
        """Return a text that is complete, such as the value of a header, without `secrets`."""
        hider = cls(secrets)
        return (hider.hidden_in(text.encode()) + hider.rest()).decode()

    def _begun_at(self, data: bytes, start: int) -> int:
        """Return the offset at which a secret may begin that `data` cuts; the length of `data` if there is none."""
        first = len(data)
        for form in self._forms:
            at = data.find(form[:1], max(start, len(data) - len(form) + 1))
            while 0 <= at < first:
                if form.startswith(data[at:]):
                    first = at
                at = data.find(form[:1], at + 1)
        return first


def _forms(secret: str) -> Iterator[bytes]:
    """Yield the forms of a secret in an answer: as it is, in JSON (also as PHP writes it), and in a URL."""
    in_json = json.dumps(secret)[1:-1]
    for form in (secret, in_json, in_json.replace("/", "\\/"), quote(secret, safe="")):
        yield form.encode()
