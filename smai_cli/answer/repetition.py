"""Find what is new when a server repeats text: nothing, the rest of it, or a different text."""

from enum import Enum, auto

from smai_cli.answer.chunk import Place, Repetition

try:
    from _blake2 import blake2b  # without OpenSSL, which hashlib loads in 3 ms: a twentieth of `smai decode`
except ImportError:
    from hashlib import blake2b

# White space at the end is kept up to this length, so that a trimmed repetition is recognised.
_MOST_BLANK = 256


class Relation(Enum):
    """How a text relates to an earlier one."""

    SAME = auto()  # perhaps trimmed at its end
    LONGER = auto()  # begins with the earlier one
    SHORTER = auto()  # or of the same length, but different
    DIFFERENT = auto()  # and longer


class RunningText:
    """The length and a hash of a text that arrives in pieces: enough to recognise a repetition of it.

    It counts in UTF-16, because two deltas may contain the halves of one character.
    """

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=16)
        self._length = 0  # in bytes, without `_blank`
        self._blank = ""

    def __bool__(self) -> bool:
        """Return whether there is any text."""
        return bool(self._length or self._blank)

    def add(self, text: str) -> None:
        """Add a piece."""
        text = self._blank + text
        end = len(text.rstrip())
        if len(text) - end > _MOST_BLANK:
            end = len(text)
        data = _utf16(text[:end])
        self._hash.update(data)
        self._length += len(data)
        self._blank = text[end:]

    def compare(self, text: str) -> tuple[Relation, str]:
        """Return how `text` relates to this one, and its rest if it is longer and begins with this one."""
        data = _utf16(text)
        blank = _utf16(self._blank)
        length = self._length + len(blank)
        if not self._begins(data):
            return (Relation.DIFFERENT if len(data) > length else Relation.SHORTER), ""
        after = data[self._length :]
        if len(after) <= len(blank):
            return (Relation.SAME if blank.startswith(after) else Relation.SHORTER), ""
        if not after.startswith(blank):
            return Relation.DIFFERENT, ""
        return Relation.LONGER, after[len(blank) :].decode("utf-16-le", "surrogatepass")

    def _begins(self, data: bytes) -> bool:
        """Return whether `data` begins with this text, but for the white space at its end."""
        if len(data) < self._length:
            return False
        return blake2b(data[: self._length], digest_size=16).digest() == self._hash.digest()


def _utf16(text: str) -> bytes:
    return text.encode("utf-16-le", "surrogatepass")


class AnswerText:
    """The text of an answer so far; an event may repeat all or a part of it.

    `is_contradicted` becomes true when an event repeats it with a text that is longer and different.
    """

    def __init__(self) -> None:
        self._all = RunningText()
        self._has_deltas = False
        self._parts: dict[Place, _Part] = {}  # also under the places that repetitions use
        self._order: list[_Part] = []
        self._doubtful: set[Place] = set()
        self.is_contradicted = False

    @property
    def is_doubtful(self) -> bool:
        """Whether a part was announced, or repeated under an unknown place, but its text did not arrive."""
        return bool(self._doubtful)

    def add(self, text: str, place: Place | None) -> None:
        """Add the text of a delta; `place` is None in an answer of one part."""
        self._has_deltas = True
        self._all.add(text)
        if place is not None:
            part = self._parts.get(place) or self._begin_part(place)
            part.text.add(text)
            part.is_open = True
            self._doubtful.discard(place)

    def new_in(self, repeated: Repetition) -> str:
        """Return what is new in the text, or in the parts, that an event repeats."""
        new = self._new_in_message(repeated.text) if repeated.text else self._new_in_parts(repeated)
        self._all.add(new)
        return new

    def _new_in_message(self, text: str) -> str:
        """Return what is new in the text of an entire answer of one part.

        Without deltas, some servers send the text so far each time, others only the next piece.
        """
        relation, rest = self._all.compare(text)
        if relation is Relation.DIFFERENT and self._has_deltas:
            self.is_contradicted = True
            return ""
        is_piece = not self._has_deltas and relation in (Relation.DIFFERENT, Relation.SHORTER)
        return text if is_piece else rest

    def _new_in_parts(self, repeated: Repetition) -> str:
        """Return what is new in the texts of parts.

        Servers may number parts differently in deltas and in repetitions: if the places do not agree, the texts decide.
        """
        self._doubtful.update(place for place in repeated.announced if place not in self._parts)
        texts = [(place, text) for place, text in repeated.parts if text]
        if not repeated.is_all:
            return "".join([self._new_in_part(place, text) for place, text in texts])
        if texts:
            self._doubtful.clear()
        relation, rest = self._all.compare("".join(text for _, text in texts))
        if relation in (Relation.SAME, Relation.LONGER):
            return rest
        pairs = zip(texts, self._partners(texts), strict=True)
        return "".join([self._rest(part, text) if part else text for (_, text), part in pairs])

    def _begin_part(self, place: Place) -> "_Part":
        part = self._parts[place] = _Part()
        self._order.append(part)
        return part

    def _new_in_part(self, place: Place, text: str) -> str:
        """Return what is new in the text of one part that an event repeats."""
        self._doubtful.discard(place)
        part = self._partner(place, text)
        if part is None and any(known.is_open for known in self._order):
            # It may be a part whose deltas use another place: the end of the answer decides.
            self._doubtful.add(place)
            return ""
        if part is None:
            self._begin_part(place).text.add(text)
            return text
        self._parts.setdefault(place, part)
        part.is_open = False
        return self._rest(part, text)

    def _partner(self, place: Place, text: str) -> "_Part | None":
        """Return the part of the answer that a text repeats; None for a new one."""
        part = self._parts.get(place)
        is_numbered = place[0] is not None
        if is_numbered and not self._has_deltas:
            return part
        if part and (is_numbered or part.is_open) and part.text.compare(text)[0] is not Relation.DIFFERENT:
            return part
        relations = [(known, known.text.compare(text)[0]) for known in self._order]
        same = (known for known, relation in relations if relation is Relation.SAME)
        longer = (known for known, relation in relations if relation is Relation.LONGER and known.is_open)
        return next(same, None) or next(longer, None) or (part if is_numbered else None)

    def _partners(self, texts: list[tuple[Place, str]]) -> "list[_Part | None]":
        """Return for each text of an entire output the part that it repeats; None for a new one."""
        left = list(self._order)
        partners: list[_Part | None] = []
        for number, (place, text) in enumerate(texts):
            candidates = [part for part in left if part.text.compare(text)[0] is Relation.SAME]
            candidates += [part for part in (self._parts.get(place),) if part in left]
            if len(texts) == len(self._order):
                candidates += [part for part in self._order[number : number + 1] if part in left]
            partners.append(candidates[0] if candidates else None)
            if candidates:
                left.remove(candidates[0])
        return partners

    def _rest(self, part: "_Part", text: str) -> str:
        """Return what `text` adds to `part`; only the last part can grow."""
        relation, rest = part.text.compare(text)
        if relation is Relation.DIFFERENT or (rest and part is not self._order[-1]):
            self.is_contradicted = True
            return ""
        part.text.add(rest)
        return rest


class _Part:
    """A part of an answer; `is_open` is true from its first delta until an event repeats it."""

    def __init__(self) -> None:
        self.text = RunningText()
        self.is_open = False
