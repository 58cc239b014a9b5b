"""`smai logout`: delete a key that `smai login` stored."""

import os

import click

from smai_cli.cli.parsing.server_options import base_url_option, profile_name_option
from smai_cli.cli.parsing.shared_options import is_typed
from smai_cli.config.base_url import find_base_url, origin_of, shown_origin
from smai_cli.config.config_file import NO_SETTINGS, Settings, find_settings
from smai_cli.config.keystore import KeyStore, StoredKey
from smai_cli.config.places import config_folder
from smai_cli.errors import UsageError
from smai_cli.output.descriptors import say

_OTHERS = "smai login --list names those that are stored"


@click.command(epilog="Manual: man smai-logout.")
@profile_name_option
@base_url_option
@click.option("--all", "is_all", is_flag=True, help="Remove every key.")
def logout(profile: str | None, base_url: str | None, *, is_all: bool) -> int:
    """Remove a key that smai login stored.

    This is the key for the server that smai ask would use with the same options.
    """
    if is_all and (base_url or is_typed("profile")):
        other = "--base-url" if base_url else "-p/--profile"
        raise UsageError(f"--all and {other} cannot be combined", "choose one of the two")
    store = KeyStore(config_folder(os.environ))
    was_left = store.clean()
    if not store.stored_keys():
        say("removed what an interrupted login had left" if was_left else "there was no key")
    elif is_all:
        store.remove(lambda _: True)
        say("all keys are removed")
    elif profile and not base_url and profile not in _settings(None).profiles:
        is_done = store.remove(lambda one: one.profile == profile)
        say(f"the keys of the profile {profile} are removed" if is_done else f"there was no key; {_OTHERS}")
    else:
        meant = StoredKey(profile=profile or "", origin=_origin(profile, base_url))
        is_done = store.remove(lambda one: one == meant)
        say(f"the key for {shown_origin(meant.origin)} is removed" if is_done else f"there was no key; {_OTHERS}")
    return 0


def _origin(profile: str | None, base_url: str | None) -> str:
    """Return the origin of the server that smai ask would use. Raises UsageError."""
    is_given = base_url or (os.environ.get("SMAI_BASE_URL") and not is_typed("profile"))
    settings = NO_SETTINGS if is_given else _settings(profile)
    return origin_of(find_base_url(base_url, os.environ, settings)[0])


def _settings(profile: str | None) -> Settings:
    """Return the settings. Raises UsageError, whose hint says how to do without them."""
    try:
        return find_settings(os.environ, profile, is_typed=is_typed("profile"))
    except UsageError as error:
        raise error.replaced(hint=f"{error.hint}, or name the server with --base-url") from error
