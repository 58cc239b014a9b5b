"""`smai batch --merge` and `--status`, for the results of several machines."""

from collections.abc import Sequence

import click

from smai_cli.batch.results.merge import expand_paths, merge, parts_of
from smai_cli.batch.results.status import as_json, as_table, progress_of
from smai_cli.cli import same_files
from smai_cli.cli.descriptor_limit import allow_descriptors
from smai_cli.cli.lifecycle import Lifecycle
from smai_cli.cli.parsing.shared_options import is_typed
from smai_cli.common.text import escaped
from smai_cli.errors import UsageError
from smai_cli.output.descriptors import Output, say
from smai_cli.output.outfile import OutFile

_FDS_OTHER = 32


def merge_shards(ctx: click.Context, files: Sequence[str], output: str | None, summary: str | None) -> int:
    """Merge the results of all shards into `output`, or to stdout; return the exit status."""
    _check_alone(ctx, "--merge", files, ("output", "summary"))
    if output in ("", "-"):
        raise UsageError("-o needs a file name", "leave -o out for stdout; is a variable empty?")
    life = Lifecycle(watches_stdout=not output)
    return life.deliver(lambda: _merge(life, expand_paths(files), output, summary))


def show_status(ctx: click.Context, files: Sequence[str], summary: str | None) -> int:
    """Print the progress of the shards, as a table or as JSON; return the exit status."""
    _check_alone(ctx, "--status", files, ("summary",))

    def work() -> None:
        names = dict.fromkeys(name.removesuffix(".partial") for name in expand_paths(files))
        shards = [progress_of(name) for name in names]
        if summary == "json":
            Output().show_lines([as_json(shards)], escaped)
        else:
            Output().show(as_table(shards).encode(errors="surrogateescape"))

    return Lifecycle().deliver(work)


def _merge(life: Lifecycle, files: list[str], output: str | None, summary: str | None) -> None:
    named = [same_files.Use("FILE", file) for file in files]
    same_files.refuse_clashes(
        [*named, *same_files.list_written_files(output)], same_files.streams(quiet=bool(output), reads_stdin=False)
    )
    parts = parts_of(files)
    _allow_descriptors(len(parts))
    if not output:
        stdout = Output()
        merged = merge(parts, lambda line: stdout.show(line, escaped))
    else:
        out = OutFile(output)
        merged = merge(parts, out.output.write)
        out.prepare()
        life.end_no_more()
        out.commit()
    if summary == "text":
        say(f"{merged.complete} of {merged.lines} complete")


def _allow_descriptors(count: int) -> None:
    """Allow enough descriptors to read all files at once. Raises UsageError."""
    wanted = count + _FDS_OTHER
    found = allow_descriptors(wanted)
    if found < wanted:
        raise UsageError(f"{found} file descriptors are too few for {count} files", f"raise ulimit -n to {wanted}")


def _check_alone(ctx: click.Context, option: str, files: Sequence[str], allowed: tuple[str, ...]) -> None:
    """Raise UsageError for options that have no effect with `option`, and if no file is named."""
    own = option.removeprefix("--")
    typed = [
        max(param.opts, key=len)
        for param in ctx.command.params
        if isinstance(param, click.Option) and param.name not in (own, *allowed) and is_typed(param.name or "", ctx)
    ]
    if typed:
        raise UsageError(f"{option} sends nothing, so {typed[0]} has no effect", "leave one of them out")
    if not files:
        raise UsageError(f"{option} needs a file name", "name the results of the shards, such as 'out.{shard}.jsonl'")
