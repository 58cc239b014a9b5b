"""The only list of the modes, one row for each, and the options for the output."""

from typing import TYPE_CHECKING

from smai_cli.common.frozen import Frozen

if TYPE_CHECKING:
    from smai_cli.output.descriptors import Output
    from smai_cli.output.writers import Fit, Writer

TEXT, FINAL, EXTRACT = "text", "final", "extract"


class Mode(Frozen):
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
    Mode(name=TEXT, help="", kind="Text", one_answer=True),
    Mode(name="raw", help="Print the response body, byte for byte.", kind="Raw", has_calls=True),
    Mode(name="jsonl", help="Print the JSON of each event, one per line.", kind="Jsonl", has_calls=True),
    Mode(
        name=FINAL,
        help="Print nothing before the answer is complete; add a summary on stderr.",
        kind="Final",
        one_answer=True,
    ),
    Mode(
        name=EXTRACT,
        help="Keep only the first code block of a complete answer.",
        kind="Extract",
        letter="x",
        one_answer=True,
    ),
)
MODES = {mode.name: mode for mode in _ROWS}


class OutputOptions(Frozen):
    """How an answer is delivered and reported.

    `mode` is a name in MODES; `summary` is text, json or none. `accept` are finish reasons that count as success. With
    `fail_empty`, an answer of only white space is a failure. `file` and `record` name the files for the answer and for
    its bytes; `quiet` leaves stdout empty.
    """

    mode: str = TEXT
    summary: str = "none"
    accept: tuple[str, ...] = ()
    fail_empty: bool = False
    tool_calls: bool = False
    file: str | None = None
    quiet: bool = False
    record: str | None = None
    reasoning: bool = False

    @property
    def prints_text(self) -> bool:
        """Whether the mode prints the text of one answer, or a part of it."""
        return MODES[self.mode].one_answer
