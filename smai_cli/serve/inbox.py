"""What a client sends -> bytes, within a time and a size for all of it.

The timeout of a socket begins anew with every byte, and a client that sends one now and then would hold its thread for
ever.
"""

import io
import math
import socket
import time
from typing import Any

_SHORTEST_S = 0.001


class FloodError(Exception):
    """A client sent more than it may, before it was known what it wants."""


class Inbox(io.RawIOBase):
    """The raw file below a BufferedReader. Reading raises TimeoutError, FloodError or another OSError."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._end_s = math.inf
        self._left_bytes = 0

    def allow(self, limit_s: float, limit_bytes: int) -> None:
        """Let so many bytes come from now on, within so many seconds."""
        self._end_s = time.monotonic() + limit_s
        self._left_bytes = limit_bytes

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what is there into `buffer`; 0 is the end."""
        if self._left_bytes <= 0:
            raise FloodError
        left_s = self._end_s - time.monotonic()
        self._connection.settimeout(max(left_s, _SHORTEST_S))
        try:
            count = self._connection.recv_into(buffer)
        finally:
            self._connection.settimeout(None)
        self._left_bytes -= count
        return count
