"""Options -> the one writer that the pump writes to: the mode, and what is put around it, in one place."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from smai_cli.frozen import Frozen
from smai_cli.output.descriptors import Aside, FileOutput, Output, say
from smai_cli.output.options import EXTRACT, OutputOptions
from smai_cli.output.wrappers import ReasoningToStderr, Recorded, SavedTurn, Tee, Traced, WithCalls
from smai_cli.output.writers import WRITERS, Final, FinalFile, Writer
from smai_cli.prompt.request import Message
from smai_cli.trace import Trace

if TYPE_CHECKING:
    from smai_cli.output.cadence import Cadence
    from smai_cli.output.waiting import Waiting


class Ends(Frozen):
    """Where an answer goes, and who hears of it; None for what a run does not have.

    `fit` returns the text to deliver, or raises BrokenError if it is not what was asked for. `keep` takes the answer as
    a message, once it was delivered; `trace` takes each step, `cadence` notes it, `waiting` counts it.
    """

    stdout: Output
    file: FileOutput | None = None
    tape: FileOutput | None = None
    fit: Callable[[str], str] | None = None
    keep: Callable[[Message], None] | None = None
    cadence: "Cadence | None" = None
    trace: Trace | None = None
    waiting: "Waiting | None" = None


def writer_for(options: OutputOptions, ends: Ends) -> Writer:
    """Return the writer of a run, from the inside to the outside."""
    writer = _mode(options, ends.stdout, ends.fit)
    if ends.file:
        # The file hears everything first: what a reader of stdout has seen is on the disk as well.
        into_file = _mode(options, ends.file, ends.fit)
        writer = into_file if options.quiet else Tee(into_file, writer)
    if ends.tape:
        writer = Recorded(writer, ends.tape)
    if options.reasoning:
        writer = ReasoningToStderr(writer, Aside(), say)
    if ends.cadence:
        from smai_cli.output.cadence import Paced  # on a terminal only

        writer = Paced(writer, ends.cadence)
    if ends.keep:
        # Around all outputs, so that a turn is kept only when the answer has gone to each of them.
        writer = SavedTurn(writer, ends.keep)
    if ends.trace:
        writer = Traced(writer, ends.trace)
    if ends.waiting:
        from smai_cli.output.waiting import Counted  # on a terminal only

        writer = Counted(writer, ends.waiting)
    return writer


def _mode(options: OutputOptions, out: Output, fit: Callable[[str], str] | None) -> Writer:
    writer: Writer
    if options.mode == EXTRACT:
        from smai_cli.output.extract import Extract  # with -x only

        writer = Extract(out, fit, fails_empty=options.fail_empty)
    elif options.mode == "final":
        writer = FinalFile(out, fit) if isinstance(out, FileOutput) else Final(out, fit)
    else:
        writer = WRITERS[options.mode](out)
    return WithCalls(writer) if options.tool_calls else writer
