"""Find the server for a command from its options: an endpoint, or the mock for as long as it is needed."""

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from smai_cli.cli.parsing.options import ServerOptions
from smai_cli.common.clocks import Deadline
from smai_cli.common.trace import Trace, silent
from smai_cli.config.base_url import find_base_url
from smai_cli.config.endpoint import Endpoint, find_ca_file, find_endpoint, find_private_key, keyless_endpoint
from smai_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from smai_cli.batch.batch import Post
    from smai_cli.common.trace import Tracer
    from smai_cli.config.headers import Header
    from smai_cli.http.exchange import Exchange
    from smai_cli.http.preconnect import Preconnect
    from smai_cli.output.preview import Preview
    from smai_cli.prompt.request import Request
    from smai_cli.stream.pump import Dialect


def choose_endpoint(options: ServerOptions, deadline: Deadline) -> Endpoint | None:
    """Return the endpoint; None for the mock. Raises UsageError, or ClockError at the deadline."""
    if not options.mock:
        headers = read_headers(options.header, deadline)
        return find_endpoint(
            options.base_url, options.key_file, os.environ, options.settings, deadline, headers=headers
        )
    for name, value in (("base-url", options.base_url), ("key-file", options.key_file), ("header", options.header)):
        if value:
            raise UsageError(f"--mock and --{name} cannot be combined", "drop one of them")
    return None


def read_headers(given: tuple[str, ...], deadline: Deadline) -> "tuple[Header, ...]":
    """Return the headers of the -H options. Raises UsageError, or ClockError at the deadline."""
    if not given:
        return ()
    from smai_cli.config.headers import typed_headers  # only if there are any
    from smai_cli.prompt.prompt import operand_text

    return typed_headers([text if text[:1] == "@" else operand_text(text, "-H/--header") for text in given], deadline)


def preview_request(request: "Request", dialect: "Dialect", options: ServerOptions, deadline: Deadline) -> "Preview":
    """Return what would be sent.

    Raises UsageError, or ClockError if the headers are not available at the deadline.
    """
    from smai_cli.http.request import prepare_post  # for those who look before they ask
    from smai_cli.output.preview import Preview

    endpoint, key = Endpoint("http://127.0.0.1/v1"), None
    if not options.mock:
        base_url, _ = find_base_url(options.base_url, os.environ, options.settings)
        endpoint = keyless_endpoint(base_url, options.settings, read_headers(options.header, deadline))
        key = find_private_key(base_url, options.key_file, os.environ, options.settings)
    body = dialect.encode_request(request)
    return Preview(endpoint, *prepare_post(endpoint, dialect.PATH, body), body, key)


def approach(
    endpoint: Endpoint | None, connect_timeout_s: float, trace: Trace = silent, early: "Preconnect | None" = None
) -> "tuple[str | None, Preconnect | None]":
    """Begin to connect if the server uses TLS; return the file of trusted certificates, and the pending connection.

    `early` was begun before the command line was parsed. It is used if it goes to the same server, else closed. `trace`
    gets each step. Raises UsageError if the file cannot be read.
    """
    is_tls = endpoint is not None and endpoint.is_tls
    ca_file = find_ca_file(os.environ) if is_tls else None
    if early and endpoint and early.is_for(endpoint.base_url, ca_file, connect_timeout_s):
        return ca_file, early
    if early:
        early.close()
    if endpoint is None or not is_tls:
        return None, None
    from smai_cli.http.preconnect import preconnect  # after usage errors

    return ca_file, preconnect(endpoint.base_url, ca_file, connect_timeout_s, os.environ, trace)


def connector(endpoint: Endpoint, server: ServerOptions, tracer: "Tracer | None") -> "Callable[[], Post]":
    """Return a function that makes a `Post` of a batch with its own connection, which stays open."""
    from smai_cli.http.exchange import Exchange
    from smai_cli.http.keepalive import KeepAlive

    ca_file = find_ca_file(os.environ) if endpoint.is_tls else None

    def connect() -> "Post":
        keep_alive = KeepAlive()

        def post(path: str, body: bytes, deadline: Deadline, /) -> "Exchange":
            clocks, trace = server.clocks.clocks(deadline), tracer or silent
            return Exchange(endpoint, path, body, clocks, ca_file=ca_file, trace=trace, keep_alive=keep_alive).open()

        return post

    return connect


@contextlib.contextmanager
def serving(endpoint: Endpoint | None) -> Iterator[Endpoint]:
    """Provide the endpoint to use; without one, run the mock for as long as the context lasts."""
    if endpoint is not None:
        yield endpoint
        return
    from smai_cli.mock.server import Mock  # only for --mock

    with Mock(keeps_received=False) as mock:
        yield Endpoint(mock.url)
