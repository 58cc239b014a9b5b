"""The only list of the modes, one row for each.

To add a mode, add a row here, and a class in `writers`.
"""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from smai_cli.output.descriptors import Output
    from smai_cli.output.writers import Fit, Writer

TEXT, FINAL, EXTRACT = "text", "final", "extract"


class Mode(NamedTuple):
    """One mode: its option is --`name`, with the short form `letter`; the first row, the default, has no option.

    `help` is its help text, and `kind` names its class in `writers`. `one_answer`: it prints the text of one answer,
    or a part of it. `has_calls`: it always prints the tool calls.
    """

    name: str
    help: str
    kind: str
    letter: str = ""
    one_answer: bool = False
    has_calls: bool = False

    def make(self, out: "Output", fit: "Fit | None" = None, *, fails_empty: bool = False) -> "Writer":
        """Return the writer of the mode, which delivers to `out`; the rest is as for Writer."""
        from smai_cli.output import writers  # not imported for --help

        kind: type[Writer] = getattr(writers, self.kind)
        return kind(out, fit, fails_empty=fails_empty)


_ROWS = (
    Mode(TEXT, "", "Text", one_answer=True),
    Mode("raw", "Print the response body, byte for byte.", "Raw", has_calls=True),
    Mode("jsonl", "Print the JSON of each event, one per line.", "Jsonl", has_calls=True),
    Mode(FINAL, "Print nothing before the answer is complete; add a summary on stderr.", "Final", one_answer=True),
    Mode(EXTRACT, "Keep only the first code block of a complete answer.", "Extract", letter="x", one_answer=True),
)
MODES = {mode.name: mode for mode in _ROWS}
