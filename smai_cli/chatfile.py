"""The file of `--chat`: a conversation as JSON Lines, read and locked before a turn, replaced in one step after it."""

import contextlib
import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from smai_cli.errors import OutputError, UsageError
from smai_cli.files import read_text, replace_file
from smai_cli.messages import is_array, parse_messages
from smai_cli.request import Message

_HINT = "check --chat"
# The pictures of a long conversation.
_LIMIT_BYTES = 1024 * 1024 * 1024


class ChatFile:
    """The conversation in the file `path`, which need not exist yet. Use it as a context manager.

    `messages` are those so far. As long as the context lasts no other run of smai gets at the file; `notice` is
    called when another one has it and must be waited for. Raises UsageError for a file that cannot be used.
    """

    def __init__(self, path: str, notice: Callable[[str], None]) -> None:
        self._name = path
        # A symbolic link stays one: what it points to is replaced.
        self._path = Path(os.path.realpath(path))
        # Hidden, and with a name that nobody else gives: they are made and removed.
        self._lock_path = self._path.with_name(f".{self._path.name}.smai-lock")
        self._new_path = self._path.with_name(f".{self._path.name}.smai-new")
        self._notice = notice
        self._lock = -1
        self._text = ""
        self.messages: tuple[Message, ...] = ()

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
        """Let others have the file."""
        self._release()

    def append(self, turn: Iterable[Message]) -> None:
        """Put the messages of a turn behind the others: all of them, or none. Raises OutputError."""
        text = self._text if not self._text or self._text.endswith("\n") else self._text + "\n"
        lines = (json.dumps(message.as_json(), ensure_ascii=False) + "\n" for message in turn)
        try:
            replace_file(str(self._path), str(self._new_path), (text + "".join(lines)).encode())
        except OSError as exc:
            raise OutputError(
                f"{self._name}: {exc.strerror}; the conversation is as it was, without this turn",
                "make room, or check the folder",
            ) from exc

    def _read(self) -> None:
        try:
            mode = self._path.stat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISREG(mode):
            raise UsageError(f"{self._name} is no regular file", _HINT)
        if not os.access(self._path, os.W_OK):
            raise UsageError(f"{self._name} may not be written", _HINT)
        self._text = read_text(str(self._path), self._name, _LIMIT_BYTES)
        if is_array(self._text):
            raise UsageError(f"{self._name} is a JSON array, a conversation is JSON Lines", "convert it: jq -c '.[]'")
        self.messages = parse_messages(self._text, self._name)

    def _acquire(self) -> None:
        """Lock a file beside it; the conversation itself is replaced, and a lock on it would go with the old one."""
        while True:
            self._lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._notice(f"waiting for another run that has {self._name}")
                fcntl.flock(self._lock, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):  # its last holder took it away
                if os.path.samestat(self._lock_path.stat(), os.fstat(self._lock)):
                    return
            os.close(self._lock)
            self._lock = -1

    def _release(self) -> None:
        if self._lock >= 0:
            with contextlib.suppress(OSError):
                self._lock_path.unlink()
            os.close(self._lock)
            self._lock = -1
