"""The pump: from pieces to an outcome, without a process or a network."""

from typing import TYPE_CHECKING, Any

import pytest
from completeness import chunk
from hypothesis import given
from hypothesis import strategies as st
from pumping import WHOLE_MODES, Pieces, Sink, run_pump
from tapes import BY_NAME, GOOD, TAPES, Tape, printed

from smai_cli.answer.outcome import Outcome
from smai_cli.common.clocks import HURRY_S
from smai_cli.errors import BrokenError, BusyError, ConnectError, OutputError, RefusedError, Retry, Status
from smai_cli.output.modes import MODES
from smai_cli.prompt.request import Request, build_messages
from smai_cli.stream import pump
from smai_cli.stream.dialects import chat
from smai_cli.stream.retries import Retries

if TYPE_CHECKING:
    from smai_cli.output.writers import Writer


@given(data=st.data(), tape=st.sampled_from(TAPES), mode=st.sampled_from(sorted(WHOLE_MODES)))
def test_any_split_of_a_recording_into_pieces_delivers_the_same(data: st.DataObject, tape: Tape, mode: str) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(tape.bytes)), max_size=12)))
    # An empty read is the end of a body, so no source yields an empty piece.
    pieces = [tape.bytes[a:b] for a, b in zip([0, *cuts], [*cuts, len(tape.bytes)], strict=True) if a < b]
    outcome, writes = run_pump(Pieces(*pieces), mode)
    assert outcome.status == tape.status
    assert outcome.characters == len(tape.text)
    if mode == "text":
        assert b"".join(writes) == printed(tape.text)
    if mode == "raw":
        assert b"".join(writes) == tape.bytes


@given(st.binary(max_size=300).map(lambda noise: noise.replace(b"x", b'\ndata: {"choices":[').replace(b"y", b"\n\n")))
def test_arbitrary_bytes_end_in_a_documented_status(noise: bytes) -> None:
    for mode in WHOLE_MODES:
        outcome, _ = run_pump(Pieces(noise) if noise else Pieces(), mode)
        assert outcome.status in (Status.COMPLETE, Status.REFUSED, Status.BROKEN)


def test_a_failure_after_the_end_of_the_answer_is_ignored() -> None:
    outcome, _ = run_pump(Pieces(GOOD.removesuffix(b"data: [DONE]\n\n"), failure=BrokenError("reset")))
    assert outcome.status == Status.COMPLETE


def test_a_failure_before_the_end_of_the_answer_is_reported() -> None:
    outcome, writes = run_pump(Pieces(BY_NAME["cut-between-events"].bytes, failure=BrokenError("reset")))
    assert (outcome.status, writes) == (Status.BROKEN, [b"Hello ", b"\n"])


def test_nothing_is_read_after_done() -> None:
    outcome, _ = run_pump(Pieces(GOOD, failure=AssertionError("read on")))
    assert outcome.status == Status.COMPLETE


def test_events_reset_the_clock_and_comments_do_not() -> None:
    source = Pieces(b": ping\n\n", GOOD, b": ping\n\n")
    run_pump(source)
    assert source.clock.told == [False, False, False, True]


def test_half_of_a_surrogate_pair_is_delivered_with_the_last_chunk() -> None:
    assert run_pump(Pieces(BY_NAME["surrogate-alone"].bytes))[1] == [b"a", "\ufffd".encode(), b"\n"]


class Server:
    """A `post` that returns or raises answers and failures in turn, and records the bodies."""

    def __init__(self, *answers: Pieces | Exception) -> None:
        self.answers = list(answers)
        self.bodies: list[bytes] = []

    def __call__(self, body: bytes) -> pump.Source:
        self.bodies.append(body)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def run_ask(server: Server, mode: str = "text", **more: Any) -> tuple[Outcome, list[bytes]]:
    sink = Sink()
    outcome = Outcome()
    writer: Writer = MODES[mode].make(sink)
    request = Request("m", build_messages("hi", None), **more)
    retries = Retries(2, lambda _: None, sleep=lambda _: None)
    pump.ask(request, server, chat, writer=writer, outcome=outcome, retries=retries)
    return outcome, sink.writes


def test_ask_retries_before_an_answer_began() -> None:
    outcome, writes = run_ask(Server(ConnectError("refused"), BusyError("503"), Pieces(GOOD)))
    assert (outcome.status, outcome.retries, b"".join(writes)) == (0, 2, b"Hello world\n")


def test_ask_gives_up_after_the_last_retry() -> None:
    server = Server(*(BusyError("503") for _ in range(3)))
    outcome, writes = run_ask(server)
    assert (outcome.status, outcome.retries, writes) == (Status.BUSY, 2, [])


def test_final_retries_a_broken_answer() -> None:
    broken = BY_NAME["cut-between-events"].bytes
    outcome, writes = run_ask(Server(Pieces(broken), Pieces(broken), Pieces(GOOD)), "final")
    assert (outcome.status, outcome.characters, writes) == (0, 12, [b"Hello world\n"])


@pytest.mark.parametrize("mode", ["text", "raw", "jsonl"])
def test_the_other_modes_never_retry_once_an_answer_began(mode: str) -> None:
    server = Server(Pieces(b": ping\n\n"))
    outcome, _ = run_ask(server, mode)
    assert (outcome.status, len(server.bodies)) == (Status.BROKEN, 1)


def test_leaving_out_usage_does_not_count_as_a_retry() -> None:
    refusal = RefusedError("unknown field", unknown_parameters=frozenset({"stream_options"}))
    server = Server(refusal, Pieces(GOOD))
    outcome, _ = run_ask(server, include_usage=True)
    assert (outcome.status, outcome.retries) == (0, 0)
    assert [b"stream_options" in body for body in server.bodies] == [True, False]


def test_a_refusal_that_is_not_about_usage_is_not_retried() -> None:
    server = Server(RefusedError("the server answered 400: bad model", http_status=400))
    assert run_ask(server, include_usage=True)[0].status == Status.REFUSED


class FullDisk(Sink):
    """An Output that fails after the given number of writes."""

    def __init__(self, takes: int) -> None:
        super().__init__()
        self.takes = takes

    def write(self, data: bytes) -> None:
        if len(self.writes) == self.takes:
            raise OutputError("stdout: No space left on device")
        super().write(data)


@pytest.mark.parametrize("mode", sorted(WHOLE_MODES))
def test_a_full_disk_is_reported_at_any_write_even_after_the_finish_reason(mode: str) -> None:
    pieces = (chunk("a"), chunk("b", "stop"), chunk("c"), b"data: [DONE]\n\n", b": bye\n\n")
    for takes in range(len(run_pump(Pieces(*pieces), mode)[1])):
        outcome = Outcome()
        pump.pump(Pieces(*pieces), chat, MODES[mode].make(FullDisk(takes)), outcome)
        assert outcome.status == Status.OUTPUT, takes


def test_only_raw_waits_for_bytes_after_the_end_and_longer_after_a_failure() -> None:
    for mode, ending, hurried in (
        ("raw", b"data: [DONE]\n\n", True),
        ("raw", b"data: nonsense\n\n", False),
        ("text", b"data: [DONE]\n\n", False),
        ("text", b"data: nonsense\n\n", False),
    ):
        source = Pieces(chunk("a"), ending, b": bye\n\n")
        _, writes = run_pump(source, mode)
        assert (HURRY_S in source.clock.graces_s) == hurried
        assert (b": bye\n\n" in writes) == (mode == "raw")
        assert (source.clock.told[-1] is True) == (mode == "raw")


def test_an_error_event_ends_the_answer_and_half_of_a_surrogate_pair_before_it_is_printed() -> None:
    error = b'data: {"error": {"message": "overloaded"}}\n\n'
    half = b'data: {"choices": [{"delta": {"content": "a\\ud83d"}}]}\n\n'
    outcome, writes = run_pump(Pieces(half, error, failure=AssertionError("read on")))
    assert (outcome.status, b"".join(writes)) == (Status.BROKEN, "a\ufffd\n".encode())


WHOLE = b'{"choices": [{"message": {"content": "a\xff"}, "finish_reason": "stop"}]}'


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b" \r\n", b"\xef\xbb\xbf\n"], ids=repr)
def test_an_unstreamed_body_may_begin_with_a_bom_and_white_space(start: bytes) -> None:
    for pieces in ((start + WHOLE,), tuple(bytes([byte]) for byte in start + WHOLE)):
        outcome, writes = run_pump(Pieces(*pieces))
        assert (outcome.status, b"".join(writes)) == (0, "a\ufffd\n".encode())
    assert run_pump(Pieces(start + b"<html>"))[0].status == Status.REFUSED


@pytest.mark.parametrize("start", [b"", b'{"choices": "'], ids=["white space", "a string"])
def test_an_endless_body_ends_at_the_limit(start: bytes) -> None:
    pieces = [start + b" " * 65536, *[b" " * 65536] * 600]
    outcome, _ = run_pump(Pieces(*pieces, failure=AssertionError("collected 40 MB")))
    assert outcome.status == Status.BROKEN


@pytest.mark.parametrize("name", ["stream_options", "include_usage"])
def test_a_refusal_of_usage_is_retried_without_it(name: str) -> None:
    server = Server(RefusedError("extra inputs", unknown_parameters=frozenset({name})), Pieces(GOOD))
    assert (run_ask(server, include_usage=True)[0].status, len(server.bodies)) == (0, 2)


@pytest.mark.parametrize("reason", ["stop", "tool_calls", "function_call"])
def test_every_documented_normal_finish_reason_is_a_success(reason: str) -> None:
    assert run_pump(Pieces(chunk("a"), chunk("b", reason)))[0].status == Status.COMPLETE


def test_an_unknown_finish_reason_is_escaped_and_never_retried() -> None:
    error = run_pump(Pieces(chunk("a"), chunk("b", "\x1b[2J\nsmai: fake")), "final")[0].error
    assert error
    assert error.retry is Retry.NEVER
    assert not {"\x1b", "\n"} & set(str(error))
