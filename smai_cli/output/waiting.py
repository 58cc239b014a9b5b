"""A status line on a terminal while smai waits for an answer: time, deltas and rate. It is erased at the end."""

import threading
import time
from collections import deque
from collections.abc import Callable

from smai_cli.answer.chunk import Chunk
from smai_cli.answer.outcome import Outcome
from smai_cli.output.descriptors import StatusLine, columns
from smai_cli.output.writers import Listener

# A short run shows nothing.
_APPEARS_AFTER_S = 1.0
_EVERY_S = 0.1
# The rate covers the last two seconds, so that it shows when a stream stalls.
_RATE_TICKS = 20


class Waiting:
    """The line, from `start` to `stop`; `awaited` is its text before the first delta."""

    def __init__(self, awaited: str, now: Callable[[], float] = time.monotonic) -> None:
        self.deltas = 0
        self.thoughts = 0
        self._awaited = awaited
        self._now = now
        self._begun_s = now()
        self._past: deque[tuple[float, int]] = deque(maxlen=_RATE_TICKS)
        self._line = StatusLine()
        self._over = threading.Event()

    def start(self) -> None:
        """Start a thread that shows the line after a second."""
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """Erase the line and stop."""
        self._over.set()
        self._line.close()

    def text(self) -> str:
        """Return the current text of the line."""
        now_s, total = self._now(), self.deltas + self.thoughts
        begin = f"smai: {int(now_s - self._begun_s)} s, "
        if not total or (self._past and self._past[-1][1] > total):  # nothing yet, or a new try
            self._past.clear()
        if not total:
            return f"{begin}waiting for {self._awaited}"
        self._past.append((now_s, total))
        then_s, before = self._past[0]
        rate = f", {(total - before) / (now_s - then_s):.0f}/s" if now_s > then_s else ""
        shown = self.deltas or self.thoughts
        return f"{begin}{'' if self.deltas else 'thinking, '}{shown} delta{'s' * (shown != 1)}{rate}"

    def _run(self) -> None:
        limit_s, shown = _APPEARS_AFTER_S, ("", 0)
        while not self._over.wait(limit_s):
            limit_s, width = _EVERY_S, columns()
            line = self.text()[: width - 1]  # a full line would wrap
            # Other output may have erased the line: then draw it again, even if unchanged.
            if (line, width) != shown or not self._line.is_drawn:
                self._line.draw(line)
                shown = (line, width)


class Count(Listener):
    """Counts the deltas for the line."""

    def __init__(self, waiting: Waiting) -> None:
        self._waiting = waiting

    def begin(self) -> None:
        """Discard the deltas of a broken answer."""
        self._waiting.deltas = self._waiting.thoughts = 0

    def chunk(self, chunk: Chunk) -> None:
        """Count the delta."""
        if chunk.text:
            self._waiting.deltas += 1
        elif chunk.reasoning:
            self._waiting.thoughts += 1

    def end(self, outcome: Outcome) -> None:
        """Discard the deltas of an answer that may be requested again."""
        if outcome.error:
            self.begin()
