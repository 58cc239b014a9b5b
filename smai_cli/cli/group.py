"""The click group, and what its commands share. A command's module is imported when that command runs."""

import functools
import math
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from smai_cli import __version__
from smai_cli.cli import options
from smai_cli.config.base_url import find_base_url
from smai_cli.config.config_file import MOST_SECONDS, NO_SETTINGS, Settings, find_settings, no_model
from smai_cli.config.endpoint import DEFAULT_MODEL
from smai_cli.config.places import DEFAULT_BASE_URL, DEFAULT_CONNECT_TIMEOUT_S
from smai_cli.errors import UsageError
from smai_cli.output.descriptors import say

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# The APIs that dialects.py knows; named here too, so that --help needs no dialect.
APIS = ("auto", "chat", "responses")
# What OpenAI's API reference has for reasoning_effort; which of them a model takes, the server says.
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
# The commands, and what --help says of each: to ask them would load them all.
COMMANDS = {
    "ask": "Send PROMPT to the model and print the answer as it arrives.",
    "batch": "Ask what stands in each line of FILE, or of stdin, and print a result for each as a line of JSON.",
    "completion": "Print the script with which a shell completes commands, options, models, profiles and files.",
    "config": "Show the effective settings and their sources, or list the profiles.",
    "count": "Count the tokens of the text in FILE, or on stdin.",
    "decode": "Print the answer in a server-sent event stream from FILE, or from stdin.",
    "doctor": "Check everything that a run needs, from the key to the list of models, a line each.",
    "login": "Keep a key for a server, after asking the server whether it is good.",
    "logout": "Forget a key that smai login kept.",
    "mock": "Serve the chat API on 127.0.0.1 for rehearsals: no key, no model, no network.",
    "models": "Print the ids of the server's models, one a line, sorted.",
    "serve": "Serve a page to ask from, and the API for programs on this machine; the key stays behind it.",
}
_F = TypeVar("_F", bound=Callable[..., Any])


class _NoSuchCommandError(click.UsageError):
    """The name of a command that does not exist; click says so with the names from its version 8.4 on."""

    def __init__(self, name: str, error: click.UsageError) -> None:
        super().__init__(error.message, error.ctx)
        self.name = name


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        from smai_cli.cli.commands import load_command  # noqa: PLC0415  # not for --help

        return load_command(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchOption:
            raise
        except click.UsageError as error:
            raise _NoSuchCommandError(args[0], error) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


class Number(click.ParamType):  # type: ignore[type-arg]  # not subscriptable in click 8.2
    """A finite number from `low` to `high`; NaN and infinity are no JSON."""

    name = "number"

    def __init__(self, low: float, high: float = math.inf) -> None:
        self._low, self._high = low, high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number; a UsageError of click otherwise."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and self._low <= number <= self._high):
            limits = f"from {self._low:g}" + (f" to {self._high:.15g}" if self._high < math.inf else " up")
            self.fail(f"{value!r} is not a number {limits}", param, ctx)
        return number


# poll(2) takes no more than 24 days.
SECONDS = Number(0, MOST_SECONDS)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Manual: man smai, man smai-ask. Exit status 0 means: the answer is complete and was delivered.",
)
@click.version_option(__version__, message="smai %(version)s")
def smai() -> None:
    """Ask a language model from the shell."""


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001  # click's
    """Return the ids that begin with `incomplete` in the last list of the server, for a shell: no network, no error."""
    from smai_cli.config.model_ids import kept_ids  # noqa: PLC0415  # at a TAB only

    try:
        settings = ctx.params.get("settings") or find_settings(os.environ, os.environ.get("SMAI_PROFILE"))
        base_url, _ = find_base_url(ctx.params.get("base_url"), os.environ, settings)
    except UsageError:
        return []
    return [name for name in kept_ids(base_url, os.environ) if name.startswith(incomplete)]


class _ModelOption(click.Option):
    """The option that names a model. A profile that is typed goes before the variable."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Return the value of the variable, unless the profile has another one."""
        settings = ctx.params.get("settings")
        if isinstance(settings, Settings) and settings.get_typed("model"):
            return None
        return super().resolve_envvar_value(ctx)

    def get_default(self, ctx: click.Context, call: bool = True) -> Any:
        """Return the default model; None where a profile is chosen for which only the user can name one."""
        settings = ctx.params.get("settings")
        if isinstance(settings, Settings) and settings.needs_model:
            return None
        return super().get_default(ctx, call)


def _require_model(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:  # noqa: ARG001
    """Return the model. Raises UsageError where there is none."""
    if value is None and not ctx.resilient_parsing:
        raise no_model(ctx.params["settings"])
    return value


def model_option(help_text: str, *, is_required: bool = True) -> Callable[[_F], _F]:
    """Return the option that names a model, with `help_text`.

    A command for which it is not required has to see to it where neither the user nor the profile names one.
    """
    return click.option(
        "-m",
        "--model",
        cls=_ModelOption,
        envvar="SMAI_MODEL",
        default=DEFAULT_MODEL,
        show_default=True,
        shell_complete=complete_model,
        callback=_require_model if is_required else None,
        help=help_text,
    )


def complete_file(ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":  # noqa: ARG001  # click's
    """Return what tells a shell to offer its own file names; smai itself opens the file, with its own messages."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415  # at a TAB only

    return [CompletionItem(incomplete, type="file")]


def _complete_accept(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001  # click's
    """Return the words that servers use most, for a shell; any other word is taken as well."""
    return [word for word in ("length", "content_filter", "done") if word.startswith(incomplete)]


def _complete_effort(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001  # click's
    """Return the words of the API reference, for a shell; any other word is sent as well."""
    return [word for word in EFFORTS if word.startswith(incomplete)]


def _require_word(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:  # noqa: ARG001  # click's
    """Return the value of an option that takes any word. Raises UsageError for an empty one."""
    if value is not None and not value.strip():
        raise UsageError(f"{param.opts[-1]} names no word", "give one; is a variable empty?")
    return value


extract_option = click.option(
    "-x", "--extract", is_flag=True, help="Print only the first fenced code block of a complete answer."
)


def output_options(command: _F) -> _F:
    """Add the options that say how an answer is delivered; the command gets them as one value, `output`."""
    names = ("raw", "jsonl", "final", "extract", "summary", "accept", "fail_empty", "tool_calls", "output", "quiet")
    return _with(
        _composed(command, "output", options.output_options, *names),
        click.option("--raw", is_flag=True, help="Print the response body byte for byte."),
        click.option("--jsonl", is_flag=True, help="Print the JSON of each event on a line."),
        click.option("--final", is_flag=True, help="Print the text once, when complete; summary on stderr."),
        extract_option,
        click.option(
            "--summary",
            type=click.Choice(["text", "json", "none"]),
            help="Put a summary on stderr in any mode.",
        ),
        click.option(
            "--accept",
            metavar="WORD",
            multiple=True,
            shell_complete=_complete_accept,
            help="Take this finish_reason as a success, or done: [DONE] without one; repeatable.",
        ),
        click.option("--fail-empty", is_flag=True, help="Fail if the answer is empty, or nothing but white space."),
        click.option("--tool-calls", is_flag=True, help="Print the tool calls of the answer, each as JSON on a line."),
        click.option(
            "-o",
            "--output",
            metavar="FILE",
            shell_complete=complete_file,
            help="Put the answer into FILE too, once it is complete.",
        ),
        click.option("-q", "--quiet", is_flag=True, help="With -o, leave stdout empty."),
    )


def is_typed(name: str, ctx: click.Context | None = None) -> bool:
    """Return whether the parameter `name` stands on the command line."""
    ctx = ctx or click.get_current_context()
    return ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def request_options(command: _F) -> _F:
    """Add the options that say what kind of answer is asked for; a command has them as RequestValues."""
    return _with(
        command,
        click.option("-t", "--temperature", type=Number(0, 2), help="Sampling temperature, 0 to 2."),
        click.option("--max-tokens", type=click.IntRange(min=1), help="The most tokens to answer with."),
        click.option("--top-p", type=Number(0, 1), help="Nucleus sampling, 0 to 1."),
        click.option(
            "--effort",
            metavar="WORD",
            shell_complete=_complete_effort,
            callback=_require_word,
            help=f"How hard a reasoning model thinks: {', '.join(EFFORTS)}, or what the server knows.",
        ),
        click.option("--seed", type=int, help="The seed of the sampling."),
        click.option("--stop", metavar="TEXT", multiple=True, help="End the answer before TEXT; repeatable."),
        click.option("--json", is_flag=True, help="Ask for JSON."),
        click.option(
            "--schema", metavar="FILE", shell_complete=complete_file, help="Ask for JSON after the JSON Schema in FILE."
        ),
    )


def load_settings(ctx: click.Context, param: click.Parameter, value: str | None) -> Settings:
    """Return the settings of the profile `value`; they become the defaults of the other options."""
    settings = find_settings(os.environ, value, is_typed=is_typed(param.name or "", ctx))
    if settings.notice and not ctx.resilient_parsing:  # not at a TAB
        say(settings.notice)
    defaults = {name: settings.get(name) for name in _DEFAULTS}
    ctx.default_map = {name: found.value for name, found in defaults.items() if found}
    return settings


def _load_unless_mock(ctx: click.Context, param: click.Parameter, value: str | None) -> Settings:
    """Return the same; what is wrong with a file that nobody asked for waits until it is known whether it matters."""
    try:
        return load_settings(ctx, param, value)
    except UsageError as error:
        if is_typed(param.name or "", ctx):
            raise
        ctx.meta[_UNUSABLE] = error
        return NO_SETTINGS


def _tell_unusable(ctx: click.Context, param: click.Parameter, value: bool) -> bool:  # noqa: ARG001
    """Raise what is wrong with the configuration; a rehearsal goes on without one."""
    error = ctx.meta.get(_UNUSABLE)
    if error and not value:
        raise error
    if error and not ctx.resilient_parsing:
        say(f"{error.what}; --mock goes on without it")
    return value


def _complete_profile(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Return the profiles that begin with `incomplete`, for a shell: no error."""
    try:
        profiles = find_settings(os.environ, None).profiles
    except UsageError:
        profiles = NO_SETTINGS.profiles
    return [name for name in profiles if name.startswith(incomplete) and re.fullmatch(r"[\w.@+-]+", name)]


# What the configuration may say of an option; the base URL and the key are found together, in config/endpoint.py.
_DEFAULTS = (
    "model",
    "system",
    "temperature",
    "max_tokens",
    "top_p",
    "effort",
    "api",
    "accept",
    "connect_timeout",
    "idle_timeout",
    "max_time",
    "retries",
)
_UNUSABLE = "smai_cli.unusable_configuration"


def _profile_option(name: str, **more: Any) -> Callable[[_F], _F]:
    return click.option(
        "-p",
        "--profile",
        name,
        metavar="NAME",
        envvar="SMAI_PROFILE",
        shell_complete=_complete_profile,
        help="Use the profile NAME, built in or of the configuration file.  [env: SMAI_PROFILE]",
        **more,
    )


profile_option = _profile_option("settings", is_eager=True, callback=load_settings)
# For a command that must work where the file does not.
profile_name_option = _profile_option("profile")
verbose_option = click.option("-v", "--verbose", is_flag=True, help="Say on stderr what happens, with times.")
base_url_option = click.option(
    "--base-url", metavar="URL", help=f"The server.  [default: {DEFAULT_BASE_URL}; env: SMAI_BASE_URL]"
)

header_option = click.option(
    "-H", "--header", metavar="LINE", multiple=True, help="Send 'Name: value' too; @FILE reads such lines; repeatable."
)
_SERVER = ("settings", "base_url", "key_file", "header", "mock")


def server_options(command: _F) -> _F:
    """Add the options that say where to ask, with what, and for how long; the command gets them as `server`."""
    composed = _composed(command, "server", options.server_options, *_SERVER, *_CLOCKS)
    return _server_options(composed, _clock_options)


def gateway_options(command: _F) -> _F:
    """Add the same for a command that asks for others, and asks each thing once."""
    compose = functools.partial(options.server_options, retries=0)
    return _server_options(_composed(command, "server", compose, *_SERVER, *_CLOCKS[:-1]), _answer_clock_options)


def _server_options(command: _F, clock_options: Callable[[_F], _F]) -> _F:
    return _with(
        command,
        _profile_option("settings", is_eager=True, callback=_load_unless_mock),
        base_url_option,
        click.option(
            "--key-file",
            metavar="FILE",
            shell_complete=complete_file,
            help="Read the key from FILE (chmod 600); without it, the key in SMAI_API_KEY.",
        ),
        header_option,
        clock_options,
        click.option(
            "--mock",
            is_flag=True,
            callback=_tell_unusable,
            help="Ask a rehearsal server inside smai: no key, no network.",
        ),
    )


def clock_options(command: _F) -> _F:
    """Add the options that say for how long to ask; the command gets them as one value, `clocks`."""
    return _clock_options(_composed(command, "clocks", options.clock_options, *_CLOCKS))


_CLOCKS = ("connect_timeout", "idle_timeout", "max_time", "retries")


def _clock_options(command: _F) -> _F:
    retries = click.option(
        "--retries", type=click.IntRange(min=0), default=2, show_default=True, help="How often to try again."
    )
    return _answer_clock_options(retries(command), "the whole run")


def _answer_clock_options(command: _F, of: str = "a whole answer") -> _F:
    return _with(
        command,
        click.option(
            "--connect-timeout",
            type=SECONDS,
            default=DEFAULT_CONNECT_TIMEOUT_S,
            show_default=True,
            help="Seconds to connect; 0: no limit.",
        ),
        click.option(
            "--idle-timeout",
            type=SECONDS,
            default=600,
            show_default=True,
            help="Seconds between two events; 0: no limit.",
        ),
        click.option("--max-time", type=SECONDS, default=0, help=f"Seconds for {of}.  [default: no limit]"),
    )


def _with(command: _F, *options: Callable[[_F], _F]) -> _F:
    for option in reversed(options):
        command = option(command)
    return command


def _composed(command: _F, name: str, compose: Callable[..., object], *names: str) -> _F:
    """Return `command` with one value, `name`, in place of those of the options `names`."""

    @functools.wraps(command)
    def composed(**values: Any) -> Any:
        given = {option: values.pop(option) for option in names}
        return command(**{name: compose(**given)}, **values)

    return cast("_F", composed)


def usage_line(error: click.ClickException) -> str:
    """Return click's message as one line of smai's: lower case, no full stop, then what to do next."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return "no command; see smai --help"
    meant = _meant(error)
    said = error.message if meant else error.format_message()
    message = " ".join(said.split()).rstrip(".").replace(". (", " (")
    ctx = getattr(error, "ctx", None)
    path = ctx.command_path if ctx else "smai"
    return f"{message[:1].lower()}{message[1:]}; {f'did you mean {meant}' if meant else f'see {path} --help'}"


def _meant(error: click.ClickException) -> str | None:
    """Return the command, or the option, that is most like one that does not exist; None where none is like it."""
    if isinstance(error, _NoSuchCommandError):
        name, names = error.name, list(COMMANDS)
    elif isinstance(error, click.NoSuchOption):
        name, names = error.option_name, list(error.possibilities or ())
    else:
        return None
    from difflib import get_close_matches  # noqa: PLC0415  # for a mistyped word only

    return next(iter(get_close_matches(name, names, 1)), None)
