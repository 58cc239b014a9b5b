"""The pin of a shard: a file that records which shard its results belong to, of how many, and of which input.

It is a separate file, FILE.shard, so that files of results contain only results and can be joined with `cat`.
"""

import contextlib
import hashlib
import json
import os
from typing import NamedTuple

from smai_cli.batch.input.shard import Shard
from smai_cli.common.files import replace_file
from smai_cli.common.shortages import opening_failure
from smai_cli.errors import UsageError

_PIECE_BYTES = 1024 * 1024
# Larger than any pin.
_LIMIT_BYTES = 64 * 1024
_MEMBERS = ("shard", "shards", "lines", "input_bytes", "input_sha256")


class InputId(NamedTuple):
    """Identifies an input: its size, and the SHA-256 of all its bytes."""

    size: int
    sha256: str


class Pin(NamedTuple):
    """The shard of a file of results, its number of lines and its input. The last two are None for a pipe."""

    number: int
    total: int
    lines: int | None
    input: InputId | None


def pin_of(path: str) -> str:
    """Return the name of the pin file for the results in `path`."""
    return f"{os.path.realpath(path) if os.path.islink(path) else path}.shard"


def read_pin(path: str) -> Pin | None:
    """Return the pin of the results in `path`; None if there is none. Raises UsageError if it cannot be read."""
    name = pin_of(path)
    try:
        with open(name, "rb") as file:
            value = json.loads(file.read(_LIMIT_BYTES))
        number, total, lines, size, sha256 = (value[member] for member in _MEMBERS)
        is_known = size is None or (type(size) is int and type(sha256) is str)
        if type(number) is int and type(total) is int and 1 <= number <= total and is_known:
            return Pin(number, total, lines, None if size is None else InputId(size, sha256))
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise UsageError(f"{name}: {exc.strerror}", "make it readable") from exc
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise UsageError(f"{name} does not say which shard it is", "remove it, and run the shard again with --resume")


def check_pin(path: str, shard: Shard | None, fd: int | None, *, has_results: bool) -> None:
    """Raise UsageError if the results in `path` belong to another shard, or another input than `fd` (None: a pipe).

    An input that has only grown is the same input. Without results, nothing is checked. The identity of a pipe is known
    only at its end, see check_piped_input.
    """
    pin = read_pin(path) if has_results else None
    if pin is None:
        return
    its = f"{path} has results of shard {pin.number}/{pin.total}"
    if shard is None:
        raise UsageError(its, f"--shard {pin.number}/{pin.total} continues it")
    if pin.total != shard.total:
        raise UsageError(f"{its}, and this is {shard}", f"N must stay {pin.total}; to start over, choose another -o")
    if pin.number != shard.number:
        raise UsageError(f"{its}, and this is {shard}", "each shard needs its own file: put {shard} into -o")
    if pin.input and fd is not None and not _has_only_grown(fd, pin.input):
        raise UsageError(
            f"{its} of another input", "name the same input, which may only have grown; or choose another -o"
        )


def check_piped_input(path: str, shard: Shard, found: InputId) -> None:
    """Raise UsageError if the results in `path` belong to another input than `found`, which was a pipe."""
    pin = read_pin(path)
    before = pin.input if pin else None
    if before and (found.size < before.size or (found.size == before.size and found != before)):
        raise UsageError(
            f"{path} has results of shard {shard} of another input",
            "name the same input, which may only have grown; or choose another -o",
        )


def identify_pinned_input(path: str, fd: int, *, is_checked: bool) -> InputId:
    """Return the identity of the file `fd`; `is_checked`: check_pin has already compared the pin."""
    size = os.fstat(fd).st_size
    with contextlib.suppress(UsageError):
        pin = read_pin(path) if is_checked else None
        if pin and pin.input and pin.input.size == size:
            return pin.input
    return identify_input(fd, size)


def write_pin(path: str, shard: Shard, found: InputId | None, lines: int | None) -> None:
    """Write the pin of the results in `path`, for `lines` lines of the input `found`.

    Both are None for a pipe that has not ended. The pin is written atomically.
    Raises OutputError.
    """
    with contextlib.suppress(UsageError):
        if read_pin(path) == (shard.number, shard.total, lines, found):
            return
    values = (shard.number, shard.total, lines, *(found or (None, None)))
    name = pin_of(path)
    try:
        replace_file(name, f"{name}.new", json.dumps(dict(zip(_MEMBERS, values, strict=True))).encode() + b"\n")
    except OSError as exc:
        raise opening_failure(name, exc, "check the directory, or choose another -o") from exc


def _has_only_grown(fd: int, before: InputId) -> bool:
    try:
        return os.fstat(fd).st_size >= before.size and identify_input(fd, before.size) == before
    except OSError as exc:
        raise UsageError(f"the input cannot be read: {exc.strerror}", "check where the lines come from") from exc


def identify_input(fd: int, size: int) -> InputId:
    """Return the identity of the first `size` bytes of the file `fd`. Raises OSError."""
    digest = hashlib.sha256()
    at = 0
    while at < size and (piece := os.pread(fd, min(_PIECE_BYTES, size - at), at)):
        digest.update(piece)
        at += len(piece)
    return InputId(size, digest.hexdigest())
