"""The connections of the workers of `smai batch`: each worker keeps one open."""

import os
from collections.abc import Callable

from smai_cli.batch.batch import Post
from smai_cli.cli.parsing.options import ServerOptions
from smai_cli.common.clocks import Deadline
from smai_cli.common.trace import Tracer, silent
from smai_cli.config.endpoint import Endpoint, find_ca_file
from smai_cli.http.exchange import Exchange
from smai_cli.http.keepalive import KeepAlive


def connector(endpoint: Endpoint, server: ServerOptions, tracer: Tracer | None) -> Callable[[], Post]:
    """Return a function that makes a `Post` with its own connection."""
    ca_file = find_ca_file(os.environ) if endpoint.is_tls else None

    def connect() -> Post:
        keep_alive = KeepAlive()

        def post(path: str, body: bytes, deadline: Deadline, /) -> Exchange:
            clocks = server.clocks.clocks(deadline)
            return Exchange(
                endpoint, path, body, clocks, ca_file=ca_file, trace=tracer or silent, keep_alive=keep_alive
            ).open()

        return post

    return connect
