"""`smai logout`: forget the key that `smai login` kept."""

import os

import click

from smai_cli.cli.group import profile_name_option
from smai_cli.config.config_file import config_folder
from smai_cli.config.keystore import KeyStore
from smai_cli.output.descriptors import say


@click.command(epilog="Manual: man smai-logout.")
@profile_name_option
def logout(profile: str | None) -> int:
    """Forget the key that smai login kept."""
    store = KeyStore(config_folder(os.environ))
    say("the key is forgotten" if store.remove(profile) else "there was no key")
    return 0
