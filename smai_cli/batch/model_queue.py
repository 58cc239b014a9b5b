"""The waiting lines of one model, and the load of that model: a limit of one model does not stop the others."""

import heapq
import math
from collections import deque
from typing import TYPE_CHECKING

from smai_cli.batch.failures import REFUSALS
from smai_cli.batch.load.control import LoadControl
from smai_cli.batch.tries import Tries

if TYPE_CHECKING:
    from smai_cli.errors import SmaiError

# Fresh lines start until this many lines of a model, or as many as may run at once, wait for its limit. So a line that
# is refused because of its content does not stop the others, and in a storm of refusals the waiting lines show when it
# is over.
_MOST_REFUSED = 10
# Each refusal of a waiting line after this many lets one more fresh line start: perhaps all waiting lines are refused
# because of their content. Their pauses double, so that in a storm of minutes fewer than ten lines start in this way.
_FEW_REFUSALS = 2


class ModelQueue:
    """The queue of one model: fresh lines (not sent yet) in input order, and lines that wait for their next try.

    `load` says when a request of the model may start, `limit` is the last refusal because of a limit. Times are in
    seconds on the clock of the schedule. The schedule does the locking.
    """

    def __init__(self, load: LoadControl) -> None:
        self.load = load
        self.limit: SmaiError | None = None
        self._fresh: deque[Tries] = deque()
        self._delayed: list[tuple[float, int, Tries]] = []
        self._was_delayed = False  # whether the last line that was taken had waited
        self._refused = 0  # how many of the delayed lines wait for a limit

    def __len__(self) -> int:
        """Return how many lines wait."""
        return len(self._fresh) + len(self._delayed)

    @property
    def first_place(self) -> int:
        """The place in the input of the next line."""
        heads = [*([self._fresh[0]] if self._fresh else []), *(row[2] for row in self._delayed[:1])]
        return min(it.job.place for it in heads)

    @property
    def probe_order(self) -> tuple[float, float]:
        """The queue in which this is least has the next probe, see pop_probe."""
        return (0.0, -self._fresh[-1].job.place) if self._fresh else (1.0, self._delayed[0][0])

    def add(self, tries: Tries) -> None:
        """Append a fresh line."""
        self._fresh.append(tries)

    def delay(self, tries: Tries, until_s: float) -> None:
        """Put a line back until `until_s`, when its pause is over."""
        self._refused += tries.refusals > 0
        heapq.heappush(self._delayed, (until_s, tries.job.place, tries))

    def wait_s(self, now_s: float) -> float:
        """Return in how many seconds a line may start; infinite if there is none, or another request must end first."""
        if self._may_take_fresh:
            return self.load.wait_s(now_s)
        if not self._delayed:
            return math.inf
        return max(self._delayed[0][0] - now_s, self.load.wait_s(now_s))

    def pop(self, now_s: float) -> Tries:
        """Take the next line: one whose pause is over, else a fresh one, else the one whose pause ends first.

        If many lines wait for the limit, a fresh line that may start comes first, see pop_probe. A line that was
        refused so often that its content may be the reason takes turns with fresh ones: where only few requests may
        start, such lines would otherwise take all the starts.
        """
        if not self._may_take_fresh:
            return self._pop_delayed()
        if self._is_crowded:
            return self.pop_probe()
        is_due = bool(self._delayed) and self._delayed[0][0] <= now_s
        is_others_turn = self._was_delayed and is_due and self._delayed[0][2].refusals >= REFUSALS
        self._was_delayed = is_due and not is_others_turn
        return self._pop_delayed() if self._was_delayed else self._fresh.popleft()

    def pop_probe(self) -> Tries:
        """Take the line that shows best whether all lines fail: the last fresh one, else one that was delayed.

        The lines that failed may have failed because of what they ask for, and those next to them may be like them.
        """
        return self._fresh.pop() if self._fresh else self._pop_delayed()

    def _pop_delayed(self) -> Tries:
        tries = heapq.heappop(self._delayed)[2]
        self._refused -= tries.refusals > 0
        return tries

    @property
    def _is_crowded(self) -> bool:
        """Whether many lines wait for the limit. Then only a few fresh lines may start."""
        return self._refused >= self._most_refused

    @property
    def _may_take_fresh(self) -> bool:
        more = max(0, self._delayed[0][2].refusals - _FEW_REFUSALS) if self._delayed else 0
        return bool(self._fresh) and self._refused < self._most_refused + more

    @property
    def _most_refused(self) -> int:
        return max(_MOST_REFUSED, self.load.jobs)
