"""Chunks folded into a Completion: what the answer was, and whether the server said that it is complete."""

import io
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from smai_cli.chunk import Chunk, Usage
from smai_cli.errors import Again, BrokenError, CutShortError, SmaiError, Status, WithheldError
from smai_cli.text import ascii_in, one_line

if TYPE_CHECKING:
    from smai_cli.problem import Problem

_REFUSAL_LIMIT = 1000
_TOOLS_LIMIT = 10
_CHOICES_LIMIT = 1000
# The finish reasons by which the API reference ends a whole answer.
_WHOLE = {"stop", "tool_calls", "function_call"}


class Completion:
    """One answer as it grows. It keeps counts, not the text, so a long stream needs no more memory than a short one.

    With `keep_text`, which only a count of tokens needs, it keeps the text too. `accept` holds finish reasons that
    the user takes as a success. Times are seconds from `started_s`, on the clock `now`. `error` is None for a
    complete answer, once the stream has ended. `choices` is how many answers are due, `others` has the
    finish_reason of each beside the first, `tools` names the tools that the model asks for.
    """

    def __init__(  # noqa: PLR0913  # what a restart carries over
        self,
        accept: Collection[str] = (),
        now: Callable[[], float] = time.monotonic,
        started_s: float | None = None,
        model: str = "",
        retries: int = 0,
        *,
        keep_text: bool = False,
    ) -> None:
        self.accept = accept
        self.choices = 1
        self.now = now
        self.started_s = now() if started_s is None else started_s
        self.model = model
        self.retries = retries
        self.keep_text = keep_text
        self._text = io.StringIO()
        self.characters = 0
        self.ascii_characters = 0
        self.refusal = ""
        self.tools: list[str] = []
        self.others: dict[int, str | None] = {}
        self.finish_reason: str | None = None
        self.done = False
        self.problem: Problem | None = None
        self.usage: Usage | None = None
        self.first_delta_s: float | None = None
        self.elapsed_s = 0.0
        self.error: SmaiError | None = None

    def add(self, chunk: Chunk) -> None:
        """Fold one chunk in."""
        _, text, finish_reason, usage, model, refusal, _, calls, others, problem, done = chunk
        if text:
            if self.first_delta_s is None:
                self.first_delta_s = self.now() - self.started_s
            self.characters += len(text)
            self.ascii_characters += len(text) if text.isascii() else ascii_in(text)
            if self.keep_text:
                self._text.write(text)
        if model:
            self.model = model
        if finish_reason or usage or refusal or calls or others or problem or done:  # few chunks have any of it
            self._add_rest(chunk)

    def _add_rest(self, chunk: Chunk) -> None:
        self.finish_reason = chunk.finish_reason or self.finish_reason
        self.usage = chunk.usage or self.usage
        self.problem = chunk.problem or self.problem
        self.done = chunk.done or self.done
        self.refusal = (self.refusal + chunk.refusal)[:_REFUSAL_LIMIT]
        for call in chunk.calls:
            if call.name and call.name not in self.tools and len(self.tools) < _TOOLS_LIMIT:
                self.tools.append(call.name)
        for index, reason in chunk.others:
            if index in self.others or len(self.others) < _CHOICES_LIMIT:
                self.others[index] = reason or self.others.get(index)

    @property
    def text(self) -> str:
        """The text so far, where it is kept; empty otherwise."""
        return self._text.getvalue()

    @property
    def finished(self) -> bool:
        """Whether the server has said that the answer ends here: `[DONE]`, or a finish_reason for each choice."""
        if self.done or self.finish_reason is None:
            return self.done
        reasons = self.others.values()
        return None not in reasons and len(reasons) + 1 >= self.choices

    def end(self, failure: SmaiError | None) -> None:
        """Note the end of the stream; `failure` is what stopped it, None where nothing did or where it is moot."""
        self.elapsed_s = self.now() - self.started_s
        self.error = failure or self._verdict()

    def restart(self) -> None:
        """Forget the answer for another try; the start and the retries of the run stay."""
        fresh = Completion(self.accept, self.now, self.started_s, self.model, self.retries, keep_text=self.keep_text)
        fresh.choices = self.choices
        vars(self).update(vars(fresh))

    @property
    def status(self) -> Status:
        """The exit status of the run that gave this answer."""
        return self.error.status if self.error else Status.COMPLETE

    def _verdict(self) -> SmaiError | None:
        """Return what the server's own words leave to be desired; None for a complete answer."""
        if self.problem:
            return BrokenError(f"the server reported an error in the stream: {self.problem}", "try again later")
        if not self.finished:
            return BrokenError("the stream ended before finish_reason or [DONE]", "what came is not the whole answer")
        shortfalls = map(self._shortfall, [self.finish_reason, *self.others.values()])
        return next(filter(None, shortfalls), None)

    def _shortfall(self, reason: str | None) -> SmaiError | None:
        """Return what an answer that ended with this finish_reason lacks to be a whole one."""
        if reason in self.accept:
            return None
        if reason == "length":
            return CutShortError("the answer hit the token limit", "raise --max-tokens, or --accept length")
        if reason == "content_filter":
            return WithheldError("the answer was withheld by a content filter", "rephrase, or --accept content_filter")
        if self.refusal:
            return WithheldError(f"the model refused: {one_line(self.refusal)}", "rephrase the prompt")
        if reason is not None and reason not in _WHOLE:
            shown = one_line(reason, 40)
            return BrokenError(
                f"the answer ended with finish_reason {shown}",
                "the server does not call that complete",
                again=Again.NEVER,
            )
        return None
