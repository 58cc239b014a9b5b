"""`--fail-empty`: a complete but empty answer is a failure."""

import json
from pathlib import Path

import pytest
from completeness import chunk
from conftest import Server, Smai
from tapes import BY_NAME

pytestmark = pytest.mark.preloaded

DONE = b"data: [DONE]\n\n"


def answer(*texts: str, reason: str = "stop") -> bytes:
    """Return a complete stream with these deltas."""
    return b"".join([*map(chunk, texts), chunk(reason=reason), DONE])


EMPTY, BLANK = answer(), answer(" \n", "\t", "\u00a0", "\u3000")
WHAT = {EMPTY: "the answer is empty", BLANK: "the answer is only white space"}


@pytest.mark.parametrize("tape", WHAT, ids=["empty", "blank"])
@pytest.mark.parametrize("mode", [[], ["--final"], ["--no-stream"]], ids=["text", "final", "one piece"])
def test_an_empty_answer_is_status_8_and_is_not_requested_again(
    smai: Smai, server: Server, tape: bytes, mode: list[str]
) -> None:
    # The mock has a tape for a stream only.
    mock = server(reply=" \n" if tape == BLANK else "") if mode == ["--no-stream"] else server(tape=tape)
    ask = ("ask", "--base-url", mock.url, *mode, "--summary", "json", "hi")
    assert smai(*ask).status == 0
    result = smai(*ask, "--fail-empty")
    message, summary = result.stderr.splitlines()
    assert (result.status, len(mock.received)) == (8, 2)
    assert message == f"smai: {WHAT[tape]}; ask again, or leave --fail-empty out"
    told = json.loads(summary)
    assert (told["complete"], told["finish_reason"], told["exit_status"]) == (False, "stop", 8)
    assert (told["error"]["kind"], told["error"]["message"]) == ("broken", message.removeprefix("smai: "))
    assert mode != ["--final"] or result.stdout == b""


def test_an_empty_answer_changes_neither_the_output_file_nor_the_conversation(
    smai: Smai, server: Server, tmp_path: Path
) -> None:
    out, chat = tmp_path / "out", tmp_path / "chat"
    out.write_text("old")
    url = server(tape=BLANK).url
    result = smai("ask", "--base-url", url, "--fail-empty", "-q", "-o", out, "--chat", chat, "hi")
    assert (result.status, result.stdout, result.stderr.count("\n")) == (8, b"", 1)
    assert (out.read_text(), chat.exists()) == ("old", False)
    assert (tmp_path / "out.partial").read_text().isspace()


@pytest.mark.parametrize(
    ("tape", "flags", "status"),
    [
        pytest.param(EMPTY, ["--raw"], 8, id="empty, raw"),
        pytest.param(BLANK, ["--jsonl"], 8, id="blank, jsonl"),
        pytest.param(chunk(reasoning_content="hm") + EMPTY, [], 8, id="reasoning alone"),
        pytest.param(answer(reason="length"), ["--accept", "length"], 8, id="nothing before the limit, accepted"),
        pytest.param(answer(reason="length"), [], 9, id="nothing before the limit"),
        pytest.param(answer(*["\n"] * 50, "x"), [], 0, id="text after many blanks"),
        pytest.param(answer("x", " "), ["--final"], 0, id="a blank after text"),
        pytest.param(answer("\u200b"), [], 0, id="a character without width, which is no white space"),
        pytest.param(BY_NAME["tool-calls"].bytes, [], 0, id="a tool call"),
        pytest.param(BY_NAME["tool-calls"].bytes, ["--tool-calls"], 0, id="a tool call, printed"),
        pytest.param(BY_NAME["refusal"].bytes, [], 10, id="a refusal"),
        pytest.param(BY_NAME["cut-between-events"].bytes, [], 8, id="a cut"),
    ],
)
def test_with_fail_empty_a_tape_gives_the_same_status_and_other_answers_are_unchanged(
    smai: Smai, tape: bytes, flags: list[str], status: int
) -> None:
    result = smai("decode", "--fail-empty", *flags, stdin=tape)
    assert result.status == status
    is_blamed = "leave --fail-empty out" in result.stderr
    assert is_blamed == (status == 8 and tape != BY_NAME["cut-between-events"].bytes)
