"""`smai ask`: one prompt in, one answer streamed out."""

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from smai_cli import prompt
from smai_cli.cli import APIS, Number, chosen_mode, output_options, server_options
from smai_cli.clocks import Clocks, Deadline
from smai_cli.config import DEFAULT_MODEL, Endpoint, find_ca_file
from smai_cli.errors import UsageError
from smai_cli.output import say
from smai_cli.target import chosen_endpoint, serving

if TYPE_CHECKING:
    from smai_cli.ahead import Ahead
    from smai_cli.run import Run

STDIN = 0


@click.command(epilog="Manual: man smai-ask. Exit status 0 means: the answer is complete and was delivered.")
@click.argument("operands", metavar="[PROMPT]...", nargs=-1)
@click.option("-m", "--model", envvar="SMAI_MODEL", default=DEFAULT_MODEL, show_default=True, help="The model to ask.")
@click.option("-s", "--system", metavar="TEXT", help="The system message.")
@click.option("-t", "--temperature", type=Number(0, 2), help="Sampling temperature, 0 to 2.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="The most tokens to answer with.")
@click.option("--top-p", type=Number(0, 1), help="Nucleus sampling, 0 to 1.")
@click.option("--effort", type=click.Choice(["low", "medium", "high"]), help="How hard a reasoning model thinks.")
@output_options
@click.option("--reasoning", is_flag=True, help="Show the model's reasoning on stderr.")
@click.option(
    "--api", type=click.Choice(APIS), default="auto", show_default=True, help="The API to ask; auto: by the model."
)
@click.option("--no-stream", is_flag=True, help="Ask for the answer in one piece.")
@click.option("-n", "--no-stdin", is_flag=True, help="Leave stdin alone.  [env: SMAI_NO_STDIN=1]")
@server_options
def ask(operands: tuple[str, ...], **flags: Any) -> int:
    """Send PROMPT to the model and print the answer as it arrives.

    Piped stdin is the prompt, or follows PROMPT after a blank line; the operand - places it elsewhere.
    """
    deadline = Deadline(flags["max_time"])
    mode = chosen_mode(raw=flags["raw"], jsonl=flags["jsonl"], final=flags["final"])
    checked = _checked(operands, flags)
    # From here on the connection is being made while the imports run.
    from smai_cli.run import Run  # noqa: PLC0415

    run = Run(mode, flags["summary"], flags["accept"], deadline, reasoning=flags["reasoning"])
    if isinstance(checked, UsageError):
        return run.fail(checked)
    return run.deliver(lambda: _ask(run, checked, flags))


class _Inquiry(NamedTuple):
    """What was typed, checked: the words of the prompt, where to ask (None: the mock), and how far that is."""

    model: str
    system: str | None
    words: list[str]
    reads_stdin: bool
    endpoint: Endpoint | None
    ca_file: str | None
    ahead: "Ahead | None"


def _checked(operands: tuple[str, ...], flags: dict[str, Any]) -> _Inquiry | UsageError:
    """Return what was typed, or what is wrong with it, to be told when there is a run to tell it."""
    try:
        return _check(operands, flags)
    except UsageError as error:
        return error


def _check(operands: tuple[str, ...], flags: dict[str, Any]) -> _Inquiry:
    """Check what was typed and begin to connect. Raises UsageError."""
    model = prompt.operand_text(flags["model"], "-m/--model")
    system = None if flags["system"] is None else prompt.operand_text(flags["system"], "-s/--system")
    words = [prompt.operand_text(operand, f"operand {number}") for number, operand in enumerate(operands, 1)]
    reads_stdin = _reads_stdin(words, no_stdin=flags["no_stdin"])
    if not reads_stdin:
        prompt.compose(words, None)  # an empty prompt is said before anything is loaded
    endpoint = chosen_endpoint(flags)
    ca_file, ahead = None, None
    if endpoint and endpoint.is_tls:
        from smai_cli.ahead import connect_ahead  # noqa: PLC0415  # after usage errors

        ca_file = find_ca_file(os.environ)
        ahead = connect_ahead(endpoint.base_url, ca_file, flags["connect_timeout"], os.environ)
    return _Inquiry(model, system, words, reads_stdin, endpoint, ca_file, ahead)


def _ask(run: "Run", inquiry: _Inquiry, flags: dict[str, Any]) -> None:
    """Read stdin, send the request and pump the answer. Raises SmaiError."""
    # Before stdin is read, so that they load while its producer works.
    from smai_cli import stream, transport  # noqa: PLC0415
    from smai_cli.dialects import dialect_for  # noqa: PLC0415
    from smai_cli.request import Request, conversation  # noqa: PLC0415
    from smai_cli.retry import Retries  # noqa: PLC0415

    model, system, words, reads_stdin, endpoint, ca_file, ahead = inquiry
    piped = prompt.piped_text(prompt.read_all(STDIN, _notice)) if reads_stdin else None
    request = Request(
        model,
        conversation(prompt.compose(words, piped), system),
        _options(flags),
        stream=not flags["no_stream"],
        include_usage=run.summary != "none",
    )
    run.completion.model = model
    run.key = endpoint.key if endpoint else None
    clocks = Clocks(flags["connect_timeout"], flags["idle_timeout"], run.deadline)
    dialect = dialect_for(flags["api"], model)
    with serving(endpoint) as target:
        stream.ask(
            request,
            lambda body: transport.post(target, dialect.PATH, body, clocks, ca_file=ca_file, ahead=ahead),
            dialect,
            writer=run.writer,
            completion=run.completion,
            retries=Retries(flags["retries"], run.say, run.deadline),
        )


def _reads_stdin(words: list[str], *, no_stdin: bool) -> bool:
    """Decide whether stdin is part of the prompt. Raises UsageError where the command line contradicts itself."""
    places = words.count("-")
    if places > 1:
        raise UsageError("two operands are -", "stdin can be placed once")
    if places and no_stdin:
        raise UsageError("-n and the operand - exclude each other", "drop one of them")
    if places:
        return True
    if no_stdin or os.environ.get("SMAI_NO_STDIN", "0") not in ("", "0") or os.isatty(STDIN):
        return False
    if words and prompt.is_begun_file(STDIN):
        say("stdin is a file that is being read by someone else, and left alone; - reads it, -n says so silently")
        return False
    return True


def _options(flags: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given, by their names in the API reference."""
    names = {"temperature": "temperature", "max_tokens": "max_tokens", "top_p": "top_p", "effort": "reasoning_effort"}
    return {name: flags[flag] for flag, name in names.items() if flags[flag] is not None}


def _notice() -> None:
    say(f"waiting for the prompt on stdin, nothing has come for {prompt.NOTICE_AFTER_S:g} s; -n leaves stdin alone")
