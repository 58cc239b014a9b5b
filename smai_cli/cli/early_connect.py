"""A first look at the command line, before click is imported, for the server that `smai ask` will most likely use.

Values are not checked: an unused connection does no harm, and it is used only if the parsed command line names the same
server.
"""

import itertools
import os
import stat

from smai_cli.config.places import DEFAULT_BASE_URL, config_path

TYPE_CHECKING = False  # what typing.TYPE_CHECKING is, without the time to import typing
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Options that change neither the server nor whether a request is sent. With any other option smai does not connect
# early.
FLAGS = frozenset(
    "-n --no-stdin -x --extract --raw --jsonl --final --json --reasoning --no-stream --fail-empty".split()  # noqa: SIM905
)
VALUES = frozenset(
    (  # noqa: SIM905  # words, to be read
        "-m --model -s --system -t --temperature --top-p --max-tokens --seed --stop --effort --summary --api --accept "
        "--idle-timeout --max-time --retries --base-url"
    ).split()
)
# Words in a configuration file that may change the server or the connection; a backslash may encode any of them.
_MAY_CHANGE_SERVER = (b"profile", b"base_url", b"connect_timeout", b"\\")
_VARIABLES = ("_SMAI_COMPLETE", "SMAI_PROFILE", "SMAI_CHAT")
_LONGEST_LABEL = 63  # RFC 1035, section 2.3.4
_MOST_PORTS = 65535
_LONGEST_PORT = 5  # digits; Python refuses to convert thousands of them
_LIMIT_BYTES = 65536


def likely_server(args: "Sequence[str]", environ: "Mapping[str, str]") -> "tuple[str, int] | None":
    """Return the host and the port to which `smai ARGS` will most likely connect over TLS; None if that is unclear."""
    if (
        list(args[:1]) != ["ask"]
        or any(environ.get(name) for name in _VARIABLES)
        or not _has_plain_configuration(environ)
    ):
        return None
    base_url = environ.get("SMAI_BASE_URL") or DEFAULT_BASE_URL
    words = args[1 : args.index("--")] if "--" in args else args[1:]
    for word, following in itertools.pairwise([*words, ""]):
        if word.startswith("-") and word != "-":
            name, sign, value = word.partition("=") if word.startswith("--") else (word[:2], word[2:], "")
            if name not in VALUES and (sign or name not in FLAGS):
                return None
            if name == "--base-url":
                base_url = value if sign else following
    return _host_and_port(base_url)


def _has_plain_configuration(environ: "Mapping[str, str]") -> bool:
    """Return whether the configuration file, if there is one, certainly does not change the server."""
    path = config_path(environ)
    try:
        if path is None or not os.path.lexists(path):
            return True
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb", buffering=0) as file:
            content = file.read(_LIMIT_BYTES)
    except OSError:
        return False
    return len(content) < _LIMIT_BYTES and not any(name in content for name in _MAY_CHANGE_SERVER)


def _host_and_port(base_url: str) -> "tuple[str, int] | None":
    """Return the host and port of a simple https base URL; None for any other URL."""
    scheme, _, rest = base_url.partition("://")
    host, sign, port = rest.partition("/")[0].partition(":")
    labels = host.split(".")
    if scheme != "https" or not base_url.isascii() or not base_url.isprintable() or " " in base_url:
        return None
    if not all(0 < len(label) <= _LONGEST_LABEL and label.replace("-", "").isalnum() for label in labels):
        return None
    if sign and not (port.isdigit() and len(port) <= _LONGEST_PORT and 0 < int(port) <= _MOST_PORTS):
        return None
    return host.lower(), int(port) if sign else 443
