"""Chunks as a dialect gives them -> the chunks of one answer: of one choice, its text once and in whole characters."""

from collections.abc import Iterable, Iterator

from smai_cli.errors import ANSWER_FAILURES
from smai_cli.stream.chunk import Chunk, Other
from smai_cli.text import Joiner


def chunks_of_answer(chunks: Iterable[Chunk], due: int | None) -> Iterator[Chunk]:
    """Yield `chunks` with the text, reasons and calls of the one choice that is the answer.

    `due` choices were asked for; None where nobody knows.

    The answer is choice 0. A server whose only choice has another index means that one. What a server says of the
    whole answer is taken as far as no delta brought it. The halves of a surrogate pair that two deltas brought become
    one character, and one that stays alone becomes U+FFFD, before a failure too.
    """
    answer = _Answer(due)
    failure = None
    try:
        for chunk in chunks:
            # Most are a delta of ASCII text like the one before, and are taken as they are.
            yield chunk if chunk.is_plain and chunk.choice_index == answer.plain_index else answer.view(chunk)
    except ANSWER_FAILURES as error:
        failure = error
    if rest := answer.joiner.rest():
        yield Chunk(text=rest)
    if failure:
        raise failure


class _Answer:
    """What has come of an answer, as far as it decides about what comes.

    `plain_index` is the index of a choice whose plain chunks need no view, None where all need one.
    """

    def __init__(self, due: int | None) -> None:
        self.joiner = Joiner()
        self.plain_index: int | None = None
        self._choice_index: int | None = 0 if due and due > 1 else None
        self._has_text = False
        self._has_refusal = False
        self._has_calls = False
        self._text = ""

    def view(self, chunk: Chunk) -> Chunk:
        """Return `chunk` as what it is for the answer."""
        if chunk.choice_index is not None and chunk.choice_index != self._choice_index:
            if self._choice_index is not None:
                return _as_other(chunk)
            self._choice_index = chunk.choice_index
        self._has_text = self._has_text or bool(chunk.text)
        self._has_refusal = self._has_refusal or bool(chunk.refusal)
        self._has_calls = self._has_calls or bool(chunk.calls)
        if chunk.whole is not None:
            chunk = chunk._replace(
                text=chunk.text or ("" if self._has_text else self._new_in(chunk.whole.text)),
                refusal=chunk.refusal or ("" if self._has_refusal else chunk.whole.refusal),
                calls=chunk.calls or (() if self._has_calls else chunk.whole.calls),
            )
        text = self.joiner.whole(chunk.text)
        if chunk.done or chunk.problem:  # the last one that anybody looks at
            text += self.joiner.rest()
        self.plain_index = self._choice_index if self._has_text and not self.joiner.held else None
        return chunk if text is chunk.text else chunk._replace(text=text)

    def _new_in(self, text: str) -> str:
        """Return what is new in a text where no delta brings any: all so far is said again, or a further part alone."""
        said, self._text = self._text, text
        if text.startswith(said):
            return text[len(said) :]
        self._text = said + text
        return text


def _as_other(chunk: Chunk) -> Chunk:
    """Return `chunk` as what it says of a choice that is not the answer."""
    brings = bool(chunk.text or chunk.calls or chunk.refusal or chunk.reasoning or (chunk.whole and chunk.whole.text))
    other = Other(chunk.choice_index or 0, chunk.finish_reason, brings)
    return chunk._replace(
        text="", finish_reason=None, refusal="", reasoning="", calls=(), whole=None, others=(other, *chunk.others)
    )
