"""Read from a client, with limits for the total time and size.

The timeout of a socket starts again with every byte, so a client that sends one now and then would hold its thread
forever.
"""

import io
import math
import socket
import time
from typing import Any

_SHORTEST_S = 0.001


class FloodError(Exception):
    """A client sent more bytes than are allowed."""


class GoneError(Exception):
    """The client has left."""


class Inbox(io.RawIOBase):
    """The raw file below a BufferedReader. Reading raises TimeoutError, FloodError or GoneError."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._end_s = math.inf
        self._left_bytes = 0

    def allow(self, limit_s: float, limit_bytes: int) -> None:
        """Allow `limit_bytes` more bytes, within `limit_s` seconds from now."""
        self._end_s = time.monotonic() + limit_s
        self._left_bytes = limit_bytes

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what has arrived into `buffer`; return the count of bytes, 0 at the end."""
        if self._left_bytes <= 0:
            raise FloodError
        left_s = self._end_s - time.monotonic()
        self._connection.settimeout(max(left_s, _SHORTEST_S))
        try:
            count = self._connection.recv_into(buffer)
        except TimeoutError:
            raise
        except OSError:
            raise GoneError from None
        finally:
            self._connection.settimeout(None)
        self._left_bytes -= count
        return count
