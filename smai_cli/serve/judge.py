"""Find out whether an answer that passes through the gateway is complete, for the lines of -v."""

import json
from collections.abc import Iterator
from typing import Any

from smai_cli.answer.outcome import Outcome
from smai_cli.apis import api_at
from smai_cli.common.clocks import IdleClock
from smai_cli.errors import SmaiError
from smai_cli.prompt.request import Request, choices_in
from smai_cli.stream.listener import Listener
from smai_cli.stream.pump import pump


def find_shortfall(pieces: Iterator[bytes], path: str, body: bytes, *, is_framed: bool) -> SmaiError | None:
    """Read an answer to its end; return what it lacks, as `smai ask --raw` would report it, or None if complete.

    `path` and `body` are those of the request, which says how many answers are due, and the token limit. `is_framed`
    says whether the body of the answer marks its own end, as for pump.Source.
    """
    dialect = api_at(path).load()
    members = _members_of(body)
    outcome = Outcome()
    outcome.choices = choices_in(members)
    outcome.output_limit = dialect.output_limit(Request("", (), extra_body=members))
    pump(_PassingSource(pieces, is_framed=is_framed), dialect, Listener(), outcome)
    return outcome.error


def _members_of(body: bytes) -> dict[str, Any]:
    try:
        members = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return members if isinstance(members, dict) else {}


class _PassingSource:
    """A source of pieces that the gateway passes in. Its clock is never checked."""

    def __init__(self, pieces: Iterator[bytes], *, is_framed: bool) -> None:
        self.clock = IdleClock()
        self.is_framed = is_framed
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        """Do nothing: the answer belongs to the gateway."""
