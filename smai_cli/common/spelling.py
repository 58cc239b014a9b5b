"""Find the name that was meant by one that does not exist."""

import re
from collections.abc import Collection
from difflib import get_close_matches

_CLOSE = 0.8
_NEGATION = re.compile(r"(no-?|non-?|un|dis|disable-|without-|skip-|dont-|never-)(?=\w)")
_OPPOSITES = (
    ("login", "logout"),
    ("encode", "decode"),
    ("min", "max"),
    ("keep", "drop"),
    ("input", "output"),
    ("start", "stop"),
    ("allow", "deny"),
    ("include", "exclude"),
)


def nearest(typed: str, names: Collection[str]) -> str | None:
    """Return the one of `names` that is one edit or swap away from `typed`, else a similar one; never its opposite."""
    possible = [name for name in names if not _are_opposite(typed, name)]
    near = [name for name in possible if is_one_step(typed, name)]
    return next(iter(get_close_matches(typed, near or possible, 1, 0 if near else _CLOSE)), None)


def is_one_step(one: str, other: str) -> bool:
    """Return whether one inserted, deleted or changed letter, or one swap of neighbours, turns `one` into `other`."""
    if len(one) > len(other):
        one, other = other, one
    same = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
    rest, others = one[same:], other[same:]
    if len(one) < len(other):
        return rest == others[1:]
    return rest[1:] == others[1:] or (rest[:2] == others[1::-1] and rest[2:] == others[2:])


def _are_opposite(one: str, other: str) -> bool:
    """Return whether two names are opposites, such as --stream and --no-stream."""
    one, other = one.removeprefix("--"), other.removeprefix("--")
    if bool(_NEGATION.match(one)) != bool(_NEGATION.match(other)):
        return True
    pairs = (*_OPPOSITES, *(pair[::-1] for pair in _OPPOSITES))
    return any(word in one and opposite in other for word, opposite in pairs)
