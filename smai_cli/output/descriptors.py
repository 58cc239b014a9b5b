"""The only module that writes to stdout and stderr: directly to the descriptor, without buffering."""

import errno
import io
import os
import select
import threading
from collections.abc import Callable, Iterable

from smai_cli.common.text import on_a_line, visible
from smai_cli.errors import OutputError, ReaderGoneError

STDOUT, STDERR = 1, 2
# How long a line on stderr may wait for the reader of a full non-blocking pipe.
_STDERR_PATIENCE_MS = 1000
_COLUMNS = 80
_APPEARS_AFTER_S = 1.0


class Output:
    """Stdout as a descriptor. `written` is the number of bytes delivered, `is_terminal` whether it is a terminal.

    `before_first` is called once, before the first byte.
    """

    def __init__(self, fd: int = STDOUT) -> None:
        self.fd = fd
        self.before_first: Callable[[], None] | None = None
        self.written = 0
        self.is_terminal = os.isatty(fd)

    def write(self, data: bytes) -> None:
        """Write all of `data` before returning, with one system call if the kernel takes it all.

        Raises ReaderGoneError if the reader has left (EPIPE), OutputError for a full disk and other errors.
        """
        if self.before_first and data:
            before, self.before_first = self.before_first, None
            before()
        rest: bytes | memoryview = data
        while rest:
            try:
                count = os.write(self.fd, rest)
            except BlockingIOError:
                # Another process made the pipe non-blocking and may rely on that: wait, do not change it.
                _wait_writable(self.fd)
                continue
            except OSError as exc:
                raise self._failure(exc) from exc
            self.written += count
            if count == len(rest):
                return
            rest = memoryview(rest)[count:]

    def show(self, data: bytes, escape: Callable[[str], str] = visible) -> None:
        """Write `data`, which is UTF-8 text, as `write` does; on a terminal, control characters are escaped.

        `escape` is the function of text.py for the kind of text, so that JSON stays JSON and a command stays a command.
        A pipe and a file get the exact bytes.
        """
        self.write(escape(data.decode(errors="surrogateescape")).encode() if self.is_terminal else data)

    def show_lines(self, lines: Iterable[str], escape: Callable[[str], str] = visible) -> None:
        """Write each text and a newline, as `show` does; half a surrogate pair, which UTF-8 cannot hold, is escaped."""
        self.show("".join(f"{line}\n" for line in lines).encode(errors="backslashreplace"), escape)

    def _failure(self, exc: OSError) -> Exception:
        return ReaderGoneError() if isinstance(exc, BrokenPipeError) else stdout_error(exc)


class FileOutput(Output):
    """A file that is written in addition to stdout, as a descriptor; `name` is its name in messages."""

    def __init__(self, fd: int, name: str) -> None:
        super().__init__(fd)
        self.name = name

    def _failure(self, exc: OSError) -> OutputError:
        return output_error(f"{self.name}: ", exc)


class ClickOutput(io.RawIOBase):
    """An Output as the raw file under sys.stdout, for the texts that click prints: help, version, completions."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        """Write `data`, which is text; raises what Output.write raises."""
        self._output.show(bytes(data))
        return len(data)


def say_aside(text: str) -> None:
    """Print text on stderr in addition to the answer: dimmed on a terminal unless NO_COLOR is set or TERM is dumb."""
    _stderr.write(text, dims=text != "\n" and stderr_can_draw())


def say(line: str) -> None:
    """Print `smai: line` on stderr. Ignores errors of stderr: the exit status still reports a failure."""
    say_plain(f"smai: {on_a_line(line)}")


def say_plain(line: str) -> None:
    """Print `line` and a newline on stderr, in one write if possible; escape control characters on a terminal."""
    _stderr.write(f"{line}\n")


def say_defect(exc: BaseException) -> None:
    """Print the traceback of a defect; without a descriptor to load the traceback module, only its repr."""
    try:
        import traceback

        say_plain("".join(traceback.format_exception(exc)).rstrip())
    except (OSError, ImportError):
        say_plain(repr(exc))
    say("this is a defect in smai; please report it with the lines above")


class StatusLine:
    """A line on a terminal (stderr), redrawn every `every_s` seconds; other output to stderr erases it first.

    Subclasses return its text. A run of less than a second shows none.
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._over = threading.Event()

    def text(self, width: int) -> str:
        """Return the current text of the line (printable ASCII), for a terminal with `width` columns."""
        raise NotImplementedError

    def start(self) -> None:
        """Start a thread that shows the line after a second."""
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """Erase the line, and draw no more."""
        self._over.set()
        _stderr.erase()

    def _run(self) -> None:
        limit_s, shown = _APPEARS_AFTER_S, ("", 0)
        while not self._over.wait(limit_s):
            limit_s, width = self._every_s, columns()
            line = self.text(width)[: width - 1]  # a full line would wrap
            # Other output may have erased the line: then draw it again, even if unchanged.
            if (line, width) != shown or not _stderr.drawn:
                _stderr.draw(line, self._over.is_set)
                shown = (line, width)


def stderr_can_draw() -> bool:
    """Return whether stderr is a terminal that supports escape sequences, and the user wants them (no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "") in ("", "dumb")
    return not plain and os.isatty(STDERR)


def columns() -> int:
    """Return the current width of the terminal on stderr."""
    try:
        return os.get_terminal_size(STDERR).columns or _COLUMNS
    except OSError:
        return _COLUMNS


def _is_foreground() -> bool:
    """Return whether this process is in the foreground: in the background it would draw over the user's typing."""
    try:
        return os.tcgetpgrp(STDERR) == os.getpgrp()
    except OSError:  # not the controlling terminal
        return True


class _Stderr:
    """Stderr: serializes the texts of several threads, and manages the drawn line.

    `drawn` is the length of that line. The cursor stays at its beginning: if the terminal becomes narrower and wraps
    the line, all of it is below the cursor.
    """

    def __init__(self) -> None:
        self.drawn = 0
        self._is_in_a_line = False
        self._lock = threading.Lock()

    def write(self, text: str, *, dims: bool = False) -> None:
        """Erase the drawn line, then write `text`: on a terminal with control characters escaped, dimmed if `dims`."""
        shown = visible(text) if os.isatty(STDERR) else text
        with self._lock:
            _write_stderr(self._eraser() + (f"\x1b[2m{shown}\x1b[22m" if dims else shown))
            self._is_in_a_line = not text.endswith("\n")

    def draw(self, line: str, is_closed: Callable[[], bool]) -> None:
        """Draw `line` in place of the last one, if the cursor is at the start of a line.

        Never wait for a stopped terminal (Ctrl-S).
        """
        with self._lock:
            if not is_closed() and not self._is_in_a_line and _is_foreground() and _wait_writable(STDERR, 0):
                _write_stderr(f"{self._eraser()}{line}\r")
                self.drawn = len(line)

    def erase(self) -> None:
        """Erase the drawn line; on a stopped terminal it stays, unless the answer waits for that terminal too."""
        # A process that is ending must not wait for a thread that a stopped terminal blocks.
        if self._lock.acquire(timeout=_STDERR_PATIENCE_MS / 1000):
            try:
                if self.drawn and (os.isatty(STDOUT) or _wait_writable(STDERR, 0)):
                    _write_stderr(self._eraser())
            finally:
                self._lock.release()

    def _eraser(self) -> str:
        drawn, self.drawn = self.drawn, 0
        if not drawn or not _is_foreground():
            return ""
        # Some terminals save text that is erased from the first cell on, as if the user had cleared the screen.
        return "\r \x1b[J\r" if drawn >= columns() else "\r\x1b[K"


_stderr = _Stderr()


def _write_stderr(text: str) -> None:
    view = memoryview(text.encode(errors="replace"))
    while view:
        try:
            view = view[os.write(STDERR, view) :]
        except BlockingIOError:
            if not _wait_writable(STDERR, _STDERR_PATIENCE_MS):
                return
        except OSError:
            return


def stdout_error(exc: OSError) -> OutputError:
    """Return the OutputError for a failed write to stdout."""
    return output_error("stdout: ", exc)


def output_error(place: str, exc: OSError) -> OutputError:
    """Return the OutputError for a failed write, with a hint; its message begins with `place`."""
    return OutputError(f"{place}{exc.strerror}", write_hint(exc))


def write_hint(exc: OSError) -> str:
    """Return the hint for a failed write."""
    hints = {
        errno.ENOSPC: "free some space, then run it again",
        errno.EDQUOT: "free some of your quota, then run it again",
        errno.EBADF: "open it, for example with >/dev/null",
    }
    return hints.get(exc.errno or 0, "check where the output goes")


def _wait_writable(fd: int, limit_ms: int | None = None) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    return bool(poller.poll(limit_ms))
