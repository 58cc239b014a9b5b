"""The lines of -v: what a run does, as it does it, each with the time."""

import threading
import time
from collections.abc import Callable

TYPE_CHECKING = False  # what typing.TYPE_CHECKING is, without the time to import typing
if TYPE_CHECKING:
    from typing import Protocol

    class Secrets(Protocol):
        """What must not be printed: keys and header values."""

        def hidden_in(self, text: str) -> str:
            """Return the text with each secret replaced."""


# Takes what has just happened, in a few words. It is called from several threads.
Trace = Callable[[str], None]


def silent(what: str) -> None:
    """Print nothing."""


class Tracer:
    """Passes each step to `say`, after the seconds since `begun_s`, when the tracer was made.

    `key` holds what must not be printed: it is replaced in every line.
    """

    def __init__(self, say: Callable[[str], None], key: "Secrets | None" = None) -> None:
        self.key = key
        self._say = say
        self.begun_s = time.monotonic()
        self._lock = threading.Lock()  # the lines come in the order of their times

    def __call__(self, what: str) -> None:
        """Print what has just happened."""
        with self._lock:
            line = f"{time.monotonic() - self.begun_s:.3f} s: {what}"
            self._say(self.key.hidden_in(line) if self.key else line)
