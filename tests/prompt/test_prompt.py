"""The prompt, from operands and stdin."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smai_cli.common.files import read_all, text_in
from smai_cli.errors import UsageError
from smai_cli.prompt import prompt


@given(st.text())
def test_piped_utf8_is_kept_exactly_except_for_a_bom(text: str) -> None:
    assert text_in(text.encode()) == text.removeprefix("\ufeff")


@given(st.text().filter(lambda text: text[:1] != "\0"), st.sampled_from(["utf-16-le", "utf-16-be"]))
def test_piped_utf16_with_a_bom_is_kept_exactly(text: str, encoding: str) -> None:
    assert text_in(("\ufeff" + text).encode(encoding)) == text


@given(st.text().filter(lambda text: bool(text.strip())))
def test_a_single_operand_is_the_prompt(text: str) -> None:
    assert prompt.compose([text], None) == prompt.compose([], text) == text


@pytest.mark.parametrize(
    ("operands", "piped", "expected"),
    [
        (["a", "b"], "c\n", "a b\n\nc\n"),
        (["a", "-", "b", "c"], "x", "a\n\nx\n\nb c"),
        (["-", "a"], "x", "x\n\na"),
        (["a", "-"], "", "a"),
        (["-"], None, "-"),
    ],
)
def test_stdin_is_placed_at_the_dash_or_after_the_operands(
    operands: Sequence[str], piped: str | None, expected: str
) -> None:
    assert prompt.compose(operands, piped) == expected


@pytest.mark.parametrize(
    ("operands", "piped"), [([], None), ([""], None), ([], " \n\t"), (["-"], ""), (["", " "], "\n")]
)
def test_white_space_is_not_a_prompt(operands: Sequence[str], piped: str | None) -> None:
    with pytest.raises(UsageError, match="the prompt is empty"):
        prompt.compose(operands, piped)


def test_only_a_partly_read_file_counts_as_stdin_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text("one\ntwo\n")
    with path.open("rb", buffering=0) as file:
        assert not prompt.is_partly_read(file.fileno())
        file.read(4)
        assert prompt.is_partly_read(file.fileno())
    reading, writing = os.pipe()
    assert not prompt.is_partly_read(reading)
    os.close(reading)
    os.close(writing)
    assert not prompt.is_partly_read(reading)


def test_a_write_only_descriptor_counts_as_empty(tmp_path: Path) -> None:
    with (tmp_path / "nohup").open("wb") as file:
        assert read_all(file.fileno(), lambda: None) == b""


def test_a_non_blocking_pipe_is_read_to_its_end() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.write(writing, b"x" * 1000)
    os.close(writing)
    assert read_all(reading, lambda: None) == b"x" * 1000
    os.close(reading)


def test_a_read_error_is_a_usage_error_with_the_hint_of_the_command(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(UsageError, match=r"^stdin: Is a directory; check where the input comes from, or use -n$"):
            read_all(folder, lambda: None)
        with pytest.raises(UsageError, match=r"^stdin: Is a directory; look there$"):
            read_all(folder, lambda: None, hint="look there")
    finally:
        os.close(folder)


def test_a_file_that_cannot_be_decoded_is_named() -> None:
    for data in (b"\xff", b"\xff\xfea\x00\x00\xd8"):
        with pytest.raises(UsageError, match=r"^list\.txt is not UTF-"):
            text_in(data, "list.txt")
