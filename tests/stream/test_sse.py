"""Bytes to events: the WHATWG rules that matter to a stream of JSON, for every split into pieces."""

import json
import sys
import time
from collections.abc import Iterable, Iterator
from types import FrameType

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tapes import GOOD, TAPES

from smai_cli.errors import BrokenError
from smai_cli.stream import sse

CUT = "(the stream ended within an event)"
VECTORS = [
    pytest.param(b"data: a\n\n", ["a"], id="one event"),
    pytest.param(b"data: a\n\ndata: b\n\n", ["a", "b"], id="two events"),
    pytest.param(b"data: a\r\n\r\n", ["a"], id="CRLF"),
    pytest.param(b"data: a\r\rdata: b\r\r", ["a", "b"], id="CR"),
    pytest.param(b"data:a\n\r\ndata:b\n\n", ["a", "b"], id="LF CRLF"),
    pytest.param(b"data:a\r\n\rdata:b\n\n", ["a", "b"], id="CRLF CR"),
    pytest.param(b"data:a\r\r\ndata:b\n\n", ["a", "b"], id="CR CRLF"),
    pytest.param(b"data:a\n\rdata:b\n\n", ["a", "b"], id="LF CR"),
    pytest.param(b"data:a\r\ndata:b\r\n\r\n", ["a\nb"], id="CRLF between two lines of one event"),
    pytest.param(b"\xef\xbb\xbfdata: a\n\n", ["a"], id="BOM"),
    pytest.param(b"\xef\xbb\xbf\n\ndata: a\n\n", ["a"], id="BOM, blank line"),
    pytest.param(b"data: a\n\n\xef\xbb\xbfdata: b\n\n", ["a"], id="BOM later is part of a field name"),
    pytest.param(b"data: \xef\xbb\xbfa\n\n", ["\ufeffa"], id="BOM inside data"),
    pytest.param(b": hi\n\n:\n\ndata: a\n\n", ["a"], id="comments"),
    pytest.param(b": hi\ndata: a\n: ho\n\n", ["a"], id="comments inside an event"),
    pytest.param(b"data:a\n\n", ["a"], id="no space"),
    pytest.param(b"data:  a \n\n", [" a "], id="one space belongs to the syntax"),
    pytest.param(b"data:\ta\n\n", ["\ta"], id="a tab does not"),
    pytest.param(b"data: a: b\n\n", ["a: b"], id="colon in the value"),
    pytest.param(b"data: a\ndata\ndata: b\n\n", ["a\n\nb"], id="data without a colon"),
    pytest.param(b"data: a\ndata: b\n\n", ["a\nb"], id="multi-line data"),
    pytest.param(b"event: x\n\ndata: a\n\n", ["a"], id="an event without data is none"),
    pytest.param(b"id: 1\nretry: x\nfoo: bar\nDATA: no\n data: no\ndata: a\n\n", ["a"], id="other fields"),
    pytest.param(b"data: a\x00b\n\n", ["a\x00b"], id="NUL"),
    pytest.param("data: \u2028\u2029\x85\x0b\x0c\n\n".encode(), ["\u2028\u2029\x85\x0b\x0c"], id="separators are text"),
    pytest.param("data: äöü😀\n\n".encode(), ["äöü😀"], id="UTF-8"),
    pytest.param(b"data: a\xffb\xc3\n\n", ["a\ufffdb\ufffd"], id="invalid UTF-8"),
    pytest.param(b"\n\n\n\ndata: a\n\n\n\n\n", ["a"], id="blank lines"),
    pytest.param(b"data: [DONE]", ["[DONE]"], id="tail: [DONE]"),
    pytest.param(b"data: [DONE]\n", ["[DONE]"], id="tail: [DONE] and one line end"),
    pytest.param(b'data: {"a":1}', ['{"a":1}'], id="tail: whole JSON"),
    pytest.param(b'data: {"a":1', [CUT], id="tail: cut JSON"),
    pytest.param(b"data: [DO", [], id="tail: cut [DONE]"),
    pytest.param(b"data: 12", [], id="tail: a number may be cut"),
    pytest.param(b"data: a\n", [], id="tail: not provably whole"),
    pytest.param(b"data: \xff", [], id="tail: invalid UTF-8"),
    pytest.param(b"data:  [DONE] ", [" [DONE] "], id="tail: [DONE] between spaces"),
    pytest.param(b"data: " + b"[" * 1500, [CUT], id="tail: brackets too deep to be JSON"),
    pytest.param(b"event: error\n\ndata: a\n\n", ["", "a"], id="an error event without data"),
    pytest.param(b"event:error\n\ndata: a\n\n", ["", "a"], id="the same without a space"),
    pytest.param(b"id: 1\nevent: Error \n: hm\n\ndata: a\n\n", ["", "a"], id="the same among other lines"),
    pytest.param(b"event: error\nevent: error\nid: 1\n\ndata: a\n\n", ["", "a"], id="the same named twice"),
    pytest.param(b"event: error\ndata: a\n\n", ["a"], id="an error event with data"),
    pytest.param(b"data: a\nevent: error\n\n", ["a"], id="an error event, its data first"),
    pytest.param(b"data: a\n\nevent: error\n", ["a", ""], id="tail: an error event without data"),
    pytest.param(b' data: {"a":1}\n\n', ['{"a":1}'], id="JSON, its field indented (BerriAI/litellm PR 26569)"),
    pytest.param(b"Data: [1]\n\ndata : [2]\n\ndata: b\n\n", ["[1]", "[2]", "b"], id="JSON, its field written oddly"),
    pytest.param(b'\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: {"a":1}\n\n', ["a", '{"a":1}'], id="a BOM in each event"),
    pytest.param(b'data: a\n  {"a":\n1}\n\n', ["a", '  {"a":\n1}'], id="JSON without a field, indented"),
    pytest.param(b"event: error\n{}\n\n", ["{}"], id="an error event, its data without a field"),
    pytest.param(b"event: ping\n\ndata: a\n\n", ["a"], id="another event without data"),
    pytest.param(b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", ["b"], id="two BOMs: one is stripped"),
    pytest.param(b"", [], id="nothing"),
]


def data_of_events(pieces: Iterable[bytes]) -> list[str]:
    """Return the data of each event, and CUT for a stream that ends within the JSON of one."""
    read: list[str] = []
    try:
        read.extend(event.data for event in sse.events(pieces))
    except BrokenError as error:
        if "within an event" not in error.describe():
            raise
        read.append(CUT)
    return read


@pytest.mark.parametrize(("stream", "expected"), VECTORS)
def test_a_stream_has_the_same_events_in_one_piece_two_pieces_and_byte_by_byte(
    stream: bytes, expected: list[str]
) -> None:
    assert data_of_events([stream]) == expected
    assert data_of_events(bytes([byte]) for byte in stream) == expected
    for cut in range(len(stream) + 1):
        assert data_of_events([stream[:cut], stream[cut:]]) == expected, cut


@given(data=st.data(), tape=st.sampled_from([tape for tape in TAPES if len(tape.bytes) > 1]))
def test_any_split_of_a_stream_into_pieces_gives_the_same_events(data: st.DataObject, tape: object) -> None:
    stream: bytes = tape.bytes  # type: ignore[attr-defined]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert data_of_events(pieces) == data_of_events([stream])


NOISE = st.lists(
    st.sampled_from([b"\n", b"\r", b":", b"data:", b"error:", b"err", b"event: x"]) | st.binary(max_size=9)
)


@given(NOISE.map(b"".join))
@example(b"data:\nerror:\n:")  # what follows the field error is not of the same event
def test_arbitrary_bytes_give_events_or_a_failure(noise: bytes) -> None:
    assert data_of_events([noise]) == data_of_events(bytes([byte]) for byte in noise)


def test_an_event_is_yielded_before_the_next_piece_is_read() -> None:
    asked = []

    def pieces() -> Iterator[bytes]:
        for piece in (b"data: a\n", b"\n", b"data: b\r\n\r", b"\n"):
            asked.append(piece)
            yield piece

    events = sse.events(pieces())
    assert next(events).data == "a"
    assert len(asked) == 2
    assert next(events).data == "b"
    assert len(asked) == 3


def test_the_name_of_an_event_is_kept() -> None:
    (event,) = sse.events([b"event: error\ndata: x\n\n"])
    assert (event.event, event.data) == ("error", "x")


ERRORS = [
    pytest.param(b'error: {"a":1}\n\n', [("error", '{"a":1}')], id="alone"),
    pytest.param(b'error:{"a":1}\n\n', [("error", '{"a":1}')], id="no space"),
    pytest.param(
        b'data: a\n\nerror: {"a":1}\n\ndata: [DONE]\n\n',
        [("message", "a"), ("error", '{"a":1}'), ("message", "[DONE]")],
        id="between events",
    ),
    pytest.param(
        b'data: a\r\n\r\nerror: {"a":1}\r\n\r\ndata: [DONE]\r\n\r\n',
        [("message", "a"), ("error", '{"a":1}'), ("message", "[DONE]")],
        id="CRLF",
    ),
    pytest.param(b"error: x\r\rdata: b\r\r", [("error", "x"), ("message", "b")], id="CR"),
    pytest.param(
        b"event: x\ndata: a\nerror: {}\ndata: b\n\n",
        [("x", "a"), ("error", "{}"), ("message", "b")],
        id="in an event with data",
    ),
    pytest.param(b": error: a\nerror: b\n: c\n\n", [("error", "b")], id="among comments"),
    pytest.param(b"\xef\xbb\xbferror: a\n\n", [("error", "a")], id="after a BOM"),
    pytest.param(b"error: \xff\n\n", [("error", "\ufffd")], id="invalid UTF-8"),
    pytest.param(b"error: a\nerror: b\n\n", [("error", "a"), ("error", "b")], id="two of them"),
    pytest.param(b'error: {"a":1}', [("error", '{"a":1}')], id="tail: whole JSON"),
    pytest.param(b"data: [DONE]\nerr", [("message", "[DONE]")], id="tail: the beginning of one"),
    pytest.param(b"errors: a\nerro: b\nERROR: c\n error: d\nerror\ndata: e\n\n", [("message", "e")], id="others"),
    pytest.param(b"data: error: a\ndata:\ndata: error: b\n\n", [("message", "error: a\n\nerror: b")], id="in data"),
    pytest.param(b"event: error\ndata: a\n\n", [("error", "a")], id="the event that it should have been"),
    pytest.param(b"event: ping\ndata: a\n\n", [("ping", "a")], id="an event of another name"),
]


@pytest.mark.parametrize(("stream", "expected"), ERRORS)
def test_the_field_error_of_llama_cpp_is_an_error_event(stream: bytes, expected: list[tuple[str, str]]) -> None:
    def named(pieces: Iterable[bytes]) -> list[tuple[str, str]]:
        return [(event.event, event.data) for event in sse.events(pieces)]

    assert named([stream]) == expected
    assert named(bytes([byte]) for byte in stream) == expected
    for cut in range(len(stream) + 1):
        assert named([stream[:cut], stream[cut:]]) == expected, cut


def test_an_error_field_is_an_event_at_the_end_of_its_line() -> None:
    def pieces() -> Iterator[bytes]:
        yield b"error: a\n"
        pytest.fail("nothing more was needed")

    assert next(iter(sse.events(pieces()))).data == "a"


def test_an_event_above_16_mib_stops_the_stream_without_collecting_it() -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        yield b"data: "
        while True:
            taken += 1
            yield b"x" * 65536

    with pytest.raises(BrokenError, match="larger than 16 MiB"):
        data_of_events(endless())
    assert taken == 256


def test_an_event_of_16_mib_is_accepted() -> None:
    big = json.dumps({"a": "x" * (sse.MAX_EVENT_BYTES - 100)}).encode()
    assert len(data_of_events([b"data: ", big, b"\n\n"])[0]) == len(big)


@pytest.mark.parametrize("size", [7, 65536], ids=["small reads", "large reads"])
def test_an_event_of_more_than_10000_lines_stops_the_stream(size: int) -> None:
    stream = b"data:\n" * 22_000 + b"\n"  # more than one read: a limit holds where one ends within an event
    with pytest.raises(BrokenError, match="10000 lines"):
        data_of_events(stream[start : start + size] for start in range(0, len(stream), size))


def test_comments_do_not_count_toward_the_size_of_an_event() -> None:
    comment = b": ping" + b"!" * 57 + b"\n"
    comments = comment * (sse.MAX_EVENT_BYTES // len(comment) + 1)
    assert comments.count(b"\n") > sse.MAX_EVENT_LINES
    stream = comments + b"data: a\n" + comments + b"\n"
    assert data_of_events(stream[at : at + 65521] for at in range(0, len(stream), 65521)) == ["a"]


def test_an_endless_comment_is_not_collected() -> None:
    pieces = [b":", *[b"x" * 65536] * 300, b"\ndata: a\n\n"]
    assert data_of_events(pieces) == ["a"]


@pytest.mark.parametrize(("lines", "length"), [(9000, 14), (300, 15)])
def test_an_event_of_many_long_lines_stops_the_stream_quickly(lines: int, length: int) -> None:
    stream = (b"data: " + b"x" * (length * 1024 * 1024 // lines) + b"\n") * lines + b"\n"
    begun_s = time.process_time()
    with pytest.raises(BrokenError, match="too large in both"):
        data_of_events(stream[at : at + 65536] for at in range(0, len(stream), 65536))
    assert time.process_time() - begun_s < 2  # it takes 0.1 s; taking the first apart 8 s and more


@pytest.mark.parametrize(("lines", "length"), [(9999, 90), (250, 65000)])
def test_an_event_of_many_lines_or_of_long_lines_is_accepted(lines: int, length: int) -> None:
    stream = (b"data: " + b"x" * length + b"\n") * lines + b"\n"
    (data,) = data_of_events(stream[at : at + 65536] for at in range(0, len(stream), 65536))
    assert len(data) == lines * (length + 1) - 1


def test_the_time_for_a_large_event_does_not_grow_with_the_number_of_its_pieces() -> None:
    comments, event = b": ping\n\n" * 6000, b"data: " + b"x" * (4 << 20) + b"\n\n"
    begun_s = time.process_time()
    stream = comments + event
    assert len(data_of_events(stream[at : at + 1024] for at in range(0, len(stream), 1024))) == 1
    assert time.process_time() - begun_s < 2  # it takes 0.1 s; a search from the start each time 5 s and more


def test_many_small_events_in_one_piece_are_not_one_large_event() -> None:
    assert len(data_of_events([b"data: a\n\n" * 20_000])) == 20_000


def test_a_long_stream_is_read_in_pieces_of_any_size() -> None:
    stream = GOOD.replace(b"data: [DONE]\n\n", b"") * 50
    for size in (1, 3, 1000):
        assert len(data_of_events(stream[start : start + size] for start in range(0, len(stream), size))) == 200


def test_an_event_of_one_line_is_not_searched_for_what_the_specification_discards() -> None:
    """Most pieces are such an event, and the search took 6 % of its time."""
    searched = 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal searched
        searched += event == "call" and frame.f_code.co_name == "_mended"

    sys.setprofile(count)
    try:
        plain = list(sse.events([b'data: {"a": 1}\n\n'] * 10))
        assert (len(plain), searched) == (10, 0)
        odd = list(sse.events([b'event: a\ndata: {"a": 1}\n\n'] * 10))
        assert (len(odd), searched) == (10, 10)
    finally:
        sys.setprofile(None)
