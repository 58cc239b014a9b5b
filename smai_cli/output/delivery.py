"""Make the list of listeners that get the answer of a run, in their order."""

from collections.abc import Callable, Iterable

from smai_cli.output.descriptors import Aside, Output
from smai_cli.output.listeners import Calls, Reasoning, SavedTurn
from smai_cli.output.modes import MODES, OutputOptions
from smai_cli.output.writers import Fit, Writers
from smai_cli.prompt.request import Message
from smai_cli.stream.listener import Listener


def writer_for(
    options: OutputOptions,
    outs: Iterable[Output],
    observers: Iterable[Listener],
    fit: Fit | None,
    keep: Callable[[Message], None] | None,
) -> Listener:
    """Return the writer for the answer of a run: the `observers`, then its mode for each of `outs`.

    `fit` is as for Writer. `keep`, if any, gets the answer as a message after its delivery.
    """
    aside = [Reasoning(Aside())] if options.reasoning else []
    modes = [one for out in outs for one in _mode(options, out, fit)]
    # Last: a turn is stored only after the answer went to each output.
    after = [SavedTurn(keep)] if keep else []
    listeners = [*observers, *aside, *modes, *after]
    return listeners[0] if len(listeners) == 1 else Writers(listeners)


def _mode(options: OutputOptions, out: Output, fit: Fit | None) -> list[Listener]:
    """Return the mode that writes to `out`, and the listeners that write after it."""
    writer = MODES[options.mode].make(out, fit, fails_empty=options.fail_empty)
    return [writer, Calls(out)] if options.tool_calls else [writer]
