"""What a batch is made of, as the edge gives it: what sends requests, and where results and reports go."""

from typing import Protocol

from smai_cli.batch.feed import Job
from smai_cli.batch.schedule import LoadNotices
from smai_cli.common.clocks import Deadline
from smai_cli.errors import SmaiError
from smai_cli.stream import pump


class Exchange(pump.Source, Protocol):
    """An answer as it comes, with its headers."""

    def header(self, name: str) -> str | None:
        """Return the value of a header of the answer; None without it."""


class Post(Protocol):
    """What sends a request, as one worker after the other does: its own connection lives on."""

    def __call__(self, path: str, body: bytes, deadline: Deadline, /) -> Exchange:
        """POST `body` and return the answer. Raises SmaiError."""


class Results(Protocol):
    """Where results go. Its hooks raise OutputError, or ReaderGoneError."""

    def append(self, place: int, line: bytes, /) -> int:
        """Put a result away; return its offset, -1 where nobody can read it again."""

    def sync(self) -> None:
        """Have what was put away on the disk."""


class Notices(LoadNotices, Protocol):
    """Who reports what happens."""

    def failed(self, job: Job, error: SmaiError, /) -> None:
        """Report that a line has a failure as its result."""
