"""JSON Lines files with many writers: incomplete last lines of other processes, and files of other kinds."""

import fcntl
import json
import os
from pathlib import Path

import pytest

from smai_cli.common.jsonl import append_line, check_appendable, mend_tail

ONE, TWO = b'{"a": 1}\n', b'{"b": "\xc3\xa9"}\n'


def content_after_repair(path: Path, content: bytes) -> bytes:
    path.write_bytes(content)
    fd = os.open(path, os.O_RDWR)
    try:
        mend_tail(fd)
        os.write(fd, b"+")
    finally:
        os.close(fd)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", b""),
        (ONE, ONE),
        (ONE + TWO, ONE + TWO),
        (ONE + TWO[:-1], ONE + TWO),
        (TWO[:-1], TWO),
        *((ONE + TWO[:length], ONE) for length in range(1, len(TWO) - 1)),
        (TWO[:5], b""),
        (ONE + b"null", ONE),
        (ONE + b"[1]", ONE),
        (ONE + b"1", ONE),
        (ONE + b"\0" * 5000, ONE),
        (ONE + b"\xff\xfe{", ONE),
        (ONE + b"[" * 100_000, ONE),
        (ONE * 30_000 + TWO[:-1], ONE * 30_000 + TWO),
        (ONE + b'{"a": "' + b"x" * 300_000, ONE),
        (ONE + b'{"a": "' + b"x" * 300_000 + b'"}', ONE + b'{"a": "' + b"x" * 300_000 + b'"}\n'),
    ],
    ids=lambda value: f"{len(value)} {value[-12:]!r}",
)
def test_a_complete_object_at_the_end_gets_its_newline_and_anything_else_is_cut_off(
    tmp_path: Path, content: bytes, expected: bytes
) -> None:
    assert content_after_repair(tmp_path / "file", content) == expected + b"+"


@pytest.mark.parametrize("size", range(65_530, 65_545))
def test_a_partial_line_is_found_across_the_boundary_of_two_reads(tmp_path: Path, size: int) -> None:
    tail = b'{"a": "' + b"x" * (size - 9) + b'"}'
    assert content_after_repair(tmp_path / "file", ONE + tail) == ONE + tail + b"\n+"
    assert content_after_repair(tmp_path / "file", ONE + tail[:-1]) == ONE + b"+"


@pytest.mark.parametrize(
    "content",
    [b"#!/bin/sh\necho hi", b'{\n  "a": 1\n}', b"[1, 2]", b"\x89PNG\r\n\x1a\n{}", b"model = 'x'\n", b"\n"],
)
def test_a_file_with_other_content_is_not_changed(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(OSError, match="it does not contain JSON Lines"):
        append_line(str(path), ONE, 0)
    with pytest.raises(OSError, match="it does not contain JSON Lines"):
        check_appendable(str(path))
    assert path.read_bytes() == content


def test_a_new_file_and_its_folders_are_accessible_only_to_their_owner(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "log.jsonl"
    assert check_appendable(str(path)) is False
    assert list(tmp_path.iterdir()) == []
    append_line(str(path), ONE, 0)
    append_line(str(path), TWO, 0)
    assert check_appendable(str(path)) is True
    assert path.read_bytes() == ONE + TWO
    assert [oct(one.stat().st_mode)[-3:] for one in (path, path.parent, path.parent.parent)] == ["600", "700", "700"]


def test_an_existing_file_keeps_its_mode_and_its_symbolic_link(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    path.touch(mode=0o644)
    link.symlink_to(path)
    append_line(str(link), ONE, 0)
    assert (link.is_symlink(), path.read_bytes(), oct(path.stat().st_mode)[-3:]) == (True, ONE, "644")


def test_the_wait_for_a_lock_has_a_time_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(ONE)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="another process has it locked"):
            append_line(str(path), TWO, 0.02)
    assert path.read_bytes() == ONE
    append_line(str(path), TWO, 0)
    assert path.read_bytes() == ONE + TWO


@pytest.mark.parametrize("path", ["a\0b", "", "/dev/full", "/dev/null/x", "/"])
def test_a_failed_write_is_an_oserror_with_a_message(path: str) -> None:
    with pytest.raises(OSError) as caught:
        append_line(path, ONE, 0)
    assert caught.value.strerror


def test_a_named_pipe_never_blocks(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="it is not a regular file"):
        append_line(str(tmp_path / "pipe"), ONE, 0)


def test_the_null_device_takes_every_line() -> None:
    append_line(os.devnull, json.dumps({}).encode() + b"\n", 0)
