"""A real headless Chromium for the real `smai serve`, with a socket server upstream.

Playwright drives the Chromium of the system. Without Chromium, the tests are skipped; in CI they fail.
(PYTEST_DONT_REWRITE: as rawserver.)
"""

import contextlib
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from typing import Any

import forkserver
import process
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Page, expect, sync_playwright
from rawserver import PATIENCE_S, RawServer, Request, Serve, http, reach, read_request

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Loopback under foreign names, and fewer processes to start.
ARGUMENTS = [
    "--host-resolver-rules=MAP *.test 127.0.0.1",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--in-process-gpu",
]

_VIOLATION = "Content Security Policy"

Served = Callable[..., str]
Open = Callable[..., Page]

expect.set_options(timeout=PATIENCE_S * 1000)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One browser for each worker."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("CI has no Chromium")
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def served(environment: dict[str, str], serve: Serve) -> Iterator[Served]:  # noqa: ARG001  # the servers outlive it
    """`served(server)` starts `smai serve` in front of `server`; returns the URL that it prints.

    It is forked with its imports done: test_serve.py has it begin in the usual way.
    """
    with contextlib.ExitStack() as stack:

        def run(server: RawServer, *flags: str) -> str:
            reader, writer = os.pipe()
            stdout = stack.enter_context(open(reader, "rb", buffering=0))
            with open(os.devnull, "r+b") as null, open(writer, "wb", buffering=0):
                fds = [null.fileno(), writer, 2]
                child = forkserver.start([process.SMAI, "serve", *flags], environment | reach(server), fds)
            stack.callback(child.kill)
            return stdout.readline().decode().rstrip("\n")

        yield run


@pytest.fixture
def context(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """`context(color_scheme="dark")` is a fresh profile."""
    made: list[BrowserContext] = []

    def make(**options: Any) -> BrowserContext:
        made.append(browser.new_context(**options))
        made[-1].set_default_timeout(PATIENCE_S * 1000)
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="session")
def tab(browser: Browser) -> Callable[[], Page]:
    """`tab()` is a tab that the tests share, because opening one takes longer than most tests.

    The pages share nothing: each has its own gateway with its own port, and so its own origin.
    """
    opened: list[Page] = []

    def current() -> Page:
        if not opened or opened[-1].is_closed():
            context = browser.new_context()
            context.set_default_timeout(PATIENCE_S * 1000)
            opened.append(context.new_page())
        return opened[-1]

    return current


@pytest.fixture
def visit(context: Callable[..., BrowserContext], tab: Callable[[], Page]) -> Iterator[Open]:
    """`visit(url)` opens the page, and checks that nothing on it fails.

    With options such as color_scheme="dark", or `within` a context, it opens a new tab.
    """
    failures: list[str] = []
    watched: list[Page] = []

    def record_error(error: Error) -> None:
        failures.append(str(error))

    def record_console(message: ConsoleMessage) -> None:
        if _VIOLATION in message.text:
            failures.append(message.text)

    def open_page(url: str, within: BrowserContext | None = None, **options: Any) -> Page:
        page = (within or context(**options)).new_page() if within or options else tab()
        page.on("pageerror", record_error)
        page.on("console", record_console)
        watched.append(page)
        page.goto(url)
        return page

    yield open_page
    for page in watched:
        if not page.is_closed():
            page.goto("about:blank")  # stops any running answer
        page.remove_listener("pageerror", record_error)
        page.remove_listener("console", record_console)
    assert failures == []


def only_posts(connection: socket.socket) -> Request:
    """Read the next POST; refuse requests for the list of models, and do not record them."""
    request = read_request(connection)
    if request.head.startswith(b"GET "):
        connection.sendall(http("404 Not Found"))
        raise ConnectionError
    return request


def ask(page: Page, prompt: str) -> None:
    page.locator("#prompt").fill(prompt)
    page.locator("#prompt").press("Enter")


def expect_verdict(page: Page, verdict: str) -> None:
    # It looks at each frame; what expect() looks at, it looks at after a tenth, a quarter, a half of a second.
    page.wait_for_selector(f"body[data-verdict={verdict}]", state="attached")


def answer_of(page: Page) -> str:
    """Return the text of the last answer, character by character."""
    return page.locator(".answer").last.text_content() or ""
