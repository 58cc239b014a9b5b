"""The chunks from a dialect -> the chunks of one answer: one choice, without repetitions, in whole code points."""

from collections.abc import Iterable, Iterator

from smai_cli.answer.chunk import ChoicePart, Chunk, Place, Repetition, UnreadKind, UnreadPart
from smai_cli.answer.completeness import worst
from smai_cli.answer.repetition import AnswerText
from smai_cli.answer.tool_calls import PendingCalls, ToolCalls
from smai_cli.common.text import Joiner
from smai_cli.errors import ANSWER_FAILURES

# How many plain deltas are collected before they are added to the text so far: hashing each one separately takes 2 % of
# the time of a decode (tests/benchmarks/bench.py, decode).
_COLLECTED = 256
_OTHER_CHOICE = UnreadPart(UnreadKind.TEXT, "a second answer, although one was requested")
_CONTRADICTION = UnreadPart(UnreadKind.TEXT, "a repetition of the text that differs from it")
_LOST_TEXT = UnreadPart(UnreadKind.TEXT, "a part of the text that was announced but did not arrive")
_LOST_CALL = UnreadPart(UnreadKind.CALL, "a tool call without its end")


def chunks_of_answer(chunks: Iterable[Chunk], due: int | None) -> Iterator[Chunk]:
    """Yield `chunks` with the text, reasons and calls of the one choice that is the answer.

    `due` is how many choices were requested; None if unknown.

    The answer is choice 0, or the only choice if it has another index. A repetition of the answer adds only what no
    delta contained. The halves of a surrogate pair in two deltas are joined, and a lone half becomes U+FFFD, also
    before a failure. Raises what iterating `chunks` raises.
    """
    answer = _Answer(due)
    collected = answer.collected
    failure = None
    try:
        for chunk in chunks:
            # Most chunks are a delta of ASCII text like the one before, and need no change.
            if chunk.is_plain and chunk.choice_index == answer.plain_index and chunk.part == answer.collected_part:
                collected.append(chunk.text)
                yield chunk
            else:
                yield answer.view(chunk)
            if len(collected) >= _COLLECTED:
                answer.add_collected()
    except ANSWER_FAILURES as error:
        failure = error
    if rest := answer.joiner.rest():
        yield Chunk(text=rest)
    if failure:
        raise failure


class _Answer:
    """The answer so far, as far as the next chunk depends on it.

    `plain_index` is the index of the choice whose plain chunks need no view, None if all chunks need one. `collected`
    has the texts of deltas, as long as they belong to one part of the answer, `collected_part`.
    """

    def __init__(self, due: int | None) -> None:
        self.joiner = Joiner()
        self.plain_index: int | None = None
        self.collected: list[str] = []
        self.collected_part: Place | None = None
        self._due = due
        self._choice_index: int | None = 0 if due and due > 1 else None
        self._highest_index = 0
        self._text = AnswerText()
        self._has_refusal = False
        self._calls = ToolCalls()
        self._pending_calls = PendingCalls()
        self._foreign_calls: dict[str, str] = {}
        self._run_calls: set[str] = set()
        self._is_incomplete = False

    def add_collected(self) -> None:
        """Add the deltas since the last call to the text so far."""
        if self.collected:
            self._text.add("".join(self.collected), self.collected_part)
            self.collected.clear()

    def view(self, chunk: Chunk) -> Chunk:
        """Return what `chunk` means for the answer."""
        if chunk.choice_index is not None and chunk.choice_index != self._choice_index:
            if self._choice_index is not None and self._due != 1:
                return _as_other(chunk)
            self._choice_index = chunk.choice_index
        if chunk.text:
            if chunk.part != self.collected_part:
                self.add_collected()
                self.collected_part = chunk.part
            self.collected.append(chunk.text)
        if self._due == 1 and (chunk.others or chunk.choice_index or self._highest_index):
            chunk = self._merge_only_choice(chunk)
        if chunk.calls:
            self._calls.add(chunk.calls)
        if chunk.repeated is not None:
            chunk = self._add_repetition(chunk, chunk.repeated)
        if chunk.refusal:
            self._has_refusal = True
        text = self.joiner.whole(chunk.text)
        if chunk.done or chunk.api_error:  # the last chunk that is read
            text += self.joiner.rest()
            chunk = self._add_lost_parts(chunk)
        is_alike = chunk.text and chunk.repeated is None and not self.joiner.held
        self.plain_index = self._choice_index if is_alike else None
        return chunk if text is chunk.text else chunk._replace(text=text)

    def _merge_only_choice(self, chunk: Chunk) -> Chunk:
        """Return a chunk of an answer of one choice; a lone choice belongs to it, whatever its index is.

        Foundry Local and old TGI count tokens in the index. An index that is lower than an earlier one means several
        choices, and so do two texts in one event. Copilot's servers send each call of the answer in a separate choice
        (zeroclaw-labs/zeroclaw PR 2136). Whatever else another choice has belongs to the answer as well.
        """
        index = chunk.choice_index or 0
        is_several = bool(chunk.text) and index < self._highest_index
        if chunk.text:
            self._highest_index = max(self._highest_index, index)
        calls, refusal, unread = chunk.calls, chunk.refusal, chunk.unread
        for other in chunk.others:
            again = other.repeated or Repetition()
            is_several = is_several or bool(other.text or again.text)
            calls += tuple(call for call in other.calls if call not in calls)
            calls += tuple(filter(None, map(self._calls.new_in, again.calls)))
            refusal = refusal or again.refusal
            unread += other.unread
        if is_several:
            unread += (_OTHER_CHOICE,)
        if not chunk.others and not is_several:
            return chunk
        return chunk._replace(calls=calls, refusal=refusal, unread=unread, is_plain=False)

    def _add_repetition(self, chunk: Chunk, repeated: Repetition) -> Chunk:
        self.add_collected()
        for part in repeated.pending_calls:
            self._pending_calls.add(part)
        self._foreign_calls.update(repeated.foreign_calls)
        self._run_calls.update(repeated.run_calls)
        self._is_incomplete |= repeated.is_incomplete
        whole = map(self._pending_calls.completed, repeated.calls)
        calls = tuple(filter(None, map(self._calls.new_in, whole)))
        self._calls.add(calls)
        text = chunk.text + self._text.new_in(repeated)
        return chunk._replace(
            text=text,
            refusal=chunk.refusal or ("" if self._has_refusal else repeated.refusal),
            calls=chunk.calls + calls,
            unread=(*chunk.unread, _CONTRADICTION) if self._text.is_contradicted else chunk.unread,
        )

    def _add_lost_parts(self, chunk: Chunk) -> Chunk:
        """Return the last chunk; its `unread` names text that may be missing before it, and missing or unread calls.

        If the server called a part of the answer incomplete, so is the answer.
        """
        self.add_collected()
        if self._is_incomplete and chunk.finish_reason:
            chunk = chunk._replace(finish_reason=worst((chunk.finish_reason, "incomplete")))
        unread = list(chunk.unread)
        if self._text.is_doubtful:
            unread.append(_LOST_TEXT)
        if len(self._pending_calls) > len(self._calls):
            unread.append(_LOST_CALL)
        left = (name for identity, name in self._foreign_calls.items() if identity not in self._run_calls)
        unread += [UnreadPart(UnreadKind.CALL, name) for name in left]
        return chunk._replace(unread=tuple(unread)) if len(unread) > len(chunk.unread) else chunk


def _as_other(chunk: Chunk) -> Chunk:
    """Return `chunk` with its choice, which is not the answer, moved to `others`."""
    fields = {name: getattr(chunk, name) for name in ChoicePart._fields}
    empty = ChoicePart()._asdict() | {"choice_index": chunk.choice_index}
    return chunk._replace(**empty, others=(ChoicePart(**fields), *chunk.others), is_plain=False)
