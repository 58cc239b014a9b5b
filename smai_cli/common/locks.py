"""Files that only one process at a time may use, by flock(2): the lock ends with its process."""

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable

_PAUSE_S = 0.005


def open_locked(path: str, open_file: Callable[[], int], lock: Callable[[int], None]) -> int:
    """Return a descriptor of the file at `path`, which `open_file` opens and `lock` locks.

    A file that is no longer at `path` once it is locked was moved or removed by the process that had it: then the file
    that is there now is opened. Raises OSError, and what `open_file` and `lock` raise.
    """
    while True:
        fd = open_file()
        try:
            lock(fd)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(path), os.fstat(fd)):
                    return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def wait_for_lock(fd: int, until_s: float = 0.0) -> None:
    """Lock a regular file for this process; try until `until_s` on the monotonic clock, or once.

    Raises BlockingIOError if another process still has it then, OSError.
    """
    while stat.S_ISREG(os.fstat(fd).st_mode):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if time.monotonic() >= until_s:
            raise BlockingIOError(errno.EWOULDBLOCK, "another process has it locked")
        time.sleep(_PAUSE_S)
