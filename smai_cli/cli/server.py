"""The options of a command -> the server it asks: an endpoint, or the mock for as long as it is needed."""

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from smai_cli.cli.parsing.options import ServerOptions
from smai_cli.common.clocks import Deadline
from smai_cli.common.trace import Trace, silent
from smai_cli.config.base_url import find_base_url
from smai_cli.config.endpoint import Endpoint, find_ca_file, find_endpoint, find_private_key, keyless_endpoint
from smai_cli.config.key_source import KeySource
from smai_cli.errors import UsageError

if TYPE_CHECKING:
    from smai_cli.config.headers import Header
    from smai_cli.http.preconnect import Preconnect


def chosen_endpoint(options: ServerOptions, deadline: Deadline) -> Endpoint | None:
    """Return where to ask; None for the mock. Raises UsageError, or ClockError at the deadline."""
    if not options.mock:
        headers = read_headers(options.headers, deadline)
        return find_endpoint(
            options.base_url, options.key_file, os.environ, options.settings, deadline, headers=headers
        )
    for name, value in (("base-url", options.base_url), ("key-file", options.key_file), ("header", options.headers)):
        if value:
            raise UsageError(f"--mock and --{name} cannot be combined", "the mock needs neither")
    return None


def read_headers(given: tuple[str, ...], deadline: Deadline) -> "tuple[Header, ...]":
    """Return the headers of the options `-H`. Raises UsageError, or ClockError at the deadline."""
    if not given:
        return ()
    from smai_cli.config.headers import typed_headers  # for those who have some
    from smai_cli.prompt.prompt import operand_text

    return typed_headers([text if text[:1] == "@" else operand_text(text, "-H/--header") for text in given], deadline)


def previewed_endpoint(options: ServerOptions, deadline: Deadline) -> tuple[Endpoint, KeySource | None]:
    """Return where a request would go, without the key, and where that would be taken from.

    Raises UsageError, or ClockError for headers that are not there at the deadline.
    """
    if options.mock:
        return Endpoint("http://127.0.0.1/v1"), None
    base_url, _ = find_base_url(options.base_url, os.environ, options.settings)
    endpoint = keyless_endpoint(base_url, options.settings, read_headers(options.headers, deadline))
    return endpoint, find_private_key(base_url, options.key_file, os.environ, options.settings)


def approach(
    endpoint: Endpoint | None, connect_timeout_s: float, trace: Trace = silent, early: "Preconnect | None" = None
) -> "tuple[str | None, Preconnect | None]":
    """Begin to connect where TLS is spoken; return the file of certificates to trust, and the connection to come.

    `early` was begun at a first glance at the command line: it is that connection if it is to the same server, and is
    closed if not. `trace` hears of each step of it. Raises UsageError for a file that cannot be read.
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


@contextlib.contextmanager
def serving(endpoint: Endpoint | None) -> Iterator[Endpoint]:
    """Provide the endpoint to ask; without one, the mock serves for as long as the context lasts."""
    if endpoint is not None:
        yield endpoint
        return
    from smai_cli.mock.server import Mock  # a rehearsal only

    with Mock(keeps_received=False) as mock:
        yield Endpoint(mock.url)
