"""Where results go: to stdout as they come or in the order of the lines, or to the file in the making."""

import threading
from collections.abc import Callable

from smai_cli.batch.results.partial import PartialFile
from smai_cli.common.text import escaped
from smai_cli.output.descriptors import Output

# How far a line may be ahead of the first that is not answered yet, with -k: its result waits in memory.
_AHEAD = 1000
# So many results that wait for one line are worth a notice.
_MANY = 500


class ToStdout:
    """Each result at once, in one write."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def append(self, _: int, line: bytes, /) -> int:
        """Write the line."""
        self._output.show(line, escaped)
        return -1

    def sync(self) -> None:
        """Do nothing: whoever reads has it."""


class InOrder:
    """Each result once those of all lines before it have been written; `close` is for a run that ends early.

    `say` takes a notice, once, when many results wait for one line.
    """

    def __init__(self, output: Output, say: Callable[[str], None] = lambda _: None) -> None:
        self._output = output
        self._say = say
        self._has_said = False
        self._numbers: dict[int, int] = {}  # of the lines that were asked, by their places
        self._held: dict[int, bytes] = {}
        self._next = 0
        self._is_closed = False
        self._moved = threading.Condition()

    def may_take(self, place: int, number: int) -> bool:
        """Wait until a line is not too far ahead; return False where the run is over before."""
        with self._moved:
            self._numbers[place] = number
            self._moved.wait_for(lambda: self._is_closed or place < self._next + _AHEAD)
            return not self._is_closed

    def append(self, place: int, line: bytes, /) -> int:
        """Write the line and those that waited for it, or keep it."""
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
        return -1

    def sync(self) -> None:
        """Do nothing: whoever reads has it."""

    def close(self) -> None:
        """Write what is kept, in order, although something before it is missing."""
        with self._moved:
            self._is_closed = True
            self._moved.notify_all()
        for place in sorted(self._held):
            self._output.show(self._held.pop(place), escaped)


class ToFile:
    """Each result at the end of the file in the making."""

    def __init__(self, partial: PartialFile) -> None:
        self._partial = partial

    def append(self, _: int, line: bytes, /) -> int:
        """Put the line at the end; return its offset."""
        return self._partial.append(line)

    def sync(self) -> None:
        """Have what was added on the disk."""
        self._partial.sync()
