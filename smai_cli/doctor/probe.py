"""The requests of `smai doctor --probe`: each is sent once, by the pump that `smai ask` has, and its answer is kept."""

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from smai_cli.answer.outcome import Outcome
from smai_cli.common.frozen import Frozen
from smai_cli.doctor.checks import NotNeededError
from smai_cli.doctor.recorder import ProbeAnswer, Recorder
from smai_cli.errors import (
    AccessError,
    BusyError,
    Cause,
    ClockError,
    ConnectError,
    RefusedError,
    SmaiError,
)
from smai_cli.prompt.request import TOKEN_LIMITS, Message, Request, choices_in
from smai_cli.stream import pump
from smai_cli.stream.adapting import Adaptation
from smai_cli.stream.retries import Retries

MOST_REQUESTS = 9
# The smallest max_output_tokens of the Responses API (API reference; QuantumNous/new-api#2866).
_LEAST_RESPONSE_TOKENS = 16
# The statuses with which a server refuses a token limit: gpt-5 answers 400 to a limit that its reasoning uses up
# (nextlevelbuilder/goclaw#245).
_REFUSED_LIMIT = (400, 422)
# Options of a profile that would change what the probe asks.
_OWN_MEMBERS = TOKEN_LIMITS | {"n", "response_format", "stop", "stream_options", "text", "tool_choice", "tools"}
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_UNKNOWN_MODEL = "no-such-model"
_SHORT = "Answer with the digit 7 only."
_LONG = "Count to 100 in words."
_OK = "Answer with the word OK only."
_FUNCTION = {"name": "get_time", "parameters": {"type": "object", "properties": {}}}


class ProbeRequest(NamedTuple):
    """One request of the probe, before any API.

    `token_limits` are tried in turn, as long as the server refuses them. `model` is one other than the user's. `tool`
    is a function that has to be called, `choices` the number of answers.
    """

    prompt: str
    token_limits: tuple[int, ...]
    stream: bool = True
    model: str = ""
    tool: Mapping[str, Any] = _NOTHING
    choices: int = 1

    def members(self, api: str) -> dict[str, Any]:
        """Return what the body has in addition to the usual members, as `api` has it."""
        members: dict[str, Any] = {"n": self.choices} if self.choices > 1 else {}
        if self.tool:
            tool = (
                {"type": "function", **self.tool} if api == "responses" else {"type": "function", "function": self.tool}
            )
            members |= {"tools": [tool], "tool_choice": "required"}
        return members


# All of them together ask for less than 300 tokens, the prompts included.
REQUESTS = {
    "ends": ProbeRequest(_SHORT, (64,)),
    "limit": ProbeRequest(_LONG, (1, 16)),
    "limit in one piece": ProbeRequest(_LONG, (1, 16), stream=False),
    "streaming": ProbeRequest(_LONG, (40,)),
    "tools": ProbeRequest("Call the tool.", (32,), tool=_FUNCTION),
    "choices": ProbeRequest(_OK, (8,), choices=2),
    "errors": ProbeRequest(_OK, (1,), model=_UNKNOWN_MODEL),
}


class UserSettings(Frozen):
    """What the user has set for every request: the model, its effort, and finish reasons that mean a success.

    `options` are further members of a request; those that the probe sets itself are not sent.
    """

    model: str
    effort: str | None
    accept: tuple[str, ...]
    options: Mapping[str, Any]


class Prober:
    """Sends the requests of a probe to one server, at most MOST_REQUESTS, and keeps the answers in `answers`.

    `post` sends a body to the path of an API, `dialects` are the APIs by their names, `retries` returns the retries of
    a request, of which there may be so many at most.
    """

    def __init__(
        self,
        settings: UserSettings,
        post: Callable[[str, bytes], pump.Source],
        dialects: Mapping[str, pump.Dialect],
        retries: Callable[[int], Retries],
    ) -> None:
        self.answers: dict[tuple[str, str], ProbeAnswer] = {}
        self._settings, self._post, self._dialects, self._retries = settings, post, dialects, retries
        self._sent = 0
        self._stopped = ""
        self._closed: dict[str, str] = {}  # why an API is not asked any more
        self._answering: set[str] = set()  # the APIs that have answered something
        self._least: dict[str, int] = {"responses": _LEAST_RESPONSE_TOKENS}
        self._adaptation = Adaptation()

    def ask(self, name: str, api: str) -> ProbeAnswer:
        """Return the answer to the request `name` of REQUESTS in an API; each is sent once.

        Raises NotNeededError where it is not sent, or was sent for another check and failed.
        """
        answer = self.answers.get((name, api))
        if answer and answer.failure:
            raise NotNeededError(_failed(name))
        if answer is None:
            answer = self.answers[name, api] = self._ask(name, api)
        return answer

    def _ask(self, name: str, api: str) -> ProbeAnswer:
        request = REQUESTS[name]
        least = self._least.get(api, 1)
        limits = sorted({max(limit, least) for limit in request.token_limits})
        for limit in limits:
            self._check_budget(api)
            answer = self._send(request, api, limit)
            failure = answer.failure
            if limit == limits[-1] or failure is None or failure.http_status not in _REFUSED_LIMIT:
                break
            self._least[api] = limits[-1]
        self._note(name, api, failure)
        return answer

    def _check_budget(self, api: str) -> None:
        reason = self._stopped or self._closed.get(api)
        if reason or self._sent >= MOST_REQUESTS:
            raise NotNeededError(reason or f"{MOST_REQUESTS} requests were sent")

    def _send(self, request: ProbeRequest, api: str, limit: int) -> ProbeAnswer:
        dialect = self._dialects[api]
        kept = {name: value for name, value in self._settings.options.items() if name not in _OWN_MEMBERS}
        members = kept | request.members(api)
        effort = {"reasoning_effort": self._settings.effort} if self._settings.effort else {}
        sent = Request(
            request.model or self._settings.model,
            (Message("user", request.prompt),),
            {"max_tokens": limit, **effort},
            stream=request.stream,
            include_usage=request.stream,
            extra_body=members,
        )
        record, outcome = Recorder(limit), Outcome(self._settings.accept, model=sent.model)
        outcome.choices = choices_in(members)
        is_framed: list[bool] = []

        def post(body: bytes) -> pump.Source:
            if self._sent >= MOST_REQUESTS:
                raise RefusedError(f"{MOST_REQUESTS} requests were sent", "run it again")
            self._sent += 1
            source = self._post(dialect.PATH, body)
            is_framed.append(source.is_framed)
            return source

        retries = self._retries(MOST_REQUESTS - self._sent - 1)
        started_s = time.monotonic()
        pump.ask(sent, post, dialect, writer=record, outcome=outcome, retries=retries, adaptation=self._adaptation)
        return ProbeAnswer(
            api=api,
            token_limit=limit,
            outcome=outcome,
            record=record,
            is_framed=is_framed[-1] if is_framed else None,
            started_s=started_s,
            elapsed_s=round(time.monotonic() - started_s, 3),
        )

    def _note(self, name: str, api: str, failure: SmaiError | None) -> None:
        """Note what a failure means for the requests that follow: nothing, an API that is not there, or the end."""
        if failure is None:
            self._answering.add(api)
        elif isinstance(failure, (ConnectError, AccessError, ClockError)) or failure.cause is Cause.RATE_LIMIT:
            self._stopped = _failed(name)
        elif api not in self._answering:
            self._closed[api] = _failed(name)
            if isinstance(failure, BusyError):
                self._stopped = self._closed[api]


def _failed(name: str) -> str:
    return f"the request of {name} failed"
