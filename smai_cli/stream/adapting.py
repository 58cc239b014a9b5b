"""What a server refused of a request and can be asked without: learned once, for all requests that follow."""

import threading
import time
from typing import Protocol

from smai_cli.errors import SmaiError
from smai_cli.prompt.request import Request

# A server refuses a parameter before it begins to answer. Who has not seen that by then goes on without knowing.
_FIRST_ANSWER_S = 5.0
_OTHER_NAMES = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}


class TokenLimitNames(Protocol):
    """What a dialect calls the limit of an answer's tokens."""

    def token_limit_name(self, model: str, /) -> str:
        """Return the name for a model, as far as that tells it."""


class Adaptation:
    """What one server is known to refuse, for any thread; a run has one.

    `adapt` leaves that out of a request, or calls it by the other name, and `learn` adds to it. With `begin` and `end`
    around the lines of a batch, one of them finds out for the others.
    """

    def __init__(self, *, include_usage: bool = True) -> None:
        self._include_usage = include_usage
        self._changed = threading.Condition()
        self._names: dict[str, str] = {}  # of the token limit, by the model, where that of the dialect was refused
        self._known: set[str] = set()  # models whose name of the token limit is known by now
        self._trying: set[str] = set()  # models for which a line is finding that out

    def adapt(self, request: Request) -> Request:
        """Return the request as this server is known to take it."""
        name = self._names.get(request.model)
        if name:
            request = request._replace(token_limit_name=name)
        return request if self._include_usage else request._replace(include_usage=False)

    def learn(self, request: Request, dialect: TokenLimitNames, error: SmaiError) -> bool:
        """Return whether `error` refuses a part of `request`, as it was sent, that `adapt` now changes.

        This happens at most once for each part, so that a server which refuses both names is not asked for ever.
        """
        if request.include_usage and error.unknown_parameters & {"stream_options", "include_usage"}:
            self._include_usage = False
            return True
        sent = dialect.token_limit_name(request.model)
        if not _is_unsure(request, sent) or request.token_limit_name or sent not in error.unknown_parameters:
            return False
        self._names[request.model] = _OTHER_NAMES[sent]
        self.accept(request)
        return True

    def accept(self, request: Request) -> None:
        """Note that the server has taken a request, or that what it refused is known."""
        if "max_tokens" not in request.options:
            return
        with self._changed:
            self._known.add(request.model)
            self._changed.notify_all()

    def begin(self, request: Request, dialect: TokenLimitNames) -> None:
        """Wait, for a few seconds at most, while another line finds out what the server calls the token limit."""
        model = request.model
        if not _is_unsure(request, dialect.token_limit_name(model)):
            return
        end_s = time.monotonic() + _FIRST_ANSWER_S
        with self._changed:
            while model not in self._known and model in self._trying:
                if not self._changed.wait(end_s - time.monotonic()):
                    return
            self._trying.add(model)

    def end(self, request: Request) -> None:
        """Let another line find out, if this one has not."""
        with self._changed:
            self._trying.discard(request.model)
            self._changed.notify_all()


def _is_unsure(request: Request, name: str) -> bool:
    """Return whether a request has a token limit, which some servers know by another name than `name`."""
    return "max_tokens" in request.options and name in _OTHER_NAMES
