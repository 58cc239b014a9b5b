"""An answer -> the same answer without the key, should the server repeat it, piece by piece.

A piece goes on at once. Only an end of it that may be the beginning of a secret waits for the next one.
"""

import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote

from smai_cli.config.endpoint import Endpoint

_MARK = b"..."
# A shorter key is that of a local server, which takes any: it may be a part of every word.
_SHORTEST_KEY = 8
# What else goes to the server, in a header or in its URL: a title and an address are no secrets, a token looks so.
_TOKEN = re.compile(r"(?=\S*\d)\S{16,}")


def secrets_of(endpoint: Endpoint) -> list[str]:
    """Return what an answer must not show: the key, and the other values sent that look like one."""
    key = endpoint.key.reveal() if endpoint.key else ""
    others = (secret.reveal() for secret in endpoint.secrets)
    return [*([key] if len(key) >= _SHORTEST_KEY else []), *(value for value in others if _TOKEN.fullmatch(value))]


class Hider:
    """Takes an answer in pieces and returns it without `secrets`, wherever it was split."""

    def __init__(self, secrets: Iterable[str]) -> None:
        found = {form for secret in secrets for form in _forms(secret)}
        # The longest first: one may begin as another does.
        self._forms = sorted(found, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(re.escape, self._forms)) if found else rb"(?!)")
        self._held = b""

    def hidden_in(self, piece: bytes) -> bytes:
        """Return what of the answer can go on, `piece` being the next of it."""
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
        """Return what was held back, now that no more comes; half of a secret and more is not shown."""
        held, self._held = self._pattern.sub(_MARK, self._held), b""
        if any(form.startswith(held) and 2 * len(held) >= len(form) for form in self._forms):
            return _MARK if held else b""
        return held

    def _begun_at(self, data: bytes, start: int) -> int:
        """Return where the end of `data` begins that may be the beginning of a secret; its length where none is."""
        first = len(data)
        for form in self._forms:
            at = data.find(form[:1], max(start, len(data) - len(form) + 1))
            while 0 <= at < first:
                if form.startswith(data[at:]):
                    first = at
                at = data.find(form[:1], at + 1)
        return first


def _forms(secret: str) -> Iterator[bytes]:
    """Yield a secret as it may stand in an answer: as it is, in JSON (also as PHP writes it), and in a URL."""
    in_json = json.dumps(secret)[1:-1]
    for form in (secret, in_json, in_json.replace("/", "\\/"), quote(secret, safe="")):
        yield form.encode()
