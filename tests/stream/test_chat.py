"""The chat dialect: requests out, chunks in."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smai_cli.answer.chunk import Usage
from smai_cli.common.text import Joiner
from smai_cli.errors import BrokenError, RefusedError
from smai_cli.mock.script import Script, chat_events, reply_deltas
from smai_cli.prompt.request import Message, Request, build_messages
from smai_cli.stream.dialects import chat
from smai_cli.stream.sse import events as read_events

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.text(), st.none() | st.text())
def test_any_text_passes_unchanged_through_the_request_body(prompt: str, system: str | None) -> None:
    request = Request("m", build_messages(prompt, system), {"temperature": 0.5}, include_usage=True)
    sent = json.loads(chat.encode_request(request))
    assert [Message(**message) for message in sent.pop("messages")] == list(request.messages)
    assert sent == {"model": "m", "temperature": 0.5, "stream": True, "stream_options": {"include_usage": True}}


@given(st.text())
def test_every_unicode_character_passes_unchanged_through_the_mock_and_the_parser(reply: str) -> None:
    joiner = Joiner()
    chunks = [
        chat.parse_event(event.data, event.event)
        for event in read_events(chat_events(Script(reply=reply), {"model": "m", "messages": []}))
    ]
    assert "".join(joiner.whole(chunk.text) for chunk in chunks) == reply
    assert chunks[-1].done
    assert "".join(reply_deltas(reply)) == reply


@given(st.dictionaries(st.sampled_from(["choices", "error", "usage", "model", "id"]), JSON))
def test_any_json_object_is_parsed_or_refused(payload: dict[str, Any]) -> None:
    chat.parse_event(json.dumps(payload), "message")


@given(st.text())
def test_any_text_is_parsed_or_refused(data: str) -> None:
    for parse in (chat.parse_event, chat.parse_body):
        with contextlib.suppress(BrokenError, RefusedError):
            parse(data)


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ({"delta": {"content": "a"}}, "a"),
        ({"index": 0, "delta": {"content": "a", "role": "assistant"}}, "a"),
        ({"index": 1, "delta": {"content": "a"}}, "a"),
        ({"delta": {"content": None}}, ""),
        ({"delta": None}, ""),
        ({"delta": {"content": [{"type": "text", "text": "a"}, {"type": "image"}, {"text": "b"}]}}, "ab"),
        ({"delta": {"content": 7}}, "7"),
        ({"delta": {"reasoning_content": "a"}}, ""),
    ],
)
def test_the_text_of_a_delta_is_read_from_every_format(choice: dict[str, Any], text: str) -> None:
    assert chat.parse_event(json.dumps({"choices": [choice]}), "message").text == text


def test_usage_and_model_are_read_and_the_line_is_unchanged() -> None:
    data = '{ "model":"m", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3} }'
    chunk = chat.parse_event(data, "message")
    assert (chunk.usage, chunk.model, chunk.data) == (Usage(1, 2, 3), "m", data)


def test_a_completion_in_an_envelope_is_passed_on_without_it() -> None:
    completion = {"choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}]}
    chunk = chat.parse_body(json.dumps({"success": True, "data": completion}))
    assert (chunk.text, chunk.finish_reason, json.loads(chunk.data)) == ("a", "stop", completion)


def test_pretty_printed_json_is_put_on_one_line() -> None:
    assert chat.parse_event('{\n "a": "é\u2028"\n}', "message").data == '{"a": "\\u00e9\\u2028"}'


@pytest.mark.parametrize(
    "data", ["[]", "1", "NaN", '{"a": NaN, "b"}', '"x"', "{", "[" * 100_000, '{"a":' + "1" * 5000 + "}"]
)
def test_data_that_is_not_an_object_breaks_the_stream(data: str) -> None:
    with pytest.raises(BrokenError):
        chat.parse_event(data, "message")


@pytest.mark.parametrize(
    ("data", "name", "words"),
    [
        ('{"error": {"message": "m", "code": "c", "type": "t"}}', "message", "m (c)"),
        ('{"error": {"message": "m", "type": "t", "code": null}}', "message", "m (t)"),
        ('{"error": "overloaded"}', "message", "overloaded"),
        ('{"message": "m", "code": 529}', "error", "m (529)"),
        ("plain words", "error", "plain words"),
    ],
)
def test_an_error_has_the_servers_message(data: str, name: str, words: str) -> None:
    assert str(chat.parse_event(data, name).api_error) == words


def test_fields_of_the_wrong_type_are_ignored() -> None:
    chunk = chat.parse_event('{"model": 5, "usage": {"prompt_tokens": "7", "total_tokens": 1.5}}')
    assert (chunk.model, chunk.usage) == ("", None)
    assert chat.parse_event(" [DONE] ").done
    for body in ('{"choices": null}', '{"choices": {}}'):
        with pytest.raises(RefusedError, match="not from a chat API"):
            chat.parse_body(body)


@pytest.mark.parametrize("data", ["{\x9b" + "x" * 1000, '["\x9b' + "x" * 1000 + '"]'], ids=["no JSON", "no object"])
def test_data_in_a_message_is_short_and_without_control_characters(data: str) -> None:
    with pytest.raises(BrokenError) as error:
        chat.parse_event(data)
    assert "\x9b" not in str(error.value)
    assert len(str(error.value)) < 200
