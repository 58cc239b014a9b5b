"""Text at the borders: surrogate halves made whole, control characters made visible."""

import re

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
# What could forge, reorder or break the one line of a message: control characters, line and
# paragraph separators, and the bidirectional controls of Unicode (UAX #9).
_UNFIT_FOR_A_LINE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_HIGH_SURROGATES = ("\ud800", "\udbff")
_LINE_LIMIT = 500


def is_high_half(character: str) -> bool:
    """Return whether it is the first half of a surrogate pair."""
    return _HIGH_SURROGATES[0] <= character <= _HIGH_SURROGATES[1]


class Joiner:
    """Joins surrogate halves that a server split over two deltas.

    JSON may escape one character as two halves (RFC 8259, section 7), and servers that cut text by UTF-16
    units put them into different deltas. `whole` returns text that can be encoded: a high half at its end
    is `held` back for the next call, a half without its other half becomes U+FFFD.
    """

    def __init__(self) -> None:
        self.held = ""

    def whole(self, text: str) -> str:
        """Return `text`, with the held half before it, as code points only."""
        if not self.held and (text.isascii() or _is_whole(text)):
            return text
        text = self.held + text
        self.held = text[-1:] if text and is_high_half(text[-1]) else ""
        text = text.removesuffix(self.held) if self.held else text
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def rest(self) -> str:
        """Return what is still held when no more text comes: U+FFFD, or nothing."""
        rest, self.held = "\ufffd" if self.held else "", ""
        return rest


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def ascii_in(text: str) -> int:
    """Return how many characters of `text` are ASCII."""
    return len(text) if text.isascii() else sum(map(str.isascii, text))


def visible(text: str) -> str:
    r"""Return `text` with every control character but newline and tab shown: ESC as `^[`, U+009B as `\x9b`.

    A terminal obeys control characters, and the answer of a model is not to be obeyed. Character by
    character, so a sequence that is split over two deltas is caught as well.
    """
    return _CONTROL.sub(lambda match: match[0] if match[0] in "\n\t" else _shown(match[0]), text)


def on_a_line(text: str) -> str:
    """Return `text` with everything shown that could forge, reorder or break a line."""
    return _UNFIT_FOR_A_LINE.sub(lambda match: _shown(match[0]), text)


def escaped(line: str) -> str:
    """Return JSON on one line with the same escaped as JSON does: it means what it did."""
    return _UNFIT_FOR_A_LINE.sub(lambda match: f"\\u{ord(match[0]):04x}", line)


def one_line(text: str, limit: int = _LINE_LIMIT) -> str:
    """Return somebody else's words fit for one line on stderr: one line, nothing unseen, at most `limit` long."""
    text = on_a_line(" ".join(text.split()))
    return text if len(text) <= limit else text[:limit] + "..."


def _shown(character: str) -> str:
    code = ord(character)
    if code < 0x20 or code == 0x7F:  # noqa: PLR2004  # caret notation, as in cat -v
        return "^" + chr(code ^ 0x40)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"  # noqa: PLR2004
