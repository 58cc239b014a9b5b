"""When the deltas of an answer came -> one line that draws it."""

import time
from collections.abc import Callable, Mapping

from smai_cli.answer.chunk import Chunk
from smai_cli.output.writers import Listener

_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII = " .:-=+*#@"
_COERCED = ("C.UTF-8", "C.utf8", "UTF-8")
_SLICES = 120
_FIRST_SLICE_S = 0.01
_MOST_CELLS = 60
# Fewer deltas a cell would draw the rounding of their times, not their cadence.
_DELTAS_A_CELL = 4
# What is shorter than that draws nothing that could be read: an answer in one piece, or a tape.
_FEWEST_DELTAS = 8
_FEWEST_CELLS = 4


class Cadence:
    """How many deltas came in each slice of time, from the first delta on.

    There is a fixed number of slices, which become twice as long when the time outgrows them: memory stays flat.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.clear()

    def clear(self) -> None:
        """Forget all deltas."""
        self._counts = [0] * _SLICES
        self._slice_s = _FIRST_SLICE_S
        self._first_s: float | None = None
        self._last_s = 0.0
        self._pause_s = 0.0

    def note(self) -> None:
        """Note that a delta came."""
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
        """Return the line, for a terminal of so many columns; empty where there is too little to draw, or no room.

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
        """Return the counts in at most `most` cells of equal time."""
        used = next((place for place in range(_SLICES, 0, -1) if self._counts[place - 1]), 0)
        if most < _FEWEST_CELLS:
            return []
        most = min(most, max(2 * _FEWEST_CELLS, sum(self._counts) // _DELTAS_A_CELL))
        width = -(-used // most)
        return [sum(self._counts[place : place + width]) for place in range(0, used, width)]


class Pace(Listener):
    """The times of the deltas, noted in `cadence`."""

    def __init__(self, cadence: Cadence) -> None:
        self._cadence = cadence

    def begin(self) -> None:
        """Forget the deltas of a broken answer."""
        self._cadence.clear()

    def chunk(self, chunk: Chunk) -> None:
        """Note the delta."""
        if chunk.text:
            self._cadence.note()


def speaks_utf8(environ: Mapping[str, str]) -> bool:
    """Return whether the locale of the terminal is one of UTF-8 (POSIX: the first of the three that is set).

    Where it is C, Python itself has set LC_CTYPE (PEP 538), which says nothing of the terminal.
    """
    everything, characters, language = (environ.get(name, "") for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    if characters in _COERCED:
        characters = ""
    return "utf8" in (everything or characters or language).lower().replace("-", "")
