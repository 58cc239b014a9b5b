"""Show a request without sending it: as JSON with its size, or as a curl command."""

import json
import re
import shlex
from collections.abc import Iterable
from typing import Any, NamedTuple

from smai_cli.config.base_url import shown_url
from smai_cli.config.endpoint import Endpoint
from smai_cli.config.key_source import KeySource
from smai_cli.config.keys import file_in_shell
from smai_cli.output import tokens
from smai_cli.prompt.request import Message
from smai_cli.stream.content import text_of


class Preview(NamedTuple):
    """A POST as it would be sent to `endpoint`, without the key: smai's own headers, and the body.

    The endpoint has the headers of the user, whose values are never shown. `key` is the source of the key, or None.
    """

    endpoint: Endpoint
    url: str
    headers: dict[str, str]
    body: bytes
    key: KeySource | None

    @property
    def own(self) -> dict[str, str]:
        """Smai's own headers, without those that the user sets."""
        names = {header.name.lower() for header in self.endpoint.headers}
        return {name: value for name, value in self.headers.items() if name.lower() not in names}


def preview_json(preview: Preview, messages: Iterable[Message], model: str) -> str:
    """Return method, URL, headers, body and size as JSON; characters and tokens count the text of the messages."""
    texts = [text_of(message.content) for message in messages]
    counts = [tokens.count(text, model) for text in texts]
    exact = [count for count in counts if count is not None]
    is_exact = len(exact) == len(counts)
    given = {header.name: f"({header.source})" for header in preview.endpoint.headers}
    if preview.key:
        name, source = preview.endpoint.key_header, preview.key.where
        given[name or "Authorization"] = f"({source})" if name else f"Bearer ({source})"
    size: dict[str, Any] = {
        "bytes": len(preview.body),
        "characters": sum(map(len, texts)),
        "tokens": sum(exact) if is_exact else sum(map(tokens.estimate_of, texts)),
        "tokens_source": "local" if is_exact else "estimate",
    }
    whole = {
        "method": "POST",
        "url": shown_url(preview.url),
        "headers": {**preview.own, **given},
        "body": json.loads(preview.body),
        "size": size,
    }
    return json.dumps(whole, ensure_ascii=False, indent=2)


def preview_curl(preview: Preview, key_in_shell: str | None) -> tuple[str, list[str]]:
    """Return a shell command that sends the same request, and the shell variables that it needs.

    `key_in_shell` is the expression for the key within double quotes; None: no key. The command reads the key and
    headers from the same places as smai, or if it cannot, from these variables; if one is unset, it stops. The body
    goes through a pipe: an argument is limited to 128 KiB, a body is not.
    """
    own = {"content-length", "connection", "accept-encoding"}  # curl sets these itself
    shown = (f"{name}: {value}" for name, value in preview.own.items() if name.lower() not in own)
    headers = [f"-H {shlex.quote(header)}" for header in shown]
    user_headers = preview.endpoint.headers
    files = dict.fromkeys(header.file for header in user_headers if header.file)
    readable = [file for file in files if file_in_shell(file)]
    headers += [f"-H {shlex.quote(f'@{file}')}" for file in readable]
    missing = {header.name: _variable(header.name) for header in user_headers if header.file not in readable}
    headers += [f'-H {shlex.quote(f"{name}: ")}"${{{variable}:?}}"' for name, variable in missing.items()]
    if key_in_shell:
        name = preview.endpoint.key_header
        before = shlex.quote(f"{name}: ") + '"' if name else '"Authorization: Bearer '
        headers.append(f'-H {before}{key_in_shell}"')
    lines = [f"curl -sSN {shlex.quote(preview.url)}", *headers, "--data-binary @-"]
    command = f"printf %s {shlex.quote(preview.body.decode())} |\n  " + " \\\n    ".join(lines)
    return command, list(missing.values())


def _variable(name: str) -> str:
    """Return a shell variable for the value of a header; never one with a meaning, such as PATH."""
    return "HEADER_" + re.sub("[^A-Z0-9]", "_", name.upper())
