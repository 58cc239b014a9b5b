"""A pseudo-terminal for the process, and its screen as a person sees it."""

import contextlib
import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

PATIENCE_S = 20.0
_TOKEN = re.compile(r"\x1b\[(\d*)([A-Za-z])|\r|\n|[^\x1b\r\n]")


class Terminal:
    """A pseudo-terminal: give `slave` to a process, read its output from `seen`."""

    def __init__(self, columns: int = 80) -> None:
        self.master, self.slave = os.openpty()
        self.seen = b""
        self.resize(columns)

    def resize(self, columns: int) -> None:
        """Set the width of the terminal."""
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def read_until(self, wanted: bytes, start: int = 0) -> int:
        """Read until `wanted` was written after offset `start` of `seen`; return the offset of its end."""
        end_s = time.monotonic() + PATIENCE_S
        while (at := self.seen.find(wanted, start)) < 0:
            assert self._read(end_s - time.monotonic()), f"{wanted!r} did not come: {self.seen!r}"
        return at + len(wanted)

    def read_rest(self) -> str:
        """Read the rest of the output of a process that has ended; return the screen."""
        while self._read(0.0):
            pass
        return self.screen

    def _read(self, limit_s: float) -> bool:
        ready = select.select([self.master], [], [], max(0.0, limit_s))[0]
        if ready:
            self.seen += os.read(self.master, 65536)
        return bool(ready)

    @property
    def screen(self) -> str:
        """The screen as lines without trailing blanks."""
        rows: list[list[str]] = [[]]
        row = column = 0
        for token in _TOKEN.finditer(self.seen.decode()):
            what = token[0]
            if what == "\r":
                column = 0
            elif what == "\n":
                row += 1
                rows += [[]] * (row == len(rows))
            elif token[2] in ("K", "J"):
                rows[row] = rows[row][:column]
            elif token[2] is None:
                rows[row] += [" "] * (column - len(rows[row]))
                rows[row][column : column + 1] = [what]
                column += 1
            else:
                assert token[2] == "m", f"what would a terminal make of {what!r}?"
        return "\n".join("".join(line).rstrip() for line in rows).rstrip("\n")

    def drawn(self) -> list[str]:
        """Return every line that was drawn: printed, and ended by a carriage return."""
        return re.findall(r"(smai: [^\r\n\x1b]*)\r(?!\n)", self.seen.decode())


@contextmanager
def terminal(columns: int = 80) -> Iterator[Terminal]:
    """Provide a Terminal, closed at the end."""
    made = Terminal(columns)
    try:
        yield made
    finally:
        os.close(made.master)
        os.close(made.slave)


def run_on_terminal(command: Sequence[str | bytes], environment: Mapping[str, str]) -> tuple[int, bytes]:
    """Run `command` with stdout and stderr on one terminal; return its exit status and its output."""
    master, slave = os.openpty()
    termios.tcsetattr(slave, termios.TCSANOW, _without_output_processing(slave))
    seen = b""
    with (
        open(master, "rb", buffering=0) as screen,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=slave, stderr=slave, env=environment) as process,
    ):
        os.close(slave)
        assert process.stdin
        process.stdin.close()
        with contextlib.suppress(OSError):  # EIO: no process has the terminal open any more
            while piece := screen.read(65536):
                seen += piece
        return process.wait(PATIENCE_S), seen


def _without_output_processing(fd: int) -> list[Any]:
    """Return the settings of the terminal without output processing: newlines arrive as written."""
    settings = termios.tcgetattr(fd)
    settings[1] &= ~termios.OPOST
    return settings
