"""The lines of -v: each step of a run as it happens, with its time."""

import threading
import time
from collections.abc import Callable

# Takes a short description of what has just happened. Called from several threads.
Trace = Callable[[str], None]


def silent(what: str) -> None:
    """Print nothing."""


class Tracer:
    """Prints each step with `say`, after the seconds since `begun_s`, when the tracer was made.

    `hide` removes secrets from every line.
    """

    def __init__(self, say: Callable[[str], None], hide: Callable[[str], str] = str) -> None:
        self.hide = hide
        self._say = say
        self.begun_s = time.monotonic()
        self._lock = threading.Lock()  # keeps the lines in the order of their times

    def __call__(self, what: str) -> None:
        """Print what has just happened."""
        with self._lock:
            self._say(self.hide(f"{time.monotonic() - self.begun_s:.3f} s: {what}"))
