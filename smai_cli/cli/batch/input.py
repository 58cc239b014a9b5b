"""Check the options of `smai batch`, and open its input."""

import os
from collections.abc import Callable

from smai_cli.batch.input.lines import Defaults
from smai_cli.batch.input.pin import pin_of
from smai_cli.batch.input.source import Input
from smai_cli.batch.input.template import Template
from smai_cli.cli import same_files
from smai_cli.cli.parsing.command_line import configured_options, log_of, parameters_of, read_option_file
from smai_cli.cli.parsing.options import BatchValues, ServerOptions
from smai_cli.common.files import STDIN, STDIN_NAME, file_named_in, open_to_read, text_of_value
from smai_cli.common.frozen import Frozen
from smai_cli.config.endpoint import files_to_read
from smai_cli.errors import UsageError
from smai_cli.prompt import prompt
from smai_cli.prompt.inputs import Question, read_question
from smai_cli.prompt.request import choices_in


class BatchInput(Frozen):
    """The lines to send, the settings of their requests, and the check for the text of an answer."""

    source: Input
    defaults: Defaults
    check: Callable[[str], str] | None


def read_input(typed: BatchValues, server: ServerOptions) -> BatchInput:
    """Open the input, after checking that the named files are different files. Raises UsageError."""
    typed = typed.replaced(option=(*configured_options(typed, server.settings), *typed.option))
    _check_names(typed, server)
    _check_files(typed, server)
    if typed.file == STDIN_NAME and os.isatty(STDIN):
        raise UsageError("no input lines", "name a file, or pipe them in")
    question = _read_question(typed)
    form = question.response_format
    return BatchInput(
        source=Input(*_open_input(typed.file), typed.shard),
        defaults=_defaults(typed, question),
        check=form.fit if form else None,
    )


def _defaults(typed: BatchValues, question: Question) -> Defaults:
    parameters = parameters_of(typed)
    if question.response_format:
        parameters["response_format"] = question.response_format.as_json
    system, text = _text(typed.system, "-s/--system"), _text(typed.template, "--template")
    template = None if text is None else Template(text)
    if typed.lines and template and template.names:
        raise UsageError("--template names a member, but with --lines a line is plain text", "write {} for the line")
    return Defaults(
        model=prompt.operand_text(typed.model, "-m/--model"),
        api=typed.api,
        system=system,
        parameters=parameters,
        extra_body=question.extra_body,
        stream=not typed.no_stream,
        is_text=typed.lines,
        form=typed.form,
        template=template,
    )


def _text(value: str | None, option: str) -> str | None:
    return None if value is None else text_of_value(prompt.operand_text(value, option), read_option_file, option)


def _read_question(typed: BatchValues) -> Question:
    """Return what the options take from files, except for the system text. Raises UsageError."""
    pairs = tuple(prompt.operand_text(text, "-O/--option") for text in typed.option)
    question = read_question(typed.replaced(system=None, option=pairs), read_option_file)
    if choices_in(question.extra_body) > 1:
        raise UsageError("-O n requests several answers, but a result has one", "repeat the lines instead")
    return question


def _check_names(typed: BatchValues, server: ServerOptions) -> None:
    """Raise UsageError for options that contradict each other."""
    for name in ("resume", "resume_failed", "drop_stale"):
        if getattr(typed, name) and not typed.output:
            raise UsageError(f"--{name.replace('_', '-')} needs -o", "name the file of the results")
    if typed.drop_stale and not (typed.resume or typed.resume_failed):
        raise UsageError("--drop-stale is for the results of an earlier run", "give --resume as well")
    if typed.output and typed.keep_order:
        raise UsageError("-k is for stdout", "-o FILE is in the order of the input anyway")
    if typed.json and typed.schema:
        raise UsageError("--json and --schema cannot be combined", "choose one")
    for option, path in {"-o": typed.output, "FILE": typed.file, "--schema": typed.schema}.items():
        if path == "" or (option == "-o" and path == STDIN_NAME):
            raise UsageError(f"{option} needs a file name", "give one; is a variable empty?")
    taking = [option for option, name in _files_read(typed, server) if name == STDIN_NAME]
    if len(taking) > 1:
        raise UsageError(f"{' and '.join(taking)} both read stdin", "it can be read only once")


def _files_read(typed: BatchValues, server: ServerOptions) -> list[tuple[str, str]]:
    """Return the files that are read, each as the option that names it and the file."""
    named = [
        ("FILE", typed.file),
        ("--schema", typed.schema),
        ("--key-file", server.key_file),
        ("-s", file_named_in(typed.system or "")),
        ("--template", file_named_in(typed.template or "")),
        *(("-O", file_named_in(pair.partition("=")[2])) for pair in typed.option),
    ]
    return [(option, name) for option, name in named if name]


def _check_files(typed: BatchValues, server: ServerOptions) -> None:
    """Raise UsageError if a file that is written is named twice."""
    read = [
        same_files.Use(option, STDIN if name == STDIN_NAME else name) for option, name in _files_read(typed, server)
    ]
    read += [same_files.Use(*found) for found in files_to_read(os.environ, server.settings)]
    written = same_files.list_written_files(typed.output)
    if typed.output:
        written.append(same_files.Use("the .stale of -o", f"{typed.output}.stale", alone=True))
        if typed.shard:
            written.append(same_files.Use("the .shard of -o", pin_of(typed.output), alone=True))
    if log := log_of(server):
        written.append(same_files.Use(log.setting, log.path, alone=True))
    same_files.refuse_clashes([*read, *written], same_files.streams(quiet=bool(typed.output), reads_stdin=False))


def _open_input(file: str) -> tuple[int, str]:
    if file == STDIN_NAME:
        return STDIN, "stdin"
    return open_to_read(file, "name a file with a line for each prompt"), file
