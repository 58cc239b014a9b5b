"""A request that the mock received, the API of its path, and whether it can be answered."""

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from smai_cli.mock import responses
from smai_cli.mock import script as answers
from smai_cli.mock.script import Script


class ReceivedRequest(NamedTuple):
    """A request as the mock received it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class MockRefusal(Exception):  # noqa: N818  # it is an answer
    """An answer with an HTTP status other than 200; an empty body means the usual error body."""

    def __init__(self, status: int, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.body = body or {}
        self.headers = headers or {}


class MockDialect(NamedTuple):
    """How requests to one path are answered; `lead` returns the number of events before the first delta."""

    asked_in: str
    asked_types: tuple[type, ...]
    events: Callable[[Script, dict[str, Any]], Iterator[bytes]]
    whole: Callable[[Script, dict[str, Any]], dict[str, Any]]
    lead: Callable[[Script], int]


PATHS = {
    "/v1/chat/completions": MockDialect(
        "messages", (list,), answers.chat_events, answers.chat_whole, answers.chat_lead
    ),
    "/v1/responses": MockDialect(
        "input", (list, str), responses.responses_events, responses.responses_whole, responses.responses_lead
    ),
}


def usable_request(received: ReceivedRequest, dialect: MockDialect) -> dict[str, Any]:
    """Return the JSON of a request, without the prompt of another API. Raises MockRefusal if it cannot be answered."""
    try:
        request = received.json
        asked = request[dialect.asked_in]
        others = {other.asked_in for other in PATHS.values()} - {dialect.asked_in}
        request = {name: value for name, value in request.items() if name not in others}
        usable = isinstance(request["model"], str) and isinstance(asked, dialect.asked_types)
        usable = usable and all(isinstance(message, dict) for message in asked if not isinstance(asked, str))
        usable = usable and isinstance(request.get("stream_options") or {}, dict)
        usable = usable and isinstance(request.get("instructions") or "", str)
    except (ValueError, KeyError, TypeError, RecursionError):
        usable = False
    if not usable:
        raise MockRefusal(400)
    return request  # type: ignore[no-any-return]
