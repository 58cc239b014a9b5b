"""--halt and --allow-failed: how many lines may fail before a run ends, and before it counts as failed."""

import re

from smai_cli.batch.results.plan import Plan
from smai_cli.common.frozen import Frozen
from smai_cli.errors import UsageError

_WORDS = re.compile(r"(soon|now),fail=(\d+)(%?)")
# A percentage means little for the first few failures.
_LEAST = 3
_ALL = 100


class Halt(Frozen):
    """Ends a run after `count` failures, or after `percent` of the lines have failed; never if both are None.

    `is_at_once`: running requests are not waited for.
    """

    is_at_once: bool = False
    count: int | None = None
    percent: int | None = None

    def wants(self, failed: int, lines: int) -> bool:
        """Return whether `failed` of `lines` lines end the run."""
        if self.count is not None:
            return failed >= self.count
        return self.percent is not None and failed >= _LEAST and failed * _ALL >= self.percent * lines


def parse_halt(text: str) -> Halt:
    """Parse `never`, `soon,fail=N`, `now,fail=N`, or the same with N%. Raises UsageError."""
    if text == "never":
        return Halt()
    match = _WORDS.fullmatch(text)
    if not match or int(match[2]) < 1 or (match[3] and int(match[2]) > _ALL):
        raise UsageError(f"--halt {text!r} is not valid", "write for example soon,fail=10 or now,fail=5%")
    number = int(match[2])
    return Halt(is_at_once=match[1] == "now", count=None if match[3] else number, percent=number if match[3] else None)


def is_allowed(plan: Plan, allowed: str | None) -> bool:
    """Return whether at most as many lines have failed as --allow-failed says: a number, a share with %, or None."""
    failed = sum(plan.failures().values())
    if not failed or allowed is None:
        return not failed
    number = float(allowed.removesuffix("%"))
    return failed * _ALL <= number * len(plan) if allowed.endswith("%") else failed <= number
