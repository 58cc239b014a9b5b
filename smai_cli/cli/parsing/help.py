"""The text of --help: examples, and options in groups."""

import contextlib
import inspect
from collections.abc import Sequence
from typing import Any

import click

# The groups of options, in the order of help and manual.
GROUPS = {
    "Prompt": (
        "--system",
        "--attach",
        "--chat",
        "--messages",
        "--no-stdin",
        "--lines",
        "--template",
    ),
    "Model": (
        "--model",
        "--temperature",
        "--max-tokens",
        "--top-p",
        "--effort",
        "--seed",
        "--stop",
        "--json",
        "--schema",
        "--option",
        "--api",
    ),
    "Output": (
        "--extract",
        "--output",
        "--quiet",
        "--keep-order",
        "--final",
        "--raw",
        "--jsonl",
        "--format",
        "--no-stream",
        "--tool-calls",
        "--reasoning",
        "--summary",
        "--progress",
        "--record",
    ),
    "Reliability": (
        "--accept",
        "--fail-empty",
        "--retries",
        "--connect-timeout",
        "--idle-timeout",
        "--max-time",
        "--timeout",
        "--patience",
        "--resume",
        "--resume-failed",
        "--drop-stale",
        "--halt",
        "--allow-failed",
        "--token-limit",
        "--grace",
    ),
    "Speed": ("--jobs", "--no-adapt", "--rpm"),
    "Shards": ("--shard", "--merge", "--status"),
    "Server": ("--profile", "--base-url", "--key-file", "--header", "--mock"),
    "Inspect": ("--dry-run", "--curl", "--verbose", "--help"),
}


class GroupedCommand(click.Command):
    """A command whose help has `examples`, and its options in groups."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **more: Any) -> None:
        super().__init__(*args, **more)
        self.examples = examples

    def make_parser(self, ctx: click.Context) -> Any:
        """Return click's parser, which looks for -m among the long options first.

        For a name that is not there, click imports difflib and compares all names, which takes 3 ms at each start.
        """
        parser = super().make_parser(ctx)
        with contextlib.suppress(AttributeError):  # click does not promise these names
            parser._long_opt.update(parser._short_opt)  # noqa: SLF001
        return parser

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # click's
        """Write the first paragraph, the examples, and the remaining paragraphs."""
        first, _, rest = inspect.cleandoc(self.help or "").partition("\n\n")
        for number, text in enumerate((first, rest)):
            formatter.write_paragraph()
            with formatter.indentation():
                formatter.write_text(text)
            if self.examples and not number:
                with formatter.section("Examples"):
                    for example in self.examples:
                        formatter.write(f"{'':{formatter.current_indent}}{example}\n")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each group that has options; options without a group come last."""
        for title, options in options_in_groups(self, ctx).items():
            rows = [record for option in options if (record := option.get_help_record(ctx))]
            with formatter.section(title):
                formatter.write_dl(rows)


def options_in_groups(command: click.Command, ctx: click.Context) -> dict[str, list[click.Option]]:
    """Return the options of `command` by group title, in the order of GROUPS; those without a group under Options."""
    params = (param for param in command.get_params(ctx) if isinstance(param, click.Option))
    options = {max(option.opts, key=len): option for option in params}
    found = {title: [options.pop(name) for name in names if name in options] for title, names in GROUPS.items()}
    found["Options"] = list(options.values())
    return {title: grouped for title, grouped in found.items() if grouped}
