"""Remember the ids that `smai models` listed last, by base URL, for shell completion of -m.

They are in $XDG_CACHE_HOME/smai/models.json. Nothing here raises: a file that cannot be read counts as empty, and
failures to write are ignored.
"""

import contextlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit, urlunsplit

from smai_cli.common.files import PRIVATE, open_regular, replace_file

_MAX_SERVERS = 32
_MAX_BYTES = 4 * 1024 * 1024
# A shell inserts a completion without quoting: an id must not have special characters.
_SAFE = re.compile(r"[A-Za-z0-9@][A-Za-z0-9._:/@+-]*")


def store_ids(base_url: str, ids: Sequence[str], environ: Mapping[str, str]) -> None:
    """Store the ids of the models of `base_url`; the servers that were listed longest ago are dropped."""
    if path := _path(environ):
        server = _server(base_url)
        others = [(name, old) for name, old in _read(path).items() if name != server]
        lists = dict([(server, list(ids)), *others][:_MAX_SERVERS])
        with contextlib.suppress(OSError):
            _replace(path, lists)


def load_ids(base_url: str, environ: Mapping[str, str]) -> list[str]:
    """Return the stored ids for `base_url` that need no quoting in a shell."""
    path = _path(environ)
    ids = _read(path).get(_server(base_url), []) if path else []
    return [name for name in ids if _SAFE.fullmatch(name)]


def _path(environ: Mapping[str, str]) -> str | None:
    """Return the path of the file, or None. A folder that is not absolute is ignored (XDG Base Directory, 0.8)."""
    folder, home = environ.get("XDG_CACHE_HOME", ""), environ.get("HOME", "")
    if not os.path.isabs(folder):
        if not (os.path.isabs(home) and os.path.isdir(home)):  # do not create a home directory
            return None
        folder = os.path.join(home, ".cache")
    return os.path.join(folder, "smai", "models.json")


def _server(base_url: str) -> str:
    """Return the name of a server in the file: without the query, which may contain a secret."""
    parts = urlsplit(base_url)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/"), query=""))


def _read(path: str) -> dict[str, list[str]]:
    """Return the lists in the file; empty if it is not a regular file in the right form."""
    try:
        with open_regular(path) as file:
            lists = json.loads(file.read(_MAX_BYTES + 1))
    except (OSError, ValueError, RecursionError):
        return {}
    known = lists.items() if isinstance(lists, dict) else ()
    return {base: ids for base, ids in known if isinstance(ids, list) and all(isinstance(one, str) for one in ids)}


def _replace(path: str, lists: dict[str, list[str]]) -> None:
    """Replace the file atomically by `lists`. Raises OSError."""
    while len(data := json.dumps(lists).encode()) > _MAX_BYTES:
        lists.popitem()
    folder = os.path.dirname(path)
    os.makedirs(os.path.dirname(folder), 0o700, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    replace_file(path, f"{path}.{os.getpid()}", data, PRIVATE)
