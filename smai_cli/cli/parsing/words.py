"""Check the words of a command line before click parses them, for words that click would misread.

click follows the guidelines of POSIX (Base Definitions, section 12.2): -model is -m with the value odel, and a value
may look like an option. Both are mostly mistakes, and a paid run should not begin with one.
"""

import os
import re
from collections.abc import Sequence

import click

from smai_cli.common.frozen import Frozen
from smai_cli.common.text import one_line
from smai_cli.errors import UsageError
from smai_cli.output.descriptors import say

_LONG = r"(?s)--[A-Za-z][\w-]*(=.*)?"
_SPACE = re.compile(r"\s")
# A single dash with more letters than this may be a long option; otherwise it is several short ones.
_FEWEST_LETTERS = 3
_SHOWN = 60
# Characters that word processors substitute for the ASCII dash.
DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
# Where the context of click keeps the Words.
WORDS = "smai_cli.words"
# What the help calls the value of an option that names a file.
FILE_METAVARS = ("FILE", "OUTPUT")


class Words(Frozen):
    """Facts about the operands: how many follow `--`, and which of them follow the value of a FILE option.

    `after_files` holds pairs of the option as typed and the operand.
    """

    after_dashes: int
    after_files: tuple[tuple[str, str], ...]


def check_words(command: click.Command, args: Sequence[str]) -> Words:
    """Check `args`, the words after the name of `command`; return the facts about its operands.

    Raises UsageError for a word that click would misread.
    """
    options = options_of(command)
    after_files: list[tuple[str, str]] = []
    rest = list(args[::-1])
    file_option = ""
    while rest:
        word = rest.pop()
        if word == "--":
            return Words(after_dashes=len(rest), after_files=tuple(after_files))
        if word in ("", "-") or not word.startswith("-"):
            _check_operand(word, options)
            if file_option:
                after_files.append((file_option, word))
            file_option = ""
            continue
        file_option = _check_option(word, rest, command, options)
    return Words(after_dashes=0, after_files=tuple(after_files))


def _check_option(word: str, rest: list[str], command: click.Command, options: dict[str, click.Option]) -> str:
    """Check the option `word`, and take its value from `rest`, which is reversed, if it needs one.

    Return the option as typed if it names a file, else "". Raises UsageError.
    """
    name, value = (_split_long if word.startswith("--") else _split_short)(word, command, options)
    option = options.get(name)
    if option is None:  # click reports unknown options
        return ""
    if option.is_flag or option.count:
        if value is not None:
            raise UsageError(f"{name} takes no value", f"leave ={shown(value)} out")
        return ""
    if value is None:
        if not rest:
            raise UsageError(f"{name} needs a value", f"see smai {command.name} --help")
        value = rest.pop()
        _check_value(name, value, options)
    if not (value if option.metavar == "TEXT" else value.strip()):  # --stop may take a space
        what = f"{name} needs a file name" if option.metavar in FILE_METAVARS else f"{name} has an empty value"
        raise UsageError(what, "give one, or leave the option out; is a variable empty?")
    return name if option.metavar in FILE_METAVARS else ""


def options_of(command: click.Command) -> dict[str, click.Option]:
    """Return the options of a command by each of their names, without --help."""
    options = (param for param in command.params if isinstance(param, click.Option))
    return {name: option for option in options for name in (*option.opts, *option.secondary_opts)}


def _split_long(word: str, command: click.Command, options: dict[str, click.Option]) -> tuple[str, str | None]:
    """Return the name and the value in `--name=value`. Raises UsageError for text that is not an option."""
    name, sign, value = word.partition("=")
    if _SPACE.search(name):
        first = name.split()[0]
        raise _one_word(first) if first in options else _text_error(word, command)
    return name, value if sign or name not in options else None


def _split_short(word: str, command: click.Command, options: dict[str, click.Option]) -> tuple[str, str | None]:
    """Return the last option in a word such as -nq or -mMODEL, and its value.

    Raises UsageError for text, or for a long option with one dash.
    """
    _check_single_dash(word, command, options)
    for at in range(1, len(word)):
        name, value = f"-{word[at]}", word[at + 1 :]
        option = options.get(name)
        if option is None:
            if _SPACE.search(word):
                raise _text_error(word, command)
            return name, None
        if option.is_flag or option.count:
            continue
        if _SPACE.search(value):
            raise _one_word(name)
        if value.startswith("="):
            raise UsageError(f"there is an equals sign after {name}", "put a space there instead")
        if re.match("-[A-Za-z]", value):
            raise UsageError(f"there is a dash right after {name}", "put a space between them")
        return name, value or None
    return name, None


def _check_single_dash(word: str, command: click.Command, options: dict[str, click.Option]) -> None:
    """Raise UsageError for a long option with one dash."""
    stem = len(word) > _FEWEST_LETTERS and re.match(r"-[A-Za-z][A-Za-z_-]+(?=[=\s]|\Z)", word)
    if not stem or len(stem[0]) <= _FEWEST_LETTERS:
        return
    from smai_cli.cli.parsing.suggestions import option_hint  # rarely used

    long = f"-{stem[0]}"
    hint = option_hint(long, command.name or "", options)
    if hint is None and any(option.startswith(long) for option in options):
        hint = "an option of several letters has two dashes"
    if hint:
        raise UsageError(f"no such option: {stem[0]}", hint)


def _check_value(name: str, value: str, options: dict[str, click.Option]) -> None:
    """Raise UsageError if the option `name` lacks a value, and the next option would be taken as its value."""
    is_long = value.startswith("--") and re.fullmatch(_LONG, value)
    if value == "--" or value in options or value in ("-h", "--help") or is_long:
        long = max(options[name].opts, key=len)
        raise UsageError(
            f"{name} needs a value, and {shown(value)} is an option",
            f"is a variable empty? {long}={shown(value)} takes it as the value",
        )


def _check_operand(word: str, options: dict[str, click.Option]) -> None:
    """Raise UsageError for an option with a typographic dash, as copied from word processors and web pages."""
    if not word or word[0] not in DASHES or _SPACE.search(word):
        return
    letters = word.lstrip(DASHES + "-")
    name = f"{'-' if len(letters.partition('=')[0]) == 1 else '--'}{letters}"
    if name.partition("=")[0] in options:
        raise UsageError(f"{word} begins with a dash that is not ASCII", f"did you mean {name}?")


def _one_word(name: str) -> UsageError:
    """Return the failure for a word that joins an option and text with white space; the text may be secret.

    It may be a prompt, or words that the shell did not split.
    """
    hint = "write the option and the text as two arguments; put -- before text that begins with a dash"
    return UsageError(f"{name} is joined to text with white space", hint)


def check_operands(operands: Sequence[str], words: Words, *, attaches: bool) -> None:
    """Raise UsageError if a shell pattern has put file names into the prompt; print a notice for other file names.

    `attaches`: -a is one of the options. Operands after `--` are text.
    """
    after_files = words.after_files
    if attaches:
        after_files += tuple(("-a", operand) for operand in operands[: len(operands) - words.after_dashes])
    for option, operand in after_files:
        if operand != "-" and os.path.exists(operand):
            kind = "directory" if os.path.isdir(operand) else "file"
            raise UsageError(
                f"the operand {shown(operand)} is the name of a {kind}, and {option} takes one file",
                f"write {option} before each file, and -- before text",
            )
    files = [operand for operand in operands if os.path.isfile(operand)]
    if len(files) == 1:
        say(f"the operand {shown(files[0])} is sent as text; -a {shown(files[0])} attaches the file")
    elif files:
        say(f"{len(files)} operands are names of files and are sent as text; -a FILE attaches a file")


def _text_error(word: str, command: click.Command) -> UsageError:
    """Return the failure for text that begins with a dash."""
    what = f"no such option: {shown(word)}"
    return UsageError(what, f"text that begins with a dash goes after --: smai {command.name} -- {shown(word)}")


def shown(word: str) -> str:
    """Return a word quoted for a shell, and shortened to fit a message."""
    from shlex import quote  # only for messages

    return quote(one_line(word, _SHOWN))
