"""Adapt requests to a server: leave out or rename what it refused once."""

import threading
import time

from smai_cli.errors import SmaiError
from smai_cli.prompt.request import Request

# A server refuses a parameter before it begins to answer. Other lines wait for that no longer than this.
_FIRST_ANSWER_S = 5.0
_OTHER_NAMES = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}


class Adaptation:
    """What one server is known to refuse. A run has one; it is thread-safe.

    `adapt` leaves that out of a request, or renames it, and `learn` adds to it. With `begin` and `end` around the lines
    of a batch, one line finds out for the others.
    """

    def __init__(self) -> None:
        self._include_usage = True
        self._changed = threading.Condition()
        self._names: dict[str, str] = {}  # of the token limit, by the model, where that of the dialect was refused
        self._known: set[str] = set()  # models whose name of the token limit is known
        self._trying: set[str] = set()  # models for which a line is finding it out

    def adapt(self, request: Request) -> Request:
        """Return the request without what this server is known to refuse."""
        name = self._names.get(request.model)
        if name:
            request = request._replace(token_limit_name=name)
        return request if self._include_usage else request._replace(include_usage=False)

    def learn(self, request: Request, name: str, error: SmaiError) -> bool:
        """Return whether `error` refuses a part of `request`, as it was sent, that `adapt` now changes.

        `name` is the most likely name of the token limit for its model.
        This happens at most once for each part, so that a server that refuses both names is not asked forever.
        """
        if request.include_usage and error.unknown_parameters & {"stream_options", "include_usage"}:
            self._include_usage = False
            return True
        if not _is_unsure(request, name) or request.token_limit_name or name not in error.unknown_parameters:
            return False
        self._names[request.model] = _OTHER_NAMES[name]
        self.accept(request)
        return True

    def accept(self, request: Request) -> None:
        """Record that the server accepted a request, or that what it refused is known."""
        if "max_tokens" not in request.options:
            return
        with self._changed:
            self._known.add(request.model)
            self._changed.notify_all()

    def begin(self, request: Request, name: str) -> None:
        """Wait, at most a few seconds, while another line finds out whether the server has the limit under `name`."""
        model = request.model
        if not _is_unsure(request, name):
            return
        end_s = time.monotonic() + _FIRST_ANSWER_S
        with self._changed:
            while model not in self._known and model in self._trying:
                if not self._changed.wait(end_s - time.monotonic()):
                    return
            self._trying.add(model)

    def end(self, request: Request) -> None:
        """Let another line find out, if this one did not."""
        with self._changed:
            self._trying.discard(request.model)
            self._changed.notify_all()


def _is_unsure(request: Request, name: str) -> bool:
    """Return whether a request has a token limit that some servers do not call `name`."""
    return "max_tokens" in request.options and name in _OTHER_NAMES
