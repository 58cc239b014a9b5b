"""Modules that click, requests, urllib3 and the standard library import and hardly ever use: loaded at their first use.

A stand-in takes the place of each in sys.modules (language reference, The import system, 5.3.1). Who imports it holds
the stand-in; what is asked of it, the module answers, which is loaded then. Two threads that do so at once wait for
each other, as with any import: importlib.util.LazyLoader does not see to that before Python 3.11.9
(python/cpython issue 114763), and has to be imported itself. Nothing but what the interpreter has is imported here.
It is for modules that are imported whole: who imports a part of one first, such as idna.core, has that part twice.
"""

import _thread
import sys

TYPE_CHECKING = False  # what typing.TYPE_CHECKING is, without the time to import typing
if TYPE_CHECKING:
    from types import ModuleType
else:
    ModuleType = type(sys)

_LOCK = _thread.allocate_lock()

# Who imports them asks nothing of them yet: inspect, for click, of tokenize and linecache; logging of traceback;
# urllib.parse of ipaddress; urllib3 of mimetypes; tempfile of shutil; requests of zipfile and idna.
SELDOM_USED = ("tokenize", "linecache", "traceback", "ipaddress", "mimetypes", "shutil", "zipfile", "idna")


class LazyModule(ModuleType):
    """The stand-in for the module of that name."""

    def __getattr__(self, name: str) -> object:
        """Return what the module has by that name. Raises AttributeError, or ImportError as importing it does."""
        import importlib  # noqa: PLC0415

        with _LOCK:
            if sys.modules.get(self.__name__) is self:
                del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def import_lazily() -> None:
    """Have each of these modules loaded when something of it is used; those that are loaded stay as they are."""
    for name in SELDOM_USED:
        if name not in sys.modules:
            sys.modules[name] = LazyModule(name)
