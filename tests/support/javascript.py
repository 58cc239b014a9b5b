"""Run a function with the JavaScript of the page in Chromium and in Node.

A test module names this one in `pytest_plugins` next to `browser`, and gets the fixture `run_javascript`.
(PYTEST_DONT_REWRITE: the module is imported before it is named, and pytest would warn.)
"""

import functools
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page

import smai_cli

PAGE_FILES = Path(smai_cli.__file__).parent / "serve" / "page"
ORIGIN = "http://reader.test"
# `function` gets the URL of the folder with sse.js and verdict.js, and an argument.
Run = Callable[[str, Any], Any]

_NODE_VERSION = 20  # the first one with String.prototype.toWellFormed
_IN_NODE = """
import { readFileSync } from "node:fs";
const [base, source] = process.argv.slice(1);
const result = await eval(source)(base, JSON.parse(readFileSync(0, "utf8")));
console.log(JSON.stringify(result));
"""


@pytest.fixture
def reader_page(context: Callable[..., BrowserContext]) -> Page:
    """A page that can import sse.js and verdict.js, without a server."""
    page = context().new_page()
    page.route(f"{ORIGIN}/", lambda route: route.fulfill(body="<title>reader</title>", content_type="text/html"))
    page.route(
        f"{ORIGIN}/*.js",
        lambda route: route.fulfill(
            path=PAGE_FILES / route.request.url.rpartition("/")[2], content_type="text/javascript"
        ),
    )
    page.goto(f"{ORIGIN}/")
    return page


@functools.cache
def node_version() -> int:
    """Return the major version of Node, 0 without it."""
    if shutil.which("node") is None:
        return 0
    return int(
        subprocess.run(["node", "-p", "parseInt(process.versions.node)"], capture_output=True, check=True).stdout
    )


def in_node(function: str, argument: Any) -> Any:
    """Run an async function in Node; return its result."""
    command = ["node", "--input-type=module", "-e", _IN_NODE, PAGE_FILES.as_uri(), function]
    done = subprocess.run(command, input=json.dumps(argument), text=True, capture_output=True, check=False, timeout=50)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(params=["chromium", "node"])
def run_javascript(request: pytest.FixtureRequest) -> Run:
    """`run_javascript("async (base, given) => ...", given)` returns the result, in each engine."""
    if request.param == "node":
        if node_version() < _NODE_VERSION:
            pytest.skip(f"Node {_NODE_VERSION} is not installed")
        return in_node
    page: Page = request.getfixturevalue("reader_page")
    return lambda function, argument: page.evaluate(f"(given) => ({function})('{ORIGIN}', given)", argument)
