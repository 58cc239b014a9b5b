"""Import urllib3 and requests without some modules that smai does not need; that saves a tenth of the import time.

It changes sys.modules (language reference, 5.3.1), and restores it. Modules that are already loaded are left alone.
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
# urllib3 imports a function from it, for HTTP/2.
_METADATA = "importlib.metadata"
# Modules of which only functions are used, and for few requests: logging imports traceback, tempfile shutil, urllib3
# hmac and mimetypes, requests zipfile and idna. They and what they import are 4 % of the time to the request.
_SELDOM_USED = ("traceback", "shutil", "hmac", "mimetypes", "zipfile", "idna")


class _StandIn(types.ModuleType):
    """Takes the place of the module with its name in modules that import it, and loads it when it is used."""

    def __getattr__(self, name: str) -> object:
        """Return the attribute of the module. Raises AttributeError, or ImportError."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def _import_lean() -> None:
    if "requests" in sys.modules:
        return
    metadata: Any = types.ModuleType(_METADATA)
    metadata.version = lambda name: importlib.import_module(_METADATA).version(name)
    with _in_place(metadata, *map(_StandIn, _SELDOM_USED)):
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
def _in_place(*stand_ins: types.ModuleType) -> Iterator[None]:
    """Let imports find these modules, instead of those with their names that are not loaded."""
    ours = [one for one in stand_ins if one.__name__ not in sys.modules]
    sys.modules.update((one.__name__, one) for one in ours)
    try:
        yield
    finally:
        for one in ours:
            if sys.modules.get(one.__name__) is one:
                del sys.modules[one.__name__]


_import_lean()
