"""The data of an event that is named error -> Chunk."""

from smai_cli.answer.api_error import ApiError, api_error_of, error_in
from smai_cli.answer.chunk import Chunk
from smai_cli.errors import BrokenError
from smai_cli.stream.json_text import load_object


def parse_error_event(data: str) -> Chunk:
    """Return the Chunk of an error event: it is an error whatever its data is, even if empty."""
    try:
        payload, line = load_object(data, "an event")
    except BrokenError:
        return Chunk(api_error=ApiError(data))
    return Chunk(line, api_error=error_in(payload) or api_error_of(payload))
