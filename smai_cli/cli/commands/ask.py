"""`smai ask`: send one prompt and stream the answer."""

import contextlib
from typing import TYPE_CHECKING, Any

import click

from smai_cli.apis import choose_api
from smai_cli.cli.parsing.command_line import check_ask, parameters_of, read_option_file, read_stdin
from smai_cli.cli.parsing.help import GroupedCommand
from smai_cli.cli.parsing.options import AskOptions, AskValues, ServerOptions
from smai_cli.cli.parsing.server_options import server_options, verbose_option
from smai_cli.cli.parsing.shared_options import (
    api_option,
    complete_file,
    is_typed,
    model_option,
    output_options,
    request_options,
)
from smai_cli.cli.parsing.words import WORDS, check_operands
from smai_cli.cli.server import approach, choose_endpoint, preview_request, serving
from smai_cli.common.clocks import Deadline
from smai_cli.common.files import text_in
from smai_cli.common.trace import Trace, Tracer, silent
from smai_cli.config.endpoint import Endpoint
from smai_cli.errors import SmaiError, UsageError
from smai_cli.output.descriptors import Output, say
from smai_cli.output.modes import OutputOptions
from smai_cli.prompt.inputs import Question, in_conversation, read_question
from smai_cli.prompt.request import Request, choices_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smai_cli.cli.run import Run
    from smai_cli.http.exchange import Exchange
    from smai_cli.http.preconnect import Preconnect
    from smai_cli.output.preview import Preview
    from smai_cli.stream.pump import Dialect


@click.command(
    cls=GroupedCommand,
    examples=(
        'smai ask "Why is the sky blue?"',
        'git diff | smai ask "Review this."',
        'smai ask -x "Pi in Python" > pi.py',
    ),
    epilog="Manual: man smai-ask. Exit status 0: the answer is complete and was delivered.",
)
@click.argument("operands", metavar="[PROMPT]...", nargs=-1)
@model_option("The model to ask.")
@click.option("-s", "--system", metavar="TEXT", help="The system message; @FILE reads it.")
@click.option(
    "-a",
    "--attach",
    metavar="FILE",
    multiple=True,
    shell_complete=complete_file,
    help="Attach an image or a text file; repeatable.",
)
@click.option(
    "--chat",
    metavar="FILE",
    shell_complete=complete_file,
    envvar="SMAI_CHAT",
    help="Continue the conversation in FILE, and add to it.  [env: SMAI_CHAT]",
)
@click.option(
    "--messages",
    metavar="FILE",
    shell_complete=complete_file,
    help="Send the messages in FILE (JSON) before the prompt.",
)
@request_options
@click.option(
    "-O",
    "--option",
    metavar="KEY=VALUE",
    multiple=True,
    help="Set any parameter of the request; @FILE reads VALUE; repeatable.",
)
@output_options
@click.option(
    "--record",
    metavar="FILE",
    shell_complete=complete_file,
    help="Save the response body in FILE, even if the answer is not complete.",
)
@click.option("--reasoning", is_flag=True, help="Show the model's reasoning on stderr.")
@api_option("The API to use; auto chooses by the model.")
@click.option("--no-stream", is_flag=True, help="Do not stream: the answer arrives as one JSON object.")
@click.option("-n", "--no-stdin", is_flag=True, help="Do not read stdin.  [env: SMAI_NO_STDIN=1]")
@server_options
@click.option("--dry-run", is_flag=True, help="Print the request as JSON; send nothing.")
@click.option("--curl", is_flag=True, help="Print the request as a curl command; send nothing.")
@verbose_option
def ask(*, output: OutputOptions, server: ServerOptions, **values: Any) -> int:
    """Send PROMPT to the model and print the answer as it arrives.

    Piped stdin is the prompt, or follows PROMPT after a blank line; the operand - inserts it elsewhere. Where an option
    reads a FILE, - is stdin. Everything after -- is text, even if it begins with a dash: smai ask -n -- "$line"
    """
    typed = AskValues(**values)
    if typed.messages and not is_typed("chat"):  # a typed option takes precedence over SMAI_CHAT
        typed = typed.replaced(chat=None)
    output = output.replaced(record=typed.record, reasoning=typed.reasoning)
    deadline = server.clocks.deadline()
    tracer = Tracer(say) if typed.verbose else None
    ctx = click.get_current_context()
    try:
        check_operands(typed.operands, ctx.meta[WORDS], attaches=bool(typed.attach))
        options = check_ask(typed, output, server, system_is_typed=is_typed("system"))
        target = None if typed.is_preview else _target(options, output, server, deadline, tracer)
        failure = None
    except SmaiError as error:
        failure = error
    # From here on, the connection is made during the imports, unless files must be read first.
    from smai_cli.cli.run import Run

    run = Run(output, deadline, tracer)
    if failure:
        return run.life.fail(failure)
    if target is None:
        return run.life.deliver(lambda: _preview(run, options, server, tracer or silent, as_curl=typed.curl))
    if options.log:
        run.log_to(options.log, "ask", target[0] and target[0].base_url, server.settings.name)
    return run.life.deliver(lambda: _ask(run, options, server, target, tracer))


# The server (None: the mock), and what `approach` returned; None if files must be read before connecting.
_Target = tuple[Endpoint | None, "tuple[str | None, Preconnect | None] | None"]


def _target(
    options: AskOptions, output: OutputOptions, server: ServerOptions, deadline: Deadline, tracer: Tracer | None
) -> _Target:
    """Find the server, and begin to connect. Raises UsageError, or ClockError at the deadline."""
    endpoint = choose_endpoint(server, deadline)
    if tracer and endpoint:
        tracer.hide = endpoint.secrets.hidden_in
    if options.typed.has_files or output.file or output.record:
        return endpoint, None
    early = click.get_current_context().obj  # begun by main, before click was imported
    return endpoint, approach(endpoint, server.clocks.connect_timeout, tracer or silent, early)


def _text_of(piped: bytes) -> str:
    """Return what was read from stdin as the prompt, or a part of it. Raises UsageError if it is not text."""
    try:
        return text_in(piped)
    except UsageError as error:
        from smai_cli.prompt.attachments import image_type  # only for a failure

        if image_type(piped):
            raise UsageError("stdin is an image, not a prompt", "-a - attaches it") from error
        raise


@contextlib.contextmanager
def _request(run: "Run", question: Question, options: AskOptions, trace: Trace) -> "Iterator[tuple[Request, Question]]":
    """Read stdin and the conversation; provide the request and its question.

    The conversation is locked while the context lasts. Raises UsageError.
    """
    piped = _text_of(read_stdin(options.words)) if options.reads_stdin else None
    trace("stdin is read" if options.reads_stdin else "stdin is not read")
    with in_conversation(question, options.typed, run.life.say) as asked:
        request = Request(
            options.typed.model,
            asked.messages(options.words, piped),
            parameters_of(options.typed)
            | ({"response_format": asked.response_format.as_json} if asked.response_format else {}),
            stream=not options.typed.no_stream,
            include_usage=run.summary != "none" or options.log is not None,
            extra_body=asked.extra_body,
        )
        yield request, asked


def _ask(run: "Run", options: AskOptions, server: ServerOptions, target: _Target, tracer: Tracer | None) -> None:
    """Read the prompt, send the request and pump the answer. Raises SmaiError."""
    trace = tracer or silent
    question = read_question(options.typed, read_option_file)
    run.endpoint, connecting = target
    run.life.key = run.endpoint.secrets if run.endpoint else None
    if connecting is None and not options.typed.chat:
        connecting = approach(run.endpoint, server.clocks.connect_timeout, trace)
    # Before stdin is read, so that the imports run while its producer works.
    from smai_cli.http.exchange import Exchange
    from smai_cli.stream import pump
    from smai_cli.stream.retries import Retries

    with _request(run, question, options, trace) as (request, question):
        dialect = _dialect(options, server)
        if question.chat:
            question.chat.asked = request.messages[len(question.earlier) :]
        awaited = "the first delta" if request.stream else "the answer"
        fit = question.response_format.fit if question.response_format else None
        clocks = server.clocks.clocks(run.life.deadline)
        retries = Retries(server.clocks.retries, tracer or run.life.say, run.life.deadline)
        with run.delivery(awaited, fit, question.chat) as writer, serving(run.endpoint) as endpoint:
            run.outcome.model, run.outcome.choices = request.model, choices_in(request.extra_body)
            ca_file, preconnect = connecting or approach(run.endpoint, server.clocks.connect_timeout, trace)

            def post(body: bytes) -> "Exchange":
                return Exchange(
                    endpoint, dialect.PATH, body, clocks, ca_file=ca_file, preconnect=preconnect, trace=trace
                ).open()

            pump.ask(request, post, dialect, writer=writer, outcome=run.outcome, retries=retries)


def _dialect(options: AskOptions, server: ServerOptions) -> "Dialect":
    """Return the API to use for the model."""
    more = server.settings.value_of("responses_models", ())
    return choose_api(options.typed.api, options.typed.model, more).load()


def _preview(run: "Run", options: AskOptions, server: ServerOptions, trace: Trace, *, as_curl: bool) -> None:
    """Print what would be sent. Raises SmaiError."""
    question = read_question(options.typed, read_option_file)
    with _request(run, question, options, trace) as (request, _):
        shown = preview_request(request, _dialect(options, server), server, run.life.deadline)
        _print_preview(shown, request, as_curl=as_curl)
    run.summary = "none"  # there was no answer; a failure is reported already


def _print_preview(shown: "Preview", request: Request, *, as_curl: bool) -> None:
    from smai_cli.common.text import escaped, escaped_in_shell  # for those who look before they ask
    from smai_cli.output import preview

    output = Output()
    if not as_curl:
        output.show_lines([preview.preview_json(shown, request.messages, request.model)], escaped)
        return
    key = shown.key.in_shell() if shown.key else None
    if shown.key and key is None:
        where = shown.key.where
        say(f"the command has no key, because a shell cannot read it from {where}; name a file with --key-file")
    if output.is_terminal:  # every shell understands the escapes of JSON
        shown = shown._replace(body=escaped(shown.body.decode()).encode())
    command, missing = preview.preview_curl(shown, key)
    if missing:
        say(f"the command has the names of headers only; before it runs, set {', '.join(missing)}")
    output.show(f"{command}\n".encode(errors="surrogateescape"), escaped_in_shell)
