"""Import urllib3 and requests without some modules that smai does not need; that saves a tenth of the import time.

It changes sys.modules as the language reference describes (The import system, 5.3.1), and restores it: a later import
of one of these modules works. Modules that are already loaded are left alone.
"""

import contextlib
import importlib
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

# They guess the charset of a text, for Response.text. Without them requests warns once, and uses UTF-8.
_CHARSETS = ("chardet", "charset_normalizer")
_NO_CHARSETS = "Unable to find acceptable character detection dependency"
_METADATA = "importlib.metadata"


def _import_lean() -> None:
    if "requests" in sys.modules:
        return
    with _lazy_metadata():
        import urllib3  # noqa: F401
    with _without_charsets():
        import requests  # noqa: F401


@contextlib.contextmanager
def _without_charsets() -> Iterator[None]:
    """Make the import of these modules fail, without the warning of requests; other warnings are kept."""
    hidden = [name for name in _CHARSETS if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: ModuleNotFoundError
    warnings.filterwarnings("ignore", message=_NO_CHARSETS, module="requests")
    ours = warnings.filters[0]
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            warnings.filters.remove(ours)  # type: ignore[attr-defined]  # a list, in fact
        for name in hidden:
            sys.modules.pop(name, None)


@contextlib.contextmanager
def _lazy_metadata() -> Iterator[None]:
    """Load importlib.metadata only if it is called: urllib3 imports a function from it for HTTP/2."""
    if _METADATA in sys.modules:
        yield
        return
    stand_in: Any = types.ModuleType(_METADATA)
    stand_in.version = lambda name: importlib.import_module(_METADATA).version(name)
    sys.modules[_METADATA] = stand_in
    try:
        yield
    finally:
        if sys.modules.get(_METADATA) is stand_in:
            del sys.modules[_METADATA]


_import_lean()
