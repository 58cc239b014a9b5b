"""Tokens: known counts, the models with a known tokenizer, and the source of the count in a summary."""

import io
import json
import subprocess
import sys
import time
from typing import Any

import pytest
from conftest import Server, Smai
from hypothesis import given
from hypothesis import strategies as st
from tapes import GOOD

from smai_cli.answer.chunk import Chunk
from smai_cli.answer.outcome import Outcome
from smai_cli.output import tokens

pytestmark = pytest.mark.preloaded

# The counts of tiktoken 0.14.0, for o200k_base and for cl100k_base.
KNOWN = [
    pytest.param("", 0, 0, id="nothing"),
    pytest.param("hello world", 2, 2, id="two words"),
    pytest.param("hello world\n", 3, 3, id="a newline counts"),
    pytest.param("tiktoken is great!", 6, 6, id="a sentence"),
    pytest.param("antidisestablishmentarianism", 6, 6, id="a long word"),
    pytest.param("2 + 2 = 4", 7, 7, id="a sum"),
    pytest.param("1234567890", 4, 4, id="digits"),
    pytest.param("don't I'LL", 3, 5, id="contractions"),
    pytest.param(" \n\n\t  \n", 2, 2, id="white space"),
    pytest.param(" " * 81, 2, 1, id="spaces"),
    pytest.param('def f(x: int) -> str:\n    return f"{x:>10}"\n', 18, 17, id="code"),
    pytest.param("Grüße aus München", 5, 5, id="German"),
    pytest.param("你好,世界!今天天气怎么样?", 9, 17, id="Chinese"),
    pytest.param("お誕生日おめでとう", 8, 9, id="Japanese"),
    pytest.param("안녕하세요", 2, 5, id="Korean"),
    pytest.param("مرحبا بالعالم", 4, 10, id="Arabic"),
    pytest.param("e\u0301a\u0308", 4, 5, id="combining marks"),
    pytest.param("👨\u200d👩\u200d👧\u200d👦 😀🎉", 14, 22, id="emoji"),
    pytest.param("<|endoftext|>", 7, 7, id="a special token is plain text"),
    pytest.param("<|im_start|>user<|im_end|>", 13, 13, id="so are those of a chat"),
]
MODELS = {
    "o200k_base": [
        *("gpt-4o", "gpt-4o-2024-05-13", "gpt-4o-mini", "chatgpt-4o-latest", "gpt-4.1", "gpt-4.1-nano", "gpt-4.5"),
        *("gpt-5", "gpt-5-mini", "gpt-5.1", "gpt-5.2-pro", "gpt-5-chat-latest", "o1", "o1-preview", "o3-mini", "o4-x"),
        *("openai/gpt-4o", "openrouter/openai/gpt-5", "azure/gpt-4o", "openai/o3:free", "ft:gpt-4o-mini:org::id"),
        "ft:gpt-4.1-2025-04-14:my-org:suffix:id",
    ],
    "cl100k_base": [
        *("gpt-4", "gpt-4-0613", "gpt-4-32k", "gpt-4-turbo", "gpt-4-turbo-2024-04-09", "openai/gpt-4"),
        *("gpt-3.5-turbo", "gpt-3.5-turbo-16k", "gpt-35-turbo", "ft:gpt-3.5-turbo-0613:org::id"),
    ],
    None: [
        *("", "llama3.2", "gpt-oss-20b", "gpt-2", "gpt-4x", "gpt-4.9", "gpt-40", "gpt-50", "o10", "o2", "GPT-4o"),
        *("claude-gpt-4", "acme/gpt-4", "EleutherAI/gpt-j-6b", "Qwen/Qwen3-8B", "openai/llama", "text-davinci-003"),
    ],
}  # fmt: skip
# What servers send that count nothing: "Hello world\n" is 3 tokens.
RESPONSE = (
    b'data: {"type":"response.created","response":{"model":"o3-pro-2025-06-10"}}\n\n'
    b'data: {"type":"response.output_text.delta","delta":"Hello "}\n\n'
    b'data: {"type":"response.output_text.delta","delta":"world\\n"}\n\n'
    b'data: {"type":"response.completed","response":{"status":"completed"}}\n\n'
)
BODY = b'{"model":"gpt-4","choices":[{"message":{"content":"Hello world\\n"},"finish_reason":"stop"}]}'
UNCOUNTED = {"chat": GOOD, "responses": RESPONSE, "one piece": BODY}
MODES: list[list[str]] = [[], ["--raw"], ["--jsonl"], ["--final"]]


def count_in_summary(stderr: str) -> tuple[str, int]:
    """Return the source and the number of the tokens of an answer, from a JSON summary."""
    summary = json.loads(stderr.splitlines()[-1])
    return summary["usage_source"], summary["usage"]["completion_tokens"]


@pytest.mark.parametrize(("text", "o200k", "cl100k"), KNOWN)
def test_tokens_are_counted_with_the_tokenizer_of_the_model(text: str, o200k: int, cl100k: int) -> None:
    assert (tokens.count(text, "gpt-4o"), tokens.count(text, "gpt-4")) == (o200k, cl100k)


@pytest.mark.parametrize(
    ("model", "encoding"), [(model, encoding) for encoding, models in MODELS.items() for model in models]
)
def test_a_model_has_the_encoding_of_its_family_and_models_of_other_makers_have_none(
    model: str, encoding: str | None
) -> None:
    assert tokens.encoding_for(model) == encoding
    assert (tokens.count("hi", model) is None) == (encoding is None)


@given(st.text(max_size=200))
def test_any_text_is_counted_and_has_at_most_as_many_tokens_as_bytes(text: str) -> None:
    number = tokens.count(text, "gpt-4o")
    assert number is not None
    assert bool(text) <= number <= len(text.encode())


@pytest.mark.parametrize("letter", ["a", " ", "\n", "^", "你"])
def test_a_megabyte_of_one_character_takes_seconds_not_hours(letter: str) -> None:
    start_s = time.monotonic()
    assert tokens.count(letter * (1_000_000 // len(letter.encode())), "gpt-4.1")
    assert time.monotonic() - start_s < 20


def test_an_estimate_is_one_token_for_four_ascii_characters_or_for_one_other() -> None:
    assert [tokens.estimate(*sizes) for sizes in ((0, 0), (1, 1), (4, 4), (5, 5), (2, 0), (7, 5))] == [0, 1, 1, 2, 2, 4]


def test_a_completion_keeps_its_text_only_if_requested_and_a_retry_clears_it() -> None:
    flat, keeping = Outcome(), Outcome(keep_text=True)
    for outcome in (flat, keeping):
        outcome.add(Chunk(text="one "))
        outcome.add(Chunk(text="two"))
    assert (flat.text, keeping.text) == ("", "one two")

    keeping.begin()
    assert keeping.text == ""
    keeping.add(Chunk(text="three"))
    assert keeping.text == "three"


@pytest.mark.parametrize("flags", MODES, ids=lambda flags: flags[0] if flags else "text")
@pytest.mark.parametrize("tape", UNCOUNTED.values(), ids=UNCOUNTED)
def test_decode_counts_tokens_that_the_server_did_not_count(smai: Smai, tape: bytes, flags: list[str]) -> None:
    result = smai("decode", *flags, "--summary", "json", stdin=tape)
    assert (result.status, count_in_summary(result.stderr)) == (0, ("local", 3))
    assert json.loads(result.stderr)["usage"]["prompt_tokens"] is None


@pytest.mark.parametrize("flags", MODES, ids=lambda flags: flags[0] if flags else "text")
@pytest.mark.parametrize(("api", "tape"), [("chat", GOOD), ("responses", RESPONSE)], ids=["chat", "responses"])
def test_ask_counts_tokens_that_the_server_did_not_count(
    smai: Smai, server: Server, api: str, tape: bytes, flags: list[str]
) -> None:
    url = server(tape=tape).url
    result = smai("ask", "--base-url", url, "--api", api, *flags, "--summary", "json", "hi")
    assert (result.status, count_in_summary(result.stderr)) == (0, ("local", 3))


def test_the_text_summary_names_the_source_of_the_token_count_and_marks_an_estimate(
    smai: Smai, no_extra: dict[str, str]
) -> None:
    assert "; tokens: 3 out (local); " in smai("decode", "--final", stdin=GOOD).stderr
    assert "; tokens: ~3 out (estimate); " in smai("decode", "--final", stdin=GOOD, env=no_extra).stderr


def test_the_token_count_of_the_server_takes_precedence(smai: Smai, server: Server) -> None:
    result = smai("ask", "--base-url", server(reply="<|endoftext|>").url, "--summary", "json", "hi")
    assert count_in_summary(result.stderr)[0] == "server"


@pytest.mark.parametrize("model", ["llama3.2", "", "acme/gpt-4"])
def test_the_answer_of_another_makers_model_is_estimated(smai: Smai, model: str) -> None:
    tape = GOOD.replace(b'"gpt-4.1"', json.dumps(model).encode())
    assert count_in_summary(smai("decode", "--summary", "json", stdin=tape).stderr) == ("estimate", 3)


def test_the_tokenizer_is_that_of_the_model_that_answered_and_not_of_the_requested_one(
    smai: Smai, server: Server
) -> None:
    url = server(tape=GOOD.replace(b"Hello ", "你好,世界!今天天气怎么样?".encode())).url
    for model in ("gpt-4", "llama3.2"):
        result = smai("ask", "--base-url", url, "-m", model, "--summary", "json", "hi")
        assert count_in_summary(result.stderr) == ("local", 11)


def test_the_tokens_of_a_cut_off_answer_are_counted_up_to_the_cut(smai: Smai) -> None:
    result = smai("decode", "--summary", "json", stdin=GOOD[: GOOD.index(b"world")])
    assert (result.status, count_in_summary(result.stderr)) == (8, ("local", 2))


def test_the_token_count_of_an_answer_without_text_is_an_estimate(smai: Smai) -> None:
    tape = b'data: {"model":"gpt-4o","choices":[{"delta":{},"finish_reason":"tool_calls"}]}\n\ndata: [DONE]\n\n'
    assert count_in_summary(smai("decode", "--summary", "json", stdin=tape).stderr) == ("estimate", 0)


@pytest.mark.parametrize(
    ("flags", "tape"),
    [([], GOOD), (["--summary", "json"], GOOD.replace(b"gpt-4.1", b"llama3.2"))],
    ids=["no summary", "another maker"],
)
def test_the_vocabulary_is_loaded_only_for_a_count(environment: dict[str, str], flags: list[str], tape: bytes) -> None:
    assert b"splintr" not in imported_modules(environment, "decode", *flags, stdin=tape)
    assert b"splintr" in imported_modules(environment, "decode", "--summary", "text", stdin=GOOD)


def imported_modules(environment: dict[str, str], *arguments: Any, stdin: bytes) -> set[bytes]:
    """Return the names of the modules that a run imports."""
    command = [sys.executable, "-X", "importtime", "-c", "from smai_cli.main import main; main()", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, env=environment, check=True)
    lines = io.BytesIO(done.stderr)
    return {line.rsplit(b"|", 1)[-1].strip() for line in lines if b"import time:" in line}
