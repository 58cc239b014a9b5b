"""--reasoning: the model's reasoning is on stderr, and one line says if the API sends none."""

import pytest
from conftest import Server, Smai

pytestmark = pytest.mark.preloaded

NOTICE = "smai: the API sent no reasoning; not every API shows the reasoning\n"
STREAM = (
    b'data: {"choices":[{"delta":{"reasoning":"Hm"}}]}\n\ndata: {"choices":[{"delta":{"content":"42"}}]}\n\n'
    b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)


@pytest.mark.parametrize("options", [[], ["--no-stream"], ["--final", "--summary", "none"], ["--jsonl"]])
def test_an_api_that_sends_no_reasoning_is_named_in_one_line_at_the_end(
    smai: Smai, server: Server, options: list[str]
) -> None:
    mock = server(reply="42")
    result = smai("ask", "--base-url", mock.url, "--reasoning", *options, "hi")
    assert (result.status, result.stderr) == (0, NOTICE)
    assert smai("ask", "--base-url", mock.url, *options, "hi").stderr == ""


def test_no_notice_if_the_api_sends_reasoning(smai: Smai, server: Server) -> None:
    result = smai("ask", "--base-url", server(tape=STREAM).url, "--reasoning", "hi")
    assert (result.status, result.stdout, result.stderr) == (0, b"42\n", "Hm\n")


def test_a_broken_answer_has_no_notice_about_reasoning(smai: Smai, server: Server) -> None:
    result = smai("ask", "--base-url", server(reply="one two three", cut_after=1).url, "--reasoning", "hi")
    assert (result.status, result.stderr.count("\n")) == (8, 1)
    assert "reasoning" not in result.stderr
