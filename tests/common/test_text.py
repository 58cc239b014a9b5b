"""Cleaning of text: surrogates, and control characters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smai_cli.common.text import Joiner, one_line, visible


def joined(*deltas: str) -> str:
    joiner = Joiner()
    return "".join(map(joiner.whole, deltas)) + joiner.rest()


@pytest.mark.parametrize(
    ("deltas", "text"),
    [
        pytest.param(("\ud83d", "\ude00"), "😀", id="a pair over two deltas"),
        pytest.param(("a\ud83d", "", "\ude00b"), "a😀b", id="with an empty one between"),
        pytest.param(("\ud83d",), "\ufffd", id="a high half alone"),
        pytest.param(("\ude00",), "\ufffd", id="a low half alone"),
        pytest.param(("\ud83d", "x"), "\ufffdx", id="a high half, then text"),
        pytest.param(("\ud83d\ud83d", "\ude00"), "\ufffd😀", id="two high halves"),
        pytest.param(("äöü", "😀"), "äöü😀", id="nothing to do"),
    ],
)
def test_halves_of_a_surrogate_pair_become_one_character(deltas: tuple[str, ...], text: str) -> None:
    assert joined(*deltas) == text


@given(st.lists(st.text(alphabet=st.sampled_from("a\ud83d\ude00é😀"), max_size=4), max_size=6))
def test_any_split_of_surrogates_into_deltas_gives_the_same_encodable_text(deltas: list[str]) -> None:
    assert joined(*deltas) == joined("".join(deltas))
    joined(*deltas).encode()


def test_control_characters_are_escaped_but_not_newline_and_tab() -> None:
    assert visible("a\x1b[0m\x00\x7f\x9b\r\n\té\u2028") == "a^[[0m^@^?\\x9b^M\n\té\u2028"


@given(st.text(), st.text())
def test_a_control_sequence_is_escaped_however_the_text_is_split(a: str, b: str) -> None:
    assert visible(a) + visible(b) == visible(a + b)


def test_text_from_outside_becomes_one_line_without_control_characters() -> None:
    assert one_line("a\nb\t c\x1b[2J\u202eevil\u2028x") == "a b c^[[2J\\u202eevil x"
    assert one_line("x" * 1000) == "x" * 500 + "..."


def test_invisible_characters_in_text_from_outside_are_escaped() -> None:
    assert one_line("a\x9b1m\x7f\u2066\u2069\u202a") == "a\\x9b1m^?\\u2066\\u2069\\u202a"


def test_a_pending_surrogate_is_returned_once() -> None:
    joiner = Joiner()
    assert joiner.whole("\ud83d") == ""
    assert [joiner.rest(), joiner.rest(), joiner.whole("a")] == ["\ufffd", "", "a"]
