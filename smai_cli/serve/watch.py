"""Watch for clients that leave while their answer is running, from one thread.

Only the end of its connection shows that a page was closed or an answer stopped. The thread that waits for the server
does not look at the client, and a write would notice too late: while the server is silent there is none.
"""

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator

# The end of what the client sends, even if unread bytes come before it. Linux and FreeBSD have it, macOS does not.
_RDHUP = getattr(select, "POLLRDHUP", 0)
_ENDS = _RDHUP | select.POLLERR | select.POLLHUP | select.POLLNVAL
_ASKED = _RDHUP or select.POLLIN


class WatchedClient:
    """A client whose answer is under way. `has_left` says whether it has closed its connection."""

    def __init__(self, connection: socket.socket, on_gone: Callable[[], None]) -> None:
        self.has_left = False
        self.connection = connection
        self.on_gone = on_gone
        self.asked = _ASKED

    def look(self) -> None:
        """Update `has_left`."""
        poller = select.poll()
        poller.register(self.connection, self.asked)
        events = dict(poller.poll(0)).get(self.connection.fileno(), 0)
        self.has_left = bool(events & _ENDS)
        if events & select.POLLIN and not _RDHUP:
            try:
                self.has_left = not self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                self.has_left = True
            # Its next request came before the answer. The end of the connection comes after it and is not seen.
            self.asked = 0


class Watch:
    """The thread that watches; made once for a server, and ended by `close`."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._lock = threading.Lock()
        self._clients: dict[int, WatchedClient] = {}
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def over(self, connection: socket.socket, on_gone: Callable[[], None]) -> Iterator[WatchedClient]:
        """Watch the client of `connection` as long as the context lasts.

        When it leaves, its connection is shut down, so that no write waits for it, and `on_gone` is called on a
        new thread. A half-close counts as leaving: nothing else shows that a browser left.
        """
        client, fd = WatchedClient(connection, on_gone), connection.fileno()
        with self._lock:
            self._clients[fd] = client
            self._wake()
        try:
            yield client
        finally:
            with self._lock:  # from here on the descriptor may be used for another file
                self._clients.pop(fd, None)
                # As long as it is polled, a connection that is closed stays open.
                self._wake()

    def close(self) -> None:
        """End the thread. An answer that is still under way is watched no longer."""
        with self._lock:
            self._wake()
            self._is_closed = True
        self._thread.join()
        os.close(self._reader)
        os.close(self._writer)

    def _wake(self) -> None:
        """Have the thread read the list of clients again. The caller holds the lock."""
        if self._is_closed:  # the descriptor may be used for another file by now
            return
        with contextlib.suppress(BlockingIOError):  # the pipe is full of wake-ups
            os.write(self._writer, b"\0")

    def _run(self) -> None:
        while True:
            poller = select.poll()
            poller.register(self._reader, select.POLLIN)
            with self._lock:
                if self._is_closed:
                    return
                for fd, client in self._clients.items():
                    poller.register(fd, client.asked)
            for fd, _ in poller.poll():
                if fd == self._reader:
                    os.read(self._reader, 4096)
                else:
                    self._look(fd)

    def _look(self, fd: int) -> None:
        with self._lock:
            client = self._clients.get(fd)
            if client is None:
                return
            client.look()
            if not client.has_left:
                return
            del self._clients[fd]
            with contextlib.suppress(OSError):
                client.connection.shutdown(socket.SHUT_RDWR)
        try:
            threading.Thread(target=client.on_gone, daemon=True).start()
        except RuntimeError:  # the system has no thread left
            client.on_gone()
