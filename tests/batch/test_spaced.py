"""When many answers arrive at once, each is read less often, but does not end later."""

from collections.abc import Iterator

import pytest

from smai_cli.batch.spaced import SpacedSource
from smai_cli.common.clocks import IdleClock


class Pieces:
    """A source of these pieces."""

    is_framed = True

    def __init__(self, *pieces: bytes) -> None:
        self.clock = IdleClock()
        self.is_closed = False
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize(("running", "sleeps_s"), [(1, []), (16, []), (50, [0.02, 0.02]), (512, [0.05, 0.05])])
def test_the_delay_between_reads_grows_with_the_number_of_running_answers(running: int, sleeps_s: list[float]) -> None:
    slept_s: list[float] = []
    pieces = iter(SpacedSource(Pieces(b"a", b"b", b"c"), lambda: running, slept_s.append))
    assert [next(pieces) for _ in range(3)] == [b"a", b"b", b"c"]
    # The wait is before the next piece is read, not after the last one.
    assert slept_s == sleeps_s


def test_a_large_read_is_not_followed_by_a_delay() -> None:
    slept_s: list[float] = []
    assert len(list(SpacedSource(Pieces(b"a" * 5000, b"b" * 5000), lambda: 512, slept_s.append))) == 2
    assert slept_s == []


def test_a_spaced_source_keeps_the_clock_framing_and_close_of_its_source() -> None:
    source = Pieces()
    spaced = SpacedSource(source, lambda: 512)
    assert (spaced.clock, spaced.is_framed) == (source.clock, True)
    spaced.close()
    assert source.is_closed
