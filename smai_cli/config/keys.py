"""Read keys from the environment, a file, a command or stdin, and keep them out of messages."""

import contextlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from smai_cli.common.clocks import Deadline, result_within
from smai_cli.common.files import open_regular, read_all
from smai_cli.errors import ShortageError, UsageError

if TYPE_CHECKING:
    import subprocess

# Servers accept no longer header.
_KEY_LIMIT_BYTES = 8192
# White space around a key is dropped, up to a limit.
_READ_LIMIT_BYTES = 65536
# It stops an endless device.
_STDIN_LIMIT_BYTES = 16 * 1024 * 1024
_KEY_START = 8
_SHORT_KEY = 4
# The user may have to type a passphrase; a job must not hang.
COMMAND_LIMIT_S = 60
# Files from Windows end lines with CR LF; a shell keeps the CR, which is not allowed in a header.
_WITHOUT_CR = r"tr -d '\r'"
_HAS_EFFECTIVE_IDS = os.access in os.supports_effective_ids
# How often to check whether a command has ended while another process, such as an agent, still has its stdout.
_SLICE_S = 0.05


class Secret:
    """A key that no message, repr or traceback shows; `reveal` is called only where it is sent."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        """Return a placeholder."""
        return "Secret(...)"

    __str__ = __repr__

    def hidden_in(self, text: str) -> str:
        """Return `text` without the key or a prefix of it: a server may repeat it in its message.

        A short key may be part of any word, and local servers accept any key, such as `o`. It is hidden after `Bearer`,
        and elsewhere only if it is not part of a word, and not itself only letters.
        """
        start = self._value[:_KEY_START]
        if len(start) < _KEY_START:
            return self._short_hidden_in(text)
        at = text.find(start)
        while at >= 0:
            end = at + _KEY_START
            while end < len(text) and self._value.startswith(text[at : end + 1]):
                end += 1
            text = f"{text[:at]}...{text[end:]}"
            at = text.find(start, at)
        return text

    def _short_hidden_in(self, text: str) -> str:
        key = re.escape(self._value)
        text = re.sub(rf"((?i:bearer)\s+){key}", r"\1...", text)
        if len(self._value) < _SHORT_KEY or self._value.isalpha():
            return text
        return re.sub(rf"(?<![\w-]){key}(?![\w-])", "...", text)

    def reveal(self) -> str:
        """Return the key itself."""
        return self._value


class Secrets:
    """All secrets of a run: its key, and those in its headers and its base URL."""

    def __init__(self, secrets: Iterable[Secret]) -> None:
        self._secrets = tuple(secrets)

    def __iter__(self) -> Iterator[Secret]:
        """Yield each of them."""
        return iter(self._secrets)

    def hidden_in(self, text: str) -> str:
        """Return `text` without any of them."""
        for secret in self._secrets:
            text = secret.hidden_in(text)
        return text


def check_key(value: str, source: str) -> Secret:
    """Return the key in `value` without surrounding white space. Raises UsageError, which does not show it."""
    key = value.strip()
    if not key:
        raise UsageError(f"{source} is empty", "put the key there, alone")
    if len(key) > _KEY_LIMIT_BYTES:
        raise UsageError(
            f"{source} is longer than {_KEY_LIMIT_BYTES} bytes, too long for a header", "put the key there, alone"
        )
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        raise UsageError(
            f"{source} contains a character that a key cannot have (a line end, a space, or one outside ASCII)",
            "put the key there, alone",
        )
    if re.fullmatch(r"([\"']).*\1", key):  # docker run --env-file keeps the quotation marks (topoteretes/cognee#1721)
        raise UsageError(f"{source} contains quotation marks around the key", "remove them")
    return Secret(key)


def key_from_file(path: str, deadline: Deadline, hint: str) -> Secret:
    """Read a key from a file that only its owner can read, or from a pipe. Raises UsageError, or ClockError."""
    name = f"the key file {path}"
    return check_key(read_secret_file(path, name, _READ_LIMIT_BYTES, deadline, hint).decode("latin-1"), name)


def read_secret_file(path: str, name: str, limit_bytes: int, deadline: Deadline, hint: str) -> bytes:
    """Return what a file that only its owner can read contains, or a pipe, up to a little more than a limit.

    `name` is its name in messages. Raises UsageError, with `hint`, or ClockError.
    """
    try:
        if stat.S_ISREG(os.stat(path).st_mode):
            return read_private(path, f"others can read {name}", limit_bytes)
        return _read_pipe(path, limit_bytes, deadline)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the name
        raise UsageError(f"{name}: {getattr(exc, 'strerror', None) or exc}", hint) from exc


def read_private(path: str, open_to_others: str, limit_bytes: int) -> bytes:
    """Return the content of a regular file, at most `limit_bytes` + 1 bytes.

    Raises OSError; and UsageError, with the message `open_to_others`, as `is_open_to_others` decides.
    """
    with open_regular(path) as file:
        if is_open_to_others(path, file.fileno()):
            is_own = os.fstat(file.fileno()).st_uid == os.geteuid()
            raise UsageError(open_to_others, f"{'run' if is_own else 'have its owner run'} chmod 600 {path}")
        return file.read(limit_bytes + 1)


def is_open_to_others(path: str, fd: int | None = None) -> bool:
    """Return whether others can use a regular file, and this user could prevent it. Raises OSError.

    Docker mounts secrets with mode 0444, Kubernetes with 0644, both read-only: chmod is impossible there, and the
    orchestrator decides who can read them. A file of another user that this one cannot write does not count either.
    """
    found = os.stat(path) if fd is None else os.fstat(fd)
    if not (stat.S_ISREG(found.st_mode) and found.st_mode & 0o077):
        return False
    if os.statvfs(path if fd is None else fd).f_flag & os.ST_RDONLY:
        return False
    return found.st_uid == os.geteuid() or os.access(path, os.W_OK, effective_ids=_HAS_EFFECTIVE_IDS)


def _read_pipe(path: str, limit_bytes: int, deadline: Deadline) -> bytes:
    """Return what comes through a pipe, up to a limit. Raises OSError, or ClockError at the deadline."""

    def read() -> bytes:
        data = b""
        with open(path, "rb", buffering=0) as pipe:  # blocks until there is a writer
            while len(data) <= limit_bytes and (piece := pipe.read(limit_bytes)):
                data += piece
        return data

    try:
        return result_within(deadline.left_s(), read)
    except TimeoutError as exc:
        if exc.errno is not None:
            raise
        raise deadline.error() from None


def key_from_stdin(fd: int, notice: Callable[[], None], deadline: Deadline) -> Secret:
    """Read a key from a descriptor to its end; call `notice` once if nothing has arrived for 3 s.

    Raises UsageError, or ClockError at the deadline.
    """
    data = read_all(fd, notice, "check where the key comes from", _STDIN_LIMIT_BYTES, deadline)
    return check_key(data.decode("latin-1"), "stdin")


def key_from_command(words: list[str], source: str, deadline: Deadline) -> Secret:
    """Return the key in the first line that a command prints. It runs without a shell, and its stderr is shown.

    The command ends with its process, even if another process still has its stdout. Raises UsageError, or ClockError.
    """
    import subprocess  # only with a key_command

    try:
        # An empty stdin through a pipe: /dev/null may be missing in a container.
        child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)  # noqa: S603  # the user's own words, and no shell
    except BlockingIOError as exc:  # fork(2): the limit on processes
        raise ShortageError("the system cannot start a process for key_command", "try again later") from exc
    except OSError as exc:
        raise UsageError(f"key_command cannot be run: {words[0]}: {exc.strerror}", f"check {source}") from exc
    except ValueError as exc:  # a NUL in a word
        raise UsageError(f"key_command is not a valid command: {exc}", f"check {source}") from exc
    assert child.stdin  # noqa: S101  # it is a pipe
    child.stdin.close()
    try:
        output = _output(child, time.monotonic() + min(COMMAND_LIMIT_S, deadline.left_s()))
    except TimeoutError:
        child.kill()
        if deadline.left_s() <= 0:
            raise deadline.error() from None
        raise UsageError(f"key_command took longer than {COMMAND_LIMIT_S} s", f"check {source}") from None
    if child.returncode:
        status = child.returncode
        ended = f"died by signal {-status}" if status < 0 else f"exit status {status}"
        raise UsageError(f"key_command failed: {ended}", f"check {source}")
    line = output.partition(b"\n")[0]  # not splitlines, which would cut a key at other characters
    return check_key(line.decode("latin-1"), "the output of key_command")


def _output(child: "subprocess.Popen[bytes]", end_s: float) -> bytes:
    """Return the output of a command when it ends, up to a limit. Raises TimeoutError at `end_s` (monotonic)."""
    import select
    import subprocess

    assert child.stdout  # noqa: S101  # it is a pipe
    with child.stdout as pipe:
        fd = pipe.fileno()
        os.set_blocking(fd, False)
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        output = bytearray()
        while (left_s := end_s - time.monotonic()) > 0:
            is_over = child.poll() is not None  # before the read, so that all its output is in the pipe
            try:
                piece = os.read(fd, _READ_LIMIT_BYTES)
            except BlockingIOError:
                if is_over:
                    return bytes(output)
                poller.poll(1000 * min(left_s, _SLICE_S))
                continue
            output += piece[: _READ_LIMIT_BYTES - len(output)]
            if is_over and (not piece or b"\n" in output):
                return bytes(output)
            if not piece:  # it closed its stdout
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(left_s)
    raise TimeoutError


def file_in_shell(path: str) -> str | None:
    """Return the expression for the key in a file, within double quotes in a shell command.

    None for a file that the command may not find, or not the same: a pipe, or a descriptor of this process.
    """
    import shlex  # for few runs

    try:
        if os.path.abspath(path).startswith(("/dev/", "/proc/")):
            return None
    except OSError:  # the current folder was removed
        return None
    with contextlib.suppress(OSError, ValueError):  # a file that does not exist yet may exist then
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
    return f"$({_WITHOUT_CR} <{shlex.quote(path)})"


def command_in_shell(words: list[str]) -> str:
    """Return the expression for the key that a command prints, within double quotes in a shell command.

    The words are quoted, so that the shell runs the same command as smai.
    """
    import shlex  # for few runs

    first, *others = words
    quoted = "'" + first.replace("'", "'\"'\"'") + "'" if "=" in first else shlex.quote(first)
    return f"$({' '.join([quoted, *map(shlex.quote, others)])} </dev/null | head -n 1 | {_WITHOUT_CR})"


def command_words(command: str | list[str], source: str) -> list[str]:
    """Return the words of a command, split and unquoted as by a shell, without any expansion. Raises UsageError."""
    import shlex  # only with a key_command

    try:
        words = shlex.split(command) if isinstance(command, str) else command
    except ValueError as exc:
        raise UsageError(f"key_command is not a valid command: {exc}", f"check {source}") from exc
    if not words:
        raise UsageError("key_command is not a valid command: it is empty", f"check {source}")
    return words
