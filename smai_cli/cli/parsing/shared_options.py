"""The options that several commands share."""

import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from smai_cli.apis import API_NAMES, AUTO
from smai_cli.cli.parsing.numbers import Number, WholeNumber
from smai_cli.config.places import DEFAULT_MODEL
from smai_cli.errors import UsageError
from smai_cli.output.modes import EXTRACT, FINAL, MODES, TEXT, Mode, OutputOptions

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from smai_cli.config.config_file import Settings

# The values of reasoning_effort in OpenAI's API reference; the server decides which of them a model accepts.
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
_F = TypeVar("_F", bound=Callable[..., Any])


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001  # click's
    """Return the ids that begin with `incomplete` in the last list of the server, for a shell: no network, no error."""
    from smai_cli.config.base_url import find_base_url  # at a TAB only
    from smai_cli.config.config_file import find_settings
    from smai_cli.config.model_ids import load_ids

    try:
        settings = ctx.params.get("settings") or find_settings(os.environ, os.environ.get("SMAI_PROFILE"))
        base_url, _ = find_base_url(ctx.params.get("base_url"), os.environ, settings)
    except UsageError:
        return []
    return [name for name in load_ids(base_url, os.environ) if name.startswith(incomplete)]


class _ModelOption(click.Option):
    """The option that names a model. A typed profile takes precedence over the variable."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Return the value of the variable, unless a typed profile sets the model."""
        settings: Settings | None = ctx.params.get("settings")
        if settings and settings.get_typed("model"):
            return None
        return super().resolve_envvar_value(ctx)

    def get_default(self, ctx: click.Context, call: bool = True) -> Any:
        """Return the default model; None if the chosen profile has no default."""
        settings: Settings | None = ctx.params.get("settings")
        if settings and settings.needs_model:
            return None
        return super().get_default(ctx, call)


def _require_model(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:  # noqa: ARG001
    """Return the model. Raises UsageError if there is none."""
    from smai_cli.config.config_file import missing_model_error  # loaded with the settings

    if value is None and not ctx.resilient_parsing:
        raise missing_model_error(ctx.params["settings"])
    return value


def model_option(help_text: str, *, is_required: bool = True) -> Callable[[_F], _F]:
    """Return the option that names a model, with `help_text`.

    A command with `is_required=False` must handle the case that neither the user nor the profile names a model.
    """
    return click.option(
        "-m",
        "--model",
        cls=_ModelOption,
        envvar="SMAI_MODEL",
        metavar="NAME",
        default=DEFAULT_MODEL,
        shell_complete=complete_model,
        callback=_require_model if is_required else None,
        help=f"{help_text}  [default: {DEFAULT_MODEL}; env: SMAI_MODEL]",
    )


def api_option(help_text: str) -> Callable[[_F], _F]:
    """Return the option that chooses the API."""
    return click.option("--api", type=click.Choice(API_NAMES), default=AUTO, show_default=True, help=help_text)


def complete_file(ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":  # noqa: ARG001  # click's
    """Let the shell complete file names. Not click.File: smai opens files with its own messages."""
    from click.shell_completion import CompletionItem  # only during completion

    return [CompletionItem(incomplete, type="file")]


def _offering(*words: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Return a function that offers the words to a shell; the option takes any other word too."""
    return lambda ctx, param, incomplete: [word for word in words if word.startswith(incomplete)]  # noqa: ARG005  # click's


def mode_option(mode: Mode) -> Callable[[_F], _F]:
    """Return the option that chooses a mode."""
    letters = [f"-{mode.letter}"] if mode.letter else []
    return click.option(*letters, f"--{mode.name}", is_flag=True, help=mode.help)


def _make_output_options(  # noqa: PLR0913  # the options that choose a mode, by their names
    *,
    summary: str | None,
    accept: tuple[str, ...],
    fail_empty: bool,
    tool_calls: bool,
    output: str | None,
    quiet: bool,
    **modes: bool,
) -> OutputOptions:
    """Make OutputOptions from click's values; `modes` are the options that choose a mode.

    --extract goes together with --final, which then adds the summary only. Raises UsageError for two other modes at
    once, and for tool calls in a mode that prints them already, or that prints a code block only.
    """
    chosen = [MODES[name] for name, is_chosen in modes.items() if is_chosen]
    if modes[EXTRACT] and modes[FINAL]:
        chosen.remove(MODES[FINAL])
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0].name} and --{chosen[1].name} cannot be combined", "choose one mode")
    if quiet and not output:
        raise UsageError("-q without -o would discard the answer", "name a file with -o")
    if output == "-":
        raise UsageError("-o needs a file name", "leave -o out, the answer goes to stdout anyway")
    mode = chosen[0] if chosen else MODES[TEXT]
    if tool_calls and mode.has_calls:
        raise UsageError(f"--tool-calls and --{mode.name} cannot be combined", "the calls are in it already")
    if tool_calls and modes[EXTRACT]:
        raise UsageError("--tool-calls and --extract cannot be combined", "choose what to print")
    return OutputOptions(
        mode=mode.name,
        summary=summary or ("text" if modes[FINAL] else "none"),
        accept=tuple(accept),
        fail_empty=fail_empty,
        tool_calls=tool_calls,
        file=output,
        quiet=quiet,
    )


def output_options(command: _F) -> _F:
    """Add the options for the delivery of an answer; the command gets them as one value, `output`."""
    modes = [mode for mode in MODES.values() if mode.help]
    names = [mode.name for mode in modes]
    names += ["summary", "accept", "fail_empty", "tool_calls", "output", "quiet"]
    return add(
        compose_value(command, "output", _make_output_options, *names),
        *map(mode_option, modes),
        click.option(
            "--summary",
            type=click.Choice(["text", "json", "none"]),
            help="Print a summary on stderr.",
        ),
        click.option(
            "--accept",
            metavar="WORD",
            multiple=True,
            shell_complete=_offering("length", "content_filter", "done"),
            help="Exit 0 for this finish_reason, too; done: for [DONE] without one; repeatable.",
        ),
        click.option("--fail-empty", is_flag=True, help="Fail if the answer is empty or only white space."),
        click.option("--tool-calls", is_flag=True, help="Print the tool calls in the answer, each as a line of JSON."),
        click.option(
            "-o",
            "--output",
            metavar="FILE",
            shell_complete=complete_file,
            help="Write the answer to FILE too; replace FILE only if the answer is complete.",
        ),
        click.option("-q", "--quiet", is_flag=True, help="With -o: print nothing on stdout."),
    )


def is_typed(name: str, ctx: click.Context | None = None) -> bool:
    """Return whether the parameter `name` was typed on the command line."""
    ctx = ctx or click.get_current_context()
    return ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def request_options(command: _F) -> _F:
    """Add the options for the request; a command gets them as RequestValues."""
    return add(
        command,
        click.option("-t", "--temperature", type=Number(0, 2), help="Sampling temperature, 0 to 2."),
        click.option("--max-tokens", type=WholeNumber(1), help="Limit the answer to N tokens."),
        click.option("--top-p", type=Number(0, 1), help="Nucleus sampling, 0 to 1."),
        click.option(
            "--effort",
            metavar="WORD",
            shell_complete=_offering(*EFFORTS),
            help=f"Reasoning effort: {', '.join(EFFORTS)}, or another word that the server knows.",
        ),
        click.option("--seed", type=WholeNumber(), help="Seed for the sampling."),
        click.option(
            "--stop", metavar="TEXT", multiple=True, help="End the answer where TEXT would follow; repeatable."
        ),
        click.option("--json", is_flag=True, help="Ask for an answer in JSON."),
        click.option(
            "--schema",
            metavar="FILE",
            shell_complete=complete_file,
            help="Ask for JSON that matches the JSON Schema in FILE.",
        ),
    )


def add(command: _F, *options: Callable[[_F], _F]) -> _F:
    """Add the options to a command, in this order."""
    for option in reversed(options):
        command = option(command)
    return command


def compose_value(command: _F, name: str, compose: Callable[..., object], *names: str) -> _F:
    """Return `command` with one parameter, `name`, in place of the options `names`; `compose` makes its value."""

    @functools.wraps(command)
    def composed(**values: Any) -> Any:
        given = {option: values.pop(option) for option in names}
        return command(**{name: compose(**given)}, **values)

    return cast("_F", composed)
