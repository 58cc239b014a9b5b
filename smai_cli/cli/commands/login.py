"""`smai login`: store a key for a server, so that it need not be in the environment."""

import math
import os
import signal
from typing import NoReturn

import click

from smai_cli.cli.commands.models import ask_for_list
from smai_cli.cli.lifecycle import Lifecycle
from smai_cli.cli.parsing.options import ClockOptions
from smai_cli.cli.parsing.server_options import base_url_option, clock_options, header_option, profile_option
from smai_cli.cli.server import read_headers
from smai_cli.common.clocks import Clocks, Deadline
from smai_cli.common.files import STDIN
from smai_cli.common.signals import ENDING, die_by, on_signal_in_main_thread
from smai_cli.common.text import on_a_line
from smai_cli.config.base_url import find_base_url, origin_of, shown_origin
from smai_cli.config.config_file import Settings
from smai_cli.config.endpoint import Endpoint, endpoint_for, find_ca_file
from smai_cli.config.keys import Secret, check_key, key_from_stdin
from smai_cli.config.keystore import KeyStore
from smai_cli.config.places import config_folder
from smai_cli.errors import Cause, SmaiError, UsageError
from smai_cli.output.descriptors import Output, say, say_plain
from smai_cli.stream.retries import Retries

# setitimer with 0 s turns the timer off.
_SOON_S = 0.001


class _LoginCommand(click.Command):
    """A command that refuses operands without showing them: one may be a key, and must not be repeated."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            from smai_cli.cli.parsing.suggestions import operand_hint  # for failures only

            if "extra argument" not in error.message or operand_hint(error.message, ""):
                raise
            raise UsageError(
                "a key on the command line would be visible in ps", "leave it out, and smai login asks for it"
            ) from None


def _list(ctx: click.Context, param: click.Parameter, value: bool) -> None:  # noqa: ARG001  # click's
    """List the stored keys and exit. Ignores all other options and the configuration."""
    if not value or ctx.resilient_parsing:
        return
    store = KeyStore(config_folder(os.environ))
    pairs = [(shown_origin(one.origin), one.profile) for one in store.stored_keys()]
    lines = ["\t".join(on_a_line(part) for part in pair if part) for pair in pairs]
    if not lines:
        say("no key is stored; smai login stores one")
        ctx.exit()
    Output().show_lines(lines)
    say(f"the keys are stored in {store.path}")
    ctx.exit()


@click.command(cls=_LoginCommand, epilog="Manual: man smai-login.")
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list,
    help="List the servers for which a key is stored.",
)
@profile_option
@base_url_option
@header_option
@clock_options
@click.option("--no-check", is_flag=True, help="Store the key without checking it.")
def login(
    *, settings: Settings, base_url: str | None, header: tuple[str, ...], no_check: bool, clocks: ClockOptions
) -> int:
    """Store a key for a server, after checking it.

    The key is asked for on a terminal, without echo, or is read from stdin.
    """
    deadline = clocks.deadline()
    found, _ = find_base_url(base_url, os.environ, settings)
    origin = origin_of(found)
    store = KeyStore(config_folder(os.environ))
    store.check()
    headers = read_headers(header, deadline)
    endpoint_for(found, Secret("-"), settings, headers)  # raises before a key is typed if this server must not get one
    key = _typed(origin, deadline) if os.isatty(STDIN) else key_from_stdin(STDIN, _notice, deadline)
    endpoint = endpoint_for(found, key, settings, headers)
    life = Lifecycle(deadline, watches_stdout=False)
    life.key = endpoint.secrets
    retries = Retries(clocks.retries, life.say, deadline)

    def work() -> None:
        if not no_check and (blocked := _check(endpoint, clocks.clocks(deadline), retries)):
            life.say(f"the key is stored unchecked: {blocked.describe()}")
        path = store.put(settings.name, origin, key)
        say(f"the key for {shown_origin(origin)} is stored in {path}")

    return life.deliver(work)


def _check(endpoint: Endpoint, clocks: Clocks, retries: Retries) -> SmaiError | None:
    """Request the list of models: it is the only proof that the key is valid. Raises SmaiError.

    Returns the failure if a firewall in front of the server answers, which says nothing about the key.
    """
    from smai_cli.http.exchange import Exchange  # after --help and usage errors
    from smai_cli.stream.models import PATH

    ca_file = find_ca_file(os.environ)
    try:
        ask_for_list(lambda place: Exchange(place, PATH, None, clocks, ca_file=ca_file).open(), retries, endpoint)
    except SmaiError as error:
        if error.cause is Cause.WEB_PAGE:
            return error
        raise error.replaced(hint=f"the key was not stored; {error.hint}") from error
    return None


def _notice() -> None:
    say("waiting for the key on stdin")


def _typed(origin: str, deadline: Deadline) -> Secret:
    """Read the key from the terminal without echo; a signal or the deadline restores the echo first."""
    import getpass  # only on a terminal

    before = {number: signal.getsignal(number) for number in ENDING}
    on_signal_in_main_thread(ENDING, _interrupt)
    signal.signal(signal.SIGALRM, lambda number, _: _interrupt(number))  # the deadline, even if SIGALRM was ignored
    try:
        if deadline.left_s() < math.inf:
            signal.setitimer(signal.ITIMER_REAL, max(deadline.left_s(), _SOON_S))
        typed = getpass.getpass(f"Key for {shown_origin(origin)}: ")
    except _InterruptedError as interrupt:
        if interrupt.number == signal.SIGALRM and deadline.left_s() <= 0:
            raise deadline.error() from None
        die_by(interrupt.number)
    except (EOFError, OSError) as exc:
        say_plain("")  # Ctrl-D leaves the cursor after the question
        raise UsageError("no key was typed", "pipe it in, or try again") from exc
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
    if not typed.strip():
        raise UsageError("no key was typed", "type or paste it, and press Enter")
    return check_key(typed, "the typed key")


class _InterruptedError(BaseException):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _interrupt(number: int) -> NoReturn:
    raise _InterruptedError(number)
