"""Measure the table of exit statuses at the top of the README: python exit_statuses.py

Starts a socket server for each row, and runs curl, llm and smai against it as a shell would. Prints the table as
Markdown. Exits 1 if the status of smai differs from the README; a difference of another tool is only a line on stderr,
because its next version may differ. `pip install '.[test,bench]'` installs llm; curl must be installed.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "support")]

from process import SMAI, clean_environment  # noqa: E402  # the folders of the tests have to be named first
from rawserver import DONE, HEAD, HELLO, LAST_CHUNK, STOP, WORLD, RawServer, answer, chunk, data, event  # noqa: E402

LIMIT_S = 60
TOKEN_LIMIT, FILTERED = event(finish_reason="length"), event(finish_reason="content_filter")
ERROR = data(json.dumps({"error": {"message": "The server had an error", "type": "server_error", "code": None}}))

# What a server does, as the README says it, with the bytes that it sends. All of them begin a 200 in chunks; the one
# that breaks the connection closes it before the last chunk.
SERVERS = {
    "completes the answer": (HELLO, WORLD, STOP, DONE, LAST_CHUNK),
    "breaks the connection": (HELLO,),
    "stops at the token limit": (HELLO, TOKEN_LIMIT, DONE, LAST_CHUNK),
    "withholds the answer (content filter)": (HELLO, FILTERED, DONE, LAST_CHUNK),
    "ends without a `finish_reason`": (HELLO, WORLD, DONE, LAST_CHUNK),
    "sends an error in the middle of the answer": (HELLO, ERROR, DONE, LAST_CHUNK),
}


class Client(NamedTuple):
    """A tool: its heading in the table, and the command that sends "hi" to a base URL; `home` is its empty home."""

    heading: str
    command: Callable[[str, Path], list[str]]


def curl(url: str, _: Path) -> list[str]:
    """Return the command line of curl."""
    body = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]})
    return ["curl", "-sSfN", "-H", "Content-Type: application/json", "-d", body, f"{url}/chat/completions"]


def llm(url: str, home: Path) -> list[str]:
    """Return the command line of llm, after naming the server in its configuration."""
    model = f"- model_id: m\n  model_name: m\n  api_base: {url}\n  api_key_name: none\n"
    (home / "extra-openai-models.yaml").write_text(model)
    (home / "keys.json").write_text('{"none": "none"}')
    return ["llm", "-m", "m", "--no-log", "hi"]


def smai(url: str, _: Path) -> list[str]:
    """Return the command line of smai."""
    return [SMAI, "ask", "-n", "--base-url", url, "hi"]


SMAI_ONLY = [Client("smai", smai)]


def all_clients() -> list[Client]:
    """Return curl, llm and smai, in the order of the table; exit if one is not installed."""
    missing = [name for name in ("curl", "llm") if not shutil.which(name, path=clean_environment("/")["PATH"])]
    if missing:
        raise SystemExit(f"not installed: {', '.join(missing)}; pip install '.[test,bench]' brings llm")
    shown = subprocess.run(
        ["llm", "--version"], env=clean_environment("/nowhere"), capture_output=True, text=True, check=True
    )
    return [Client("curl -f", curl), Client(f"llm {shown.stdout.split()[-1]}", llm), *SMAI_ONLY]


def measure(clients: Iterable[Client]) -> list[list[str]]:
    """Return the cells of the table, the headings first; a status is negative if a signal ended a tool."""
    clients = list(clients)
    rows = [["the server ...", *(client.heading for client in clients)]]
    for what, parts in SERVERS.items():
        script = answer(HEAD, *(part if part is LAST_CHUNK else chunk(part) for part in parts))
        rows.append([what, *(str(_status(client, script)) for client in clients)])
    return rows


def _status(client: Client, script: Callable[..., object]) -> int:
    server = RawServer(script)
    try:
        with tempfile.TemporaryDirectory() as home:
            environment = clean_environment(home, LLM_USER_PATH=home)
            command = client.command(server.url, Path(home))
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=LIMIT_S,
                check=False,
            )
    finally:
        server.close()
    if not server.requests:
        raise SystemExit(f"{client.heading} sent no request: {done.stderr.decode(errors='replace')}")
    return done.returncode


def as_markdown(rows: list[list[str]]) -> str:
    """Return the table as the README has it."""
    heading, *rest = (f"| {' | '.join(row)} |\n" for row in rows)
    return "".join([heading, "|---" * len(rows[0]), "|\n", *rest])


def in_readme() -> list[list[str]]:
    """Return the cells of the table in the README."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^\| the server \.\.\. \|.*\n(?:\|.*\n)+", readme, re.MULTILINE)
    heading, _, *rest = table.splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in (heading, *rest)]


def column(rows: list[list[str]], heading: str) -> list[tuple[str, str]]:
    """Return each server with what the tool of this heading exits with; a version in the heading does not matter."""
    (at,) = (index for index, cell in enumerate(rows[0]) if cell.split()[0] == heading.split(maxsplit=1)[0])
    return [(row[0], row[at]) for row in rows[1:]]


def main() -> int:
    """Measure, print the table, and return 1 if smai differs from the README."""
    rows, expected = measure(all_clients()), in_readme()
    print(as_markdown(rows), end="")
    for heading in rows[0][1:]:
        if column(rows, heading) != column(expected, heading):
            print(f"exit_statuses: {heading} differs from the README", file=sys.stderr)
    return int(column(rows, "smai") != column(expected, "smai"))


if __name__ == "__main__":
    sys.exit(main())
