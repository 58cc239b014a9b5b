"""`smai ask`: the right request reaches the server, and each mode delivers the same text."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import Server, Smai
from process import SMAI

from smai_cli.mock.script import POEM
from smai_cli.prompt.request import Message

pytestmark = pytest.mark.preloaded

POEM_BYTES = POEM.encode()


def messages(server: Any) -> list[Message]:
    """Return the messages of the one request that a mock received."""
    (request,) = server.received
    return [Message(**message) for message in request.json["messages"]]


@pytest.mark.parametrize(
    ("arguments", "stdin", "prompt"),
    [
        pytest.param(["hi"], None, "hi", id="operand"),
        pytest.param(["Write", "a  poem"], None, "Write a  poem", id="operands are joined by a space"),
        pytest.param([], b"hi\n", "hi\n", id="stdin alone, nothing trimmed"),
        pytest.param(["Summarise"], b" data\n\n", "Summarise\n\n data\n\n", id="operands, then stdin"),
        pytest.param(["before", "-", "after"], b"data", "before\n\ndata\n\nafter", id="- places stdin"),
        pytest.param(["-"], b"data\n", "data\n", id="- alone"),
        pytest.param(["hi"], b"", "hi", id="empty stdin adds nothing"),
        pytest.param(["-n", "hi"], b"data", "hi", id="-n does not read stdin"),
        pytest.param(["--", "-n"], None, "-n", id="an operand that looks like an option"),
        pytest.param([], "\ufeffcafé".encode(), "café", id="a UTF-8 BOM is dropped"),
        pytest.param([], "café 😀".encode("utf-16"), "café 😀", id="UTF-16 with a BOM"),
        pytest.param([], b"\xfe\xff" + "naïve".encode("utf-16-be"), "naïve", id="UTF-16, big end first"),
        pytest.param([], b"a\x00\x1b[31m\r\n\tb", "a\x00\x1b[31m\r\n\tb", id="control characters"),
        pytest.param(["é " * 3], "日本\u2028語".encode(), "é é é \n\n日本\u2028語", id="other scripts"),
    ],
)
def test_the_prompt_reaches_the_server_byte_for_byte(
    smai: Smai, server: Server, arguments: list[str], stdin: bytes | None, prompt: str
) -> None:
    mock = server()
    given = subprocess.DEVNULL if stdin is None else stdin
    result = smai("ask", "--base-url", mock.url, *arguments, stdin=given)
    assert (result.status, result.stdout, result.stderr) == (0, POEM_BYTES, "")
    assert messages(mock) == [Message("user", prompt)]


def test_two_megabytes_of_prompt_arrive_completely(smai: Smai, server: Server) -> None:
    mock = server(reply="ok")
    prompt = "0123456789 äöü\n" * 120_000
    assert smai("ask", "--base-url", mock.url, stdin=prompt.encode()).status == 0
    assert messages(mock) == [Message("user", prompt)]


def test_options_are_sent_under_their_api_names_and_only_if_set(smai: Smai, server: Server) -> None:
    mock = server(reply="ok")
    options = ["-m", "m1", "-s", "Be brief.", "-t", "0.5", "--max-tokens", "7", "--top-p", "0.25"]
    assert smai("ask", "--base-url", mock.url, *options, "hi").status == 0
    assert mock.received[0].json == {
        "model": "m1",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        "temperature": 0.5,
        "max_tokens": 7,
        "top_p": 0.25,
        "stream": True,
    }


def test_the_model_comes_from_the_flag_then_the_environment_then_the_default(smai: Smai, server: Server) -> None:
    mock = server()
    smai("ask", "--base-url", mock.url, "hi")
    smai("ask", "--base-url", mock.url, "hi", env={"SMAI_MODEL": "m2"})
    smai("ask", "--base-url", mock.url, "-m", "m3", "hi", env={"SMAI_MODEL": "m2"})
    assert [request.json["model"] for request in mock.received] == ["gpt-4.1", "m2", "m3"]


def test_raw_prints_the_same_bytes_as_curl(smai: Smai, server: Server) -> None:
    mock = server(reply="Grüße\n")
    raw = smai("ask", "--base-url", mock.url, "--raw", "hi")
    body = mock.received[0].body
    url = f"{mock.url}/chat/completions"
    curl = subprocess.run(["curl", "-sN", url, "--data-binary", "@-"], input=body, capture_output=True, check=True)
    created = json.loads(raw.stdout.split(b"\n", 1)[0].removeprefix(b"data: "))["created"]
    again = json.loads(curl.stdout.split(b"\n", 1)[0].removeprefix(b"data: "))["created"]
    assert raw.stdout == curl.stdout.replace(b'"created":%d' % again, b'"created":%d' % created)
    assert raw.stdout.endswith(b"data: [DONE]\n\n")


def test_jsonl_keeps_every_field_the_server_sent_known_or_not(smai: Smai, server: Server) -> None:
    sent = {"id": "x", "novel": {"deep": [1, None]}, "choices": [{"index": 0, "delta": {"content": "é"}, "odd": 1}]}
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    tape = "".join(f"data: {json.dumps(event)}\n\n" for event in (sent, last)).encode() + b"data: [DONE]\n\n"
    result = smai("ask", "--base-url", server(tape=tape).url, "--jsonl", "hi")
    assert [json.loads(line) for line in result.stdout.splitlines()] == [sent, last]


def test_final_prints_the_text_once_and_one_summary_line(smai: Smai, server: Server) -> None:
    result = smai("ask", "--base-url", server(reply="No newline").url, "--final", "hi")
    assert (result.status, result.stdout) == (0, b"No newline\n")
    (line,) = result.stderr.splitlines()
    assert line.startswith("smai: 10 characters; tokens: 1 in, 2 out (server); first delta after ")
    assert line.endswith(" s in all; stop")


def test_in_every_mode_the_same_text_can_be_rebuilt(smai: Smai, server: Server) -> None:
    reply = "Grüße, 世界 😀\n\u2028 end\n"
    url = server(reply=reply).url
    text, final, raw, jsonl = (
        smai("ask", "--base-url", url, *flags, "hi").stdout for flags in ([], ["--final"], ["--raw"], ["--jsonl"])
    )
    decoded = smai("decode", stdin=raw).stdout
    deltas = [json.loads(line)["choices"][0]["delta"].get("content", "") for line in jsonl.decode().split("\n")[:-1]]
    assert {text, final, decoded, "".join(deltas).encode()} == {reply.encode()}


@pytest.mark.parametrize(
    ("flags", "is_json"), [([], False), (["--final"], False), (["--raw"], True), (["--jsonl"], True)]
)
def test_no_stream_requests_one_json_body_and_every_mode_prints_it(
    smai: Smai, server: Server, flags: list[str], is_json: bool
) -> None:
    mock = server(reply="all at once\n")
    result = smai("ask", "--base-url", mock.url, "--no-stream", *flags, "hi")
    assert result.status == 0
    assert mock.received[0].json["stream"] is False
    assert "stream_options" not in mock.received[0].json
    if is_json:
        assert json.loads(result.stdout)["choices"][0]["message"]["content"] == "all at once\n"
    else:
        assert result.stdout == b"all at once\n"


def test_usage_is_requested_only_if_a_summary_will_be_printed(smai: Smai, server: Server) -> None:
    mock = server()
    for flags in ([], ["--final"], ["--summary", "json"], ["--final", "--summary", "none"]):
        smai("ask", "--base-url", mock.url, *flags, "hi")
    asked = [request.json.get("stream_options") for request in mock.received]
    assert asked == [None, {"include_usage": True}, {"include_usage": True}, None]


def test_the_json_summary_has_every_field_of_a_good_run(smai: Smai, server: Server) -> None:
    result = smai("ask", "--base-url", server(reply="Grüße").url, "--summary", "json", "hi")
    summary = json.loads(result.stderr)
    assert result.stdout == "Grüße\n".encode()
    assert 0 < summary.pop("first_delta_s") <= summary.pop("elapsed_s")
    assert summary == {
        "complete": True,
        "finish_reason": "stop",
        "characters": 5,
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2, "reasoning_tokens": None},
        "usage_source": "server",
        "model": "gpt-4.1",
        "retries": 0,
        "exit_status": 0,
        "error": None,
    }


def test_without_usage_from_the_server_the_token_count_is_marked_as_an_estimate(smai: Smai, server: Server) -> None:
    tape = b'data: {"choices":[{"delta":{"content":"eight ch"},"finish_reason":"stop"}]}\n\n'
    asked = ("ask", "--base-url", server(tape=tape).url, "-m", "llama3.2", "hi")
    assert "; tokens: ~2 out (estimate); " in smai(*asked, "--final").stderr
    summary = json.loads(smai(*asked, "--summary", "json").stderr)
    assert (summary["usage_source"], summary["usage"]["completion_tokens"]) == ("estimate", 2)


@pytest.mark.parametrize("status", [400, 422])
def test_a_request_is_sent_again_without_stream_options_if_the_server_refuses_them(
    smai: Smai, picky_server: Any, status: int
) -> None:
    with picky_server(status) as picky:
        result = smai("ask", "--base-url", picky.url, "--final", "hi")
    assert (result.status, result.stdout) == (0, POEM_BYTES)
    assert "(local)" in result.stderr
    assert ["stream_options" in request.json for request in picky.received] == [True, False]


def test_a_while_read_loop_answers_every_line(environment: dict[str, str], server: Server, tmp_path: Path) -> None:
    mock = server(reply="ok")
    (tmp_path / "list").write_text("one\ntwo\nthree\n")
    script = f'while read -r line; do "{SMAI}" ask --base-url {mock.url} "$line"; done < list'
    done = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env=environment, capture_output=True, check=True, timeout=30
    )
    assert done.stdout == b"ok\nok\nok\n"
    assert [request.json["messages"][0]["content"] for request in mock.received] == ["one", "two", "three"]
    assert done.stderr.count(b"so smai leaves it alone") == 3


def test_smai_no_stdin_in_the_environment_works_like_n(smai: Smai, server: Server) -> None:
    mock = server()
    assert smai("ask", "--base-url", mock.url, "hi", stdin=b"data", env={"SMAI_NO_STDIN": "1"}).status == 0
    assert smai("ask", "--base-url", mock.url, "hi", "-", stdin=b"data", env={"SMAI_NO_STDIN": "1"}).status == 0
    contents = [request.json["messages"][0]["content"] for request in mock.received]
    assert contents == ["hi", "hi\n\ndata"]


def test_mock_needs_no_key_no_network_and_ignores_proxies(smai: Smai) -> None:
    dead = dict.fromkeys(("http_proxy", "HTTP_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    result = smai("ask", "--mock", "Write a poem", env={"SMAI_API_KEY": "sk-real", **dead})
    assert (result.status, result.stdout) == (0, POEM_BYTES)
    assert result.stdout.startswith(b"Spring")


@pytest.mark.parametrize("flags", [[], ["--final"], ["--no-stream"], ["--reasoning"]], ids=" ".join)
def test_reasoning_text_within_the_answer_is_printed_as_part_of_it(
    smai: Smai, server: Server, flags: list[str]
) -> None:
    reply = "<think>\nhm\n</think>\n\n4\n"
    result = smai("ask", "--base-url", server(reply=reply).url, *flags, "2 + 2?")
    assert (result.status, result.stdout) == (0, reply.encode())
