"""All that get the answer of a run: its mode, and a recording, reasoning on stderr, lines of -v, tool calls, a turn."""

import io
import json
from collections.abc import Callable, Iterable

from smai_cli.answer.chunk import Chunk, UnreadKind
from smai_cli.answer.outcome import TEXT_NEEDS, Outcome
from smai_cli.common.text import one_line
from smai_cli.common.trace import Trace
from smai_cli.output.descriptors import Output, say_aside
from smai_cli.output.modes import MODES, OutputOptions
from smai_cli.output.writers import Fit, Writers
from smai_cli.prompt.request import Message
from smai_cli.stream.listener import Listener


class Reasoning(Listener):
    """Writes the model's reasoning to stderr piece by piece, with a line end after it."""

    def __init__(self) -> None:
        self._last = ""

    def chunk(self, chunk: Chunk) -> None:
        """Write the reasoning."""
        if chunk.reasoning:
            self._last = chunk.reasoning
            say_aside(chunk.reasoning)
        elif chunk.text:
            self._finish()

    def end(self, outcome: Outcome) -> None:  # noqa: ARG002  # as every listener
        """Finish the line of the reasoning."""
        self._finish()

    def _finish(self) -> None:
        if self._last and not self._last.endswith("\n"):
            say_aside("\n")
        self._last = ""


class Steps(Listener):
    """Passes the steps of the answer to `trace` as they happen."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._seen: set[str] = set()

    def begin(self) -> None:
        """Start a new answer: trace the first of each kind again."""
        self._seen.clear()

    def chunk(self, chunk: Chunk) -> None:
        """Trace the first chunk of each kind, and the end of the answer."""
        if chunk.reasoning:
            self._once("first delta of reasoning")
        if chunk.text:
            self._once("first delta")
        if chunk.finish_reason:
            self._trace(f"finished: {one_line(chunk.finish_reason, 40)}")
        if chunk.done:
            self._trace("end of the events")

    def _once(self, what: str) -> None:
        if what not in self._seen:
            self._seen.add(what)
            self._trace(what)


class Calls(Listener):
    """Writes the tool calls of a complete answer to `out` after the mode, each as one line of JSON."""

    needs = frozenset({UnreadKind.CALL})

    def __init__(self, out: Output) -> None:
        self._out = out

    def end(self, outcome: Outcome) -> None:
        """Write the calls of a complete answer."""
        if outcome.error is None:
            for call in outcome.calls.as_json():
                self._out.show(json.dumps(call).encode() + b"\n")


class SavedTurn(Listener):
    """Passes a complete answer to `keep` as a message. It is the last listener: the answer is delivered by then."""

    needs = TEXT_NEEDS | {UnreadKind.CALL}

    def __init__(self, keep: Callable[[Message], None]) -> None:
        self._keep = keep
        self._text = io.StringIO()

    def begin(self) -> None:
        """Discard the text of a broken answer."""
        self._text = io.StringIO()

    def chunk(self, chunk: Chunk) -> None:
        """Keep the text."""
        self._text.write(chunk.text)

    def end(self, outcome: Outcome) -> None:
        """Pass a complete answer on."""
        if outcome.error is None:
            text, calls = self._text.getvalue(), outcome.calls.as_json()
            self._keep(
                Message("assistant", text or None, {"tool_calls": calls}) if calls else Message("assistant", text)
            )


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
    aside = [Reasoning()] if options.reasoning else []
    modes = [one for out in outs for one in _mode(options, out, fit)]
    # Last: a turn is stored only after the answer went to each output.
    after = [SavedTurn(keep)] if keep else []
    listeners = [*observers, *aside, *modes, *after]
    return listeners[0] if len(listeners) == 1 else Writers(listeners)


def _mode(options: OutputOptions, out: Output, fit: Fit | None) -> list[Listener]:
    """Return the mode that writes to `out`, and the listeners that write after it."""
    writer = MODES[options.mode].make(out, fit, fails_empty=options.fail_empty)
    return [writer, Calls(out)] if options.tool_calls else [writer]
