"""Which dialect a model is asked in, and which one a recording is in."""

from collections.abc import Iterable
from types import ModuleType

from smai_cli.answer.chunk import Chunk
from smai_cli.apis import choose_api, recognize_api
from smai_cli.errors import BrokenError
from smai_cli.stream.json_text import load_object


def dialect_for(api: str, model: str, more: Iterable[str] = ()) -> ModuleType:
    """Return the dialect module that `api` (auto, chat, responses) and the model choose.

    `more` are further patterns of models to be asked by responses.
    """
    return choose_api(api, model, more).load()


class OnTape:
    """The parser of a recording, known by the first event that only one dialect has, or by its body."""

    def parse_event(self, data: str, name: str = "message", /) -> Chunk:
        """Return the Chunk in one event, in the dialect that is known by now; a ping says nothing of it."""
        dialect = _dialect_of(data, name)
        chunk: Chunk = dialect.parse_event(data, name)
        if chunk.choice_index is not None:
            # A long recording is parsed without coming by here again.
            self.parse_event = dialect.parse_event  # type: ignore[method-assign]
        return chunk

    def parse_body(self, data: str, /) -> Chunk:
        """Return the Chunk that an answer in one piece is."""
        chunk: Chunk = _dialect_of(data, "message").parse_body(data)
        return chunk


def _dialect_of(data: str, name: str) -> ModuleType:
    """Return the dialect of an event or of a whole answer; chat for what cannot be parsed."""
    try:
        payload, _ = load_object(data, "an event")
    except BrokenError:
        payload = {}
    return recognize_api(payload, name).load()
