"""The log of requests and how they ended: a line of JSON for each, appended to a file as they end."""

import json
import os
import threading
import time
from collections.abc import Callable

# A value in a line.
Value = str | int | float | None


class RequestLog:
    """The log in the open file `fd`. If it cannot be written, `fail` is called with the OSError."""

    def __init__(self, fd: int, fail: Callable[[OSError], None]) -> None:
        self._fd, self._fail = fd, fail
        self._began_s = time.monotonic()
        self._lock = threading.Lock()

    def now_s(self) -> float:
        """Return the seconds since the log began."""
        return round(time.monotonic() - self._began_s, 3)

    def write(self, entry: dict[str, Value]) -> None:
        """Append a line."""
        rest = f"{json.dumps(entry)}\n".encode()
        try:
            with self._lock:
                while rest:
                    rest = rest[os.write(self._fd, rest) :]
        except OSError as exc:
            self._fail(exc)
