"""The output options of a command as one value."""

from smai_cli.common.frozen import Frozen
from smai_cli.output.modes import MODES, TEXT


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
