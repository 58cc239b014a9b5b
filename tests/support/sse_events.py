"""Parse the events of a stream into chunks, without an outcome."""

from collections.abc import Iterable, Iterator

from smai_cli.answer.chunk import Chunk
from smai_cli.apis import choose_api
from smai_cli.stream.pump import read_chunks


def parse_chunks(tape: Iterable[bytes], dialect: str) -> Iterator[Chunk]:
    """Yield the chunk of each event on a tape."""
    return read_chunks(iter(tape), choose_api(dialect, "").load())
