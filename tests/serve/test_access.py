"""Accessibility of the page: axe finds no problem, and each change is announced once."""

import threading

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import Open, Served, ask, expect_verdict, only_posts
from playwright.sync_api import Page, expect
from rawserver import (
    DONE,
    HEAD,
    HELLO,
    LAST_CHUNK,
    PLAIN_ANSWER,
    STOP,
    Serve,
    chunk,
    error_body,
    event,
    http,
    until,
)

pytestmark = pytest.mark.thorough

pytest_plugins = ["rawserver", "browser"]


def assert_accessible(page: Page) -> None:
    found = Axe().run(page).response
    violations = {one["id"]: [node["html"] for node in one["nodes"]] for one in found["violations"]}
    assert violations == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_accessibility_problem_in_any_state_of_the_page(
    serve: Serve, served: Served, visit: Open, scheme: str
) -> None:
    goes_on = threading.Event()
    refusal = http("429 Too Many Requests", error_body("no tea today"))
    text = "```\ncode\n```\n" + "| a wide table | " * 20 + "\n"
    with_code = (HEAD, *map(chunk, (event(text), STOP, DONE)), LAST_CHUNK)
    server = serve(tuple(PLAIN_ANSWER), (HEAD, chunk(HELLO), until(goes_on)), (refusal,), with_code, reads=only_posts)
    page = visit(served(server), color_scheme=scheme, viewport={"width": 320, "height": 640}, bypass_csp=True)
    assert_accessible(page)
    page.locator("summary").click()
    ask(page, "one")
    expect_verdict(page, "complete")
    assert_accessible(page)
    ask(page, "two")
    expect(page.locator(".answer").last).to_have_text("Hello")
    assert_accessible(page)
    goes_on.set()
    expect_verdict(page, "incomplete")
    assert_accessible(page)
    ask(page, "three\n" * 50)
    expect_verdict(page, "refused")
    expect(page.locator(".more:visible")).to_have_count(1)
    assert_accessible(page)
    ask(page, "four")
    expect(page.locator(".answer").last).to_contain_text("| a wide")
    expect_verdict(page, "complete")
    assert_accessible(page)


def test_the_growing_text_is_not_in_a_live_region(serve: Serve, served: Served, visit: Open) -> None:
    page = visit(served(serve(*PLAIN_ANSWER, reads=only_posts)))
    ask(page, "hi")
    expect_verdict(page, "complete")
    expect(page.locator("[aria-live], [role=log]")).to_have_count(0)
    assert page.locator("[role=status], [role=alert]").evaluate_all("all => all.map((one) => one.id)") == [
        "status",
        "error",
    ]
    expect(page.locator("[role=status] .answer, [role=alert] .answer")).to_have_count(0)
