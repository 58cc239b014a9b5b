"""`--json` and `--schema`: the request in both dialects, and the check of --final."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Server, Smai, assert_refused

from smai_cli.errors import BrokenError, UsageError
from smai_cli.prompt.request import Message, Request
from smai_cli.prompt.response_format import ResponseFormat
from smai_cli.stream.dialects import responses

pytestmark = pytest.mark.preloaded

PERSON = {
    "title": "A person (v1)",
    "type": "object",
    "properties": {"name": {"$ref": "#/$defs/name"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"name": {"type": "string", "minLength": 1}},
}
QUIET = ("--final", "--summary", "none")


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    """A file with the schema of a person."""
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(PERSON))
    return path


def test_json_is_requested_by_name_in_both_dialects(smai: Smai, server: Server) -> None:
    mock = server(reply="{}")
    for api in ("chat", "responses"):
        assert smai("ask", "--base-url", mock.url, "--api", api, "--json", "hi").status == 0
    assert mock.received[0].json["response_format"] == {"type": "json_object"}
    assert mock.received[1].json["text"] == {"format": {"type": "json_object"}}
    assert "response_format" not in mock.received[1].json


def test_a_schema_is_sent_unchanged_with_a_name_in_both_dialects(smai: Smai, server: Server, schema: Path) -> None:
    mock = server(reply="{}")
    for api in ("chat", "responses"):
        assert smai("ask", "--base-url", mock.url, "--api", api, "--schema", schema, "hi").status == 0
    named = {"name": "A_person_v1_", "schema": PERSON}
    assert mock.received[0].json["response_format"] == {"type": "json_schema", "json_schema": named}
    assert mock.received[1].json["text"] == {"format": {"type": "json_schema", **named}}
    assert "response_format" not in mock.received[1].json


@pytest.mark.parametrize(
    ("title", "name"),
    [
        pytest.param({}, "answer", id="none"),
        pytest.param({"title": ""}, "answer", id="empty"),
        pytest.param({"title": "weather"}, "weather", id="plain"),
        pytest.param({"title": "x" * 100}, "x" * 64, id="long"),
        pytest.param({"title": "日本"}, "_", id="other scripts"),
    ],
)
def test_the_name_of_a_schema_is_valid_in_the_api(schema: Path, title: dict[str, str], name: str) -> None:
    schema.write_text(json.dumps(title))
    form = ResponseFormat(str(schema)).as_json
    assert form == {"type": "json_schema", "json_schema": {"name": name, "schema": title}}


def test_options_can_add_to_the_response_format(smai: Smai, server: Server, schema: Path) -> None:
    mock = server(reply="{}")
    for option in ("response_format.json_schema.strict=true", "text.format.strict=true"):
        api = "chat" if option.startswith("response_format") else "responses"
        smai("ask", "--base-url", mock.url, "--api", api, "--schema", schema, "-O", option, "hi")
    named = {"name": "A_person_v1_", "schema": PERSON, "strict": True}
    assert mock.received[0].json["response_format"] == {"type": "json_schema", "json_schema": named}
    assert mock.received[1].json["text"] == {"format": {"type": "json_schema", **named}}


@pytest.mark.parametrize(
    ("reply", "flags"),
    [
        ('{"name": "Änn"}', []),
        ('{"name": "A", "age": 0}\n', ["--no-stream"]),
        (' \n{"name":"\\ud83d\\ude00"}', ["--api", "responses"]),
    ],
)
def test_final_prints_an_answer_that_matches_the_schema_unchanged(
    smai: Smai, server: Server, schema: Path, reply: str, flags: list[str]
) -> None:
    mock = server(reply=reply)
    result = smai("ask", "--base-url", mock.url, *QUIET, "--schema", schema, *flags, "hi")
    assert result == (0, (reply.removesuffix("\n") + "\n").encode(), "")


@pytest.mark.parametrize("reply", ["{}", "null", "\n[-0.5e3]\n"])
def test_final_prints_an_answer_that_is_json(smai: Smai, server: Server, reply: str) -> None:
    result = smai("ask", "--base-url", server(reply=reply).url, *QUIET, "--json", "hi")
    assert result == (0, (reply.removesuffix("\n") + "\n").encode(), "")


FENCED = [
    pytest.param('```json\n{"name": "A"}\n```', '{"name": "A"}', id="json"),
    pytest.param(' \n```\n{\n  "name": "A"\n}\n```\n\n', '{\n  "name": "A"\n}', id="no word, several lines"),
    pytest.param('~~~ JSON\r\n{"name": "A"}\r\n~~~', '{"name": "A"}', id="tildes"),
    pytest.param('````json\n{"name": "```"}\n````', '{"name": "```"}', id="a fence in the text"),
    pytest.param('```json {"name": "A"} ```', '{"name": "A"}', id="one line"),
    pytest.param('```json\n{"name": "```js\\n```"}\n```', '{"name": "```js\\n```"}', id="the same fence in the text"),
]


@pytest.mark.parametrize(("reply", "text"), FENCED)
def test_the_only_code_fence_around_an_object_is_removed(schema: Path, reply: str, text: str) -> None:
    assert ResponseFormat(str(schema)).fit(reply) == text
    assert ResponseFormat().fit(reply) == text


def test_final_prints_the_object_without_its_fence(smai: Smai, server: Server, schema: Path, tmp_path: Path) -> None:
    url, out = server(reply='```json\n{"name": "A"}\n```').url, tmp_path / "out.json"
    for form in (["--json"], ["--schema", schema]):
        result = smai("ask", "--base-url", url, *QUIET, *form, "-o", out, "hi")
        assert (result, out.read_bytes()) == ((0, b'{"name": "A"}\n', ""), b'{"name": "A"}\n')
    assert smai("ask", "--base-url", url, "--json", "hi").stdout.startswith(b"```json\n")


def test_a_batch_stores_the_object_without_its_fence(smai: Smai, server: Server) -> None:
    url = server(reply='```json\n{"name": "A"}\n```').url
    result = smai("batch", "--base-url", url, "--json", "--lines", stdin=b"hi\n")
    assert (result.status, json.loads(result.stdout)["text"]) == (0, '{"name": "A"}')


def test_the_fence_around_an_array_is_removed() -> None:
    assert ResponseFormat().fit("```json\n[1]\n```") == "[1]"


@pytest.mark.parametrize("reply", ["Sure! {}", '{"age": 1}', '```json\n{"age": 1}\n```'])
def test_an_answer_that_does_not_match_is_kept_in_the_partial_file(
    smai: Smai, server: Server, schema: Path, tmp_path: Path, reply: str
) -> None:
    out = tmp_path / "out.json"
    out.write_text("old")
    result = smai("ask", "--base-url", server(reply=reply).url, *QUIET, "--schema", schema, "-o", out, "hi")
    assert (result.status, result.stdout) == (8, b"")
    assert result.stderr.endswith(f"; ask again, or another model; it is in {out}.partial\n")
    assert (out.read_text(), Path(f"{out}.partial").read_text()) == ("old", f"{reply}\n")


def test_an_empty_answer_leaves_no_file(smai: Smai, server: Server, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    result = smai("ask", "--base-url", server(tape=_tape("")).url, *QUIET, "--json", "-o", out, "hi")
    assert (result.status, list(tmp_path.glob("out*"))) == (8, [])


THROUGH_THE_PROCESS = ("words before it", "NaN", "nested deep", "forged", "wrong type", "missing field")
MISMATCHES = [
    pytest.param("Sure! {}", "is not JSON: Sure! {}", id="words before it"),
    pytest.param(" \n", "is not JSON: it is empty", id="white space"),
    pytest.param('Here:\n```json\n{"name": "A"}\n```', "is not JSON: Here:", id="words before a fence"),
    pytest.param('```json\n{"name": "A"}\n```\nDone.', "is not JSON: ```json", id="words after a fence"),
    pytest.param('```\n{"name": "A"}\n```\n```\n{}\n```', "is not JSON: ```", id="two fences"),
    pytest.param('```json\n{"name": "A"}', "is not JSON: ```json", id="a fence without an end"),
    pytest.param("```\n5\n```", "is not JSON: ```", id="a number in a fence"),
    pytest.param("```", "is not JSON: ```", id="half a fence"),
    pytest.param("```" + " " * 500_000 + "x", "is not JSON: ```", id="a long fence"),
    pytest.param('```json\n{"age": 1}\n```', "schema: 'name' is a required property", id="fenced, a missing field"),
    pytest.param('{"name": "A"} {"name": "B"}', "is not JSON", id="two"),
    pytest.param('{"name": "A"', "is not JSON", id="cut"),
    pytest.param("", "is not JSON", id="nothing"),
    pytest.param('{"name": NaN}', "is not JSON", id="NaN"),
    pytest.param('{"name": "A", "age": 1e999}', "is not JSON", id="1e999"),
    pytest.param("[" * 100_000, "is not JSON", id="nested deep"),
    pytest.param("\x1b[2J\nsmai: forged", "is not JSON: ", id="forged"),
    pytest.param("[]", "does not match the schema: [] is not of type 'object'", id="wrong type"),
    pytest.param('{"age": 1}', "does not match the schema: 'name' is a required property", id="missing field"),
    pytest.param('{"name": "A", "x": 1}', "does not match the schema: Additional properties", id="field too many"),
    pytest.param('{"name": ""}', "at $.name", id="through a $ref"),
    pytest.param('{"name": "A", "age": 1.5}', "1.5 is not of type 'integer' at $.age", id="field of a wrong type"),
]


@pytest.mark.parametrize(("reply", "words"), MISMATCHES)
def test_a_mismatch_is_reported_with_its_place(schema: Path, reply: str, words: str) -> None:
    with pytest.raises(BrokenError) as raised:
        ResponseFormat(str(schema)).fit(reply)
    assert words in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(("reply", "words"), [case for case in MISMATCHES if case.id in THROUGH_THE_PROCESS])
def test_final_does_not_print_or_retry_an_answer_that_does_not_match_the_schema(
    smai: Smai, server: Server, schema: Path, reply: str, words: str
) -> None:
    mock = server(tape=_tape(reply))
    result = smai("ask", "--base-url", mock.url, *QUIET, "--retries", "5", "--schema", schema, "hi")
    assert (result.status, result.stdout) == (8, b"")
    (line,) = result.stderr.splitlines()
    assert line.startswith("smai: the answer ")
    assert words in line
    assert len(mock.received) == 1


def _tape(reply: str) -> bytes:
    choice = {"index": 0, "delta": {"content": reply}, "finish_reason": "stop"}
    return f"data: {json.dumps({'choices': [choice]})}\n\ndata: [DONE]\n\n".encode()


@pytest.mark.parametrize("reply", ["no JSON", "NaN", ""])
def test_final_checks_json_without_a_schema_too(smai: Smai, server: Server, reply: str) -> None:
    mock = server(tape=_tape(reply))
    result = smai("ask", "--base-url", mock.url, *QUIET, "--json", "hi")
    assert (result.status, result.stdout, len(result.stderr.splitlines())) == (8, b"", 1)
    assert len(mock.received) == 1


def test_the_json_summary_reports_a_mismatch(smai: Smai, server: Server, schema: Path) -> None:
    url = server(reply="[]").url
    result = smai("ask", "--base-url", url, "--final", "--summary", "json", "--schema", schema, "hi")
    summary = json.loads(result.stderr.splitlines()[-1])
    assert (summary["complete"], summary["exit_status"], summary["error"]["kind"]) == (False, 8, "broken")


@pytest.mark.parametrize("flags", [[], ["--raw"], ["--jsonl"]])
def test_streamed_output_is_not_checked(smai: Smai, server: Server, schema: Path, flags: list[str]) -> None:
    url = server(reply="no JSON").url
    for form in (["--json"], ["--schema", schema]):
        result = smai("ask", "--base-url", url, *flags, *form, "hi")
        assert (result.status, result.stderr) == (0, "")
        assert b"JSON" in result.stdout


def test_a_cut_answer_is_reported_as_cut_and_not_as_a_mismatch(smai: Smai, server: Server, schema: Path) -> None:
    url = server(reply='{"name": "Ann"}', cut_after=2).url
    result = smai("ask", "--base-url", url, *QUIET, "--retries", "0", "--schema", schema, "hi")
    assert (result.status, result.stdout) == (8, b"")
    assert "broke before the answer was complete" in result.stderr


REFUSED = ("trailing comma", "nested deep", "unknown type", "$schema an array", "reference to nothing")
BAD_SCHEMAS = [
    pytest.param("", "line 1: not JSON", id="empty"),
    pytest.param('{\n"type": "object",\n}', "line 3: not JSON", id="trailing comma"),
    pytest.param('{"minimum": NaN}', "line 1: not JSON: NaN", id="NaN"),
    pytest.param("[" * 100_000, "line 1: not JSON", id="nested deep"),
    pytest.param("[]", "is not a JSON Schema: not an object", id="array"),
    pytest.param("true", "is not a JSON Schema: not an object", id="boolean"),
    pytest.param('{"type": "strin"}', "is not a JSON Schema: 'strin'", id="unknown type"),
    pytest.param('{"properties": {"a": {"minLength": -1}}}', "at $.properties.a.minLength", id="within"),
    pytest.param('{"pattern": "("}', "is not a JSON Schema: '(' is not a 'regex'", id="pattern"),
    pytest.param('{"patternProperties": {"(": {}}}', "is not a JSON Schema", id="pattern of names"),
    pytest.param('{"$ref": 5}', "is not a JSON Schema", id="reference a number"),
    pytest.param('{"$schema": []}', "is not a JSON Schema", id="$schema an array"),
    pytest.param('{"$schema": 5}', "is not a JSON Schema", id="$schema a number"),
    pytest.param('{"$ref": "#/$defs/none"}', "#/$defs/none", id="reference to nothing"),
    pytest.param('{"$ref": "other.json"}', "other.json", id="reference to another file"),
    pytest.param('{"$ref": "urn:example:other"}', "urn:example:other", id="reference to a name"),
    pytest.param('{"$ref": "//example.org/x"}', "//example.org/x", id="reference without a scheme"),
    pytest.param('{"$dynamicRef": "https://example.org/x"}', "https://example.org/x", id="dynamic reference"),
    pytest.param('{"$ref": "https://json-schema.org/none"}', "https://json-schema.org/none", id="no such dialect"),
    pytest.param('{"$id": "http://[bad", "$ref": "x"}', "refers to x, which is not in it", id="$id no URI"),
]


@pytest.mark.parametrize(("text", "words"), BAD_SCHEMAS)
def test_an_invalid_schema_is_reported(schema: Path, text: str, words: str) -> None:
    schema.write_text(text)
    with pytest.raises(UsageError) as raised:
        ResponseFormat(str(schema))
    assert str(schema) in str(raised.value)
    assert words in str(raised.value)


@pytest.mark.parametrize(("text", "words"), [case for case in BAD_SCHEMAS if case.id in REFUSED])
def test_an_invalid_schema_is_refused_before_the_request(
    smai: Smai, server: Server, schema: Path, text: str, words: str
) -> None:
    schema.write_text(text)
    mock = server(reply="1")
    result = smai("ask", "--base-url", mock.url, *QUIET, "--schema", schema, "hi")
    assert_refused(result, mock, str(schema), words)


def test_a_deeply_nested_schema_causes_no_traceback(smai: Smai, server: Server, schema: Path) -> None:
    schema.write_text('{"not":' * 900 + "{}" + "}" * 900)
    assert smai("ask", "--base-url", server(reply="1").url, *QUIET, "--schema", schema, "hi").status in (0, 2, 8)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--schema", "/nonexistent"], "/nonexistent: No such file or directory"),
        (["--schema", "/"], "/: Is a directory"),
        (["--schema", "/dev/zero"], "/dev/zero is larger than 64 MiB"),
        (["--json", "--schema", "/nonexistent"], "--json and --schema cannot be combined"),
        (["--schema", ""], "--schema"),
    ],
)
def test_invalid_options_are_refused(smai: Smai, server: Server, flags: list[str], words: str) -> None:
    mock = server()
    assert_refused(smai("ask", "--base-url", mock.url, *QUIET, *flags, "hi"), mock, words)


@pytest.mark.parametrize("around", ["HERE", '{"$defs": {"b": {"items": HERE}}}', '{"anyOf": [true, HERE]}'])
def test_a_remote_schema_is_never_fetched(smai: Smai, server: Server, schema: Path, around: str) -> None:
    mock, elsewhere = server(reply="1"), server()
    reference = json.dumps({"$ref": f"{elsewhere.url}/schema.json"})
    schema.write_text(around.replace("HERE", reference))
    result = smai("ask", "--base-url", mock.url, *QUIET, "--schema", schema, "hi")
    assert_refused(result, mock, f"{elsewhere.url}/schema.json, which is not in it")
    assert elsewhere.received == []


@pytest.mark.parametrize(
    ("text", "good", "bad"),
    [
        pytest.param('{"$ref": "#/$defs/a", "$defs": {"a": {"const": 1}}}', "1", "2", id="$defs"),
        pytest.param('{"$ref": "#b", "$defs": {"a": {"$anchor": "b", "const": 1}}}', "1", "2", id="$anchor"),
        pytest.param('{"items": {"$ref": "#"}, "type": "array"}', "[[[]]]", "[[1]]", id="recursive"),
        pytest.param(
            '{"$schema": "http://json-schema.org/draft-07/schema#", "$ref": "#/definitions/a",'
            ' "definitions": {"a": {"const": 1}}}',
            "1",
            "2",
            id="draft 7",
        ),
        pytest.param(
            '{"$ref": "https://json-schema.org/draft/2020-12/schema"}', "true", "1", id="the specification's own"
        ),
        pytest.param('{"$ref": "b", "$defs": {"a": {"$id": "b", "const": 1}}}', "1", "2", id="$id"),
    ],
)
def test_references_within_the_file_work(schema: Path, text: str, good: str, bad: str) -> None:
    schema.write_text(text)
    form = ResponseFormat(str(schema))
    form.fit(good)
    with pytest.raises(BrokenError):
        form.fit(bad)


@pytest.mark.parametrize(
    "value",
    [
        {"const": {"$ref": "http://example.org/x"}},
        {"enum": [{"$ref": "http://example.org/x"}]},
        {"default": {"$ref": "http://example.org/x"}},
        {"$id": "http://example.org/s", "$ref": "http://example.org/s#/$defs/a", "$defs": {"a": {}}},
    ],
)
def test_a_member_named_ref_and_a_local_reference_are_accepted(schema: Path, value: dict[str, Any]) -> None:
    schema.write_text(json.dumps(value))
    ResponseFormat(str(schema)).fit('{"$ref": "http://example.org/x"}')


def test_the_response_format_of_the_responses_api_is_flat(schema: Path) -> None:
    options = {"response_format": ResponseFormat(str(schema)).as_json}
    body = json.loads(responses.encode_request(Request("o3-pro", (Message("user", "hi"),), options)))
    assert sorted(body["text"]["format"]) == ["name", "schema", "type"]


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        pytest.param('{"multipleOf": 0.5}', "1" + "0" * 400, id="huge number"),
        pytest.param('{"multipleOf": 0.5}', "1e308", id="large number"),
        pytest.param('{"uniqueItems": true}', "[" * 400 + "]" * 400, id="deep"),
        pytest.param('{"maxLength": 3}', '"\\ud800"', id="half of a surrogate pair"),
        pytest.param('{"type": "object"}', "1" * 4000, id="a number of 4000 digits"),
    ],
)
def test_any_answer_is_accepted_or_refused_without_a_traceback(
    smai: Smai, server: Server, schema: Path, text: str, reply: str
) -> None:
    schema.write_text(text)
    result = smai("ask", "--base-url", server(tape=_tape(reply)).url, *QUIET, "--schema", schema, "hi")
    assert result.status in (0, 8), result
    assert len(result.stderr.splitlines()) == (result.status == 8)
