"""Canonical JSON for digests: independent of the order of members and the spelling of numbers."""

import contextlib
import hashlib
import json
from typing import Any


def canonical_json(data: bytes | str) -> bytes:
    """Return JSON with its members sorted, without white space, and with 1 for 1.0 and 1e0.

    Raises ValueError if `data` is not JSON, RecursionError if it is nested too deeply.
    """
    value: Any = json.loads(data, parse_float=_number)
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode(errors="surrogatepass")


def digest_of_line(data: bytes, *, is_text: bool) -> bytes:
    """Return the SHA-256 of a line of the input, independent of the options.

    With `is_text`, or if the line is not JSON, it is that of the bytes without the line end.
    """
    content = data.removesuffix(b"\n").removesuffix(b"\r")
    if not is_text:
        with contextlib.suppress(ValueError, RecursionError):
            content = canonical_json(content.decode("utf-8-sig"))
    return hashlib.sha256(content).digest()


def _number(text: str) -> int | float:
    value = float(text)
    return int(value) if value.is_integer() else value
