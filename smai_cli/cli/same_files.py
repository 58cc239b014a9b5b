"""Check the files of a command line: a file that is written must not be read or written under another name."""

import os
import stat
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import NamedTuple

from smai_cli.errors import UsageError


class Use(NamedTuple):
    """A file of a run: the option that names it, as shown in messages, and its name or descriptor.

    `alone`: it must not be any other file of the run, because it is written.
    """

    option: str
    file: str | int
    alone: bool = False


def refuse_clashes(named: Sequence[Use], streams: Iterable[Use]) -> None:
    """Raise UsageError if two names are the same file, through any links, and one of them must be alone.

    `streams` are the standard streams. They may be a file that is only read: `>>` appends an answer to the prompt.
    Changes nothing.
    """
    known = [(use, _identity(use.file)) for use in named]
    stream_uses = [(use, _identity(use.file)) for use in streams]
    pairs = [*combinations(known, 2), *((one, stream) for one in known for stream in stream_uses)]
    for (one, its), (other, others) in pairs:
        if its is not None and its == others and (one.alone or other.alone) and one.option != other.option:
            name = next((f", {use.file}" for use in (one, other) if isinstance(use.file, str)), "")
            raise UsageError(f"{one.option} and {other.option} are the same file{name}", "choose another one")


def list_written_files(output: str | None, record: str | None = None, chat: str | None = None) -> list[Use]:
    """Return the files that a run writes, including temporary ones. Raises UsageError if one cannot be written."""
    uses = []
    if output:
        from smai_cli.output import outfile  # for those who name one

        place = outfile.output_place(output)
        uses += [Use("-o", output, alone=True), Use("the .partial of -o", outfile.partial_of(place), alone=True)]
    if record:
        uses.append(Use("--record", record, alone=True))
    if chat:
        from smai_cli.prompt import conversation

        place = conversation.chat_place(chat)
        uses.append(Use("--chat", chat, alone=True))
        uses += [Use("a file next to that of --chat", name, alone=True) for name in conversation.side_paths(place)]
    return uses


def streams(*, quiet: bool, reads_stdin: bool) -> list[Use]:
    """Return the standard streams that a run uses."""
    return [Use("stderr", 2), *([] if quiet else [Use("stdout", 1)]), *([Use("stdin", 0)] if reads_stdin else [])]


def _identity(file: str | int) -> tuple[int, int, str] | None:
    """Return the identity of a regular file, also of one that does not exist yet; None for anything else."""
    try:
        found = os.stat(file)
    except FileNotFoundError:
        return _identity_to_be(file) if isinstance(file, str) else None
    except (OSError, ValueError):  # opening it will report the error
        return None
    return (found.st_dev, found.st_ino, "") if stat.S_ISREG(found.st_mode) else None


def _identity_to_be(path: str) -> tuple[int, int, str] | None:
    try:
        folder, name = os.path.split(os.path.realpath(path))  # fails if the current folder was removed
        found = os.stat(folder)
    except OSError:
        return None
    return found.st_dev, found.st_ino, name
