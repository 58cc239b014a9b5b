"""Turn an input into jobs: numbered and checked lines, without those that are settled."""

import contextlib
import hashlib
import threading
from array import array
from collections.abc import Callable, Iterator
from typing import NamedTuple

from smai_cli.batch.input.encoding import Encoding, digest_of_line
from smai_cli.batch.input.lines import (
    Defaults,
    Line,
    LineError,
    NotJsonError,
    describe_line,
    read_line,
    read_plain_line,
)
from smai_cli.batch.input.source import Input
from smai_cli.batch.results.plan import DuplicateIdError, Plan
from smai_cli.batch.results.result import LineIdentity
from smai_cli.errors import UsageError

# How many bad lines a message lists.
_MOST_LISTED = 10


class Job(NamedTuple):
    """A line to send: its place among the non-blank lines, what its result says about it, and the line.

    In place of a line that cannot be sent, it has the reason.
    """

    place: int
    identity: LineIdentity
    line: Line | LineError


class Feed:
    """The jobs of an input, one at a time. Safe for threads.

    `plan` says which are settled. `may_take` is called with the place and the number of each line before it is
    handed out, and may wait.
    """

    def __init__(self, source: Input, defaults: Defaults, requests: Encoding, plan: Plan) -> None:
        self.plan = plan
        self.may_take: Callable[[int, int], bool] = lambda *_: True
        self._source = source
        self._defaults = defaults
        self._requests = requests
        self._lock = threading.Lock()
        self._copies: dict[int, int] = {}  # place -> copy, for the few requests that occur more than once
        self._jobs: Iterator[Job] = iter(())
        self._contents = array("q")  # a checksum of the number and content of each line of a file

    def check(self) -> None:
        """Read a regular file completely, so that nothing is sent if a line is bad. Raises UsageError.

        The error names the first ten bad lines, or the first one whose result is for another request. A pipe is not
        read in advance.
        """
        if self._source.is_file:
            bad: list[str] = []
            count = not_json = 0
            del self._contents[:]
            digest_of = self._digest_of_prompt()
            for place, (number, data) in enumerate(self._source.lines()):
                self._contents.append(_checksum(number, data))
                try:
                    self._add(place, number, data, digest_of)
                except (LineError, DuplicateIdError) as error:
                    count += 1
                    not_json += isinstance(error.__cause__, NotJsonError)
                    if len(bad) < _MOST_LISTED:
                        bad.append(_describe_error(number, error))
            if bad:
                more = f"; {count - len(bad)} more" if count > len(bad) else ""
                what = f"{self._source.name}: {'; '.join(bad)}{more}"
                if not_json == len(self._contents):
                    raise UsageError(what, "nothing was sent; --lines takes each line as plain text")
                raise UsageError(what, "nothing was sent; fix the lines")
            if not len(self.plan) and not self._source.may_be_empty:
                raise no_lines(self._source)
        self._jobs = self._all()

    def take(self) -> Job | None:
        """Return the next job; None after the last one. Raises UsageError if reading fails."""
        with self._lock:
            job = next(self._jobs, None)
            return job if job and self.may_take(job.place, job.identity.number) else None

    def check_unchanged(self) -> None:
        """Raise UsageError, which names the line, if the lines of a file have changed since they were checked.

        Lines that were appended later do not belong to this run.
        """
        if self._source.has_changed():
            self._compare()

    def _compare(self) -> None:
        """Raise UsageError for the first line that has changed since it was checked."""
        number, place = 0, -1
        for place, (number, data) in enumerate(self._source.lines()):  # also finds missing lines at the end
            if place == len(self._contents):
                return
            if self._is_changed(place, number, data):
                raise _change_error(f"line {number} differs")
        if place + 1 < len(self._contents):
            raise _change_error(f"it ends after line {number}")

    def _all(self) -> Iterator[Job]:
        is_planned = self._source.is_file
        number, place = 0, -1
        for place, (number, data) in enumerate(self._source.lines()):
            if is_planned and place >= len(self.plan):
                return  # the file has grown
            if is_planned and self._is_changed(place, number, data):
                self._compare()  # the first change may be in a line that was read before
                raise _change_error(f"line {number} differs")
            if is_planned and self.plan.is_settled(place):
                continue
            job = self._job(place, number, data, is_planned=is_planned)
            if not self.plan.is_settled(place):
                yield job
        if is_planned and place + 1 < len(self.plan):
            raise _change_error(f"it ends after line {number}")

    def _is_changed(self, place: int, number: int, data: bytes) -> bool:
        return _checksum(number, data) != self._contents[place]

    def _job(self, place: int, number: int, data: bytes, *, is_planned: bool) -> Job:
        try:
            line = read_line(number, data, self._defaults)
            digest = self._digest(line)
            line_digest = digest_of_line(data, is_text=self._defaults.is_text)
            copy = self._copies.get(place, 1) if is_planned else self.plan.add(number, line.id, digest, line_digest)
            return Job(
                place, LineIdentity(number, line.id, digest, copy, line.form, line.user_members, line_digest), line
            )
        except LineError as error:
            failure = error
        except DuplicateIdError as error:  # only one result can have the name
            failure = LineError(error, None, line.form)
        digest = hashlib.sha256(data).digest()
        copy = 1
        if not is_planned:
            try:
                copy = self.plan.add(number, failure.name, digest)
            except DuplicateIdError:  # nor can this one
                failure.name = None
                copy = self.plan.add(number, None, digest)
        return Job(place, LineIdentity(number, failure.name, digest, copy, failure.form, {}), failure)

    def _digest(self, line: Line) -> bytes:
        try:
            return self._requests.digest(line)
        except UsageError as error:  # the request cannot be encoded
            raise LineError(error, line.id, line.form) from error

    def _digest_of_prompt(self) -> Callable[[bytes], bytes] | None:
        """Return a function from the prompt of a plain line to its digest; None if no line is read as plain."""
        if self._defaults.is_text or self._defaults.template:
            return None
        with contextlib.suppress(UsageError):  # the first line reports it
            return self._requests.digest_of_prompt(read_line(1, b'"?"', self._defaults))
        return None

    def _add(self, place: int, number: int, data: bytes, digest_of: Callable[[bytes], bytes] | None) -> None:
        plain = read_plain_line(data) if digest_of else None
        if digest_of and plain:
            name, digest = plain[0], digest_of(plain[1])
        else:
            line = read_line(number, data, self._defaults)
            name, digest = line.id, self._digest(line)
        line_digest = b""
        if self.plan.needs_line_digests:
            line_digest = digest_of_line(data, is_text=self._defaults.is_text)
        copy = self.plan.add(number, name, digest, line_digest)
        if copy > 1:
            self._copies[place] = copy


def _checksum(number: int, data: bytes) -> int:
    return hash((number, data.rstrip(b"\r\n")))  # the last line may have had no line end yet


def _change_error(what: str) -> UsageError:
    return UsageError(f"the input changed during the run: {what}", "run again with --resume")


def no_lines(source: Input) -> UsageError:
    """Return the failure of an input with nothing in it."""
    return UsageError(f"{source.name} has no lines", "give it one prompt per line")


def _describe_error(number: int, error: UsageError) -> str:
    name = error.name if isinstance(error, LineError | DuplicateIdError) else None
    return f"{describe_line(number, name)}: {error.describe()}"
