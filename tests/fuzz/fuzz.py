"""Coverage-guided fuzzing of what reads bytes from outside: pip install atheris; python tests/fuzz/fuzz.py 300

Runs for the given number of seconds over the tapes in tests/streams, each with mutations. A finding is a
crash of the fuzzer: an exception that is not a documented failure, a result that depends on how the bytes
were cut into pieces, or a prompt that does not come back. Atheris writes the input next to it as crash-*.
"""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["smai_cli", "sseclient", "json"]):
    from smai_cli.answer.outcome import Outcome
    from smai_cli.common.clocks import IdleClock
    from smai_cli.common.files import text_in
    from smai_cli.errors import Status, UsageError
    from smai_cli.output.descriptors import Output
    from smai_cli.output.modes import MODES
    from smai_cli.prompt import prompt
    from smai_cli.stream import pump
    from smai_cli.stream.dialects import chat

STREAMS = Path(__file__).parent.parent / "streams"


class _Sink(Output):
    def __init__(self) -> None:
        super().__init__(os.pipe()[1] if not _PIPES else _PIPES[0])
        _PIPES[:] = [self.fd]
        self.got = bytearray()

    def write(self, data: bytes) -> None:
        self.got += data


_PIPES: list[int] = []


class _Pieces:
    is_framed = False

    def __init__(self, pieces: list[bytes]) -> None:
        self.clock = IdleClock()
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)

    def close(self) -> None:
        """Let go of nothing."""


def _pumped(pieces: list[bytes], mode: str) -> tuple[Status, bytes]:
    sink, outcome = _Sink(), Outcome()
    pump.pump(_Pieces(pieces), chat, MODES[mode].make(sink), outcome)
    return outcome.status, bytes(sink.got)


def one_input(data: bytes) -> None:
    """Try one input on the pump in every mode, whole and cut, and on the prompt."""
    size = data[0] % 64 + 1 if data else 1
    tape = data[1:]
    pieces = [tape[start : start + size] for start in range(0, len(tape), size)]
    for mode in MODES:
        whole, cut = _pumped([tape] if tape else [], mode), _pumped(pieces, mode)
        if whole != cut:
            raise AssertionError(f"{mode}: whole {whole}, in pieces of {size} {cut}")
        if whole[0] not in (0, 4, 5, 6, 8, 9, 10):
            raise AssertionError(f"{mode}: status {whole[0]}")
    with contextlib.suppress(UsageError):
        prompt.compose(["a"], text_in(tape)).encode()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as corpus:
        for path in STREAMS.rglob("*.sse"):
            shutil.copy(path, corpus)
        atheris.Setup([sys.argv[0], f"-max_total_time={sys.argv[1]}", "-max_len=4096", corpus], one_input)
        atheris.Fuzz()
