"""A first look at the command line, before anything is imported: the server that `smai ask` will certainly ask.

Name look-up, TCP and TLS begin then while click is imported. What is not certain at a glance is left to the usual way,
and so is every mistake. What is seen here is compared with what the command line says once it is parsed.
"""

import os
import stat

from smai_cli.config.places import DEFAULT_BASE_URL, config_folder, config_path

TYPE_CHECKING = False  # what typing.TYPE_CHECKING is, without the time to import typing
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_MODES = ("--raw", "--jsonl", "--final", "-x", "--extract")
# What word processors put in place of ASCII's dash.
DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
_MOST_SECONDS = 1_000_000
_LONGEST_LABEL = 63  # RFC 1035, section 2.3.4
_MOST_PORTS = 65535
_LONGEST_COUNT = 18  # digits
# A configuration file that is larger is left to the usual way.
_LIMIT_BYTES = 65536


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # bytes that are no UTF-8
        return False
    return bool(value.strip())


def _is_count(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) <= _LONGEST_COUNT


def _is_number(most: float) -> "Callable[[str], bool]":
    def is_number(value: str) -> bool:
        try:
            return 0 <= float(value) <= most
        except ValueError:
            return False

    return is_number


# The options that change neither which server is asked nor whether one is. All others wait, such as those that name
# files: a file that is not there is a mistake.
_FLAGS = {*_MODES, "-n", "--no-stdin", "--json", "--reasoning", "--no-stream", "--fail-empty"}
_VALUES: "dict[str, Callable[[str], bool]]" = {
    "-m": _is_text,
    "--model": _is_text,
    "-s": lambda value: _is_text(value) and not value.startswith("@"),
    "--system": lambda value: _is_text(value) and not value.startswith("@"),
    "-t": _is_number(2),
    "--temperature": _is_number(2),
    "--top-p": _is_number(1),
    "--max-tokens": lambda value: _is_count(value) and int(value) > 0,
    "--seed": _is_count,
    "--stop": _is_text,
    "--effort": _is_text,
    "--summary": ("text", "json", "none").__contains__,
    "--api": ("auto", "chat", "responses").__contains__,
    "--accept": _is_text,
    "--idle-timeout": _is_number(_MOST_SECONDS),
    "--max-time": _is_number(_MOST_SECONDS),
    "--retries": _is_count,
    "--base-url": _is_text,
}


def server_at_a_glance(
    args: "Sequence[str]", environ: "Mapping[str, str]", *, stdin_is_terminal: bool
) -> "tuple[str, int] | None":
    """Return the host and the port to which `smai ARGS` will connect over TLS; None where that is to wait.

    Nothing is read but a configuration file, of which it is only known what is not in it.
    """
    options: dict[str, str] = {}
    words: list[str] = []
    waits = "_SMAI_COMPLETE" in environ or environ.get("SMAI_CHAT")  # that file is read, and locked, before
    if list(args[:1]) != ["ask"] or waits or not _sort(list(args[1:]), options, words):
        return None
    leaves_stdin = bool(options.keys() & {"-n", "--no-stdin"})
    if sum(mode in options for mode in _MODES) > 1 or not _has_prompt(
        words, leaves_stdin=leaves_stdin, has_stdin=not (leaves_stdin or stdin_is_terminal)
    ):
        return None
    return _server(options.get("--base-url") or environ.get("SMAI_BASE_URL"), environ)


def _server(base_url: str | None, environ: "Mapping[str, str]") -> "tuple[str, int] | None":
    """Return where to connect for the base URL that was given, or for none."""
    configured = _configuration(config_path(environ))
    # A profile chooses the server, and so may a key that the file names by an escape.
    if configured is None or environ.get("SMAI_PROFILE") or b"connect_timeout" in configured or b"\\" in configured:
        return None
    if not base_url and b"base_url" in configured:
        return None
    server = _host_and_port(base_url or DEFAULT_BASE_URL)
    if server == _host_and_port(DEFAULT_BASE_URL) and not _has_key(environ, configured):
        return None
    return server


def _sort(args: list[str], options: dict[str, str], words: list[str]) -> bool:
    """Put options with their values and operands where they belong, as click does; False where one has to wait."""
    rest = args[::-1]
    while rest:
        word = rest.pop()
        if word == "--":
            words += rest[::-1]
            break
        if word == "-" or not word.startswith("-"):
            words.append(word)
        elif not _sort_option(word, rest, options):
            return False
    return all(_is_text(word) and word[0] not in DASHES for word in words)


def _sort_option(word: str, rest: list[str], options: dict[str, str]) -> bool:
    """Put an option and its value, which may be the last of `rest`, into `options`; False where it has to wait."""
    is_long = word.startswith("--")
    name, sign, value = word.partition("=") if is_long else (word[:2], word[2:], word[2:])
    if name in _FLAGS:
        if sign and (is_long or value.startswith("-")):
            return False
        if sign:  # -nm MODEL
            rest.append(f"-{value}")
        options[name] = ""
        return True
    if not sign and rest:
        value = rest.pop()
        is_certain = not value.startswith("-")  # it may be the next option
    else:
        is_certain = is_long or _is_attached(value)
    options[name] = value
    return is_certain and name in _VALUES and _VALUES[name](value)


def _is_attached(value: str) -> bool:
    """Return whether it is certain that a value without a space before it is one, and not the rest of a long option."""
    return value[:1] not in "=-" and any(map(str.isdigit, value)) and not any(map(str.isspace, value))


def _has_prompt(words: list[str], *, leaves_stdin: bool, has_stdin: bool) -> bool:
    """Return whether something is asked, and stdin, if it is placed, is placed once."""
    places = words.count("-")
    if places:
        return places == 1 and not leaves_stdin
    return bool(words) or has_stdin


def _configuration(path: str | None) -> bytes | None:
    """Return what is in the configuration file, nothing where there is none; None where nobody can know."""
    try:
        if path is None or not os.path.lexists(path):
            return b""
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LIMIT_BYTES:
            return None
        with open(path, "rb", buffering=0) as file:
            return file.read(_LIMIT_BYTES)
    except OSError:
        return None


def _has_key(environ: "Mapping[str, str]", configured: bytes) -> bool:
    """Return whether there seems to be a key for the default service, where the environment names no other one."""
    if any(environ.get(name, "").strip() for name in ("SMAI_API_KEY", "SMAI_KEY_FILE")) or b"key_" in configured:
        return True
    folder = config_folder(environ)
    return folder is not None and os.path.exists(os.path.join(folder, "keys.json"))


def _host_and_port(base_url: str) -> tuple[str, int] | None:
    """Return both of an https base URL that is as simple as most are; None for all others."""
    scheme, _, rest = base_url.partition("://")
    host, sign, port = rest.partition("/")[0].partition(":")
    if scheme != "https" or not base_url.isascii() or not base_url.isprintable() or " " in base_url:
        return None
    labels = host.split(".")
    if not all(0 < len(label) <= _LONGEST_LABEL and label.replace("-", "").isalnum() for label in labels):
        return None
    if sign and not (_is_count(port) and 0 < int(port) <= _MOST_PORTS):
        return None
    return host.lower(), int(port) if sign else 443
