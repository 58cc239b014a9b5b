"""One run of `smai batch`, from its options to its end: what is opened, watched, told and put into place."""

import contextlib
import gc
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

from smai_cli.batch import report
from smai_cli.batch.batch import Batch, BatchOptions, Tally
from smai_cli.batch.encoding import Encoding
from smai_cli.batch.feed import Feed, no_lines
from smai_cli.batch.gate import Limits
from smai_cli.batch.halt import parse_halt
from smai_cli.batch.outputs import InOrder, ToFile, ToStdout
from smai_cli.batch.partial import PartialFile
from smai_cli.batch.pin import check_pin, write_pin
from smai_cli.batch.plan import Found, Plan
from smai_cli.batch.results import read_result
from smai_cli.cli.batch_input import BatchInput, read_input
from smai_cli.cli.batch_preview import print_batch
from smai_cli.cli.command_line import log_of
from smai_cli.cli.descriptor_limit import allow_descriptors
from smai_cli.cli.lifecycle import Lifecycle
from smai_cli.cli.options import BatchValues, ServerOptions
from smai_cli.cli.server import chosen_endpoint, serving
from smai_cli.clocks import Clocks, Deadline
from smai_cli.config.endpoint import Endpoint, find_ca_file
from smai_cli.errors import SmaiError, UsageError
from smai_cli.http import transport
from smai_cli.http.keepalive import KeepAlive
from smai_cli.http.trace import Tracer, silent
from smai_cli.main import die_by
from smai_cli.output import ledger
from smai_cli.output.descriptors import STDERR, Output, say, say_plain, stderr_can_draw
from smai_cli.stream.pump import Source

# The signals with which a person, an engine or a terminal ends a run; some engines warn with the last three.
_ENDING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
# Descriptors: of one request under way, and of the process beside them.
_FDS_EACH = 3
_FDS_BESIDE = 32
_ALL = 100
_MINUTE_S = 60.0
# How long after the grace a run may take to end.
_LATE_S = 5.0


class BatchRun:
    """One run of the command: `life` is when it ends, `signum` the signal that has ended it."""

    def __init__(self, typed: BatchValues, server: ServerOptions) -> None:
        self.typed = typed
        self.signum: int | None = None
        self._base_url: str | None = None
        self._begun_s = time.monotonic()
        self._halt = parse_halt(typed.halt)
        self._server = server
        self._deadline = server.clocks.deadline()
        self._tracer = Tracer(say) if typed.verbose else None
        self.life = Lifecycle(
            self._deadline,
            watches_stdout=not typed.output,
            report=self._report,
            before_end=self._stop_progress,
        )
        self._told = report.Told(self.life.say)
        self._plan: Plan | None = None
        self._batch: Batch | None = None
        self._partial: PartialFile | None = None
        self._progress: report.Progress | None = None
        self._place = typed.output  # what the end names: where the results are

    def work(self) -> None:
        """Ask what is to be asked, and put the results where they belong. Raises SmaiError."""
        given = read_input(self.typed, self._server)
        endpoint = chosen_endpoint(self._server, self._deadline)
        self.life.key = endpoint.secrets if endpoint else None
        self._base_url = endpoint.base_url if endpoint else None
        if self._tracer:
            self._tracer.key = self.life.key
        encoding = _encoding(self._server, self.typed)
        if self.typed.output:
            self._partial = PartialFile(self.typed.output, resumes=self.typed.resume or self.typed.resume_failed)
            self._place = self._partial.name
        try:
            feed = self._pinned_feed(given, encoding)
            self._plan = feed.plan
            if not given.source.is_file or feed.plan.settled < len(feed.plan):
                self._ask(given, feed, encoding, endpoint)
            if not len(feed.plan) and not given.source.may_be_empty and self.signum is None:
                raise no_lines(given.source)
            self._finish(feed.plan)
        finally:
            if self._partial:
                self._partial.leave()

    def preview(self) -> None:
        """Print what would be asked, and how much it is. Raises SmaiError."""
        given = read_input(self.typed, self._server)
        encoding = _encoding(self._server, self.typed)
        feed = Feed(given.source, given.defaults, encoding, Plan())
        feed.check()
        print_batch(feed, encoding, self._server, self._deadline)

    def _pinned_feed(self, given: BatchInput, encoding: Encoding) -> Feed:
        """Return the lines that are left to ask, of the shard that the results in the file are of.

        Raises UsageError, or OutputError.
        """
        output, shard, file = self.typed.output, self.typed.shard, given.source.file
        if output is None or self._partial is None:
            return self._feed(given, encoding)
        check_pin(output, shard, file, has_results=self._partial.has_results)
        feed = self._feed(given, encoding)
        if shard:
            write_pin(output, shard, file, None if file is None else len(feed.plan))
        return feed

    def _feed(self, given: BatchInput, encoding: Encoding) -> Feed:
        """Return the lines that are left to ask. Raises UsageError, or OutputError."""
        typed = self.typed
        while True:
            found = (
                Found((offset, read_result(line)) for offset, line in self._partial.lines()) if self._partial else None
            )
            plan = Plan(found, all_failed=typed.resume_failed, drops_stale=typed.drop_stale)
            feed = Feed(given.source, given.defaults, encoding, plan)
            feed.check()
            stale = plan.stale() if given.source.is_file else []
            if not stale or self._partial is None:
                if found and found.unreadable:
                    self.life.say(
                        f"{self._place}: lines that are no result: {found.unreadable}; they count as not asked"
                    )
                return feed
            self._partial.drop(stale, f"{typed.output}.stale")
            self.life.say(f"results of changed lines: {len(stale)}; they are in {typed.output}.stale")

    def _ask(self, given: BatchInput, feed: Feed, encoding: Encoding, endpoint: Endpoint | None) -> None:
        """Ask the lines that are left. Raises SmaiError, or ReaderGoneError."""
        if self._partial:
            self._partial.begin()
        results = self._results(feed)
        gc.enable()  # an answer leaves cycles behind, and there are many
        with serving(endpoint) as target:
            self._batch = Batch(
                self._options(),
                feed,
                encoding,
                results,
                self._told,
                connect=_connector(target, self._server, self._tracer),
                check=given.check,
                hide=self.life.without_key,
                deadline=self._deadline,
            )
            self._progress = self._shown_progress(self._batch, feed, is_known=given.source.is_file)
            with self._signals(self._batch):
                try:
                    self._batch.run()
                finally:
                    if isinstance(results, InOrder):
                        results.close()

    def _finish(self, plan: Plan) -> None:
        """Put the file into place, if every line has what it needs; nothing of it changes otherwise."""
        partial, typed = self._partial, self.typed
        if partial is None or plan.missing() or not _is_allowed(plan, typed.allow_failed):
            return
        if not partial.is_whole:
            stale = plan.stale()
            if stale:
                partial.put_aside(stale, f"{typed.output}.stale")
            self.life.end_no_more()
            partial.publish(plan.order())
        self._place = typed.output

    def _results(self, feed: Feed) -> ToFile | InOrder | ToStdout:
        if self._partial:
            return ToFile(self._partial)
        if not self.typed.keep_order:
            return ToStdout(Output())
        in_order = InOrder(Output())
        feed.may_take = in_order.may_take
        return in_order

    def _options(self) -> BatchOptions:
        typed = self.typed
        limits = Limits(
            jobs=self._jobs(),
            adapts=not typed.no_adapt,
            gap_s=_MINUTE_S / typed.rpm if typed.rpm else 0.0,
            patience_s=typed.patience,
        )
        return BatchOptions(
            limits=limits,
            retries=self._server.clocks.retries,
            timeout_s=typed.timeout,
            accept=typed.accept,
            extract=typed.extract,
            halt=self._halt,
            token_limit=typed.token_limit,
            grace_s=typed.grace,
        )

    def _jobs(self) -> int:
        """Return how many at once there are descriptors for. Raises UsageError for none."""
        count = allow_descriptors(self.typed.jobs * _FDS_EACH + _FDS_BESIDE)
        jobs = min(self.typed.jobs, (count - _FDS_BESIDE) // _FDS_EACH)
        if jobs < 1:
            raise UsageError(f"{count} descriptors are too few", "raise ulimit -n")
        if jobs < self.typed.jobs:
            self.life.say(f"{jobs} at once, and not {self.typed.jobs}: there are {count} descriptors; raise ulimit -n")
        return jobs

    def _shown_progress(self, batch: Batch, feed: Feed, *, is_known: bool) -> report.Progress | None:
        if stderr_can_draw():
            progress = report.Progress(batch, feed.plan, is_known=is_known)
        elif self.typed.progress:
            progress = report.Progress(batch, feed.plan, is_known=is_known, say=self.life.say)
        else:
            return None
        progress.start()
        return progress

    def _stop_progress(self) -> None:
        if self._progress:
            self._progress.stop()

    @contextlib.contextmanager
    def _signals(self, batch: Batch) -> Iterator[None]:
        """Let the first signal end the run in order; a second SIGINT ends it at once."""

        def handle(signum: int, _: object) -> None:
            if self.signum is not None and signum == signal.SIGINT:
                die_by(signum)
            if self.signum is None:
                self.signum = signum
                batch.stop()
                with contextlib.suppress(RuntimeError):  # the system gives no more threads
                    threading.Thread(target=self._die_late, args=(signum,), daemon=True).start()

        numbers = [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]
        before = {number: signal.getsignal(number) for number in numbers}
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:  # nohup
                signal.signal(number, handle)
        yield
        # From here on there is nothing to wait for; but which one it was is told by how this process ends.

    def _die_late(self, signum: int) -> None:
        """End the process when it should have ended long ago: whoever reads stdout may not be reading."""
        time.sleep(self.typed.grace + _LATE_S)
        self._stop_progress()
        die_by(signum)

    def _report(self, failure: SmaiError | None) -> int:
        """Tell how the run has ended, on stderr; return the exit status."""
        plan, typed = self._plan, self.typed
        self._told.end()
        status = self.life.tell(failure)
        if not plan:
            return status
        tally = self._batch.tally if self._batch else Tally()
        if failure is None and not _is_allowed(plan, typed.allow_failed):
            status = plan.status()
        is_told = typed.summary == "text" or (
            typed.summary is None and (status or self.signum is not None or os.isatty(STDERR))
        )
        shown = status if self.signum is None else 128 + self.signum
        facts = report.end_facts(plan, tally) | {"exit_status": shown, "signal": self.signum}
        if log := log_of(self._server):
            try:
                ledger.append_facts(
                    log.path,
                    ledger.Asked(
                        command="batch",
                        base_url=self._base_url,
                        profile=self._server.settings.name,
                        hide=self.life.without_key,
                    ),
                    facts | {"elapsed_s": round(time.monotonic() - self._begun_s, 6)},
                )
            except OSError as exc:
                self.life.say(f"{log.path}: {exc.strerror}; the run is not in the ledger, check {log.setting}")
        if typed.summary == "json":
            say_plain(self.life.without_key(json.dumps(facts | {"output": self._place})))
        elif is_told:
            self.life.say(report.end_line(plan, tally, self._place))
        return status


def _encoding(server: ServerOptions, typed: BatchValues) -> Encoding:
    more = server.settings.get("responses_models")
    return Encoding(more.value if more else (), extract=typed.extract)


def _connector(
    endpoint: Endpoint, server: ServerOptions, tracer: Tracer | None
) -> Callable[[], Callable[[str, bytes, Deadline], Source]]:
    """Return what gives each worker what it sends by."""
    ca_file = find_ca_file(os.environ) if endpoint.is_tls else None
    clocks = server.clocks

    def connect() -> Callable[[str, bytes, Deadline], Source]:
        keep_alive = KeepAlive()

        def post(path: str, body: bytes, deadline: Deadline) -> Source:
            limits = Clocks(clocks.connect_timeout_s, clocks.idle_timeout_s, deadline)
            return transport.post(
                endpoint, path, body, limits, ca_file=ca_file, trace=tracer or silent, keep_alive=keep_alive
            )

        return post

    return connect


def _is_allowed(plan: Plan, allowed: str | None) -> bool:
    """Return whether no more lines have failed than may."""
    failed = sum(plan.failures().values())
    if not failed or allowed is None:
        return not failed
    number = float(allowed.removesuffix("%"))
    return failed * _ALL <= number * len(plan) if allowed.endswith("%") else failed <= number
