"""Whether and when a failed request is sent again."""

import math
import time
from collections.abc import Callable, Mapping

from smai_cli.clocks import Deadline
from smai_cli.errors import Again, SmaiError

# The longest pause a server may ask for (Retry-After, RFC 9110 section 10.2.3) before smai gives up instead.
# Minute-long limits end just above 60 s (openai/openai-python#3555).
LONGEST_WAIT_S = 120.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0
_DOUBLINGS = 7  # 64 s: what comes after it is cut, and 2.0 ** 1024 is no float
# By how much a wait that the server asks for is spread, so that many clients part: never less than it asks for.
_SPREAD = 0.1
_LONGEST_SPREAD_S = 5.0


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return how long the server asks to wait; None where it does not say, or says what cannot be read.

    Retry-After is a number of seconds or an HTTP date (RFC 9110, section 10.2.3); OpenAI adds milliseconds.
    LiteLLM passes on what the server behind it said with `llm_provider-` before the name; its own word goes first.
    A date without a zone, such as that of asctime, is in UTC (section 5.6.7).
    """
    if "retry-after" not in headers and "llm_provider-retry-after" in headers:
        names = ("retry-after-ms", "retry-after")
        headers = {name: headers[f"llm_provider-{name}"] for name in names if f"llm_provider-{name}" in headers}
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit_s
        except (KeyError, ValueError):
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    from datetime import UTC  # noqa: PLC0415  # only for a date
    from email.utils import parsedate_to_datetime  # noqa: PLC0415

    try:
        date = parsedate_to_datetime(headers["retry-after"])
        return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time())
    except (KeyError, ValueError, TypeError, OverflowError):
        return None


def should_retry(headers: Mapping[str, str]) -> bool | None:
    """Return what the server says in x-should-retry, which OpenAI and Anthropic send; None where it says nothing."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower())


class Retries:
    """The tries of one run: `limit` after the first, `spent` so far.

    `say` takes the line that announces each; `deadline` is the end of the run.
    """

    def __init__(
        self,
        limit: int,
        say: Callable[[str], None],
        deadline: Deadline | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.limit = limit
        self.spent = 0
        self._say = say
        self._deadline = deadline or Deadline()
        self._sleep = sleep

    def wait(self, error: SmaiError, *, holds_back: bool) -> bool:
        """Wait for the next try after `error` and return True, or return False at once: then it is final.

        Only a failure that `error.again` allows is tried again: one before any answer, or, where the mode
        holds everything back, a broken answer. Where the server asks for more patience than there is, the
        hint of `error` says so.
        """
        allowed = error.again is Again.UNANSWERED or (error.again is Again.HELD_BACK and holds_back)
        if not allowed or self.spent >= self.limit:
            return False
        if error.wait_s is not None and error.wait_s > LONGEST_WAIT_S:
            error.hint = f"the server asks to wait {math.ceil(error.wait_s)} s; try again then"
            return False
        pause_s = self._pause_s(error)
        if pause_s >= self._deadline.left_s():
            error.hint = f"the next try would come in {pause_s:.1f} s, after --max-time"
            return False
        self.spent += 1
        self._say(f"{error.what}; try {self.spent + 1} of {self.limit + 1} in {pause_s:.1f} s")
        self._sleep(pause_s)
        return True

    def _pause_s(self, error: SmaiError) -> float:
        """Return what the server asked for and a little more, or 0.5 s doubling, spread by a fifth."""
        import random  # noqa: PLC0415  # 3 ms that no good run needs

        if error.wait_s is not None:
            return error.wait_s + random.uniform(0, min(error.wait_s * _SPREAD, _LONGEST_SPREAD_S))  # noqa: S311
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(self.spent, _DOUBLINGS))
        return pause_s * random.uniform(0.8, 1.2)  # noqa: S311  # no secret hangs on it
