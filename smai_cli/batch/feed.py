"""An input -> the jobs in it: numbered lines, checked, and without those that are settled."""

import contextlib
import hashlib
import io
import os
import stat
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from smai_cli.batch.lines import Defaults, Line, LineError, is_blank, plain_line, read_line, shown_line
from smai_cli.batch.plan import Plan, TwiceError
from smai_cli.batch.results import Asked
from smai_cli.errors import UsageError
from smai_cli.stream.pump import Dialect

# How many bad lines are told of an input that is refused.
_TOLD = 10
# One line: more than anybody means to ask.
_LINE_BYTES = 256 * 1024 * 1024


class Job(NamedTuple):
    """A line to ask: its place among those that are not blank, what its result says of it, and the line.

    `failure` is why a line cannot be asked, and then there is none.
    """

    place: int
    asked: Asked
    line: Line | None
    failure: LineError | None = None


class Requests(Protocol):
    """What makes requests of lines."""

    def dialect(self, line: Line, /) -> Dialect:
        """Return the API to ask a line in."""

    def digest(self, line: Line, /) -> bytes:
        """Return the SHA-256 of the body of its request, as it is without a stream."""

    def digest_of_prompt(self, line: Line, /) -> Callable[[bytes], bytes] | None:
        """Return what makes that of a line which differs in its prompt only, which it takes as JSON."""


class Start(NamedTuple):
    """Where a line is in a file: its number from 1, and its offset."""

    number: int
    offset: int


class _First(NamedTuple):
    """The first line of a file that is to be asked: its place, where it is, and the hash of its bytes."""

    place: int
    start: Start
    content: int


class Input:
    """The lines of a descriptor; `name` is what a message calls it. A regular file is read from where it stands.

    `may_be_empty` says that it is nobody's mistake if there is no line.
    """

    may_be_empty = False

    def __init__(self, fd: int, name: str) -> None:
        self.name = name
        self.is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        self._fd = fd
        self._start = os.lseek(fd, 0, os.SEEK_CUR) if self.is_file else 0

    @property
    def file(self) -> int | None:
        """The descriptor of a regular file; None for a pipe."""
        return self._fd if self.is_file else None

    def lines(self, start: Start | None = None) -> Iterator[tuple[int, int, bytes]]:
        """Yield each line that is not blank, with its number and its offset, from that at `start` on.

        Raises UsageError where reading fails.
        """
        return (line for line in self.all_lines(start) if not is_blank(line[2]))

    def all_lines(self, start: Start | None = None) -> Iterator[tuple[int, int, bytes]]:
        """Yield each line as `lines` does, blank or not."""
        number, offset = start or Start(1, self._start)
        file = io.BufferedReader(_Raw(self._fd, offset if self.is_file else None), 64 * 1024)
        try:
            while data := file.readline(_LINE_BYTES):
                if len(data) == _LINE_BYTES:
                    raise UsageError(f"{self.name}, line {number} is longer than 256 MiB", "send less in one line")
                yield number, offset, data
                number += 1
                offset += len(data)
        except OSError as exc:
            raise UsageError(f"{self.name}: {exc.strerror}", "check where the lines come from") from exc


class _Raw(io.RawIOBase):
    """A descriptor from an offset of our own, or as it stands where it has none; it stays open."""

    def __init__(self, fd: int, offset: int | None) -> None:
        self._fd = fd
        self._offset = offset

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if self._offset is None:
            data = os.read(self._fd, len(buffer))
        else:
            data = os.pread(self._fd, len(buffer), self._offset)
            self._offset += len(data)
        buffer[: len(data)] = data
        return len(data)


class Feed:
    """The jobs of an input, one by one, for any thread.

    `plan` says which are settled. `may_take` is asked for each place before it is given away, and may wait.
    """

    def __init__(self, source: Input, defaults: Defaults, requests: Requests, plan: Plan) -> None:
        self.plan = plan
        self.may_take: Callable[[int], bool] = lambda _: True
        self.is_over = False
        self._source = source
        self._defaults = defaults
        self._requests = requests
        self._lock = threading.Lock()
        self._first: _First | None = None
        self._copies: dict[int, int] = {}  # of the few places whose request is there more than once
        self._jobs: Iterator[Job] = iter(())

    def check(self) -> None:
        """Read a regular file whole, so that nothing is asked of one that has a bad line. Raises UsageError.

        It names the first ten, or the first whose result is for another request. Of a pipe nothing is read before it
        is asked for.
        """
        if self._source.is_file:
            bad: list[str] = []
            count = 0
            digest_of = self._digest_of_prompt()
            for place, (number, offset, data) in enumerate(self._source.lines()):
                try:
                    self._add(place, number, data, digest_of)
                    if self._first is None and not bad and not self.plan.is_settled(place):
                        self._first = _First(place, Start(number, offset), _content(data))
                except (LineError, TwiceError) as error:
                    count += 1
                    if len(bad) < _TOLD:
                        bad.append(_told(number, error))
            if bad:
                more = f"; {count - len(bad)} more" if count > len(bad) else ""
                raise UsageError(f"{self._source.name}: {'; '.join(bad)}{more}", "nothing was asked; mend the lines")
            if not len(self.plan) and not self._source.may_be_empty:
                raise no_lines(self._source)
        self._jobs = self._all()

    def take(self) -> Job | None:
        """Return the next job; None behind the last one. Raises UsageError where reading fails."""
        with self._lock:
            job = next(self._jobs, None)
            if job is None:
                self.is_over = True
            elif not self.may_take(job.place):
                return None
            return job

    def first(self) -> Line | None:
        """Return the first line that would be asked."""
        return next((job.line for job in self._all() if job.line), None)

    def _all(self) -> Iterator[Job]:
        is_planned, first = self._source.is_file, self._first
        if is_planned and first is None:
            return
        lines = self._source.lines(first.start if first else None)
        for place, (number, _, data) in enumerate(lines, first.place if first else 0):
            if first and place == first.place and _content(data) != first.content:
                raise UsageError("the input has changed while it was read", "run it again with --resume")
            if is_planned and place >= len(self.plan):
                return  # it has grown since
            if is_planned and self.plan.is_settled(place):
                continue
            job = self._job(place, number, data, is_planned=is_planned)
            if not self.plan.is_settled(place):
                yield job

    def _job(self, place: int, number: int, data: bytes, *, is_planned: bool) -> Job:
        try:
            line = read_line(number, data, self._defaults)
            digest = self._digest(line)
            copy = self._copies.get(place, 1) if is_planned else self.plan.add(number, line.id, digest)
            return Job(place, Asked(number, line.id, digest, copy, line.form, line.handed), line)
        except LineError as error:
            failure = error
        except TwiceError as error:  # only one of the two can have the name in the results
            failure = LineError(error.what, error.hint, None, line.form)
        digest = hashlib.sha256(data).digest()
        copy = 1
        if not is_planned:
            try:
                copy = self.plan.add(number, failure.name, digest)
            except TwiceError:  # it cannot have the name either
                failure.name = None
                copy = self.plan.add(number, None, digest)
        return Job(place, Asked(number, failure.name, digest, copy, failure.form, {}), None, failure)

    def _digest(self, line: Line) -> bytes:
        try:
            return self._requests.digest(line)
        except UsageError as error:  # what no server could be sent
            raise LineError(error.what, error.hint, line.id, line.form) from error

    def _digest_of_prompt(self) -> Callable[[bytes], bytes] | None:
        """Return what makes the digest of a line with a prompt and no more; None where each is to be read in full."""
        if self._defaults.template or self._defaults.is_text:
            return None
        with contextlib.suppress(UsageError):  # in the options: it is told of the first line
            return self._requests.digest_of_prompt(read_line(0, b'"?"', self._defaults))
        return None

    def _add(self, place: int, number: int, data: bytes, digest_of: Callable[[bytes], bytes] | None) -> None:
        plain = digest_of and plain_line(data, digest_of)
        if plain:
            name, digest = plain
        else:
            line = read_line(number, data, self._defaults)
            name, digest = line.id, self._digest(line)
        copy = self.plan.add(number, name, digest)
        if copy > 1:
            self._copies[place] = copy


def _content(data: bytes) -> int:
    return hash(data.rstrip(b"\r\n"))  # the last line may have had no end yet


def no_lines(source: Input) -> UsageError:
    """Return the failure of an input with nothing in it."""
    return UsageError(f"{source.name} has no line to ask", "give it one prompt a line")


def _told(number: int, error: UsageError) -> str:
    name = error.name if isinstance(error, LineError) else None
    return error.what if error.what.startswith("line ") else f"{shown_line(number, name)}: {error.what}"
