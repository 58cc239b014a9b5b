"""The options of a command -> the server it asks: an endpoint, or the mock for as long as it is needed."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from smai_cli.config import Endpoint, find_endpoint
from smai_cli.errors import UsageError


def chosen_endpoint(flags: dict[str, Any]) -> Endpoint | None:
    """Return where to ask; None for the mock. Raises UsageError."""
    if not flags["mock"]:
        return find_endpoint(flags["base_url"], flags["key_file"], os.environ)
    for name in ("base_url", "key_file"):
        if flags[name]:
            raise UsageError(f"--mock and --{name.replace('_', '-')} exclude each other", "the mock needs neither")
    return None


@contextlib.contextmanager
def serving(endpoint: Endpoint | None) -> Iterator[Endpoint]:
    """Provide the endpoint to ask; without one, the mock serves for as long as the context lasts."""
    if endpoint is not None:
        yield endpoint
        return
    from smai_cli.mock import Mock  # noqa: PLC0415  # a rehearsal only

    with Mock() as mock:
        yield Endpoint(mock.url)
