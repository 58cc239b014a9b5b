"""Which dialect a model is asked in, and which one a tape is in."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from types import ModuleType

from smai_cli.answer.chunk import Chunk
from smai_cli.errors import BrokenError
from smai_cli.stream.json_text import load_object

# The models that the service's documentation sends to /responses, because /chat/completions refuses them.
RESPONSES_MODELS = ("gpt-5*-pro*", "o1-mini*", "o1-pro*", "o3-mini*", "o3-pro*")


def dialect_for(api: str, model: str, more: Iterable[str] = ()) -> ModuleType:
    """Return the dialect module that `api` (auto, chat, responses) and the model choose.

    `more` are further patterns of models to be asked by responses.
    """
    if api == "auto":
        patterns = (*RESPONSES_MODELS, *more)
        api = "responses" if any(fnmatchcase(model, pattern) for pattern in patterns) else "chat"
    # Each import is written out, for programs that follow imports: mypy, and packagers such as PyInstaller.
    if api == "responses":
        from smai_cli.stream.dialects import responses  # one of them is enough for a run

        return responses
    from smai_cli.stream.dialects import chat

    return chat


class OnTape:
    """The parser of a tape, known by the first event that only one dialect has, or by its body."""

    def parse_event(self, data: str, name: str = "message", /) -> Chunk:
        """Return the Chunk in one event, in the dialect that is known by now; a ping says nothing of it."""
        dialect = _dialect_of(data, name)
        chunk: Chunk = dialect.parse_event(data, name)
        if chunk.choice_index is not None:
            # A long tape is parsed without coming by here again.
            self.parse_event = dialect.parse_event  # type: ignore[method-assign]
        return chunk

    def parse_body(self, data: str, /) -> Chunk:
        """Return the Chunk that an answer in one piece is."""
        chunk: Chunk = _dialect_of(data, "message").parse_body(data)
        return chunk


def _dialect_of(data: str, name: str) -> ModuleType:
    """Return responses for what only that dialect says, chat otherwise, also for what cannot be parsed."""
    try:
        payload, _ = load_object(data, "an event")
    except BrokenError:
        payload = {}
    is_named = any(str(kind).startswith("response.") for kind in (payload.get("type"), name))
    is_responses = payload.get("object") == "response" or is_named
    return dialect_for("responses" if is_responses else "chat", "")
