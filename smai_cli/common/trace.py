"""The lines of -v: each step of a run as it happens, with its time."""

import threading
import time
from collections.abc import Callable

TYPE_CHECKING = False  # as typing.TYPE_CHECKING, without the time to import typing
if TYPE_CHECKING:
    from typing import Protocol

    class Secrets(Protocol):
        """Keys and header values that must not be printed."""

        def hidden_in(self, text: str) -> str:
            """Return the text with each secret hidden."""


# Takes a short description of what has just happened. Called from several threads.
Trace = Callable[[str], None]


def silent(what: str) -> None:
    """Print nothing."""


class Tracer:
    """Prints each step with `say`, after the seconds since `begun_s`, when the tracer was made.

    `key` holds the secrets to hide in every line.
    """

    def __init__(self, say: Callable[[str], None], key: "Secrets | None" = None) -> None:
        self.key = key
        self._say = say
        self.begun_s = time.monotonic()
        self._lock = threading.Lock()  # keeps the lines in the order of their times

    def __call__(self, what: str) -> None:
        """Print what has just happened."""
        with self._lock:
            line = f"{time.monotonic() - self.begun_s:.3f} s: {what}"
            self._say(self.key.hidden_in(line) if self.key else line)
