"""Check and decode the command line of `smai ask`: the words of the prompt, and the parameters of the request."""

import os
import stat
from typing import TYPE_CHECKING, Any

from smai_cli.cli.parsing.options import AskOptions, AskValues, RequestValues, ServerOptions
from smai_cli.common.files import NOTICE_AFTER_S, STDIN, STDIN_NAME, file_named_in, read_all, read_named
from smai_cli.common.frozen import Frozen
from smai_cli.config.config_file import Settings
from smai_cli.config.endpoint import files_to_read
from smai_cli.errors import UsageError
from smai_cli.output.descriptors import say
from smai_cli.output.modes import OutputOptions
from smai_cli.prompt import prompt
from smai_cli.prompt.request import TOKEN_LIMITS

if TYPE_CHECKING:
    from smai_cli.config.log_file import LogFile

# Other names of stdin: a pipe can be read only once, by whichever name.
_STDIN_PATHS = ("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
# Larger than any real prompt; an endless device would use up all memory.
STDIN_LIMIT_BYTES = 256 * 1024 * 1024

_EXCLUDED = (("chat", "messages"), ("json", "schema"), ("dry_run", "curl"))


def check_ask(typed: AskValues, output: OutputOptions, server: ServerOptions, *, system_is_typed: bool) -> AskOptions:
    """Check and decode the options of `smai ask`. Raises UsageError."""
    typed = typed.replaced(option=(*configured_options(typed, server.settings), *typed.option))
    typed = typed.replaced(
        model=prompt.operand_text(typed.model, "-m/--model"),
        system=None if typed.system is None else prompt.operand_text(typed.system, "-s/--system"),
        stop=tuple(prompt.operand_text(text, "--stop") for text in typed.stop),
        option=tuple(prompt.operand_text(text, "-O/--option") for text in typed.option),
        system_is_typed=system_is_typed,
        takes_one=output.prints_text or bool(typed.chat),
    )
    _check_names(typed, output)
    _exclude(typed, output)
    words = [prompt.operand_text(operand, f"operand {number}") for number, operand in enumerate(typed.operands, 1)]
    readings = _readings(typed, server)
    reads_stdin = _reads_stdin(words, typed, readings)
    log = log_of(server)
    _check_files(typed, output, server, readings, reads_stdin=reads_stdin)
    if log and not typed.is_preview:
        _check_log(log, typed, output, server)
    if not reads_stdin and not typed.messages and not typed.chat:
        _check_prompt(words, typed)
    return AskOptions(typed=typed, words=words, reads_stdin=reads_stdin, log=log)


class _Reading(Frozen):
    """A file that is read: the option that names it, the text as typed, and the file."""

    option: str
    shown: str
    file: str

    @property
    def is_stdin(self) -> bool:
        """Whether it is stdin, which can be read only once; a regular file on stdin can be opened again by its path."""
        return self.file == STDIN_NAME or (self.file in _STDIN_PATHS and not _is_regular(STDIN))


def _readings(typed: AskValues, server: ServerOptions) -> list[_Reading]:
    """Return the files that are read."""
    system = file_named_in(typed.system or "")
    named = [
        ("--messages", " ", typed.messages),
        *(("-a", " ", name) for name in typed.attach),
        ("-s", " @", system),
        ("--schema", " ", typed.schema),
        ("--key-file", " ", server.key_file),
        *(("-H", " @", name) for name in _header_files(server)),
    ]
    if typed.option:
        from smai_cli.prompt.extra_body import files_named  # rarely used

        named += [(f"-O {key}", "=@", name) for key, name in files_named(typed.option)]
    return [_Reading(option=option, shown=f"{option}{sign}{name}", file=name) for option, sign, name in named if name]


def _header_files(server: ServerOptions) -> tuple[str, ...]:
    """Return the files with headers; stdin is refused later, when they are read."""
    return tuple(text[1:] for text in server.header if text.startswith("@") and text[1:] not in ("", STDIN_NAME))


def _is_regular(fd: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode)
    except OSError:
        return False


def _check_names(typed: AskValues, output: OutputOptions) -> None:
    """Raise UsageError if a file to write is named `-`."""
    for option, name in {"chat": typed.chat, "output": output.file, "record": typed.record}.items():
        if name == STDIN_NAME:
            raise UsageError(f"--{option} - needs a file name", "write ./- for a file of that name")


def _exclude(typed: AskValues, output: OutputOptions) -> None:
    """Raise UsageError for options that cannot be combined."""
    given = {name: bool(value) for name, value in vars(typed).items()} | {"output": bool(output.file)}
    previews = tuple((preview, file) for preview in ("dry_run", "curl") for file in ("output", "record"))
    for one, other in (*_EXCLUDED, *previews):
        if given[one] and given[other]:
            names = f"--{one} and --{other}".replace("_", "-")
            raise UsageError(f"{names} cannot be combined", "choose one")


def _check_prompt(words: list[str], typed: AskValues) -> None:
    """Raise UsageError for an empty prompt, before anything is loaded. Stdin is not read."""
    try:
        prompt.compose(words, None)
    except UsageError as error:
        setting = "-n" if typed.no_stdin else "SMAI_NO_STDIN" if _is_stdin_off() else ""
        hint = f"write one in quotes; {setting} keeps stdin from being read" if setting else error.hint
        raise error.replaced(hint=hint) from error


def _is_stdin_off() -> bool:
    return os.environ.get("SMAI_NO_STDIN", "0") not in ("", "0")


def _reads_stdin(words: list[str], typed: AskValues, readings: list[_Reading]) -> bool:
    """Return whether stdin is part of the prompt. Raises UsageError if the command line contradicts itself."""
    taken = [reading for reading in readings if reading.is_stdin]
    takers = [reading.shown for reading in taken] + ["the operand -"] * words.count("-")
    if len(takers) > 1:
        raise UsageError(f"{takers[0]} and {takers[1]} both read stdin", "it can be read only once")
    if typed.no_stdin and ("-" in words or any(reading.file == STDIN_NAME for reading in taken)):
        raise UsageError("-n and - cannot be combined", "drop one of them")
    if takers:
        return "-" in words
    if typed.no_stdin or _is_stdin_off() or os.isatty(STDIN):
        return False
    if words and prompt.is_partly_read(STDIN):
        say("stdin is being read by another program, so smai leaves it alone; use - to read it, -n to silence this")
        return False
    return True


def _check_files(
    typed: AskValues, output: OutputOptions, server: ServerOptions, readings: list[_Reading], *, reads_stdin: bool
) -> None:
    """Raise UsageError for files that cannot be written, or are also read or written under another name."""
    header_files = _header_files(server)
    if not (output.file or typed.record or typed.chat or server.key_file or header_files):
        return
    from smai_cli.cli import same_files  # only with files to write or secret files

    reads_stdin = reads_stdin or any(reading.file == STDIN_NAME for reading in readings)
    if reads_stdin:  # otherwise a secret would be part of the prompt
        keys = [("--key-file", server.key_file), *(("-H", name) for name in header_files)]
        secret = [same_files.Use(option, name, alone=True) for option, name in keys if name and name != STDIN_NAME]
        same_files.refuse_clashes(secret, [same_files.Use("stdin", STDIN)])
    named = [same_files.Use(reading.option, reading.file) for reading in readings if reading.file != STDIN_NAME]
    named += [same_files.Use(*found) for found in files_to_read(os.environ, server.settings)]
    named += same_files.list_written_files(output.file, typed.record, typed.chat)
    same_files.refuse_clashes(named, same_files.streams(quiet=output.quiet, reads_stdin=reads_stdin))


def log_of(server: ServerOptions) -> "LogFile | None":
    """Return the run log, if one is named; print a notice if its path cannot be determined."""
    if "SMAI_LOG" not in os.environ and not server.settings.get("log"):
        return None
    from smai_cli.config.log_file import log_file  # only if there is a run log

    try:
        return log_file(os.environ, server.settings)
    except UsageError as error:
        say(str(error))
        return None


def _check_log(log: "LogFile", typed: AskValues, output: OutputOptions, server: ServerOptions) -> None:
    """Raise UsageError if the run log is a file that must not get its lines.

    The run log itself may be part of the prompt (-a, -s, stdin): it is read before it gets its line.
    """
    from smai_cli.cli import same_files  # only if there is a run log

    log_use = same_files.Use(log.setting, log.path, alone=True)
    others = same_files.list_written_files(output.file, typed.record, typed.chat)
    kept = {"--messages": typed.messages, "--schema": typed.schema, "--key-file": server.key_file}
    others += [same_files.Use(option, name) for option, name in kept.items() if name and name != "-"]
    others += [same_files.Use(*found) for found in files_to_read(os.environ, server.settings)]
    same_files.refuse_clashes([log_use], [*others, *same_files.streams(quiet=output.quiet, reads_stdin=False)])


def read_stdin(words: list[str]) -> bytes:
    """Read the prompt from stdin, with a notice if it takes long; `words` are the operands. Raises UsageError."""
    hint = "" if "-" in words else "; -n does not read stdin"
    if os.isatty(STDIN):
        hint = "; end the text with Ctrl-D"

    def notice() -> None:
        say(f"waiting for the prompt on stdin; nothing has arrived for {NOTICE_AFTER_S:g} s{hint}")

    return read_all(STDIN, notice, limit_bytes=STDIN_LIMIT_BYTES)


def read_option_file(path: str, limit_bytes: int | None) -> bytes:
    """Read a file that an option names, or stdin for `-`, with a notice if that takes long. Raises UsageError."""
    if path != STDIN_NAME:
        return read_named(path, limit_bytes)
    hint = "check where the input comes from"
    return read_all(STDIN, _notice_of_option, hint=hint, limit_bytes=limit_bytes or STDIN_LIMIT_BYTES)


def parameters_of(typed: RequestValues) -> dict[str, Any]:
    """Return the parameters that are set, by their names in the API reference."""
    values = {
        "temperature": typed.temperature,
        "max_tokens": typed.max_tokens,
        "top_p": typed.top_p,
        "reasoning_effort": typed.effort,
        "seed": typed.seed,
        "stop": list(typed.stop) or None,
    }
    return {name: value for name, value in values.items() if value is not None}


def configured_options(typed: RequestValues, settings: Settings) -> list[str]:
    """Return the `options` of the configuration as values of -O, to be placed before the typed ones.

    A specific option (--seed, --max-tokens) overrides `options`, under any name that an API has for it.
    """
    found = settings.get("options")
    if found is None:
        return []
    import json  # only if there are any

    said = set(parameters_of(typed))
    if not said.isdisjoint(TOKEN_LIMITS):
        said |= TOKEN_LIMITS
    return [f"{key}={json.dumps(value)}" for key, value in found.value.items() if key not in said]


def _notice_of_option() -> None:
    say(f"waiting for the file on stdin that an option names; nothing has arrived for {NOTICE_AFTER_S:g} s")
