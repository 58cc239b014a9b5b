"""`smai decode`: every tape gives its status and text in every mode."""

import json
import subprocess
from pathlib import Path

import pytest
from conftest import Smai
from process import SMAI
from tapes import BY_NAME, GOOD, STREAMS, TAPES, Tape, printed

pytestmark = pytest.mark.preloaded

tapes = pytest.mark.parametrize("tape", TAPES, ids=lambda tape: tape.name)


def test_every_stream_file_has_its_expectation() -> None:
    assert {path.stem for path in STREAMS.glob("*.sse")} == set(BY_NAME)


@tapes
def test_decode_prints_the_text_of_all_complete_events_with_the_expected_status(smai: Smai, tape: Tape) -> None:
    result = smai("decode", stdin=tape.bytes)
    assert (result.status, result.stdout) == (tape.status, printed(tape.text))
    assert result.stderr.count("\n") == (tape.status != 0 or "tool" in result.stderr)
    assert result.stderr == "" or result.stderr.startswith("smai: ")


@pytest.mark.thorough
@tapes
def test_final_prints_only_a_complete_answer(smai: Smai, tape: Tape) -> None:
    result = smai("decode", "--final", stdin=tape.bytes)
    assert (result.status, result.stdout) == (tape.status, b"" if tape.status else printed(tape.text))


@pytest.mark.thorough
@tapes
def test_raw_copies_every_byte(smai: Smai, tape: Tape) -> None:
    result = smai("decode", "--raw", stdin=tape.bytes)
    assert (result.status, result.stdout) == (tape.status, tape.bytes)


@pytest.mark.thorough
@tapes
def test_jsonl_is_one_object_a_line_from_which_the_text_can_be_rebuilt(smai: Smai, tape: Tape) -> None:
    result = smai("decode", "--jsonl", stdin=tape.bytes)
    assert result.status == tape.status
    payloads = [json.loads(line, parse_constant=pytest.fail) for line in result.stdout.decode().split("\n")[:-1]]
    deltas = [
        (choice.get("delta") or choice.get("message") or {}).get("content") or ""
        for payload in payloads
        for choice in payload.get("choices", [])
        if choice.get("index", 0) == 0
    ]
    text = "".join(deltas).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert text == tape.text


@pytest.mark.thorough
@tapes
def test_json_summary_reports_success_and_failure(smai: Smai, tape: Tape) -> None:
    result = smai("decode", "--summary", "json", stdin=tape.bytes)
    summary = json.loads(result.stderr.splitlines()[-1])
    assert summary["exit_status"] == result.status == tape.status
    assert summary["complete"] == (tape.status == 0)
    assert (summary["error"] is None) == (tape.status == 0)
    assert summary["characters"] == len(tape.text)


def test_decode_reads_a_file_in_the_same_way_as_stdin(smai: Smai) -> None:
    assert smai("decode", STREAMS / "good.sse").stdout == b"Hello world\n"


def test_accept_length_makes_a_cut_answer_a_success(smai: Smai) -> None:
    assert smai("decode", "--accept", "length", stdin=BY_NAME["length"].bytes).status == 0
    assert smai("decode", "--accept", "content_filter", stdin=BY_NAME["content-filter"].bytes).status == 0
    assert smai("decode", "--accept", "content_filter", stdin=BY_NAME["length"].bytes).status == 9


def test_the_message_contains_the_refusal_of_the_model(smai: Smai) -> None:
    assert "I can't do that" in smai("decode", stdin=BY_NAME["refusal"].bytes).stderr


def test_100000_nested_brackets_are_a_malformed_event(smai: Smai) -> None:
    result = smai("decode", stdin=BY_NAME["cut-between-events"].bytes + b"data: " + b"[" * 100_000 + b"\n\n")
    assert (result.status, result.stdout) == (8, b"Hello \n")
    assert result.stderr.startswith("smai: an event is not JSON")
    assert len(result.stderr) < 300


@pytest.mark.thorough
def test_every_prefix_of_a_tape_gives_its_complete_events_and_status_8(smai: Smai, tmp_path: Path) -> None:
    ends = GOOD.index(b'"stop"}]}') + len(b'"stop"}]}')
    wholes = [(GOOD.index(text) + len(text) + len(b'"},"finish_reason":null}]}'), text) for text in _TEXTS]
    for length in range(0, len(GOOD) + 1, 7):
        tape = tmp_path / "prefix.sse"
        tape.write_bytes(GOOD[:length])
        result = smai("decode", tape)
        text = b"".join(text for end, text in wholes if length >= end).replace(b"\\n", b"\n")
        assert result.status == (0 if length >= ends else 8), length
        assert result.stdout == (text if text.endswith(b"\n") or not text else text + b"\n"), length


_TEXTS = (b"Hello ", b"world\\n")


def test_decode_delivers_each_delta_while_the_pipe_stays_open(environment: dict[str, str]) -> None:
    with subprocess.Popen(
        [SMAI, "decode"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=0
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(GOOD[: GOOD.index(b"world")])
        assert process.stdout.read(6) == b"Hello "
        process.stdin.write(GOOD[GOOD.index(b"world") :])
        # [DONE] ends the run although the pipe is still open.
        assert process.stdout.read(100) == b"world\n"
        assert process.wait(10) == 0


def test_decode_imports_nothing_that_takes_long_and_that_it_does_not_need(environment: dict[str, str]) -> None:
    """shutil and the modules for archives took 4 ms of its start."""
    python = SMAI.removesuffix("smai") + "python"
    code = "from smai_cli.main import main; main()"
    done = subprocess.run(
        [python, "-X", "importtime", "-c", code, "decode"], input=GOOD, capture_output=True, env=environment, check=True
    )
    assert done.stdout == b"Hello world\n"
    modules = {line.rsplit(b"|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert b"sseclient" in modules
    assert not modules & {b"requests", b"urllib3", b"http.client", b"shutil", b"bz2", b"lzma"}


@pytest.mark.parametrize(
    ("argument", "words"),
    [("/nonexistent.sse", "No such file or directory"), ("/", "Is a directory")],
)
def test_a_file_that_cannot_be_read_is_status_2(smai: Smai, argument: str, words: str) -> None:
    result = smai("decode", argument)
    assert (result.status, result.stdout) == (2, b"")
    assert words in result.stderr
