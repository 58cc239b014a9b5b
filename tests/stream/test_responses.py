"""The Responses API: the second dialect, with the same modes, statuses and summaries."""

import json
import subprocess
from typing import Any

import pytest
from conftest import Server, Smai
from hypothesis import given
from hypothesis import strategies as st

from smai_cli.answer.chunk import Repetition, Usage
from smai_cli.apis import choose_api
from smai_cli.errors import BrokenError, RefusedError
from smai_cli.mock.responses import responses_events
from smai_cli.mock.script import POEM, Script
from smai_cli.prompt.request import Message, Request
from smai_cli.stream.dialects import responses
from smai_cli.stream.sse import events

pytestmark = pytest.mark.preloaded

API = ("--api", "responses")
FIRST = b"Spring\n"


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-4.1", "chat"),
        ("gpt-4o-mini", "chat"),
        ("gpt-5.2-pro", "responses"),
        ("gpt-5-pro-2025-10-06", "responses"),
        ("gpt-5.2", "chat"),
        ("o1-pro", "responses"),
        ("o1-mini", "responses"),
        ("o3-pro", "responses"),
        ("o3-mini-2025-01-31", "responses"),
        ("o3", "chat"),
        ("llama3.2", "chat"),
    ],
)
def test_the_model_chooses_the_api_unless_the_user_does(model: str, name: str) -> None:
    assert choose_api("auto", model).load().__name__ == f"smai_cli.stream.dialects.{name}"
    assert choose_api("chat", model).load().__name__ == "smai_cli.stream.dialects.chat"
    assert choose_api("responses", model).load().__name__ == "smai_cli.stream.dialects.responses"


def test_a_request_uses_the_parameter_names_of_the_api() -> None:
    messages = (
        Message("system", "Be brief."),
        Message("user", "hi"),
        Message("assistant", "yes?"),
        Message("user", "ho"),
    )
    options = {"temperature": 0.5, "max_tokens": 7, "reasoning_effort": "low"}
    assert json.loads(responses.encode_request(Request("o3-pro", messages, options, include_usage=True))) == {
        "model": "o3-pro",
        "instructions": "Be brief.",
        "input": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "yes?"},
            {"role": "user", "content": "ho"},
        ],
        "max_output_tokens": 7,
        "reasoning": {"effort": "low", "summary": "auto"},
        "temperature": 0.5,
        "stream": True,
    }


@given(st.text())
def test_every_unicode_character_passes_unchanged_through_the_mock_and_the_parser(reply: str) -> None:
    tape = responses_events(Script(reply=reply), {"model": "o3-pro", "input": "hi"})
    chunks = [responses.parse_event(event.data, event.event) for event in events(tape)]
    assert "".join(chunk.text for chunk in chunks) == reply
    assert (chunks[-1].done, chunks[-1].finish_reason, chunks[-1].model) == (True, "stop", "o3-pro")


@given(
    st.recursive(
        st.none() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_any_json_is_parsed_or_refused(value: Any) -> None:
    for kind in ("response.output_text.delta", "response.completed", "response.incomplete", "error", "x", 7):
        responses.parse_event(json.dumps({"type": kind, "response": value, "delta": value, "error": value}), "message")
    for parse in (responses.parse_event, responses.parse_body):
        for payload in (value, {"output": value}, {"output": [value, {"content": value}], "status": value}):
            try:
                parse(json.dumps(payload))
            except (BrokenError, RefusedError):
                continue


def test_a_complete_response_is_read_with_its_reasoning_tokens() -> None:
    output = [
        {"type": "reasoning", "summary": []},
        {"type": "message", "content": [{"type": "output_text", "text": "a"}]},
    ]
    usage = {
        "input_tokens": 1,
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 8},
        "total_tokens": 10,
    }
    chunk = responses.parse_body(
        json.dumps({"object": "response", "status": "completed", "output": output, "usage": usage})
    )
    assert chunk.repeated == Repetition(parts=(((1, 0), "a"),), is_all=True)
    assert (chunk.usage, chunk.finish_reason, chunk.done) == (Usage(1, 9, 10, 8), "stop", True)
    plain = responses.parse_body(json.dumps({"output": [{"content": "plain"}]})).repeated
    assert plain == Repetition(parts=(((0, 0), "plain"),), is_all=True)


@pytest.mark.parametrize(
    ("script", "flags", "status", "stdout"),
    [
        pytest.param({}, [], 0, POEM.encode(), id="complete"),
        pytest.param({"finish_reason": "length"}, [], 9, POEM.encode(), id="length"),
        pytest.param({"finish_reason": "length"}, ["--accept", "length"], 0, POEM.encode(), id="accepted"),
        pytest.param({"finish_reason": "content_filter"}, [], 10, POEM.encode(), id="content_filter"),
        pytest.param({"finish_reason": "none", "done": False}, [], 8, POEM.encode(), id="no ending"),
        pytest.param({"cut_after": 1}, [], 8, FIRST, id="cut"),
        pytest.param({"cut_after": 0}, [], 8, b"", id="cut before any text"),
        pytest.param({"error_after": 1}, [], 8, FIRST, id="error event"),
        pytest.param({"stall_after": 1}, ["--idle-timeout", "1"], 7, FIRST, id="idle"),
        pytest.param({"status": 401}, [], 5, b"", id="401"),
        pytest.param({"status": 404}, [], 4, b"", id="404"),
        pytest.param({"status": 503}, ["--retries", "0"], 6, b"", id="503"),
    ],
)
def test_the_same_faults_give_the_same_statuses_in_both_dialects(
    smai: Smai, server: Server, script: dict[str, Any], flags: list[str], status: int, stdout: bytes
) -> None:
    mock = server(**script)
    for api in ("chat", "responses"):
        result = smai("ask", "--base-url", mock.url, "--api", api, *flags, "hi")
        assert (result.status, result.stdout) == (status, stdout), api
        assert mock.received[-1].path == {"chat": "/v1/chat/completions", "responses": "/v1/responses"}[api]


def test_every_mode_delivers_the_same_text_and_decode_detects_the_api(smai: Smai, server: Server) -> None:
    url = server(reply="Grüße, 世界\n").url
    text, final, raw, jsonl, whole = (
        smai("ask", "--base-url", url, *API, *flags, "hi").stdout
        for flags in ([], ["--final"], ["--raw"], ["--jsonl"], ["--no-stream"])
    )
    deltas = [event["delta"] for event in map(json.loads, jsonl.splitlines()) if event["type"].endswith("text.delta")]
    assert {text, final, whole, "".join(deltas).encode()} == {"Grüße, 世界\n".encode()}
    assert smai("decode", stdin=raw)[:2] == (0, text)
    for length in range(0, len(raw), 199):
        result = smai("decode", stdin=raw[:length])
        assert result.status == 8, length
        assert text.startswith(result.stdout.removesuffix(b"\n")), length


def test_the_summary_always_contains_the_token_counts_of_the_server(smai: Smai, server: Server) -> None:
    mock = server(reply="one two")
    summary = json.loads(smai("ask", "--base-url", mock.url, *API, "--summary", "json", "hi").stderr)
    assert (summary["usage_source"], summary["finish_reason"], summary["complete"]) == ("server", "stop", True)
    assert summary["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "reasoning_tokens": 0}
    assert "stream_options" not in mock.received[0].json


REASONING = [
    pytest.param(
        'data: {"choices":[{"delta":{"reasoning_content":"Let me "}}]}\n\n'
        'data: {"choices":[{"delta":{"reasoning":"think\\u001b[31m"}}]}\n\n'
        'data: {"choices":[{"delta":{"content":"42\\n"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
        id="chat",
    ),
    pytest.param(
        'event: response.reasoning_summary_text.delta\ndata: {"delta":"Let me "}\n\n'
        'data: {"type":"response.reasoning_summary_text.delta","delta":"think\\u001b[31m"}\n\n'
        'data: {"type":"response.output_text.delta","delta":"42\\n"}\n\n'
        'data: {"type":"response.completed","response":{"status":"completed"}}\n\n',
        id="responses",
    ),
]


@pytest.mark.parametrize("tape", REASONING)
def test_reasoning_is_printed_on_stderr_if_requested_and_never_on_stdout(smai: Smai, server: Server, tape: str) -> None:
    url = server(tape=tape.encode()).url
    api = ("--api", "responses" if "response." in tape else "chat")
    assert smai("ask", "--base-url", url, *api, "hi") == (0, b"42\n", "")
    assert smai("ask", "--base-url", url, *api, "--reasoning", "hi") == (0, b"42\n", "Let me think\x1b[31m\n")


def test_effort_reaches_the_server_in_both_dialects(smai: Smai, server: Server) -> None:
    mock = server()
    smai("ask", "--base-url", mock.url, "-m", "o3-pro", "--effort", "high", "hi")
    smai("ask", "--base-url", mock.url, "-m", "o3", "--effort", "low", "hi")
    assert mock.received[0].json["reasoning"] == {"effort": "high", "summary": "auto"}
    assert mock.received[1].json["reasoning_effort"] == "low"


def test_the_openai_sdk_reads_responses_from_the_mock_to_the_end(server: Server) -> None:
    import openai  # it takes a second, in every process that collects the tests

    with openai.OpenAI(base_url=server().url, api_key="none", max_retries=0) as sdk:
        with sdk.responses.create(model="o3-pro", input="hi", stream=True) as stream:
            seen = list(stream)
        whole = sdk.responses.create(model="o3-pro", input="hi")
    assert "".join(event.delta for event in seen if event.type == "response.output_text.delta") == POEM
    last = seen[-1]
    assert last.type == "response.completed"
    assert last.response.usage
    assert last.response.usage.total_tokens == 41
    assert whole.output_text == POEM


def test_decode_reads_what_curl_receives(server: Server) -> None:
    body = json.dumps({"model": "o3-pro", "input": "hi", "stream": True})
    curl = subprocess.run(["curl", "-sN", f"{server().url}/responses", "-d", body], capture_output=True, check=True)
    assert curl.stdout.startswith(b"event: response.created\ndata: {")
