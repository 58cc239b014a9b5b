"""Chunks -> an Outcome: a summary of the answer, whether it is complete, and why not."""

import io
import time
from collections.abc import Collection
from typing import TYPE_CHECKING

from smai_cli.answer.chunk import Chunk, UnreadKind, Usage
from smai_cli.answer.completeness import AnswerParts, Completeness, empty_answer_error
from smai_cli.answer.tool_calls import ToolCalls
from smai_cli.common.text import ascii_in
from smai_cli.errors import SmaiError, Status

if TYPE_CHECKING:
    from smai_cli.answer.api_error import ApiError

_REFUSAL_LIMIT = 1000
# The kinds of parts that text output has to deliver.
TEXT_NEEDS = frozenset({UnreadKind.TEXT, UnreadKind.MEDIA})


class Outcome:
    """The summary of one answer as it arrives: counts, not the text, so a long stream needs no more memory.

    With `keep_text`, which only a count of tokens needs, it keeps the text too. `accept` are finish reasons that the
    user accepts as success; with `fail_empty` an answer of only white space is a failure. `needs` are the kinds of
    parts that the output has to deliver. Times are seconds since `started_s` (monotonic). `error` is None for a
    complete answer, once the stream has ended. `choices` is how many answers were requested; an answer of
    `output_limit` tokens was cut by that limit (None: unknown). `calls` are the tool calls, and `is_several` says that
    other choices came in addition to the first.
    """

    def __init__(
        self,
        accept: Collection[str] = (),
        started_s: float | None = None,
        model: str = "",
        *,
        keep_text: bool = False,
        fail_empty: bool = False,
    ) -> None:
        self.accept = accept
        self.started_s = time.monotonic() if started_s is None else started_s
        self.model = model
        self.retries = 0
        self.keep_text = keep_text
        self.needs: Collection[UnreadKind] = TEXT_NEEDS
        self.choices: int | None = None
        self.output_limit: int | None = None
        self._fail_empty = fail_empty
        self.begin()

    def begin(self) -> None:
        """Forget the previous try; the start time and the number of retries stay."""
        self._text = io.StringIO()
        self._completeness = Completeness(self.accept, self.choices, self.output_limit)
        self._main = self._completeness.main
        self._has_ended = False
        self._is_blank = True
        self._needs_text = True
        self.has_reasoning = False
        self.is_final = False
        self.is_several = False
        self.characters = 0
        self._others_than_ascii = 0
        self.refusal = ""
        self.calls = ToolCalls()
        self.api_error: ApiError | None = None
        self.usage: Usage | None = None
        self.first_delta_s: float | None = None
        self.elapsed_s = 0.0
        self.error: SmaiError | None = None

    def add(self, chunk: Chunk) -> None:
        """Add one chunk. Once `is_final` is true, what follows can no longer change how the answer ended."""
        if chunk.is_plain and not self._main.needs_care:
            self.characters += len(chunk.text)
            if self._needs_text:
                self._add_text(chunk.text)
            return
        _, text, reason, usage, model, refusal, _, calls, others, api_error, done, _, _, _, unread, _, _, _ = chunk
        if text:
            if self.first_delta_s is None:
                self.first_delta_s = time.monotonic() - self.started_s
            self.characters += len(text)
            if not text.isascii():
                self._others_than_ascii += len(text) - ascii_in(text)
            if self._needs_text:
                self._add_text(text)
        if model:
            self.model = model
        if self._main.needs_care or reason or usage or refusal or calls or others or api_error or done or unread:
            self._add_rest(chunk)  # for few chunks

    def _add_text(self, text: str) -> None:
        """Add text if more than its length is needed: to count tokens, and until there is more than white space."""
        if self.keep_text:
            self._text.write(text)
        if self._is_blank and text.strip():
            self._is_blank = False
            self._needs_text = self.keep_text

    def _add_rest(self, chunk: Chunk) -> None:
        self._completeness.record(chunk)
        self.is_final = self._completeness.is_final
        self.usage = chunk.usage or self.usage
        self.api_error = chunk.api_error or self.api_error
        refusal = "".join([chunk.refusal, *(other.refusal for other in chunk.others)])
        self.refusal = (self.refusal + refusal)[:_REFUSAL_LIMIT]
        self.is_several = self.is_several or bool(chunk.others)
        self.has_reasoning = self.has_reasoning or bool(chunk.reasoning)
        if chunk.calls:
            self.calls.add(chunk.calls)

    def end_body(self, *, is_framed: bool) -> None:
        """Record the end of the body; `is_framed` says that HTTP marks it, with the last chunk or the length."""
        self._completeness.end_body(is_framed=is_framed)

    @property
    def ascii_characters(self) -> int:
        """How many of the characters are ASCII."""
        return self.characters - self._others_than_ascii

    @property
    def finish_reason(self) -> str | None:
        """The finish_reason of the answer, the worst if there are several."""
        return self._main.reason

    @property
    def text(self) -> str:
        """The text so far with `keep_text`, empty otherwise."""
        return self._text.getvalue()

    @property
    def is_finished(self) -> bool:
        """Whether the server has reliably said how the answer ends."""
        return self._completeness.is_announced or self.is_complete

    @property
    def is_complete(self) -> bool:
        """Whether the stream has ended, and the answer is complete."""
        return self._has_ended and self.error is None

    def end(self, failure: SmaiError | None) -> None:
        """Record the end of the stream; `failure` is what stopped it, or None if nothing did or it does not matter."""
        self.elapsed_s = time.monotonic() - self.started_s
        self._has_ended = True
        self.error = failure or self._verdict()

    @property
    def status(self) -> Status:
        """The exit status for this answer."""
        return self.error.status if self.error else Status.COMPLETE

    def _verdict(self) -> SmaiError | None:
        """Return the failure of an answer that nothing stopped; None for a complete answer."""
        if self.api_error:
            from smai_cli.answer.meaning import answer_error  # only for a failure

            return answer_error(self.api_error, in_stream=True, has_text=self.first_delta_s is not None)
        reading = AnswerParts(
            has_text=self.characters > 0,
            has_reasoning=self.has_reasoning,
            calls=len(self.calls),
            unclear_call=self.calls.unclear_call,
            refusal=self.refusal,
        )
        shortfall = self._completeness.verdict(reading, self.needs)
        if shortfall is None and self._fail_empty and self._is_blank and not self.calls:
            return empty_answer_error(self.characters)
        return shortfall
