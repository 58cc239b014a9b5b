"""The types of an answer: the content of each event, and the parts that smai cannot read."""

from enum import Enum
from typing import Any, NamedTuple

from smai_cli.answer.api_error import ApiError
from smai_cli.common.frozen import Frozen
from smai_cli.errors import Cause, RefusedError


class ForeignAnswerError(RefusedError):
    """The data is not an answer of a chat API; `on_tape` replaces the message `what` for a recording."""

    def __init__(self, what: str, hint: str, on_tape: str, cause: Cause | None = None) -> None:
        super().__init__(what, hint, cause=cause)
        self.on_tape = on_tape


class Usage(NamedTuple):
    """Token counts; None if not counted."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    reasoning_tokens: int | None = None


class CallPart(NamedTuple):
    """A part of a tool call: the call that it belongs to, and what it adds.

    `number` is None if the server does not number its calls. `type` is `function`, or `custom` with its input in
    `arguments`.
    """

    number: int | None
    id: str = ""
    name: str = ""
    arguments: str = ""
    type: str = "function"


class PendingCall(NamedTuple):
    """What an event says of a call that is still to come in full.

    `names` are the identifiers of the call in that event: its place in the output, and ids. `arguments` are the next
    piece of its arguments, or all of them if `is_whole`. `is_new` says that the call begins with this event.
    """

    names: tuple[int | str, ...]
    arguments: str = ""
    is_whole: bool = False
    is_new: bool = False


class UnreadKind(Enum):
    """The kinds of parts that smai cannot read, or cannot deliver as text."""

    TEXT = "something in place of a text"
    CALL = "a tool call"
    MEDIA = "an image, audio, a video or a file"
    # These count only if nothing else in the answer could be read.
    FOREIGN = "an event that is not of this API"
    STRAY = "text in a member that the API does not have"


class UnreadPart(NamedTuple):
    """A part that could not be read: its kind, its name in a message, and how many characters of text it contains."""

    kind: UnreadKind
    name: str
    characters: int = 0


# The place of a part in an output: the index of its item (None: the server does not say), and its index in the item.
Place = tuple[int | None, int]


class Repetition(Frozen):
    """Text, a refusal and calls that an event contains in full, and that earlier deltas may have contained.

    An answer of one part has `text`. An answer of several has the texts of its parts in `parts`: all of them if
    `is_all`. `announced` are parts whose complete text is still to come, and `pending_calls` are what the event says of
    calls before they come in full. `foreign_calls` are calls of kinds that smai cannot read, each with its id and its
    name in a message; `run_calls` are the ids of calls that the server has run itself. `is_incomplete` says that the
    server calls a message or a call incomplete. `reasoning` and `unread` are what else it contains.
    """

    text: str = ""
    refusal: str = ""
    calls: tuple[CallPart, ...] = ()
    parts: tuple[tuple[Place, str], ...] = ()
    is_all: bool = False
    announced: tuple[Place, ...] = ()
    pending_calls: tuple[PendingCall, ...] = ()
    foreign_calls: tuple[tuple[str, str], ...] = ()
    run_calls: tuple[str, ...] = ()
    is_incomplete: bool = False
    reasoning: str = ""
    unread: tuple[UnreadPart, ...] = ()


class ChoicePart(NamedTuple):
    """The content of one event for one choice."""

    choice_index: int = 0
    finish_reason: str | None = None
    text: str = ""
    refusal: str = ""
    reasoning: str = ""
    calls: tuple[CallPart, ...] = ()
    unread: tuple[UnreadPart, ...] = ()
    repeated: Repetition | None = None
    names_role: bool = False

    @property
    def has_text(self) -> bool:
        """Whether it contains a part of the answer itself: text, a call, a refusal."""
        repeated = self.repeated
        return bool(self.text or self.calls or self.refusal or (repeated and (repeated.text or repeated.calls)))


class Chunk(NamedTuple):
    """The content of one event, in the same form for every dialect.

    `data` is the event's JSON on one line: the server's own characters if they were one line, empty for text without
    its own event. `choice_index` is the choice that the event is about; None for an event without any part of
    the answer, such as a ping or usage alone. `text` is its delta, `refusal` the model's refusal to answer,
    `reasoning` its thoughts, `calls` parts of tool calls, `unread` the parts that smai cannot read. `names_role` says
    whether it gives the role. `repeated` has text, a refusal and calls in full. `others` are the other choices in the
    event. `api_error` is an error in place of a chunk, `done` says that nothing follows. `is_plain` is true if there is
    only ASCII text, as in most chunks. `part` is the place of the text in an answer of parts. `output_limit` is the
    token limit that the server reports.
    """

    data: str = ""
    text: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    model: str = ""
    refusal: str = ""
    reasoning: str = ""
    calls: tuple[CallPart, ...] = ()
    others: tuple[ChoicePart, ...] = ()
    api_error: ApiError | None = None
    done: bool = False
    choice_index: int | None = None
    names_role: bool = False
    repeated: Repetition | None = None
    unread: tuple[UnreadPart, ...] = ()
    is_plain: bool = False
    part: Place | None = None
    output_limit: int | None = None


def text_chunk(  # noqa: PLR0913, PLR0917  # by position, as its caller is the fast path
    data: str, text: str, model: str, choice_index: int, names_role: bool, is_plain: bool, part: Place | None
) -> Chunk:
    """Return a chunk with a delta of text and nothing else.

    All fields in their order, and not by name: that would take 0.6 us more for each delta, 5 % of a burst
    (tests/benchmarks/bench.py). tests/answer/test_chunk.py holds the order.
    """
    return tuple.__new__(
        Chunk,
        (data, text, None, None, model, "", "", (), (), None,
         False, choice_index, names_role, None, (), is_plain, part, None)
    )  # fmt: skip


def usage_of(usage: Any, prompt: str, completion: str) -> Usage | None:
    """Return the counts in a server's usage object, in members named `prompt` and `completion`; None without any.

    Servers that do not count send zeros (mudler/LocalAI#1194, labscommunity/cascadia#55).
    """
    if not isinstance(usage, dict):
        return None
    details = usage.get(f"{completion}_details")
    reasoning = details.get("reasoning_tokens") if isinstance(details, dict) else None
    counts = (usage.get(prompt), usage.get(completion), usage.get("total_tokens"), reasoning)
    found = Usage(*map(_count, counts))
    return found if any(found) else None


def usage_in(payload: dict[str, Any]) -> Usage | None:
    """Return the counts in a chat completion or a chunk of one, wherever its server puts them; None without any.

    The API has them under `usage`; Moonshot streams them in the choice, Groq under `x_groq`. Searching all three takes
    a tenth of the time to parse a delta.
    """
    choices, groq = payload.get("choices"), payload.get("x_groq")
    choice = choices[0] if isinstance(choices, list) and choices else None
    for place in (payload, choice, groq):
        counts = place.get("usage") if isinstance(place, dict) else None
        usage = usage_of(counts, "prompt_tokens", "completion_tokens") if counts else None
        if usage:
            return usage
    return None


# Other languages may write an integer as 12.0 in JSON; above this a float is not exact.
_EXACT = 2.0**53


def _count(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else None
