"""The lines of one model that wait to be asked, and the load of that model: a limit of one model stops no other."""

import heapq
import math
from collections import deque
from typing import TYPE_CHECKING

from smai_cli.batch.load.control import LoadControl
from smai_cli.batch.tries import Tries

if TYPE_CHECKING:
    from smai_cli.errors import SmaiError

# So many lines of a model, or as many as may run at once, wait for its limit before no fresh line starts: one that is
# refused for itself stops no others, and in a storm of refusals those that wait show when it is over.
_MOST_REFUSED = 10


class ModelQueue:
    """The queue of one model: fresh lines in the order of the input, and lines that wait for their next try.

    `load` says when a request of the model may start, `limit` is the last refusal for a limit. Times are in seconds on
    the clock of the schedule, which also has the lock.
    """

    def __init__(self, load: LoadControl) -> None:
        self.load = load
        self.limit: SmaiError | None = None
        self._fresh: deque[Tries] = deque()
        self._delayed: list[tuple[float, int, Tries]] = []
        self._refused = 0  # of those that are delayed, how many wait for a limit

    def __len__(self) -> int:
        """Return how many lines wait."""
        return len(self._fresh) + len(self._delayed)

    @property
    def first_place(self) -> int:
        """The place in the input of the line that comes next."""
        return min(it.job.place for it in (*list(self._fresh)[:1], *(row[2] for row in self._delayed[:1])))

    def add(self, tries: Tries) -> None:
        """Put a fresh line at the end."""
        self._fresh.append(tries)

    def delay(self, tries: Tries, until_s: float) -> None:
        """Put a line back until its pause is over."""
        self._refused += tries.refusals > 0
        heapq.heappush(self._delayed, (until_s, tries.job.place, tries))

    def wait_s(self, now_s: float) -> float:
        """Return in how many seconds a line may start; infinite without one, or until another request has ended."""
        if self._may_take_fresh:
            return self.load.wait_s(now_s)
        if not self._delayed:
            return math.inf
        return max(self._delayed[0][0] - now_s, self.load.wait_s(now_s))

    def pop(self, now_s: float) -> Tries:
        """Take the next line: one whose pause is over, else a fresh one, else the one whose pause ends first."""
        if self._delayed and (self._delayed[0][0] <= now_s or not self._may_take_fresh):
            tries = heapq.heappop(self._delayed)[2]
            self._refused -= tries.refusals > 0
            return tries
        return self._fresh.popleft()

    @property
    def _may_take_fresh(self) -> bool:
        return bool(self._fresh) and self._refused < max(_MOST_REFUSED, self.load.jobs)
