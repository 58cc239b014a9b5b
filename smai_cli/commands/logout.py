"""`smai logout`: forget the key that `smai login` kept."""

import os

import click

from smai_cli.cli import profile_name_option
from smai_cli.keystore import KeyStore
from smai_cli.output import say
from smai_cli.settings import config_folder


@click.command(epilog="Manual: man smai-logout.")
@profile_name_option
def logout(profile: str | None) -> int:
    """Forget the key that smai login kept."""
    store = KeyStore(config_folder(os.environ))
    say("the key is forgotten" if store.remove(profile) else "there was no key")
    return 0
