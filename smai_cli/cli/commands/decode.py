"""`smai decode`: process a recorded or piped answer with the same pump, modes, summary and statuses as `smai ask`."""

import functools
import os
import select
from collections.abc import Iterator

import click

from smai_cli.cli.parsing.shared_options import complete_file, output_options
from smai_cli.cli.run import Run
from smai_cli.cli.same_files import Use, list_written_files, refuse_clashes, streams
from smai_cli.common.clocks import IdleClock
from smai_cli.common.files import STDIN, open_to_read
from smai_cli.errors import BrokenError, ClockError, RefusedError, UsageError
from smai_cli.output.modes import OutputOptions

_PIECE_BYTES = 65536


@click.command(epilog="Manual: man smai-decode.")
@click.argument("file", metavar="[FILE]", default="-", shell_complete=complete_file)
@output_options
def decode(file: str, *, output: OutputOptions) -> int:
    """Print the answer in an event stream from FILE or stdin.

    curl -sN ... | smai decode
    """
    run = Run(output)
    return run.life.deliver(lambda: _decode(run, file, output))


def _decode(run: Run, file: str, output: OutputOptions) -> None:
    """Pump `file`, or stdin for `-`. Raises SmaiError."""
    if file == "-" and os.isatty(STDIN):
        raise UsageError("no stream to decode", "name a file, or pipe one in")
    source = Use("stdin", STDIN, alone=True) if file == "-" else Use("the file to decode", file, alone=True)
    refuse_clashes([source, *list_written_files(output.file)], streams(quiet=output.quiet, reads_stdin=False))
    fd = STDIN if file == "-" else open_to_read(file, "name a file with a recorded stream")
    from smai_cli.answer.chunk import ForeignAnswerError
    from smai_cli.stream import pump  # after --help and usage errors
    from smai_cli.stream.dialects.recording import RecordingParser

    more = "more data follows the end of the answer, as if two streams were joined; decode them one by one"
    notice = functools.cache(lambda: run.life.say(more))
    tape = _Tape(fd, file)
    with run.delivery() as writer:
        pump.pump(tape, RecordingParser(), writer, run.outcome, on_more=notice)
        error = run.outcome.error
        if isinstance(error, ForeignAnswerError):
            run.outcome.end(RefusedError(error.on_tape, "check where the input comes from"))
        elif isinstance(error, BrokenError) and tape.is_empty:
            run.outcome.end(BrokenError("the input is empty", "did the command before the pipe fail?"))


class _Tape:
    """A descriptor as a pump.Source."""

    is_framed = False

    def __init__(self, fd: int, name: str) -> None:
        self.is_empty = True
        self.clock = IdleClock()
        self._fd = fd
        self._name = "stdin" if name == "-" else name

    def __iter__(self) -> Iterator[bytes]:
        """Yield bytes as soon as they are available. Raises UsageError if reading fails."""
        while self._readable():
            try:
                piece = os.read(self._fd, _PIECE_BYTES)
            except BlockingIOError:
                continue
            except OSError as exc:
                raise UsageError(f"{self._name}: {exc.strerror}", "check where the stream comes from") from exc
            if not piece:
                return
            self.is_empty = False
            yield piece

    def close(self) -> None:
        """Do nothing: the descriptor belongs to the process."""

    def _readable(self) -> bool:
        """Wait until bytes can be read, also from a regular file; return False if the time is over."""
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        try:
            while not poller.poll(self.clock.next_wait_s() * 1000):
                pass
        except ClockError:
            return False
        return True
