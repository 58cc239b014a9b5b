"""`smai batch`: many prompts, one result for each."""

import os
import re
from typing import TYPE_CHECKING, Any

import click

from smai_cli.cli.parsing.help import GroupedCommand
from smai_cli.cli.parsing.numbers import SECONDS, Number, WholeNumber
from smai_cli.cli.parsing.options import BatchValues, ServerOptions
from smai_cli.cli.parsing.server_options import server_options, verbose_option
from smai_cli.cli.parsing.shared_options import api_option, complete_file, mode_option, model_option, request_options
from smai_cli.common.files import STDIN_NAME
from smai_cli.errors import UsageError
from smai_cli.output.descriptors import say
from smai_cli.output.modes import EXTRACT, MODES

if TYPE_CHECKING:
    from smai_cli.batch.input.shard import Shard

_MOST_JOBS = 512


def _check_share(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Check the value of --allow-failed, and return it."""
    if value is not None and not re.fullmatch(r"\d+|\d+(\.\d+)?%", value):
        raise click.BadParameter(f"{value!r} is neither a number nor a share in percent", ctx, param)
    return value


@click.command(
    cls=GroupedCommand,
    examples=(
        "smai batch --lines list.txt",
        "smai batch -o out.jsonl --resume FILE",
        "smai batch --dry-run questions.jsonl",
    ),
    epilog="Manual: man smai-batch. Exit status 0: every line has a complete answer that was delivered.",
)
@click.argument("files", metavar="[FILE]...", nargs=-1, shell_complete=complete_file)
@click.option(
    "-o",
    "--output",
    metavar="OUTPUT",
    shell_complete=complete_file,
    help="Write the results to OUTPUT when all are complete, and to OUTPUT.partial until then.",
)
@click.option("--resume", is_flag=True, help="Continue from OUTPUT.partial; retry lines that may succeed now.")
@click.option(
    "--resume-failed", is_flag=True, help="Keep complete answers; retry all other lines with the current options."
)
@click.option(
    "--drop-stale", count=True, help="Move results of changed lines to OUTPUT.stale; repeat it to move most of them."
)
@click.option(
    "--shard", metavar="K/N", help="Send only lines K, K+N, ...; auto/N or auto: take K from the job scheduler."
)
@click.option("--merge", is_flag=True, help="Join the results of all shards, FILE..., in input order.")
@click.option("--status", is_flag=True, help="Print the progress of the shards whose results are in FILE...")
@click.option("-k", "--keep-order", is_flag=True, help="Print the results in the order of the input.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["flat", "openai"]),
    help="The form of a result.  [default: depends on the line]",
)
@click.option("--lines", is_flag=True, help="Take each line as plain text, not JSON.")
@click.option("--template", metavar="TEXT", help="The prompt: {} is the line, {name} a member of it; @FILE reads TEXT.")
@click.option(
    "-j",
    "--jobs",
    type=WholeNumber(1, _MOST_JOBS),
    default=8,
    show_default=True,
    help="Send at most N lines at once.",
)
@click.option("--no-adapt", is_flag=True, help="Keep concurrency fixed at that number.")
@click.option("--rpm", type=Number(0), help="Start at most N requests a minute.")
@click.option(
    "--patience",
    type=SECONDS,
    default=300,
    show_default=True,
    help="End the run if nothing succeeds for this long; 0: no limit.",
)
@click.option(
    "--timeout", type=SECONDS, default=0, help="Limit for one line, including its retries.  [default: no limit]"
)
@click.option(
    "--halt",
    metavar="WHEN",
    default="never",
    show_default=True,
    help="Stop after failures: soon,fail=N, now,fail=N% or never.",
)
@click.option("--allow-failed", metavar="N|N%", callback=_check_share, help="Exit 0 if at most N lines, or N%, failed.")
@click.option("--token-limit", type=WholeNumber(1), metavar="N", help="Start no more requests after N tokens.")
@click.option(
    "--grace", type=SECONDS, default=20, show_default=True, help="After a signal, time for running requests to finish."
)
@model_option("The model to use.", is_required=False)
@click.option("-s", "--system", metavar="TEXT", help="The system message; @FILE reads it.")
@request_options
@click.option(
    "-O",
    "--option",
    metavar="KEY=VALUE",
    multiple=True,
    help="Set any parameter of each request; @FILE reads VALUE; repeatable.",
)
@mode_option(MODES[EXTRACT])
@click.option("--accept", metavar="WORD", multiple=True, help="Treat this finish_reason as complete; repeatable.")
@click.option("--fail-empty", is_flag=True, help="Fail lines whose answer is empty or only white space.")
@api_option("The API to use; auto chooses by the model.")
@click.option("--no-stream", is_flag=True, help="Request each answer as one response instead of a stream.")
@server_options
@click.option("--progress", is_flag=True, help="Print progress once a minute, even if stderr is not a terminal.")
@click.option("--summary", type=click.Choice(["text", "json", "none"]), help="Print a summary of the run on stderr.")
@click.option("--dry-run", is_flag=True, help="Check and count the lines, print the first request; send nothing.")
@verbose_option
@click.pass_context
def batch(
    ctx: click.Context, /, *, server: ServerOptions, files: tuple[str, ...], merge: bool, status: bool, **values: Any
) -> int:
    """Send each line of FILE or stdin as a prompt; print JSON results.

    A line is "text", {"prompt": "text"}, {"messages": [...]}, or one of OpenAI's batch files. Each result is a line of
    JSON.
    """
    if merge or status:
        from smai_cli.cli.batch.shards import merge_shards, show_status

        if merge:
            return merge_shards(ctx, files, values["output"], values["summary"])
        return show_status(ctx, files, values["summary"])
    from smai_cli.cli.batch.run import BatchRun  # after --help and usage errors
    from smai_cli.common.signals import die_by

    shard, output = _shard_of(values["shard"], values["output"])
    values["model"] = values["model"] or ""  # then each line must name one
    run = BatchRun(BatchValues(file=_only(files), **values | {"shard": shard, "output": output}), server)
    exit_status = run.life.deliver(run.preview if run.typed.dry_run else run.work)
    if run.signum is not None:
        die_by(run.signum)
    return exit_status


def _only(files: tuple[str, ...]) -> str:
    if len(files) > 1:
        raise UsageError("several inputs were given", "name one, or join them: cat FILE... | smai batch")
    return files[0] if files else STDIN_NAME


def _shard_of(text: str | None, output: str | None) -> "tuple[Shard | None, str | None]":
    """Return the shard that --shard names, and -o with its number filled in. Raises UsageError."""
    if text is None and not (output and "{" in output):
        return None, output
    from smai_cli.batch.input.shard import parse_shard, with_number  # only with --shard

    shard = None if text is None else parse_shard(text, os.environ)
    if shard and shard.source:
        say(f"shard {shard} ({shard.source})")
    return shard, with_number(output, shard) if output else output
