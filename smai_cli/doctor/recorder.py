"""What a probe keeps of an answer: it is a writer of the pump, which reads the answer as for any other run."""

import re
import time
from collections.abc import Mapping
from typing import NamedTuple

from smai_cli.answer.chunk import Chunk, UnreadKind
from smai_cli.answer.completeness import canonical
from smai_cli.answer.outcome import TEXT_NEEDS, Outcome
from smai_cli.common.frozen import Frozen
from smai_cli.errors import (
    AccessError,
    BrokenError,
    BusyError,
    ClockError,
    ConnectError,
    RefusedError,
    Retry,
    SmaiError,
)
from smai_cli.stream.listener import Listener

# A server that ignores the token limit is left at so many characters for each token, and some more.
_CHARACTERS_PER_TOKEN = 32
_MORE_CHARACTERS = 64
# A number in the place of a text; in a JSON string, its quotes would have a backslash before them.
_NUMBER = re.compile(r'(?<!\\)"(?:content|text|delta)"\s*:\s*-?\d')
_UNANSWERED = (ConnectError, RefusedError, AccessError, BusyError, ClockError)


class Delta(NamedTuple):
    """A piece of text: when it came, in which read of the connection, and how many characters it has."""

    at_s: float
    read: int
    characters: int


class Recorder(Listener):
    """Keeps what an answer to the probe says; it delivers nothing.

    `reads` counts the reads of the body, `chunks` its events that are not errors. `reasons` are the finish reasons of
    the first choice as the server sent them, and `has_reason_with_text` says that one came together with text.
    `is_done` says that [DONE] came, `has_numbers` that text came as JSON numbers. `choices` are the indexes of the
    choices with text, `ended_choices` of those with a reason. `is_over_limit` says that there was much more text than
    `token_limit` tokens can have, which ends the answer.
    """

    holds_back = False
    needs = TEXT_NEEDS | {UnreadKind.CALL}

    def __init__(self, token_limit: int) -> None:
        self.reads = 0
        self.chunks = 0
        self.deltas: list[Delta] = []
        self.text = ""
        self.reasons: list[str] = []
        self.has_reason_with_text = False
        self.is_done = False
        self.has_numbers = False
        self.is_over_limit = False
        self.choices: set[int] = set()
        self.ended_choices: set[int] = set()
        self._has_payload_end = False
        self._characters_left = _MORE_CHARACTERS + _CHARACTERS_PER_TOKEN * token_limit

    @property
    def has_delivered(self) -> bool:
        """Whether anything of an answer came, so that it is not asked for again."""
        return self.reads > 0

    @property
    def is_in_one_piece(self) -> bool:
        """Whether the answer was one JSON object, and not a stream."""
        return self.chunks == 1 and self._has_payload_end

    def piece(self, _: bytes, /) -> None:
        """Count a read."""
        self.reads += 1

    def chunk(self, chunk: Chunk, /) -> None:
        """Keep what one event says. Raises BrokenError for an answer that ignores the token limit."""
        self.chunks += not chunk.api_error and (bool(chunk.data) or chunk.done)
        self.is_done = self.is_done or (chunk.done and chunk.choice_index is None)
        self._has_payload_end = chunk.done and chunk.choice_index is not None
        if chunk.text:
            self.text += chunk.text
            self.deltas.append(Delta(time.monotonic(), self.reads, len(chunk.text)))
            self.has_numbers = self.has_numbers or _NUMBER.search(chunk.data) is not None
        if chunk.choice_index is not None:
            self._add_choice(chunk.choice_index, chunk.finish_reason, has_text=bool(chunk.text))
            if chunk.finish_reason is not None:
                self.reasons.append(chunk.finish_reason)
                self.has_reason_with_text = self.has_reason_with_text or bool(chunk.text)
        for other in chunk.others:
            self._add_choice(other.choice_index, other.finish_reason, has_text=other.has_text)
        arguments = sum(len(part.arguments) for part in chunk.calls)
        self._characters_left -= len(chunk.text) + len(chunk.reasoning) + arguments
        if self._characters_left < 0:
            self.is_over_limit = True
            raise BrokenError(
                "the server ignores the token limit", "check the options of the server", retry=Retry.NEVER
            )

    def _add_choice(self, index: int, reason: str | None, *, has_text: bool) -> None:
        if has_text:
            self.choices.add(index)
        if reason is not None:
            self.ended_choices.add(index)


class ProbeAnswer(Frozen):
    """What came of one request: its API and token limit, the outcome, and what was recorded.

    `started_s` is when it was sent, on the clock of the recorder, and `elapsed_s` how long it took. `is_framed` says
    that HTTP marks the end of the body; None without a body.
    """

    api: str
    token_limit: int
    outcome: Outcome
    record: Recorder
    is_framed: bool | None
    started_s: float
    elapsed_s: float

    @property
    def failure(self) -> SmaiError | None:
        """Why the answer cannot be judged: the request or the answer failed; None if it can."""
        error = self.outcome.error
        is_empty = isinstance(error, BrokenError) and not self.record.chunks
        return error if is_empty or isinstance(error, _UNANSWERED) else None

    @property
    def break_off(self) -> str:
        """What happened to an answer that stopped without a word about its end; empty if the server said one."""
        error, record = self.outcome.error, self.record
        has_end = record.reasons or record.is_done or record.is_over_limit or record.is_in_one_piece
        return error.describe() if isinstance(error, BrokenError) and not has_end else ""

    @property
    def words(self) -> list[str]:
        """The finish reasons that the server sent, in the words of the API reference."""
        return [canonical(reason) for reason in self.record.reasons]

    @property
    def tokens(self) -> int | None:
        """How many tokens the answer has, as the server counts them."""
        return self.outcome.usage.completion_tokens if self.outcome.usage else None


# What was answered, by the name of the request and the API.
ProbeAnswers = Mapping[tuple[str, str], ProbeAnswer]
