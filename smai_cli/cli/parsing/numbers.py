"""Numbers as click types, with messages that name the limits in words."""

import math
from typing import Any

import click

from smai_cli.common.clocks import MOST_SECONDS

_MOST_SHOWN = 60


class Number(click.ParamType):  # type: ignore[type-arg]  # not subscriptable in click 8.2
    """A finite number from `low` to `high`; JSON has no NaN and no infinity (RFC 8259, section 6).

    `name` is the placeholder in help.
    """

    kind: type[float] = float
    words = "a number"

    def __init__(self, low: float = -math.inf, high: float = math.inf, name: str = "n") -> None:
        self.name = name
        self._low, self._high = low, high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number. Raises BadParameter."""
        try:
            number = self.kind(value)  # int also raises for too many digits
        except ValueError:
            number = math.nan
        if not (self._low <= number <= self._high and abs(number) < math.inf):
            limits = "" if self._low == -math.inf else f" of {self._low:g} or more"
            if self._high < math.inf:
                limits = f" from {self._low:g} to {self._high:.15g}"
            text = str(value)
            shown = text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
            self.fail(f"{shown!r} is not {self.words}{limits}", param, ctx)
        return number


class WholeNumber(Number):
    """A whole number from `low` to `high`."""

    kind = int
    words = "a whole number"


SECONDS = Number(0, MOST_SECONDS, "seconds")
