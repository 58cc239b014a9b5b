"""Merge the results of all shards into one file, in the order of the input.

Each file is in the order of its lines, so the files are read in parallel, with one result of each in memory.
"""

import heapq
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from smai_cli.batch.input.pin import Pin, pin_of, read_pin
from smai_cli.batch.input.shard import PLACE
from smai_cli.batch.results.earlier import key_of
from smai_cli.batch.results.result import lines_in, read_result
from smai_cli.errors import Status, UsageError
from smai_cli.output.outfile import partial_of

_READ_BYTES = 64 * 1024
# How many shards a message names.
_MOST_LISTED = 10
_MORE = "run it again with --resume"


class Part(NamedTuple):
    """A file of results, and its pin."""

    path: str
    pin: Pin


class MergeCounts(NamedTuple):
    """The counts of a merge: how many results were written, and how many of them are complete answers."""

    lines: int
    complete: int


def expand_paths(paths: Iterable[str]) -> list[str]:
    """Return the files that `paths` name: a path with {shard} names the files of all shards that have begun.

    Raises UsageError if there are none.
    """
    files: list[str] = []
    for path in paths:
        files += _of_all_shards(path) if PLACE in path else [path]
    return files


def parts_of(paths: Sequence[str]) -> list[Part]:
    """Return the parts: all shards of one input. Raises UsageError if one is missing, incomplete or foreign."""
    parts = [_part(path) for path in paths]
    first = parts[0]
    for part in parts[1:]:
        _check_alike(first, part)
    there = {part.pin.number for part in parts}
    missing = [number for number in range(1, first.pin.total + 1) if number not in there]
    if missing:
        names = ", ".join(map(str, missing[:_MOST_LISTED])) + (", ..." if len(missing) > _MOST_LISTED else "")
        raise UsageError(f"{len(missing)} of {first.pin.total} shards are missing: {names}", "name the files of all")
    return parts


def merge(parts: Sequence[Part], write: Callable[[bytes], object]) -> MergeCounts:
    """Write the results of all parts in input order: of each line the first complete one, else the first.

    Raises UsageError if the parts do not match, and whatever `write` raises.
    """
    numbers: dict[int, int] = {}  # the key of an id -> the number of its line
    lines = complete = 0
    counts: dict[int, int] = {}
    for row in _choose_rows(heapq.merge(*map(_rows, parts), key=lambda row: row.number)):
        if row.name is not None and (number := numbers.setdefault(key_of(row.name, b""), row.number)) != row.number:
            raise UsageError(
                f"lines {number} and {row.number} have the same id, {json.dumps(row.name, ensure_ascii=False)}",
                "give each line its own id; cat joins the files as they are",
            )
        lines += 1
        complete += row.is_complete
        counts[row.number % parts[0].pin.total] = counts.get(row.number % parts[0].pin.total, 0) + 1
        write(row.data)
    for part in parts:
        found = counts.get(part.pin.number % part.pin.total, 0)
        if part.pin.lines is not None and found != part.pin.lines:
            raise UsageError(f"{part.path} has results of {found} lines, but its shard has {part.pin.lines}", _MORE)
    return MergeCounts(lines, complete)


class _ResultRow(NamedTuple):
    number: int
    name: str | int | None
    digest: bytes
    is_complete: bool
    path: str
    data: bytes


def _rows(part: Part) -> Iterator[_ResultRow]:
    """Yield the results of a part. Raises UsageError for a line that is not a result, or is from another shard."""
    before = 0
    try:
        with open(part.path, "rb", buffering=_READ_BYTES) as file:
            for _, data in lines_in(file):
                known = read_result(data)
                if known is None or not data.endswith(b"\n"):
                    raise UsageError(f"{part.path} has a line that is not a result, after line {before}", _MORE)
                if known.number < before:
                    raise UsageError(f"{part.path} is not in the order of its lines at line {known.number}", _MORE)
                if (known.number - part.pin.number) % part.pin.total:
                    its = f"{part.pin.number}/{part.pin.total}"
                    raise UsageError(f"{part.path} has a result of line {known.number}, not of shard {its}", _MORE)
                before = known.number
                is_complete = known.status == Status.COMPLETE
                yield _ResultRow(known.number, known.id, known.digest, is_complete, part.path, data)
    except OSError as exc:
        raise UsageError(f"{part.path}: {exc.strerror}", "name the files of all shards") from exc


def _choose_rows(rows: Iterator[_ResultRow]) -> Iterator[_ResultRow]:
    """Yield one result per line: if a part is named duplicates, the first complete one."""
    held: _ResultRow | None = None
    for row in rows:
        if held is None or row.number != held.number:
            if held:
                yield held
            held = row
        elif row.digest != held.digest or row.name != held.name:
            raise UsageError(
                f"line {row.number} differs between {held.path} and {row.path}", "name the results of one input"
            )
        elif row.is_complete and not held.is_complete:
            held = row
    if held:
        yield held


def _of_all_shards(path: str) -> list[str]:
    """Return the files of all shards that have a pin. Raises UsageError if there are none."""
    import glob  # it compiles a pattern

    pattern = pin_of("*".join(glob.escape(piece) for piece in path.split(PLACE)))
    for name in sorted(glob.glob(pattern)):
        pin = read_pin(name.removesuffix(".shard"))
        if pin:
            return [path.replace(PLACE, str(number)) for number in range(1, pin.total + 1)]
    raise UsageError(f"{path}: no shard has begun", "use the same name as in -o of the shards")


def _part(path: str) -> Part:
    if path.endswith(".partial"):
        raise UsageError(f"{path} is not complete", f"{_MORE}; --status shows its progress")
    for name, what in ((path, "is missing"), (pin_of(path), "is missing, which identifies the shard")):
        if not os.path.exists(name):
            if name == path and os.path.exists(partial_of(path)):
                break
            raise UsageError(f"{name} {what}", "name the results of the shards, and keep each .shard file next to them")
    if os.path.exists(partial_of(os.path.realpath(path))):
        raise UsageError(
            f"{path} is not complete: there is {partial_of(path)}", f"{_MORE}; --status shows its progress"
        )
    pin = read_pin(path)
    if pin is None:
        raise UsageError(f"{pin_of(path)} is gone", "name the results of the shards")
    return Part(path, pin)


def _check_alike(one: Part, other: Part) -> None:
    if one.pin.total != other.pin.total:
        its, others = (f"{part.pin.number}/{part.pin.total}" for part in (one, other))
        raise UsageError(f"{one.path} is shard {its}, and {other.path} is {others}", "name shards with the same N")
    if one.pin.input == other.pin.input:
        return
    sizes = [part.pin.input.size if part.pin.input else 0 for part in (one, other)]
    if sizes[0] != sizes[1] and all(sizes):
        shorter = one if sizes[0] < sizes[1] else other
        raise UsageError(
            f"the input of {one.path} had {sizes[0]} bytes, and that of {other.path} {sizes[1]}",
            f"if it has grown, run shard {shorter.pin.number} again with --resume",
        )
    raise UsageError(f"{one.path} and {other.path} belong to different inputs", "name the results of one input")
