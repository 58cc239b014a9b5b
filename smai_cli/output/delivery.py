"""Make the list of listeners that get the answer of a run, in their order."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from smai_cli.common.frozen import Frozen
from smai_cli.common.trace import Trace
from smai_cli.output.descriptors import Aside, FileOutput, Output
from smai_cli.output.listeners import Calls, Reasoning, Recording, SavedTurn, Steps
from smai_cli.output.modes import MODES, OutputOptions
from smai_cli.output.writers import Writers
from smai_cli.prompt.request import Message
from smai_cli.stream.listener import Listener

if TYPE_CHECKING:
    from smai_cli.output.cadence import Cadence
    from smai_cli.output.waiting import WaitingLine


class Destinations(Frozen):
    """The outputs and observers of an answer; None for those that a run does not have.

    `fit` returns the text to deliver, or raises BrokenError if it does not fit the request. `keep` gets the answer as a
    message after its delivery. `trace` gets each step, `cadence` the time of each delta, `waiting` their count.
    """

    stdout: Output
    file: FileOutput | None = None
    tape: FileOutput | None = None
    fit: Callable[[str], str] | None = None
    keep: Callable[[Message], None] | None = None
    cadence: "Cadence | None" = None
    trace: Trace | None = None
    waiting: "WaitingLine | None" = None


def writer_for(options: OutputOptions, destinations: Destinations) -> Listener:
    """Return the writer for the answer of a run: its mode, and the other listeners before and after it."""
    before: list[Listener] = []
    if destinations.waiting:
        from smai_cli.output.waiting import Count  # on a terminal only

        before.append(Count(destinations.waiting))
    if destinations.trace:
        before.append(Steps(destinations.trace))
    if destinations.cadence:
        from smai_cli.output.cadence import Pace  # on a terminal only

        before.append(Pace(destinations.cadence))
    if options.reasoning:
        before.append(Reasoning(Aside()))
    if destinations.tape:
        before.append(Recording(destinations.tape))
    # The file comes first: what a reader of stdout has seen is in the file too.
    outs = [out for out in (destinations.file, None if options.quiet else destinations.stdout) if out]
    modes = [one for out in outs for one in _mode(options, out, destinations.fit)]
    # Last: a turn is stored only after the answer went to each output.
    after = [SavedTurn(destinations.keep)] if destinations.keep else []
    listeners = [*before, *modes, *after]
    return listeners[0] if len(listeners) == 1 else Writers(listeners)


def _mode(options: OutputOptions, out: Output, fit: Callable[[str], str] | None) -> list[Listener]:
    """Return the mode that writes to `out`, and the listeners that write after it."""
    writer = MODES[options.mode].make(out, fit, fails_empty=options.fail_empty)
    return [writer, Calls(out)] if options.tool_calls else [writer]
