"""max_tokens and max_completion_tokens: the name that a model accepts, and the other one after a refusal."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from conftest import Smai

from smai_cli.answer.api_error import api_error_in_body, unknown_parameters
from smai_cli.mock.script import Script
from smai_cli.mock.server import Mock, MockRefusal, ReceivedRequest

pytestmark = pytest.mark.preloaded

OLD, NEW = "max_tokens", "max_completion_tokens"
OPENAI = {
    "error": {
        "message": f"Unsupported parameter: '{OLD}' is not supported with this model. Use '{NEW}' instead.",
        "type": "invalid_request_error",
        "param": OLD,
        "code": "unsupported_parameter",
    }
}
MISTRAL = {
    "object": "error",
    "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", NEW], "msg": "Extra inputs are not permitted"}]},
    "type": "invalid_request_error",
    "param": None,
    "code": None,
}


class Choosy(Mock):
    """A mock that knows only one name, or none: `refused` are those that it answers with `status` and `body`."""

    refused: tuple[str, ...] = (OLD,)
    status = 400
    body: Any = OPENAI

    def check(self, received: ReceivedRequest) -> None:
        if any(name in received.json for name in self.refused):
            raise MockRefusal(self.status, self.body)

    def names(self) -> list[str]:
        return [name for request in self.received for name in (OLD, NEW) if name in request.json]


@pytest.fixture
def choosy() -> Iterator[Callable[..., Choosy]]:
    with ExitStack() as stack:

        def start(refused: tuple[str, ...] = (OLD,), status: int = 400, body: Any = OPENAI) -> Choosy:
            mock = stack.enter_context(Choosy(Script(delay_s=0.0)))
            mock.refused, mock.status, mock.body = refused, status, body
            return mock

        yield start


def ask(smai: Smai, mock: Mock, *words: str) -> tuple[int, str]:
    result = smai("ask", "--base-url", mock.url, "--max-tokens", "50", *words, "hi")
    return result.status, result.stderr


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-5", NEW),
        ("gpt-5.1-mini", NEW),
        ("openai/gpt-5", NEW),
        ("o1", NEW),
        ("openai/o3", NEW),
        ("o4-mini", NEW),
        ("gpt-4.1", OLD),
        ("gpt-4o", OLD),
        ("olmo-2", OLD),
        ("the-model", OLD),
    ],
)
def test_a_known_model_gets_the_name_that_it_accepts(smai: Smai, choosy: Any, model: str, name: str) -> None:
    mock = choosy(refused=())
    assert ask(smai, mock, "-m", model) == (0, "")
    assert mock.names() == [name]
    assert mock.received[-1].json[name] == 50


def test_a_request_is_sent_again_with_the_other_name_if_the_model_refuses_max_tokens(smai: Smai, choosy: Any) -> None:
    for options in ([], ["--no-stream"], ["--jsonl"], ["--retries", "0"]):
        mock = choosy()
        assert ask(smai, mock, "-m", "new-model", *options) == (0, "")
        assert mock.names() == [OLD, NEW]
        assert mock.received[-1].json[NEW] == 50


def test_a_model_that_refuses_the_new_name_gets_the_old_name(smai: Smai, choosy: Any) -> None:
    mock = choosy(refused=(NEW,), status=422, body=MISTRAL)
    assert ask(smai, mock, "-m", "gpt-5-local") == (0, "")
    assert mock.names() == [NEW, OLD]


def test_a_server_that_refuses_both_names_gets_two_requests(smai: Smai, choosy: Any) -> None:
    mock = choosy(refused=(OLD, NEW))
    status, message = ask(smai, mock, "-m", "new-model")
    assert (status, mock.names()) == (4, [OLD, NEW])
    assert "Unsupported parameter" in message


def test_stream_options_and_max_tokens_may_both_be_refused(smai: Smai) -> None:
    class Picky(Choosy):
        def check(self, received: ReceivedRequest) -> None:
            if "stream_options" in received.json:
                raise MockRefusal(400, {"detail": [{"loc": ["body", "stream_options"], "msg": "Extra inputs"}]})
            super().check(received)

    with Picky(Script(reply="ok", delay_s=0.0)) as mock:
        result = smai("ask", "--base-url", mock.url, "-m", "m", "--max-tokens", "5", "--summary", "text", "hi")
        assert result.status == 0
        assert len(mock.received) == 3


def test_a_limit_that_is_too_high_is_not_sent_by_another_name(smai: Smai, choosy: Any) -> None:
    mock = choosy(
        body={
            "error": {
                "message": f"{OLD} is too large: 50. This model supports at most 16 completion tokens.",
                "param": OLD,
                "code": "invalid_value",
            }
        }
    )
    status, message = ask(smai, mock, "-m", "new-model")
    assert (status, mock.names()) == (4, [OLD])
    assert "too large" in message


def test_a_member_set_by_the_user_is_sent_unchanged(smai: Smai, choosy: Any) -> None:
    mock = choosy()
    result = smai("ask", "--base-url", mock.url, "-m", "gpt-5", "-O", f"{OLD}=50", "hi")
    assert (result.status, mock.names()) == (4, [OLD])


# A batch.


@pytest.mark.parametrize("options", [[], ["--no-stream"], ["-j", "1"], ["-j", "32", "--no-adapt"]])
def test_a_batch_sends_one_extra_request_and_not_one_for_each_line(
    smai: Smai, choosy: Any, tmp_path: Path, options: list[str]
) -> None:
    lines = tmp_path / "lines"
    lines.write_text("".join(f'"line {number}"\n' for number in range(40)))
    mock = choosy()
    common = ["batch", "--base-url", mock.url, "--max-tokens", "50", lines, *options]
    result = smai(*common, "-m", "new-model")
    assert (result.status, len(result.stdout.splitlines())) == (0, 40)
    assert mock.names() == [OLD] + [NEW] * 40
    assert smai(*common, "-m", "gpt-5").status == 0
    assert mock.names()[41:] == [NEW] * 40


def test_a_batch_finds_the_name_for_each_model_once(smai: Smai, choosy: Any) -> None:
    mock = choosy()
    models = ["a", "gpt-5", "b"] * 8
    lines = "".join(json.dumps({"prompt": f"p{n}", "model": model}) + "\n" for n, model in enumerate(models))
    result = smai("batch", "--base-url", mock.url, "--max-tokens", "50", stdin=lines.encode())
    assert result.status == 0
    refused = [request.json["model"] for request in mock.received if OLD in request.json]
    assert (sorted(refused), len(mock.received)) == (["a", "b"], len(models) + 2)


def test_a_limit_in_the_lines_of_a_batch_is_sent_by_the_other_name_as_well(smai: Smai, choosy: Any) -> None:
    mock = choosy()
    body = {"model": "new-model", "messages": [{"role": "user", "content": "hi"}], OLD: 50}
    lines = "".join(json.dumps({"custom_id": str(n), "body": body}) + "\n" for n in range(6))
    assert smai("batch", "--base-url", mock.url, stdin=lines.encode()).status == 0
    assert mock.names() == [OLD] + [NEW] * 6


@pytest.mark.thorough
def test_lines_do_not_wait_forever_for_a_line_without_an_answer(smai: Smai) -> None:
    class Stuck(Mock):
        """Answers nothing to the first request before the others have come."""

        def __init__(self, script: Script) -> None:
            super().__init__(script)
            self.others = threading.Semaphore(0)

        def check(self, received: ReceivedRequest) -> None:
            if len(self.received) > 1:
                self.others.release()
                return
            for _ in range(3):
                assert self.others.acquire(timeout=20)

    with Stuck(Script(reply="ok", delay_s=0.0)) as mock:
        lines = b'"one"\n"two"\n"three"\n"four"\n'
        result = smai("batch", "--base-url", mock.url, "-m", "m", "--max-tokens", "5", stdin=lines)
        assert (result.status, len(mock.received)) == (0, 4)


# The messages of servers.


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (OPENAI, {OLD, NEW}),
        (MISTRAL, {NEW}),
        ({"error": {"message": OPENAI["error"]["message"], "code": "invalid_request_body"}}, {OLD, NEW}),
        ({"error": {"message": f"mistral does not support parameters: {{'{NEW}': 4096}}", "code": "400"}}, {NEW}),
        (
            {"detail": [{"type": "extra_forbidden", "loc": ["body", NEW], "msg": "Extra inputs are not permitted"}]},
            {NEW},
        ),
        ({"error": {"message": f"Unrecognized request argument supplied: {NEW}"}}, {NEW}),
        ({"error": {"message": f"property '{NEW}' is unsupported"}}, {NEW}),
        ({"error": {"message": "bad request", "param": OLD, "code": "unknown_parameter"}}, {OLD}),
        ({"error": {"message": f"Unknown parameter: '{OLD}'."}}, {OLD}),
        (
            {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": json.dumps(OPENAI)}}},
            {OLD, NEW},
        ),
        ({"error": {"message": f"{OLD} must be at least 1"}}, set()),
        ({"error": {"message": f"Unsupported value: '{OLD}' does not support 0 with this model"}}, set()),
        ({"error": {"message": f"This model's maximum context length is 8 tokens; reduce {OLD} instead"}}, set()),
        ({"error": {"message": "Unsupported parameter: 'top_k'"}}, set()),
        ({"error": {"message": "Unsupported parameter: 'my_max_tokens_more'"}}, set()),
        ({}, set()),
    ],
)
def test_a_refused_parameter_is_distinguished_from_a_refused_value(body: Any, names: set[str]) -> None:
    assert unknown_parameters(api_error_in_body(json.dumps(body).encode())) == names
