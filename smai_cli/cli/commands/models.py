"""`smai models`: list the models of a server. The list is printed only when it is complete."""

import os
from typing import TYPE_CHECKING

import click

from smai_cli.cli.parsing.options import ServerOptions
from smai_cli.cli.parsing.server_options import server_options, verbose_option
from smai_cli.cli.server import approach, choose_endpoint, serving
from smai_cli.common.trace import Tracer, silent
from smai_cli.config.endpoint import Endpoint
from smai_cli.errors import Cause, SmaiError
from smai_cli.output.descriptors import Output, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from smai_cli.http.exchange import Exchange
    from smai_cli.stream.models import ListAnswer, Listing, Model
    from smai_cli.stream.retries import Retries

# Causes whose usual hint is about a prompt or a model.
_OF_THE_REQUEST = (Cause.PROMPT_SIZE, Cause.MODEL, Cause.CONTENT, Cause.NOT_FOUND, Cause.REQUEST)


@click.command(epilog="Manual: man smai-models. Exit status 0: the list is complete and was delivered.")
@click.option("--json", "as_json", is_flag=True, help="Print the server's JSON for each model, one per line.")
@server_options
@verbose_option
def models(*, as_json: bool, verbose: bool, server: ServerOptions) -> int:
    """Print the ids of the server's models, sorted, one per line.

    Shell completion of smai ask -m offers the ids of the last list.
    """
    deadline = server.clocks.deadline()
    endpoint = choose_endpoint(server, deadline)
    tracer = Tracer(say, endpoint.secrets.hidden_in if endpoint else str) if verbose else None
    trace = tracer or silent
    ca_file, preconnect = approach(endpoint, server.clocks.connect_timeout, trace)
    # From here on, the connection is made during the imports.
    from smai_cli.cli.lifecycle import Lifecycle
    from smai_cli.common.text import on_a_line, one_line
    from smai_cli.config.model_ids import store_ids
    from smai_cli.http.exchange import Exchange
    from smai_cli.stream.models import PATH
    from smai_cli.stream.retries import Retries

    life = Lifecycle(deadline)
    life.key = endpoint.secrets if endpoint else None
    clocks = server.clocks.clocks(deadline)
    retries = Retries(server.clocks.retries, tracer or life.say, deadline)

    def work() -> None:
        with serving(endpoint) as target:

            def get(place: Endpoint) -> "Exchange":
                return Exchange(place, PATH, None, clocks, ca_file=ca_file, preconnect=preconnect, trace=trace).open()

            listing = ask_for_list(get, retries, target)
        listed = listing.models
        if endpoint:  # before the reader of stdout can end the run
            store_ids(endpoint.base_url, _without_key(listed, endpoint), os.environ)
        if listing.odd:
            life.say(f"models without an id are left out: {listing.odd}, such as {one_line(listing.example, 80)}")
        Output().show_lines(model.line if as_json else on_a_line(model.id) for model in listed)

    return life.deliver(work)


def ask_for_list(get: "Callable[[Endpoint], Exchange]", retries: "Retries", endpoint: Endpoint) -> "Listing":
    """Return the list of `endpoint`, with retries where allowed. Raises SmaiError.

    `get` requests one page of it, from the endpoint with the query of the page.
    """
    from smai_cli.stream.models import read_list, with_query  # after --help and usage errors

    def ask(query: str) -> "ListAnswer":
        answer = get(endpoint._replace(base_url=with_query(endpoint.base_url, query)))
        return answer, answer.header("link") or ""

    while True:
        try:
            return read_list(ask)
        except SmaiError as error:
            known = error.replaced(hint="check --base-url") if error.cause in _OF_THE_REQUEST else error
            if failure := retries.wait(endpoint.explain(known), holds_back=True):
                raise failure from error.__cause__  # `failure` may be `error` itself


def _without_key(listed: "list[Model]", endpoint: Endpoint) -> list[str]:
    """Return the ids to save, without any that contain the key: it must not be in a file."""
    return [model.id for model in listed if endpoint.secrets.hidden_in(model.id) == model.id]
