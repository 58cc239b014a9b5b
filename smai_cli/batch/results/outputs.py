"""Results on stdout in the order of the lines."""

import threading
from collections.abc import Callable

from smai_cli.common.text import escaped
from smai_cli.output.descriptors import Output

# With -k: how far a line may be ahead of the first unanswered one. Its result waits in memory.
_AHEAD = 1000
# Print a notice when this many results wait for one line.
_MANY = 500


class InOrder:
    """Writes each result after those of all earlier lines. Call `close` if a run ends early.

    `say` prints one notice when many results wait for one line.
    """

    def __init__(self, output: Output, say: Callable[[str], None] = lambda _: None) -> None:
        self._output = output
        self._say = say
        self._has_said = False
        self._numbers: dict[int, int] = {}  # place -> number, for the lines that were sent
        self._held: dict[int, bytes] = {}
        self._next = 0
        self._is_closed = False
        self._moved = threading.Condition()

    def may_take(self, place: int, number: int) -> bool:
        """Wait until a line is not too far ahead; return False if the run ends first."""
        with self._moved:
            self._numbers[place] = number
            self._moved.wait_for(lambda: self._is_closed or place < self._next + _AHEAD)
            return not self._is_closed

    def append(self, place: int, line: bytes) -> None:
        """Write the line and those that waited for it, or hold it back."""
        self._held[place] = line
        with self._moved:
            while (ready := self._held.pop(self._next, None)) is not None:
                self._output.show(ready, escaped)
                self._numbers.pop(self._next, None)
                self._next += 1
            self._moved.notify_all()
            is_due = len(self._held) >= _MANY and not self._has_said
            self._has_said = self._has_said or is_due
            number = self._numbers.get(self._next)
        if is_due:
            self._say(f"{_MANY} results wait for line {number}; without -k each is printed at once")

    def close(self) -> None:
        """Write the held results in order, although earlier ones are missing."""
        with self._moved:
            self._is_closed = True
            self._moved.notify_all()
        for place in sorted(self._held):
            self._output.show(self._held.pop(place), escaped)
