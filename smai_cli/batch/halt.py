"""When failures end the whole run: --halt, in GNU parallel's words, and failures that all other lines would share."""

import re

from smai_cli.errors import ConnectError, RefusedError, SmaiError, UsageError
from smai_cli.frozen import Frozen

_WORDS = re.compile(r"(soon|now),fail=(\d+)(%?)")
# A share says nothing of the first few.
_LEAST = 3
_ALL = 100
# So many in a row that are refused, or find no server, and no success: the rest would fare no better.
_HOPELESS = 10


class Halt(Frozen):
    """After how many failures, or after which share of the lines in percent, a run ends; neither: never.

    `is_at_once` says that what runs then is not waited for.
    """

    is_at_once: bool = False
    count: int | None = None
    percent: int | None = None

    def wants(self, failed: int, lines: int) -> bool:
        """Return whether so many failures of so many lines are enough."""
        if self.count is not None:
            return failed >= self.count
        return self.percent is not None and failed >= _LEAST and failed * _ALL >= self.percent * lines


def parse_halt(text: str) -> Halt:
    """Return what `never`, `soon,fail=N`, `now,fail=N` or the same with N% says. Raises UsageError."""
    if text == "never":
        return Halt()
    match = _WORDS.fullmatch(text)
    if not match or int(match[2]) < 1 or (match[3] and int(match[2]) > _ALL):
        raise UsageError(f"--halt {text!r} says nothing", "for example soon,fail=10 or now,fail=5%")
    number = int(match[2])
    return Halt(is_at_once=match[1] == "now", count=None if match[3] else number, percent=number if match[3] else None)


class Hopeless:
    """The failures of a run in a row that are alike, and may be those of every line."""

    def __init__(self) -> None:
        self._what = ""
        self._count = 0
        self._has_succeeded = False

    def failure(self, error: SmaiError | None) -> SmaiError | None:
        """Hear how a line has ended; return the failure that ends the run, None where that is not known."""
        if error is None:
            self._what, self._count, self._has_succeeded = "", 0, True
            return None
        if not isinstance(error, ConnectError | RefusedError):
            return None
        if self._has_succeeded and isinstance(error, RefusedError):  # it is this line
            return None
        self._count = self._count + 1 if error.what == self._what else 1
        self._what = error.what
        if self._count < _HOPELESS:
            return None
        again = "--resume-failed" if isinstance(error, RefusedError) else "--resume"
        return type(error)(
            f"{_HOPELESS} lines in a row: {error.what}", f"{error.hint}; with -o, {again} asks them again"
        )
