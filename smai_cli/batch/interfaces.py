"""What a batch needs from its caller: a way to send requests, and outputs for results and reports."""

from typing import Protocol

from smai_cli.batch.feed import Job
from smai_cli.batch.schedule import LoadNotices
from smai_cli.common.clocks import Deadline
from smai_cli.errors import SmaiError
from smai_cli.stream import pump


class AnswerSource(pump.Source, Protocol):
    """An answer as it arrives, with its headers."""

    def header(self, name: str) -> str | None:
        """Return the value of a header of the answer; None if it is missing."""


class Post(Protocol):
    """Sends the requests of one worker, over a connection that stays open."""

    def __call__(self, path: str, body: bytes, deadline: Deadline, /) -> AnswerSource:
        """POST `body` and return the answer. Raises SmaiError."""


class Results(Protocol):
    """The output for results. Its methods raise OutputError or ReaderGoneError."""

    def append(self, place: int, line: bytes, /) -> int:
        """Write a result; return its offset, -1 if it cannot be read again."""

    def sync(self) -> None:
        """Sync the written results to disk."""


class Notices(LoadNotices, Protocol):
    """Reports what happens in a run."""

    def report_failed_line(self, job: Job, error: SmaiError, /) -> None:
        """Report that the result of a line is a failure."""
