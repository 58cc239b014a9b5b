"""A request that is not sent -> what would be sent: as JSON with its size, or as a curl command."""

import json
import shlex
from collections.abc import Iterable
from typing import Any, NamedTuple

from smai_cli.output import tokens
from smai_cli.prompt.request import Message
from smai_cli.stream.chunk import text_of


class Preview(NamedTuple):
    """A POST as it would go out: headers without the key, the body, and where a key would come from (None: none).

    `key_in_shell` is what a shell command has in place of the key, between double quotes; None: nothing.
    """

    url: str
    headers: dict[str, str]
    body: bytes
    key_source: str | None = None
    key_in_shell: str | None = None


def as_json(preview: Preview, messages: Iterable[Message], model: str) -> str:
    """Return method, URL, headers, body and size; the characters and tokens are those of the messages' text."""
    texts = [text_of(message.content) for message in messages]
    counts = [tokens.count(text, model) for text in texts]
    exact = [count for count in counts if count is not None]
    is_exact = len(exact) == len(counts)
    key = {"Authorization": f"Bearer ({preview.key_source})"} if preview.key_source else {}
    size: dict[str, Any] = {
        "bytes": len(preview.body),
        "characters": sum(map(len, texts)),
        "tokens": sum(exact) if is_exact else sum(map(tokens.estimate_of, texts)),
        "tokens_source": "local" if is_exact else "estimate",
    }
    whole = {
        "method": "POST",
        "url": preview.url,
        "headers": {**preview.headers, **key},
        "body": json.loads(preview.body),
        "size": size,
    }
    return json.dumps(whole, ensure_ascii=False, indent=2)


def as_curl(preview: Preview) -> str:
    """Return a shell command that sends the same request and reads the key from where smai would.

    The body goes through a pipe: an argument may have 128 KiB, and a body has no end of that kind.
    """
    own = {"content-length", "connection", "accept-encoding"}  # curl sees to these itself
    shown = (f"{name}: {value}" for name, value in preview.headers.items() if name.lower() not in own)
    headers = [f"-H {shlex.quote(header)}" for header in shown]
    if preview.key_in_shell:
        headers.append(f'-H "Authorization: Bearer {preview.key_in_shell}"')
    lines = [f"curl -sSN {shlex.quote(preview.url)}", *headers, "--data-binary @-"]
    return f"printf %s {shlex.quote(preview.body.decode())} |\n  " + " \\\n    ".join(lines)
