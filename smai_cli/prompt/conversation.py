"""The file of `--chat`: a conversation as JSON Lines, locked and read before a turn, replaced atomically after it."""

import codecs
import contextlib
import functools
import json
import math
import os
import stat
from collections.abc import Callable
from types import TracebackType
from typing import Self

from smai_cli.common.files import UTF16_BOMS, move_into_place, read_open, real_place, text_in, write_all, write_beside
from smai_cli.common.locks import open_locked, wait_for_lock
from smai_cli.common.shortages import shortage_among
from smai_cli.errors import OutputError, UsageError
from smai_cli.prompt.messages import is_array, parse_messages
from smai_cli.prompt.request import Message

_HINT = "check --chat"
_LIMIT_BYTES = 1024 * 1024 * 1024  # enough for a long conversation with images


def chat_place(path: str) -> str:
    """Return the real path of a conversation, which need not exist. Raises UsageError for an unusable one."""
    return real_place(path, _HINT)[0]


def side_paths(place: str) -> tuple[str, str, str]:
    """Return the paths of the lock, of the next conversation, and of a turn that could not be added.

    The first two are hidden, with names that nothing else uses, because smai creates and removes them.
    """
    folder, name = os.path.split(place)
    return (
        os.path.join(folder, f".{name}.smai-lock"),
        os.path.join(folder, f".{name}.smai-new"),
        f"{place}.turn",
    )


class ConversationFile:
    """The conversation in the file `path`, which need not exist yet. Use it as a context manager.

    `messages` are those so far, `asked` are those that this run adds before the answer. Within the context, no other
    run of smai can use the file; `notice` is called with a message if this run has to wait for another one. Raises
    UsageError for a file that cannot be used.
    """

    def __init__(self, path: str, notice: Callable[[str], None]) -> None:
        self._name = path
        self._path = chat_place(path)
        self._lock_path, self._new_path, self._turn_path = side_paths(self._path)
        self._notice = functools.cache(notice)  # a run may have to wait again, after another one that waited
        self._lock = -1
        self._snapshot = _Snapshot(self._path)
        self._before = b""
        self._written = 0
        self._turn = b""
        self.messages: tuple[Message, ...] = ()
        self.asked: tuple[Message, ...] = ()

    def __enter__(self) -> Self:
        """Wait for the lock, then read the messages."""
        try:
            self._acquire()
            self._read()
        except OSError as exc:
            self._release()
            raise UsageError(f"{self._name}: {exc.strerror}", _HINT) from exc
        except UsageError:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Unlock the file."""
        with contextlib.suppress(OSError):  # a prepared turn that was not committed
            os.unlink(self._new_path)
        self._release()

    def prepare(self, answer: Message) -> None:
        """Write the conversation with the turn at its end to a temporary file. Raises OutputError."""
        turn = (*self.asked, answer)
        self._turn = "".join(json.dumps(message.as_json(), ensure_ascii=False) + "\n" for message in turn).encode()
        self._write()

    def commit(self) -> None:
        """Replace the conversation by the prepared one, atomically.

        Messages that another program has appended meanwhile stay, before the turn. Raises OutputError if the file was
        changed in another way; then it stays as it is, and the turn is written to a separate file.
        """
        if not self._snapshot.is_up_to_date():
            self._check_change()
        try:
            move_into_place(self._new_path, self._path)
            self._snapshot.carry_over(self._written)
        except OSError as exc:
            raise self._save_turn_separately(f": {exc.strerror}") from exc

    def _write(self) -> None:
        self._check_change()
        self._written = len(self._before)
        before = _as_utf8(self._before)
        end = b"" if not before or before.endswith(b"\n") else b"\n"
        try:
            write_beside(self._path, self._new_path, before + end + self._turn)
        except OSError as exc:
            raise OutputError(
                f"{self._name}: {exc.strerror}; the conversation is unchanged, without this turn",
                "free some space, or check the directory",
            ) from exc

    def _check_change(self) -> None:
        """Read the file again. Raises OutputError if anything changed except for new messages at its end."""
        try:
            has_only_grown = self._has_only_grown()
        except OSError as exc:
            raise self._save_turn_separately(f": {exc.strerror}") from exc
        if not has_only_grown:
            raise self._save_turn_separately(" was changed by another program and is left unchanged")
        self._before = self._snapshot.data

    def _has_only_grown(self) -> bool:
        """Return whether the file still begins with what was read, with only messages after it.

        Raises OSError if the machine lacks resources: then it is not known to have changed.
        """
        try:
            self._snapshot.read(self._name)
            if not self._snapshot.data.startswith(self._before):
                return False
            more = text_in(_as_utf8(self._snapshot.data).removeprefix(_as_utf8(self._before)), self._name)
            parse_messages(more, self._name)
        except UsageError:
            return False
        except OSError as exc:
            if shortage_among([exc]):
                raise
            return False
        return not is_array(more)

    def _save_turn_separately(self, why: str) -> OutputError:
        """Append the turn to a separate file in the same folder, and return the failure that says so."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(self._turn_path, flags, self._snapshot.mode)
            try:
                write_all(fd, self._turn)
            finally:
                os.close(fd)
        except OSError as exc:
            return OutputError(
                f"{self._name}{why}, and the turn could not be written to {self._turn_path}: {exc.strerror}",
                "the turn is lost, except for what was printed",
            )
        return OutputError(f"{self._name}{why}", f"the turn is in {self._turn_path}")

    def _read(self) -> None:
        self._snapshot.read(self._name)
        self._before = self._snapshot.data
        text = text_in(self._before, self._name)
        if is_array(text):
            raise UsageError(f"{self._name} is a JSON array, a conversation is JSON Lines", "convert it: jq -c '.[]'")
        self.messages = parse_messages(text, self._name)

    def _acquire(self) -> None:
        """Lock a separate file: the conversation itself is replaced, which would lose a lock on it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._lock = open_locked(self._lock_path, lambda: os.open(self._lock_path, flags, 0o600), self._wait_for_lock)

    def _wait_for_lock(self, fd: int) -> None:
        try:
            wait_for_lock(fd)
        except BlockingIOError:
            self._notice(f"waiting for another run that uses {self._name}")
            wait_for_lock(fd, math.inf)

    def _release(self) -> None:
        if self._lock >= 0:
            with contextlib.suppress(OSError):
                os.unlink(self._lock_path)
            os.close(self._lock)
            self._lock = -1


class _Snapshot:
    """The last content of the file at `path`: `data`, empty if it does not exist, and `mode`, its permissions."""

    def __init__(self, path: str) -> None:
        self.data = b""
        self.mode = 0o666
        self._path = path
        self._fd = -1
        self._version: tuple[int, ...] | None = None

    def read(self, name: str) -> None:
        """Read it. Raises OSError, and UsageError if it is not a regular file, or too large."""
        self._close()
        self.data, self._version = b"", None
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return
        self._fd = fd
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{name} is not a regular file", _HINT)
        self.mode, self._version = stat.S_IMODE(status.st_mode), _version_of(status)
        with open(fd, "rb", buffering=0, closefd=False) as file:
            self.data = read_open(file, name, _LIMIT_BYTES)

    def is_up_to_date(self) -> bool:
        """Return whether the file is unchanged since it was read."""
        try:
            return _version_of(os.stat(self._path, follow_symlinks=False)) == self._version
        except OSError:
            return self._version is None

    def carry_over(self, at: int) -> None:
        """Append what was added to the old file, after its first `at` bytes, to the new one. Raises OSError."""
        while self._fd >= 0 and (late := os.fstat(self._fd).st_size - at) > 0:
            data = os.pread(self._fd, late, at)
            at += len(data)
            with open(self._path, "ab", buffering=0) as file:
                write_all(file.fileno(), data if _is_utf8(self.data) else _as_utf8(self.data[:2] + data))
        self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _version_of(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _as_utf8(data: bytes) -> bytes:
    """Return the bytes of a conversation in UTF-8 without a BOM, because turns are added in UTF-8."""
    return data.removeprefix(codecs.BOM_UTF8) if _is_utf8(data) else text_in(data).encode()


def _is_utf8(data: bytes) -> bool:
    return data[:2] not in UTF16_BOMS
