"""--dry-run of `smai batch`: the counts of what would be sent, and the first request."""

import json
from collections import Counter
from typing import Any

from smai_cli.batch.feed import Feed
from smai_cli.batch.input.encoding import Encoding
from smai_cli.batch.input.lines import Line
from smai_cli.cli.parsing.options import ServerOptions
from smai_cli.cli.server import preview_endpoint
from smai_cli.common.clocks import Deadline
from smai_cli.common.text import escaped
from smai_cli.config.base_url import shown_url
from smai_cli.errors import UsageError
from smai_cli.http import transport
from smai_cli.output import preview, tokens
from smai_cli.output.descriptors import Output
from smai_cli.stream.content import text_of

# How many names of members that are not sent are shown.
_NAMES = 100


def print_batch(
    feed: Feed, encoding: Encoding, server: ServerOptions, deadline: Deadline, used: frozenset[str] = frozenset()
) -> None:
    """Print one JSON object: the number of lines, their characters and tokens, and the first request.

    It also lists the members of the lines that are not sent, except those that a template has `used`. Raises UsageError
    if nothing can be sent.
    """
    first: Line | None = None
    not_sent: Counter[str] = Counter()
    lines = characters = count = 0
    is_exact = True
    while job := feed.take():
        lines += 1
        if job.line is None:
            continue
        first = first or job.line
        for name in job.line.user_members:
            if name not in used and (name in not_sent or len(not_sent) < _NAMES):
                not_sent[name] += 1
        for message in job.line.request.messages:
            text = text_of(message.content)
            exact = tokens.count(text, job.line.request.model)
            characters += len(text)
            count += tokens.estimate_of(text) if exact is None else exact
            is_exact = is_exact and exact is not None
    if first is None:
        raise UsageError("no line is valid", "give one prompt a line")
    whole = {
        "lines": lines,
        "characters": characters,
        "tokens": count,
        "tokens_source": "local" if is_exact else "estimate",
        "not_sent": dict(not_sent),
        "first": _preview_request(first, encoding, server, deadline),
    }
    # Half a surrogate pair stays escaped: JSON can hold it, UTF-8 cannot.
    text = json.dumps(whole, ensure_ascii=False, indent=2)
    Output().show(f"{text}\n".encode(errors="backslashreplace"), escaped)


def _preview_request(line: Line, encoding: Encoding, server: ServerOptions, deadline: Deadline) -> Any:
    """Return what `smai ask --dry-run` would print for a request."""
    endpoint, source = preview_endpoint(server, deadline)
    dialect = encoding.dialect(line)
    body = dialect.encode_request(line.request._replace(include_usage=line.request.stream))
    url, headers = transport.prepare_post(endpoint, dialect.PATH, body)
    user_headers = preview.UserHeaders(endpoint.headers, endpoint.key_header)
    shown = preview.Preview(shown_url(url), headers, body, user_headers, source.where if source else None)
    return json.loads(preview.preview_json(shown, line.request.messages, line.request.model))
