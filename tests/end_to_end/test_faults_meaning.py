"""An error has one meaning, wherever the server reports it: the same status, hint, and retries."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from completeness import event, responses_event
from conftest import Smai
from rawserver import HEAD, HELLO, LAST_CHUNK, PLAIN_ANSWER, Serve, Step, chunk, fair, http, reach

pytest_plugins = ["rawserver"]
pytestmark = pytest.mark.preloaded

Error = dict[str, Any]
# What a server reports, its status before any text, a word of the next step, and whether --final retries.
ERRORS: dict[str, tuple[Error, int, str, bool]] = {
    "money": ({"message": "no", "code": "insufficient_quota"}, 5, "top up the account", False),
    "balance": ({"message": "Insufficient Balance"}, 5, "top up the account", False),
    "key": ({"message": "no", "code": "invalid_api_key"}, 5, "check the key", False),
    "rate": ({"message": "no", "code": "rate_limit_exceeded"}, 6, "try again later", True),
    "overload": ({"message": "no", "type": "overloaded_error"}, 6, "try again later", True),
    "number": ({"message": "no", "code": 429}, 6, "try again later", True),
    "server": ({"message": "no", "type": "server_error"}, 6, "try again later", True),
    "connection": ({"message": "connection to the model was lost"}, 6, "try again later", True),
    "context": ({"message": "no", "code": "context_length_exceeded"}, 4, "shorten the prompt", False),
    "model": ({"message": "no", "code": "model_not_found"}, 4, "check -m/--model", False),
    "request": ({"message": "no", "type": "invalid_request_error"}, 4, "check -m/--model, the options", False),
    "unknown": ({"message": "no", "code": "odd"}, 8, "try again later", True),
    "nothing": ({}, 8, "try again later", True),
}  # fmt: skip


def events(*bodies: bytes) -> list[Step]:
    return [HEAD, *map(chunk, bodies), LAST_CHUNK]


Place = Callable[[Error], list[Step]]
PLACES: dict[str, Place] = {
    "one piece": lambda error: [http("200 OK", json.dumps({"error": error}).encode())],
    "one piece, an array": lambda error: [http("200 OK", json.dumps([{"error": error}], indent=1).encode())],
    "an event": lambda error: events(event({"error": error})),
    "an event, an array": lambda error: events(event([{"error": error}, {"error": {"code": "second"}}])),
    "an event named error": lambda error: events(event({"error": error}, "error")),
    "an event of a choice": lambda error: events(event({"choices": [{"index": 0, "delta": {}, "error": error}]})),
    "an event after a role": lambda error: events(
        event({"choices": [{"index": 0, "delta": {"role": "assistant"}}]}), event({"error": error})
    ),
    "detail": lambda error: events(event({"detail": error or {"x": 1}})),
    "errors": lambda error: events(event({"errors": [error or {"x": 1}]})),
    "Groq": lambda error: events(event({"id": "r", "choices": [], "x_groq": {"error": error or {"x": 1}}})),
    "an error in place of a chunk": lambda error: events(event({"object": "error", **error})),
    "responses, one piece": lambda error: [http("200 OK", json.dumps({"error": error}).encode())],
    "responses, an event": lambda error: events(
        responses_event("error", **({"error": error} if "type" in error else error))
    ),
    "responses, failed": lambda error: events(
        responses_event("response.failed", response={"status": "failed", "error": error})
    ),
}


# One of each status, for the places that are read in the same way as others.
SOME = ("money", "rate", "server", "context", "unknown", "nothing")


@pytest.mark.parametrize("place", PLACES)
def test_an_error_before_any_text_means_the_same_everywhere(smai: Smai, serve: Serve, place: str) -> None:
    api = "responses" if place.startswith("responses") else "chat"
    for name in ERRORS if place in ("one piece", "an event") else SOME:
        error, status, step, _ = ERRORS[name]
        result = fair(smai("ask", "--api", api, "--retries", "0", "hi", env=reach(serve(*PLACES[place](error)))))
        assert result[:2] == (status, b""), name
        assert step in result.stderr, name


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("place", ["one piece", "an event after a role"])
def test_a_busy_error_in_the_stream_is_retried_if_no_text_was_printed(
    smai: Smai, serve: Serve, place: str, name: str
) -> None:
    error = ERRORS[name][0] | {"retry_after": 0}
    is_busy = ERRORS[name][1] == 6
    for flags, is_asked_again in (([], is_busy), (["--raw"], False), (["--jsonl"], is_busy and place == "one piece")):
        server = serve(tuple(PLACES[place](error)), tuple(PLAIN_ANSWER))
        result = fair(smai("ask", *flags, "hi", env=reach(server)))
        assert (len(server.requests), result.status == 0) == ((2, True) if is_asked_again else (1, False)), flags


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_after_text_is_status_8_with_the_same_next_step(smai: Smai, serve: Serve, name: str) -> None:
    error, _, step, _ = ERRORS[name]
    result = fair(smai("ask", "hi", env=reach(serve(*events(HELLO, event({"error": error}))))))
    assert result[:2] == (8, b"Hello \n")
    assert step in result.stderr


@pytest.mark.parametrize("before", [b"", HELLO], ids=["at once", "after text"])
@pytest.mark.parametrize("name", ERRORS)
def test_final_retries_an_error_whose_cause_is_temporary(smai: Smai, serve: Serve, name: str, before: bytes) -> None:
    error, _, _, is_asked_again = ERRORS[name]
    broken = events(before or b": ping\n\n", event({"error": error, "retry_after": 0}))
    server = serve(tuple(broken), tuple(PLAIN_ANSWER))
    result = fair(smai("ask", "--final", "--summary", "none", "hi", env=reach(server)))
    assert (len(server.requests), result.status == 0) == ((2, True) if is_asked_again else (1, False))


def test_final_waits_as_long_as_an_error_in_the_stream_requests(smai: Smai, serve: Serve) -> None:
    error = {"error": {"code": 429, "message": "no", "details": [{"retryDelay": "0.3s"}]}}
    server = serve(tuple(events(event(error))), tuple(PLAIN_ANSWER))
    result = fair(smai("ask", "--final", "--summary", "none", "hi", env=reach(server)))
    assert (result.status, len(server.requests)) == (0, 2)
    assert "the stream: no (429); try 2 of 3 in 0.3 s" in result.stderr
