"""TOML -> the line on which each key stands, which the parser of Python does not tell."""

import re
from collections.abc import Iterator

_TOKEN = re.compile(
    r'''
      (?P<text> """ (?: \\. | [^\\] )*? "{3,5} | \'\'\' .*? \'{3,5} )
    | (?P<name> " (?: \\. | [^"\\\n] )* " | ' [^'\n]* ' | [^\s"'\#\[\]{}=.,]+ )
    | (?P<comment> \# [^\n]* )
    | (?P<sign> [\[\]{}=.,\n] )
    | (?P<space> [^\S\n]+ | . )
    ''',
    re.DOTALL | re.VERBOSE,
)


# No name that anybody asks for has more parts.
_MOST_PARTS = 4


class Lines:
    """The lines of the keys in `text`, which is TOML that was parsed before."""

    def __init__(self, text: str) -> None:
        self._lines: dict[tuple[str, ...], int] = {}
        for names, line in _statements(text):
            for count in range(1, min(len(names), _MOST_PARTS) + 1):
                self._lines.setdefault(names[:count], line)

    def line_of(self, names: tuple[str, ...]) -> int:
        """Return the line on which a key stands, or the table, or the inline table, that has it in it."""
        known = (self._lines.get(names[:count]) for count in range(len(names), 0, -1))
        return next(filter(None, known), 1)


def _statements(text: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield the full name and the line of each key with a value, and of each header of a table."""
    table: tuple[str, ...] = ()
    names: list[str] = []
    line, depth, begun, is_value, is_header = 1, 0, 1, False, False
    for token in _TOKEN.finditer(f"{text}\n"):
        kind, found = token.lastgroup, token[0]
        if found == "\n" and not depth:
            if names:
                full = tuple(names) if is_header else (*table, *names)
                table = full if is_header else table
                yield full, begun
            names, is_value, is_header = [], False, False
        elif is_value:
            depth += (found in "[{") - (found in "]}") if kind == "sign" else 0
        elif found == "[" and not names:
            is_header, begun = True, line
        elif found == "=":
            is_value = True
        elif kind == "name":
            begun = begun if names or is_header else line
            names.append(_unquoted(found))
        line += found.count("\n")


def _unquoted(name: str) -> str:
    if name[0] == "'":
        return name[1:-1]
    if name[0] != '"':
        return name
    import tomllib  # noqa: PLC0415  # it was loaded to parse the file

    return str(tomllib.loads(f"name = {name}")["name"])
