"""`smai mock`: the rehearsal server as a process of its own."""

import gc
import io
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from smai_cli.cli.group import SECONDS, complete_file
from smai_cli.errors import UsageError
from smai_cli.files import STDIN_NAME, read_open
from smai_cli.prompt.prompt import operand_text, read_all

if TYPE_CHECKING:
    from smai_cli.mock.script import Script

_STDIN = 0
_COUNT = click.IntRange(min=0)
# It is kept in memory.
_TAPE_LIMIT_BYTES = 256 * 1024 * 1024


@click.command(epilog="Manual: man smai-mock.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The port on 127.0.0.1.  [default: a free one]")
@click.option("--reply", metavar="TEXT", help="What to answer.  [default: a short poem]")
@click.option("--tape", metavar="FILE", shell_complete=complete_file, help="Replay the stream in FILE; - is stdin.")
@click.option("--delay", type=SECONDS, metavar="MS", default=15, show_default=True, help="Milliseconds between deltas.")
@click.option("--require-key", metavar="KEY", help="Answer 401 to any other key.")
@click.option("--max-requests", type=click.IntRange(min=1), help="Exit after so many answers.")
@click.option("--status", type=click.IntRange(300, 599), help="Answer with this HTTP status.")
@click.option("--retry-after", metavar="S", help="Send Retry-After with it.")
@click.option("--fail-first", type=_COUNT, metavar="N", help="Fail the first N requests only, with --status or 503.")
@click.option("--cut-after", type=_COUNT, metavar="N", help="Break the connection after N deltas.")
@click.option("--stall-after", type=_COUNT, metavar="N", help="Fall silent after N deltas.")
@click.option("--error-after", type=_COUNT, metavar="N", help="Send an error event after N deltas.")
@click.option("--no-done", is_flag=True, help="Leave out [DONE].")
@click.option("--finish-reason", metavar="R", default="stop", show_default=True, help="The finish_reason; none: null.")
def mock(port: int, **values: Any) -> int:
    """Serve the chat API on 127.0.0.1 for rehearsals: no key, no model, no network.

    The first line on stdout is the base URL.
    """
    from smai_cli.mock.server import Mock  # noqa: PLC0415  # after --help and usage errors
    from smai_cli.output.descriptors import Output  # noqa: PLC0415

    gc.enable()
    script = _script(MockValues(**values))
    try:
        server = Mock(script, port)
    except OSError as exc:
        raise UsageError(f"port {port}: {exc.strerror}", "choose another --port") from exc
    with server:
        Output().write(f"{server.url}\n".encode())
        server.over.wait()
    return 0


class MockValues(NamedTuple):
    """The values of the options, as click gives them."""

    reply: str | None
    tape: str | None
    delay: float
    require_key: str | None
    max_requests: int | None
    status: int | None
    retry_after: str | None
    fail_first: int | None
    cut_after: int | None
    stall_after: int | None
    error_after: int | None
    no_done: bool
    finish_reason: str


def _script(values: MockValues) -> "Script":
    from smai_cli.mock.script import POEM, Script  # noqa: PLC0415

    if values.tape is not None and values.reply is not None:
        raise UsageError("--tape and --reply exclude each other", "choose one answer")
    return Script(
        reply=POEM if values.reply is None else operand_text(values.reply, "--reply"),
        tape=None if values.tape is None else _tape(values.tape),
        delay_s=values.delay / 1000,
        require_key=values.require_key,
        max_requests=values.max_requests,
        status=values.status or (503 if values.fail_first is not None else None),
        retry_after=values.retry_after,
        fail_first=values.fail_first,
        cut_after=values.cut_after,
        stall_after=values.stall_after,
        error_after=values.error_after,
        done=not values.no_done,
        finish_reason=values.finish_reason,
    )


def _tape(file: str) -> bytes:
    if file == STDIN_NAME:
        return read_all(_STDIN, lambda: None, hint="check where the tape comes from", limit_bytes=_TAPE_LIMIT_BYTES)
    try:
        with io.FileIO(file) as opened:
            return read_open(opened, file, _TAPE_LIMIT_BYTES)
    except OSError as exc:
        raise UsageError(f"{file}: {exc.strerror}", "name a file with a recorded stream") from exc
