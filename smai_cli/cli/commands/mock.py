"""`smai mock`: the mock server as a process."""

import gc
import os
import re
from typing import Any

import click

from smai_cli.cli.descriptor_limit import allow_descriptors
from smai_cli.cli.parsing.numbers import SECONDS, Number, WholeNumber
from smai_cli.cli.parsing.shared_options import complete_file
from smai_cli.cli.same_files import Use, refuse_clashes
from smai_cli.common.files import STDIN, STDIN_NAME, read_all, read_file
from smai_cli.errors import OutputError, UsageError
from smai_cli.mock.faults import IN_ANSWER, MIXTURE
from smai_cli.mock.script import LIES, POEM, Script
from smai_cli.prompt.prompt import operand_text

_COUNT = WholeNumber(0)
# A tape is kept in memory.
_TAPE_LIMIT_BYTES = 256 * 1024 * 1024
# Descriptors for many clients at once; the default limit of a system is 256 or 1024.
MANY_CLIENTS = 4096


class _Shares(click.ParamType):  # type: ignore[type-arg]  # not subscriptable in click 8.2
    """Shares of requests that fail: one for the default mixture, or one for each kind, `429=10%,cut=5%`."""

    name = "shares"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return pairs of a kind and its share. Raises click's BadParameter."""
        kinds: dict[str, float] = {}
        for item in value.split(",") if "=" in value else [f"{kind}={value}" for kind in MIXTURE]:
            kind, _, share = item.partition("=")
            if not re.fullmatch(r"[3-5]\d\d", kind, re.ASCII) and kind not in IN_ANSWER:
                self.fail(f"{kind!r} is not an HTTP status from 300 to 599, nor {', '.join(IN_ANSWER)}", param, ctx)
            if kind in kinds:
                self.fail(f"{kind} is given twice", param, ctx)
            kinds[kind] = self._share(share, param, ctx)
        if "=" not in value:
            kinds = {kind: share / len(MIXTURE) for kind, share in kinds.items()}
        if sum(kinds.values()) > 1 + 1e-9:
            self.fail(f"{value!r} is more than all requests", param, ctx)
        return tuple(kinds.items())

    def _share(self, text: str, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"(\d+\.?\d*|\.\d+)(%?)", text, re.ASCII)
        share = float(found[1]) / (100 if found[2] else 1) if found else -1
        if not 0 <= share <= 1:
            self.fail(f"{text!r} is not a share from 0 to 1, or from 0% to 100%", param, ctx)
        return share


class _Origin(click.ParamType):  # type: ignore[type-arg]  # as above
    """The Origin that a browser sends: scheme, host and optional port; null for a file."""

    name = "origin"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the origin in lower case, as browsers send it. Raises click's BadParameter."""
        origin: str = value.lower()
        if origin != "null" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[\w.:\[\]-]+", origin, re.ASCII):
            self.fail(f"{value!r} is not an origin, such as http://localhost:3000", param, ctx)
        return origin


@click.command(epilog="Manual: man smai-mock.")
@click.option("--port", type=WholeNumber(0, 65535), default=0, help="The port on 127.0.0.1.  [default: a free one]")
@click.option("--reply", metavar="TEXT", help="The text of the answer.  [default: a short poem]")
@click.option("--echo", is_flag=True, help="Answer with the prompt.")
@click.option("--tape", metavar="FILE", shell_complete=complete_file, help="Replay the stream in FILE; - is stdin.")
@click.option("--delay", type=SECONDS, metavar="MS", default=15, show_default=True, help="Milliseconds between deltas.")
@click.option("--split", "split_bytes", type=WholeNumber(1), metavar="N", help="Write N bytes of an answer at a time.")
@click.option("--require-key", metavar="KEY", help="Answer requests without this key with 401.")
@click.option("--max-requests", type=WholeNumber(1), help="Exit after N answers.")
@click.option("--status", type=WholeNumber(300, 599), help="Answer with this HTTP status.")
@click.option("--retry-after", metavar="S", help="Send this Retry-After with an error.")
@click.option("--fail-first", type=_COUNT, metavar="N", help="Fail only the first N requests, with --status or 503.")
@click.option(
    "--limit", "limit_per_s", type=Number(0.001), metavar="N", help="Answer requests beyond N per second with 429."
)
@click.option("--flaky", type=_Shares(), metavar="P", help="Fail a share of the requests: 0.1, 10%, 429=5%,cut=5%.")
@click.option(
    "--seed",
    type=WholeNumber(),
    default=0,
    show_default=True,
    help="The seed that decides which requests --flaky fails.",
)
@click.option("--cut-after", type=_COUNT, metavar="N", help="Close the connection after N deltas.")
@click.option("--stall-after", type=_COUNT, metavar="N", help="Stop sending after N deltas, but stay connected.")
@click.option("--error-after", type=_COUNT, metavar="N", help="Send an error event after N deltas.")
@click.option("--no-done", is_flag=True, help="Leave out [DONE].")
@click.option("--finish-reason", metavar="R", default="stop", show_default=True, help="The finish_reason; none: null.")
@click.option(
    "--lie",
    "lies",
    type=click.Choice(LIES),
    metavar="KIND",
    multiple=True,
    help="Report the end of answers wrongly, as some servers do; repeatable.",
)
@click.option(
    "--allow-origin", "allow_origins", type=_Origin(), multiple=True, help="Allow web pages of this origin; repeatable."
)
@click.option(
    "--log", metavar="FILE", shell_complete=complete_file, help="Append a line of JSON for each request to FILE."
)
def mock(port: int, log: str | None, **values: Any) -> int:
    """Serve the chat API on 127.0.0.1 for tests, without a model.

    The first line on stdout is the base URL.
    """
    from smai_cli.mock.server import Mock  # after --help and usage errors
    from smai_cli.output.descriptors import Output

    gc.enable()
    script = _make_script(**values)
    refuse_clashes(
        [Use(f"--{name}", file, alone=True) for name, file in (("log", log), ("tape", values["tape"])) if file], []
    )
    allow_descriptors(MANY_CLIENTS)
    log_fd = None if log is None else _open_log(log)
    try:
        server = Mock(script, port, log_fd=log_fd, keeps_received=False)
    except OSError as exc:
        raise UsageError(f"port {port}: {exc.strerror}", "choose another --port") from exc
    with server:
        Output().show(f"{server.url}\n".encode())
        server.over.wait()
    if server.failure:
        raise OutputError(f"{log}: {server.failure.strerror}", "free some space, or choose another --log")
    return 0


def _open_log(log: str) -> int:
    """Open the log, which is closed when the process ends. Raises UsageError."""
    try:
        return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    except (OSError, ValueError) as exc:
        raise UsageError(f"{log}: {getattr(exc, 'strerror', None) or exc}", "name a file that can be written") from exc


def _make_script(  # noqa: PLR0913  # what click gives in another form than the script has
    *,
    reply: str | None,
    echo: bool,
    tape: str | None,
    delay: float,
    status: int | None,
    fail_first: int | None,
    flaky: tuple[tuple[str, float], ...] | None,
    no_done: bool,
    lies: tuple[str, ...],
    **others: Any,
) -> Script:
    answers = {"--tape": tape is not None, "--reply": reply is not None, "--echo": echo}
    first, second, *_ = [*(name for name, given in answers.items() if given), "", ""]
    if second:
        raise UsageError(f"{first} and {second} cannot be combined", "choose one answer")
    return Script(
        reply=POEM if reply is None else operand_text(reply, "--reply"),
        echo=echo,
        tape=None if tape is None else _read_tape(tape),
        delay_s=delay / 1000,
        status=status or (503 if fail_first is not None else None),
        fail_first=fail_first,
        flaky=flaky or (),
        done=not no_done,
        lies=frozenset(lies),
        **others,
    )


def _read_tape(file: str) -> bytes:
    if file == STDIN_NAME:
        return read_all(STDIN, lambda: None, hint="check where the recording comes from", limit_bytes=_TAPE_LIMIT_BYTES)
    return read_file(file, file, _TAPE_LIMIT_BYTES, "name a file with a recorded stream")
