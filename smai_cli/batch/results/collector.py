"""Collect the chunks of the tries of one line into its answer, with everything that was paid for."""

from collections.abc import Callable
from typing import Any

from smai_cli.answer.chunk import Chunk, UnreadKind, Usage
from smai_cli.answer.outcome import Outcome
from smai_cli.batch.results.assembly import Assembly
from smai_cli.common.frozen import Frozen
from smai_cli.output.extract import code_block
from smai_cli.output.summary import count_tokens
from smai_cli.stream.listener import Listener


class Answer(Frozen):
    """An answer: texts, tool calls as in the chat API, the outcome, and the tokens with the source of the count.

    `assembly` has everything else that the server sent; `request_id` is its x-request-id.
    """

    text: str
    refusal: str
    reasoning: str
    calls: list[Any]
    outcome: Outcome
    usage: Usage
    usage_source: str
    assembly: Assembly
    request_id: str | None = None


class Collector(Listener):
    """Keeps the answer to one line in memory: that of the last try, complete or not.

    `check` returns the text for the result, or raises a SmaiError if the text has the wrong form. `on_begin` is called
    when the first part of an answer arrives, `on_tokens` at the end of each try with the tokens that it used. With
    `extract`, the text of a complete answer is its first code block. `request_id` is that of the last try, set by the
    sender.
    """

    # Media count as delivered: they are in the result.
    needs = frozenset({UnreadKind.TEXT, UnreadKind.CALL})

    def __init__(
        self,
        check: Callable[[str], str] | None = None,
        on_begin: Callable[[], None] = lambda: None,
        on_tokens: Callable[[Usage], None] = lambda _: None,
        *,
        extract: bool = False,
    ) -> None:
        self.request_id: str | None = None
        self._check = check
        self._extract = extract
        self._on_begin = on_begin
        self._on_tokens = on_tokens
        self.begin()

    def begin(self) -> None:
        """Begin an answer: discard the previous try."""
        self._has_begun = False
        self._pieces: list[str] = []
        self._refusal: list[str] = []
        self._reasoning: list[str] = []
        self._assembly = Assembly()

    def chunk(self, chunk: Chunk) -> None:
        """Keep the content of a chunk."""
        if not self._has_begun and (chunk.text or chunk.reasoning or chunk.calls or chunk.refusal):
            self._has_begun = True
            self._on_begin()
        if chunk.text:
            self._pieces.append(chunk.text)
        self._assembly.add(chunk)
        if chunk.is_plain:
            return
        if chunk.refusal:
            self._refusal.append(chunk.refusal)
        if chunk.reasoning:
            self._reasoning.append(chunk.reasoning)

    def end(self, outcome: Outcome) -> None:
        """Count the tokens of the try. If the answer is complete, check its text, or its code block."""
        self._on_tokens(count_tokens(outcome)[0])
        if outcome.error is None and self._extract:
            self._pieces = [code_block("".join(self._pieces))]
        if outcome.error is None and self._check and not outcome.calls:
            self._pieces = [self._check("".join(self._pieces))]

    def answer(self, outcome: Outcome) -> Answer:
        """Return the answer so far."""
        usage, source = count_tokens(outcome)
        return Answer(
            text="".join(self._pieces),
            refusal="".join(self._refusal),
            reasoning="".join(self._reasoning),
            calls=outcome.calls.as_json(),
            outcome=outcome,
            usage=usage,
            usage_source=source,
            assembly=self._assembly,
            request_id=(outcome.error and outcome.error.request_id) or self.request_id,
        )
