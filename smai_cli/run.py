"""What `ask` and `decode` share at the edge: one answer, watched, delivered and reported."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from smai_cli.around import Aloud, Kept, WithCalls
from smai_cli.clocks import Deadline
from smai_cli.completion import Completion
from smai_cli.errors import SmaiError
from smai_cli.main import leave
from smai_cli.output import STDOUT, Aside, Output, say, say_plain
from smai_cli.request import choices_in
from smai_cli.summary import summary_json, summary_text
from smai_cli.text import one_line
from smai_cli.watch import watch
from smai_cli.writers import WRITERS, Final, Writer

if TYPE_CHECKING:
    from smai_cli.config import Secret
    from smai_cli.request import Message, Request


class Run:
    """One run of a command that delivers an answer: its writer, its completion, its clock and its end.

    `mode` is a name in WRITERS, `flags` are the values of output_options, and of `reasoning` where a command has
    it; `deadline` is the end of the whole run. `key`, once it is known, is kept out of every message.
    """

    def __init__(self, mode: str, flags: dict[str, Any], deadline: Deadline | None = None) -> None:
        self._check: Callable[[str], None] | None = None
        self.writer = self._writer(mode, flags)
        self.completion = Completion(flags["accept"])
        self.summary = flags["summary"] or ("text" if mode == "final" else "none")
        self.deadline = deadline or Deadline()
        self.key: Secret | None = None
        self._tells_tools = mode in ("text", "final") and not flags["tool_calls"]
        self._ending = threading.Lock()

    def expect(
        self, request: "Request", check: Callable[[str], None] | None, keep: "Callable[[Message], None] | None"
    ) -> None:
        """Hear what is asked, what `check` has against a text that is held back, and what keeps the answer."""
        self.completion.model = request.model
        self.completion.choices = choices_in(request.extra)
        self._check = check
        if keep:
            self.writer = Kept(self.writer, keep)

    def deliver(self, work: Callable[[], None]) -> int:
        """Do `work`, which ends `completion`, or raises a SmaiError before there was one; return the exit status.

        The message and the summary go to stderr. Raises ReaderGoneError when nobody reads stdout any more.
        """
        watch(STDOUT, self.deadline, self._stop_at_deadline)
        try:
            work()
        except SmaiError as error:
            self.completion.end(error)
        self._ending.acquire()  # for good: one end is enough, the deadline must not speak as well
        return self._report()

    def fail(self, error: SmaiError) -> int:
        """Report a failure before there was any work; return the exit status."""
        self.completion.end(error)
        return self._report()

    def say(self, line: str) -> None:
        """Put a notice on stderr."""
        say(self._without_key(line))

    def _without_key(self, text: str) -> str:
        return self.key.hidden_in(text) if self.key else text

    def _writer(self, mode: str, flags: dict[str, Any]) -> Writer:
        writer: Writer
        if mode == "final":
            writer = Final(Output(), lambda text: self._check(text) if self._check else None)
        else:
            writer = WRITERS[mode](Output())
        if flags["tool_calls"]:
            writer = WithCalls(writer)
        return Aloud(writer, Aside()) if flags.get("reasoning") else writer

    def _report(self) -> int:
        completion = self.completion
        if completion.tools and self._tells_tools and not completion.error:
            names = one_line(", ".join(completion.tools), 200)
            self.say(f"the model asks for a tool: {names}; --tool-calls prints the calls")
        if completion.error:
            completion.error.what = self._without_key(completion.error.what)
            say(str(completion.error))
        if self.summary == "json":
            say_plain(self._without_key(summary_json(completion)))
        elif self.summary == "text" and completion.finished:
            say(self._without_key(summary_text(completion)))
        return completion.status

    def _stop_at_deadline(self) -> None:
        """End the process from the watching thread, whatever the main thread is stuck in."""
        if self._ending.acquire(blocking=False):
            self.completion.end(self.deadline.error())
            leave(self._report())
