"""Signals: which ones end a process, what smai does when one comes, and how it dies by one.

Nothing is imported at the top that the interpreter has not loaded already, so that Ctrl-C during the imports is quiet.
"""

import os
import signal

TYPE_CHECKING = False  # what typing.TYPE_CHECKING is, without the time to import typing
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import NoReturn

# The signals that end a process unless it handles them, and that a person, a terminal or an orchestrator may send.
ENDING = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGALRM,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGXCPU,
)

_calls: "dict[int, Callable[[int], object]]" = {}
_has_thread = False


def on_signal(numbers: "Iterable[int]", call: "Callable[[int], object]") -> None:
    """Let `call(number)` run when one of these signals comes; it replaces an earlier call.

    It runs in the main thread, or after `call_from_thread` in a thread of its own. A signal that the parent process
    ignores (nohup, `trap '' INT`) stays ignored.
    """
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            _calls[number] = call
            signal.signal(number, _call_without_thread)


def on_signal_in_main_thread(numbers: "Iterable[int]", call: "Callable[[int], object]") -> None:
    """Let `call(number)` run in the main thread, always: it may raise an exception there."""
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: call(number))


def call_from_thread() -> bool:
    """Let the calls of `on_signal` run at once, in a thread of their own; return whether there is a thread.

    Python runs its handlers between two steps of the main thread, which may wait for a name server, a lock or a pipe.
    But when the signal comes it writes the number to a descriptor, and the thread reads that. Without a thread the
    main thread makes the calls, as before.
    """
    global _has_thread  # noqa: PLW0603  # signals belong to the process, and so does this thread
    if _has_thread:
        return True
    import threading  # not for every run

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        threading.Thread(target=_call_for_each, args=(reader,), daemon=True).start()
    except (RuntimeError, MemoryError):  # the system gives smai no more threads
        os.close(reader)
        os.close(writer)
        return False
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    _has_thread = True
    return True


def leave(status: int) -> "NoReturn":
    """End this process with `status`, from any thread.

    Every byte is delivered and nothing is buffered: the teardown of the interpreter would be lost time.
    """
    os._exit(status)


def die_by(signum: int) -> "NoReturn":
    """End this process by the real signal `signum`, from any thread; never returns.

    The first process of a container cannot die so: the kernel drops the signal, and it exits with 128 + `signum`.
    """
    try:
        signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signum])
    except ValueError:  # only the main thread may ask Python, but any may ask libc
        try:
            import ctypes

            ctypes.CDLL(None).signal(signum, 0)
        except (ImportError, OSError, AttributeError):
            leave(128 + signum)
    # To this thread: another one could take a signal that dumps core (SIGQUIT) later than this one leaves.
    signal.raise_signal(signum)
    leave(128 + signum)


def _call_without_thread(number: int, frame: object) -> None:  # noqa: ARG001  # Python calls a handler like this
    if not _has_thread:
        _calls[number](number)


def _call_for_each(reader: int) -> None:
    while number := os.read(reader, 1):
        if signal.getsignal(number[0]) is _call_without_thread:  # no other handler has replaced it
            _calls[number[0]](number[0])
