"""The only list of the modes, one row for each.

To add a mode, add a row here, and a class in `writers` or in a separate module.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from smai_cli.output.descriptors import Output
    from smai_cli.output.writers import Writer

TEXT, FINAL, EXTRACT = "text", "final", "extract"
Fit = Callable[[str], str]


class WriterFactory(Protocol):
    """Makes the writer of a mode.

    `fit` returns the text to deliver, or raises BrokenError if it does not fit the request. With `fail_empty`, a text
    of only white space is a failure.
    """

    def __call__(self, out: "Output", fit: Fit | None = None, *, fail_empty: bool = False) -> "Writer":
        """Return a writer that delivers to `out`."""


class Mode(NamedTuple):
    """One mode: its option is --`name`, with the short form `letter`; the first row, the default, has no option.

    `help` is its help text. `one_answer`: it prints the text of one answer, or a part of it. `has_calls`: it always
    prints the tool calls.
    """

    name: str
    help: str
    make: WriterFactory
    letter: str = ""
    one_answer: bool = False
    has_calls: bool = False


def _make_text(out: "Output", fit: Fit | None = None, *, fail_empty: bool = False) -> "Writer":  # noqa: ARG001
    from smai_cli.output.writers import Text  # here and below: not imported for --help

    return Text(out)


def _make_raw(out: "Output", fit: Fit | None = None, *, fail_empty: bool = False) -> "Writer":  # noqa: ARG001
    from smai_cli.output.writers import Raw

    return Raw(out)


def _make_jsonl(out: "Output", fit: Fit | None = None, *, fail_empty: bool = False) -> "Writer":  # noqa: ARG001
    from smai_cli.output.writers import Jsonl

    return Jsonl(out)


def _make_final(out: "Output", fit: Fit | None = None, *, fail_empty: bool = False) -> "Writer":  # noqa: ARG001
    from smai_cli.output.descriptors import FileOutput
    from smai_cli.output.writers import Final, FinalFile

    return FinalFile(out, fit) if isinstance(out, FileOutput) else Final(out, fit)


def _make_extract(out: "Output", fit: Fit | None = None, *, fail_empty: bool = False) -> "Writer":
    from smai_cli.output.extract import Extract

    return Extract(out, fit, fails_empty=fail_empty)


_ROWS = (
    Mode(TEXT, "", _make_text, one_answer=True),
    Mode("raw", "Print the response body, byte for byte.", _make_raw, has_calls=True),
    Mode("jsonl", "Print the JSON of each event, one per line.", _make_jsonl, has_calls=True),
    Mode(FINAL, "Print nothing before the answer is complete; add a summary on stderr.", _make_final, one_answer=True),
    Mode(EXTRACT, "Keep only the first code block of a complete answer.", _make_extract, letter="x", one_answer=True),
)
MODES = {mode.name: mode for mode in _ROWS}
