"""Translate click's usage errors into smai's messages."""

import click

from smai_cli.errors import UsageError

# Printed for a person who types only `smai`.
FIRST_LINES = """\
smai asks a language model, and exits with 0 only if the answer is complete.
  smai ask --mock hello                          try it: no key, no network
  smai ask "Why is the sky blue?"
  git diff | smai ask "Write a commit message."
smai login stores a key, and smai doctor checks that all works.
smai --help lists the commands; man smai is the manual."""


class NoSuchCommandError(click.UsageError):
    """The first word of `args` is not a command. click has a type for that only since version 8.4."""

    def __init__(self, args: list[str], ctx: click.Context) -> None:
        super().__init__(f"no such command: {args[0]}", ctx)
        self.words = args


class EarlyOptionError(click.UsageError):
    """The first word of `args` is the option `name`, perhaps with a value, and not a command."""

    def __init__(self, name: str, args: list[str], ctx: click.Context) -> None:
        super().__init__(f"no such option: {name}", ctx)
        self.words = args


def usage_error(error: click.ClickException) -> UsageError:
    """Translate click's exception: what happened, and what to type or where to look."""
    from smai_cli.cli.command_table import COMMANDS, load_command  # for failures only
    from smai_cli.cli.parsing.suggestions import command_hint, early_option_hint, option_hint
    from smai_cli.cli.parsing.words import options_of, shown

    ctx = getattr(error, "ctx", None)
    hint = f"see {ctx.command_path if ctx else 'smai'} --help"
    if isinstance(error, NoSuchCommandError):
        return UsageError(f"no such command: {shown(error.words[0])}", command_hint(error.words, COMMANDS))
    if isinstance(error, EarlyOptionError):
        hint = early_option_hint(error.words, COMMANDS, lambda name: options_of(load_command(name)))
        return UsageError(error.message, hint)
    if isinstance(error, click.NoSuchOption):
        known = options_of(ctx.command) if ctx else {}
        meant = option_hint(error.option_name, (ctx.command.name if ctx else "") or "", known)
        if not meant and error.option_name[1:].isdigit():
            meant = "text that begins with a dash goes after --"
        return UsageError(f"no such option: {shown(error.option_name)}", meant or hint)
    if isinstance(error, click.MissingParameter) and error.param:
        return UsageError(f"missing argument: {_name_of(error.param, ctx)}", hint)
    if isinstance(error, click.BadParameter) and error.param:
        return UsageError(f"{_name_of(error.param, ctx)}: {_tidy(error.message)}", hint)
    return UsageError(_tidy(error.format_message()), hint)


def _name_of(param: click.Parameter, ctx: click.Context | None) -> str:
    """Return the name of an option or an operand for messages."""
    if isinstance(param, click.Option):
        return max([*param.opts, *param.secondary_opts], key=len)
    return param.make_metavar(ctx).strip("[].") if ctx else param.name or ""


def _tidy(message: str) -> str:
    """Return click's message on one line, without its initial capital and full stop."""
    line = " ".join(message.split()).rstrip(".").replace(". (", " (")
    return f"{line[:1].lower()}{line[1:]}"
