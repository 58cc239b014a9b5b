"""The page, and what it needs: read once, from the files of the package."""

import json
from importlib.resources import files
from typing import NamedTuple

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/reader.js": ("reader.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}
_SETTINGS_PATH = "/config.json"


class Page(NamedTuple):
    """Something static: its bytes, and its Content-Type."""

    body: bytes
    content_type: str


def pages(model: str, system: str | None) -> dict[str, Page]:
    """Return what is static, by its path; the page begins with `model`, and with the system text, if there is one."""
    folder = files("smai_cli.serve") / "page"
    found = {path: Page((folder / name).read_bytes(), kind) for path, (name, kind) in _FILES.items()}
    settings = json.dumps({"model": model, "system": system})
    return {**found, _SETTINGS_PATH: Page(settings.encode(), "application/json")}
