"""A status line on a terminal while smai waits for an answer: time, deltas and rate. It is erased at the end."""

import time
from collections import deque
from collections.abc import Callable

from smai_cli.answer.chunk import Chunk
from smai_cli.answer.outcome import Outcome
from smai_cli.output.descriptors import StatusLine
from smai_cli.stream.listener import Listener

_EVERY_S = 0.1
# The rate covers the last two seconds, so that it shows when a stream stalls.
_RATE_TICKS = 20


class WaitingLine(StatusLine, Listener):
    """The line; `awaited` is its text before the first delta. It counts the deltas as they arrive."""

    def __init__(self, awaited: str, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__(_EVERY_S)
        self.deltas = 0
        self.thoughts = 0
        self._awaited = awaited
        self._now = now
        self._begun_s = now()
        self._past: deque[tuple[float, int]] = deque(maxlen=_RATE_TICKS)

    def text(self, width: int) -> str:  # noqa: ARG002  # it is short
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

    def begin(self) -> None:
        """Discard the deltas of a broken answer."""
        self.deltas = self.thoughts = 0

    def chunk(self, chunk: Chunk) -> None:
        """Count the delta."""
        if chunk.text:
            self.deltas += 1
        elif chunk.reasoning:
            self.thoughts += 1

    def end(self, outcome: Outcome) -> None:
        """Discard the deltas of an answer that may be requested again."""
        if outcome.error:
            self.begin()
