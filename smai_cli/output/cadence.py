"""Draw the arrival times of the deltas of an answer as one line."""

import time
from collections.abc import Callable, Mapping

from smai_cli.answer.chunk import Chunk
from smai_cli.stream.listener import Listener

_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII = " .:-=+*#@"
_COERCED = ("C.UTF-8", "C.utf8", "UTF-8")
_SLICES = 120
_FIRST_SLICE_S = 0.01
_MOST_CELLS = 60
# With fewer deltas per cell, the line would show rounding errors, not the cadence.
_DELTAS_A_CELL = 4
# A shorter answer gives no readable line: an answer in one piece, or a tape.
_FEWEST_DELTAS = 8
_FEWEST_CELLS = 4


class Cadence(Listener):
    """Counts the deltas in each slice of time, from the first delta on.

    The number of slices is fixed, and so is the memory: the slices double in length when needed.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.begin()

    def begin(self) -> None:
        """Discard the deltas of a broken answer."""
        self._counts = [0] * _SLICES
        self._slice_s = _FIRST_SLICE_S
        self._first_s: float | None = None
        self._last_s = 0.0
        self._pause_s = 0.0

    def chunk(self, chunk: Chunk) -> None:
        """Count a delta."""
        if not chunk.text:
            return
        at_s = self._now()
        if self._first_s is None:
            self._first_s = self._last_s = at_s
        self._pause_s = max(self._pause_s, at_s - self._last_s)
        self._last_s = at_s
        while (place := int((at_s - self._first_s) / self._slice_s)) >= _SLICES:
            pairs = zip(self._counts[::2], self._counts[1::2], strict=True)
            self._counts = [one + other for one, other in pairs] + [0] * (_SLICES // 2)
            self._slice_s *= 2
        self._counts[place] += 1

    def line(self, started_s: float, columns: int, *, is_utf8: bool) -> str:
        """Return the line for a terminal with `columns` columns; empty if there is too little to draw, or no space.

        Its times count from `started_s`.
        """
        if self._first_s is None or sum(self._counts) < _FEWEST_DELTAS:
            return ""
        span = f" {self._first_s - started_s:.1f}-{self._last_s - started_s:.1f} s"
        for text in (f"{span}, longest pause {self._pause_s:.1f} s", span):
            cells = self._cells(min(_MOST_CELLS, columns - len("smai: ") - len(text) - 1))
            if len(cells) >= _FEWEST_CELLS:
                most, marks = max(cells), _BLOCKS if is_utf8 else _ASCII
                return "".join(marks[-(-count * 8 // most)] for count in cells) + text
        return ""

    def _cells(self, most: int) -> list[int]:
        """Return the counts in at most `most` cells of equal duration."""
        used = next((place for place in range(_SLICES, 0, -1) if self._counts[place - 1]), 0)
        if most < _FEWEST_CELLS:
            return []
        most = min(most, max(2 * _FEWEST_CELLS, sum(self._counts) // _DELTAS_A_CELL))
        width = -(-used // most)
        return [sum(self._counts[place : place + width]) for place in range(0, used, width)]


def speaks_utf8(environ: Mapping[str, str]) -> bool:
    """Return whether the locale of the terminal is UTF-8 (POSIX: the first of the three variables that is set).

    In the C locale, Python itself sets LC_CTYPE (PEP 538), which says nothing about the terminal.
    """
    everything, characters, language = (environ.get(name, "") for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    if characters in _COERCED:
        characters = ""
    return "utf8" in (everything or characters or language).lower().replace("-", "")
