"""Other clients read the same text from the mock as smai: it uses the real format."""

import json
import subprocess
from typing import TYPE_CHECKING

import pytest
from conftest import Server, Smai

from smai_cli.mock.script import POEM

if TYPE_CHECKING:  # it takes a second, in every process that collects the tests
    import openai

MESSAGES: "list[openai.types.chat.ChatCompletionMessageParam]" = [{"role": "user", "content": "Write a poem"}]


@pytest.fixture
def sdk(server: Server) -> "openai.OpenAI":
    import openai

    return openai.OpenAI(base_url=server(require_key="sk-mock").url, api_key="sk-mock", max_retries=0)


def test_the_openai_sdk_streams_the_same_text_as_smai(sdk: "openai.OpenAI", smai: Smai) -> None:
    with (
        sdk,
        sdk.chat.completions.create(
            model="gpt-4.1", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        ) as stream,
    ):
        chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    asked = smai("ask", "Write a poem", env={"SMAI_BASE_URL": str(sdk.base_url), "SMAI_API_KEY": "sk-mock"})
    assert text.encode() == asked.stdout == POEM.encode()
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage
    assert chunks[-1].usage.total_tokens == chunks[-1].usage.prompt_tokens + chunks[-1].usage.completion_tokens


def test_the_openai_sdk_reads_an_answer_in_one_piece(sdk: "openai.OpenAI") -> None:
    with sdk:
        answer = sdk.chat.completions.create(model="gpt-4.1", messages=MESSAGES)
    assert answer.choices[0].message.content == POEM
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage
    assert answer.usage.prompt_tokens == 3


def test_the_openai_sdk_lists_the_models(sdk: "openai.OpenAI") -> None:
    with sdk:
        assert "gpt-4.1" in {model.id for model in sdk.models.list()}


def test_the_openai_sdk_understands_the_errors(server: Server) -> None:
    import openai

    url = server(require_key="sk-mock").url
    with (
        openai.OpenAI(base_url=url, api_key="sk-wrong", max_retries=0) as sdk,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        sdk.models.list()
    assert refused.value.code == "invalid_api_key"


def test_curl_and_jq_rebuild_the_same_text(server: Server) -> None:
    body = json.dumps({"model": "gpt-4.1", "messages": MESSAGES, "stream": True})
    url = f"{server().url}/chat/completions"
    curl = subprocess.run(["curl", "-sN", url, "-d", body], capture_output=True, check=True)
    lines = [line.removeprefix(b"data: ") for line in curl.stdout.splitlines() if line.startswith(b"data: {")]
    deltas = [json.loads(line)["choices"][0]["delta"].get("content", "") for line in lines]
    assert "".join(deltas) == POEM
