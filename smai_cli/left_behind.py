"""Work that nothing can interrupt -> its result, or a TimeoutError: it is left behind on its thread then."""

import math
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


def result_within(limit_s: float, work: Callable[[], _T]) -> _T:
    """Return what `work` returns, or raise what it raises; TimeoutError, without an errno, after `limit_s`.

    The thread is a daemon: nothing else ends the wait for a name server, or for the writer of a named pipe.
    """
    news: queue.SimpleQueue[tuple[list[_T], BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            news.put(([work()], None))
        except BaseException as exc:  # noqa: BLE001  # it is raised again where the caller waits
            news.put(([], exc))

    threading.Thread(target=run, daemon=True).start()
    try:
        result, failure = news.get(timeout=None if limit_s == math.inf else max(0.0, limit_s))
    except queue.Empty:
        raise TimeoutError from None
    if failure is not None:
        raise failure
    return result[0]
