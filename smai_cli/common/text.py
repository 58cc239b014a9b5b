"""Clean text: join surrogate halves, and escape control characters."""

import re

# Characters that control a terminal: C0, DEL and C1 (ECMA-48), and the bidirectional controls of Unicode (UAX #9, table
# 4), which change the order of a displayed line. A byte that is not UTF-8 could be a C1 control too; Python represents
# it as a surrogate (PEP 383).
_OBEYED = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\udc80-\udcff"
# Patterns that a run without a terminal does not need: `re` compiles them at the first use, and keeps them.
_IN_TEXT = f"(?![\n\t])[{_OBEYED}]"
_IN_A_LINE = f"[{_OBEYED}\u2028\u2029]"
_IN_A_COMMAND = f"(?:(?!\n)[{_OBEYED}])+"
_BYTE_SURROGATES = 0xDC00
_LINE_LIMIT = 500


class Joiner:
    """Joins surrogate halves that a server split over two deltas.

    JSON may escape one character as two halves (RFC 8259, section 7), and servers that split text by UTF-16 units put
    them into different deltas. `whole` returns text that can be encoded: a high half at its end is `held` until the
    next call, and a half without its counterpart becomes U+FFFD.
    """

    def __init__(self) -> None:
        self.held = ""

    def whole(self, text: str) -> str:
        """Return the held half plus `text`, as complete code points."""
        if not self.held and (text.isascii() or _is_whole(text)):
            return text
        text = self.held + text
        self.held = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        text = text.removesuffix(self.held) if self.held else text
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def rest(self) -> str:
        """Return what is held at the end of the text: U+FFFD or ""."""
        rest, self.held = "\ufffd" if self.held else "", ""
        return rest


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def ascii_in(text: str) -> int:
    """Return the number of ASCII characters in `text`."""
    return len(text) if text.isascii() else sum(map(str.isascii, text))


def visible(text: str) -> str:
    r"""Return `text` with every control character but newline and tab escaped: ESC as `^[`, U+009B as `\x9b`.

    The answer of a model must not control the terminal. Each character is replaced separately, so a sequence that is
    split over two deltas is escaped too.
    """
    return re.sub(_IN_TEXT, lambda match: _caret(match[0]), text)


def on_a_line(text: str) -> str:
    """Return `text` on one line: the same characters are escaped, and all line separators."""
    return re.sub(_IN_A_LINE, lambda match: _caret(match[0]), text)


def escaped(text: str) -> str:
    """Return a JSON text with the same characters as JSON escapes (RFC 8259, section 7). The value stays the same.

    Newlines between members are kept.
    """
    return re.sub(_IN_A_LINE, lambda match: match[0] if match[0] == "\n" else f"\\u{ord(match[0]):04x}", text)


def escaped_in_shell(command: str) -> str:
    r"""Return an equivalent shell command with the same characters written as `$'\302\233'`.

    They must be inside single quotes, as shlex.quote makes them. `$'...'` is POSIX since 2024, and bash, zsh and ksh
    have long supported it; octal bytes are independent of the locale. Newlines are kept.
    """
    return re.sub(_IN_A_COMMAND, lambda match: f"'$'{_octal(match[0])}''", command)


def one_line(text: str, limit: int = _LINE_LIMIT) -> str:
    """Return foreign text as one line for a message, cut after `limit` characters with `...`."""
    text = on_a_line(" ".join(text.split()))
    return text if len(text) <= limit else text[:limit] + "..."


def _caret(character: str) -> str:
    code = ord(character)
    if code < 0x20 or code == 0x7F:  # noqa: PLR2004  # caret notation, as in cat -v
        return "^" + chr(code ^ 0x40)
    if code >= _BYTE_SURROGATES:
        code -= _BYTE_SURROGATES
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"  # noqa: PLR2004


def _octal(text: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in text.encode(errors="surrogateescape"))
