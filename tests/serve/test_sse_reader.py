"""sse.js: the events of a body, wherever it is cut, and in time that grows with its length."""

import base64
import random
from typing import Any

import pytest
from javascript import Run

from smai_cli.stream.sse import events

pytestmark = pytest.mark.thorough

pytest_plugins = ["browser", "javascript"]

LINE_ENDS = [b"\n", b"\r", b"\r\n"]
LINES = [
    b"data: one",
    b"data:two",
    b"data:  three",
    b"data",
    b"data:",
    b"data: \xf0\x9f\x98\x80\xc3\xa9",
    b"data: \xff\xe2\x82 \xed\xa0\x80",
    b"event: named",
    b"event:",
    b"id: 7",
    b"retry: 10",
    b": a comment",
    b"other: field",
    b" data: not a field",
    b"error: boom",
    b"",
    b"",
]
READ = """async (base, cases) => {
  const { events } = await import(base + "/sse.js");
  const results = [];
  for (const { body, cuts } of cases) {
    const bytes = Uint8Array.from(atob(body), (character) => character.charCodeAt(0));
    const ends = [...cuts, bytes.length];
    let at = 0;
    const pull = (controller) => {
      if (!ends.length) return controller.close();
      controller.enqueue(bytes.slice(at, (at = ends.shift())));
    };
    const found = [];
    const reader = new ReadableStream({ pull }, { highWaterMark: 0 }).getReader();
    for await (const { name, data } of events(reader)) found.push([name, data]);
    results.push(found);
  }
  return results;
}"""


def random_body(chance: random.Random) -> bytes:
    """Return lines with any line ends; the last event is complete."""
    lines = [chance.choice(LINES) + chance.choice(LINE_ENDS) for _ in range(chance.randrange(12))]
    bom = b"\xef\xbb\xbf" if chance.random() < 0.2 else b""
    return bom + b"".join(lines) + b"\n\n"


def random_case(chance: random.Random) -> dict[str, Any]:
    body = random_body(chance)
    count = chance.randrange(1, len(body) + 1)
    cuts = sorted(chance.choices(range(len(body) + 1), k=count))  # also twice at a place: an empty piece
    return {"body": body, "cuts": cuts}


@pytest.mark.parametrize("count", [1000, pytest.param(20_000, marks=pytest.mark.nightly)])
def test_the_reader_finds_the_same_events_as_smai_however_a_body_is_split(run_javascript: Run, count: int) -> None:
    chance = random.Random(count)
    cases = [random_case(chance) for _ in range(count)]
    given = [{**case, "body": base64.b64encode(case["body"]).decode()} for case in cases]
    for case, found in zip(cases, run_javascript(READ, given), strict=True):
        assert found == [[event.event, event.data] for event in events([case["body"]])], case


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("data: a\n\ndata: cut", [["message", "a"]]),
        ("event: error\n\n", [["error", ""]]),
        ("event: x\n\ndata: a\n\n", [["message", "a"]]),
        ("data: a\rdata: b\r\r", [["message", "a\nb"]]),
    ],
)
def test_the_reader_follows_the_sse_standard_with_one_exception(
    run_javascript: Run, body: str, expected: list[list[str]]
) -> None:
    given = [{"body": base64.b64encode(body.encode()).decode(), "cuts": [3, 4, 9]}]
    assert run_javascript(READ, given) == [expected]


def test_a_reader_that_stops_early_cancels_the_body(run_javascript: Run) -> None:
    cancelled = run_javascript(
        """async (base) => {
            const { events } = await import(base + "/sse.js");
            let isCancelled = false;
            const start = (controller) => controller.enqueue(new TextEncoder().encode("data: a\\n\\n"));
            const body = new ReadableStream({ start, cancel: () => { isCancelled = true; } });
            for await (const event of events(body.getReader())) break;
            return isCancelled;
        }""",
        None,
    )
    assert cancelled is True


def test_an_event_without_an_end_is_an_error_at_a_limit(run_javascript: Run) -> None:
    name = run_javascript(
        """async (base) => {
            const { events } = await import(base + "/sse.js");
            const piece = new TextEncoder().encode("x".repeat(1 << 20));
            const body = new ReadableStream({ pull: (controller) => controller.enqueue(piece) });
            try {
                for await (const event of events(body.getReader()));
            } catch (error) {
                return error.name;
            }
        }""",
        None,
    )
    assert name == "RangeError"
