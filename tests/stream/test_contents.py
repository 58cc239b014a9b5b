"""Nothing is dropped: a value in place of a text is text, or not part of the answer, or a failure."""

import json
import re
from typing import Any

import pytest
from conftest import Smai
from contents import CALLS, CONTENTS, MEDIA, NUMBERS, TEXTS, UNREAD, Content
from hypothesis import given
from hypothesis import strategies as st
from pumping import WHOLE_MODES, Pieces, Sink, run_pump

from smai_cli.answer.outcome import Outcome
from smai_cli.apis import choose_api
from smai_cli.batch.results.collector import Collector
from smai_cli.output.listeners import Calls, SavedTurn
from smai_cli.output.modes import MODES
from smai_cli.output.writers import Text, Writers
from smai_cli.stream import pump
from smai_cli.stream.listener import Listener


def name_of(content: Content) -> str:
    return content.name


def bodies(content: Content) -> list[bytes]:
    return [content.stream, *([content.body] if content.body else [])]


def judge(body: bytes, writer: Listener, dialect: str = "chat") -> Outcome:
    outcome = Outcome()
    outcome.choices = 1
    pump.pump(Pieces(body), choose_api(dialect, "").load(), writer, outcome)
    return outcome


@pytest.mark.parametrize("content", CONTENTS, ids=name_of)
def test_the_text_of_a_content_is_printed_and_a_part_that_cannot_be_read_is_a_failure(content: Content) -> None:
    for body in bodies(content):
        for mode in WHOLE_MODES:
            outcome, writes = run_pump(Pieces(body), mode, due=1)
            written = b"".join(writes).decode()
            if mode in ("raw", "jsonl"):
                assert (outcome.status, outcome.error) == (0, None), (mode, body)
                continue
            assert outcome.status == content.status, (mode, body, outcome.error)
            assert written.removesuffix("\n") == ("" if mode == "final" and content.status else content.text)


def with_calls() -> Writers:
    sink = Sink()
    return Writers([Text(sink), Calls(sink)])


@pytest.mark.parametrize("content", CONTENTS, ids=name_of)
def test_an_output_with_calls_needs_every_call(content: Content) -> None:
    for body in bodies(content):
        assert judge(body, with_calls()).status == content.calls_status, body
        assert judge(body, Writers([Text(Sink()), SavedTurn(lambda _: None)])).status == content.calls_status, body
        assert judge(body, Collector()).status == content.batch_status, body


@pytest.mark.preloaded
@pytest.mark.parametrize("content", [*UNREAD, *MEDIA], ids=name_of)
def test_the_message_names_what_was_not_delivered(smai: Smai, content: Content) -> None:
    result = smai("decode", stdin=content.stream)
    assert result.status == content.status
    if content.status == 8:
        assert re.fullmatch(r"smai: .*cannot read a part of it: \S.*; --raw shows what came\n", result.stderr)
    elif content.status == 4:
        expected = r"smai: the answer contains (an image|audio|a video|a file), which is not text; .*--jsonl.*\n"
        assert re.fullmatch(expected, result.stderr)
    else:
        assert result.stderr == ""


@pytest.mark.preloaded
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(content, marks=pytest.mark.nightly if number % 5 else pytest.mark.thorough)
        for number, content in enumerate([*TEXTS, *CALLS])
    ],
    ids=name_of,
)
def test_decode_and_ask_have_the_same_verdict(smai: Smai, content: Content) -> None:
    for body in bodies(content):
        assert smai("decode", stdin=body).status == content.status
        assert smai("decode", "--final", stdin=body).status == content.status
        assert smai("decode", "--tool-calls", stdin=body).status == content.calls_status
        assert smai("decode", "--raw", stdin=body).status == 0


# The Responses API has the same places.


def event(kind: str, members: str) -> str:
    return f'event: {kind}\ndata: {{"type":"{kind}",{members}}}\n\n'


def responses_with(value: str) -> list[str]:
    """Return answers of the Responses API with `value` in place of each text."""
    message = f'{{"type":"message","content":[{{"type":"output_text","text":{value}}}]}}'
    at = '"output_index":0,"content_index":0'
    end = event("response.completed", '"response":{"status":"completed","output":[]}')
    return [
        event("response.output_text.delta", f'{at},"delta":{value}') + end,
        event("response.output_text.done", f'{at},"text":{value}') + end,
        event("response.content_part.done", f'{at},"part":{{"type":"output_text","text":{value}}}') + end,
        event("response.output_item.done", f'"output_index":0,"item":{message}') + end,
        event("response.completed", f'"response":{{"status":"completed","output":[{message}]}}'),
        event("response.completed", f'"response":{{"status":"completed","output":{message}}}'),
        f'{{"object":"response","status":"completed","output":[{message}]}}',
    ]


@pytest.mark.parametrize(
    ("value", "text"), [*((number, number) for number in NUMBERS), ("true", "true"), ('"a"', "a"), ("null", "")]
)
def test_a_scalar_as_a_text_of_the_responses_api_is_printed(value: str, text: str) -> None:
    for answer in responses_with(value):
        sink = Sink()
        assert judge(answer.encode(), Text(sink), "responses").status == 0, answer
        assert b"".join(sink.writes).decode().removesuffix("\n") == text, answer


def test_an_object_as_a_text_of_the_responses_api_is_reported_as_unread() -> None:
    for answer in responses_with('{"a":"b"}'):
        assert judge(answer.encode(), Text(Sink()), "responses").status == 8, answer
        assert judge(answer.encode(), Collector(), "responses").status == 8, answer


ITEMS: list[tuple[dict[str, Any], int, int]] = [
    ({"type": "image_generation_call", "result": "AA=="}, 4, 4),
    ({"type": "image_generation_call", "status": "failed", "result": None}, 0, 0),
    ({"type": "message", "content": [{"type": "output_audio", "data": "AA=="}]}, 4, 4),
    ({"type": "computer_call", "call_id": "c", "action": {"type": "click"}}, 0, 8),
    ({"type": "function_call", "call_id": "c", "arguments": "{}"}, 0, 8),
    ({"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "x"}, 0, 0),
    ({"type": "web_search_call", "id": "w", "status": "incomplete"}, 0, 0),
    ({"type": "x_search_call", "id": "x", "status": "completed"}, 0, 0),
    ({"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}, 0, 0),
    # API reference, output items.
    ({"type": "program", "call_id": "c", "code": "f()", "fingerprint": "p"}, 0, 0),
    ({"type": "additional_tools", "role": "developer", "tools": [{"type": "function", "name": "f"}]}, 0, 0),
    ({"type": "mcp_approval_response", "approval_request_id": "m", "approve": True}, 0, 0),
    ({"type": "mcp_approval_request", "id": "m", "name": "f", "arguments": "{}"}, 0, 8),
    ({"type": "novelty", "blob": "?"}, 8, 8),
]


@pytest.mark.parametrize(("item", "status", "calls_status"), ITEMS)
def test_an_output_item_other_than_text_is_delivered_or_a_failure(
    item: dict[str, Any], status: int, calls_status: int
) -> None:
    text = {"type": "message", "content": [{"type": "output_text", "text": "a"}]}
    for output in ([item, text], [text, item]):
        answer = json.dumps({"object": "response", "status": "completed", "output": output}).encode()
        sink = Sink()
        assert judge(answer, Text(sink), "responses").status == status
        assert b"".join(sink.writes) == b"a\n"
        assert judge(answer, with_calls(), "responses").status == calls_status
        assert judge(answer, MODES["raw"].make(Sink()), "responses").status == 0


# Shells: OpenAI's guide to the shell tool. Azure: learn.microsoft.com, Azure.AI.Extensions.OpenAI, AgentResponseItem.
@pytest.mark.parametrize("kind", ["shell_call", "azure_ai_search_call", "bing_grounding_call"])
def test_a_call_that_the_server_has_run_need_not_be_delivered(kind: str) -> None:
    call = {"type": kind, "id": "i", "call_id": "c", "status": "completed"}
    other = {**call, "id": "j", "call_id": "d"}
    result = {"type": f"{kind}_output", "id": "r", "call_id": "c", "output": "?"}
    text = {"type": "message", "content": [{"type": "output_text", "text": "a"}]}
    for output, status in (
        ([call, result, text], 0),
        ([text, call, result], 0),
        ([call, text], 8),
        ([call, {**result, "call_id": "d"}, text], 8),
        ([call, other, result, text], 8),
        ([{**call, "call_id": None}, {**result, "call_id": None}, text], 8),
    ):
        events = [
            event(f"response.output_item.{what}", f'"output_index":{at},"item":{json.dumps(item)}')
            for at, item in enumerate(output)
            for what in ("added", "done")
        ]
        for listed in (output, []):
            end = event("response.completed", f'"response":{{"status":"completed","output":{json.dumps(listed)}}}')
            answer = ("".join(events) + end).encode()
            assert judge(answer, with_calls(), "responses").status == status, answer
            assert judge(answer, Collector(), "responses").status == status, answer
            assert judge(answer, Text(Sink()), "responses").status == 0, answer
        whole = json.dumps({"object": "response", "status": "completed", "output": output}).encode()
        assert judge(whole, Collector(), "responses").status == status, whole


# Whatever the order.

TEXT_PLACES = st.one_of(
    st.text().map(json.dumps),
    st.sampled_from([*NUMBERS, "true"]),
    st.lists(st.text().map(lambda text: {"type": "text", "text": text})).map(json.dumps),
)
OTHERS = st.sampled_from(
    [
        '{"blob":"?"}',
        '[["a"]]',
        '[{"type":"image_url","image_url":{}}]',
        '[{"type":"thinking","thinking":"hm"}]',
        "null",
    ]
)
DELTAS = st.one_of(
    TEXT_PLACES.map(lambda value: f'{{"content":{value}}}'),
    TEXT_PLACES.map(lambda value: f'{{"role":"assistant","content":{value}}}'),
    OTHERS.map(lambda value: f'{{"content":{value}}}'),
    st.just('{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{}"}}]}'),
    st.just('{"images":[{"type":"image_url"}]}'),
)


def text_in(delta: str) -> str | None:
    """Return the text of a delta of this test; None for one that is not only text."""
    kept = json.loads(delta, parse_int=str, parse_float=str, parse_constant=str)
    content = kept.get("content", "")
    if content is True:
        return "true"
    if isinstance(content, str):
        return None if "images" in kept else content
    texts = []
    for part in content if isinstance(content, list) else [content or {"type": "thinking"}]:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("text", "thinking"):
            return None
        texts.append(part["text"] if kind == "text" else "")
    return "".join(texts)


@given(st.lists(DELTAS, max_size=8))
def test_status_0_in_a_text_mode_implies_that_all_text_is_on_stdout(deltas: list[str]) -> None:
    content = Content("random", tuple(deltas))
    outcome, writes = run_pump(Pieces(content.stream), due=1)
    texts = [text_in(delta) for delta in content.deltas]
    written = b"".join(writes).decode()
    if outcome.status == 0:
        assert None not in texts
        text = "".join(text for text in texts if text)
        whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        assert written == (whole if not whole or whole.endswith("\n") else whole + "\n")
    else:
        assert None in texts, outcome.error


def test_content_that_is_false_next_to_a_finish_reason_is_ignored() -> None:
    body = b'data: {"choices":[{"delta":{"content":false},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    sink = Sink()
    assert judge(body, Text(sink)).status == 0
    assert sink.writes == []
