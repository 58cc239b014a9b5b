"""An answer that is read a while apart, where many come at once: nobody watches them grow, and each read costs.

With 128 streams of 50 deltas a second, a read for each delta keeps a processor busy, and all of them become late.
"""

import time
from collections.abc import Callable, Iterator

from smai_cli.common.clocks import IdleClock
from smai_cli.stream.pump import Source

# So many at once cost nothing that anybody notices.
_FEW = 16
_EACH_S = 0.0004
_MOST_S = 0.05
# A larger piece is no single delta: the rest is on its way.
_SMALL_BYTES = 4096


class Spaced:
    """A Source that waits before it reads on behind a small piece; `running` tells how many answers come right now.

    It never waits behind the last piece that is wanted, so that an answer ends when its end is there.
    """

    def __init__(
        self, source: Source, running: Callable[[], int], sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self._source = source
        self._running = running
        self._sleep = sleep

    @property
    def clock(self) -> IdleClock:
        """The clock of the source."""
        return self._source.clock

    @property
    def is_framed(self) -> bool:
        """As the source has it."""
        return self._source.is_framed

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces of the source, later, and so larger ones."""
        for piece in self._source:
            yield piece
            running = self._running()
            if running > _FEW and len(piece) < _SMALL_BYTES:
                self._sleep(min(_MOST_S, running * _EACH_S))

    def close(self) -> None:
        """Close the source."""
        self._source.close()
