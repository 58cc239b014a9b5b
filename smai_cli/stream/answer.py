"""Chunks as a dialect gives them -> the chunks of one answer: of one choice, its text once and in whole characters."""

from collections.abc import Iterable, Iterator

from smai_cli.errors import ANSWER_FAILURES
from smai_cli.stream.chunk import CallPart, Chunk, Other, Part, Whole
from smai_cli.text import Joiner, is_high_half

_LAST_OF_ONE_UNIT = 0xFFFF


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
            is_alike = chunk.is_plain and chunk.choice_index == answer.plain_index and chunk.part == answer.plain_part
            yield chunk if is_alike else answer.view(chunk)
    except ANSWER_FAILURES as error:
        failure = error
    if rest := answer.joiner.rest():
        yield Chunk(text=rest)
    if failure:
        raise failure


class _Answer:
    """What has come of an answer, as far as it decides about what comes.

    `plain_index` is the index of a choice whose plain chunks need no view, None where all need one; `plain_part` is the
    part of it that they belong to, which is none after a whole one.
    """

    def __init__(self, due: int | None) -> None:
        self.joiner = Joiner()
        self.plain_index: int | None = None
        self.plain_part: Part | tuple[()] | None = None
        self._choice_index: int | None = 0 if due and due > 1 else None
        self._has_text = False
        self._has_refusal = False
        self._has_calls = False
        self._call_ids: set[str] = set()
        self._messages = _Messages()
        self._parts = _Parts()

    def view(self, chunk: Chunk) -> Chunk:
        """Return `chunk` as what it is for the answer."""
        if chunk.choice_index is not None and chunk.choice_index != self._choice_index:
            if self._choice_index is not None:
                return _as_other(chunk)
            self._choice_index = chunk.choice_index
        self._has_text = self._has_text or bool(chunk.text)
        self._has_refusal = self._has_refusal or bool(chunk.refusal)
        if chunk.part is not None:
            self._parts.hear(chunk.part)
        if chunk.whole is not None:
            chunk = chunk._replace(
                text=chunk.text or self._new_text(chunk.whole),
                refusal=chunk.refusal or ("" if self._has_refusal else chunk.whole.refusal),
                calls=chunk.calls or self._new_calls(chunk.whole),
            )
            self._has_refusal = self._has_refusal or bool(chunk.refusal)
        if chunk.calls:
            self._has_calls = True
            self._call_ids.update(call.id for call in chunk.calls)
        text = self.joiner.whole(chunk.text)
        if chunk.done or chunk.api_error:  # the last one that anybody looks at
            text += self.joiner.rest()
        self.plain_part = chunk.part if chunk.whole is None else ()
        self.plain_index = self._choice_index if self._has_text and not self.joiner.held else None
        return chunk if text is chunk.text else chunk._replace(text=text)

    def _new_text(self, whole: Whole) -> str:
        if whole.parts:
            return self._parts.new_in(whole)
        if self._has_text or not whole.text:
            return ""
        text, is_of_the_half = self._messages.new_in(whole.text)
        if is_of_the_half:
            self.joiner.held = ""
        return text

    def _new_calls(self, whole: Whole) -> tuple[CallPart, ...]:
        """Return the calls that did not come before; of calls without an id, either came or not."""
        return tuple(
            call for call in whole.calls if not (self._has_calls and (not call.id or call.id in self._call_ids))
        )


class _Messages:
    """What came in `message` where no delta brings anything: each says all so far again, or a further part."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0

    def new_in(self, text: str) -> tuple[str, bool]:
        """Return what is new, and whether it begins with the character of which a half stood at the end before."""
        said = "".join(self._pieces) if len(text) >= self._length else None  # a shorter one does not say it again
        if said is not None and text.startswith(said):
            self._pieces, self._length = [text], len(text)
            return text[len(said) :], False
        if (
            said
            and is_high_half(said[-1])
            and text.startswith(said[:-1])
            and ord(text[len(said) - 1]) > _LAST_OF_ONE_UNIT
        ):
            self._pieces, self._length = [text], len(text)
            return text[len(said) - 1 :], True
        self._pieces.append(text)
        self._length += len(text)
        return text, False


class _Parts:
    """Which parts of an answer have come, where it has several, each by deltas or by one event that has it whole."""

    def __init__(self) -> None:
        self._brought: set[Part] = set()
        self._open: set[Part] = set()
        self._closed: set[int] = set()  # of texts
        self._text: str | None = ""  # as long as no delta came

    def hear(self, part: Part) -> None:
        """Hear that a delta brought a piece of `part`."""
        if part not in self._open:
            self._brought.add(part)
            self._open.add(part)
            self._text = None

    def new_in(self, whole: Whole) -> str:
        """Return the text of the parts in `whole` that did not come before.

        Servers number the parts of deltas in one way and those of whole parts in another: where one seems to do so,
        nothing is taken, rather than the same twice.
        """
        named = {part for part, _ in whole.parts}
        if whole.is_all and self._text is not None:
            text = "".join(text for _, text in whole.parts)
            return text[len(self._text) :] if text.startswith(self._text) else ""
        self._open -= named
        is_known = self._brought <= named if whole.is_all else not self._open
        new = [(part, text) for part, text in whole.parts if is_known and self._is_new(part, text)]
        self._closed.update(hash(text) for _, text in whole.parts)
        self._brought.update(part for part, _ in new)
        text = "".join(text for _, text in new)
        if self._text is not None:
            self._text += text
        return text

    def _is_new(self, part: Part, text: str) -> bool:
        if not text or part in self._brought:
            return False
        is_numbered = self._text is not None and part[0] is not None
        return is_numbered or hash(text) not in self._closed


def _as_other(chunk: Chunk) -> Chunk:
    """Return `chunk` as what it says of a choice that is not the answer."""
    brings = bool(chunk.text or chunk.calls or chunk.refusal or (chunk.whole and chunk.whole.text))
    other = Other(
        choice_index=chunk.choice_index or 0,
        finish_reason=chunk.finish_reason,
        brings=brings or bool(chunk.reasoning),
        brings_text=brings,
        opens=chunk.opens,
    )
    return chunk._replace(
        text="", finish_reason=None, refusal="", reasoning="", calls=(), whole=None, others=(other, *chunk.others)
    )
