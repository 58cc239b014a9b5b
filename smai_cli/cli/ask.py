"""`smai ask`: one prompt in, one answer streamed out."""

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from smai_cli.cli.command_line import Typed, check_typed, read_stdin
from smai_cli.cli.group import (
    APIS,
    Number,
    chosen_mode,
    complete_file,
    file_options,
    model_option,
    output_options,
    server_options,
    verbose_option,
)
from smai_cli.cli.server import approach, chosen_endpoint, previewed_endpoint, serving
from smai_cli.clocks import Clocks, Deadline
from smai_cli.config.endpoint import Endpoint, shown_url
from smai_cli.errors import SmaiError
from smai_cli.files import text_in
from smai_cli.http.trace import Teller, silent
from smai_cli.output.descriptors import Output, say
from smai_cli.prompt.inputs import in_conversation, names_files, read_question
from smai_cli.prompt.request import Request

if TYPE_CHECKING:
    from smai_cli.cli.run import Run
    from smai_cli.http.preconnect import Ahead
    from smai_cli.stream.pump import Dialect


@click.command(epilog="Manual: man smai-ask. Exit status 0 means: the answer is complete and was delivered.")
@click.argument("operands", metavar="[PROMPT]...", nargs=-1)
@model_option("The model to ask.")
@click.option("-s", "--system", metavar="TEXT", help="The system message; @FILE reads it from FILE.")
@click.option(
    "-a",
    "--attach",
    metavar="FILE",
    multiple=True,
    shell_complete=complete_file,
    help="Send an image or a text along; repeatable.",
)
@click.option(
    "--chat",
    metavar="FILE",
    shell_complete=complete_file,
    help="Keep the conversation in FILE, and go on with it.",
)
@click.option(
    "--messages",
    metavar="FILE",
    shell_complete=complete_file,
    help="Send the messages in FILE (JSON; - is stdin) before the prompt.",
)
@click.option("-t", "--temperature", type=Number(0, 2), help="Sampling temperature, 0 to 2.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="The most tokens to answer with.")
@click.option("--top-p", type=Number(0, 1), help="Nucleus sampling, 0 to 1.")
@click.option("--effort", type=click.Choice(["low", "medium", "high"]), help="How hard a reasoning model thinks.")
@click.option("--seed", type=int, help="The seed of the sampling.")
@click.option("--stop", metavar="TEXT", multiple=True, help="End the answer before TEXT; repeatable.")
@click.option("--json", is_flag=True, help="Ask for JSON.")
@click.option(
    "--schema", metavar="FILE", shell_complete=complete_file, help="Ask for JSON after the JSON Schema in FILE."
)
@click.option("-O", "--option", metavar="KEY=VALUE", multiple=True, help="Put KEY into the request; repeatable.")
@output_options
@file_options
@click.option(
    "--record",
    metavar="FILE",
    shell_complete=complete_file,
    help="Keep the body of the answer in FILE, byte for byte, complete or not.",
)
@click.option("--reasoning", is_flag=True, help="Show the model's reasoning on stderr.")
@click.option(
    "--api", type=click.Choice(APIS), default="auto", show_default=True, help="The API to ask; auto: by the model."
)
@click.option("--no-stream", is_flag=True, help="Ask for the answer in one piece.")
@click.option("-n", "--no-stdin", is_flag=True, help="Leave stdin alone.  [env: SMAI_NO_STDIN=1]")
@server_options
@click.option("--dry-run", is_flag=True, help="Print the request as JSON, and send nothing.")
@click.option("--curl", is_flag=True, help="Print the request as a curl command, and send nothing.")
@verbose_option
def ask(operands: tuple[str, ...], **flags: Any) -> int:
    """Send PROMPT to the model and print the answer as it arrives.

    Piped stdin is the prompt, or follows PROMPT after a blank line; the operand - places it elsewhere.
    """
    deadline = Deadline(flags["max_time"])
    flags["tell"] = Teller(say) if flags["verbose"] else silent
    source = click.get_current_context().get_parameter_source("system")
    flags["system_is_typed"] = source is click.core.ParameterSource.COMMANDLINE
    mode = chosen_mode(flags)
    checked = _checked(operands, flags, mode, deadline)
    # From here on the connection is being made while the imports run, unless files must be read first.
    from smai_cli.cli.run import Run  # noqa: PLC0415

    run = Run(mode, flags, deadline)
    if isinstance(checked, SmaiError):
        return run.fail(checked)
    return run.deliver(lambda: _ask(run, checked, flags))


class _Inquiry(NamedTuple):
    """What was typed, and where to ask (None: the mock).

    `near` is what `approach` returned, None where files must be read before the server is approached.
    """

    typed: Typed
    endpoint: Endpoint | None
    near: "tuple[str | None, Ahead | None] | None"


def _checked(operands: tuple[str, ...], flags: dict[str, Any], mode: str, deadline: Deadline) -> _Inquiry | SmaiError:
    """Check what was typed, and begin to connect; return what is wrong, to be told when there is a run to tell it."""
    try:
        typed = check_typed(operands, flags, mode)
        is_preview = flags["dry_run"] or flags["curl"]
        endpoint = None if is_preview else chosen_endpoint(flags, deadline)
        if flags["verbose"] and endpoint:
            flags["tell"].key = endpoint.secrets
        is_near = not is_preview and not names_files(flags)
        near = approach(endpoint, flags["connect_timeout"], flags["tell"]) if is_near else None
    except SmaiError as error:
        return error
    return _Inquiry(typed, endpoint, near)


def _ask(run: "Run", inquiry: _Inquiry, flags: dict[str, Any]) -> None:
    """Read files and stdin, send the request and pump the answer. Raises SmaiError."""
    run.key = inquiry.endpoint.secrets if inquiry.endpoint else None
    tell = flags["tell"]
    with contextlib.ExitStack() as stack:
        question = read_question(flags, read_stdin)
        near = inquiry.near or (None if flags["chat"] else approach(inquiry.endpoint, flags["connect_timeout"], tell))
        # Before stdin is read, so that they load while its producer works.
        from smai_cli.http import transport  # noqa: F401, PLC0415
        from smai_cli.stream import pump  # noqa: F401, PLC0415
        from smai_cli.stream.dialects import dialect_for  # noqa: PLC0415

        piped = text_in(read_stdin()) if inquiry.typed.reads_stdin else None
        tell("stdin is read" if inquiry.typed.reads_stdin else "stdin is left alone")
        if flags["chat"]:
            question = stack.enter_context(
                in_conversation(question, flags["chat"], run.say, system_is_typed=flags["system_is_typed"])
            )
        request = Request(
            flags["model"],
            question.messages(inquiry.typed.words, piped),
            inquiry.typed.options | ({"response_format": question.form.response_format} if question.form else {}),
            stream=not flags["no_stream"],
            include_usage=run.summary != "none",
            extra=inquiry.typed.extra,
        )
        more = flags["settings"].get("responses_models")
        dialect = dialect_for(flags["api"], request.model, more.value if more else ())
        if flags["dry_run"] or flags["curl"]:
            run.summary = "none"
            _print_preview(request, dialect, flags)
            return
        stack.enter_context(run.into_files(question.turn(request)))
        run.expect(request, question.form.check if question.form else None)
        near = near or approach(inquiry.endpoint, flags["connect_timeout"], tell)
        _send(run, request, dialect, inquiry._replace(near=near), flags)


def _send(run: "Run", request: Request, dialect: "Dialect", inquiry: _Inquiry, flags: dict[str, Any]) -> None:
    """Send the request and pump the answer. Raises SmaiError."""
    from smai_cli.http import transport  # noqa: PLC0415  # after usage errors
    from smai_cli.http.retry import Retries  # noqa: PLC0415
    from smai_cli.stream import pump  # noqa: PLC0415  # after usage errors

    tell = flags["tell"]
    clocks = Clocks(flags["connect_timeout"], flags["idle_timeout"], run.deadline)
    ca_file, ahead = inquiry.near or (None, None)
    with serving(inquiry.endpoint) as target:
        pump.ask(
            request,
            lambda body: transport.post(target, dialect.PATH, body, clocks, ca_file=ca_file, ahead=ahead, tell=tell),
            dialect,
            writer=run.writer,
            completion=run.completion,
            retries=Retries(flags["retries"], tell if flags["verbose"] else run.say, run.deadline),
        )


def _print_preview(request: Request, dialect: "Dialect", flags: dict[str, Any]) -> None:
    """Print what would be sent. Raises SmaiError."""
    from smai_cli.http import transport  # noqa: PLC0415  # for those who look before they ask
    from smai_cli.output import preview  # noqa: PLC0415  # for those who look before they ask

    endpoint, source = previewed_endpoint(flags)
    body = dialect.encode_request(request)
    url, headers = transport.prepared(endpoint, dialect.PATH, body)
    if flags["dry_run"]:
        shown = preview.Preview(shown_url(url), headers, body, source.where if source else None)
        # Half a surrogate pair, from the path of a file, is escaped as JSON does it.
        text = preview.as_json(shown, request.messages, request.model)
        Output().write(f"{text}\n".encode(errors="backslashreplace"))
        return
    in_shell = source.in_shell() if source else None
    if source and in_shell is None:
        say(f"the command has no key, for a shell cannot read it from {source.where}; name a file with --key-file")
    command = preview.as_curl(preview.Preview(url, headers, body, key_in_shell=in_shell))
    Output().write(f"{command}\n".encode(errors="surrogateescape"))
