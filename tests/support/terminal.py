"""A terminal for the process to draw on, and what a person sees of what was drawn."""

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
    """A pseudo-terminal: give `slave` to a process, read what it wrote from `seen`."""

    def __init__(self, columns: int = 80) -> None:
        self.master, self.slave = os.openpty()
        self.seen = b""
        self.resize(columns)

    def resize(self, columns: int) -> None:
        """Make the terminal so wide."""
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def read_until(self, wanted: bytes, start: int = 0) -> int:
        """Read until `wanted` was written behind offset `start` of `seen`; return where it ends."""
        end_s = time.monotonic() + PATIENCE_S
        while (at := self.seen.find(wanted, start)) < 0:
            assert self._read(end_s - time.monotonic()), f"{wanted!r} did not come: {self.seen!r}"
        return at + len(wanted)

    def read_rest(self) -> str:
        """Read what a process that is over has written; return the screen."""
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
        """What a person sees, as lines without the blanks at their ends."""
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

    def drawn(self, start: int = 0) -> list[str]:
        """Return every line that was drawn behind offset `start`: printed, and left by a carriage return."""
        return re.findall(r"(smai: [^\r\n\x1b]*)\r(?!\n)", self.seen[start:].decode())


@contextmanager
def terminal(columns: int = 80) -> Iterator[Terminal]:
    """Provide a Terminal, closed at the end."""
    made = Terminal(columns)
    try:
        yield made
    finally:
        os.close(made.master)
        os.close(made.slave)


def shown_on_terminal(
    command: Sequence[str | bytes], environment: Mapping[str, str], stdin: bytes = b""
) -> tuple[int, bytes]:
    """Run `command` with stdout and stderr on one terminal; return its exit status and what the terminal got."""
    master, slave = os.openpty()
    termios.tcsetattr(slave, termios.TCSANOW, _without_output_processing(slave))
    seen = b""
    with (
        open(master, "rb", buffering=0) as screen,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=slave, stderr=slave, env=environment) as process,
    ):
        os.close(slave)
        assert process.stdin
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(stdin)
        with contextlib.suppress(OSError):  # EIO: nobody has the terminal open any more
            while piece := screen.read(65536):
                seen += piece
        return process.wait(PATIENCE_S), seen


def _without_output_processing(fd: int) -> list[Any]:
    """Return the settings of a terminal that gets newlines as they are written."""
    settings = termios.tcgetattr(fd)
    settings[1] &= ~termios.OPOST
    return settings
