"""A result keeps what was paid for, in both forms, and the openai package accepts each body of its form."""

import json
import math
from typing import Any

import pytest
from batching import Ask, MakeDesk, Questions
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion
from pumping import Pieces
from servers import SERVER_TAPES
from tapes import TAPES

from smai_cli.answer.outcome import Outcome
from smai_cli.apis import choose_api
from smai_cli.batch.input.lines import FLAT, OPENAI
from smai_cli.batch.results.collector import Collector
from smai_cli.batch.results.result import LineIdentity, encode_result, read_result
from smai_cli.stream import pump

pytest_plugins = ["batching"]

Json = dict[str, Any]
USAGE = {
    "prompt_tokens": 3,
    "completion_tokens": 40,
    "total_tokens": 43,
    "prompt_tokens_details": {"cached_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 0},
}
TOKEN = {"token": "Tea", "logprob": -0.25, "bytes": [84, 101, 97], "top_logprobs": [{"token": "Tea", "logprob": -0.25}]}


def result_of(body: bytes, form: str, dialect: str = "chat") -> Json:
    """Return the result of a line whose answer has this body, after checking that a complete one says so."""
    collector, outcome = Collector(), Outcome(model="m")
    outcome.choices = 1
    pump.pump(Pieces(body, is_framed=True), choose_api(dialect, "").load(), collector, outcome)
    line = encode_result(LineIdentity(7, "a", bytes(32), 1, form, {}, bytes(32)), collector.answer(outcome))
    known = read_result(line)
    assert known
    assert (known.id, known.number, known.status) == ("a", 7, outcome.status)
    result: Json = json.loads(line)
    assert (result["error"] is None) == result["complete"] == (outcome.error is None)
    if form == OPENAI and result["response"]:
        ChatCompletion.model_validate(result["response"]["body"])
    return result


def stream(*deltas: Json, usage: Json | None = None, top: Json | None = None, **choice: Any) -> bytes:
    """Return a stream of these deltas; `choice` has further members of the choice in each event, `top` of the event."""
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "m", **(top or {})}
    events: list[Json] = [
        {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None, **choice}]} for delta in deltas
    ]
    events.append({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if usage:
        events.append({**base, "choices": [], "usage": usage})
    return b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in events) + b"data: [DONE]\n\n"


def parse_message(result: Json) -> Json:
    found: Json = result["response"]["body"]["choices"][0]["message"]
    return found


BODIES = [
    *(pytest.param(tape.bytes, tape.dialect, id=tape.name) for tape in SERVER_TAPES),
    *(pytest.param(tape.bytes, "chat", id=tape.name) for tape in TAPES),
]


@pytest.mark.parametrize(("body", "dialect"), BODIES)
def test_the_openai_package_accepts_the_body_of_every_server(body: bytes, dialect: str) -> None:
    flat, openai = (result_of(body, form, dialect) for form in (FLAT, OPENAI))
    assert (flat["exit_status"], flat["error"]) == (openai["exit_status"], openai["error"] and flat["error"])
    if openai["response"]:
        assert (parse_message(openai)["content"] or "") == flat["text"]


def test_usage_is_as_the_server_sent_it() -> None:
    body = stream({"content": "Tea"}, usage=USAGE)
    assert result_of(body, FLAT)["usage"] == USAGE
    assert result_of(body, OPENAI)["response"]["body"]["usage"] == USAGE


def test_an_openai_body_has_the_id_and_the_time_of_the_server() -> None:
    body = result_of(stream({"content": "Tea"}, top={"system_fingerprint": "fp"}), OPENAI)["response"]["body"]
    assert [body[name] for name in ("id", "created", "object", "system_fingerprint")] == [
        "chatcmpl-1",
        1700000000,
        "chat.completion",
        "fp",
    ]


def test_a_result_contains_the_log_probabilities_of_all_events() -> None:
    body = stream({"content": "Tea"}, {"content": " first"}, logprobs={"content": [TOKEN], "refusal": None})
    wanted = {"content": [TOKEN, TOKEN]}
    assert result_of(body, FLAT)["logprobs"] == wanted
    assert result_of(body, OPENAI)["response"]["body"]["choices"][0]["logprobs"] == wanted


def test_a_result_contains_log_probabilities_whatever_the_white_space_of_an_event() -> None:
    body = stream({"content": "Tea"}, {"content": " first"}, logprobs={"content": [TOKEN]})
    body = body.replace(b'"logprobs": {', b'"logprobs" : {').replace(b'"content": [{', b'"content":  [ {')
    assert result_of(body, FLAT)["logprobs"] == {"content": [TOKEN, TOKEN]}


def test_choices_as_an_object_are_read_as_the_list_of_its_members() -> None:
    choice = {"index": 0, "message": {"content": "Tea", "annotations": [1]}, "finish_reason": "stop"}
    body = json.dumps({"object": "chat.completion", "choices": {"1": choice}}).encode()
    flat = result_of(body, FLAT)
    assert (flat["text"], flat["annotations"], flat["error"]) == ("Tea", [1], None)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_a_number_in_the_reasoning_is_text(name: str) -> None:
    body = stream({name: "It is "}, {name: 0}, {name: 1.0}, {"content": "Tea"})
    assert result_of(body, FLAT)["reasoning"] == "It is 01.0"
    assert parse_message(result_of(body, OPENAI))[name] == "It is 01.0"


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_a_result_contains_the_reasoning_text(name: str) -> None:
    body = stream({name: "I think"}, {name: " so."}, {"content": "Tea"}, usage=USAGE)
    assert result_of(body, FLAT)["reasoning"] == "I think so."
    assert parse_message(result_of(body, OPENAI))[name] == "I think so."


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
DRAWN = {"type": "output_image", "image_url": "data:image/png;base64,AAAA"}
MADE = {"type": "image_generation_call", "id": "ig", "status": "completed", "result": "AAAA"}


def response_body(*items: Json) -> bytes:
    """Return the body of a response with these items."""
    response = {"id": "resp_1", "object": "response", "status": "completed", "model": "m", "output": items}
    return json.dumps(response).encode()


def audio_stream(*deltas: str) -> bytes:
    """Return the stream of a response that consists of audio, in these deltas."""
    events: list[Json] = [{"type": "response.audio.delta", "delta": delta} for delta in deltas]
    events.append({"type": "response.completed", "response": json.loads(response_body())})
    return b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in events)


@pytest.mark.parametrize(
    ("body", "dialect", "kept"),
    [
        pytest.param(stream({"content": [IMAGE]}), "chat", IMAGE, id="a part of a content"),
        pytest.param(stream({"content": [{**IMAGE, "text": "Tea"}]}), "chat", {**IMAGE, "text": "Tea"}, id="with text"),
        pytest.param(stream({"content": IMAGE}), "chat", IMAGE, id="a content that is a part"),
        pytest.param(stream({"images": [IMAGE]}), "chat", IMAGE, id="images"),
        pytest.param(
            stream({"audio": {"id": "a"}}, {"audio": {"data": "AA"}}, {"audio": {"data": "BB"}}),
            "chat",
            "AABB",
            id="audio",
        ),
        pytest.param(
            response_body({"type": "message", "role": "assistant", "content": [DRAWN]}), "responses", DRAWN, id="item"
        ),
        pytest.param(response_body(MADE), "responses", MADE, id="a call that makes an image"),
        pytest.param(audio_stream("AA", "BB"), "responses", "AABB", id="events of audio"),
    ],
)
@pytest.mark.parametrize("form", [FLAT, OPENAI])
def test_an_answer_that_consists_of_audio_or_images_is_complete_and_contains_them(
    body: bytes, dialect: str, kept: Json | str, form: str
) -> None:
    result = result_of(body, form, dialect)
    assert result["exit_status"] == 0
    assert json.dumps(kept) in json.dumps(result)


def test_a_result_contains_annotations_images_and_audio() -> None:
    cited = {"type": "url_citation", "url_citation": {"start_index": 0, "end_index": 3, "title": "T", "url": "u"}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}, "index": 0}
    deltas: list[Json] = [
        {"content": "Tea", "annotations": [cited]},
        {"annotations": [cited]},
        {"images": [image]},
        {"images": [image]},
        {"audio": {"id": "audio_1", "transcript": "Tea "}},
        {"audio": {"data": "AAAA", "transcript": "first"}},
        {"audio": {"data": "BBBB"}},
        {"audio": {"expires_at": 1700000001}},
    ]
    audio = {"id": "audio_1", "transcript": "Tea first", "data": "AAAABBBB", "expires_at": 1700000001}
    wanted = {"annotations": [cited, cited], "images": [image, image], "audio": audio}
    flat = result_of(stream(*deltas), FLAT)
    assert {name: flat[name] for name in wanted} == wanted
    message = parse_message(result_of(stream(*deltas), OPENAI))
    assert {name: message[name] for name in wanted} == wanted


def test_a_result_contains_members_that_only_one_server_sends() -> None:
    details = [
        {"type": "reasoning.text", "text": "I think", "index": 0, "format": "f"},
        {"type": "reasoning.text", "text": " so.", "index": 0, "format": "f"},
    ]
    deltas = ({"content": "Tea", "reasoning_details": details[:1]}, {"reasoning_details": details[1:]})
    body = stream(*deltas, top={"citations": ["u"], "provider": "P"}, native_finish_reason="STOP")
    whole = [{"type": "reasoning.text", "text": "I think so.", "index": 0, "format": "f"}]
    assert result_of(body, FLAT)["extra"] == {
        "citations": ["u"],
        "provider": "P",
        "native_finish_reason": "STOP",
        "reasoning_details": whole,
    }
    openai = result_of(body, OPENAI)["response"]["body"]
    assert (openai["citations"], openai["provider"]) == (["u"], "P")
    assert openai["choices"][0]["native_finish_reason"] == "STOP"
    assert openai["choices"][0]["message"]["reasoning_details"] == whole


def test_a_result_has_the_full_text_of_a_long_refusal() -> None:
    words = ["I will not. " * 100, "Never. " * 100]
    body = stream(*({"refusal": word} for word in words))
    assert result_of(body, FLAT)["refusal"] == "".join(words)
    assert parse_message(result_of(body, OPENAI))["refusal"] == "".join(words)


def test_an_answer_without_text_keeps_its_other_parts() -> None:
    body = stream({"reasoning_content": "I think"})[: -len(b"data: [DONE]\n\n")].replace(b'"stop"', b'"length"')
    assert result_of(body, FLAT)["reasoning"] == "I think"
    result = result_of(body, OPENAI)
    assert (result["error"]["code"], parse_message(result)["reasoning_content"]) == ("length", "I think")


def test_an_answer_that_is_not_streamed_has_the_same_members() -> None:
    message = {"role": "assistant", "content": "Tea", "reasoning_content": "I think", "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": {"content": [TOKEN]}}
    body = {"id": "c", "object": "chat.completion", "created": 5, "model": "m", "choices": [choice], "usage": USAGE}
    flat, openai = (result_of(json.dumps(body).encode(), form) for form in (FLAT, OPENAI))
    assert [flat[name] for name in ("text", "reasoning", "usage")] == ["Tea", "I think", USAGE]
    assert flat["logprobs"] == {"content": [TOKEN]}
    found = openai["response"]["body"]
    assert {**found, "choices": [{**found["choices"][0], "message": {**message}}]} == body


def test_an_answer_of_the_responses_api_is_stored_in_the_format_of_the_chat_api() -> None:
    cited = {"type": "url_citation", "start_index": 0, "end_index": 3, "title": "T", "url": "u"}
    text = {"type": "output_text", "text": "Tea", "annotations": [cited], "logprobs": [TOKEN]}
    thought = {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "I think"}]}
    search = {"type": "web_search_call", "id": "ws", "status": "completed"}
    response = {
        "id": "resp_1",
        "object": "response",
        "created_at": 5,
        "status": "completed",
        "model": "m",
        "output": [thought, search, {"type": "message", "role": "assistant", "content": [text]}],
        "usage": {
            "input_tokens": 3,
            "output_tokens": 4,
            "total_tokens": 7,
            "input_tokens_details": {"cached_tokens": 1},
        },
    }
    event = {"type": "response.completed", "response": response}
    for body in (json.dumps(response).encode(), b"data: %s\n\n" % json.dumps(event).encode()):
        flat, openai = (result_of(body, form, "responses") for form in (FLAT, OPENAI))
        assert (flat["text"], flat["reasoning"], flat["logprobs"]) == ("Tea", "I think", {"content": [TOKEN]})
        assert flat["annotations"] == [
            {"type": "url_citation", "url_citation": {name: cited[name] for name in cited if name != "type"}}
        ]
        assert flat["extra"]["output"] == [thought, search]
        assert flat["usage"].items() >= {**response["usage"], "prompt_tokens": 3, "completion_tokens": 4}.items()  # type: ignore[dict-item]
        found = openai["response"]["body"]
        assert (found["id"], found["created"], found["usage"]["completion_tokens"]) == ("resp_1", 5, 4)
        assert parse_message(openai)["reasoning_content"] == "I think"


# A member of another form than in OpenAI's API is kept under another name.

NAMES = st.sampled_from(
    (  # noqa: SIM905  # words, to be read
        "id created model object service_tier system_fingerprint usage metadata moderation annotations audio logprobs "
        "function_call tool_calls refusal role content reasoning_content images x"
    ).split()
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | NAMES, inner, max_size=3),
    max_leaves=8,
)
MEMBERS = st.dictionaries(NAMES, JSON, max_size=4)


@given(first=MEMBERS, second=MEMBERS, top=MEMBERS, choice=MEMBERS)
def test_whatever_a_server_sends_the_openai_package_accepts_the_body(
    first: Json, second: Json, top: Json, choice: Json
) -> None:
    body = stream({"content": "Tea", **first}, second, top=top, **choice)
    flat, openai = result_of(body, FLAT), result_of(body, OPENAI)
    assert flat["exit_status"] == openai["exit_status"]


@pytest.mark.parametrize("name", ["annotations", "audio"])
def test_a_member_with_an_unexpected_type_is_kept_under_a_name_with_server_(name: str) -> None:
    message = parse_message(result_of(stream({"content": "Tea", name: [{"type": "file"}]}), OPENAI))
    assert (message.get(name), message[f"server_{name}"]) == (None, [{"type": "file"}])


def test_infinite_log_probabilities_do_not_make_the_result_invalid_json() -> None:
    body = stream({"content": "Tea"}, logprobs={"content": [{**TOKEN, "logprob": -math.inf}]})
    choice = result_of(body, OPENAI)["response"]["body"]["choices"][0]
    assert choice["server_logprobs"] == {"content": [{**TOKEN, "logprob": None}]}


@pytest.mark.preloaded
def test_the_request_id_of_a_result_is_the_header_of_its_answer(
    batch: Ask, desk: MakeDesk, questions: Questions
) -> None:
    line = {"custom_id": "b", "body": {"model": "m", "messages": [{"role": "user", "content": "b"}]}}
    flat, openai = batch(desk(), "-k", questions("a", line)).results
    assert (flat["request_id"], openai["response"]["request_id"]) == ("req-mock", "req-mock")
    server = desk()
    server.refuse["a"] = 400
    (refused,) = batch(server, questions("a")).results
    assert (refused["request_id"], refused["error"]["request_id"]) == ("req-mock", "req-mock")
