"""Translate click's usage errors into smai's messages."""

import click

from smai_cli.cli.parsing.suggestions import operand_hint, option_hint
from smai_cli.cli.parsing.words import options_of, shown
from smai_cli.errors import UsageError


def usage_error(error: click.ClickException) -> UsageError:
    """Translate click's exception: what happened, and what to type or where to look."""
    ctx = getattr(error, "ctx", None)
    hint = f"see {ctx.command_path if ctx else 'smai'} --help"
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
    if ctx and "-p" in options_of(ctx.command):
        hint = operand_hint(error.message, ctx.command_path) or hint
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
