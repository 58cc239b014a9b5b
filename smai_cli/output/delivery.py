"""Options -> all that takes the answer of a run, in the order in which it has each piece: a list, in one place."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from smai_cli.common.frozen import Frozen
from smai_cli.common.trace import Trace
from smai_cli.output.descriptors import Aside, FileOutput, Output
from smai_cli.output.listeners import Calls, Reasoning, Recording, SavedTurn, Steps
from smai_cli.output.modes import MODES
from smai_cli.output.options import OutputOptions
from smai_cli.output.writers import Listener, Writers
from smai_cli.prompt.request import Message

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


def writer_for(options: OutputOptions, ends: Ends) -> Listener:
    """Return what takes the answer of a run: its mode, and before and after it what else takes the answer."""
    before: list[Listener] = []
    if ends.waiting:
        from smai_cli.output.waiting import Count  # on a terminal only

        before.append(Count(ends.waiting))
    if ends.trace:
        before.append(Steps(ends.trace))
    if ends.cadence:
        from smai_cli.output.cadence import Pace  # on a terminal only

        before.append(Pace(ends.cadence))
    if options.reasoning:
        before.append(Reasoning(Aside()))
    if ends.tape:
        before.append(Recording(ends.tape))
    # The file has everything first: what a reader of stdout has seen is on the disk as well.
    outs = [out for out in (ends.file, None if options.quiet else ends.stdout) if out]
    modes = [one for out in outs for one in _mode(options, out, ends.fit)]
    # Last: a turn is kept only if the answer has gone to each output.
    after = [SavedTurn(ends.keep)] if ends.keep else []
    listeners = [*before, *modes, *after]
    return listeners[0] if len(listeners) == 1 else Writers(listeners)


def _mode(options: OutputOptions, out: Output, fit: Callable[[str], str] | None) -> list[Listener]:
    """Return the mode that writes to `out`, and what follows it there."""
    writer = MODES[options.mode].make(out, fit, fail_empty=options.fail_empty)
    return [writer, Calls(out)] if options.tool_calls else [writer]
