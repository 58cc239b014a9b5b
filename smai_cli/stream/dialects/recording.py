"""Detect the dialect of a recording."""

from types import ModuleType

from smai_cli.answer.chunk import Chunk
from smai_cli.apis import recognize_api
from smai_cli.errors import BrokenError
from smai_cli.stream.json_text import load_object


class RecordingParser:
    """The parser of a recording, in the dialect of its first event with a part of an answer, or of its body."""

    def parse_event(self, data: str, name: str = "message", /) -> Chunk:
        """Return the Chunk in one event; a ping does not reveal the dialect."""
        dialect = _dialect_of(data, name)
        chunk: Chunk = dialect.parse_event(data, name)
        if chunk.choice_index is not None:
            # The rest of the recording skips the detection.
            self.parse_event = dialect.parse_event  # type: ignore[method-assign]
        return chunk

    def parse_body(self, data: str, /) -> Chunk:
        """Return the Chunk of an answer in one piece."""
        chunk: Chunk = _dialect_of(data, "message").parse_body(data)
        return chunk


def _dialect_of(data: str, name: str) -> ModuleType:
    """Return the dialect of an event or of an answer that is not streamed; chat if it cannot be parsed."""
    try:
        payload, _ = load_object(data, "an event")
    except BrokenError:
        payload = {}
    return recognize_api(payload, name).load()
