"""The page and the files that it needs, read once from the package."""

import json
from importlib.resources import files
from typing import NamedTuple

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/answer.js": ("answer.js", "text/javascript; charset=utf-8"),
    "/sse.js": ("sse.js", "text/javascript; charset=utf-8"),
    "/verdict.js": ("verdict.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}


class PageFile(NamedTuple):
    """A file to serve: its bytes and its Content-Type."""

    body: bytes
    content_type: str


class PageDefaults(NamedTuple):
    """What the page starts with: the model, the system prompt, and the name of the server that answers."""

    model: str
    system: str | None = None
    server: str = ""

    def page(self) -> PageFile:
        """Return the settings as JSON."""
        return PageFile(json.dumps(self._asdict()).encode(), "application/json")


def load_pages() -> dict[str, PageFile]:
    """Return the files of the page by their paths. They contain no secret."""
    folder = files("smai_cli.serve") / "page"
    return {path: PageFile((folder / name).read_bytes(), kind) for path, (name, kind) in _FILES.items()}
