"""Numbers as click types, with messages that name the limits in words."""

import math
from typing import Any

import click

from smai_cli.common.clocks import MOST_SECONDS


class Number(click.ParamType):  # type: ignore[type-arg]  # not subscriptable in click 8.2
    """A finite number from `low` to `high`; JSON has no NaN and no infinity (RFC 8259, section 6).

    `name` is the placeholder in help.
    """

    def __init__(self, low: float, high: float = math.inf, name: str = "n") -> None:
        self.name = name
        self._low, self._high = low, high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number. Raises BadParameter."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and self._low <= number <= self._high):
            limits = f"of {self._low:g} or more"
            if self._high < math.inf:
                limits = f"from {self._low:g} to {self._high:.15g}"
            self.fail(f"{value!r} is not a number {limits}", param, ctx)
        return number


class WholeNumber(click.ParamType):  # type: ignore[type-arg]  # not subscriptable in click 8.2
    """A whole number from `low` to `high`; None: no limit."""

    name = "n"

    def __init__(self, low: int | None = None, high: int | None = None) -> None:
        self._low, self._high = low, high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number. Raises BadParameter."""
        limits = "" if self._low is None else f" of {self._low} or more"
        if self._high is not None:
            limits = f" from {self._low} to {self._high}"
        try:
            number = int(value)  # also raises for too many digits
        except ValueError:
            self.fail(f"{_short(value)!r} is not a whole number{limits}", param, ctx)
        if (self._low is not None and number < self._low) or (self._high is not None and number > self._high):
            self.fail(f"{_short(value)!r} is not a whole number{limits}", param, ctx)
        return number


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


_MOST_SHOWN = 60
SECONDS = Number(0, MOST_SECONDS, "seconds")
