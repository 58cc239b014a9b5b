"""The chunks of the tries of one line -> its answer, with everything in it that was paid for."""

from collections.abc import Callable
from typing import Any

from smai_cli.answer.chunk import Chunk, Unread, Usage
from smai_cli.answer.outcome import Outcome
from smai_cli.batch.results.assembly import Assembly
from smai_cli.common.frozen import Frozen
from smai_cli.output.extract import code_block
from smai_cli.output.summary import count_tokens


class Answer(Frozen):
    """What came: texts, the tool calls as the chat API has them, the outcome, and the tokens, counted by whom.

    `assembly` has everything else that the server sent, `request_id` is its x-request-id.
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


class Collector:
    """The answer of one line, kept in memory: that of the last try, complete or not.

    `check` returns the text to put into the result, or raises a SmaiError for a text that is not what was asked for.
    `on_begin` is called as each answer begins, `on_tokens` at the end of each try with the tokens that it used. With
    `extract`, the text of a complete answer is its first code block. It is a mode that delivers nothing by itself.
    `request_id` is that of the last try, set by whoever sends it.
    """

    holds_back = True
    takes_all = False
    # Media are in the result: they are delivered.
    needs = frozenset({Unread.TEXT, Unread.CALL})
    has_delivered = False

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
        """Forget the try before, if there was one: another answer begins."""
        self._has_begun = False
        self._pieces: list[str] = []
        self._refusal: list[str] = []
        self._reasoning: list[str] = []
        self._assembly = Assembly()

    def piece(self, data: bytes, /) -> None:
        """Take nothing of the bytes: the text is in the chunks."""

    def chunk(self, chunk: Chunk) -> None:
        """Keep what is in a chunk."""
        if not self._has_begun and not chunk.api_error:
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
        """Count the tokens of the try. Of a complete answer, take the code block if asked to, and check the text."""
        if self._has_begun:
            self._on_tokens(count_tokens(outcome)[0])
        if outcome.error is None and self._extract:
            self._pieces = [code_block("".join(self._pieces))]
        if outcome.error is None and self._check and not outcome.calls:
            self._pieces = [self._check("".join(self._pieces))]

    def answer(self, outcome: Outcome) -> Answer:
        """Return what came."""
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
