"""What was typed for `smai ask` -> checked and decoded: the words of the prompt, and the parameters of the request."""

import os
from typing import Any

from smai_cli.cli.options import AskOptions, AskValues, ServerOptions
from smai_cli.config.endpoint import files_to_read
from smai_cli.errors import UsageError
from smai_cli.output.descriptors import say
from smai_cli.output.options import OutputOptions
from smai_cli.prompt import prompt
from smai_cli.prompt.inputs import InputOptions
from smai_cli.prompt.request import choices_in

STDIN = 0
# More than anybody means to ask; a device that never ends would take all the memory there is.
STDIN_LIMIT_BYTES = 256 * 1024 * 1024

_EXCLUDED = (("chat", "messages"), ("json", "schema"), ("dry_run", "curl"))


def checked(typed: AskValues, output: OutputOptions, server: ServerOptions, *, system_is_typed: bool) -> AskOptions:
    """Return what was typed for `smai ask`, checked and decoded. Raises UsageError."""
    typed = typed.replaced(
        model=prompt.operand_text(typed.model, "-m/--model"),
        system=None if typed.system is None else prompt.operand_text(typed.system, "-s/--system"),
        stop=tuple(prompt.operand_text(text, "--stop") for text in typed.stop),
        option=tuple(prompt.operand_text(text, "-O/--option") for text in typed.option),
    )
    _check_names(typed, output, server)
    _exclude(typed, output)
    words = [prompt.operand_text(operand, f"operand {number}") for number, operand in enumerate(typed.operands, 1)]
    reads_stdin = _reads_stdin(words, typed)
    _check_files(typed, output, server, reads_stdin=reads_stdin or typed.messages == "-")
    if not reads_stdin and not typed.messages and not typed.chat:
        prompt.compose(words, None)  # an empty prompt is said before anything is loaded
    return AskOptions(
        words=words,
        reads_stdin=reads_stdin,
        model=typed.model,
        api=typed.api,
        stream=not typed.no_stream,
        parameters=_parameters(typed),
        extra_body=_extra_body(typed, output),
        inputs=InputOptions(
            system=typed.system,
            system_is_typed=system_is_typed,
            attach=typed.attach,
            chat=typed.chat,
            messages=typed.messages,
            json=typed.json,
            schema=typed.schema,
        ),
    )


def _check_names(typed: AskValues, output: OutputOptions, server: ServerOptions) -> None:
    """Raise UsageError for the name of a file that is empty, or is a dash where that is no file."""
    named = {
        "messages": (typed.messages,),
        "chat": (typed.chat,),
        "attach": typed.attach,
        "schema": (typed.schema,),
        "output": (output.file,),
        "record": (typed.record,),
        "key-file": (server.key_file,),
    }
    for option, names in named.items():
        if "" in names:
            raise UsageError(f"--{option} names no file", "give its name; is a variable empty?")
        if "-" in names and option != "messages":
            raise UsageError(f"--{option} - names no file", "write ./- for a file of that name")


def _exclude(typed: AskValues, output: OutputOptions) -> None:
    """Raise UsageError for options that exclude each other."""
    given = {name: bool(value) for name, value in vars(typed).items()} | {"output": bool(output.file)}
    previews = tuple((preview, file) for preview in ("dry_run", "curl") for file in ("output", "record"))
    for one, other in (*_EXCLUDED, *previews):
        if given[one] and given[other]:
            names = f"--{one} and --{other}".replace("_", "-")
            raise UsageError(f"{names} exclude each other", "choose one")


def _reads_stdin(words: list[str], typed: AskValues) -> bool:
    """Decide whether stdin is part of the prompt. Raises UsageError where the command line contradicts itself."""
    places = words.count("-") + (typed.messages == "-")
    if places > 1:
        raise UsageError("two of the arguments are -", "stdin can be placed once")
    if places and typed.no_stdin:
        raise UsageError("-n and - exclude each other", "drop one of them")
    if places:
        return "-" in words
    if typed.no_stdin or os.environ.get("SMAI_NO_STDIN", "0") not in ("", "0") or os.isatty(STDIN):
        return False
    if words and prompt.is_begun_file(STDIN):
        say("stdin is a file that is being read by someone else, and left alone; - reads it, -n says so silently")
        return False
    return True


def _check_files(typed: AskValues, output: OutputOptions, server: ServerOptions, *, reads_stdin: bool) -> None:
    """Raise UsageError for files that cannot be written, or are read or written under another name as well."""
    header_files = tuple(text[1:] for text in server.headers if text.startswith("@"))
    if not (output.file or typed.record or typed.chat or server.key_file or header_files):
        return
    from smai_cli.cli import same_files  # noqa: PLC0415  # for those who have files written, or a key in one

    if reads_stdin:  # the key would be a part of the prompt
        keys = [("--key-file", server.key_file), *(("-H", name) for name in header_files)]
        secret = [same_files.Use(option, name, alone=True) for option, name in keys if name]
        same_files.refuse_clashes(secret, [same_files.Use("stdin", STDIN)])
    system = typed.system or ""
    read = {
        "--messages": () if typed.messages == "-" else (typed.messages,),
        "-a": typed.attach,
        "-s": (system[1:],) if system.startswith("@") and not system.startswith("@@") else (),
        "--schema": (typed.schema,),
        "--key-file": (server.key_file,),
        "-H": header_files,
    }
    named = [same_files.Use(option, name) for option, names in read.items() for name in names if name]
    named += [same_files.Use(*found) for found in files_to_read(os.environ, server.settings)]
    named += same_files.written(output.file, typed.record, typed.chat)
    same_files.refuse_clashes(named, same_files.streams(quiet=output.quiet, reads_stdin=reads_stdin))


def read_stdin() -> bytes:
    """Return what stdin holds, and say so if it is long in coming. Raises UsageError."""
    return prompt.read_all(STDIN, _notice, limit_bytes=STDIN_LIMIT_BYTES)


def _extra_body(typed: AskValues, output: OutputOptions) -> dict[str, Any]:
    """Return the members that -O puts into the request. Raises UsageError for several answers where one is due."""
    if not typed.option:
        return {}
    from smai_cli.prompt.extra_body import extra_members  # noqa: PLC0415  # for few runs

    extra_body = extra_members(typed.option)
    if choices_in(extra_body) > 1 and (output.mode in ("text", "final") or typed.chat):
        raise UsageError("-O n asks for several answers, and the text is one", "use --jsonl or --raw, without --chat")
    return extra_body


def _parameters(typed: AskValues) -> dict[str, Any]:
    """Return the parameters that were given, by their names in the API reference."""
    values = {
        "temperature": typed.temperature,
        "max_tokens": typed.max_tokens,
        "top_p": typed.top_p,
        "reasoning_effort": typed.effort,
        "seed": typed.seed,
        "stop": list(typed.stop) or None,
    }
    return {name: value for name, value in values.items() if value is not None}


def _notice() -> None:
    say(f"waiting for the prompt on stdin, nothing has come for {prompt.NOTICE_AFTER_S:g} s; -n leaves stdin alone")
