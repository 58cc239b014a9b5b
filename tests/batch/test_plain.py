"""Whatever is read by a pattern is what the parser would have read; and the lines that most files have are read so."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smai_cli.answer.chunk import Chunk
from smai_cli.answer.outcome import Outcome
from smai_cli.batch.input.encoding import Encoding
from smai_cli.batch.input.lines import FLAT, Defaults, LineError, plain_line, read_line
from smai_cli.batch.results.collector import Collector
from smai_cli.batch.results.result import Asked, _read_any, encode_result, plain_result, read_result
from smai_cli.errors import BrokenError

CHAT = Defaults(model="m", api="chat", system=None, parameters={}, extra_body={})
RESPONSES = Defaults(
    model="m", api="responses", system="be terse", parameters={"temperature": 0.5}, extra_body={"x": 1}
)
IDS = st.none() | st.text() | st.integers()
ODD = st.text('ab \n\t\x01\x7f"\\/\u00e9\u2028\U0001f600', max_size=6)


def both_ways(data: bytes, defaults: Defaults) -> tuple[Any, Any]:
    """Return what the pattern makes of a line, and what the parser does; None where it is no line at all."""
    encoding = Encoding()
    digest_of = encoding.digest_of_prompt(read_line(0, b'"?"', defaults))
    assert digest_of
    try:
        line = read_line(1, data, defaults)
        full = line.id, Encoding().digest(line)
    except LineError:
        full = None
    return plain_line(data, digest_of), full


@pytest.mark.parametrize("defaults", [CHAT, RESPONSES], ids=["chat", "responses"])
@pytest.mark.parametrize(
    "data",
    [
        b'{"id": "row-1", "prompt": "What is \\"this\\"?\\n"}\n',
        b'{"id":7,"prompt":"a\\tb"}',
        b'{"prompt":"Gr\xc3\xbc\xc3\x9fe"}\r\n',
        b'{"prompt": "x", "id": "behind"}\n',
        b'{"custom_id": "c", "prompt": "x"}\n',
    ],
)
def test_a_line_with_a_prompt_and_an_id_is_read_by_the_pattern(data: bytes, defaults: Defaults) -> None:
    plain, full = both_ways(data, defaults)
    assert plain == full is not None


@pytest.mark.parametrize(
    "data",
    [
        b'{"prompt":"\\u000a"}',
        b'{"prompt":"a\\/b"}',
        b'{"prompt":"a\\ud83d\\ude00"}',
        b'{"prompt":" "}',
        b'{"prompt":"a\xff"}',
        b'{"prompt":"a\nb"}',
        b'{"prompt":"a","model":"other"}',
        b'{"prompt":"a"}}',
        b'{"id":"a","prompt":"b","id":"c"}',
        b'{"id":01,"prompt":"b"}',
        b'{"id":1.0,"prompt":"b"}',
        b'{"id":null,"prompt":"b"}',
        b'"a"',
    ],
)
def test_any_other_line_is_left_to_the_parser(data: bytes) -> None:
    assert both_ways(data, CHAT)[0] is None


@given(
    name=IDS | ODD, prompt=st.text() | ODD, is_ascii=st.booleans(), is_dense=st.booleans(), end=st.binary(max_size=2)
)
@example(name=-0, prompt="a", is_ascii=False, is_dense=True, end=b"\r\n")
@example(name=10**17, prompt="a", is_ascii=False, is_dense=True, end=b"\n")
def test_what_the_pattern_reads_is_what_the_parser_reads(
    name: str | int | None, prompt: str, is_ascii: bool, is_dense: bool, end: bytes
) -> None:
    value = {"prompt": prompt} if name is None else {"id": name, "prompt": prompt}
    text = json.dumps(value, ensure_ascii=is_ascii, separators=(",", ":") if is_dense else None)
    plain, full = both_ways(text.encode(errors="surrogatepass") + end, RESPONSES)
    assert plain in (None, full)


def result(name: str | int | None, text: str, copy: int = 1, error: BrokenError | None = None, **handed: Any) -> bytes:
    outcome = Outcome(model="m")
    collector = Collector()
    for chunk in (Chunk(text=text, choice_index=0), Chunk(finish_reason="stop", choice_index=0), Chunk(done=True)):
        outcome.add(chunk)
        collector.chunk(chunk)
    outcome.end(error)
    asked = Asked(3, name, hashlib.sha256(text.encode(errors="replace")).digest(), copy, FLAT, handed)
    return encode_result(asked, collector.answer(outcome))


@given(name=IDS | ODD, text=st.text() | ODD, copy=st.integers(1, 3))
def test_a_complete_result_is_read_by_the_pattern_as_the_parser_reads_it(
    name: str | int | None, text: str, copy: int
) -> None:
    line = result(name, text, copy)
    assert read_result(line) == _read_any(line) is not None


@pytest.mark.parametrize("text", ["", "Hello\n", 'a "quoted" \\ text', "Gr\u00fc\u00dfe \U0001f600"])
def test_a_complete_result_without_more_needs_no_parser(text: str) -> None:
    assert plain_result(result("row-1", text))


def test_no_other_line_of_results_is_taken_for_one() -> None:
    whole = result("row-1", "Hello")
    others = [whole[:at] for at in range(len(whole))]
    others += [whole[:at] + b"\0" + whole[at + 1 :] for at in range(len(whole))]
    others += [whole[:at] + whole for at in range(1, len(whole))]
    others += [result("a", "b", error=BrokenError("cut", "ask again")), result("a", "b", more=1)]
    wrong = [line for line in others if plain_result(line) and _read_any(line) != read_result(line)]
    assert wrong == []
    assert all(_read_any(line) == read_result(line) for line in others)
