"""What happens in a run, told as it happens, with the time: the lines of -v."""

import threading
import time
from collections.abc import Callable

TYPE_CHECKING = False  # what typing.TYPE_CHECKING is, without the time to import typing
if TYPE_CHECKING:
    from smai_cli.config.keys import Secrets

# Takes what has just happened, in a few words. It is called from several threads.
Trace = Callable[[str], None]


def silent(what: str) -> None:
    """Trace nobody."""


class Tracer:
    """Gives each thing that happens to `say`, behind the seconds since `begun_s`, when this was made.

    `key`, all that the run has to keep to itself, is kept out of it.
    """

    def __init__(self, say: Callable[[str], None], key: "Secrets | None" = None) -> None:
        self.key = key
        self._say = say
        self.begun_s = time.monotonic()
        self._lock = threading.Lock()  # so that the lines stand in the order of their times

    def __call__(self, what: str) -> None:
        """Trace what happened."""
        with self._lock:
            line = f"{time.monotonic() - self.begun_s:.3f} s: {what}"
            self._say(self.key.hidden_in(line) if self.key else line)
