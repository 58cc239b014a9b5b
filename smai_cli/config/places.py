"""Defaults: the server, the model, the configuration folder, the trusted certificates.

It imports only what the interpreter has loaded already, because it is used before anything else.
"""

import os

TYPE_CHECKING = False  # what typing.TYPE_CHECKING is, without the time to import typing
if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_BASE_URL = "https://api.smai.ai/v1"
DEFAULT_CONNECT_TIMEOUT_S = 10
DEFAULT_MODEL = "gpt-4.1"
CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


def config_folder(environ: "Mapping[str, str]") -> str | None:
    """Return smai's folder for configuration (XDG base directory specification), None without a home directory."""
    base = environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(base):
        home = home_folder(environ)
        if home is None:
            return None
        base = os.path.join(home, ".config")
    return os.path.join(base, "smai")


def home_folder(environ: "Mapping[str, str]") -> str | None:
    """Return the home directory, or None. A relative HOME is ignored: it would depend on the current folder."""
    home = environ.get("HOME", "")
    return home if os.path.isabs(home) else None


def in_home(name: str, what: str, setting: str, environ: "Mapping[str, str]") -> str:
    """Return a file name; `~/` at its beginning is the home directory.

    Messages say `what` the file is, and which `setting` names it. Raises UsageError without a home directory.
    """
    if not name.startswith("~/"):
        return name
    home = home_folder(environ)
    if home is None:
        from smai_cli.errors import UsageError  # for this failure only

        raise UsageError(f"no home directory for the {what} {name}", f"set HOME, or check {setting}")
    return home + name[1:]


def config_path(environ: "Mapping[str, str]") -> str | None:
    """Return the path of the configuration file, whether it exists or not; None without a home directory."""
    folder = config_folder(environ)
    return folder and os.path.join(folder, "config.toml")


def ca_file_named(environ: "Mapping[str, str]") -> "tuple[str, str] | None":
    """Return the variable that names a file or folder of certificates, and its value; None if none is set."""
    return next(((name, environ[name]) for name in CA_VARIABLES if environ.get(name)), None)
