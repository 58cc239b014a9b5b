"""`-x`: the first fenced code block of a complete answer and nothing else, in ask, decode and batch."""

import json
import signal
import subprocess
from pathlib import Path

import pytest
from batching import Ask, MakeDesk, Questions, results_in
from conftest import Server, Smai
from process import SMAI
from rawserver import HEAD, LAST_CHUNK, Serve, chunk
from rawserver import Ask as RawAsk

pytest_plugins = ["batching", "rawserver"]
pytestmark = pytest.mark.preloaded

NO_BLOCK = "the answer has no code block"
UNCLOSED = "the code block in the answer is never closed"
ANSWER = "Here:\n\n```python\nprint('ä')\n```\n\nRun it.\n"
BLOCK = "print('ä')\n".encode()


def stream(text: str, reason: str | None = "stop") -> bytes:
    """Return a stream with `text` in pieces of five characters."""
    events = [{"choices": [{"index": 0, "delta": {"content": text[at : at + 5]}}]} for at in range(0, len(text), 5)]
    if reason:
        events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode() + (
        b"data: [DONE]\n\n" if reason else b""
    )


# By the rules of CommonMark 0.31, section 4.5.
BLOCKS = [
    pytest.param("```\n<\n >\n```\n", "<\n >\n", id="backquotes"),
    pytest.param("~~~\n<\n >\n~~~\n", "<\n >\n", id="tildes"),
    pytest.param("```\naaa\n~~~\n```\n", "aaa\n~~~\n", id="tildes do not close backquotes"),
    pytest.param("~~~\naaa\n```\n~~~\n", "aaa\n```\n", id="backquotes do not close tildes"),
    pytest.param("````\naaa\n```\n``````\n", "aaa\n```\n", id="a shorter fence does not close, a longer one does"),
    pytest.param("~~~~\naaa\n~~~\n~~~~\n", "aaa\n~~~\n", id="the same of tildes"),
    pytest.param("```\n\n  \n```\n", "\n  \n", id="blank lines"),
    pytest.param("```\n```\n", "", id="an empty block"),
    pytest.param(" ```\n aaa\naaa\n```\n", "aaa\naaa\n", id="one space before the fence"),
    pytest.param("  ```\naaa\n  aaa\naaa\n  ```\n", "aaa\naaa\naaa\n", id="two spaces before the fence"),
    pytest.param("   ```\n   aaa\n    aaa\n  aaa\n   ```\n", "aaa\n aaa\naaa\n", id="three spaces before the fence"),
    pytest.param("```\naaa\n  ```\n", "aaa\n", id="a closing fence with two spaces before it"),
    pytest.param("   ```\naaa\n  ```\n", "aaa\n", id="another number of spaces before the closing fence"),
    pytest.param("```\naaa\n    ```\n```\n", "aaa\n    ```\n", id="four spaces are no closing fence"),
    pytest.param("```\n\taaa\n```\n", "\taaa\n", id="a tab in the content"),
    pytest.param("```\naaa\n``` \t\n", "aaa\n", id="spaces and tabs after the closing fence"),
    pytest.param("```\naaa\n``` aaa\n```\n", "aaa\n``` aaa\n", id="a closing fence has no info string"),
    pytest.param("~~~~~~\naaa\n~~~ ~~\n~~~~~~\n", "aaa\n~~~ ~~\n", id="a closing fence has no space in it"),
    pytest.param("foo\n```\nbar\n```\nbaz\n", "bar\n", id="within a paragraph"),
    pytest.param("foo\n---\n~~~\nbar\n~~~\n# baz\n", "bar\n", id="after a heading"),
    pytest.param("```ruby\ndef foo(x)\nend\n```\n", "def foo(x)\nend\n", id="an info string"),
    pytest.param("~~~~    ruby startline=3 $%@#$\nend\n~~~~~~~\n", "end\n", id="an info string with more in it"),
    pytest.param("````;\n````\n", "", id="an info string without a space before it"),
    pytest.param("~~~ aa ``` ~~~\nfoo\n~~~\n", "foo\n", id="an info string of tildes may have both in it"),
    pytest.param("``` aa ```\nfoo\n```\nbar\n```\n", "bar\n", id="an info string of backquotes has none in it"),
    pytest.param("``` ```\n\n~~~\nx\n~~~\n", "x\n", id="code in a line is not a block"),
    pytest.param("```\n``` aaa\n```\n", "``` aaa\n", id="a fence with an info string in a block"),
    pytest.param("``\nno\n``\n\n```\nyes\n```\n", "yes\n", id="two backquotes are no fence"),
    pytest.param("    ```\n    no\n    ```\n\n```\nyes\n```\n", "yes\n", id="four spaces before it: indented code"),
    pytest.param("\t```\n\tno\n\t```\n\n```\nyes\n```\n", "yes\n", id="a tab before it: indented code"),
    pytest.param("```\none\n```\n\n```\ntwo\n```\n", "one\n", id="the first of two"),
    pytest.param("```md\n~~~sh\nls\n~~~\n```\n", "~~~sh\nls\n~~~\n", id="a block in a block"),
    pytest.param("1. Run:\n   ```sh\n   ls\n     -l\n   ```\n2. Done\n", "ls\n  -l\n", id="in a list"),
    pytest.param("- ```sh\n  ls\n  ```\n\n```\nno\n```\n", "ls\n", id="a list item that begins with a fence"),
    pytest.param("10) ~~~\n    ls\n    ~~~\n", "ls\n", id="a numbered item that begins with a fence"),
    pytest.param("```\r\na\r\n\r\nb\r\n```\r\n", "a\r\n\r\nb\r\n", id="line ends of Windows"),
    pytest.param("```\na\x0bb\u2028c\x85\n```", "a\x0bb\u2028c\x85\n", id="what else some count as line ends"),
    pytest.param("```\nlast\n```", "last\n", id="no line end after the closing fence"),
    pytest.param("```\n  trailing  \n\n\n```\n", "  trailing  \n\n\n", id="nothing is trimmed"),
    pytest.param("```\n😀 ä\n```\n", "😀 ä\n", id="beyond ASCII"),
    # Reasoning that a server leaves in the answer.
    pytest.param("<think>\n```\ndraft\n```\n</think>\n\n```\nx\n```\n", "x\n", id="a draft in the reasoning"),
    pytest.param("\n<thinking>```\n</thinking>\n```\nx\n```\n", "x\n", id="reasoning with half a block"),
    pytest.param("Hm.\n```\ndraft\n```\n</think>\n```\nx\n```\n", "x\n", id="reasoning without its opening tag"),
    pytest.param("```\na = t.split('</think>')\n```\n", "a = t.split('</think>')\n", id="code that reads such a tag"),
    pytest.param("```\n<think>\n</think>\n```\n", "<think>\n</think>\n", id="code with both tags"),
]
FAILURES = [
    pytest.param("", NO_BLOCK, id="an empty answer"),
    pytest.param("print(1)\n", NO_BLOCK, id="text alone"),
    pytest.param("Use `print` and ``` print ``` here.\n", NO_BLOCK, id="code in a line"),
    pytest.param("    indented\n", NO_BLOCK, id="indented code"),
    pytest.param("> ```\n> quoted\n> ```\n", NO_BLOCK, id="a block in a quotation"),
    pytest.param("```\n", UNCLOSED, id="an opening fence alone"),
    pytest.param("`````\n\n```\naaa\n", UNCLOSED, id="closed by a shorter fence"),
    pytest.param("```\naaa\n    ```", UNCLOSED, id="closed by a fence with four spaces before it"),
    pytest.param("~~~\naaa\n```\n", UNCLOSED, id="closed by the other character"),
    pytest.param("<think>\n```\ndraft\n```\n", NO_BLOCK, id="reasoning that never ends"),
]


@pytest.mark.parametrize(("text", "block"), BLOCKS)
def test_extract_prints_the_first_block_byte_for_byte(smai: Smai, text: str, block: str) -> None:
    result = smai("decode", "-x", stdin=stream(text))
    assert result == (0, block.encode(), "")


@pytest.mark.parametrize(("text", "message"), FAILURES)
def test_without_a_closed_block_nothing_is_printed_and_the_status_is_8(smai: Smai, text: str, message: str) -> None:
    result = smai("decode", "-x", stdin=stream(text))
    assert result == (8, b"", f"smai: {message}; ask for a code block, or leave -x out\n")


@pytest.mark.parametrize("flags", [["-x"], ["--extract"], ["-nx"], ["-x", "--no-stream"], ["-x", "--api", "responses"]])
def test_ask_prints_the_block_of_streamed_and_unstreamed_answers(smai: Smai, server: Server, flags: list[str]) -> None:
    assert smai("ask", "--base-url", server(reply=ANSWER).url, *flags, "hi") == (0, BLOCK, "")


def test_final_with_extract_adds_only_the_summary(smai: Smai, server: Server) -> None:
    result = smai("ask", "--base-url", server(reply=ANSWER).url, "-x", "--final", "hi")
    assert (result.status, result.stdout) == (0, BLOCK)
    assert result.stderr.startswith(f"smai: {len(ANSWER)} characters; ")


def test_an_answer_without_a_block_is_not_requested_again(smai: Smai, server: Server) -> None:
    mock = server(reply="no code\n")
    result = smai("ask", "--base-url", mock.url, "-x", "--summary", "json", "hi")
    message, summary = result.stderr.splitlines()
    assert (result.status, result.stdout, len(mock.received)) == (8, b"", 1)
    assert message == f"smai: {NO_BLOCK}; ask for a code block, or leave -x out"
    assert json.loads(summary)["complete"] is False


@pytest.mark.parametrize(
    ("tape", "status"),
    [
        pytest.param(stream(ANSWER, None), 8, id="cut after the block"),
        pytest.param(stream(ANSWER, "length"), 9, id="the token limit after the block"),
        pytest.param(stream(ANSWER, "content_filter"), 10, id="withheld after the block"),
    ],
)
def test_an_incomplete_answer_prints_nothing_although_its_block_is_closed(
    smai: Smai, server: Server, tape: bytes, status: int
) -> None:
    asked = smai("ask", "--base-url", server(tape=tape).url, "--retries", "0", "-x", "hi")
    decoded = smai("decode", "-x", stdin=tape)
    assert [(run.status, run.stdout) for run in (asked, decoded)] == [(status, b"")] * 2


def test_a_broken_answer_is_requested_again_and_only_the_second_is_used(serve: Serve, ask: RawAsk) -> None:
    broken = (HEAD, chunk(stream("```\nold\n```\n", None)))
    whole = (HEAD, chunk(stream(ANSWER)), LAST_CHUNK)
    result = ask(serve(broken, whole), "-x")
    assert (result.status, result.stdout) == (0, BLOCK)


def test_the_output_file_gets_the_block_and_is_unchanged_if_there_is_none(
    smai: Smai, server: Server, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    out, tape = folder / "x.py", folder / "tape"
    url = server(reply=ANSWER).url
    assert smai("ask", "--base-url", url, "-x", "-o", out, "--record", tape, "hi") == (0, BLOCK, "")
    assert out.read_bytes() == BLOCK
    assert smai("decode", "-xq", "-o", out, tape) == (0, b"", "")
    url = server(reply="no code").url
    assert smai("ask", "--base-url", url, "-x", "-q", "-o", out, "hi").status == 8
    assert out.read_bytes() == BLOCK
    assert {path.name for path in folder.iterdir()} == {"x.py", "tape"}


def test_a_conversation_stores_the_complete_answer_and_none_that_lacks_a_block(
    smai: Smai, server: Server, tmp_path: Path
) -> None:
    chat = tmp_path / "chat.jsonl"
    assert smai("ask", "--base-url", server(reply=ANSWER).url, "-x", "--chat", chat, "hi") == (0, BLOCK, "")
    kept = chat.read_text()
    assert json.loads(kept.splitlines()[1]) == {"role": "assistant", "content": ANSWER}
    assert smai("ask", "--base-url", server(reply="none").url, "-x", "--chat", chat, "more").status == 8
    assert chat.read_text() == kept


def test_with_extract_the_block_must_match_the_schema(smai: Smai, server: Server, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"required": ["name"]}')
    for reply, status, out in (
        ('```json\n{"name": 1}\n```', 0, b'{"name": 1}\n'),
        ("```json\n{}\n```", 8, b""),
        ('{"name": 1}', 8, b""),
    ):
        result = smai("ask", "--base-url", server(reply=reply).url, "-x", "--schema", schema, "hi")
        assert (result.status, result.stdout) == (status, out)


@pytest.mark.parametrize(("reply", "status"), [("```\n```\n", 8), ("```\n \n\n```\n", 8), (ANSWER, 0)])
def test_fail_empty_with_extract_checks_the_block(smai: Smai, server: Server, reply: str, status: int) -> None:
    assert smai("ask", "--base-url", server(reply=reply).url, "-x", "--fail-empty", "hi").status == status


@pytest.mark.parametrize("command", ["ask", "decode"])
@pytest.mark.parametrize("mode", ["--raw", "--jsonl", "--tool-calls"])
def test_extract_cannot_be_combined_with_modes_that_print_other_data(smai: Smai, command: str, mode: str) -> None:
    result = smai(command, "-x", mode, *(["--mock", "hi"] if command == "ask" else []), stdin=stream(ANSWER))
    assert (result.status, result.stdout) == (2, b"")
    assert f"{mode} and --extract cannot be combined" in result.stderr


def test_extract_fails_on_a_tool_call(smai: Smai, server: Server) -> None:
    tape = (Path(__file__).parent.parent / "streams" / "tool-calls.sse").read_bytes()
    assert smai("ask", "--base-url", server(tape=tape).url, "-x", "hi").status == 8


def test_extract_refuses_a_request_for_several_answers(smai: Smai, server: Server) -> None:
    result = smai("ask", "--base-url", server().url, "-x", "-O", "n=2", "hi")
    assert (result.status, result.stdout) == (2, b"")


def test_a_closed_stdout_ends_the_run_although_nothing_was_printed(environment: dict[str, str], server: Server) -> None:
    command = [SMAI, "ask", "--base-url", server(reply=ANSWER, stall_after=1).url, "-nxv", "hi"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as asked:
        assert asked.stdout
        assert asked.stderr
        assert any(line.endswith(b" s: first delta\n") for line in iter(asked.stderr.readline, b""))
        asked.stdout.close()
        assert asked.wait(20) == -signal.SIGPIPE


def test_in_a_batch_the_text_is_the_block_and_a_line_without_a_block_fails(
    batch: Ask, desk: MakeDesk, questions: Questions
) -> None:
    file = questions(ANSWER, "no code", "```\n```\n", "```\nopen\n")
    run = batch(desk(), "-x", "-k", file)
    assert run.status == 8
    assert [(one["complete"], one["exit_status"], one["text"]) for one in run.results] == [
        (True, 0, BLOCK.decode()),
        (False, 8, "no code"),
        (True, 0, ""),
        (False, 8, "```\nopen\n"),
    ]
    messages = [one["error"] and one["error"]["message"].partition(";")[0] for one in run.results]
    assert messages == [None, NO_BLOCK, None, UNCLOSED]


def test_resume_with_extract_does_not_reuse_results_of_a_run_without_it(
    batch: Ask, desk: MakeDesk, questions: Questions, out: Path
) -> None:
    server, file = desk(), questions(ANSWER, {"prompt": ANSWER, "temperature": 1})
    for flags, text in (([], ANSWER), (["-x"], BLOCK.decode()), (["-x"], BLOCK.decode())):
        assert batch(server, *flags, "-o", out, "--resume", "--drop-stale", "--drop-stale", file).status == 0
        assert [one["text"] for one in results_in(out)] == [text] * 2
    assert len(server.received) == 4
