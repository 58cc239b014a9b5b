"""Read an answer less often while many arrive at once: nothing is displayed, and each read costs time.

With 128 streams of 50 deltas a second, one read per delta saturates a processor and delays all of them.
"""

import time
from collections.abc import Callable, Iterator

from smai_cli.common.clocks import IdleClock
from smai_cli.stream.pump import Source

# Up to this many at once, the cost is negligible.
_FEW = 16
_EACH_S = 0.0004
_MOST_S = 0.05
# A larger piece holds several deltas: more data is already waiting.
_SMALL_BYTES = 4096


class SpacedSource:
    """A Source that waits after a small piece before it reads on. `running` returns the number of running requests.

    It never waits after the last piece that is needed, so that an answer ends without delay.
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
        """Whether the body of the source marks its own end."""
        return self._source.is_framed

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces of the source: later, and therefore larger."""
        for piece in self._source:
            yield piece
            running = self._running()
            if running > _FEW and len(piece) < _SMALL_BYTES:
                self._sleep(min(_MOST_S, running * _EACH_S))

    def close(self) -> None:
        """Close the source."""
        self._source.close()
