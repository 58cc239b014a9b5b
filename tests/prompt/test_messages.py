"""`--messages`: a conversation in a file arrives unchanged, or nothing is sent and one line says what is wrong."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import Server, Smai, assert_refused
from hypothesis import given, settings
from hypothesis import strategies as st
from process import SMAI, at_most_cpu_s

from smai_cli.errors import UsageError
from smai_cli.mock.server import Mock
from smai_cli.prompt.messages import parse_messages

pytestmark = pytest.mark.preloaded

MANY = [{"role": "assistant" if number % 2 else "user", "content": f"Nº {number}\n\t😀"} for number in range(200)]
TWO = [{"role": "user", "content": "one\nänd"}, {"role": "assistant", "content": "two"}]
ONE, OTHER = (json.dumps(message, ensure_ascii=False) for message in TWO)
PIXEL = "data:image/png;base64,AA=="


def sent_body(mock: Mock) -> Any:
    """Return the body of the one request that `mock` received."""
    (request,) = mock.received
    return request.json


@pytest.mark.parametrize("end", ["array", "lines"])
def test_two_hundred_messages_arrive_unchanged_in_both_dialects(
    smai: Smai, server: Server, tmp_path: Path, end: str
) -> None:
    path = tmp_path / "messages"
    path.write_text(json.dumps(MANY) if end == "array" else "".join(f"{json.dumps(message)}\n" for message in MANY))
    mock = server(reply="ok")
    for api in ("chat", "responses"):
        assert smai("ask", "--base-url", mock.url, "--api", api, "--messages", path) == (0, b"ok\n", "")
    assert [request.path for request in mock.received] == ["/v1/chat/completions", "/v1/responses"]
    assert mock.received[0].json["messages"] == MANY
    assert mock.received[1].json["input"] == MANY


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(f"[{ONE},{OTHER}]".encode(), id="array"),
        pytest.param(json.dumps(TWO, indent=2).encode(), id="pretty-printed array"),
        pytest.param(f"{ONE}\n{OTHER}\n".encode(), id="lines"),
        pytest.param(f"{ONE}\n{OTHER}".encode(), id="last line without its end"),
        pytest.param(f"{ONE}\r\n{OTHER}\r\n".encode(), id="CRLF"),
        pytest.param(f"\n\n{ONE}\n \t\n\n{OTHER}\n\n".encode(), id="blank lines"),
        pytest.param("\n".join(json.dumps(message, indent=4) for message in TWO).encode(), id="pretty-printed objects"),
        pytest.param(f"\ufeff{ONE}\n{OTHER}\n".encode(), id="BOM before lines"),
        pytest.param(f"\ufeff[{ONE},{OTHER}]\r\n".encode(), id="BOM before an array"),
        pytest.param(f"{ONE}\n{OTHER}\n".encode("utf-16"), id="UTF-16"),
    ],
)
def test_every_form_of_the_file_gives_the_same_request(smai: Smai, server: Server, data: bytes) -> None:
    mock = server(reply="ok")
    assert smai("ask", "--base-url", mock.url, "--messages", "-", stdin=data).status == 0
    assert [request.json["messages"] for request in mock.received] == [TWO]


def test_the_messages_of_another_command_are_read_through_a_pipe(server: Server, environment: dict[str, str]) -> None:
    mock = server(reply="ok")
    line = '"$0" ask --base-url "$1" --messages <(echo "$2") </dev/null'
    command = ["bash", "-c", line, SMAI, mock.url, json.dumps(TWO)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert sent_body(mock)["messages"] == TWO


@settings(max_examples=60)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["system", "developer", "user", "assistant"]), "content": st.text()},
            optional={"name": st.text(), "x": st.floats(allow_nan=False, allow_infinity=False) | st.integers()},
        )
    ),
    st.booleans(),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_any_messages_are_read_as_written(
    given_messages: list[dict[str, Any]], is_array: bool, indent: int | None, ascii_only: bool
) -> None:
    values = [given_messages] if is_array else given_messages
    text = "\n".join(json.dumps(value, indent=indent, ensure_ascii=ascii_only) for value in values)
    assert [message.as_json() for message in parse_messages(text, "f")] == given_messages


@pytest.mark.parametrize("option", ["--messages", "--chat"])
def test_the_time_for_ten_thousand_messages_grows_linearly(
    smai: Smai, server: Server, tmp_path: Path, option: str
) -> None:
    path = tmp_path / "many"
    path.write_text((json.dumps({"role": "user", "content": "x" * 1000}) + "\n") * 10_000)
    mock = server(reply="ok")
    with at_most_cpu_s(4):  # 0.5 for the process, and 15 if each line were counted from the start of the file
        assert smai("ask", "--base-url", mock.url, option, path, "So?") == (0, b"ok\n", "")
    assert len(sent_body(mock)["messages"]) == 10_001


def test_the_responses_api_gets_the_same_conversation_in_its_format(smai: Smai, server: Server) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"at": "Ulm"}'}}
    image = {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}}
    conversation = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Look:"}, image]},
        {"role": "assistant", "content": [{"type": "text", "text": "I see"}]},
        {"role": "assistant", "content": "Let me ask", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        {"role": "assistant", "content": None, "tool_calls": [call | {"id": "c2"}, call | {"id": "c3"}]},
        {
            "role": "tool",
            "tool_call_id": "c2",
            "content": [{"type": "text", "text": "wi"}, {"type": "text", "text": "nd"}],
        },
        {"role": "system", "content": [{"type": "text", "text": "Be quick."}]},
    ]
    mock = server(reply="ok")
    data = json.dumps(conversation).encode()
    assert smai("ask", "--base-url", mock.url, "--api", "responses", "--messages", "-", "So?", stdin=data).status == 0
    function_call = {"type": "function_call", "name": "weather", "arguments": '{"at": "Ulm"}'}
    body = sent_body(mock)
    assert body["instructions"] == "Be brief.\n\nBe quick."
    assert body["input"] == [
        {"role": "developer", "content": "Be kind."},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Look:"},
                {"type": "input_image", "image_url": PIXEL, "detail": "low"},
            ],
        },
        {"role": "assistant", "content": [{"type": "output_text", "text": "I see"}]},
        {"role": "assistant", "content": "Let me ask"},
        function_call | {"call_id": "c1"},
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        function_call | {"call_id": "c2"},
        function_call | {"call_id": "c3"},
        {"type": "function_call_output", "call_id": "c2", "output": "wind"},
        {"role": "user", "content": "So?"},
    ]


def test_the_chat_api_gets_every_field_known_or_not(smai: Smai, server: Server) -> None:
    conversation = [
        {"role": "user", "content": "hi", "name": "Ann", "novel": {"deep": [1, 2.5, None, True]}},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "odd": 1}], "refusal": None},
        {"role": "tool", "content": "", "tool_call_id": "c"},
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}]},
    ]
    mock = server(reply="ok")
    assert smai("ask", "--base-url", mock.url, "--messages", "-", stdin=json.dumps(conversation).encode()).status == 0
    assert sent_body(mock)["messages"] == conversation


@pytest.mark.parametrize(
    ("words", "stdin", "prompt"),
    [
        pytest.param([], None, None, id="nothing"),
        pytest.param([], b" \n", None, id="white space on stdin is nothing"),
        pytest.param(["three", "four"], None, "three four", id="words"),
        pytest.param([], b"piped\n", "piped\n", id="stdin"),
        pytest.param(["three"], b"piped\n", "three\n\npiped\n", id="words, then stdin"),
        pytest.param(["before", "-", "after"], b"piped", "before\n\npiped\n\nafter", id="stdin placed"),
    ],
)
def test_operands_and_stdin_are_sent_as_one_message_after_the_messages(
    smai: Smai, server: Server, tmp_path: Path, words: list[str], stdin: bytes | None, prompt: str | None
) -> None:
    path = tmp_path / "messages"
    path.write_text(json.dumps(TWO))
    mock = server(reply="ok")
    piped = subprocess.DEVNULL if stdin is None else stdin
    assert smai("ask", "--base-url", mock.url, "--messages", path, *words, stdin=piped).status == 0
    assert sent_body(mock)["messages"] == [*TWO, *([] if prompt is None else [{"role": "user", "content": prompt}])]


def test_a_system_text_comes_first_unless_the_messages_begin_with_it(smai: Smai, server: Server) -> None:
    system = {"role": "system", "content": "Be brief."}
    mock = server(reply="ok")
    for messages in (TWO, [system, *TWO]):
        data = json.dumps(messages).encode()
        assert smai("ask", "--base-url", mock.url, "-s", "Be brief.", "--messages", "-", stdin=data).status == 0
    assert [request.json["messages"] for request in mock.received] == [[system, *TWO]] * 2


def test_a_second_system_text_is_refused(smai: Smai, server: Server) -> None:
    mock = server()
    for role in ("system", "developer"):
        data = json.dumps([{"role": role, "content": "Be long."}, *TWO]).encode()
        result = smai("ask", "--base-url", mock.url, "-s", "Be brief.", "--messages", "-", stdin=data)
        assert_refused(result, mock, "-s/--system differs from the system message")


THROUGH_THE_PROCESS = ("cut object", "NaN", "5000 digits", "nested deep", "role that forges a line", "content a number")
GOOD_LINE = b'{"role": "user", "content": "x"}\n'
MALFORMED = [
    pytest.param(b'{"role": "user", "content": "x"', "line 2: not JSON", id="cut object"),
    pytest.param(b'{"role": "user", "content": "x', "line 2: not JSON", id="cut string"),
    pytest.param(b"hello", "line 2: not JSON", id="no JSON"),
    pytest.param(b"{'role': 'user', 'content': 'x'}", "line 2: not JSON", id="Python"),
    pytest.param(b'{"role": "user", "content": "x"},', "line 2: not JSON", id="comma after a line"),
    pytest.param(b'{"role": "user", "content": "a\tb"}', "line 2: not JSON", id="raw tab in a string"),
    pytest.param(b'{"role": "user", "content": "x", "n": NaN}', "line 2: not JSON: NaN", id="NaN"),
    pytest.param(b'{"role": "user", "content": "x", "n": -Infinity}', "line 2: not JSON: -Infinity", id="infinity"),
    pytest.param(b'{"role": "user", "content": "x", "n": 1e999}', "line 2: not JSON: 1e999", id="1e999"),
    pytest.param(b'{"role": "user", "content": "x", "n": %b}' % (b"9" * 5000), "line 2: not JSON", id="5000 digits"),
    pytest.param(b"[" * 100_000, "line 2: not JSON", id="nested deep"),
    pytest.param(b'{"role": "user", "content": %b}' % (b"[" * 100_000), "line 2: not JSON", id="content nested deep"),
    pytest.param(b"5", "line 2: not a JSON object", id="number"),
    pytest.param(b"null", "line 2: not a JSON object", id="null"),
    pytest.param(b'"text"', "line 2: not a JSON object", id="string"),
    pytest.param(b'[{"role": "user", "content": "x"}]', "line 2: not a JSON object", id="array after a line"),
    pytest.param(b'{"content": "x"}', "line 2: no role", id="no role"),
    pytest.param(b'{"role": "bot", "content": "x"}', "line 2: role 'bot'", id="unknown role"),
    pytest.param(b'{"role": ["user"], "content": "x"}', "line 2: role ['user']", id="role of a wrong type"),
    pytest.param(
        b'{"role": "\\u001b[2J\\nsmai: forged", "content": "x"}', "line 2: role ", id="role that forges a line"
    ),
    pytest.param(b'{"role": "user"}', "line 2: no content", id="no content"),
    pytest.param(b'{"role": "user", "content": null}', "line 2: no content", id="null content"),
    pytest.param(b'{"role": "assistant", "tool_calls": []}', "line 2: no content", id="no content, no calls"),
    pytest.param(b'{"role": "user", "content": 5}', "line 2: content is neither", id="content a number"),
    pytest.param(b'{"role": "user", "content": {"text": "x"}}', "line 2: content is neither", id="content an object"),
    pytest.param(b'{"role": "user", "content": ["x"]}', "line 2: content is neither", id="parts that are no objects"),
    pytest.param(
        b'{"role": "user", "content": [{"text": "x"}]}', "line 2: content is neither", id="part without a type"
    ),
    pytest.param(b'\n\n{"role": "user",\n"content": }', "line 5: not JSON", id="the line within a message"),
]


@pytest.mark.parametrize(("data", "words"), MALFORMED)
def test_a_malformed_message_is_reported_with_file_line_and_field(data: bytes, words: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_messages((GOOD_LINE + data).decode(), "FILE")
    assert f"FILE, {words}" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(("data", "words"), [case for case in MALFORMED if case.id in THROUGH_THE_PROCESS])
def test_a_malformed_message_is_reported_in_one_line_and_nothing_is_sent(
    smai: Smai, server: Server, tmp_path: Path, data: bytes, words: str
) -> None:
    path = tmp_path / "messages"
    path.write_bytes(GOOD_LINE + data)
    mock = server()
    assert_refused(smai("ask", "--base-url", mock.url, "--messages", path, "hi"), mock, f"{path}, {words}")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"", "contains no message", id="empty"),
        pytest.param(b" \r\n", "contains no message", id="blank"),
        pytest.param(b"[]", "contains no message", id="empty array"),
        pytest.param(b"[\n" + GOOD_LINE + GOOD_LINE + b"]", "line 3: not JSON: Expecting ',' delimiter", id="no comma"),
        pytest.param(b"[\n,\n" + GOOD_LINE + b"]", "line 2: not JSON", id="leading comma"),
        pytest.param(b"[\n" + GOOD_LINE + b",\n", "line 4: not JSON", id="array without its end"),
        pytest.param(b"[\n" + GOOD_LINE + b"]\n" + GOOD_LINE, "line 4", id="more after the array"),
        pytest.param(b"[\n" + GOOD_LINE + b",]", "line 3", id="trailing comma"),
        pytest.param(b'{"role": "user", "content": "\xe9"}', "is not UTF-8: byte 0xe9", id="Latin-1"),
    ],
)
def test_a_malformed_file_is_reported_in_one_line_with_the_position_and_nothing_is_sent(
    smai: Smai, server: Server, tmp_path: Path, data: bytes, words: str
) -> None:
    path = tmp_path / "messages"
    path.write_bytes(data)
    mock = server()
    assert_refused(smai("ask", "--base-url", mock.url, "--messages", path, "hi"), mock, str(path), words)


@pytest.mark.parametrize(
    ("field", "escape"), [("content", "\\ud800"), ("content", "\\ude00\\ud83d"), ("name", "x\\udc00")]
)
def test_half_of_a_surrogate_pair_is_reported_in_one_line_with_its_position(
    smai: Smai, server: Server, tmp_path: Path, field: str, escape: str
) -> None:
    path = tmp_path / "messages"
    path.write_text(json.dumps({"role": "user", "content": "x"} | {field: "HERE"}).replace("HERE", escape))
    mock = server()
    result = smai("ask", "--base-url", mock.url, "--messages", path, "hi")
    assert_refused(result, mock, "surrogate", f"{path}, line 1")


def test_a_complete_surrogate_pair_is_one_character(smai: Smai, server: Server) -> None:
    mock = server()
    smai("ask", "--base-url", mock.url, "--messages", "-", stdin=b'{"role":"user","content":"\\ud83d\\ude00\\u0000"}')
    assert sent_body(mock)["messages"] == [{"role": "user", "content": "😀\0"}]


@pytest.mark.parametrize("depth", [500, 980, 995])
def test_json_nested_to_any_depth_is_sent_or_refused_without_a_traceback(
    smai: Smai, server: Server, depth: int
) -> None:
    mock = server(reply="ok")
    nested = "[" * depth + "]" * depth
    for message in (f'{{"role":"user","content":"x","x":{nested}}}', f'{{"role":{nested},"content":"x"}}'):
        result = smai("ask", "--base-url", mock.url, "--messages", "-", stdin=message.encode())
        assert result.status in (0, 2), result
        assert len(result.stderr.splitlines()) == (result.status == 2)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        pytest.param(["--messages", "-", "-"], "both read stdin", id="- twice"),
        pytest.param(["--messages", "-", "a", "-", "b"], "both read stdin", id="- among words"),
        pytest.param(["-n", "--messages", "-"], "-n and - cannot be combined", id="- with -n"),
        pytest.param(["--messages", "/nonexistent", "hi"], "/nonexistent: No such file or directory", id="missing"),
        pytest.param(["--messages", "/", "hi"], "/: Is a directory", id="folder"),
        pytest.param(["--messages", "/dev/zero", "hi"], "/dev/zero is larger than 64 MiB", id="endless"),
        pytest.param(["--messages", "/dev/null", "hi"], "/dev/null contains no message", id="nothing"),
        pytest.param(["--messages", "x", "--chat", "y", "hi"], "--chat and --messages cannot be combined", id="chat"),
        pytest.param(["--messages", "", "hi"], "--messages", id="empty name"),
    ],
)
def test_invalid_options_are_refused(smai: Smai, server: Server, flags: list[str], words: str) -> None:
    mock = server()
    assert_refused(smai("ask", "--base-url", mock.url, *flags, stdin=json.dumps(TWO).encode()), mock, words)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        pytest.param(b"Be brief.\n", "Be brief.\n", id="nothing is trimmed"),
        pytest.param("\ufeffSei knapp: äöü".encode(), "Sei knapp: äöü", id="BOM"),
        pytest.param("Sei knapp: 😀".encode("utf-16"), "Sei knapp: 😀", id="UTF-16"),
    ],
)
def test_an_at_sign_reads_the_system_text_from_a_file(
    smai: Smai, server: Server, tmp_path: Path, content: bytes, text: str
) -> None:
    path = tmp_path / "system"
    path.write_bytes(content)
    mock = server()
    assert smai("ask", "--base-url", mock.url, "-s", f"@{path}", "hi").status == 0
    assert sent_body(mock)["messages"][0] == {"role": "system", "content": text}


def test_a_system_text_that_begins_with_two_at_signs_is_sent_with_one(smai: Smai, server: Server) -> None:
    mock = server()
    assert smai("ask", "--base-url", mock.url, "-s", "@@ann says hi", "hi").status == 0
    assert sent_body(mock)["messages"][0] == {"role": "system", "content": "@ann says hi"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/nonexistent", "/nonexistent: No such file or directory"),
        ("/", "/: Is a directory"),
        ("", "@"),
    ],
)
def test_a_system_file_that_cannot_be_read_is_refused(smai: Smai, server: Server, name: str, words: str) -> None:
    mock = server()
    assert_refused(smai("ask", "--base-url", mock.url, "-s", f"@{name}", "hi"), mock, words)


def test_a_system_file_that_is_not_text_is_refused_with_the_offset(smai: Smai, server: Server, tmp_path: Path) -> None:
    path = tmp_path / "system"
    path.write_bytes(b"caf\xe9")
    mock = server()
    result = smai("ask", "--base-url", mock.url, "-s", f"@{path}", "hi")
    assert_refused(result, mock, f"{path} is not UTF-8: byte 0xe9 at byte offset 3")
