"""`smai serve`: run the gateway."""

import gc
import os
import secrets
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from smai_cli.cli.commands.mock import MANY_CLIENTS
from smai_cli.cli.descriptor_limit import allow_descriptors
from smai_cli.cli.parsing.command_line import read_option_file
from smai_cli.cli.parsing.numbers import WholeNumber
from smai_cli.cli.parsing.options import ServerOptions
from smai_cli.cli.parsing.server_options import gateway_options, verbose_option
from smai_cli.cli.parsing.shared_options import model_option
from smai_cli.cli.server import choose_endpoint, serving
from smai_cli.common.files import STDIN_NAME, file_named_in, text_of_value
from smai_cli.common.shortages import failure_of
from smai_cli.common.trace import Tracer, silent
from smai_cli.config.endpoint import Endpoint, find_ca_file
from smai_cli.errors import UsageError
from smai_cli.output.descriptors import Output, say, say_defect
from smai_cli.prompt.prompt import operand_text

if TYPE_CHECKING:
    from smai_cli.serve.gateway import Gateway
    from smai_cli.serve.pages import PageDefaults

_TOKEN_BYTES = 32
_MOCK_NAME = "the test server"
# A signal ends the process at any time.
_LOOK_S = 3600.0


@click.command(epilog="Manual: man smai-serve.")
@click.option("--port", type=WholeNumber(0, 65535), default=0, help="The port on 127.0.0.1.  [default: a free one]")
@model_option("The model that the page starts with.")
@click.option("-s", "--system", metavar="TEXT", help="The system message that the page starts with; @FILE reads it.")
@gateway_options
@verbose_option
def serve(*, port: int, model: str, system: str | None, verbose: bool, server: ServerOptions) -> int:
    """Serve a chat page and an API on 127.0.0.1, and hide the key.

    The first line on stdout is the URL to open. Programs on this machine use the text after #token= as their key, and
    never get yours.
    """
    from smai_cli.serve.pages import PageDefaults  # after --help and usage errors

    gc.enable()
    model = operand_text(model, "-m/--model")
    system = _system(system, server)
    endpoint = choose_endpoint(server, server.clocks.deadline())
    with serving(endpoint) as target:
        name = urlsplit(endpoint.base_url).netloc if endpoint else _MOCK_NAME
        gateway = _gateway(target, server, port, PageDefaults(model, system, name), verbose=verbose)
        Output().show(f"{gateway.url}\n".encode())
        gateway.serve_forever(_LOOK_S)
    return 0


def _system(system: str | None, server: ServerOptions) -> str | None:
    """Return the system text. Raises UsageError."""
    if system is None:
        return None
    if server.key_file == STDIN_NAME and file_named_in(system) == STDIN_NAME:
        raise UsageError("--key-file - and -s @- both read stdin", "it can be read only once")
    return text_of_value(operand_text(system, "-s/--system"), read_option_file, "-s")


def _gateway(
    endpoint: Endpoint, server: ServerOptions, port: int, settings: "PageDefaults", *, verbose: bool
) -> "Gateway":
    """Return the gateway, which is listening already. Raises UsageError."""
    from smai_cli.serve.gateway import Gateway, Upstream  # after --help and usage errors
    from smai_cli.serve.handler import GatewayHandler
    from smai_cli.serve.limits import limits_within

    ca_file = find_ca_file(os.environ) if endpoint.is_tls else None
    upstream = Upstream(endpoint, lambda: server.clocks.clocks(server.clocks.deadline()), ca_file)
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    limits = limits_within(allow_descriptors(MANY_CLIENTS))
    trace = Tracer(say, endpoint.secrets.hidden_in) if verbose else silent
    try:
        return Gateway(
            GatewayHandler,
            upstream,
            settings,
            token,
            port,
            trace=trace,
            judges=verbose,
            report=_report,
            limits=limits,
        )
    except OSError as exc:
        raise UsageError(f"port {port}: {exc.strerror}", "choose another --port") from exc


def _report(error: BaseException) -> None:
    """Report the failure of one request on stderr; the others continue."""
    if failure := failure_of(error):
        say(str(failure))
    else:
        say_defect(error)
