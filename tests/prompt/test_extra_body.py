"""`-O`, `--stop`, `--seed`: members of the request, and answers in several choices."""

import json
from pathlib import Path
from typing import Any

import completeness
import pytest
from completeness import choice
from conftest import Server, Smai, assert_refused
from hypothesis import given, settings
from hypothesis import strategies as st

from smai_cli.errors import UsageError
from smai_cli.prompt.extra_body import extra_members
from smai_cli.prompt.request import Message, Request
from smai_cli.stream.dialects import chat, responses

pytestmark = pytest.mark.preloaded

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def sent_members(smai: Smai, server: Server, *flags: str) -> dict[str, Any]:
    """Return the members that `flags` add to a request."""
    mock = server(reply="ok")
    assert smai("ask", "--base-url", mock.url, *flags, "hi") == (0, b"ok\n", "")
    body: dict[str, Any] = mock.received[0].json
    return {name: value for name, value in body.items() if name not in ("model", "messages", "input", "stream")}


VALUES = [
    pytest.param("x=1", {"x": 1}, id="integer"),
    pytest.param("x=-0.5e1", {"x": -5.0}, id="fraction"),
    pytest.param("x=123456789012345678901234567890", {"x": 123456789012345678901234567890}, id="large integer"),
    pytest.param("x=true", {"x": True}, id="true"),
    pytest.param("x=null", {"x": None}, id="null"),
    pytest.param('x="1"', {"x": "1"}, id="JSON string"),
    pytest.param('x={"a": [1, {"b": null}]}', {"x": {"a": [1, {"b": None}]}}, id="object"),
    pytest.param("x=medium", {"x": "medium"}, id="word"),
    pytest.param("x=", {"x": ""}, id="nothing"),
    pytest.param("x= a=b ", {"x": " a=b "}, id="equals sign and spaces"),
    pytest.param("x=True", {"x": "True"}, id="Python's true"),
    pytest.param("x={'a': 1}", {"x": "{'a': 1}"}, id="Python's object"),
    pytest.param("x=[1, 2", {"x": "[1, 2"}, id="cut"),
    pytest.param("x=01", {"x": "01"}, id="leading zero"),
    pytest.param("x=NaN", {"x": "NaN"}, id="NaN"),
    pytest.param("x=Infinity", {"x": "Infinity"}, id="infinity"),
    pytest.param("x=[-Infinity]", {"x": "[-Infinity]"}, id="infinity in a list"),
    pytest.param("x=1e999", {"x": "1e999"}, id="1e999"),
    pytest.param("x=" + "[" * 10_000, {"x": "[" * 10_000}, id="nested deep"),
    pytest.param("x=äö😀\n", {"x": "äö😀\n"}, id="other scripts"),
    pytest.param("a.b.c=1", {"a": {"b": {"c": 1}}}, id="dots"),
    pytest.param("a b.ä=1", {"a b": {"ä": 1}}, id="odd names"),
    pytest.param("stream_options.include_usage=true", {"stream_options": {"include_usage": True}}, id="stream_options"),
]


@pytest.mark.parametrize(("pair", "members"), VALUES)
def test_a_value_is_json_if_it_parses_else_a_string(pair: str, members: dict[str, Any]) -> None:
    assert extra_members([pair]) == members


def test_values_of_every_kind_reach_the_server_in_both_dialects(smai: Smai, server: Server) -> None:
    flags = ["-O", "a=1", "-O", 'b={"c": [true, null]}', "-O", "b.d=x", "-O", "e=NaN", "-O", "f=1e999", "-O", "g=ä 😀"]
    members = {"a": 1, "b": {"c": [True, None], "d": "x"}, "e": "NaN", "f": "1e999", "g": "ä 😀"}
    for api in ("chat", "responses"):
        assert sent_members(smai, server, "--api", api, *flags) == members


@settings(max_examples=60)
@given(st.dictionaries(st.text(min_size=1).filter(lambda name: not set(name) & {".", "="}), JSON_VALUES, max_size=4))
def test_any_json_object_arrives_equal(members: dict[str, Any]) -> None:
    if set(members) & {"model", "messages", "input", "stream"}:
        return
    pairs = [f"{name}={json.dumps(value)}" for name, value in members.items()]
    for dialect in (chat, responses):
        request = Request("m", (Message("user", "hi"),), extra_body=extra_members(pairs))
        body = json.loads(dialect.encode_request(request))
        assert {name: body[name] for name in members} == members


@pytest.mark.parametrize(
    ("pairs", "members"),
    [
        pytest.param(["a=1", "a=2"], {"a": 2}, id="the later one"),
        pytest.param(["a.b=1", "a.c=2"], {"a": {"b": 1, "c": 2}}, id="one object"),
        pytest.param(['a={"b": 1}', "a.c=2"], {"a": {"b": 1, "c": 2}}, id="into an object"),
        pytest.param(["a.b=1", "a=2"], {"a": 2}, id="in place of an object"),
    ],
)
def test_a_later_parameter_overrides_an_earlier_one(pairs: list[str], members: dict[str, Any]) -> None:
    assert extra_members(pairs) == members


def test_members_are_merged_with_other_options_and_override_them(smai: Smai, server: Server) -> None:
    chat_flags = ("--json", "-t", "1", "--stop", "x", "--seed", "1", "--api", "chat")
    assert sent_members(
        smai, server, *chat_flags, "-O", "temperature=0.5", "-O", "response_format.x=1", "-O", 'stop=["y", "z"]'
    ) == {
        "response_format": {"type": "json_object", "x": 1},
        "temperature": 0.5,
        "stop": ["y", "z"],
        "seed": 1,
    }
    assert sent_members(smai, server, "--api", "responses", "--effort", "low", "-O", "reasoning.summary=detailed") == {
        "reasoning": {"effort": "low", "summary": "detailed"}
    }


def test_stop_is_repeatable_and_seed_is_a_number(smai: Smai, server: Server) -> None:
    assert sent_members(smai, server, "--stop", "\n\n", "--stop", "END", "--seed", "-7") == {
        "stop": ["\n\n", "END"],
        "seed": -7,
    }
    assert sent_members(smai, server, "--stop", "ä") == {"stop": ["ä"]}


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        pytest.param("=1", "is not KEY=VALUE", id="no key"),
        pytest.param("", "is not KEY=VALUE", id="empty"),
        pytest.param("a..b=1", "is not KEY=VALUE", id="a name missing"),
        pytest.param(".a=1", "is not KEY=VALUE", id="leading dot"),
        pytest.param("a.=1", "is not KEY=VALUE", id="trailing dot"),
        pytest.param("messages=[]", "cannot set messages; use the prompt", id="messages"),
        pytest.param("input=x", "cannot set input; use the prompt", id="input"),
        pytest.param("stream=false", "cannot set stream; use --no-stream", id="stream"),
        pytest.param("model.x=1", "cannot set model", id="within model"),
    ],
)
def test_an_invalid_pair_is_reported(pair: str, words: str) -> None:
    with pytest.raises(UsageError) as raised:
        extra_members([pair])
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        pytest.param(["-O", "a"], "-O/--option 'a' is not KEY=VALUE", id="no equals sign"),
        pytest.param(["-O", "model=x"], "cannot set model; use -m/--model", id="model"),
        pytest.param(["-O", b"a=\xff"], "-O/--option is not UTF-8", id="not UTF-8"),
        pytest.param(["-O", 'a="\\ud800"'], "half of a surrogate pair", id="half of a surrogate pair"),
        pytest.param(["-O", ".".join("a" * 3000) + "=1"], "nested too deep", id="dots without end"),
        pytest.param(["--seed", "x"], "--seed: 'x' is not a whole number", id="seed a word"),
        pytest.param(["--stop", b"\xff"], "--stop is not UTF-8", id="stop not UTF-8"),
    ],
)
def test_invalid_options_are_refused(smai: Smai, server: Server, flags: list[Any], words: str) -> None:
    mock = server()
    assert_refused(smai("ask", "--base-url", mock.url, *flags, "hi"), mock, words)


# Values from files.

FILES = {
    "tools.json": b'[{"type": "function"}]\n',
    "number": b"5\n",
    "bom": b"\xef\xbb\xbftrue",
    "text": "Un caf\u00e9\n".encode(),
    "like": b"[INST] x",
    "empty": b"",
    "cut.json": b'[\n{"a": 1',
    "nothing.JSON": b"",
    "latin": b"caf\xe9",
}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder to work in, with the files."""
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("files")
def test_one_at_sign_reads_a_file_and_two_are_a_literal_at_sign(smai: Smai, server: Server) -> None:
    pairs = ["a=@tools.json", "b.c=@number", "b.d=@bom", "e=@text", "f=@like", "g=@empty", "h=@@home", "i=@@", "j=x@y"]
    assert sent_members(smai, server, *(word for pair in pairs for word in ("-O", pair))) == {
        "a": [{"type": "function"}],
        "b": {"c": 5, "d": True},
        "e": "Un caf\u00e9\n",
        "f": "[INST] x",
        "g": "",
        "h": "@home",
        "i": "@",
        "j": "x@y",
    }


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        pytest.param(["a=@missing"], "missing: No such file or directory; ", id="missing"),
        pytest.param(["a=@/"], "/: Is a directory; ", id="folder"),
        pytest.param(["a=@cut.json"], "cut.json, line 2: not JSON: ", id="cut"),
        pytest.param(["a=@nothing.JSON"], "nothing.JSON, line 1: not JSON: ", id="empty JSON"),
        pytest.param(["a=@latin"], "latin is not UTF-8: byte 0xe9 at byte offset 3; ", id="not UTF-8"),
        pytest.param(["a=@/dev/zero"], "/dev/zero is larger than 64 MiB; ", id="endless"),
        pytest.param(["a=@"], "-O/--option a @ needs a file name; ", id="no name"),
        pytest.param(["n=@number"], "-O n requests several answers", id="several answers"),
        pytest.param(["a=@number", "a.b=1"], "a is not an object", id="into a number"),
        pytest.param(["messages=@tools.json"], "cannot set messages", id="messages"),
    ],
)
def test_a_file_without_a_value_is_reported(smai: Smai, server: Server, pairs: list[str], words: str) -> None:
    mock = server()
    flags = [word for pair in pairs for word in ("-O", pair)]
    assert_refused(smai("ask", "--base-url", mock.url, *flags, "hi"), mock, words)


@pytest.mark.usefixtures("files")
def test_the_file_of_a_value_is_not_written(smai: Smai, server: Server) -> None:
    mock = server()
    words = ["-O", "a=@text", "-o", "text"]
    assert_refused(smai("ask", "--base-url", mock.url, *words, "hi"), mock, "-O a and -o are the same file")
    assert Path("text").read_bytes() == FILES["text"]


# Several choices.


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(["-O", "n=2"], id="text"),
        pytest.param(["-O", "n=2", "--final"], id="final"),
        pytest.param(["-O", "n=2", "--tool-calls"], id="tool calls"),
        pytest.param(["-O", "n=2", "--no-stream"], id="one piece"),
        pytest.param(["-O", "n=2", "--jsonl", "--chat", "x"], id="jsonl, chat"),
        pytest.param(["-O", "n=2", "--raw", "--chat", "x"], id="raw, chat"),
        pytest.param(["-O", "n=2.0"], id="2.0"),
        pytest.param(["-O", "n=2e0"], id="2e0"),
    ],
)
def test_several_answers_are_refused_if_only_one_can_be_delivered(smai: Smai, server: Server, flags: list[str]) -> None:
    mock = server()
    assert_refused(smai("ask", "--base-url", mock.url, *flags, "hi"), mock, "-O n requests several answers")


def test_one_answer_may_be_requested_explicitly(smai: Smai, server: Server) -> None:
    assert sent_members(smai, server, "-O", "n=1") == {"n": 1}


def event(*choices: tuple[int, str, str | None]) -> bytes:
    """Return an event with these choices: index, text and finish_reason."""
    return completeness.event({"choices": [choice(text or None, reason, index) for index, text, reason in choices]})


DONE = b"data: [DONE]\n\n"
HELLO = event((0, "Hello", None)) + event((1, "Bye", None))
DECODED = ("both, no [DONE]", "one after the other", "the second cut", "second length")
CHOICES = [
    pytest.param(HELLO + event((0, "", "stop")) + event((1, "", "stop")) + DONE, 0, "", id="both, [DONE]"),
    pytest.param(HELLO + event((0, "", "stop")) + event((1, "", "stop")), 0, "", id="both, no [DONE]"),
    pytest.param(HELLO + event((1, "", "stop")) + event((0, "", "stop")), 0, "", id="the second first"),
    pytest.param(HELLO + event((0, "", "stop"), (1, "", "stop")), 0, "", id="both in one event"),
    pytest.param(
        event((0, "Hello", None)) + event((0, "", "stop")) + event((1, "Bye", None)) + event((1, "", "stop")),
        0,
        "",
        id="one after the other",
    ),
    pytest.param(HELLO + event((0, "", "stop")), 8, "ended before", id="the second never"),
    pytest.param(HELLO + event((1, "", "stop")), 8, "ended before", id="the first never"),
    pytest.param(HELLO + event((0, "", "stop")) + b'data: {"choi', 8, "; ", id="the second cut"),
    pytest.param(HELLO, 8, "ended before", id="neither"),
    pytest.param(HELLO + event((0, "", "stop")) + event((1, "", "length")) + DONE, 9, "limit", id="second length"),
    pytest.param(HELLO + event((0, "", "length")) + event((1, "", "stop")) + DONE, 9, "limit", id="first length"),
    pytest.param(HELLO + event((0, "", "stop")) + event((1, "", "content_filter")), 10, "withheld", id="filter"),
]


@pytest.mark.parametrize(("tape", "status", "words"), CHOICES)
def test_several_choices_are_complete_when_each_of_them_is(
    smai: Smai, server: Server, tape: bytes, status: int, words: str
) -> None:
    mock = server(tape=tape)
    result = smai("ask", "--base-url", mock.url, "-O", "n=2", "--raw", "hi")
    assert mock.received[0].json["n"] == 2
    assert (result.status, result.stdout) == (status, tape)
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == (status != 0)


@pytest.mark.parametrize(("tape", "status", "words"), [case for case in CHOICES if case.id in DECODED])
def test_decode_has_the_same_exit_status_for_several_choices(smai: Smai, tape: bytes, status: int, words: str) -> None:
    result = smai("decode", "--jsonl", stdin=tape)
    assert result.status == status
    assert words in result.stderr
    assert len(result.stdout.splitlines()) == tape.count(b"\n\n") - tape.count(b"[DONE]")


def test_a_missing_choice_is_a_failure(smai: Smai, server: Server) -> None:
    tape = event((0, "Hello", None)) + event((0, "", "stop"))
    result = smai("ask", "--base-url", server(tape=tape).url, "-O", "n=2", "--jsonl", "hi")
    assert (result.status, result.stdout.count(b"\n")) == (8, 2)


def test_length_is_accepted_in_every_choice(smai: Smai, server: Server) -> None:
    tape = HELLO + event((0, "", "length")) + event((1, "", "length")) + DONE
    url = server(tape=tape).url
    assert smai("ask", "--base-url", url, "-O", "n=2", "--raw", "--accept", "length", "hi") == (0, tape, "")


def test_several_choices_in_one_piece(smai: Smai, server: Server) -> None:
    for reason, status in (("stop", 0), ("length", 9)):
        choices = [
            {"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"},
            {"index": 1, "message": {"content": "Bye"}, "finish_reason": reason},
        ]
        tape = json.dumps({"choices": choices}).encode()
        result = smai("ask", "--base-url", server(tape=tape).url, "-O", "n=2", "--raw", "hi")
        assert (result.status, result.stdout) == (status, tape)
