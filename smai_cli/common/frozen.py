"""Immutable values with named fields, type-checked like dataclasses, but without generated code.

A NamedTuple or a dataclass compiles its methods when its class is made, which delays the start by a quarter of a
millisecond each.
"""

TYPE_CHECKING = False  # as typing.TYPE_CHECKING, but importing typing would delay the first connection
if TYPE_CHECKING:
    from typing import Any, Self, dataclass_transform
else:

    def dataclass_transform(**_):  # noqa: ANN003, ANN201
        """Return a decorator that does nothing: only the type checker reads it."""
        return lambda kind: kind


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Frozen:
    """A value whose fields are the annotations of its class. They are set by name and never change."""

    _names: "frozenset[str]" = frozenset()
    _required: "frozenset[str]" = frozenset()

    def __init_subclass__(cls) -> None:
        """Note the names of the fields, and those without a default."""
        cls._names |= cls.__annotations__.keys()
        cls._required = frozenset(name for name in cls._names if not hasattr(cls, name))

    def __init__(self, **fields: "Any") -> None:
        wrong = (fields.keys() - self._names) | (self._required - fields.keys())
        if wrong:
            raise TypeError(f"{type(self).__name__} has other fields: {', '.join(sorted(wrong))}")
        vars(self).update(fields)

    def __setattr__(self, name: str, value: object) -> None:
        """Raise AttributeError; use `replaced` to make a changed copy."""
        raise AttributeError(f"{type(self).__name__}.{name} does not change")

    def __eq__(self, other: object) -> bool:
        """Return whether both have the same class and equal fields."""
        return type(self) is type(other) and self._fields() == other._fields()

    def __hash__(self) -> int:
        """Return the hash of the fields."""
        return hash(tuple(self._fields().values()))

    def __repr__(self) -> str:
        """Return the fields by name."""
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._fields().items())})"

    def _fields(self) -> "dict[str, Any]":
        return {name: getattr(self, name) for name in sorted(self._names)}

    def replaced(self, **fields: "Any") -> "Self":
        """Return a copy with these fields changed."""
        return type(self)(**(vars(self) | fields))
