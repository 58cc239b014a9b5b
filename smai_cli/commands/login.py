"""`smai login`: keep a key for a server, so that no environment has to carry it."""

import os
import signal
from typing import Any, NoReturn

import click

from smai_cli.cli import base_url_option, clock_options, profile_option
from smai_cli.clocks import Clocks, Deadline
from smai_cli.commands.models import ask_for_list
from smai_cli.config import endpoint_for, find_base_url, find_ca_file, origin_of
from smai_cli.errors import SmaiError, UsageError
from smai_cli.keys import KeyStore, Secret, checked_key
from smai_cli.main import die_by
from smai_cli.output import say
from smai_cli.prompt import read_all
from smai_cli.settings import config_folder

_STDIN = 0


@click.command(epilog="Manual: man smai-login.")
@profile_option
@base_url_option
@clock_options
@click.option("--no-check", is_flag=True, help="Keep the key without asking the server whether it is good.")
def login(**flags: Any) -> int:
    """Keep a key for a server, after asking the server whether it is good.

    The key is asked for on a terminal, without echo, or is read from stdin.
    """
    settings = flags["settings"]
    base_url, _ = find_base_url(flags["base_url"], os.environ, settings)
    origin = origin_of(base_url)
    store = KeyStore(config_folder(os.environ))
    store.check()
    endpoint_for(base_url, Secret("-"))  # a server that may not have a key is told before it is typed
    key = _typed(origin) if os.isatty(_STDIN) else _piped()
    if not flags["no_check"]:
        _check(base_url, key, flags)
    path = store.put(settings.name, origin, key)
    say(f"the key for {origin} is kept in {path}")
    return 0


def _check(base_url: str, key: Secret, flags: dict[str, Any]) -> None:
    """Ask the server for its models. Raises SmaiError, the key hidden in its words."""
    from smai_cli import transport  # noqa: PLC0415  # after --help and usage errors
    from smai_cli.models import PATH, checked  # noqa: PLC0415
    from smai_cli.retry import Retries  # noqa: PLC0415

    deadline = Deadline(flags["max_time"])
    clocks = Clocks(flags["connect_timeout"], flags["idle_timeout"], deadline)
    endpoint, ca_file = endpoint_for(base_url, key), find_ca_file(os.environ)
    retries = Retries(flags["retries"], lambda line: say(key.hidden_in(line)), deadline)
    try:
        ask_for_list(lambda: checked(transport.get(endpoint, PATH, clocks, ca_file=ca_file)), retries)
    except SmaiError as error:
        error.what = key.hidden_in(error.what)
        error.hint = f"the key was not kept; {error.hint}"
        raise


def _piped() -> Secret:
    return checked_key(read_all(_STDIN, _notice).decode("latin-1"), "stdin")


def _notice() -> None:
    say("waiting for the key on stdin")


def _typed(origin: str) -> Secret:
    """Ask for the key on the terminal, without echo; a signal puts the echo back before it kills."""
    import getpass  # noqa: PLC0415  # for a person only

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, _interrupt) for number in numbers}
    try:
        typed = getpass.getpass(f"Key for {origin}: ")
    except _InterruptedError as interrupt:
        die_by(interrupt.number)
    except (EOFError, OSError) as exc:
        raise UsageError("no key was typed", "pipe it in, or try again") from exc
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return checked_key(typed, "what was typed")


class _InterruptedError(BaseException):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _interrupt(number: int, frame: object) -> NoReturn:  # noqa: ARG001
    raise _InterruptedError(number)
