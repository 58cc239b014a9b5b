"""`smai count`: the tokens of a text, for pipelines."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import Smai
from process import PYTHON, SMAI

pytestmark = pytest.mark.thorough

# 7 tokens in o200k_base, 10 in cl100k_base.
TEXT = "你好世界,Grüße\n".encode()
UNKNOWN = "smai: an estimate: no tokenizer is known for llama3.2; -m names another model\n"
NOT_INSTALLED = f"smai: an estimate: no tokenizer is installed; to count exactly: {PYTHON} -m pip install splintr-rs\n"


def test_the_count_of_a_pipe_or_a_file_is_a_number_on_a_line(smai: Smai, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(TEXT)
    with (tmp_path / "text").open("rb") as file:
        runs = [
            smai("count", stdin=TEXT),
            smai("count", "-", stdin=TEXT),
            smai("count", stdin=file),
            smai("count", tmp_path / "text", stdin=b"not this"),
        ]
    assert runs == [(0, b"7\n", "")] * 4


def test_the_model_chooses_the_tokenizer(smai: Smai) -> None:
    env = {"SMAI_MODEL": "gpt-3.5-turbo"}
    assert smai("count", "-m", "gpt-4", stdin=TEXT).stdout == b"10\n"
    assert smai("count", stdin=TEXT, env=env).stdout == b"10\n"
    assert smai("count", "--model", "gpt-5", stdin=TEXT, env=env).stdout == b"7\n"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_not_a_token(smai: Smai, tmp_path: Path, encoding: str) -> None:
    data = TEXT.decode().encode(encoding)
    (tmp_path / "text").write_bytes(data)
    assert smai("count", stdin=data) == smai("count", tmp_path / "text") == (0, b"7\n", "")


@pytest.mark.parametrize("flags", [[], ["-m", "llama3.2"]], ids=["known", "unknown"])
def test_an_empty_text_has_0_tokens_in_every_tokenizer(smai: Smai, no_extra: dict[str, str], flags: list[str]) -> None:
    assert smai("count", *flags, stdin=b"") == (0, b"0\n", "")
    assert smai("count", *flags, stdin=b"", env=no_extra) == (0, b"0\n", "")


def test_the_name_of_a_special_token_is_plain_text(smai: Smai) -> None:
    assert smai("count", stdin=b"<|endoftext|>") == (0, b"7\n", "")


def test_the_count_for_another_makers_model_is_an_estimate_and_says_so(smai: Smai) -> None:
    assert smai("count", "-m", "llama3.2", stdin=b"eight ch") == (0, b"2\n", UNKNOWN)
    assert smai("count", "-m", "llama3.2", stdin="世界a".encode()) == (0, b"3\n", UNKNOWN)


def test_without_the_tokens_extra_the_count_is_an_estimate_and_a_notice_names_the_extra(
    smai: Smai, no_extra: dict[str, str]
) -> None:
    assert smai("count", stdin=b"eight ch", env=no_extra) == (0, b"2\n", NOT_INSTALLED)
    assert smai("count", "-m", "llama3.2", stdin=b"eight ch", env=no_extra) == (0, b"2\n", UNKNOWN)


def test_a_model_name_cannot_forge_a_line_on_stderr(smai: Smai) -> None:
    stderr = smai("count", "-m", "a\nsmai: \x1b[31mb", stdin=b"x").stderr
    assert stderr == "smai: an estimate: no tokenizer is known for a smai: ^[[31mb; -m names another model\n"


def test_a_text_that_cannot_be_decoded_is_status_2_with_its_name_and_the_offset(smai: Smai, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"ab\xff")
    words = "is not UTF-8: byte 0xff at byte offset 2; convert it with iconv"
    assert smai("count", stdin=b"ab\xff") == (2, b"", f"smai: stdin {words}\n")
    assert smai("count", tmp_path / "text") == (2, b"", f"smai: {tmp_path}/text {words}\n")
    assert smai("count", stdin=b"\xff\xfeab\x00\xd8").stderr.startswith(
        "smai: stdin is not UTF-16-LE at byte offset 4;"
    )


def test_an_unreadable_file_is_status_2(smai: Smai, tmp_path: Path) -> None:
    missing = smai("count", tmp_path / "missing")
    assert missing == (2, b"", f"smai: {tmp_path}/missing: No such file or directory; name a file with text\n")
    assert smai("count", tmp_path) == (2, b"", f"smai: {tmp_path}: Is a directory; name a file with text\n")
    assert smai("count", "-m", b"\xff", stdin=b"x").stderr.startswith("smai: -m/--model is not UTF-8")
    assert smai("count", "a", "b").status == 2


def test_a_terminal_on_stdin_is_not_read(smai: Smai) -> None:
    master, slave = os.openpty()
    result = smai("count", stdin=slave)
    os.close(master)
    os.close(slave)
    assert result == (2, b"", "smai: no text to count; name a file, or pipe one in\n")


def shell(environment: dict[str, str], script: str, **more: Any) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], env=environment, capture_output=True, check=False, **more
    )


@pytest.mark.parametrize("target", [">/dev/full", ">&-"], ids=["full", "closed"])
def test_a_count_that_cannot_be_written_is_status_11(environment: dict[str, str], target: str) -> None:
    done = shell(environment, f"echo hi | {SMAI} count {target}")
    assert done.returncode == 11
    assert done.stderr.startswith(b"smai: stdout: ")
    assert done.stderr.count(b"\n") == 1


def test_a_pipeline_counts_an_answer_and_a_process_substitution(environment: dict[str, str]) -> None:
    done = shell(environment, f"{SMAI} ask -n --mock hi | tee /dev/stderr | {SMAI} count; {SMAI} count <(printf hi)")
    answer, number = done.stderr.decode(), done.stdout.split()[0]
    assert done.returncode == 0
    assert len(answer) / 8 < int(number) < len(answer) / 2
    assert done.stdout.endswith(b"\n1\n")


def test_ten_megabytes_are_counted(smai: Smai) -> None:
    assert smai("count", stdin=b"hello world\n" * 900_000) == (0, b"2700000\n", "")


def test_an_endless_text_or_recording_is_reported_in_one_line(smai: Smai) -> None:
    with Path("/dev/zero").open("rb") as zero:
        stdin = smai("count", stdin=zero)
    assert stdin == (2, b"", "smai: stdin is larger than 256 MiB; shorten the input\n")
    for words in (["count", "/dev/zero"], ["mock", "--max-requests", "1", "--tape", "/dev/zero"]):
        assert smai(*words) == (2, b"", "smai: /dev/zero is larger than 256 MiB; shorten the input\n")
