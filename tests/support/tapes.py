"""The recorded and broken streams, with the exit status of each, for the tests of all layers."""

from pathlib import Path
from typing import NamedTuple

STREAMS = Path(__file__).parents[1] / "streams"


class Tape(NamedTuple):
    """A file in streams/, its exit status, and the text of its complete events."""

    name: str
    status: int
    text: str

    @property
    def bytes(self) -> bytes:
        return (STREAMS / f"{self.name}.sse").read_bytes()


_OUT = "Hello world\n"
TAPES = [
    Tape("good", 0, _OUT),
    Tape("crlf", 0, _OUT),
    Tape("cr", 0, _OUT),
    Tape("mixed-line-ends", 0, _OUT),
    Tape("bom", 0, _OUT),
    Tape("comments-and-fields", 0, _OUT),
    Tape("no-space", 0, _OUT),
    Tape("pretty-printed", 0, _OUT),
    Tape("ollama-null-finish", 8, _OUT),
    Tape("no-done", 0, _OUT),
    Tape("done-without-blank-line", 0, _OUT),
    Tape("azure-filter-chunk", 0, _OUT),
    Tape("reasoning", 0, _OUT),
    Tape("two-choices", 0, _OUT),
    Tape("surrogate-pair-split", 0, "a😀\n"),
    Tape("surrogate-alone", 0, "a\ufffd"),
    Tape("invalid-utf8", 0, "a\ufffdb\n"),
    Tape("odd-separators", 0, "a\u2028b\x0bc\x85d\n"),
    Tape("nan-logprobs", 0, _OUT),
    Tape("plain-json", 0, _OUT),
    Tape("tool-calls", 0, ""),
    Tape("length", 9, "Hello "),
    Tape("content-filter", 10, "Hello "),
    Tape("refusal", 10, ""),
    Tape("unknown-finish-reason", 8, "Hello "),
    Tape("error-object", 8, "Hello "),
    Tape("error-event", 8, "Hello "),
    Tape("error-field", 8, "Hello "),
    Tape("error-after-finish", 8, "Hello "),
    Tape("cut-between-events", 8, "Hello "),
    Tape("cut-in-json", 8, "Hello "),
    Tape("malformed-json", 8, "Hello "),
    Tape("not-an-object", 8, "Hello "),
    Tape("empty", 8, ""),
    Tape("comments-only", 8, ""),
    Tape("plain-json-cut", 8, ""),
    Tape("plain-json-error", 4, ""),
    Tape("plain-json-other", 4, ""),
    Tape("html", 4, ""),
    Tape("plain-text", 4, ""),
]
BY_NAME = {tape.name: tape for tape in TAPES}
GOOD = BY_NAME["good"].bytes


def printed(text: str) -> bytes:
    """Return `text` as text mode prints it: UTF-8, with a newline at the end."""
    return (text if not text or text.endswith("\n") else text + "\n").encode()
