"""The commands, each with its line in --help, and their group. A command is imported only when it runs."""

import os

import click

from smai_cli import __version__
from smai_cli.cli.parsing.words import WORDS, check_words, options_of, shown
from smai_cli.errors import Status, UsageError
from smai_cli.output.descriptors import say_plain

# Here and not in each command, so that --help does not import them all.
COMMANDS = {
    "ask": "Send PROMPT to the model and print the answer as it arrives.",
    "batch": "Send each line of FILE or stdin as a prompt; print JSON results.",
    "completion": "Print a completion script for bash, zsh or fish.",
    "config": "Show the settings and their sources, or list the profiles.",
    "count": "Count the tokens of FILE or stdin.",
    "decode": "Print the answer in an event stream from FILE or stdin.",
    "doctor": "Check the settings, the key, the network and the server.",
    "login": "Store a key for a server, after checking it.",
    "logout": "Remove a key that smai login stored.",
    "mock": "Serve the chat API on 127.0.0.1 for tests, without a model.",
    "models": "Print the ids of the server's models, sorted, one per line.",
    "serve": "Serve a chat page and an API on 127.0.0.1, and hide the key.",
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


# Printed for a person who types only `smai`.
FIRST_LINES = """\
smai asks a language model, and exits with 0 only if the answer is complete.
  smai ask --mock hello   (no key, no network)
  smai ask "Why is the sky blue?"
  git diff | smai ask "Write a commit message."
smai login stores a key, and smai doctor checks that everything works.
smai --help lists the commands; man smai is the manual."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        return load_command(cmd_name) if cmd_name in COMMANDS else None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args[:1] == ["help"]:  # as git help COMMAND
            args = [*args[1:2], "--help", *args[2:]]
        try:
            return super().parse_args(ctx, list(args))
        except click.NoSuchOption as error:
            from smai_cli.cli.parsing.suggestions import early_option_hint  # for this failure only

            hint = early_option_hint(args, COMMANDS, lambda name: options_of(load_command(name)))
            raise UsageError(f"no such option: {error.option_name}", hint) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not ctx.resilient_parsing:
            from smai_cli.cli.parsing.suggestions import command_hint  # for this failure only

            raise UsageError(f"no such command: {shown(args[0])}", command_hint(args, COMMANDS))
        name, command, rest = super().resolve_command(ctx, args)
        if command and not ctx.resilient_parsing:
            ctx.meta[WORDS] = check_words(command, rest)
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="More: smai help COMMAND, man smai. Exit status 0: a complete answer.",
    invoke_without_command=True,
)
@click.version_option(__version__, "-V", "--version", message="smai %(version)s")
@click.pass_context
def smai(ctx: click.Context) -> int:
    """Ask a language model from the shell."""
    if ctx.invoked_subcommand is not None:
        return Status.COMPLETE  # the status is that of the command
    if not os.isatty(0):
        raise UsageError("no command", "did you mean: smai ask?")
    say_plain(FIRST_LINES)
    return Status.USAGE
