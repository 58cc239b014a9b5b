"""A thread beside the run: the reader of stdout may go, and --max-time may end, while everything else waits."""

import math
import os
import select
import signal
import stat
import threading
from collections.abc import Callable

from smai_cli.clocks import Deadline
from smai_cli.main import die_by

# Whoever can end the run in order at the deadline gets this long to do it.
_GRACE_S = 0.3


def watch(fd: int, deadline: Deadline, on_deadline: Callable[[], None]) -> None:
    """Start to watch; nothing waits for it.

    When the reader of `fd` (a pipe, a socket, a terminal) goes away, the process dies by SIGPIPE, although the
    model may be silent for minutes: nobody would read its answer, and it costs money. Soon after `deadline`
    `on_deadline` is called, which ends the process, whatever the main thread is stuck in.
    """
    has_reader = not stat.S_ISREG(os.fstat(fd).st_mode)
    if has_reader or deadline.left_s() < math.inf:
        threading.Thread(target=_watch, args=(fd, has_reader, deadline, on_deadline), daemon=True).start()


def _watch(fd: int, has_reader: bool, deadline: Deadline, on_deadline: Callable[[], None]) -> None:
    poller = select.poll()
    if has_reader:
        poller.register(fd, 0)  # no event is asked for: POLLERR and POLLHUP come unasked
    while (left_s := deadline.left_s() + _GRACE_S) > 0:
        if poller.poll(None if left_s == math.inf else left_s * 1000 + 1):
            die_by(signal.SIGPIPE)
    on_deadline()
