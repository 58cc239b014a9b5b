"""Find out whether an answer that passes through the gateway is complete, for the lines of -v."""

from collections.abc import Iterator

from smai_cli.answer.outcome import Outcome
from smai_cli.apis import api_at
from smai_cli.common.clocks import IdleClock
from smai_cli.errors import SmaiError
from smai_cli.stream.listener import Listener
from smai_cli.stream.pump import pump


def find_shortfall(pieces: Iterator[bytes], path: str, *, is_framed: bool) -> SmaiError | None:
    """Read an answer to its end; return what it lacks, as `smai ask --raw` would report it, or None if complete.

    `path` is that of the request. `is_framed` says whether the body marks its own end, as for pump.Source.
    """
    outcome = Outcome()
    dialect = api_at(path).load()
    pump(_PassingSource(pieces, is_framed=is_framed), dialect, _SilentListener(), outcome)
    return outcome.error


class _PassingSource:
    """A source of pieces that the gateway passes in. Its clock is never checked."""

    def __init__(self, pieces: Iterator[bytes], *, is_framed: bool) -> None:
        self.clock = IdleClock()
        self.is_framed = is_framed
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        """Do nothing: the answer belongs to the gateway."""


class _SilentListener(Listener):
    """Delivers nothing, and lets the answer be read to its last byte: the client gets every byte."""

    takes_all = True
