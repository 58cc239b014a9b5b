"""The pump with test doubles: given pieces, recorded writes, and a recording clock."""

import os
from collections.abc import Collection, Iterator

from smai_cli.answer.outcome import Outcome
from smai_cli.apis import choose_api
from smai_cli.common.clocks import HURRY_S, IdleClock
from smai_cli.output.descriptors import Output
from smai_cli.output.modes import EXTRACT, MODES
from smai_cli.stream import pump

# Every mode that delivers all of an answer.
WHOLE_MODES = [name for name in MODES if name != EXTRACT]


class Sink(Output):
    """An Output that records each write."""

    def __init__(self) -> None:
        super().__init__(os.open(os.devnull, os.O_WRONLY))
        os.close(self.fd)
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)


class Clock(IdleClock):
    """A clock that records its calls: True for the end of the answer, False for an event."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[bool] = []
        self.graces_s: list[float] = []

    def reset(self) -> None:
        self.told.append(False)

    def finish(self, grace_s: float) -> None:
        self.told.append(True)
        self.graces_s.append(grace_s)


class Pieces:
    """A source of given pieces, optionally with a failure at the end."""

    def __init__(self, *pieces: bytes, failure: Exception | None = None, is_framed: bool = False) -> None:
        self.clock = Clock()
        self.is_framed = is_framed
        self.pieces = pieces
        self.failure = failure
        self.is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces
        if self.failure and HURRY_S not in self.clock.graces_s:
            raise self.failure

    def close(self) -> None:
        self.is_closed = True


def run_pump(
    source: pump.Source,
    mode: str = "text",
    *,
    dialect: str = "chat",
    accept: Collection[str] = (),
    due: int | None = None,
    output_limit: int | None = None,
) -> tuple[Outcome, list[bytes]]:
    """Pump `source` to its end; return the outcome and the list of writes."""
    sink = Sink()
    outcome = Outcome(accept)
    outcome.choices = due
    outcome.output_limit = output_limit
    pump.pump(source, choose_api(dialect, "").load(), MODES[mode].make(sink), outcome)
    return outcome, sink.writes
