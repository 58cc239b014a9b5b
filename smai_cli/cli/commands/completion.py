"""`smai completion`: the script for completion in a shell."""

import click

from smai_cli.output.descriptors import Output


@click.command(epilog="Manual: man smai-completion.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print a script that lets a shell complete commands, options, models, profiles and files.

    For bash: eval "$(smai completion bash)"
    """
    from importlib.resources import files  # after --help and usage errors

    Output().show((files("smai_cli.cli") / "shells" / f"smai.{shell}").read_bytes())
    return 0
