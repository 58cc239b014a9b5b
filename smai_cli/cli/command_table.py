"""The commands, each with its line in --help. A command is imported only when it runs."""

import click

# Here and not in each command, so that --help does not import them all.
COMMANDS = {
    "ask": "Send PROMPT to the model and print the answer as it arrives.",
    "batch": "Send each line of FILE or stdin as a prompt, and print each result as a line of JSON.",
    "completion": "Print a script that lets a shell complete commands, options, models, profiles and files.",
    "config": "Show the effective settings and their sources, or list the profiles.",
    "count": "Count the tokens of the text in FILE or stdin.",
    "decode": "Print the answer in a server-sent event stream from FILE or stdin.",
    "doctor": "Check what a run needs, from the key to the list of models, and print a line for each check.",
    "login": "Store a key for a server, after checking it.",
    "logout": "Remove a key that smai login stored.",
    "mock": "Serve the chat API on 127.0.0.1 for tests: no key, no model, no network.",
    "models": "Print the ids of the server's models, sorted, one per line.",
    "serve": "Serve a chat page and an API for local programs, without giving them the key.",
}


def load_command(name: str) -> click.Command:  # noqa: C901, PLR0912  # one branch for each command
    """Return the command `name`. Raises KeyError if it is not one of COMMANDS.

    Each import is written out for programs that follow imports: mypy, and packagers such as PyInstaller.
    """
    command: click.Command
    if name == "ask":
        from smai_cli.cli.commands.ask import ask as command
    elif name == "batch":
        from smai_cli.cli.batch.command import batch as command
    elif name == "completion":
        from smai_cli.cli.commands.completion import completion as command
    elif name == "config":
        from smai_cli.cli.commands.config import config as command
    elif name == "count":
        from smai_cli.cli.commands.count import count as command
    elif name == "decode":
        from smai_cli.cli.commands.decode import decode as command
    elif name == "doctor":
        from smai_cli.cli.commands.doctor import doctor as command
    elif name == "login":
        from smai_cli.cli.commands.login import login as command
    elif name == "logout":
        from smai_cli.cli.commands.logout import logout as command
    elif name == "mock":
        from smai_cli.cli.commands.mock import mock as command
    elif name == "models":
        from smai_cli.cli.commands.models import models as command
    elif name == "serve":
        from smai_cli.cli.commands.serve import serve as command
    else:
        raise KeyError(name)
    return command
