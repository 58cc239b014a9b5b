"""`smai count`: count the tokens of a text."""

import os

import click

from smai_cli.cli.parsing.shared_options import complete_file, model_option
from smai_cli.common.files import STDIN, read_all, read_file, text_in
from smai_cli.errors import UsageError, install_hint
from smai_cli.output.descriptors import Output, say
from smai_cli.prompt import prompt

# The limit for a prompt.
LIMIT_BYTES = 256 * 1024 * 1024


@click.command(epilog="Manual: man smai-count.")
@click.argument("file", metavar="[FILE]", default="-", shell_complete=complete_file)
@model_option("The model whose tokenizer to use.")
def count(file: str, model: str) -> int:
    """Count the tokens of FILE or stdin.

    git diff | smai count
    """
    model = prompt.operand_text(model, "-m/--model")
    text = _text(file)
    from smai_cli.common.text import one_line
    from smai_cli.output import tokens  # after --help and usage errors

    number = tokens.count(text, model)
    if number is None:
        if tokens.encoding_for(model) is None:
            say(f"an estimate: no tokenizer is known for {one_line(model, 80)}; -m names another model")
        else:
            say(f"an estimate: no tokenizer is installed; to count exactly: {install_hint('splintr-rs')}")
        number = tokens.estimate_of(text)
    Output().show(f"{number}\n".encode())
    return 0


def _text(file: str) -> str:
    """Return the text of `file`, or of stdin for `-`. Raises UsageError."""
    if file != "-":
        return text_in(read_file(file, file, LIMIT_BYTES, "name a file with text"), file)
    if os.isatty(STDIN):
        raise UsageError("no text to count", "name a file, or pipe one in")
    # No notice while waiting: in a pipeline, text may come late.
    hint = "check where the text comes from"
    return text_in(read_all(STDIN, lambda: None, hint=hint, limit_bytes=LIMIT_BYTES))
