"""The forms of a line: prompts, conversations, OpenAI's batch lines, text; and the handling of invalid lines."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from batching import Ask, MakeDesk, Questions, encoded

pytest_plugins = ["batching"]
pytestmark = pytest.mark.preloaded

HELLO = [{"role": "user", "content": "hello"}]


def openai_line(name: str = "a", prompt: str = "hello", **more: Any) -> dict[str, Any]:
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": prompt}]}
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body} | more


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("hello", id="text"),
        pytest.param({"prompt": "hello"}, id="prompt"),
        pytest.param({"messages": HELLO}, id="messages"),
        pytest.param(b'\xef\xbb\xbf"hello"\n', id="a BOM"),
        pytest.param(b'"hello"\r\n', id="CRLF"),
        pytest.param(b'"hello"', id="no newline at the end"),
        pytest.param(b'\n   \n\t\r\n"hello"\n\n', id="blank lines around it"),
        pytest.param(b'"h\\u0065llo"\n', id="an escape"),
    ],
)
def test_a_line_is_a_prompt_as_text_a_string_or_an_object(
    batch: Ask, desk: MakeDesk, questions: Questions, line: Any
) -> None:
    server = desk()
    result = batch(server, questions(line))
    assert (result.status, result.texts, result.stderr) == (0, ["hello"], "")
    assert server.received[0].json["messages"] == HELLO


def test_the_line_number_in_a_result_counts_blank_lines(batch: Ask, desk: MakeDesk, questions: Questions) -> None:
    result = batch(desk(), "-k", questions("a", b"\n", "b", b" \r\n", "c"))
    assert [(it["index"], it["text"]) for it in result.results] == [(1, "a"), (3, "b"), (5, "c")]


def test_with_lines_the_prompt_is_the_line_byte_for_byte(batch: Ask, desk: MakeDesk, questions: Questions) -> None:
    texts = ["123", "null", '{"prompt": "x"}', "  spaces kept  ", "tab\there", '"quoted"', "ü", "\ufeff", "a\rb"]
    result = batch(desk(), "-k", "--lines", questions(*(f"{text}\r\n".encode() for text in texts)))
    assert (result.status, result.texts) == (0, texts)


def test_half_a_surrogate_pair_stays_the_same_escape(
    batch: Ask, desk: MakeDesk, questions: Questions, tmp_path: Path
) -> None:
    line = b'{"prompt": "a", "id": "\\udc00", "note": "\\ud800"}\n'
    results = tmp_path / "results.jsonl"
    asked = questions(line)
    server = desk()
    assert batch(server, "-o", results, asked).status == 0
    (result,) = map(json.loads, results.read_bytes().splitlines())
    assert (result["id"], result["note"]) == ("\udc00", "\ud800")
    assert batch(server, "-o", results, "--resume", asked).status == 0
    assert len(server.received) == 1


def test_a_line_of_ten_megabytes_gets_a_complete_answer(batch: Ask, desk: MakeDesk, questions: Questions) -> None:
    prompt = "0123456789" * 1_000_000
    server = desk(echo=False, reply="long")
    result = batch(server, questions("short", prompt, "short too"), "-k")
    assert (result.status, result.texts) == (0, ["long"] * 3)
    assert sorted(map(len, server.prompts)) == [5, 9, 10_000_000]


@pytest.mark.parametrize("reader", ["a pipe", "a file"])
def test_stdin_is_read_from_its_current_offset(batch: Ask, desk: MakeDesk, questions: Questions, reader: str) -> None:
    lines = ["a", "b", "c"]
    if reader == "a pipe":
        result = batch(desk(), "-k", stdin=encoded(lines))
    else:
        with questions("read by somebody before", *lines).open("rb", buffering=0) as file:
            os.lseek(file.fileno(), len(encoded(["read by somebody before"])), os.SEEK_SET)
            result = batch(desk(), "-k", stdin=file)
    assert (result.status, result.texts) == (0, lines)
    assert [it["index"] for it in result.results] == [1, 2, 3]


@pytest.mark.parametrize("stdin", [b"", b"\n\n", subprocess.DEVNULL])
def test_an_empty_input_is_reported_and_creates_no_file(batch: Ask, desk: MakeDesk, tmp_path: Path, stdin: Any) -> None:
    result = batch(desk(), "-o", tmp_path / "results.jsonl", stdin=stdin)
    assert (result.status, result.stderr) == (2, "smai: stdin has no lines; give it one prompt per line\n")
    assert not [path.name for path in tmp_path.iterdir() if path.name != "home"]


# Members in addition to the prompt.


def test_a_line_overrides_the_options_for_itself_only(batch: Ask, desk: MakeDesk, questions: Questions) -> None:
    server = desk()
    file = questions({"prompt": "own", "model": "other", "temperature": 1, "max_tokens": 7, "system": "S2"}, "default")
    result = batch(server, "-m", "m", "-t", "0.5", "--max-tokens", "9", "-s", "S", "-O", "user=u", file, "-j1")
    assert result.status == 0
    own, default = (received.json for received in server.received)
    assert (own["model"], own["temperature"], own["user"]) == ("other", 1, "u")
    assert (default["model"], default["temperature"], default["user"]) == ("m", 0.5, "u")
    assert [body["messages"][0]["content"] for body in (own, default)] == ["S2", "S"]
    limits = [{name: body[name] for name in body if name.startswith("max_")} for body in (own, default)]
    assert [list(limit.values()) for limit in limits] == [[7], [9]]


def test_a_token_limit_in_a_line_replaces_that_of_the_options_under_either_name(
    batch: Ask, desk: MakeDesk, questions: Questions
) -> None:
    server = desk()
    file = questions({"prompt": "a", "max_completion_tokens": 5})
    assert batch(server, "-m", "gpt-4o-mini", "--max-tokens", "9", file).status == 0
    assert {k: v for k, v in server.received[0].json.items() if k.startswith("max_")} == {"max_completion_tokens": 5}


def test_a_line_cannot_change_the_streaming_of_its_request(batch: Ask, desk: MakeDesk, questions: Questions) -> None:
    server = desk()
    line = openai_line()
    line["body"] |= {"stream": False, "stream_options": {"include_usage": False}}
    nested = {"prompt": "b", "extra_body": {"stream": False, "stream_options": None}}
    assert batch(server, questions({"prompt": "a", "stream": False}, line, nested)).status == 0
    assert [received.json["stream"] for received in server.received] == [True] * 3
    assert [received.json["stream_options"] for received in server.received] == [{"include_usage": True}] * 3


def test_a_model_in_extra_body_is_the_model_of_the_line(batch: Ask, desk: MakeDesk, questions: Questions) -> None:
    """It also chooses the API."""
    server = desk()
    line = {"prompt": "a", "extra_body": {"model": "o3-pro", "top_k": 5}}
    assert batch(server, "-m", "gpt-4.1", questions(line, {"prompt": "b", "extra_body": None})).status == 0
    sent = {received.json["model"]: received for received in server.received}
    assert (sent["o3-pro"].path, sent["o3-pro"].json["top_k"]) == ("/v1/responses", 5)
    assert "extra_body" not in sent["gpt-4.1"].json


def test_a_method_or_url_that_is_null_is_missing(batch: Ask, desk: MakeDesk, questions: Questions) -> None:
    result = batch(desk(), questions(openai_line() | {"method": None, "url": None}))
    assert (result.status, result.stderr) == (0, "")


def test_members_that_the_api_does_not_know_are_copied_to_the_result_and_not_sent(
    batch: Ask, desk: MakeDesk, questions: Questions
) -> None:
    server = desk()
    more = {"metadata": {"split": "test"}, "label": [1, None], "response": "gold"}
    result = batch(server, questions({"prompt": "a", "id": "x", **more}))
    assert result.results[0].items() >= more.items()
    assert not server.received[0].json.keys() & more.keys()


def test_a_member_with_a_reserved_name_is_copied_to_line(batch: Ask, desk: MakeDesk, questions: Questions) -> None:
    taken = {"text": "gold", "error": "none", "copy": 7, "refusal": "no", "retries": 9, "index": -1, "line": "mine"}
    (result,) = batch(desk(), questions({"prompt": "a", "other": 1, **taken})).results
    assert result["line"] == taken
    assert (result["text"], result["error"], result["index"], result["other"]) == ("a", None, 1, 1)
    assert "copy" not in result
    assert "refusal" not in result


def test_an_id_next_to_a_custom_id_belongs_to_the_user(batch: Ask, desk: MakeDesk, questions: Questions) -> None:
    lines = [
        {"prompt": "a", "custom_id": "x", "id": 7},
        openai_line("y") | {"id": "mine"},
        {"prompt": "b", "custom_id": None, "id": "z"},
        {"prompt": "c", "custom_id": "w", "id": None},
    ]
    results = batch(desk(), "-k", questions(*lines)).results
    assert [result.get("custom_id", result["id"]) for result in results] == ["x", "y", "z", "w"]
    assert [result.get("line") for result in results] == [{"id": 7}, {"id": "mine"}, None, None]


@pytest.mark.parametrize("form", ["flat", "openai"])
def test_a_member_with_a_reserved_name_does_not_disturb_resume(
    batch: Ask, desk: MakeDesk, questions: Questions, tmp_path: Path, form: str
) -> None:
    taken = {"copy": "x", "response": 1, "request": "sha256:00", "exit_status": 6, "line": 2}
    server, results = desk(), tmp_path / "results.jsonl"
    file = questions({"prompt": "a", **taken}, openai_line(text="mine", copy=9))
    for _ in range(2):
        assert batch(server, "-o", results, "--resume", "--format", form, file).status == 0
    assert len(server.received) == 2


# OpenAI's lines.


def test_openai_lines_in_give_openai_lines_out(batch: Ask, desk: MakeDesk, questions: Questions) -> None:
    result = batch(desk(), "-k", questions(openai_line("a", "one"), {"custom_id": "b", "body": {"messages": HELLO}}))
    one, two = result.results
    assert (one["custom_id"], two["custom_id"]) == ("a", "b")
    body = one["response"]["body"]
    assert body["object"] == "chat.completion"
    assert body["model"] == "gpt-4o-mini"
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "one"}
    assert (one["response"]["status_code"], one["error"]) == (200, None)


def test_the_url_chooses_the_api_and_never_the_server(batch: Ask, desk: MakeDesk, questions: Questions) -> None:
    server = desk()
    responses = {"custom_id": "r", "url": "/v1/responses", "body": {"model": "gpt-4.1", "input": "hello"}}
    result = batch(server, "-k", questions(openai_line(), responses))
    assert result.status == 0
    assert sorted(received.path for received in server.received) == ["/v1/chat/completions", "/v1/responses"]
    assert [it["response"]["body"]["choices"][0]["message"]["content"] for it in result.results] == ["hello"] * 2
    for url in ("https://evil.example/v1/chat/completions", "/v1/embeddings", 5):
        refused = batch(server, questions(openai_line(url=url)))
        assert refused.status == 2
        assert "its url is" in refused.stderr
    assert len(server.received) == 2


@pytest.mark.parametrize(("form", "has"), [("flat", "text"), ("openai", "response")])
def test_the_form_of_the_results_can_be_chosen(
    batch: Ask, desk: MakeDesk, questions: Questions, form: str, has: str
) -> None:
    result = batch(desk(), "--format", form, questions("a", openai_line()))
    assert [has in it for it in result.results] == [True, True]


def test_the_responses_api_gives_the_same_results(batch: Ask, desk: MakeDesk, questions: Questions) -> None:
    server = desk()
    result = batch(server, "--api", "responses", "-k", questions("a", {"prompt": "b", "temperature": 0}))
    assert (result.status, result.texts) == (0, ["a", "b"])
    assert {received.path for received in server.received} == {"/v1/responses"}
    assert {it["usage_source"] for it in result.results} == {"server"}


@pytest.mark.parametrize("form", ["flat", "openai"])
def test_a_cut_answer_has_its_text_and_an_error_in_both_forms(
    batch: Ask, desk: MakeDesk, questions: Questions, form: str
) -> None:
    result = batch(desk(finish_reason="length"), "--format", form, questions("hello"))
    (it,) = result.results
    assert (result.status, it["complete"], it["exit_status"], it["error"]["kind"]) == (9, False, 9, "length")
    text = it["text"] if form == "flat" else it["response"]["body"]["choices"][0]["message"]["content"]
    assert text == "hello"


# --template.


@pytest.mark.parametrize(
    ("template", "flags", "line", "prompt"),
    [
        ("Define: {}", ["--lines"], b"entropy\n", "Define: entropy"),
        ("Define: {}", [], "entropy", "Define: entropy"),
        ("{word} in {lang}, {{as JSON}}", [], {"word": "tea", "lang": "fr"}, "tea in fr, {as JSON}"),
        ("{data}", [], {"data": {"a": [1, "ü"]}}, '{"a": [1, "ü"]}'),
        ("{} {}", ["--lines"], b"{}\n", "{} {}"),
        ("{text}", [], {"text": "the dataset's own"}, "the dataset's own"),
        ("Q: {}", [], {"a": 1}, 'Q: {"a": 1}'),
    ],
)
def test_a_template_puts_the_line_or_its_members_in_place(
    batch: Ask, desk: MakeDesk, questions: Questions, template: str, flags: list[str], line: Any, prompt: str
) -> None:
    server = desk()
    assert batch(server, "--template", template, *flags, questions(line)).status == 0
    assert server.prompts == [prompt]


@pytest.mark.parametrize("flags", [[], ["--lines"]])
def test_a_template_may_be_in_a_file(
    batch: Ask, desk: MakeDesk, questions: Questions, tmp_path: Path, flags: list[str]
) -> None:
    (tmp_path / "t.txt").write_text("Say {}!")
    server = desk()
    assert batch(server, *flags, "--template", f"@{tmp_path}/t.txt", questions(b'"x"\n')).status == 0
    assert server.prompts == ['Say "x"!' if flags else "Say x!"]


@pytest.mark.parametrize(
    ("template", "flags", "words"),
    [
        ("{", [], "an unmatched {"),
        ("a } b", [], "an unmatched }"),
        ("no place", [], "does not use the line"),
        ("{word}", ["--lines"], "with --lines a line is plain text"),
        ("{word}", [], "line 1: it has no word"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused_before_any_request(
    batch: Ask, desk: MakeDesk, questions: Questions, template: str, flags: list[str], words: str
) -> None:
    server = desk()
    result = batch(server, "--template", template, *flags, questions(b'"x"\n'))
    assert (result.status, server.received) == (2, [])
    assert words in result.stderr


# Bad lines.

BAD: list[tuple[Any, str]] = [
    (b"not json\n", "it is not JSON"),
    (b'{"prompt": "torn\n', "it is not JSON"),
    (b"5\n", "neither a string nor an object"),
    (b"null\n", "neither a string nor an object"),
    (b"[]\n", "neither a string nor an object"),
    (b'"\xff"\n', "not UTF-8: byte 0xff at byte offset 1"),
    ({}, "it has no prompt"),
    ("", "its prompt is empty"),
    (b'{"prompt": "\\ud83d", "id": "half"}\n', "the request contains half of a surrogate pair"),
    ({"prompt": 5}, "its prompt is not a string"),
    ({"prompt": "a", "messages": HELLO}, "it has messages as well as prompt"),
    ({"messages": []}, "its messages are not a list, or the list is empty"),
    ({"messages": [{"role": "user"}]}, "its message 1"),
    ({"prompt": "a", "id": True}, "its id is neither a string nor a whole number"),
    ({"prompt": "a", "id": 1.5}, "its id is neither a string nor a whole number"),
    ({"prompt": "a", "model": 5}, "its model is not a string"),
    ({"prompt": "a", "system": 5}, "its system is not a string"),
    ({"prompt": "a", "n": 2}, "it requests several answers"),
    ({"custom_id": "a", "body": 5}, "its body is not an object"),
    ({"custom_id": "a", "body": {}}, "its body has no messages"),
    ({"custom_id": "a", "body": {"messages": HELLO}, "method": "GET"}, "its method is GET"),
    (b"[" * 100_000 + b"\n", "it is not JSON"),
    (b'"a\0b"\n', "it is not JSON: Invalid control character; "),
    ({"prompt": "a", "extra_body": "top_k=5"}, "its extra_body is not an object"),
    ({"prompt": "a", "extra_body": {"messages": HELLO}}, "its extra_body has messages"),
    ({"custom_id": "a", "url": "/v1/chat/completions", "body": {"input": "hello"}}, "its body has no messages"),
]


def test_a_file_is_checked_first_and_nothing_is_sent_if_lines_are_bad(
    batch: Ask, desk: MakeDesk, questions: Questions
) -> None:
    server = desk()
    result = batch(server, questions("good", *(line for line, _ in BAD[:12])))
    assert (result.status, result.stdout, server.received) == (2, b"", [])
    (told,) = result.stderr.splitlines()
    for number, (_, words) in enumerate(BAD[:10], 2):
        assert f"line {number}" in told
        assert words in told
    assert "line 12:" not in told
    assert told.endswith("; 2 more; nothing was sent; fix the lines")


def test_a_file_of_plain_text_is_refused_with_the_option_for_it(
    batch: Ask, desk: MakeDesk, questions: Questions
) -> None:
    lines = questions(b"Why is the sky blue?\n", b"\n", b"What is rain?\n")
    result = batch(desk(), lines)
    assert (result.status, result.stdout) == (2, b"")
    assert result.stderr.endswith("; nothing was sent; --lines takes each line as plain text\n")
    assert batch(desk(), "--lines", lines).status == 0


@pytest.mark.parametrize("flags", [(), ("--dry-run",), ("--shard", "1/1")])
def test_a_bad_line_is_reported_wherever_it_is(
    batch: Ask, desk: MakeDesk, questions: Questions, flags: tuple[str, ...]
) -> None:
    for lines in ([b"5\n", "good"], [b"\n", b"\xff\n", "good"], ["good", b"5\n"], [b"5\n", b"5\n", "good", b"5\n"]):
        result = batch(desk(), *flags, questions(*lines))
        assert (result.status, result.stdout) == (2, b"")
        assert "; nothing was sent; fix the lines" in result.stderr


def test_in_a_pipe_a_bad_line_gets_a_failed_result_and_the_run_goes_on(batch: Ask, desk: MakeDesk) -> None:
    server = desk()
    lines = [line for line, _ in BAD]
    result = batch(server, "-k", stdin=encoded(["first", *lines, "last"]))
    assert (result.status, sorted(server.prompts)) == (2, ["first", "last"])
    first, *failed, last = result.results
    assert (first["text"], last["text"]) == ("first", "last")
    assert [it["index"] for it in failed] == list(range(2, len(BAD) + 2))
    for it, (_, words) in zip(failed, BAD, strict=True):
        assert words in (it["error"]["message"])
        assert (it["complete"], it["exit_status"], it["error"]["kind"]) == (False, 2, "usage")


def test_two_lines_with_the_same_id_are_refused(batch: Ask, desk: MakeDesk, questions: Questions) -> None:
    server = desk()
    result = batch(server, questions({"prompt": "a", "id": "x"}, {"prompt": "b", "custom_id": "x"}))
    assert (result.status, server.received) == (2, [])
    assert 'line 2 ("x"): the id is used twice' in result.stderr


def test_ids_that_look_alike_are_different(batch: Ask, desk: MakeDesk, questions: Questions) -> None:
    ids = [1, "1", 0, -1, -2, "-1", "", " ", "a", "A", 2**61 - 1, 2**61, 10**30]
    result = batch(desk(), "-k", questions(*({"prompt": f"p{at}", "id": name} for at, name in enumerate(ids))))
    assert (result.status, [it["id"] for it in result.results]) == (0, ids)


def test_in_a_pipe_only_the_second_line_with_the_same_id_fails(batch: Ask, desk: MakeDesk) -> None:
    lines = [{"prompt": "a", "id": "x"}, {"prompt": "b", "id": "x"}, {"prompt": 5, "id": "x"}, "c"]
    result = batch(desk(), "-k", stdin=encoded(lines))
    assert (result.status, [it["complete"] for it in result.results]) == (2, [True, False, False, True])


def test_equal_prompts_are_sent_once_for_each_line(batch: Ask, desk: MakeDesk, questions: Questions) -> None:
    server = desk()
    result = batch(server, "-k", questions("a", "b", "a", {"prompt": "a"}))
    assert (result.texts, sorted(server.prompts)) == (["a", "b", "a", "a"], ["a", "a", "a", "b"])


# What cannot be.


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--resume"], "--resume needs -o"),
        (["--drop-stale"], "--drop-stale needs -o"),
        (["-o", "x.jsonl", "--drop-stale"], "give --resume as well"),
        (["-o", "x.jsonl", "-k"], "-k is for stdout"),
        (["-o", "-"], "-o needs a file name"),
        (["-o", ""], "-o needs a file name"),
        (["--json", "--schema", "x"], "cannot be combined"),
        (["-j", "0"], "-j"),
        (["-j", "513"], "-j"),
        (["--halt", "later"], "--halt 'later' is not valid"),
        (["--halt", "now,fail=0"], "is not valid"),
        (["--halt", "now,fail=101%"], "is not valid"),
        (["--allow-failed", "x"], "--allow-failed"),
        (["--rpm", "-1"], "--rpm"),
        (["-O", "n=2"], "-O n requests several answers"),
    ],
)
def test_invalid_options_are_reported_in_one_line_and_nothing_is_sent(
    batch: Ask, desk: MakeDesk, questions: Questions, tmp_path: Path, flags: list[str], words: str
) -> None:
    server = desk()
    result = batch(server, *[flag.replace("x.jsonl", str(tmp_path / "x.jsonl")) for flag in flags], questions("a"))
    assert (result.status, result.stdout, server.received) == (2, b"", [])
    (line,) = result.stderr.splitlines()
    assert words in line
    assert not list(tmp_path.glob("x*"))


@pytest.mark.parametrize("file", ["nothing-there", "a-folder", ""])
def test_an_unreadable_input_is_reported(batch: Ask, desk: MakeDesk, tmp_path: Path, file: str) -> None:
    (tmp_path / "a-folder").mkdir()
    result = batch(desk(), tmp_path / file if file else "")
    assert result.status == 2
    assert len(result.stderr.splitlines()) == 1


def test_the_same_file_cannot_be_both_input_and_output(
    batch: Ask, desk: MakeDesk, questions: Questions, tmp_path: Path
) -> None:
    file = questions("a", name="q.jsonl")
    (tmp_path / "q.jsonl.partial").symlink_to(file)
    (tmp_path / "link").symlink_to(file)
    server = desk()
    for arguments in (["-o", file, file], ["-o", tmp_path / "link", file], ["-o", f"{file}.x", f"{file}.x.partial"]):
        (tmp_path / "q.jsonl.x.partial").write_bytes(file.read_bytes())
        result = batch(server, *arguments)
        assert (result.status, server.received) == (2, [])
    assert file.read_bytes() == b'"a"\n'


def test_dry_run_counts_and_shows_the_first_request_and_sends_nothing(
    batch: Ask, desk: MakeDesk, questions: Questions, tmp_path: Path
) -> None:
    server = desk()
    result = batch(server, "--dry-run", "-o", tmp_path / "out", "-m", "m", questions("héllo", "b"))
    assert (result.status, server.received) == (0, [])
    shown = json.loads(result.stdout)
    assert (shown["lines"], shown["characters"]) == (2, 6)
    assert shown["first"]["body"]["messages"][0]["content"] == "héllo"
    assert not list(tmp_path.glob("out*"))
    assert batch(server, "--dry-run", questions(b"bad\n")).status == 2
