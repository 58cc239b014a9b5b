"""`smai completion`: the script for completion in a shell."""

import click

from smai_cli.output.descriptors import Output


@click.command(epilog="Manual: man smai-completion.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print a completion script for bash, zsh or fish.

    The shell then completes commands, options, models, profiles and files.

    \b
    For bash: eval "$(smai completion bash)"
    For zsh:  eval "$(smai completion zsh)"
    For fish: smai completion fish | source
    """  # noqa: D301  # click's mark for lines to keep
    from importlib.resources import files  # after --help and usage errors

    Output().show((files("smai_cli.cli") / "shells" / f"smai.{shell}").read_bytes())
    return 0
