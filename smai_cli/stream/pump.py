"""pump(): the loop that connects all stages, from pieces of bytes to the writer and the outcome.

`ask` and `decode` differ only in where the bytes come from. Nothing here keeps state between runs, touches
signals or exits, so that several pumps can run in parallel.
"""

import codecs
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from smai_cli.answer.choice import chunks_of_answer
from smai_cli.answer.chunk import Chunk, ForeignAnswerError
from smai_cli.answer.outcome import Outcome
from smai_cli.common.clocks import FINISHED_GRACE_S, HURRY_S, IdleClock
from smai_cli.errors import ANSWER_FAILURES, BrokenError, Cause, Retry, SmaiError
from smai_cli.prompt.request import Request
from smai_cli.stream.json_text import MalformedEventError
from smai_cli.stream.listener import Listener
from smai_cli.stream.sse import MAX_EVENT_BYTES, events, split_events

if TYPE_CHECKING:
    from smai_cli.stream.adapting import Adaptation
    from smai_cli.stream.retries import Retries

_HEAD_LIMIT = 65536
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")


class Source(Protocol):
    """Where the bytes of an answer come from: an iterable of pieces. Iterating raises SmaiError."""

    @property
    def clock(self) -> IdleClock:
        """The clock that limits its waits; the pump resets it, and shortens its limit at the end of the answer."""

    @property
    def is_framed(self) -> bool:
        """Whether HTTP marks its end, so that a cut raises. Not for a recording, nor for a body up to a FIN."""

    def __iter__(self) -> Iterator[bytes]:
        """Yield each piece as it arrives."""

    def close(self) -> None:
        """Release its connection and its thread. May be called again, and from any thread."""


class Parser(Protocol):
    """The answers of one API."""

    def parse_event(self, data: str, name: str, /) -> Chunk:
        """Return the Chunk in an event."""

    def parse_body(self, data: str, /) -> Chunk:
        """Return the Chunk of an answer in one piece."""


class Dialect(Parser, Protocol):
    """The requests and answers of one API: a module such as chat."""

    PATH: str

    def encode_request(self, request: Request, /) -> bytes:
        """Return the body of the POST."""

    def output_limit(self, request: Request, /) -> int | None:
        """Return the token limit, if an answer of that many tokens was cut by it; None if that is not certain."""

    def token_limit_name(self, model: str, /) -> str:
        """Return the most likely name of the token limit for a model."""


def ask(  # noqa: PLR0913  # the parts of a run, chosen by the command
    request: Request,
    post: Callable[[bytes], Source],
    dialect: Dialect,
    *,
    writer: Listener,
    outcome: Outcome,
    retries: "Retries",
    adaptation: "Adaptation | None" = None,
) -> None:
    """Send `request` with `post`, pump its answer, and retry if allowed.

    `outcome.error` says how it ended. If the server refuses a parameter that can be left out or renamed, the request is
    sent again without it; `adaptation` remembers what was refused. Raises only ReaderGoneError.
    """
    from smai_cli.stream.adapting import Adaptation  # decode sends nothing

    outcome.output_limit = dialect.output_limit(request)
    adaptation = adaptation or Adaptation()
    while True:
        outcome.retries = retries.spent
        sent = adaptation.adapt(request)
        try:
            source = post(dialect.encode_request(sent))
        except SmaiError as error:
            if adaptation.learn(sent, dialect.token_limit_name(sent.model), error):
                continue
            outcome.end(error)
        else:
            adaptation.accept(sent)
            pump(source, dialect, writer, outcome)
        failure = outcome.error
        if failure is None:
            return
        is_undelivered = failure.retry is Retry.UNDELIVERED and not writer.has_delivered
        outcome.error = retries.wait(failure, holds_back=writer.holds_back or is_undelivered)
        if outcome.error:
            return
        outcome.begin()


def pump(
    source: Source,
    dialect: Parser,
    writer: Listener,
    outcome: Outcome,
    *,
    on_more: Callable[[], None] | None = None,
) -> None:
    """Pass an answer from `source` to `writer` and `outcome`, until it is done, broken or cut.

    `on_more` is called if more of an answer follows the end of this one; without it, that is not checked.
    `outcome.error` says how it ended: None only for a complete answer that was delivered in full.
    Raises only ReaderGoneError.
    """
    outcome.needs = writer.needs
    outcome.begin()
    writer.begin()
    pieces = _copy_to_writer(source, writer, outcome)
    try:
        failure = _pump(pieces, source, dialect, writer, outcome, on_more=on_more)
        if writer.takes_all:
            _drain(pieces, source, hurry=failure is None)
        outcome.end(failure)
        writer.end(outcome)
    except SmaiError as error:  # the output failed, or a complete answer does not match --json or --schema
        outcome.end(error)
    finally:
        source.close()


def _pump(  # noqa: PLR0913  # as pump
    pieces: Iterator[bytes],
    source: Source,
    dialect: Parser,
    writer: Listener,
    outcome: Outcome,
    *,
    on_more: Callable[[], None] | None,
) -> SmaiError | None:
    """Pass on the chunks in `pieces`; return the failure that stopped them before the end. Raises OutputError."""
    clock = source.clock
    was_final = False
    chunks = read_chunks(pieces, dialect)
    try:
        for chunk in chunks_of_answer(chunks, outcome.choices):
            outcome.add(chunk)
            if chunk.choice_index is not None and not outcome.is_final:
                clock.reset()
                writer.chunk(chunk)
                if was_final and on_more and not chunk.others:
                    on_more()
                was_final = False
            else:
                if outcome.is_final and not was_final:
                    clock.finish(FINISHED_GRACE_S)
                    was_final = True
                writer.chunk(chunk)
            if not chunk.is_plain and (chunk.done or chunk.api_error):
                if on_more and chunk.done and _has_more(chunks, clock):
                    on_more()
                return None
    except MalformedEventError as error:
        return error
    except ANSWER_FAILURES as error:
        # Once the server has said that the answer is complete, how the connection ends does not matter.
        has_ended = outcome.is_finished if isinstance(error, BrokenError) else outcome.is_final
        return None if has_ended else error
    outcome.end_body(is_framed=source.is_framed)
    return None


def _has_more(chunks: Iterator[Chunk], clock: IdleClock) -> bool:
    """Return whether more of an answer follows, waiting only a moment."""
    clock.finish(HURRY_S)
    try:
        return any(chunk.choice_index is not None for chunk in chunks)
    except ANSWER_FAILURES:
        return False


def _drain(pieces: Iterator[bytes], source: Source, *, hurry: bool) -> None:
    """Pass the remaining pieces to the writer without parsing them, and without a long wait. Raises OutputError."""
    source.clock.finish(HURRY_S if hurry else FINISHED_GRACE_S)
    try:
        for _ in pieces:
            pass
    except ANSWER_FAILURES:  # only the end of the answer is reported
        return


def _copy_to_writer(source: Source, writer: Listener, outcome: Outcome) -> Iterator[bytes]:
    """Yield each piece of `source` after passing it to the writer. A broken connection ends the body."""
    try:
        for piece in source:
            source.clock.hold()
            writer.piece(piece)
            source.clock.release()
            yield piece
    except BrokenError:
        outcome.end_body(is_framed=False)
        raise


def read_chunks(pieces: Iterator[bytes], dialect: Parser) -> Iterator[Chunk]:
    """Yield the chunks of a body, either events or one piece of JSON."""
    head = _head(pieces)
    pieces = itertools.chain([head], pieces)
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if text.startswith((b"{", b"[")):
        yield _whole_body(pieces, dialect)
        return
    if text.startswith(b"<"):
        what = "the response is a web page, not from a chat API"
        on_tape = "the input is a web page, not an event stream"
        raise ForeignAnswerError(what, "check --base-url", on_tape, cause=Cause.NOT_FOUND)
    empty = True
    for event in events(pieces):
        empty = False
        try:
            chunk = dialect.parse_event(event.data, event.event)
        except BrokenError:
            parts = split_events(event.data)
            if parts == [event.data]:
                raise
            yield from (dialect.parse_event(part, "message") for part in parts)
            continue
        yield chunk
    if not head:
        raise BrokenError("the response is empty", "try again, or check --base-url")
    if empty and not _may_be_events(text):
        what = "the response is not from a chat API"
        raise ForeignAnswerError(what, "check --base-url", "the input is not an event stream")


def _head(pieces: Iterator[bytes]) -> bytes:
    """Return the first pieces, until a byte that is neither BOM nor white space shows what the body is."""
    head = b""
    for piece in pieces:
        head += piece
        known = len(head) >= len(codecs.BOM_UTF8) and head.removeprefix(codecs.BOM_UTF8).strip()
        if known or len(head) > _HEAD_LIMIT:
            break
    return head


def _whole_body(pieces: Iterable[bytes], dialect: Parser) -> Chunk:
    body = bytearray()
    failure = None
    try:
        for piece in pieces:
            body += piece
            if len(body) > MAX_EVENT_BYTES:
                raise BrokenError(
                    f"the answer is larger than {MAX_EVENT_BYTES} bytes",
                    "ask for less at once",
                    retry=Retry.NEVER,
                    retryable=False,
                )
    except ANSWER_FAILURES as error:
        failure = error
    try:
        chunk = dialect.parse_body(body.decode("utf-8-sig", "replace"))
    except BrokenError:
        if failure:
            raise failure from None
        raise
    if chunk.api_error and not chunk.text:
        from smai_cli.answer.meaning import answer_error  # only for a failure

        raise answer_error(chunk.api_error, in_stream=False, has_text=False)
    return chunk


def _may_be_events(head: bytes) -> bool:
    """Return whether a body without any event may be the beginning of an event stream."""
    line = head.split(b"\n", 1)[0]
    return any(line.startswith(field) or field.startswith(line) for field in _FIELDS)
