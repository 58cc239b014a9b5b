"""The options for the server: profile, URL, key, headers, timeouts and retries."""

import functools
import os
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from smai_cli.cli.parsing import options
from smai_cli.cli.parsing.numbers import SECONDS, WholeNumber
from smai_cli.cli.parsing.shared_options import add, complete_file, compose_value, is_typed
from smai_cli.config.config_file import KEYS, NO_SETTINGS, Settings, find_settings
from smai_cli.config.places import DEFAULT_BASE_URL, DEFAULT_CONNECT_TIMEOUT_S
from smai_cli.errors import UsageError
from smai_cli.output.descriptors import say

_F = TypeVar("_F", bound=Callable[..., Any])


def load_settings(ctx: click.Context, param: click.Parameter, value: str | None) -> Settings:
    """Return the settings of the profile `value`; they become the defaults of the other options."""
    settings = find_settings(os.environ, value, is_typed=is_typed(param.name or "", ctx))
    if settings.notice and not ctx.resilient_parsing:  # not during completion
        say(settings.notice)
    defaults = {name: settings.get(name) for name in KEYS if name not in _NOT_DEFAULTS}
    ctx.default_map = {name: found.value for name, found in defaults.items() if found}
    return settings


def _load_or_delay(ctx: click.Context, param: click.Parameter, value: str | None) -> Settings:
    """Load the settings, but delay an error until it is known whether it matters."""
    try:
        return load_settings(ctx, param, value)
    except UsageError as error:
        ctx.meta[UNUSABLE] = error
        return NO_SETTINGS.replaced(is_typed=is_typed(param.name or "", ctx))


def _raise_unusable(ctx: click.Context, param: click.Parameter, value: bool) -> bool:  # noqa: ARG001
    """Raise the delayed error, unless --mock is set, which does not need a configuration, only a typed profile."""
    error = ctx.meta.get(UNUSABLE)
    if error and (not value or ctx.params["settings"].is_typed):
        raise error
    if error and not ctx.resilient_parsing:
        say(f"{error.describe()}; --mock goes on without it")
    return value


def _complete_profile(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Return the profiles that begin with `incomplete`, for shell completion; never raises."""
    try:
        profiles = find_settings(os.environ, None).profiles
    except UsageError:
        profiles = NO_SETTINGS.profiles
    return [name for name in profiles if name.startswith(incomplete) and re.fullmatch(r"[\w.@+-]+", name)]


# Keys that are not defaults of options: config/endpoint.py finds the base URL and the key together.
_NOT_DEFAULTS = ("base_url", "key_file")
# Where the context of click keeps the delayed error.
UNUSABLE = "smai_cli.unusable_configuration"


def _profile_option(name: str, **more: Any) -> Callable[[_F], _F]:
    return click.option(
        "-p",
        "--profile",
        name,
        metavar="NAME",
        envvar="SMAI_PROFILE",
        shell_complete=_complete_profile,
        help="Use the profile NAME, built in or from the configuration file.  [env: SMAI_PROFILE]",
        **more,
    )


profile_option = _profile_option("settings", is_eager=True, callback=load_settings)
# For commands that must work even if the configuration file is broken.
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
    help="Send the header 'Name: value'; @FILE reads headers; repeatable.",
)
_SERVER = ("settings", "base_url", "key_file", "header", "clocks", "mock")


def server_options(command: _F) -> _F:
    """Add the options for the server, headers, timeouts and retries; the command gets them as `server`."""
    return _server_options(command, clock_options)


def gateway_options(command: _F) -> _F:
    """Add the same for a command that forwards requests, and sends each only once."""
    return _server_options(command, _gateway_clock_options)


def _server_options(command: _F, clock_options: Callable[[_F], _F]) -> _F:
    return add(
        compose_value(command, "server", options.ServerOptions, *_SERVER),
        _profile_option("settings", is_eager=True, callback=_load_or_delay),
        base_url_option,
        click.option(
            "--key-file",
            metavar="FILE",
            shell_complete=complete_file,
            help="Read the key from FILE (chmod 600), not from SMAI_API_KEY.",
        ),
        header_option,
        clock_options,
        click.option(
            "--mock",
            is_flag=True,
            callback=_raise_unusable,
            help="Use a test server inside smai: no key, no network.",
        ),
    )


_CLOCKS = ("connect_timeout", "idle_timeout", "max_time", "retries")


def clock_options(command: _F) -> _F:
    """Add the options for timeouts and retries; the command gets them as one value, `clocks`."""
    retries = click.option(
        "--retries", type=WholeNumber(0), default=2, show_default=True, help="Try again at most N times."
    )
    composed = compose_value(command, "clocks", options.ClockOptions, *_CLOCKS)
    return _timeout_options(retries(composed), "the whole run")


def _gateway_clock_options(command: _F) -> _F:
    compose = functools.partial(options.ClockOptions, retries=0)
    return _timeout_options(compose_value(command, "clocks", compose, *_CLOCKS[:-1]), "a whole answer")


def _timeout_options(command: _F, of: str) -> _F:
    return add(
        command,
        click.option(
            "--connect-timeout",
            type=SECONDS,
            default=DEFAULT_CONNECT_TIMEOUT_S,
            show_default=True,
            help="Limit for connecting; 0: no limit.",
        ),
        click.option(
            "--idle-timeout",
            type=SECONDS,
            default=600,
            show_default=True,
            help="Limit between two events; 0: no limit.",
        ),
        click.option("--max-time", type=SECONDS, default=0, help=f"Limit for {of}.  [default: no limit]"),
    )
