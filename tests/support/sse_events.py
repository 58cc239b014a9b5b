"""Parse the events of a stream into chunks, without the pump."""

from collections.abc import Iterable, Iterator

from smai_cli.answer.chunk import Chunk
from smai_cli.stream.dialects.selection import dialect_for
from smai_cli.stream.sse import events


def parse_chunks(tape: Iterable[bytes], dialect: str) -> Iterator[Chunk]:
    """Yield the chunk of each event on a tape."""
    for event in events(tape):
        yield dialect_for(dialect, "").parse_event(event.data, event.event)
