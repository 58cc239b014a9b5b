"""Tokens: known counts, the models whose tokenizer is known, and what a summary says of who counted."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smai_cli import tokens

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


@pytest.mark.parametrize(("text", "o200k", "cl100k"), KNOWN)
def test_a_count_is_that_of_the_models_own_tokenizer(text: str, o200k: int, cl100k: int) -> None:
    assert (tokens.count(text, "gpt-4o"), tokens.count(text, "gpt-4")) == (o200k, cl100k)


@pytest.mark.parametrize(
    ("model", "encoding"), [(model, encoding) for encoding, models in MODELS.items() for model in models]
)
def test_a_model_has_the_encoding_of_its_family_and_other_makers_have_none(model: str, encoding: str | None) -> None:
    assert tokens.encoding_for(model) == encoding
    assert (tokens.count("hi", model) is None) == (encoding is None)


@settings(deadline=None)
@given(st.text(max_size=200))
def test_no_text_is_refused_and_none_has_more_tokens_than_bytes(text: str) -> None:
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
