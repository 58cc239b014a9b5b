"""reader.js against smai's own pump: the same bytes, in the same pieces, have the same verdict and the same text."""

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from completeness import CHAT
from playwright.sync_api import BrowserContext, Page, Request
from pumping import Pieces, Sink
from servers import SERVER_TAPES
from tapes import TAPES

import smai_cli
from smai_cli.errors import BrokenError
from smai_cli.output.writers import WRITERS
from smai_cli.stream.dialects import dialect_for
from smai_cli.stream.outcome import Outcome
from smai_cli.stream.pump import pump

pytestmark = pytest.mark.thorough

pytest_plugins = ["browser"]
READER = Path(smai_cli.__file__).parent / "serve" / "page" / "reader.js"
BODIES = {
    **{tape.name: tape.bytes for tape in TAPES},
    **{tape.name: tape.bytes for tape in SERVER_TAPES if tape.dialect == "chat"},
    **{f"row: {row.name}": b"".join(row.events) for row in CHAT if not row.accept and row.due is None},
}
WHOLE = 1 << 20
CUT = "the connection broke before the answer was complete"
# Reads each body in pieces of a size, to its own end or to where the connection breaks.
READ_ALL = """async (cases) => {
  const { read } = await import("/reader.js");
  const results = [];
  for (const { body, size, isCut } of cases) {
    const bytes = Uint8Array.from(atob(body), (character) => character.charCodeAt(0));
    let at = 0;
    const pull = (controller) => {
      if (at < bytes.length) controller.enqueue(bytes.slice(at, (at += size)));
      else if (isCut) controller.error(new TypeError("network error"));
      else controller.close();
    };
    const response = new Response(new ReadableStream({ pull }, { highWaterMark: 0 }));
    let given = "";
    const { verdict, text } = await read(response, (delta) => (given += delta));
    results.push([verdict, text, given]);
  }
  return results;
}"""


class Case(NamedTuple):
    """A body, and how it comes."""

    name: str
    is_cut: bool
    size: int

    def __str__(self) -> str:
        return f"{self.name}, {'cut' if self.is_cut else 'whole'}, in pieces of {self.size}"


@pytest.fixture
def page(context: Callable[..., BrowserContext]) -> Page:
    """A page that can import reader.js, and that no server is needed for."""
    page = context().new_page()
    page.route(
        "http://reader.test/", lambda route: route.fulfill(body="<title>reader</title>", content_type="text/html")
    )
    page.route("http://reader.test/reader.js", lambda route: route.fulfill(path=READER, content_type="text/javascript"))
    page.goto("http://reader.test/")
    return page


def by_smai(case: Case) -> tuple[str, str]:
    """Return the verdict and the text that smai's own pump gives."""
    outcome = Outcome(keep_text=True)
    failure = BrokenError(CUT) if case.is_cut else None
    source = Pieces(BODIES[case.name], failure=failure, is_framed=not case.is_cut)
    pump(source, dialect_for("chat", ""), WRITERS["raw"](Sink()), outcome)
    error = outcome.error
    if error is None:
        return "complete", outcome.text
    is_refused = error.kind in ("refused", "access", "busy") or error.what.startswith("the model refused")
    return ("refused" if is_refused else "incomplete"), outcome.text


def by_reader(page: Page, cases: list[Case]) -> list[list[str]]:
    given = [
        {"body": base64.b64encode(BODIES[case.name]).decode(), "size": case.size, "isCut": case.is_cut}
        for case in cases
    ]
    results: list[list[str]] = page.evaluate(READ_ALL, given)
    return results


@pytest.mark.parametrize("size", [WHOLE, 7, pytest.param(1, marks=pytest.mark.nightly)])
def test_the_reader_has_the_verdict_and_the_text_of_smai_for_every_tape(page: Page, size: int) -> None:
    cases = [Case(name, is_cut, size) for name in BODIES for is_cut in (False, True)]
    found = by_reader(page, cases)
    different = {
        str(case): (expected, result)
        for case, result in zip(cases, found, strict=True)
        if result != [*(expected := by_smai(case)), expected[1]]
    }
    assert different == {}


def test_the_pieces_of_a_body_change_nothing_down_to_single_bytes(page: Page) -> None:
    names = (
        "bom",
        "cr",
        "crlf",
        "mixed-line-ends",
        "invalid-utf8",
        "surrogate-pair-split",
        "error-field",
        "plain-json",
    )
    cases = [Case(name, is_cut=False, size=size) for name in names for size in (1, 2, 3, 5)]
    assert [result[:2] for result in by_reader(page, cases)] == [list(by_smai(case)) for case in cases]


ANSWERS: list[tuple[dict[str, Any], str, str, str]] = [
    ({"status": 401}, '{"error":{"message":"no such key"}}', "refused", "the server answered 401: no such key"),
    ({"status": 429}, "slow down", "refused", "the server answered 429: slow down"),
    ({"status": 502}, "<html>", "refused", "the server answered 502"),
    ({}, "<!doctype html>", "refused", "the server answered a web page, no completion"),
    ({"headers": {"Content-Type": "text/html"}}, "x", "refused", "the server answered a web page, no completion"),
    ({}, '{"models":[]}', "refused", 'the server answered JSON that is no completion: {"models":[]}'),
    ({}, "data: {oops}\n\n", "incomplete", "an event is not JSON: {oops}"),
    ({}, "", "incomplete", "the stream ended before finish_reason"),
]


@pytest.mark.parametrize(("head", "body", "verdict", "why"), ANSWERS, ids=[row[3] for row in ANSWERS])
def test_what_is_no_stream_is_told_in_words(
    page: Page, head: dict[str, Any], body: str, verdict: str, why: str
) -> None:
    told = page.evaluate(
        """async ([body, head]) => {
            const { read } = await import("/reader.js");
            const { verdict, why } = await read(new Response(body, head));
            return [verdict, why];
        }""",
        [body, head],
    )
    assert told == [verdict, why]


STOP = 'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
TEXT = 'data: {"choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n'


@pytest.mark.parametrize(
    "end",
    [STOP + "data: [DONE]\n\n", pytest.param(STOP, marks=pytest.mark.thorough), 'data: {"error":"boom"}\n\n'],
    ids=["DONE", "a reason, and five seconds of grace", "an error"],
)
def test_the_reader_leaves_at_the_end_of_the_answer_though_the_connection_stays_open(page: Page, end: str) -> None:
    told = page.evaluate(
        """async (text) => {
            const { read } = await import("/reader.js");
            let isCancelled = false;
            const start = (controller) => controller.enqueue(new TextEncoder().encode(text));
            const body = new ReadableStream({ start, cancel: () => { isCancelled = true; } });
            const { verdict } = await read(new Response(body));
            return [verdict, isCancelled];
        }""",
        TEXT + end,
    )
    assert told == ["incomplete" if "boom" in end else "complete", True]


def test_an_aborted_fetch_is_stopped_and_keeps_what_came(page: Page) -> None:
    told = page.evaluate(
        """async (text) => {
            const { read } = await import("/reader.js");
            const body = new ReadableStream({ start(controller) {
                controller.enqueue(new TextEncoder().encode(text));
                setTimeout(() => controller.error(new DOMException("", "AbortError")));
            } });
            const { verdict, text: got } = await read(new Response(body));
            return [verdict, got];
        }""",
        TEXT,
    )
    assert told == ["stopped", "Hello"]


def test_what_the_caller_throws_is_thrown(page: Page) -> None:
    told = page.evaluate(
        """async (text) => {
            const { read } = await import("/reader.js");
            return read(new Response(text), () => { throw new Error("mine"); }).catch((error) => error.message);
        }""",
        TEXT,
    )
    assert told == "mine"


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("tape", "verdict", "shown"),
    [
        ("good", "complete", "Hello world\n"),
        ("length", "incomplete", "Hello  [incomplete: the answer hit the token limit]"),
    ],
)
def test_the_page_of_the_readme_streams(page: Page, tape: str, verdict: str, shown: str) -> None:
    (script,) = re.findall(r"^```js\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request))  # noqa: PLW0108  # Playwright marks its handlers
    page.route("http://reader.test/own.js", lambda route: route.fulfill(body=script, content_type="text/javascript"))
    page.route(
        "http://reader.test/v1/**",
        lambda route: route.fulfill(body=BODIES[tape], content_type="text/event-stream"),
    )
    told = page.evaluate(
        """async () => {
            const { answer } = await import("/own.js");
            const paragraph = document.createElement("p");
            return [await answer("hi", paragraph, "token", new AbortController().signal), paragraph.textContent];
        }"""
    )
    assert told == [verdict, shown]
    assert asked[-1].headers["authorization"] == "Bearer token"
