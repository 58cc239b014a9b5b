"""Whether an answer is complete: what the server says of its end -> one verdict.

Complete is what the server said to be complete, where nothing that it said speaks against it. The signs:

- a whole finish_reason, for its choice, each choice that is due its own. Text behind it takes it back;
- of several reasons the worst: error, content_filter, length, an unknown word, a whole one. Gateways add their own;
- a reason beside the first text of a choice, or beside its role, may be in every chunk of that server (gcli2api issue
  403, LiteLLM issue 2195): it counts once it is sealed, by `[DONE]` or by the end that a body has of its own;
- `[DONE]` alone says nothing: gateways (one-api, new-api) write it also where their own upstream was cut;
- an error, in any form, is worse than all of it.

Tee dialects, streams and answers in one piece, `ask` and `decode` are judged here and nowhere else.
"""

from collections.abc import Callable, Collection, Iterable

from smai_cli.errors import Again, BrokenError, CutShortError, SmaiError, WithheldError
from smai_cli.stream.chunk import Chunk
from smai_cli.text import one_line

# What --accept takes beside a finish_reason: `[DONE]` in place of one.
DONE_WORD = "done"
# The reasons by which the API reference ends a whole answer, and what other servers call the first of them: TGI,
# Together, Anthropic's words, Cohere.
_WHOLE = frozenset(
    {"stop", "tool_calls", "function_call", "eos", "eos_token", "end_turn", "stop_sequence", "complete"},
)
# From bad to worse; a word that is not here is between a whole one and the first.
_WORSE = ("length", "content_filter", "error")
_CHOICES_LIMIT = 1000


def rank(word: str) -> int:
    """Return how bad a finish_reason is: 0 for a whole one, 1 for an unknown word, more for what is worse."""
    known = word.lower()
    if known in _WHOLE:
        return 0
    return _WORSE.index(known) + 2 if known in _WORSE else 1


def worst(words: Iterable[str]) -> str:
    """Return the worst of some finish reasons, the first of equals."""
    return max(words, key=rank)


class Choice:
    """What the server has said of the end of one choice.

    `words` are its finish reasons; `stands` says that nothing came behind the last one, `is_final` that it is to be
    believed whatever follows, and not only once it is sealed. `needs_care` says that the next delta may change
    something: where it need not be heard, a stream is faster.
    """

    def __init__(self) -> None:
        self.words: dict[str, None] = {}  # a set in their order
        self.stands = False
        self.is_final = False
        self.needs_care = True
        self._is_new = True
        self._goes_without = False

    @property
    def reason(self) -> str | None:
        """The worst reason so far."""
        return worst(self.words) if self.words else None

    def hear(self, reason: str | None, *, brings: bool, brings_text: bool, opens: bool) -> None:
        """Take one chunk: its reason, whether it brings anything (text, a call), and whether it has the role."""
        if brings and self.stands:
            self.stands = self.is_final = self._goes_without = False
        if reason is not None:
            if reason not in self.words:
                self.words[reason] = None
            may_be_in_every_chunk = brings or (opens and self._is_new)
            self.stands = True
            self.is_final = self._goes_without or not may_be_in_every_chunk
        elif brings_text:
            self._goes_without = True
        self._is_new = False
        self.needs_care = self.stands or not self._goes_without


class Completeness:
    """What the server has said of the end of an answer; `accept` holds what the user takes for a whole end.

    `due` is how many choices were asked for, each of which needs its own end; None where nobody knows: then each that
    comes. The choice that is the answer is `main`.
    """

    def __init__(self, accept: Collection[str] = (), due: int | None = None) -> None:
        self.due = due
        self.main = Choice()
        self.is_final = False
        self._accept = frozenset(" ".join(word.split()).lower() for word in accept)
        self._others: dict[int, Choice] = {}
        self._final_others = 0
        self._is_done = False
        self._is_sealed = False
        self._has_delta = False
        self._has_foreign = False
        self._is_unread = False
        self._is_in_one_piece = False

    def hear(self, chunk: Chunk) -> None:
        """Take one chunk. One of plain text, where `main.needs_care` is false, need not be heard."""
        brings_text = bool(chunk.text or chunk.calls or chunk.refusal)
        brings = brings_text or bool(chunk.reasoning)
        self._has_delta = self._has_delta or brings_text
        self._has_foreign = self._has_foreign or chunk.is_foreign
        self._is_unread = self._is_unread or chunk.is_foreign or bool(chunk.whole and chunk.whole.is_unread)
        if chunk.choice_index is not None:
            self.main.hear(chunk.finish_reason, brings=brings, brings_text=brings_text, opens=chunk.opens)
        for other in chunk.others:
            if other.choice_index in self._others or len(self._others) < _CHOICES_LIMIT:
                choice = self._others.setdefault(other.choice_index, Choice())
                self._final_others -= choice.is_final
                choice.hear(other.finish_reason, brings=other.brings, brings_text=other.brings_text, opens=other.opens)
                self._final_others += choice.is_final
        self._is_done = chunk.done
        self._is_in_one_piece = chunk.done and chunk.choice_index is not None
        self.is_final = self.main.is_final and self._final_others >= self._due_others

    def seal(self) -> None:
        """Hear that the body came to the end that it has of its own: the last chunk of HTTP, or its whole length."""
        self._is_sealed = True

    @property
    def is_said(self) -> bool:
        """Whether the server has said how each choice ends, in a way that can be believed."""
        is_sealed = self._is_sealed or self._is_done
        return self._all_due(lambda choice: choice.stands and (is_sealed or choice.is_final))

    def verdict(self, *, has_text: bool, refusal: str) -> SmaiError | None:
        """Return what the server's words leave to be desired; None for a complete answer.

        `has_text` says whether any text was read, `refusal` is the model's, or empty.
        """
        if not self.is_said and not self._is_done_enough:
            return self._unsaid()
        words = [word for choice in self._choices() for word in choice.words if word.lower() not in self._accept]
        word = worst(words) if words else "stop"
        if refusal and not self._accepts_reason and rank(word) <= 1:
            return WithheldError(f"the model refused: {one_line(refusal)}", "rephrase the prompt")
        if not rank(word) and self._is_unread and not has_text:
            return BrokenError(
                "the server says that the answer is complete, and smai can read no text in it",
                "--raw shows what came",
                again=Again.NEVER,
            )
        return _shortfall(word)

    @property
    def _due_others(self) -> int:
        return len(self._others) if self.due is None else self.due - 1

    def _all_due(self, has_ended: Callable[[Choice], bool]) -> bool:
        """Return whether the answer, and as many other choices as are due, have ended."""
        return has_ended(self.main) and sum(map(has_ended, self._others.values())) >= self._due_others

    def _choices(self) -> list[Choice]:
        return [self.main, *self._others.values()]

    @property
    def _accepts_reason(self) -> bool:
        return any(word.lower() in self._accept for word in self.main.words)

    @property
    def _is_done_enough(self) -> bool:
        """Whether `[DONE]` may stand for the reasons that are missing: the user says so, and all else speaks for it."""
        is_good = self._has_delta and not self._has_foreign and self._all_due(lambda _: True)
        return DONE_WORD in self._accept and self._is_done and is_good

    def _unsaid(self) -> BrokenError:
        """Return the failure of an answer whose end the server did not say, or not so that it can be believed."""
        hint = "what came is not the whole answer"
        if self._is_in_one_piece:
            what = "the answer has no finish_reason"
        elif any(choice.stands and not choice.is_final for choice in self._choices()):
            what = "the stream ended without [DONE], and its finish_reason may be one that came with every chunk"
        elif not self._is_done:
            what = "the stream ended before finish_reason"
        elif any(choice.words for choice in self._choices()):
            what = "the stream ended with text behind its finish_reason, or with a choice that has none"
        else:
            what = "the stream ended with [DONE], but without finish_reason"
        if self._is_done and self._has_delta:
            hint = "it may not be whole; --accept done takes the answers of a server that never says more"
        return BrokenError(what, hint)


def emptiness(characters: int) -> BrokenError:
    """Return the failure of an answer that is complete, and has nothing but so many characters of white space.

    It was billed: whether it is worth another one is not for smai.
    """
    what = "the answer is nothing but white space" if characters else "the answer is empty"
    return BrokenError(what, "ask again, or leave --fail-empty out", again=Again.NEVER)


def _shortfall(word: str) -> SmaiError | None:
    """Return what an answer that ended with this finish_reason lacks to be a whole one."""
    known = word.lower()
    if known == "length":
        return CutShortError("the answer hit the token limit", "raise --max-tokens, or --accept length")
    if known == "content_filter":
        return WithheldError("the answer was withheld by a content filter", "rephrase, or --accept content_filter")
    if known in _WHOLE:
        return None
    from shlex import quote  # noqa: PLC0415  # only for a failure

    shown = one_line(word)
    return BrokenError(
        f"the answer ended with finish_reason {shown}",
        f"that does not mean complete; --accept {quote(shown)} takes it",
        again=Again.HELD_BACK if known == "error" else Again.NEVER,
    )
