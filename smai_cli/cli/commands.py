"""The commands by their names. Each is imported when it runs."""

# ruff: noqa: PLC0415

import click


def load_command(name: str) -> click.Command:  # noqa: C901, PLR0912  # one branch for each command
    """Return the command `name`, which is one of COMMANDS. Raises KeyError for another one.

    Each import is written out, for programs that follow imports: mypy, and packagers such as PyInstaller.
    """
    command: click.Command
    if name == "ask":
        from smai_cli.cli.ask import ask as command
    elif name == "batch":
        from smai_cli.cli.batch import batch as command
    elif name == "completion":
        from smai_cli.cli.completion import completion as command
    elif name == "config":
        from smai_cli.cli.config import config as command
    elif name == "count":
        from smai_cli.cli.count import count as command
    elif name == "decode":
        from smai_cli.cli.decode import decode as command
    elif name == "doctor":
        from smai_cli.cli.doctor import doctor as command
    elif name == "login":
        from smai_cli.cli.login import login as command
    elif name == "logout":
        from smai_cli.cli.logout import logout as command
    elif name == "mock":
        from smai_cli.cli.mock import mock as command
    elif name == "models":
        from smai_cli.cli.models import models as command
    elif name == "serve":
        from smai_cli.cli.serve import serve as command
    else:
        raise KeyError(name)
    return command
