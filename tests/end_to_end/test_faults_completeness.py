"""How servers and gateways end an answer: raw sockets and the real process."""

import json
import shlex
import subprocess
import time
from pathlib import Path

import pytest
from completeness import DONE, PIECES, PING, ROWS, STOP, Piece, Row, choice
from completeness import chunk as text_event
from completeness import event as data
from conftest import Smai
from process import at_most_cpu_s
from rawserver import CLOSE_HEAD, HEAD, LAST_CHUNK, OK, Serve, chunk, forever, hold, http, reach, reset
from tapes import printed

pytest_plugins = ["rawserver"]
pytestmark = pytest.mark.preloaded

# One or more rows for each sign; test_completeness.py tries all of them on the pump.
NAMES = {
    "chat": [
        "a reason of its own is final",
        "a reason with the last text is final where the first had none",
        "a reason next to the only text needs a confirmation",
        "stop in every chunk and a cut is not an end",
        "stop with the role and a cut",
        "text after the reason withdraws it",
        "a call after the reason withdraws it",
        "eos_token is normal",
        "COMPLETE is normal",
        "length, then a stop that a gateway adds",
        "stop, then content_filter (Azure)",
        "error, then content_filter",
        "an unknown word, then stop",
        "[DONE] alone",
        "[DONE], accepted",
        "[DONE], accepted, needs a delta",
        "any word, accepted",
        "no end at all",
        "error object that is empty, after the reason",
        "error event, before [DONE]",
        "error_code, FastChat, in the middle",
        "detail, FastAPI, in the middle",
        "errors, in the middle",
        "x_groq.error, before [DONE]",
        "base_resp, MiniMax, in the middle",
        "a lone choice with index 1",
        "message instead of deltas",
        "message next to deltas",
        "a message that grows within a character",
        "text next to an error",
        "calls in an unknown form",
        "text of another API (Ollama)",
        "a number and a message, in the middle",
        "a content that is an object",
        "a content that cannot be read",
        "an empty answer",
        "pings and empty chunks",
    ],
    "responses": [
        "completed",
        "completed without a status",
        "completed, but incomplete",
        "completed, but cancelled",
        "incomplete without a status",
        "failed without a status or a word",
        "failed by its name alone",
        "[DONE] means nothing, accepted or not",
        "text in done alone",
        "text in the output alone",
        "text in an item alone",
        "deltas of one part, and another whole",
        "a part that begins as the one before",
        "an output that is a text",
        "an error by its name, completed by its type",
        "completed, with a reason why not",
        "an error event",
    ],
}
CHOSEN = [row for row in ROWS if row.name in NAMES[row.dialect]]
LLAMA_CPP = b'error: {"code":500,"message":"boom","type":"server_error"}\n\n'


def flags(row: Row | Piece) -> list[str]:
    return ["--api", row.dialect, *(f"--accept={word}" for word in row.accept), "hi"]


def test_each_listed_case_exists_in_the_table() -> None:
    assert {(row.dialect, row.name) for row in CHOSEN} == {(api, name) for api in NAMES for name in NAMES[api]}


@pytest.mark.thorough
@pytest.mark.parametrize("row", CHOSEN, ids=lambda row: f"{row.dialect}-{row.name}")
def test_the_end_of_a_streamed_answer_decides_the_exit_status(smai: Smai, serve: Serve, row: Row) -> None:
    body = b"".join(row.events)
    whole = serve(HEAD, *map(chunk, row.events), LAST_CHUNK)
    result = smai("ask", *flags(row), env=reach(whole))
    assert (result.status, result.stdout) == (row.framed_status, printed(row.text)), "in chunks, to the last one"
    result = smai("ask", *flags(row), env=reach(serve(CLOSE_HEAD, body)))
    assert (result.status, result.stdout) == (row.status, printed(row.text)), "up to a bare FIN"
    result = smai("ask", "--final", "--retries", "0", *flags(row), env=reach(serve(CLOSE_HEAD, body)))
    assert (result.status, result.stdout) == (row.status, b"" if row.status else printed(row.text)), "held back"
    result = smai("decode", *(f"--accept={word}" for word in row.accept), stdin=body)
    assert (result.status, result.stdout) == (row.status, printed(row.text)), "on a tape"


@pytest.mark.parametrize(
    "piece", [one for one in PIECES if one.due is None], ids=lambda one: f"{one.dialect}-{one.name}"
)
def test_the_end_of_an_unstreamed_answer_decides_the_exit_status(smai: Smai, serve: Serve, piece: Piece) -> None:
    body = json.dumps(piece.body).encode()
    result = smai("ask", "--no-stream", *flags(piece), env=reach(serve(http("200 OK", body))))
    assert (result.status, result.stdout) == (piece.status, printed(piece.text))
    result = smai("decode", *(f"--accept={word}" for word in piece.accept), stdin=body)
    assert (result.status, result.stdout) == (piece.status, printed(piece.text))


@pytest.mark.parametrize(
    ("before", "status", "text"),
    [(b"", 6, b""), (text_event("Hello "), 8, b"Hello \n")],
    ids=["at once", "in the middle"],
)
def test_an_error_of_llama_cpp_followed_by_done_is_a_failure(
    smai: Smai, serve: Serve, before: bytes, status: int, text: bytes
) -> None:
    result = smai("ask", "hi", env=reach(serve(HEAD, chunk(before + LLAMA_CPP + DONE), LAST_CHUNK)))
    assert (result.status, result.stdout) == (status, text)
    assert "boom" in result.stderr


def test_done_without_a_finish_reason_is_status_8_and_the_message_names_accept_done(smai: Smai, serve: Serve) -> None:
    server = serve(HEAD, chunk(text_event("Hello ")), chunk(DONE), LAST_CHUNK)
    result = smai("ask", "hi", env=reach(server))
    assert (result.status, result.stdout) == (8, b"Hello \n")
    assert "--accept done" in result.stderr
    assert smai("ask", "--accept", "done", "hi", env=reach(server)).status == 0


def test_two_requested_answers_need_a_finish_reason_each(smai: Smai, serve: Serve) -> None:
    one = [text_event("a"), text_event("b", index=1), STOP]
    both = [*one, text_event(reason="stop", index=1)]
    for events, status in ((one, 8), (both, 0)):
        server = serve(HEAD, *map(chunk, events), chunk(DONE), LAST_CHUNK)
        assert smai("ask", "--jsonl", "-O", "n=2", "hi", env=reach(server)).status == status


@pytest.mark.parametrize(
    "first", [text_event("", "stop", role="assistant"), text_event("Hi", "stop")], ids=["role", "text"]
)
def test_a_finish_reason_in_the_first_chunk_does_not_start_the_grace_period(
    smai: Smai, serve: Serve, first: bytes
) -> None:
    server = serve(HEAD, chunk(first), hold)
    result = smai("ask", "--idle-timeout", "1", "hi", env=reach(server))
    assert result.status == 7
    assert "nothing arrived for 1 s" in result.stderr


@pytest.mark.thorough
@pytest.mark.parametrize("piece", [b": ping\n\n", data({"choices": []})], ids=["comment", "[]"])
@pytest.mark.parametrize("every_s", [0.0, pytest.param(0.05, marks=pytest.mark.nightly)], ids=["flood", "drip"])
def test_nothing_extends_the_grace_period_after_the_end(smai: Smai, serve: Serve, piece: bytes, every_s: float) -> None:
    server = serve(HEAD, chunk(text_event("Hi")), chunk(STOP), forever(chunk(piece), every_s))
    assert smai("ask", "hi", env=reach(server)) == (0, b"Hi\n", "")


@pytest.mark.thorough
@pytest.mark.parametrize(
    "piece", [PING, data(""), data({"choices": []}), data("keepalive")], ids=["ping", "", "[]", "word"]
)
def test_empty_data_does_not_reset_the_idle_clock(smai: Smai, serve: Serve, piece: bytes) -> None:
    for mode in ("--summary=none", "--jsonl"):
        server = serve(HEAD, chunk(text_event("Hi")), forever(chunk(piece), 0.05))
        assert smai("ask", mode, "--idle-timeout", "1", "hi", env=reach(server)).status == 7


def test_an_error_within_the_grace_period_counts(smai: Smai, serve: Serve) -> None:
    server = serve(HEAD, chunk(text_event("Hi")), chunk(STOP), chunk(data({"error": {"message": "boom"}})), hold)
    result = smai("ask", "hi", env=reach(server))
    assert (result.status, result.stdout) == (8, b"Hi\n")
    assert "boom" in result.stderr


def test_a_reset_after_an_unconfirmed_reason_is_status_8(smai: Smai, serve: Serve) -> None:
    assert smai("ask", "hi", env=reach(serve(HEAD, chunk(text_event("Hi", "stop")), reset))).status == 8
    assert smai("ask", "hi", env=reach(serve(HEAD, chunk(text_event("Hi")), chunk(STOP), reset))).status == 0


@pytest.mark.parametrize("length", [b"abc", b"-1"])
def test_an_invalid_content_length_does_not_prove_that_the_body_is_complete(
    smai: Smai, serve: Serve, length: bytes
) -> None:
    server = serve(OK + b"Content-Length: " + length + b"\r\n\r\n", text_event("Hi", "stop"))
    result = smai("ask", "hi", env=reach(server))
    assert (result.status, result.stdout) == (8, b"")


@pytest.mark.parametrize("reason", ["abort", "max tokens; reached", "it's\tover", "w" * 60])
def test_the_message_for_an_unknown_finish_reason_names_the_option_that_accepts_it(smai: Smai, reason: str) -> None:
    tape = text_event("Hi") + text_event(reason=reason) + DONE
    result = smai("decode", stdin=tape)
    assert result.status == 8
    option = shlex.split(result.stderr.split("complete; ")[1])[:2]
    assert smai("decode", *option, stdin=tape) == (0, b"Hi\n", "")


@pytest.mark.thorough
def test_the_time_for_an_answer_in_messages_grows_linearly(smai: Smai) -> None:
    tape = b"".join(data({"choices": [{"message": {"content": f"{number}" * 40}}]}) for number in range(40_000))
    with at_most_cpu_s(5):
        result = smai("decode", stdin=tape + STOP)
    assert (result.status, len(result.stdout)) == (0, sum(40 * len(str(number)) for number in range(40_000)) + 1)


@pytest.mark.nightly
def test_the_time_for_many_choices_grows_linearly(smai: Smai) -> None:
    tape = text_event("a") + STOP + b"".join(text_event("b", index=1 + number % 1000) for number in range(150_000))
    with at_most_cpu_s(7):
        result = smai("decode", stdin=tape)
    assert (result.status, result.stdout) == (8, b"a\n")
    assert "two streams" not in result.stderr


def test_an_output_file_is_created_only_for_a_complete_answer(smai: Smai, serve: Serve, tmp_path: Path) -> None:
    answer = tmp_path / "answer.txt"
    server = serve(HEAD, chunk(data({"choices": [choice("Hello ")]})), chunk(DONE), LAST_CHUNK)
    assert smai("ask", "-o", answer, "hi", env=reach(server)).status == 8
    assert not answer.exists()


def test_decode_loses_no_byte_when_its_reader_pauses(environment: dict[str, str], tmp_path: Path) -> None:
    tape = tmp_path / "tape.sse"
    tape.write_bytes(text_event("Hi") + STOP + DONE + b": bye\n" * 100_000)
    command = f"cat {tape} | smai decode --raw"
    with subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, env=environment) as decode:
        assert decode.stdout
        first = decode.stdout.read(1)
        time.sleep(1)  # longer than smai waits for what follows the end
        assert first + decode.stdout.read() == tape.read_bytes()
    assert decode.returncode == 0
