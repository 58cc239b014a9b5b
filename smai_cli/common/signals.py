"""Signals: which ones end a process, how smai handles them, and how it dies by one.

The top level imports only modules that the interpreter has already loaded, so that Ctrl-C during imports is quiet.
"""

import os
import signal

TYPE_CHECKING = False  # as typing.TYPE_CHECKING, without the time to import typing
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import NoReturn

# Signals from a person, a terminal or an orchestrator that end a process by default.
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
    """Run `call(number)` when one of these signals arrives; replaces an earlier call.

    It runs in the main thread, or after `call_from_thread` in a separate thread. A signal that the parent process
    ignores (nohup, `trap '' INT`) stays ignored.
    """
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            _calls[number] = call
            signal.signal(number, _call_without_thread)


def on_signal_in_main_thread(numbers: "Iterable[int]", call: "Callable[[int], object]") -> None:
    """Run `call(number)` always in the main thread, where it may raise an exception."""
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: call(number))


def call_from_thread() -> bool:
    """Run the calls of `on_signal` at once in a separate thread; return whether it could be started.

    Python runs its handlers between two steps of the main thread, which may be blocked by a name server, a lock or a
    pipe. But when the signal arrives, Python writes its number to a descriptor, and the thread reads that. Without the
    thread, the main thread still makes the calls.
    """
    global _has_thread  # noqa: PLW0603  # signals belong to the process, and so does this thread
    if _has_thread:
        return True
    import threading  # rarely used

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        threading.Thread(target=_call_for_each, args=(reader,), daemon=True).start()
    except (RuntimeError, MemoryError):  # no more threads available
        os.close(reader)
        os.close(writer)
        return False
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    _has_thread = True
    return True


def leave(status: int) -> "NoReturn":
    """End this process with `status`, from any thread.

    Every byte is delivered and nothing is buffered, so the teardown of the interpreter would only waste time.
    """
    os._exit(status)


def die_by(signum: int) -> "NoReturn":
    """End this process with the real signal `signum`, from any thread; never returns.

    The first process of a container cannot die this way: the kernel drops the signal, so it exits with 128 + `signum`.
    """
    try:
        signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signum])
    except ValueError:  # Python allows this only in the main thread, libc in any
        try:
            import ctypes

            ctypes.CDLL(None).signal(signum, 0)
        except (ImportError, OSError, AttributeError):
            leave(128 + signum)
    # To this thread: another thread could handle a core-dumping signal (SIGQUIT) only after this one exits.
    signal.raise_signal(signum)
    leave(128 + signum)


def _call_without_thread(number: int, frame: object) -> None:  # noqa: ARG001  # the signature of a handler
    if not _has_thread:
        _calls[number](number)


def _call_for_each(reader: int) -> None:
    while number := os.read(reader, 1):
        if signal.getsignal(number[0]) is _call_without_thread:  # no other handler has replaced it
            _calls[number[0]](number[0])
