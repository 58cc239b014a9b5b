"""The entry point: run the command, and turn a failure into one message and one exit status.

The top of the module imports only what the interpreter has loaded already, so that Ctrl-C is quiet even during the
imports.
"""

import gc
import os
import signal
import sys

from smai_cli.common.signals import ENDING, call_from_thread, die_by, leave, on_signal

TYPE_CHECKING = False  # what typing.TYPE_CHECKING is, without the time to import typing
if TYPE_CHECKING:
    from typing import NoReturn

    from smai_cli.errors import SmaiError
    from smai_cli.http.preconnect import Preconnect


def main() -> "NoReturn":
    """Run `smai` with the arguments of the process, and exit; never returns."""
    if sys.getfilesystemencoding() != "utf-8":
        from smai_cli.cli.utf8 import run_again  # for few locales

        run_again()
    is_process_1 = os.getpid() == 1
    if is_process_1:
        # The kernel drops a signal that ends any other process for process 1 of a PID namespace, unless that has a
        # handler (pid_namespaces(7)): `docker stop` would wait for its SIGKILL.
        on_signal(ENDING, lambda number: leave(128 + number))
    elif signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Die by the real signal, at once, even while a name server does not answer: a shell loop sees it and
        # stops. If SIGINT is ignored (nohup, `trap '' INT`, a background job of a script), it stays ignored.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # The imports make many objects and no garbage: the collector takes a tenth of the time to the first byte. A run
    # ends before it matters; a server turns it on again.
    gc.disable()
    closed = _fill_closed_descriptors()
    if is_process_1:
        call_from_thread()
    try:
        status = _run(sys.argv[1:], stdout_is_closed=1 in closed)
    except (OSError, ImportError, MemoryError) as exc:  # while smai was loading; _run reports later failures
        status = _fail_to_load(exc)
    leave(status)


def _fill_closed_descriptors() -> list[int]:
    """Open /dev/null, or a substitute, for each standard descriptor that is closed; return those descriptors.

    Otherwise the socket to the server would become descriptor 1, and the answer would be sent to the server.
    """
    closed = []
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            closed.append(fd)
            _open_devnull()
    return closed


def _open_devnull() -> None:
    """Open /dev/null as the lowest closed descriptor; without /dev, a pipe that has no writer."""
    try:
        os.open(os.devnull, os.O_RDWR)
    except OSError:  # a chroot, or a container without devices
        _, writer = os.pipe()  # the end to read from is the lower one
        os.close(writer)


def _run(args: list[str], *, stdout_is_closed: bool) -> int:
    """Run the command line `args`; return the exit status."""
    early = None if stdout_is_closed else _connect_early(args)
    import errno
    import io

    import click

    from smai_cli.cli.group import smai
    from smai_cli.common.shortages import failure_of
    from smai_cli.errors import ReaderGoneError, Status
    from smai_cli.output.descriptors import ClickOutput, Output, say, say_defect, stdout_error

    try:
        if stdout_is_closed:  # do not run a command whose answer cannot be delivered
            say(str(stdout_error(OSError(errno.EBADF, os.strerror(errno.EBADF)))))
            return Status.OUTPUT
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(ClickOutput(Output()), 1), "utf-8", write_through=True)
        return int(smai.main(args, prog_name="smai", standalone_mode=False, obj=early) or 0)
    except ReaderGoneError:
        die_by(signal.SIGPIPE)
    except SystemExit as done:  # click exits so after shell completion
        return int(done.code or 0)
    except click.ClickException as error:
        from smai_cli.cli.parsing.usage import usage_error  # for a failure only

        return _fail(usage_error(error), args)
    except BaseException as exc:  # noqa: BLE001  # a defect in smai: the only case for a traceback
        if failure := failure_of(exc):
            return _fail(failure, args)
        say_defect(exc)
        return Status.DEFECT


def _connect_early(args: list[str]) -> "Preconnect | None":
    """Begin to connect to the server that the command line `args` will most likely use; None if that is unclear."""
    from smai_cli.cli.early_connect import likely_server
    from smai_cli.config.places import DEFAULT_CONNECT_TIMEOUT_S, ca_file_named

    server = likely_server(args, os.environ)
    _, ca_file = ca_file_named(os.environ) or ("", None)
    if server is None or (ca_file and not os.access(ca_file, os.R_OK)):
        return None
    from smai_cli.http.preconnect import Preconnect, prevents_preconnect  # the first thing that is needed

    if prevents_preconnect(os.environ):
        return None
    try:
        return Preconnect(*server, ca_file, DEFAULT_CONNECT_TIMEOUT_S)
    except (RuntimeError, MemoryError):  # no thread: the regular connection fails in the same way, and reports it
        return None


def _fail_to_load(exc: OSError | ImportError | MemoryError) -> int:
    """Report that smai could not be loaded, and return the exit status. Raises `exc` for a defect.

    Only modules built into Python are imported: the process may have no descriptor left.
    """
    import errno

    shortages = [*map(os.strerror, (errno.EMFILE, errno.ENFILE, errno.ENOMEM)), "failed to map segment"]
    reason = next((words for words in shortages if words in str(exc)), "there is not enough memory")
    if reason not in str(exc) and not isinstance(exc, MemoryError):
        raise exc
    try:  # noqa: SIM105  # contextlib may not be loaded
        os.write(2, f"smai: smai could not be loaded: {reason}; try again later\n".encode())
    except OSError:
        pass
    return 6  # Status.BUSY


def _fail(error: "SmaiError", args: list[str]) -> int:
    """Report a failure outside of a run, as a run does; return its exit status."""
    from smai_cli.output.descriptors import say, say_plain

    say(str(error))
    # Search the arguments themselves: click may not have parsed the command line.
    wants_json = "--summary=json" in args or any(args[at : at + 2] == ["--summary", "json"] for at in range(len(args)))
    if args[:1] in (["ask"], ["decode"]) and wants_json:
        from smai_cli.answer.outcome import Outcome
        from smai_cli.output.summary import summary_json

        outcome = Outcome()
        outcome.end(error)
        say_plain(summary_json(outcome))
    return error.status
