"""The click group, and what its commands share. A command's module is imported when that command runs."""

import functools
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from smai_cli import __version__
from smai_cli.cli import options
from smai_cli.cli.help import HelpContext
from smai_cli.cli.numbers import SECONDS, Number, WholeNumber
from smai_cli.cli.usage import FIRST_LINES, EarlyOptionError, NoSuchCommandError
from smai_cli.cli.words import Words, check_words
from smai_cli.config.base_url import find_base_url
from smai_cli.config.config_file import NO_SETTINGS, Settings, find_settings, no_model
from smai_cli.config.endpoint import DEFAULT_MODEL
from smai_cli.config.places import DEFAULT_BASE_URL, DEFAULT_CONNECT_TIMEOUT_S
from smai_cli.errors import Status, UsageError
from smai_cli.output.descriptors import say, say_plain

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# The APIs that dialects.py knows; named here too, so that --help needs no dialect.
APIS = ("auto", "chat", "responses")
# What OpenAI's API reference has for reasoning_effort; which of them a model takes, the server says.
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
# The commands, and what --help says of each: to ask them would load them all.
COMMANDS = {
    "ask": "Send PROMPT to the model and print the answer as it arrives.",
    "batch": "Send each line of FILE, or of stdin, as a prompt, and print a result for each as a line of JSON.",
    "completion": "Print a script that lets a shell complete commands, options, models, profiles and files.",
    "config": "Show the effective settings and their sources, or list the profiles.",
    "count": "Count the tokens of the text in FILE, or on stdin.",
    "decode": "Print the answer in a server-sent event stream from FILE, or from stdin.",
    "doctor": "Check what a run needs, from the key to the list of models, and print a line for each check.",
    "login": "Keep a key for a server, after trying it.",
    "logout": "Remove a key that smai login kept.",
    "mock": "Serve the chat API on 127.0.0.1 for tests: no key, no model, no network.",
    "models": "Print the ids of the server's models, sorted, one on each line.",
    "serve": "Serve a web page to ask from, and the API for programs on this machine; they never get the key.",
}
_WORDS = "smai_cli.words"
_F = TypeVar("_F", bound=Callable[..., Any])


class _Commands(click.Group):
    context_class = HelpContext

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        from smai_cli.cli.commands import load_command  # noqa: PLC0415  # not for --help

        command = load_command(cmd_name)
        command.context_class = HelpContext
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args[:1] == ["help"]:  # as git help COMMAND
            args = [*args[1:2], "--help", *args[2:]]
        try:
            return super().parse_args(ctx, list(args))
        except click.NoSuchOption:
            raise EarlyOptionError(args, ctx) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not ctx.resilient_parsing:
            raise NoSuchCommandError(args, ctx)
        name, command, rest = super().resolve_command(ctx, args)
        if command and not ctx.resilient_parsing:
            ctx.meta[_WORDS] = check_words(command, rest)
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="smai help COMMAND and man smai-COMMAND say more. Exit status 0: the answer is complete and was delivered.",
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


def words_of(ctx: click.Context) -> Words:
    """Return what is known of the operands of the command line."""
    words: Words = ctx.meta[_WORDS]
    return words


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
        metavar="NAME",
        default=DEFAULT_MODEL,
        shell_complete=complete_model,
        callback=_require_model if is_required else None,
        help=f"{help_text}  [default: {DEFAULT_MODEL}; env: SMAI_MODEL]",
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


extract_option = click.option(
    "-x", "--extract", is_flag=True, help="Keep only the first code block of a complete answer."
)


def output_options(command: _F) -> _F:
    """Add the options that say how an answer is delivered; the command gets them as one value, `output`."""
    names = ("raw", "jsonl", "final", "extract", "summary", "accept", "fail_empty", "tool_calls", "output", "quiet")
    return _with(
        _composed(command, "output", options.output_options, *names),
        click.option("--raw", is_flag=True, help="Print the response body, byte for byte."),
        click.option("--jsonl", is_flag=True, help="Print the JSON of each event on a line of its own."),
        click.option(
            "--final", is_flag=True, help="Print nothing before the answer is complete; add a summary on stderr."
        ),
        extract_option,
        click.option(
            "--summary",
            type=click.Choice(["text", "json", "none"]),
            help="Print a summary on stderr.",
        ),
        click.option(
            "--accept",
            metavar="WORD",
            multiple=True,
            shell_complete=_complete_accept,
            help="Exit 0 also for this finish_reason; done: for [DONE] without one; repeatable.",
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
    """Return whether the parameter `name` stands on the command line."""
    ctx = ctx or click.get_current_context()
    return ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def request_options(command: _F) -> _F:
    """Add the options that say what kind of answer is asked for; a command has them as RequestValues."""
    return _with(
        command,
        click.option("-t", "--temperature", type=Number(0, 2), help="Sampling temperature, 0 to 2."),
        click.option("--max-tokens", type=WholeNumber(1), help="Limit the answer to N tokens."),
        click.option("--top-p", type=Number(0, 1), help="Nucleus sampling, 0 to 1."),
        click.option(
            "--effort",
            metavar="WORD",
            shell_complete=_complete_effort,
            help=f"How hard a reasoning model thinks: {', '.join(EFFORTS)}, or what the server knows.",
        ),
        click.option("--seed", type=WholeNumber(), help="Seed for the sampling."),
        click.option("--stop", metavar="TEXT", multiple=True, help="Stop the answer before TEXT; repeatable."),
        click.option("--json", is_flag=True, help="Ask for an answer in JSON."),
        click.option(
            "--schema",
            metavar="FILE",
            shell_complete=complete_file,
            help="Ask for JSON that matches the JSON Schema in FILE.",
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
verbose_option = click.option("-v", "--verbose", is_flag=True, help="Report each step on stderr, with times.")
base_url_option = click.option(
    "--base-url", metavar="URL", help=f"The base URL of the server.  [default: {DEFAULT_BASE_URL}; env: SMAI_BASE_URL]"
)

header_option = click.option(
    "-H",
    "--header",
    metavar="LINE",
    multiple=True,
    help="Add a header 'Name: value'; @FILE reads such lines; repeatable.",
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
            help="Ask a test server inside smai: no key, no network.",
        ),
    )


def clock_options(command: _F) -> _F:
    """Add the options that say for how long to ask; the command gets them as one value, `clocks`."""
    return _clock_options(_composed(command, "clocks", options.clock_options, *_CLOCKS))


_CLOCKS = ("connect_timeout", "idle_timeout", "max_time", "retries")


def _clock_options(command: _F) -> _F:
    retries = click.option(
        "--retries", type=WholeNumber(0), default=2, show_default=True, help="Try again at most N times."
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
            help="Limit for connecting; 0: none.",
        ),
        click.option(
            "--idle-timeout",
            type=SECONDS,
            default=600,
            show_default=True,
            help="Limit between two events; 0: none.",
        ),
        click.option("--max-time", type=SECONDS, default=0, help=f"Limit for {of}.  [default: no limit]"),
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
