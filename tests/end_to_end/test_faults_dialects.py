"""The same fault of a server or a network gives the same exit status and text in both APIs."""

import json
from typing import NamedTuple

import pytest
from completeness import delta, responses_event
from conftest import Smai
from rawserver import (
    CLOSE_HEAD,
    GZIP_HEAD,
    HEAD,
    LAST_CHUNK,
    OLD_HEAD,
    Serve,
    Step,
    chunk,
    data,
    error_body,
    event,
    gzipped,
    hold,
    http,
    length_head,
    reach,
    reset,
    single_bytes,
)

pytest_plugins = ["rawserver"]
pytestmark = pytest.mark.preloaded

OUT = "Hello world\n"


class Stream(NamedTuple):
    """What a server says in one API: two deltas, the end, and an end for the length of the answer."""

    first: bytes
    second: bytes
    end: bytes
    length: bytes
    whole: bytes


CUT_OFF = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
OUTPUT = [{"type": "message", "content": [{"type": "output_text", "text": OUT}]}]
MESSAGE = {"message": {"content": OUT}, "finish_reason": "stop"}
STREAMS = {
    "chat": Stream(
        event("Hello "),
        event("world\n"),
        event(finish_reason="stop"),
        event(finish_reason="length"),
        json.dumps({"choices": [MESSAGE]}).encode(),
    ),
    "responses": Stream(
        delta("Hello "),
        delta("world\n"),
        responses_event("response.completed", response={"status": "completed"}),
        responses_event("response.incomplete", response=CUT_OFF),
        json.dumps({"object": "response", "status": "completed", "output": OUTPUT}).encode(),
    ),
}


def faults(stream: Stream) -> dict[str, tuple[list[Step], list[str], int, str]]:
    """Return by name: the steps of a server, flags, the exit status, and the text that is delivered."""
    first, second, end, length, whole = stream
    good = [first, second, end]
    half = second[: len(second) // 2]
    return {
        "complete, chunked": ([HEAD, *map(chunk, good), LAST_CHUNK], [], 0, OUT),
        "complete, HTTP/1.0": ([OLD_HEAD, *good], [], 0, OUT),
        "complete, gzip": ([GZIP_HEAD, *map(chunk, gzipped(*good)), LAST_CHUNK], [], 0, OUT),
        "complete, byte by byte": ([CLOSE_HEAD, single_bytes(b"".join(good))], [], 0, OUT),
        "complete, in one piece": ([http("200 OK", whole)], [], 0, OUT),
        "complete, connection left open": ([HEAD, *map(chunk, good), hold], [], 0, OUT),
        "complete, then reset": ([HEAD, *map(chunk, good), reset], [], 0, OUT),
        "ended early": ([HEAD, chunk(first), LAST_CHUNK], [], 8, "Hello \n"),
        "cut between events": ([HEAD, chunk(first)], [], 8, "Hello \n"),
        "cut inside an event": ([HEAD, chunk(first), chunk(half)], [], 8, "Hello \n"),
        "cut short of its length": ([length_head(5000), first], [], 8, "Hello \n"),
        "reset": ([HEAD, chunk(first), reset], [], 8, "Hello \n"),
        "cut, held back": ([HEAD, chunk(first)], ["--final", "--retries", "0", "--summary", "none"], 8, ""),
        "chunk size no number": ([HEAD, chunk(first), b"zz\r\n"], [], 8, "Hello \n"),
        "malformed event": ([HEAD, chunk(first), chunk(data("{x")), LAST_CHUNK], [], 8, "Hello \n"),
        "error event": ([HEAD, chunk(first), chunk(data(error_body("no").decode())), LAST_CHUNK], [], 8, "Hello \n"),
        "error in one piece": ([http("200 OK", error_body("no"))], [], 8, ""),
        "empty": ([http("200 OK")], [], 8, ""),
        "web page": ([http("200 OK", b"<!doctype html><p>hi")], [], 4, ""),
        "length": ([HEAD, chunk(first), chunk(length), LAST_CHUNK], [], 9, "Hello \n"),
        "length, accepted": ([HEAD, chunk(first), chunk(length), LAST_CHUNK], ["--accept", "length"], 0, "Hello \n"),
        "silence": ([HEAD, chunk(first), hold], ["--idle-timeout", "0.7"], 7, "Hello \n"),
        "no answer": ([hold], ["--idle-timeout", "0.7"], 7, ""),
        "dropped": ([reset], [], 8, ""),
        "400": ([http("400 Bad Request", error_body("no"))], [], 4, ""),
        "401": ([http("401 Unauthorized", error_body("no"))], [], 5, ""),
        "429": ([http("429 Too Many Requests", error_body("no"))], ["--retries", "0"], 6, ""),
        "redirect": ([http("307 Temporary Redirect", b"", "Location: /other")], [], 4, ""),
    }


@pytest.mark.thorough
@pytest.mark.parametrize("name", faults(STREAMS["chat"]))
def test_a_fault_has_the_same_result_in_both_apis(smai: Smai, serve: Serve, name: str) -> None:
    for api, stream in STREAMS.items():
        steps, flags, status, text = faults(stream)[name]
        result = smai("ask", "--api", api, *flags, "hi", env=reach(serve(*steps)))
        assert (result.status, result.stdout.decode()) == (status, text), api
        assert result.stderr.count("\n") == (status != 0), api
