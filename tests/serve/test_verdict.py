"""verdict.js compared with smai's own pump: the same bytes have the same verdict and the same text."""

import base64
import functools
import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from completeness import CHAT
from contents import CONTENTS
from javascript import ORIGIN, Run
from playwright.sync_api import Page, Request
from pumping import Pieces, Sink
from servers import SERVER_TAPES
from tapes import TAPES
from test_docs import displays

from smai_cli.answer.completeness import canonical
from smai_cli.answer.outcome import Outcome
from smai_cli.apis import choose_api
from smai_cli.errors import BrokenError, Status
from smai_cli.output.modes import MODES
from smai_cli.stream.pump import pump

pytestmark = pytest.mark.thorough

pytest_plugins = ["browser", "javascript"]
BODIES = {
    **{tape.name: tape.bytes for tape in TAPES},
    **{tape.name: tape.bytes for tape in SERVER_TAPES if tape.dialect == "chat"},
    **{f"row: {row.name}": b"".join(row.events) for row in CHAT if not row.accept},
    **{f"content: {content.name}": content.stream for content in CONTENTS},
    **{f"one piece: {content.name}": content.body for content in CONTENTS if content.body},
}
DUE = {f"row: {row.name}": row.due for row in CHAT}
WHOLE = 1 << 20
# How the body ends: as it has announced in either way, with its connection, or by a failure of the network.
ENDS = {
    "chunked": {"transfer-encoding": "chunked"},
    "content-length": {"content-length": "1"},
    "end of connection": {},
    "cut": {"transfer-encoding": "chunked"},
}
READ_ALL = """async (base, cases) => {
  const { read } = await import(base + "/verdict.js");
  const results = [];
  for (const { body, size, headers, isCut, choices } of cases) {
    const bytes = Uint8Array.from(atob(body), (character) => character.charCodeAt(0));
    let at = 0;
    const pull = (controller) => {
      if (at < bytes.length) controller.enqueue(bytes.slice(at, (at += size)));
      else if (isCut) controller.error(new TypeError("network error"));
      else controller.close();
    };
    const response = new Response(new ReadableStream({ pull }, { highWaterMark: 0 }), { headers });
    let given = "";
    const { verdict, text } = await read(response, (delta) => (given += delta), undefined, { choices });
    results.push([verdict, text, given]);
  }
  return results;
}"""


class Case(NamedTuple):
    """A body, and how it arrives; `choices` is how many answers were requested."""

    name: str
    body: bytes
    end: str
    size: int
    choices: int | None = None

    def __str__(self) -> str:
        return f"{self.name}, {self.choices} choices, {self.end}, in pieces of {self.size}"


def verdict_of_smai(case: Case) -> list[str]:
    """Return the verdict and the text that smai's own pump gives."""
    return run_pump(case.body, case.choices, is_framed=bool(ENDS[case.end]), is_cut=case.end == "cut")


@functools.cache
def run_pump(body: bytes, choices: int | None, *, is_framed: bool, is_cut: bool) -> list[str]:
    def pump_in(mode: str) -> Outcome:
        outcome = Outcome(keep_text=True)
        outcome.choices = choices
        source = Pieces(body, failure=BrokenError("it broke") if is_cut else None, is_framed=is_framed)
        pump(source, choose_api("chat", "").load(), MODES[mode].make(Sink()), outcome)
        return outcome

    outcome = pump_in("text")
    if outcome.error is None:
        return ["complete", outcome.text]
    is_refused = outcome.status in (Status.REFUSED, Status.ACCESS, Status.BUSY)
    if outcome.api_error and not outcome.text:  # an error instead of an answer, whatever it means
        is_refused = True
    if is_refused and pump_in("raw").error is None:  # it is complete, and has a part that is not text
        is_refused = False
    if outcome.status is Status.WITHHELD and outcome.refusal:
        is_refused = canonical(outcome.finish_reason or "") != "content_filter"
    return ["refused" if is_refused else "incomplete", outcome.text]


def verdicts_of_reader(run_javascript: Run, cases: list[Case]) -> list[list[str]]:
    given = [
        {
            "body": base64.b64encode(case.body).decode(),
            "size": case.size,
            "headers": ENDS[case.end],
            "isCut": case.end == "cut",
            "choices": case.choices,
        }
        for case in cases
    ]
    results: list[list[str]] = run_javascript(READ_ALL, given)
    return results


def assert_alike(run_javascript: Run, cases: list[Case]) -> None:
    expected = [verdict_of_smai(case) for case in cases]
    found = verdicts_of_reader(run_javascript, cases)
    both = zip(cases, expected, found, strict=True)
    assert {str(case): (one, other) for case, one, other in both if other != [*one, one[1]]} == {}


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("size", "every"), [(WHOLE, 1), (7, 5), *(pytest.param(size, 1, marks=pytest.mark.nightly) for size in (7, 1))]
)
def test_the_reader_has_the_same_verdict_and_text_as_smai_for_every_recording(
    run_javascript: Run, size: int, every: int
) -> None:
    cases = [
        Case(name, body, end, size, choices)
        for (name, body), end in itertools.product(BODIES.items(), ENDS)
        for choices in ([DUE[name]] if DUE.get(name) else [None, 1])
    ]
    assert len(cases) > 3000
    assert_alike(run_javascript, cases[::every])


def test_the_verdict_does_not_depend_on_how_a_body_is_split(run_javascript: Run) -> None:
    names = ["bom", "cr", "crlf", "mixed-line-ends", "invalid-utf8", "error-field", "plain-json"]
    names += ["surrogate-pair-split", "surrogate-alone"]
    assert_alike(run_javascript, [Case(name, BODIES[name], "chunked", size) for name in names for size in (1, 2, 3, 5)])


PIECES = [event for row in CHAT for event in row.events]


@pytest.mark.parametrize("count", [2000, pytest.param(30_000, marks=pytest.mark.nightly)])
def test_any_sequence_of_events_has_the_same_verdict_as_in_smai(run_javascript: Run, count: int) -> None:
    chance = random.Random(count)
    cases = []
    for _ in range(count):
        body = b"".join(chance.choices(PIECES, k=chance.randrange(1, 7)))
        cases.append(Case(body.decode(), body, chance.choice([*ENDS]), WHOLE, chance.choice([None, 1, 2])))
    assert_alike(run_javascript, cases)


ANSWERS: list[tuple[dict[str, Any], str, str, str]] = [
    ({"status": 401}, '{"error":{"message":"no such key"}}', "refused", "the server answered 401: no such key"),
    ({"status": 429}, "slow down", "refused", "the server answered 429: slow down"),
    ({"status": 502}, "<html>", "refused", "the server answered 502"),
    ({}, "<!doctype html>", "refused", "the server answered a web page, not a completion"),
    ({"headers": {"Content-Type": "text/html"}}, "x", "refused", "the server answered a web page, not a completion"),
    ({}, '{"models":[]}', "refused", 'the server answered JSON that is not a completion: {"models":[]}'),
    ({}, "data: {oops}\n\n", "incomplete", "an event is not JSON: {oops}"),
    ({}, "", "incomplete", "the stream ended before finish_reason"),
]


@pytest.mark.parametrize(("head", "body", "verdict", "why"), ANSWERS, ids=[row[3] for row in ANSWERS])
def test_a_file_that_is_not_a_stream_is_refused_with_a_message(
    run_javascript: Run, head: dict[str, Any], body: str, verdict: str, why: str
) -> None:
    result = run_javascript(
        """async (base, [body, head]) => {
            const { read } = await import(base + "/verdict.js");
            const { verdict, why } = await read(new Response(body, head));
            return [verdict, why];
        }""",
        [body, head],
    )
    assert result == [verdict, why]


STOP = 'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
TEXT = 'data: {"choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n'


@pytest.mark.parametrize(
    "end",
    [STOP + "data: [DONE]\n\n", pytest.param(STOP, marks=pytest.mark.thorough), 'data: {"error":"boom"}\n\n'],
    ids=["DONE", "a reason, and five seconds of grace", "an error"],
)
def test_the_reader_stops_at_the_end_of_the_answer_even_if_the_connection_stays_open(
    run_javascript: Run, end: str
) -> None:
    result = run_javascript(
        """async (base, text) => {
            const { read } = await import(base + "/verdict.js");
            let isCancelled = false;
            const start = (controller) => controller.enqueue(new TextEncoder().encode(text));
            const body = new ReadableStream({ start, cancel: () => { isCancelled = true; } });
            const { verdict } = await read(new Response(body));
            return [verdict, isCancelled];
        }""",
        TEXT + end,
    )
    assert result == ["incomplete" if "boom" in end else "complete", True]


@pytest.mark.parametrize(
    "reason", ['new DOMException("", "AbortError")', '"the user left"', 'new Error("mine")', "{ code: 7 }", "undefined"]
)
def test_an_aborted_fetch_counts_as_stopped_for_any_reason_and_keeps_the_text(run_javascript: Run, reason: str) -> None:
    result = run_javascript(
        f"""async (base, text) => {{
            const {{ read }} = await import(base + "/verdict.js");
            const body = new ReadableStream({{ start(controller) {{
                controller.enqueue(new TextEncoder().encode(text));
                setTimeout(() => controller.error({reason}));
            }} }});
            const {{ verdict, text: got }} = await read(new Response(body));
            return [verdict, got];
        }}""",
        TEXT,
    )
    assert result == ["stopped", "Hello"]


ERROR_BODY = '{"error":{"message":"no tea today'


@pytest.mark.parametrize("end", ["that never ends", "that is cut"])
def test_the_message_of_an_error_body_is_shown(run_javascript: Run, end: str) -> None:
    result = run_javascript(
        """async (base, [text, end]) => {
            const { read } = await import(base + "/verdict.js");
            const body = new ReadableStream({ start(controller) {
                controller.enqueue(new TextEncoder().encode(text));
                if (end === "that is cut") setTimeout(() => controller.error(new TypeError("network error")));
            } });
            const { verdict, why } = await read(new Response(body, { status: 429 }));
            return [verdict, why];
        }""",
        [ERROR_BODY, end],
    )
    assert result == ["refused", f"the server answered 429: {ERROR_BODY}"]


def test_errors_of_the_callback_are_thrown(run_javascript: Run) -> None:
    result = run_javascript(
        """async (base, text) => {
            const { read } = await import(base + "/verdict.js");
            return read(new Response(text), () => { throw new Error("mine"); }).catch((error) => error.message);
        }""",
        TEXT,
    )
    assert result == "mine"


GROWTH = """async (base, given) => {
  const { read } = await import(base + "/verdict.js");
  const text = "data: " + JSON.stringify({ choices: [{ index: 0, delta: { content: "x" } }] }) + "\\n\\n";
  const quotes = (count) => 'data: {"choices":[{"delta":{"content":"' + '\\\\"'.repeat(count);
  const choices = (count) => "data: " + JSON.stringify({
    choices: Array.from({ length: count }, (_, index) => ({ index, delta: { content: "x" } })),
  }) + "\\n\\n";
  const bodies = {
    "an unterminated string": quotes,
    "an unterminated string in one piece": (count) => quotes(count).slice(6),
    "blank-line keep-alives": (count) => "\\n".repeat(count),
    "keep-alives in an answer": (count) => text + ":\\n\\n".repeat(count) + text,
    "choices": choices,
    "chunks of many choices": (count) => choices(1000).repeat(count / 1000) ,
    "deltas": (count) => text.repeat(count),
    "an error that is unterminated": (count) => '{"error":"' + '\\\\"'.repeat(count),
  };
  const timeOf = async (bytes) => {
    let at = 0;
    const pull = (controller) => {
      if (at < bytes.length) controller.enqueue(bytes.subarray(at, (at += given.size)));
      else controller.close();
    };
    const status = given.kind.startsWith("an error") ? 500 : 200;
    const response = new Response(new ReadableStream({ pull }, { highWaterMark: 0 }), { status });
    const begunMs = performance.now();
    await read(response);
    return performance.now() - begunMs;
  };
  const [one, two] = [1, 2].map((times) => new TextEncoder().encode(bodies[given.kind](times * given.count)));
  await timeOf(one); // and compile
  const ratios = [];
  let [shortest, longest] = [Infinity, Infinity];
  // A busy machine makes any of them longer, and none shorter.
  const endMs = performance.now() + 30_000;
  for (let tries = 0; performance.now() < endMs; tries += 1) {
    shortest = Math.min(shortest, await timeOf(one));
    longest = Math.min(longest, await timeOf(two));
    ratios.push(longest / shortest);
    if (tries >= 4 && ratios.at(-1) <= 2.5) break;
  }
  return ratios;
}"""
# How many, and how many bytes come at once: some milliseconds, so that a busy machine does not interrupt each of them.
KINDS = {
    "an unterminated string": (20_000, 1000),
    "an unterminated string in one piece": (20_000, 1000),
    "blank-line keep-alives": (1_000, 1),
    "keep-alives in an answer": (2_000, 9),
    "choices": (2_000, 1 << 20),
    "chunks of many choices": (2_000, 1 << 20),
    "deltas": (1_000, 1000),
    "an error that is unterminated": (20_000, 1000),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_time_to_read_an_answer_grows_about_linearly(
    run_javascript: Run, record_property: Callable[[str, object], None], kind: str
) -> None:
    count, size = KINDS[kind]
    ratios = run_javascript(GROWTH, {"kind": kind, "count": count, "size": size})
    record_property("ratios", ratios)
    assert ratios[-1] <= 2.5


def test_the_reader_handles_two_hundred_thousand_choices(run_javascript: Run) -> None:
    result = run_javascript(
        """async (base) => {
            const { read } = await import(base + "/verdict.js");
            const choices = Array.from({ length: 200_000 }, (_, index) => ({ index, delta: { content: "x" } }));
            const { verdict, text } = await read(new Response(`data: ${JSON.stringify({ choices })}\\n\\n`));
            return [verdict, text];
        }""",
        None,
    )
    assert result == ["incomplete", "x"]


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("tape", "verdict", "shown"),
    [
        ("good", "complete", "Hello world\n"),
        ("length", "incomplete", "Hello  [incomplete: the answer hit the token limit]"),
    ],
)
def test_the_example_page_in_the_manual_streams(reader_page: Page, tape: str, verdict: str, shown: str) -> None:
    page = reader_page
    (script,) = [text for text in displays("smai-serve", "DETAILS") if text.startswith("import ")]
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request))  # noqa: PLW0108  # Playwright marks its handlers
    page.route(f"{ORIGIN}/own.js", lambda route: route.fulfill(body=script, content_type="text/javascript"))
    page.route(
        f"{ORIGIN}/v1/**",
        lambda route: route.fulfill(body=BODIES[tape], content_type="text/event-stream"),
    )
    result = page.evaluate(
        """async () => {
            const { answer } = await import("/own.js");
            const paragraph = document.createElement("p");
            return [await answer("hi", paragraph, "token", new AbortController().signal), paragraph.textContent];
        }"""
    )
    assert result == [verdict, shown]
    assert asked[-1].headers["authorization"] == "Bearer token"
