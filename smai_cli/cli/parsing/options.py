"""The options as typed, immutable values, made once from click's values."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from smai_cli.common.clocks import Clocks, Deadline
from smai_cli.common.frozen import Frozen
from smai_cli.prompt.inputs import InputOptions

if TYPE_CHECKING:
    from smai_cli.batch.input.shard import Shard
    from smai_cli.config.config_file import Settings
    from smai_cli.config.log_file import LogFile


class ClockOptions(Frozen):
    """The timeouts in seconds and the retries, as click returns them."""

    connect_timeout: float
    idle_timeout: float
    max_time: float
    retries: int

    def deadline(self, now: Callable[[], float] = time.monotonic) -> Deadline:
        """Return the deadline of a run that begins now, on the clock `now`."""
        return Deadline(self.max_time, now)

    def clocks(self, deadline: Deadline) -> Clocks:
        """Return the limits of an exchange in a run with this deadline."""
        return Clocks(connect_timeout_s=self.connect_timeout, idle_timeout_s=self.idle_timeout, deadline=deadline)


class ServerOptions(Frozen):
    """The server, key and headers, from the command line and from the configuration in `settings`."""

    settings: "Settings"
    base_url: str | None
    key_file: str | None
    header: tuple[str, ...]
    clocks: ClockOptions
    mock: bool


class RequestValues(InputOptions):
    """The options for every request, as click returns them; `model` is empty if each line must name one."""

    model: str
    temperature: float | None
    max_tokens: int | None
    top_p: float | None
    effort: str | None
    seed: int | None
    stop: tuple[str, ...]
    api: str
    no_stream: bool


class AskValues(RequestValues):
    """The options that only `smai ask` has, as click returns them."""

    operands: tuple[str, ...]
    record: str | None
    reasoning: bool
    no_stdin: bool
    dry_run: bool
    curl: bool
    verbose: bool

    @property
    def is_preview(self) -> bool:
        """Whether the request is only shown, not sent."""
        return self.dry_run or self.curl


class BatchValues(RequestValues):
    """The options of `smai batch`, except those of the server, as click returns them."""

    file: str
    output: str | None
    resume: bool
    resume_failed: bool
    drop_stale: int
    shard: "Shard | None"
    keep_order: bool
    form: str | None
    lines: bool
    template: str | None
    jobs: int
    no_adapt: bool
    rpm: float | None
    patience: float
    timeout: float
    halt: str
    allow_failed: str | None
    token_limit: int | None
    grace: float
    accept: tuple[str, ...]
    extract: bool
    fail_empty: bool
    progress: bool
    summary: str | None
    dry_run: bool
    verbose: bool


class AskOptions(Frozen):
    """The options of `smai ask`, checked and decoded.

    `words` are the operands. `reads_stdin`: stdin is part of the prompt. `log` is the run log.
    """

    typed: AskValues
    words: list[str]
    reads_stdin: bool
    log: "LogFile | None"
