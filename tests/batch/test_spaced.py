"""Where many answers come at once, each is read a while apart; and it ends no later for it."""

from collections.abc import Iterator

import pytest

from smai_cli.batch.spaced import Spaced
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
def test_the_more_answers_come_the_further_apart_each_is_read(running: int, sleeps_s: list[float]) -> None:
    slept_s: list[float] = []
    pieces = iter(Spaced(Pieces(b"a", b"b", b"c"), lambda: running, slept_s.append))
    assert [next(pieces) for _ in range(3)] == [b"a", b"b", b"c"]
    # Nothing is waited for behind a piece before somebody asks for the next one: the last one was enough.
    assert slept_s == sleeps_s


def test_behind_a_large_piece_nothing_is_waited_for() -> None:
    slept_s: list[float] = []
    assert len(list(Spaced(Pieces(b"a" * 5000, b"b" * 5000), lambda: 512, slept_s.append))) == 2
    assert slept_s == []


def test_it_is_the_source_in_all_else() -> None:
    source = Pieces()
    spaced = Spaced(source, lambda: 512)
    assert (spaced.clock, spaced.is_framed) == (source.clock, True)
    spaced.close()
    assert source.is_closed
