"""Decide whether an answer is complete, from what the server said about its end and from what could be read.

An answer is complete if the server says so, does not contradict itself, and nothing was dropped:

- each requested choice needs a normal finish_reason. Text after it withdraws it;
- of several reasons the worst counts: error, content_filter, length, an unknown word, a normal one. Gateways append
  a reason of their own;
- a reason in the first chunk with text, or in one that gives the role, may be in every chunk of that server (gcli2api
  issue 403, LiteLLM issue 2195): it counts once `[DONE]` or the framed end of the body confirms it. If text came after
  a normal reason, only `[DONE]` confirms it: proxies turn a cut body into a clean end;
- a reason for tool calls is confirmed by `[DONE]` or by the end of the body: some servers run the tool and go on;
- `[DONE]` alone is not enough: gateways (one-api, new-api) send it even if their upstream was cut;
- an error, in any form, overrides all of this;
- a part that smai could not read, or that the chosen output cannot deliver, is a failure in any case.

This is the only place that decides it: for all dialects, for streams and answers in one piece, for `ask`, `decode` and
`batch`.
"""

from collections.abc import Callable, Collection, Iterable

from smai_cli.answer.chunk import Chunk, UnreadKind
from smai_cli.common.frozen import Frozen
from smai_cli.common.text import one_line
from smai_cli.errors import BrokenError, CutShortError, RefusedError, Retry, SmaiError, WithheldError

# The value of --accept that takes `[DONE]` instead of a finish_reason.
DONE_WORD = "done"
# Other names of the normal reasons in the API reference, stop and tool_calls: TGI, Together, Anthropic, Cohere, UCloud
# (UCloudDoc-Team/modelverse: text_api/struct.md); for calls the API before tools, Bifrost (maximhq/bifrost#617) and
# mlx-lm (ml-explore/mlx-lm PR 782).
_STOP = frozenset({"eos", "eos_token", "end", "end_turn", "stop_sequence", "complete", "normal"})
_CALLS = frozenset({"function_call", "tool_use", "tool_call"})
# Other names of length and content_filter: Anthropic, Gemini, the Responses API, Mistral, Zhipu; for a filter Bedrock
# (pydantic/pydantic-ai PR 7817, camel-ai/camel#4261) and Anthropic's refusal (BerriAI/litellm PR 23800). Gemini puts
# IMAGE_ before its names if the answer was to be an image (BerriAI/litellm#20357).
_LENGTH = frozenset({"max_tokens", "max_output_tokens", "model_length"})
_FILTERED = frozenset({"safety", "recitation", "prohibited_content", "blocklist", "spii", "sensitive"})
_FILTERED |= {"guardrail_intervened", "content_filtered", "refusal"}
# From bad to worse; an unknown word is between a normal one and the first.
_WORSE = ("length", "content_filter", "error")
_NORMAL = ("stop", "tool_calls")
_ENUM_PREFIX = "finishreason."  # the name of Google's enum
_CHOICES_LIMIT = 1000
# Text in unknown members counts from this length: shorter strings are names and numbers.
_STRAY_LIMIT = 16


def canonical(reason: str) -> str:
    """Return the word of the API reference for a server's finish_reason; an unknown one in lower case."""
    # Gateways made with Vercel's AI SDK send its words, such as tool-calls (8monkey-ai/hebo-platform PR 90).
    word = reason.strip().lower().removeprefix(_ENUM_PREFIX).replace("-", "_")
    if word in _STOP:
        return "stop"
    if word in _CALLS:
        return "tool_calls"
    is_filter = word.removeprefix("image_") in _FILTERED or word.startswith("content_filter:")
    return "length" if word in _LENGTH else "content_filter" if is_filter else word


def rank(reason: str) -> int:
    """Return how bad a finish_reason is: 0 for a normal one, 1 for an unknown word, more for a worse one."""
    word = canonical(reason)
    if word in _NORMAL:
        return 0
    return _WORSE.index(word) + 2 if word in _WORSE else 1


def worst(reasons: Iterable[str]) -> str:
    """Return the worst of some finish reasons, the first of equals."""
    return max(reasons, key=rank)


class AnswerParts(Frozen):
    """What an answer contains: whether text and reasoning, how many tool calls, and the text of a refusal.

    `unclear_call` describes a tool call that cannot be used as it arrived; it is empty if there is none.
    """

    has_text: bool = False
    has_reasoning: bool = False
    calls: int = 0
    unclear_call: str = ""
    refusal: str = ""


class Choice:
    """What the server has said about the end of one choice.

    `reasons` are its finish reasons. `has_ended` says that nothing came after the last one, `is_believable` that the
    server does not send this one in every chunk, `is_final` that it counts however the connection ends. `needs_care`
    says whether the next delta must be recorded: skipping the others makes a stream faster.
    """

    def __init__(self) -> None:
        self.reasons: dict[str, None] = {}  # an ordered set
        self.has_ended = False
        self.is_believable = False
        self.is_for_calls = False
        self.is_untrusted = False
        self.needs_care = True
        self.has_resumed = False
        self._is_new = True
        self._has_text_without_reason = False

    @property
    def reason(self) -> str | None:
        """The worst reason so far."""
        return worst(self.reasons) if self.reasons else None

    @property
    def is_final(self) -> bool:
        """Whether its end counts, however the connection ends. A reason for calls needs an end of the body."""
        return self.is_believable and not self.is_for_calls

    def record(self, reason: str | None, *, has_content: bool, has_text: bool, names_role: bool) -> None:
        """Record one chunk: its reason, and whether it has any content, text, and the role.

        A call and a refusal count as text here, reasoning does not.
        """
        if has_content and self.has_ended:
            self.is_untrusted = any(canonical(known) == "stop" for known in self.reasons)
            self.has_resumed = self.is_for_calls and has_text
            self.has_ended = self.is_believable = self._has_text_without_reason = False
        if reason is not None:
            if reason not in self.reasons:
                self.reasons[reason] = None
            may_be_in_every_chunk = has_content or self.is_untrusted or (names_role and self._is_new)
            self.has_ended = True
            self.is_believable = self._has_text_without_reason or not may_be_in_every_chunk
            self.is_for_calls = canonical(reason) == "tool_calls"
        elif has_text:
            self._has_text_without_reason = True
        self._is_new = False
        self.needs_care = self.has_ended or not self._has_text_without_reason


class Completeness:
    """What the server has said about the end of an answer; `accept` are the reasons that the user accepts as success.

    `due` is how many choices were requested, each of which needs its own end; None if unknown: then every choice
    that arrives does. The choice that is the answer is `main`. An answer of `output_limit` tokens was cut by that
    limit; None if there is none, or if the finish_reason says so itself.
    """

    def __init__(self, accept: Collection[str] = (), due: int | None = None, output_limit: int | None = None) -> None:
        self.due = due
        self.output_limit = output_limit
        self.main = Choice()
        self.is_final = False
        self._accept = frozenset(" ".join(word.split()).lower() for word in accept)
        self._others: dict[int, Choice] = {}
        self._final_others = 0
        self._is_done = False
        self._has_ended = False
        self._is_framed = False
        self._has_delta = False
        self._unread: dict[UnreadKind, str] = {}
        self._stray_characters = 0
        self._is_in_one_piece = False

    def record(self, chunk: Chunk) -> None:
        """Record one chunk. Plain text need not be recorded while `main.needs_care` is false."""
        has_text = bool(chunk.text or chunk.calls or chunk.refusal)
        self._has_delta = self._has_delta or has_text
        for part in chunk.unread:
            self._unread.setdefault(part.kind, part.name)
            self._stray_characters += part.characters
        if chunk.choice_index is not None:
            has_content = has_text or bool(chunk.reasoning)
            reason = self._with_limit(chunk)
            self.main.record(reason, has_content=has_content, has_text=has_text, names_role=chunk.names_role)
        for other in chunk.others:
            if other.choice_index in self._others or len(self._others) < _CHOICES_LIMIT:
                choice = self._others.setdefault(other.choice_index, Choice())
                self._final_others -= choice.is_final
                has_content = other.has_text or bool(other.reasoning)
                choice.record(
                    other.finish_reason,
                    has_content=has_content,
                    has_text=other.has_text,
                    names_role=other.names_role,
                )
                self._final_others += choice.is_final
        self._is_done = chunk.done
        self._is_in_one_piece = chunk.done and chunk.choice_index is not None
        self.is_final = self.main.is_final and self._final_others >= self._due_others

    def end_body(self, *, is_framed: bool) -> None:
        """Record the end of the body; `is_framed` says that HTTP marks it, with the last chunk or the length."""
        self._has_ended = True
        self._is_framed = is_framed

    @property
    def is_announced(self) -> bool:
        """Whether the server has reliably said how each choice ends."""
        return self._all_due(self._has_announced)

    def verdict(self, reading: AnswerParts, needs: Collection[UnreadKind]) -> SmaiError | None:
        """Return why the answer is not complete; None if it is.

        `needs` are the kinds of parts that the output has to deliver: unread parts of other kinds do not count.
        """
        if not self.is_announced and not self._is_done_enough:
            return self._unannounced_failure()
        reasons = [reason for choice in self._choices() for reason in choice.reasons if not self._accepts(reason)]
        reason = worst(reasons) if reasons else "stop"
        if reading.refusal and not self._accepts_end and rank(reason) <= 1:
            return WithheldError(f"the model refused: {one_line(reading.refusal)}", "rephrase the prompt")
        return _finish_reason_failure(reason) if rank(reason) else self._undelivered_failure(reading, needs)

    def _with_limit(self, chunk: Chunk) -> str | None:
        """Return the finish_reason of a chunk; `length` for any reason once the answer used up its token limit."""
        limit = chunk.output_limit if self.output_limit is None else self.output_limit
        tokens = chunk.usage.completion_tokens if chunk.usage else None
        if limit is None or tokens is None or tokens < limit or chunk.finish_reason is None:
            return chunk.finish_reason
        return worst((chunk.finish_reason, "length"))

    def _has_announced(self, choice: Choice) -> bool:
        is_framed = self._is_framed and not any(known.is_untrusted for known in self._choices())
        if choice.has_ended:
            is_at_end = choice.is_believable and self._has_ended  # required for calls
            return choice.is_final or self._is_done or is_framed or is_at_end
        return choice.has_resumed and (self._is_done or is_framed)

    @property
    def _due_others(self) -> int:
        return len(self._others) if self.due is None else self.due - 1

    def _all_due(self, has_ended: Callable[[Choice], bool]) -> bool:
        """Return whether the answer, and as many other choices as are due, have ended."""
        return has_ended(self.main) and sum(map(has_ended, self._others.values())) >= self._due_others

    def _choices(self) -> list[Choice]:
        return [self.main, *self._others.values()]

    def _accepts(self, reason: str) -> bool:
        return reason.lower() in self._accept or canonical(reason) in self._accept

    @property
    def _accepts_end(self) -> bool:
        return any(map(self._accepts, self.main.reasons))

    @property
    def _is_done_enough(self) -> bool:
        """Whether `[DONE]` may replace missing reasons: the user accepts it, and nothing contradicts it."""
        is_good = self._has_delta and UnreadKind.FOREIGN not in self._unread and self._all_due(lambda _: True)
        return DONE_WORD in self._accept and self._is_done and is_good

    def _undelivered_failure(self, reading: AnswerParts, needs: Collection[UnreadKind]) -> SmaiError | None:
        """Return the failure of an answer that ended normally, but has a part that cannot be read or delivered."""
        if lost := self._lost_parts(reading, needs):
            what = f"the server says that the answer is complete, but smai cannot read a part of it: {lost[0]}"
            return BrokenError(what, "--raw shows what came", retry=Retry.NEVER)
        if UnreadKind.MEDIA in needs and UnreadKind.MEDIA in self._unread:
            media = self._unread[UnreadKind.MEDIA]
            return RefusedError(f"the answer contains {media}, which is not text", "--raw or --jsonl delivers it")
        return None

    def _lost_parts(self, reading: AnswerParts, needs: Collection[UnreadKind]) -> list[str]:
        """Return the names of the parts that could not be read, and that the output has to deliver."""
        if not needs:
            return []
        has_answer = reading.has_text or reading.calls > 0
        kinds = {UnreadKind.TEXT, UnreadKind.CALL} & {*needs} if has_answer else {UnreadKind.TEXT, UnreadKind.CALL}
        if not (has_answer or reading.has_reasoning or reading.refusal):
            kinds.add(UnreadKind.FOREIGN)
            if self._stray_characters >= _STRAY_LIMIT:
                kinds.add(UnreadKind.STRAY)
        lost = [name for kind, name in self._unread.items() if kind in kinds]
        is_call_due = self.main.has_ended and self.main.is_for_calls and (UnreadKind.CALL in needs or not has_answer)
        if is_call_due and not reading.calls:
            lost.append("the tool call that its finish_reason announces")
        if UnreadKind.CALL in needs and reading.unclear_call:
            lost.append(reading.unclear_call)
        return lost

    def _unannounced_failure(self) -> BrokenError:
        """Return the failure of an answer whose end the server did not announce reliably."""
        hint = "the output is incomplete" if self._has_delta else "try again, or check the server"
        if self._is_in_one_piece:
            what = "the answer has no finish_reason"
        elif any(choice.has_ended and not choice.is_final for choice in self._choices()):
            what = "the stream ended without [DONE], and its finish_reason may be one that came with every chunk"
        elif not self._is_done:
            what = "the stream ended before finish_reason"
        elif any(choice.reasons for choice in self._choices()):
            what = "the stream ended with text after its finish_reason, or with a choice that has none"
        else:
            what = "the stream ended with [DONE], but without finish_reason"
        if self._is_done and self._has_delta:
            hint = "it may be incomplete; --accept done is for a server that never sends a finish_reason"
        return BrokenError(what, hint)


def empty_answer_error(characters: int) -> BrokenError:
    """Return the failure of a complete answer that has only so many characters of white space.

    It was billed, so smai does not decide to retry it.
    """
    what = "the answer is only white space" if characters else "the answer is empty"
    return BrokenError(what, "ask again, or leave --fail-empty out", retry=Retry.NEVER)


def _finish_reason_failure(reason: str) -> SmaiError:
    """Return the failure of an answer that ended with `reason`, a finish_reason that is not normal."""
    word = canonical(reason)
    if word == "length":
        return CutShortError("the answer hit the token limit", "raise --max-tokens, or --accept length")
    if word == "content_filter":
        return WithheldError("the answer was withheld by a content filter", "rephrase, or --accept content_filter")
    from shlex import quote  # only for a failure

    shown = one_line(reason)
    return BrokenError(
        f"the answer ended with finish_reason {shown}",
        f"that does not mean complete; --accept {quote(shown)} accepts it",
        retry=Retry.HELD_BACK if word == "error" else Retry.NEVER,
    )
