"""A real headless Chromium in front of the real `smai serve`, in front of a server of bare sockets.

Playwright drives it: a kept library whose waiting is sound, for the Chromium that the system installs. Without one the
tests skip, and in CI they fail. (PYTEST_DONT_REWRITE: as rawserver.)
"""

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import process
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from rawserver import PATIENCE_S, RawServer, Request, Serve, Started, http, reach, read_request

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Loopback under the name of somebody else, and one process less to start.
ARGUMENTS = ["--host-resolver-rules=MAP *.test 127.0.0.1", "--no-sandbox", "--disable-dev-shm-usage"]

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
    """`served(server)` starts `smai serve` in front of `server`; returns the URL that it prints."""
    with contextlib.ExitStack() as stack:

        def run(server: RawServer, *flags: str) -> str:
            child = subprocess.Popen(
                [process.SMAI, "serve", *flags],
                env=environment | reach(server),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            started = Started(child)
            stack.callback(started.kill)
            return first_line(started)

        yield run


def first_line(started: Started) -> str:
    """Return the first line of stdout, as soon as it is there."""
    line = b""
    while not line.endswith(b"\n"):
        line += started.out(1)
    return line.decode().rstrip("\n")


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


@pytest.fixture
def visit(context: Callable[..., BrowserContext]) -> Iterator[Open]:
    """`visit(url, color_scheme="dark")` opens the page in a fresh profile, and checks that nothing on it fails."""
    failures: list[str] = []

    def open_page(url: str, within: BrowserContext | None = None, **options: Any) -> Page:
        page = (within or context(**options)).new_page()
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.on("console", lambda message: failures.append(message.text) if _VIOLATION in message.text else None)
        page.goto(url)
        return page

    yield open_page
    assert failures == []


def only_posts(connection: socket.socket) -> Request:
    """Read a request as a server that has no list of models: it is not among the requests."""
    request = read_request(connection)
    if request.head.startswith(b"GET "):
        connection.sendall(http("404 Not Found"))
        raise ConnectionError
    return request


def ask(page: Page, prompt: str) -> None:
    page.locator("#prompt").fill(prompt)
    page.locator("#prompt").press("Enter")


def expect_verdict(page: Page, verdict: str) -> None:
    expect(page.locator("body")).to_have_attribute("data-verdict", verdict)


def answer_of(page: Page) -> str:
    """Return the text of the last answer, character by character."""
    return page.locator(".answer").last.text_content() or ""
