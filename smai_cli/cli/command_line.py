"""What was typed for `smai ask` -> checked and decoded: the words of the prompt, and the parameters of the request."""

import os
from typing import Any, NamedTuple

from smai_cli.errors import UsageError
from smai_cli.output.descriptors import say
from smai_cli.prompt import prompt
from smai_cli.prompt.inputs import FILES
from smai_cli.prompt.request import choices_in

STDIN = 0
# More than anybody means to ask; a device that never ends would take all the memory there is.
STDIN_LIMIT_BYTES = 256 * 1024 * 1024

_TEXTS = {"model": "-m/--model", "system": "-s/--system", "stop": "--stop", "option": "-O/--option"}
_EXCLUDED = (
    ("chat", "messages"),
    ("json", "schema"),
    ("dry_run", "curl"),
    *((preview, file) for preview in ("dry_run", "curl") for file in ("output", "record")),
)


class Typed(NamedTuple):
    """The words of the prompt, whether stdin belongs to it, and the parameters: smai's options, and those of -O."""

    words: list[str]
    reads_stdin: bool
    options: dict[str, Any]
    extra: dict[str, Any]


def check_typed(operands: tuple[str, ...], flags: dict[str, Any], mode: str) -> Typed:
    """Return what was typed; the texts in `flags` are decoded. Raises UsageError."""
    for name, shown in _TEXTS.items():
        flags[name] = _decoded(flags[name], shown)
    _exclude(flags)
    words = [prompt.operand_text(operand, f"operand {number}") for number, operand in enumerate(operands, 1)]
    reads_stdin = _reads_stdin(words, flags)
    _check_files(flags, reads_stdin=reads_stdin or flags["messages"] == "-")
    if not reads_stdin and not flags["messages"] and not flags["chat"]:
        prompt.compose(words, None)  # an empty prompt is said before anything is loaded
    return Typed(words, reads_stdin, _options(flags), _extra(flags, mode))


def _decoded(value: Any, name: str) -> Any:
    """Return a text of the command line, or each of several, decoded. Raises UsageError."""
    if isinstance(value, tuple):
        return tuple(prompt.operand_text(text, name) for text in value)
    return None if value is None else prompt.operand_text(value, name)


def _exclude(flags: dict[str, Any]) -> None:
    """Raise UsageError for options that exclude each other, and for the name of a file that is empty."""
    for name in (*FILES, "key_file"):
        given = flags[name] if isinstance(flags[name], tuple) else (flags[name],)
        if "" in given:
            raise UsageError(f"--{name.replace('_', '-')} names no file", "give its name; is a variable empty?")
        if "-" in given and name != "messages":
            raise UsageError(f"--{name.replace('_', '-')} - names no file", "write ./- for a file of that name")
    for one, other in _EXCLUDED:
        if flags[one] and flags[other]:
            names = f"--{one} and --{other}".replace("_", "-")
            raise UsageError(f"{names} exclude each other", "choose one")


def _reads_stdin(words: list[str], flags: dict[str, Any]) -> bool:
    """Decide whether stdin is part of the prompt. Raises UsageError where the command line contradicts itself."""
    places = words.count("-") + (flags["messages"] == "-")
    if places > 1:
        raise UsageError("two of the arguments are -", "stdin can be placed once")
    if places and flags["no_stdin"]:
        raise UsageError("-n and - exclude each other", "drop one of them")
    if places:
        return "-" in words
    if flags["no_stdin"] or os.environ.get("SMAI_NO_STDIN", "0") not in ("", "0") or os.isatty(STDIN):
        return False
    if words and prompt.is_begun_file(STDIN):
        say("stdin is a file that is being read by someone else, and left alone; - reads it, -n says so silently")
        return False
    return True


def _check_files(flags: dict[str, Any], *, reads_stdin: bool) -> None:
    """Raise UsageError for files that cannot be written, or are read or written under another name as well."""
    if not (flags["output"] or flags["record"] or flags["chat"]):
        return
    from smai_cli.cli import same_files  # noqa: PLC0415  # for those who have files written

    system = flags["system"] or ""
    read = {
        "--messages": () if flags["messages"] == "-" else (flags["messages"],),
        "-a": flags["attach"],
        "-s": (system[1:],) if system.startswith("@") and not system.startswith("@@") else (),
        "--schema": (flags["schema"],),
        "--key-file": (flags["key_file"],),
    }
    named = [same_files.Use(option, name) for option, names in read.items() for name in names if name]
    named += same_files.written(flags["output"], flags["record"], flags["chat"])
    same_files.refuse_clashes(named, same_files.streams(quiet=flags["quiet"], reads_stdin=reads_stdin))


def read_stdin() -> bytes:
    """Return what stdin holds, and say so if it is long in coming. Raises UsageError."""
    return prompt.read_all(STDIN, _notice, limit_bytes=STDIN_LIMIT_BYTES)


def _extra(flags: dict[str, Any], mode: str) -> dict[str, Any]:
    """Return the members that -O puts into the request. Raises UsageError for several answers where one is due."""
    if not flags["option"]:
        return {}
    from smai_cli.prompt.extra_body import extra_members  # noqa: PLC0415  # for few runs

    extra = extra_members(flags["option"])
    if choices_in(extra) > 1 and (mode in ("text", "final") or flags["chat"]):
        raise UsageError("-O n asks for several answers, and the text is one", "use --jsonl or --raw, without --chat")
    return extra


def _options(flags: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given, by their names in the API reference."""
    given = {name: flags[flag] for flag, name in _OPTIONS.items() if flags[flag] is not None}
    return given | ({"stop": list(flags["stop"])} if flags["stop"] else {})


_OPTIONS = {
    "temperature": "temperature",
    "max_tokens": "max_tokens",
    "top_p": "top_p",
    "effort": "reasoning_effort",
    "seed": "seed",
}


def _notice() -> None:
    say(f"waiting for the prompt on stdin, nothing has come for {prompt.NOTICE_AFTER_S:g} s; -n leaves stdin alone")
