"""--dry-run of `smai batch`: the counts of what would be sent, and the first request."""

import json
from collections import Counter

from smai_cli.batch.feed import Feed
from smai_cli.batch.input.encoding import Encoding
from smai_cli.batch.input.lines import LineError
from smai_cli.cli.parsing.options import ServerOptions
from smai_cli.cli.server import preview_request
from smai_cli.common.clocks import Deadline
from smai_cli.common.text import escaped
from smai_cli.errors import UsageError
from smai_cli.output import tokens
from smai_cli.output.descriptors import Output
from smai_cli.output.preview import preview_json
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
    first = None
    not_sent: Counter[str] = Counter()
    lines = characters = count = 0
    is_exact = True
    while job := feed.take():
        lines += 1
        if isinstance(job.line, LineError):
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
        raise UsageError("no line is valid", "give one prompt per line")
    request = first.request._replace(include_usage=first.request.stream)
    shown = preview_request(request, encoding.dialect(first), server, deadline)
    whole = {
        "lines": lines,
        "characters": characters,
        "tokens": count,
        "tokens_source": "local" if is_exact else "estimate",
        "not_sent": dict(not_sent),
        "first": json.loads(preview_json(shown, first.request.messages, first.request.model)),
    }
    Output().show_lines([json.dumps(whole, ensure_ascii=False, indent=2)], escaped)
