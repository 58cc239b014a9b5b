"""`smai batch`: many prompts in, one true result each."""

import os
import re
from typing import TYPE_CHECKING, Any

import click

from smai_cli.cli.group import (
    APIS,
    SECONDS,
    Number,
    complete_file,
    extract_option,
    model_option,
    request_options,
    server_options,
    verbose_option,
)
from smai_cli.cli.options import BatchValues, ServerOptions
from smai_cli.errors import UsageError
from smai_cli.files import STDIN_NAME
from smai_cli.output.descriptors import say

if TYPE_CHECKING:
    from smai_cli.batch.shard import Shard

_MOST_JOBS = 512


def _checked_share(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Return the value of --allow-failed, checked."""
    if value is not None and not re.fullmatch(r"\d+|\d+(\.\d+)?%", value):
        raise click.BadParameter(f"{value!r} is neither a number nor a share in percent", ctx, param)
    return value


@click.command(epilog="Manual: man smai-batch. Exit status 0 means: each line has a complete answer, delivered.")
@click.argument("files", metavar="[FILE]...", nargs=-1, shell_complete=complete_file)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    shell_complete=complete_file,
    help="Put the results into FILE, once all are complete; FILE.partial grows.",
)
@click.option("--resume", is_flag=True, help="Go on with FILE.partial; ask again what may succeed now.")
@click.option("--resume-failed", is_flag=True, help="Go on, and ask all failures again.")
@click.option("--drop-stale", is_flag=True, help="Put results of changed lines into FILE.stale, and go on.")
@click.option("--shard", metavar="K/N", help="Ask lines K, K+N, ... only; auto/N or auto: as the engine says.")
@click.option("--merge", is_flag=True, help="Join the results of all shards, FILE..., in input order.")
@click.option("--status", is_flag=True, help="Print how far the shards are whose results are in FILE...")
@click.option("-k", "--keep-order", is_flag=True, help="Put stdout into the order of the input.")
@click.option("--format", "form", type=click.Choice(["flat", "openai"]), help="The form of a result.  [default: as in]")
@click.option("--lines", is_flag=True, help="A line is the prompt itself, not JSON.")
@click.option("--template", metavar="TEXT", help="Ask TEXT: {} is the line, {name} a member; @FILE reads it.")
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1, _MOST_JOBS),
    default=8,
    show_default=True,
    help="How many at once, at most.",
)
@click.option("--no-adapt", is_flag=True, help="Hold that number, however busy the server is.")
@click.option("--rpm", type=Number(0), help="Start at most so many requests a minute.")
@click.option(
    "--patience",
    type=SECONDS,
    default=300,
    show_default=True,
    help="Seconds in which something must succeed while the server is busy; 0: no limit.",
)
@click.option("--timeout", type=SECONDS, default=0, help="Seconds for one line, tries and all.  [default: no limit]")
@click.option("--halt", metavar="WHEN", default="never", show_default=True, help="soon,fail=N, now,fail=N% or never.")
@click.option(
    "--allow-failed", metavar="N|N%", callback=_checked_share, help="Be content although so many lines have failed."
)
@click.option("--token-limit", type=click.IntRange(min=1), metavar="N", help="Start nothing more after N tokens.")
@click.option(
    "--grace", type=SECONDS, default=20, show_default=True, help="Seconds for what runs to end after a signal."
)
@model_option("The model to ask.", is_required=False)
@click.option("-s", "--system", metavar="TEXT", help="The system message; @FILE reads it from FILE.")
@request_options
@click.option("-O", "--option", metavar="KEY=VALUE", multiple=True, help="Put KEY into each request; repeatable.")
@extract_option
@click.option("--accept", metavar="WORD", multiple=True, help="Take this finish_reason as a success; repeatable.")
@click.option(
    "--api", type=click.Choice(APIS), default="auto", show_default=True, help="The API to ask; auto: by the model."
)
@click.option("--no-stream", is_flag=True, help="Ask for each answer in one piece.")
@server_options
@click.option("--progress", is_flag=True, help="Say once a minute how far it is, where stderr is no terminal.")
@click.option("--summary", type=click.Choice(["text", "json", "none"]), help="Put the end in numbers on stderr.")
@click.option("--dry-run", is_flag=True, help="Check and count the lines, print the first request; send nothing.")
@verbose_option
@click.pass_context
def batch(
    ctx: click.Context, /, *, server: ServerOptions, files: tuple[str, ...], merge: bool, status: bool, **values: Any
) -> int:
    """Ask what stands in each line of FILE, or of stdin, and print a result for each as a line of JSON.

    A line is "text", {"prompt": "text"}, {"messages": [...]}, or one of OpenAI's batch files.
    """
    if merge or status:
        from smai_cli.cli.batch_shards import merge_shards, show_status  # noqa: PLC0415  # as below

        if merge:
            return merge_shards(ctx, files, values["output"], values["summary"])
        return show_status(ctx, files, values["summary"])
    from smai_cli.cli.batch_run import BatchRun  # noqa: PLC0415  # after --help and usage errors
    from smai_cli.main import die_by  # noqa: PLC0415

    shard, output = _shard_of(values["shard"], values["output"])
    values["model"] = values["model"] or ""  # then each line has to name one
    run = BatchRun(BatchValues(file=_only(files), **values | {"shard": shard, "output": output}), server)
    exit_status = run.life.deliver(run.preview if run.typed.dry_run else run.work)
    if run.signum is not None:
        die_by(run.signum)
    return exit_status


def _only(files: tuple[str, ...]) -> str:
    if len(files) > 1:
        raise UsageError("there are several inputs", "one at a time; or join them: cat FILE... | smai batch")
    return files[0] if files else STDIN_NAME


def _shard_of(text: str | None, output: str | None) -> "tuple[Shard | None, str | None]":
    """Return the shard that --shard names, and -o with its number in it. Raises UsageError."""
    if text is None and not (output and "{" in output):
        return None, output
    from smai_cli.batch.shard import parse_shard, with_number  # noqa: PLC0415  # for those who have many machines

    shard = None if text is None else parse_shard(text, os.environ)
    if shard and shard.source:
        say(f"shard {shard} ({shard.source})")
    return shard, with_number(output, shard) if output else output
