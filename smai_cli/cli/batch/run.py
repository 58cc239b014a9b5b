"""One run of `smai batch`, from its options to its end."""

import contextlib
import gc
import json
import os
import signal
import threading
import time

from smai_cli.batch import report
from smai_cli.batch.batch import Append, Batch, BatchOptions
from smai_cli.batch.feed import Feed, no_lines
from smai_cli.batch.halt import is_allowed, parse_halt
from smai_cli.batch.input.encoding import Encoding
from smai_cli.batch.input.pin import check_pin, check_piped_input, identify_pinned_input, read_pin, write_pin
from smai_cli.batch.notices import Notices
from smai_cli.batch.results.earlier import EarlierResults, StaleResults
from smai_cli.batch.results.outputs import InOrder
from smai_cli.batch.results.partial import PartialFile
from smai_cli.batch.results.plan import Plan
from smai_cli.batch.schedule import Limits
from smai_cli.batch.tally import Tally
from smai_cli.cli.batch.input import BatchInput, read_input
from smai_cli.cli.batch.preview import print_batch
from smai_cli.cli.descriptor_limit import allow_descriptors
from smai_cli.cli.lifecycle import Lifecycle
from smai_cli.cli.parsing.command_line import log_of
from smai_cli.cli.parsing.options import BatchValues, ServerOptions
from smai_cli.cli.server import choose_endpoint, connector, serving
from smai_cli.common.clocks import RunningClock
from smai_cli.common.signals import die_by, on_signal_in_main_thread
from smai_cli.common.text import escaped
from smai_cli.common.trace import Tracer
from smai_cli.config.endpoint import Endpoint
from smai_cli.errors import SmaiError, Status, UsageError
from smai_cli.output import run_log
from smai_cli.output.descriptors import STDERR, Output, say, say_plain, stderr_can_draw

# Signals with which a person, a terminal or an engine ends a run; some engines warn with the last three.
_ORDERLY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
# Descriptors needed for each running request, and for the rest of the process.
_FDS_EACH = 3
_FDS_OTHER = 32
_MINUTE_S = 60.0
# How long a run may take to end after the grace period.
_LATE_S = 5.0


class BatchRun:
    """One run of the command: `life` controls its end, `signum` is the signal that ended it."""

    def __init__(self, typed: BatchValues, server: ServerOptions) -> None:
        self.typed = typed
        self.signum: int | None = None
        self._base_url: str | None = None
        self._begun_s = time.monotonic()
        self._halt = parse_halt(typed.halt)
        self._server = server
        self._clock = RunningClock()
        self._deadline = server.clocks.deadline(self._clock)
        self._tracer = Tracer(say) if typed.verbose else None
        self.life = Lifecycle(
            self._deadline,
            watches_stdout=not typed.output,
            report=self._report,
            before_end=self._stop_progress,
        )
        self._notices = Notices(self.life.say)
        self._plan: Plan | None = None
        self._batch: Batch | None = None
        self._partial: PartialFile | None = None
        self._progress: report.RunProgress | None = None
        self._place: str | None = None  # the output file, if it has the results

    def work(self) -> None:
        """Send the lines, and write their results. Raises SmaiError."""
        given = read_input(self.typed, self._server)
        endpoint = choose_endpoint(self._server, self._deadline)
        self.life.key = endpoint.secrets if endpoint else None
        self._base_url = endpoint.base_url if endpoint else None
        if self._tracer:
            self._tracer.hide = self.life.without_key
        encoding = _encoding(self._server, self.typed)
        if self.typed.output:
            resumes = self.typed.resume or self.typed.resume_failed
            self._partial = PartialFile(self.typed.output, resumes=resumes, say=self.life.say)
            self._place = self.typed.output if self._partial.is_published else None
        try:
            feed = self._pinned_feed(given, encoding)
            self._plan = feed.plan
            if not given.source.is_file or feed.plan.settled < len(feed.plan):
                self._ask(given, feed, encoding, endpoint)
            if not len(feed.plan) and not given.source.may_be_empty and self.signum is None:
                raise no_lines(given.source)
            feed.check_unchanged()
            if self.typed.output and self.typed.shard and (found := given.source.identity):
                check_piped_input(self.typed.output, self.typed.shard, found)
                write_pin(self.typed.output, self.typed.shard, found, len(feed.plan))
            self._finish(feed.plan)
        finally:
            if self._partial:
                self._partial.leave()

    def preview(self) -> None:
        """Print what would be sent. Raises SmaiError."""
        given = read_input(self.typed, self._server)
        encoding = _encoding(self._server, self.typed)
        feed = Feed(given.source, given.defaults, encoding, Plan())
        feed.check()
        template = given.defaults.template
        print_batch(feed, encoding, self._server, self._deadline, template.names if template else frozenset())

    def _pinned_feed(self, given: BatchInput, encoding: Encoding) -> Feed:
        """Return the lines that are left to send, and check and write the pin of the shard.

        Raises UsageError, or OutputError.
        """
        output, shard, file = self.typed.output, self.typed.shard, given.source.file
        if output is None or self._partial is None:
            return self._feed(given, encoding)
        check_pin(output, shard, file, has_results=self._partial.has_results)
        feed = self._feed(given, encoding)
        if shard:
            has_results = self._partial.has_results
            if file is not None:
                write_pin(output, shard, identify_pinned_input(output, file, is_checked=has_results), len(feed.plan))
            elif not has_results or read_pin(output) is None:
                write_pin(output, shard, None, None)
        return feed

    def _feed(self, given: BatchInput, encoding: Encoding) -> Feed:
        """Return the lines that are left to send. Raises UsageError, or OutputError."""
        typed = self.typed
        while True:
            found = EarlierResults(self._partial.lines(), by_line=typed.resume_failed) if self._partial else None
            plan = Plan(found, all_failed=typed.resume_failed, drops_stale=typed.drop_stale)
            feed = Feed(given.source, given.defaults, encoding, plan)
            feed.check()
            stale = plan.stale() if given.source.is_file else None
            if not stale or self._partial is None:
                if self._partial and found and found.unreadable:
                    place = typed.output if self._partial.is_published else self._partial.name
                    self.life.say(
                        f"{place}: lines that are not results: {found.unreadable}; "
                        "input lines without a result are sent again"
                    )
                return feed
            self._partial.drop(stale.offsets, f"{typed.output}.stale")
            self._say_stale(stale)

    def _say_stale(self, stale: StaleResults) -> None:
        self.life.say(
            f"dropped results of changed lines: {len(stale.offsets)}, complete answers: {stale.complete}; "
            f"they are in {self.typed.output}.stale"
        )

    def _ask(self, given: BatchInput, feed: Feed, encoding: Encoding, endpoint: Endpoint | None) -> None:
        """Send the lines that are left. Raises SmaiError, or ReaderGoneError."""
        if self._partial:
            self._partial.begin()
        in_order = InOrder(Output(), self.life.say) if self.typed.keep_order else None
        if in_order:
            feed.may_take = in_order.may_take
        gc.enable()  # answers leave reference cycles
        with serving(endpoint) as target:
            self._batch = Batch(
                self._options(),
                feed,
                encoding,
                self._appender(in_order),
                self._notices,
                connect=connector(target, self._server, self._tracer),
                sync=self._partial.sync if self._partial else lambda: None,
                check=given.check,
                hide=self.life.without_key,
                deadline=self._deadline,
                clock=self._clock,
            )
            self._start_progress(self._batch, feed.plan, is_known=given.source.is_file)
            self._handle_signals(self._batch)
            try:
                self._batch.run()
            finally:
                if in_order:
                    in_order.close()

    def _finish(self, plan: Plan) -> None:
        """Publish the file if every line has a result and not too many failed; otherwise change nothing."""
        partial, typed = self._partial, self.typed
        if partial is None or plan.left or not is_allowed(plan, typed.allow_failed):
            return
        if self._batch and not self._batch.is_done():  # a signal ended the run, and a pipe is still open
            return
        if not (partial.is_published and plan.is_in_place()):
            partial.begin()
            if stale := plan.stale():
                partial.put_aside(stale.offsets, f"{typed.output}.stale")
                self._say_stale(stale)
            self.life.end_no_more()
            partial.publish(plan.order())
        self._place = typed.output

    def _appender(self, in_order: InOrder | None) -> Append:
        """Return what writes a result: to the partial file, or to stdout, perhaps in the order of the lines."""
        if in_order:
            return in_order.append
        if partial := self._partial:
            return lambda _, line: partial.append(line)
        stdout = Output()
        return lambda _, line: stdout.show(line, escaped)

    def _options(self) -> BatchOptions:
        typed = self.typed
        return BatchOptions(
            limits=Limits(
                jobs=self._jobs(),
                adapts=not typed.no_adapt,
                gap_s=_MINUTE_S / typed.rpm if typed.rpm else 0.0,
                patience_s=typed.patience,
            ),
            retries=self._server.clocks.retries,
            timeout_s=typed.timeout,
            accept=typed.accept,
            extract=typed.extract,
            fail_empty=typed.fail_empty,
            halt=self._halt,
            token_limit=typed.token_limit,
            grace_s=typed.grace,
        )

    def _jobs(self) -> int:
        """Return how many requests at once the descriptors allow. Raises UsageError if none."""
        count = allow_descriptors(self.typed.jobs * _FDS_EACH + _FDS_OTHER)
        jobs = min(self.typed.jobs, (count - _FDS_OTHER) // _FDS_EACH)
        if jobs < 1:
            raise UsageError(f"{count} file descriptors are too few", "raise ulimit -n")
        if jobs < self.typed.jobs:
            self.life.say(f"{jobs} at once, not {self.typed.jobs}: only {count} file descriptors; raise ulimit -n")
        return jobs

    def _start_progress(self, batch: Batch, plan: Plan, *, is_known: bool) -> None:
        draws = stderr_can_draw()
        if draws or self.typed.progress:
            self._progress = report.RunProgress(batch, plan, is_known=is_known, say=None if draws else self.life.say)
            self._progress.start()

    def _stop_progress(self) -> None:
        if self._progress:
            self._progress.stop()

    def _handle_signals(self, batch: Batch) -> None:
        """From now on, let the first signal end the run in order, and a second SIGINT end it at once."""

        def handle(signum: int) -> None:
            if self.signum is not None and signum == signal.SIGINT:
                die_by(signum)
            if self.signum is None:
                self.signum = signum
                batch.stop()
                with contextlib.suppress(RuntimeError):  # no more threads available
                    threading.Thread(target=self._die_late, args=(signum,), daemon=True).start()

        on_signal_in_main_thread(_ORDERLY, handle)

    def _die_late(self, signum: int) -> None:
        """End the process if it has not ended in time: the reader of stdout may be blocked."""
        time.sleep(self.typed.grace + _LATE_S)
        self._stop_progress()
        die_by(signum)

    def _report(self, failure: SmaiError | None) -> int:
        """Report how the run ended, on stderr; return the exit status."""
        plan, typed = self._plan, self.typed
        self._notices.end()
        status = self.life.report_failure(failure)
        if not plan:
            return status
        tally = self._batch.tally if self._batch else Tally()
        if failure is None and not is_allowed(plan, typed.allow_failed):
            status = plan.status()
        is_summary_due = typed.summary == "text" or (
            typed.summary is None and (status or self.signum is not None or os.isatty(STDERR))
        )
        shown = status if self.signum is None else 128 + self.signum
        facts = report.end_facts(plan, tally) | {"exit_status": shown, "signal": self.signum}
        if log := log_of(self._server):
            try:
                run_log.append_facts(
                    log.path,
                    run_log.RunFacts(
                        command="batch",
                        base_url=self._base_url,
                        profile=self._server.settings.name,
                        hide=self.life.without_key,
                    ),
                    facts | {"elapsed_s": round(time.monotonic() - self._begun_s, 6)},
                )
            except OSError as exc:
                self.life.say(f"{log.path}: {exc.strerror}; the run was not logged, check {log.setting}")
        place = self._partial.name if self._partial and os.path.exists(self._partial.name) else self._place
        if typed.summary == "json":
            say_plain(self.life.without_key(json.dumps(facts | {"output": place})))
        elif is_summary_due:
            self.life.say(report.end_line(plan, tally, place))
            if typed.output and (cut := plan.failures().get(Status.CUT_SHORT)):
                self.life.say(
                    f"lines cut off by the token limit: {cut}; --resume-failed with more --max-tokens sends them again"
                )
        return status


def _encoding(server: ServerOptions, typed: BatchValues) -> Encoding:
    return Encoding(server.settings.value_of("responses_models", ()), extract=typed.extract)
