"""Plain deltas take a fast path through the dialects, the answer and the outcome; the result must be the same."""

import json
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pumping import Pieces, run_pump

# A null error is not an error, but keeps a delta off the fast path.
NOT_PLAIN = {"error": None}


class Stream(NamedTuple):
    """The events of a stream, its API, how it ends, and how many choices were requested."""

    events: list[tuple[str, dict[str, Any]]]
    dialect: str
    is_done: bool
    is_framed: bool
    due: int | None

    def tape(self, more: dict[str, Any]) -> bytes:
        events = [f"event: {name}\ndata: {json.dumps({**payload, **more})}\n\n" for name, payload in self.events]
        return ("".join(events) + ("data: [DONE]\n\n" if self.is_done else "")).encode()


TEXTS = st.sampled_from(["", "a", "a", "b", "ab", "abc", " ", "\u00e4", "\ud83d", "\ude00", 7, None, {"blob": 1}])
MEMBERS = st.dictionaries(
    st.sampled_from(["role", "refusal", "reasoning", "text", "name", "images"]),
    st.sampled_from([None, "", "assistant", "a stray text of some length", ["x"]]),
    max_size=1,
)
DELTAS = st.builds(lambda text, members: {"content": text, **members}, TEXTS, st.one_of(st.just({}), MEMBERS))
CHOICES = st.builds(
    lambda delta, index, reason, odd: {"index": index, "delta": delta, **reason, **odd},
    DELTAS,
    st.sampled_from([0, 0, 0, 1, 2]),
    st.sampled_from([{}, {}, {}, {"finish_reason": None}, {"finish_reason": "stop"}, {"finish_reason": "length"}]),
    st.sampled_from([{}, {}, {}, {"message": {"content": "abc"}}, {"text": "a"}, {"content": "a text of some length"}]),
)
CHUNKS = st.builds(
    lambda choices, odd: ("message", {"object": "chat.completion.chunk", "model": "m", "choices": choices, **odd}),
    st.one_of(CHOICES.map(lambda choice: [choice]), st.lists(CHOICES, max_size=2)),
    st.sampled_from([{}, {}, {}, {}, {"object": "error", "message": "no"}, {"type": "error"}, {"usage": {}}]),
)
PLACES = st.sampled_from([{}, {"output_index": 0, "content_index": 0}, {"output_index": 1, "content_index": 0}])
RESPONSE_EVENTS = st.one_of(
    st.builds(lambda text, place: ("output_text.delta", {"delta": text, **place}), TEXTS, PLACES),
    st.builds(lambda text, place: ("output_text.delta", {"delta": text, **place}), TEXTS, PLACES),
    st.builds(lambda text, place: ("output_text.done", {"text": text, **place}), TEXTS, PLACES),
    st.builds(
        lambda texts: (
            "completed",
            {"response": {"status": "completed", "output": [{"content": text} for text in texts]}},
        ),
        st.lists(TEXTS, max_size=2),
    ),
).map(lambda event: (f"response.{event[0]}", {"type": f"response.{event[0]}", **event[1]}))
STREAMS = st.builds(
    lambda parts, is_done, is_framed, due: Stream(parts[1], parts[0], is_done, is_framed, due),
    st.one_of(
        st.tuples(st.just("chat"), st.lists(CHUNKS, max_size=8)),
        st.tuples(st.just("responses"), st.lists(RESPONSE_EVENTS, max_size=8)),
    ),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, 1, 1, 2]),
)


def assert_the_same_either_way(stream: Stream) -> None:
    verdicts = []
    for more in ({}, NOT_PLAIN):
        source = Pieces(stream.tape(more), is_framed=stream.is_framed)
        outcome, writes = run_pump(source, dialect=stream.dialect, due=stream.due)
        error = outcome.error and outcome.error.describe()
        verdicts.append((outcome.status, error, b"".join(writes), outcome.characters, outcome.finish_reason))
    assert verdicts[0] == verdicts[1]


def plain(text: str, index: int) -> tuple[str, dict[str, Any]]:
    return "message", {"model": "m", "choices": [{"index": index, "delta": {"content": text}}]}


STOP = ("message", {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
TWO_IN_TURN = [plain("a", 0), plain("b", 0), plain("c", 1), plain("d", 0), STOP]


@given(STREAMS)
@example(Stream(TWO_IN_TURN, "chat", is_done=True, is_framed=True, due=1))
def test_the_fast_and_the_slow_path_have_the_same_verdict_and_text(stream: Stream) -> None:
    assert_the_same_either_way(stream)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@settings(max_examples=40_000)
@given(STREAMS)
def test_the_fast_and_the_slow_path_agree_on_forty_thousand_streams(stream: Stream) -> None:
    assert_the_same_either_way(stream)
