"""The file of `--output`: written beside its name, and renamed to it only when the answer is complete."""

import contextlib
import fcntl
import os
import stat

from smai_cli.errors import OutputError, UsageError
from smai_cli.files import keep_owner_and_mode, move_into_place
from smai_cli.output import FileOutput


class OutFile:
    """The file `path` in the making. What comes goes to `output`, a file beside it with the ending .partial.

    Raises UsageError for what cannot be replaced, OutputError where nothing can be written.
    """

    def __init__(self, path: str) -> None:
        self._name = path
        # A symbolic link stays one: what it points to is replaced.
        self._path = os.path.realpath(path)
        self._partial = f"{self._path}.partial"
        old = self._old()
        try:
            self._fd = self._open()
            if old:
                keep_owner_and_mode(self._fd, old)
        except OSError as exc:
            raise OutputError(f"{self._partial}: {exc.strerror}", "check the folder, or choose another -o") from exc
        self.output = FileOutput(self._fd, self._partial)

    def commit(self) -> None:
        """Make what came the file, in one step that outlives a crash. Raises OutputError, the file as it was then."""
        try:
            os.fsync(self._fd)
            move_into_place(self._partial, self._path)
        except OSError as exc:
            raise OutputError(f"{self._name}: {exc.strerror}", f"the answer is in {self._partial}") from exc

    def leave(self) -> None:
        """Leave what came of a broken answer beside the file; nothing, if nothing came."""
        if not self.output.written:
            with contextlib.suppress(OSError):
                os.unlink(self._partial)

    def _old(self) -> os.stat_result | None:
        """Return what the system knows of the file that is there, None where there is none."""
        try:
            old = os.stat(self._path)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise UsageError(f"{self._name}: {exc.strerror}", "choose another -o") from exc
        if not stat.S_ISREG(old.st_mode):
            raise UsageError(f"{self._name} is no regular file", "use > to write into it")
        if not os.access(self._path, os.W_OK):
            raise UsageError(f"{self._name} may not be written", "choose another -o, or chmod u+w")
        return old

    def _open(self) -> int:
        """Open the partial file for this run alone, empty. Raises OSError, or UsageError if another run has it."""
        while True:
            fd = os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                os.close(fd)
                raise UsageError(f"another run is writing {self._name}", "wait for it, or choose another -o") from exc
            with contextlib.suppress(FileNotFoundError):  # its last user has renamed it
                if os.path.samestat(os.stat(self._partial), os.fstat(fd)):
                    os.ftruncate(fd, 0)
                    return fd
            os.close(fd)
