"""`smai models` prints the complete list or nothing, with the keys, clocks, retries and statuses of `smai ask`."""

import gzip
import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import process
import pytest
from conftest import Server, Smai
from rawserver import (
    HEAD,
    KEY,
    LAST_CHUNK,
    OK,
    Ask,
    RawServer,
    Script,
    Serve,
    Start,
    Step,
    certificates,
    chunk,
    error_body,
    fair,
    forever,
    hold,
    http,
    length_head,
    pause,
    reach,
    reset,
)

from smai_cli.mock.script import MODELS

pytest_plugins = ["rawserver"]
pytestmark = pytest.mark.preloaded

Models = Callable[..., process.Result]
IDS = b"".join(f"{model}\n".encode() for model in MODELS)


def listing(*ids: Any, **more: Any) -> bytes:
    """Return the body of an answer that lists these ids."""
    return json.dumps({"object": "list", "data": [{"id": name, "object": "model"} for name in ids], **more}).encode()


ONE = listing("one")


@pytest.fixture
def models(environment: dict[str, str]) -> Models:
    """`models(server, "--json")` runs `smai models --json` against `server` to its end."""

    def run(server: RawServer | None, *flags: str, env: dict[str, str] | None = None) -> process.Result:
        return fair(process.run(("models", *flags), environment | reach(server) | (env or {})))

    return run


# What is printed.


def test_the_ids_are_printed_one_per_line_sorted_and_without_duplicates(serve: Serve, models: Models) -> None:
    server = serve(http("200 OK", listing("o3", "gpt-4", "\u00e9", "Z", "gpt-4", "a/b:c")))
    assert models(server) == (0, "Z\na/b:c\ngpt-4\no3\n\u00e9\n".encode(), "")


def test_json_prints_the_servers_objects_in_the_same_order(serve: Serve, models: Models) -> None:
    body = b'[{"id": "b", "caf\\u00e9": {"x": [1, NaN]}},\n {"id": "a"}, {"id": "b"}]'
    result = models(serve(http("200 OK", body)), "--json")
    assert result == (0, '{"id": "a"}\n{"id": "b", "caf\u00e9": {"x": [1, null]}}\n'.encode(), "")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'[{"id": "one"}]', id="a bare array"),
        pytest.param(b'\xef\xbb\xbf\r\n {"data": [{"id": "one", "n": 1e999}]}\n', id="a BOM and white space"),
        pytest.param(listing("one", has_more=False, error=None), id="unknown fields"),
        pytest.param(b'{"data": {"0": {"id": "one"}, "2": {"id": "one"}}}', id="an object in place of the list (PHP)"),
    ],
)
def test_the_lists_of_compatible_servers_are_accepted(serve: Serve, models: Models, body: bytes) -> None:
    assert models(serve(http("200 OK", body))) == (0, b"one\n", "")


@pytest.mark.parametrize(
    ("body", "left_out"),
    [
        (listing("", "b", "a"), 'models without an id are left out: 1, such as {"id": ""'),
        (listing("b", 2, None, "a"), 'models without an id are left out: 2, such as {"id": 2'),
        (
            b'[" ", {"id": "b"}, null, {"name": "c"}, {"id": "a"}]',
            'models without an id are left out: 3, such as " "',
        ),
        (
            b'[{"error": "no key"}, {"id": "b"}, {"id": "a"}]',
            'models without an id are left out: 1, such as {"error": "no key"}',
        ),
        (
            b'{"data": [{"id": " "}, {"id": "b"}, {"id": "a"}]}',
            'models without an id are left out: 1, such as {"id": " "}',
        ),
    ],
)
def test_an_entry_without_an_id_does_not_hide_the_others(
    serve: Serve, models: Models, body: bytes, left_out: str
) -> None:
    result = models(serve(http("200 OK", body)))
    assert (result.status, result.stdout) == (0, b"a\nb\n")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"smai: {left_out}")
    objects = models(serve(http("200 OK", body)), "--json")
    assert [json.loads(line)["id"] for line in objects.stdout.splitlines()] == ["a", "b"]
    assert objects.stderr == result.stderr


@pytest.mark.parametrize("body", [b"[]", listing(), b'{"object": "list", "data": null}'])
def test_an_empty_list_prints_nothing_and_is_a_success(serve: Serve, models: Models, body: bytes) -> None:
    assert models(serve(http("200 OK", body))) == (0, b"", "")
    assert models(serve(http("200 OK", body)), "--json") == (0, b"", "")


def test_control_characters_in_an_id_are_escaped(serve: Serve, models: Models) -> None:
    evil = "a\nb\x1b[2J\x9b\u2028\u202ec\ud83d"
    ids = models(serve(http("200 OK", listing(evil))))
    assert ids.stdout == b"a^Jb^[[2J\\x9b\\u2028\\u202ec\\ud83d\n"
    line = models(serve(http("200 OK", listing(evil))), "--json").stdout
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert json.loads(line)["id"] == evil


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param([HEAD, chunk(ONE[:9]), chunk(ONE[9:]), LAST_CHUNK], id="chunked"),
        pytest.param([OK, b"Connection: close\r\n\r\n", ONE], id="close"),
        pytest.param([http("200 OK", gzip.compress(ONE), "Content-Encoding: gzip")], id="gzip"),
        pytest.param([b"HTTP/1.1 103 Early Hints\r\n\r\n", http("200 OK", ONE)], id="early hints"),
    ],
)
def test_a_list_is_read_to_its_end_in_every_http_framing(serve: Serve, models: Models, answer: list[Step]) -> None:
    assert models(serve(*answer)) == (0, b"one\n", "")


def test_a_long_list_arrives_completely(serve: Serve, models: Models) -> None:
    ids = [f"model-{number:06}" for number in range(20_000)]
    result = models(serve(http("200 OK", listing(*reversed(ids)))))
    assert result == (0, "".join(f"{name}\n" for name in ids).encode(), "")


# A list in parts.


def parts(*bodies: bytes) -> list[tuple[Step, ...]]:
    return [(http("200 OK", body),) for body in bodies]


def queries(server: RawServer) -> list[bytes]:
    return [request.head.split(b" ", 2)[1].removeprefix(b"/v1/models") for request in server.requests]


def test_all_pages_of_a_list_are_fetched(serve: Serve, models: Models) -> None:
    server = serve(
        *parts(
            listing("b", "c", has_more=True, last_id="c"),
            listing("a/x y", "d", has_more=True),
            listing("a/x y", "e", has_more=False, last_id="e"),
        )
    )
    assert models(server) == (0, b"a/x y\nb\nc\nd\ne\n", "")
    assert queries(server) == [b"", b"?after=c", b"?after=d"]


def test_the_pages_of_anthropic_are_fetched_with_their_own_parameter(serve: Serve, models: Models) -> None:
    first = b'{"data": [{"type": "model", "id": "a b"}], "has_more": true, "first_id": "a b", "last_id": "a b"}'
    last = b'{"data": [], "has_more": false, "first_id": null, "last_id": null}'
    server = serve(*parts(first, last))
    assert models(server, "--base-url", f"{server.url}?v=1", env={}) == (0, b"a b\n", "")
    assert queries(server) == [b"?v=1", b"?v=1&after_id=a+b"]


def test_the_other_parameter_is_tried_if_the_first_returns_nothing_new(serve: Serve, models: Models) -> None:
    first = listing("one", has_more=True, last_id="one")
    server = serve(*parts(first, first, listing("two", has_more=True), listing("three")))
    assert models(server) == (0, b"one\nthree\ntwo\n", "")
    assert queries(server) == [b"", b"?after=one", b"?after_id=one", b"?after_id=two"]


# How servers say that there are more pages, and the query for the next one.
FOLLOWED: dict[str, tuple[dict[str, Any], bytes]] = {
    "Cohere": ({"next_page_token": "t+1"}, b"?page_token=t%2B1"),
    "Google": ({"nextPageToken": "t"}, b"?pageToken=t"),
    "a cursor": ({"next_cursor": "t"}, b"?cursor=t"),
    "a URL": ({"next": "https://example.com/v1/models?cursor=t&limit=1", "previous": None}, b"?cursor=t&limit=1"),
    "an odd URL": ({"next": "http://[bad/?a[b]=\ud800 c#d"}, b"?a%5Bb%5D=%ED%A0%80+c"),
    "a path": ({"next": "/v1/models?page=2"}, b"?page=2"),
    "a token": ({"next": "t"}, b"?cursor=t"),
    "HAL": ({"_links": {"next": {"href": "/models?page=2"}}}, b"?page=2"),
    "an object": ({"pagination": {"has_more": True}}, b"?after=one"),
    "an object with a cursor": ({"pagination": {"has_more": True, "next_cursor": "t"}}, b"?cursor=t"),
    "an object with a token": ({"meta": {"next_page_token": "t"}}, b"?page_token=t"),
    "an object with a URL": ({"links": {"next": "?page=2"}}, b"?page=2"),
    "an offset": ({"has_more": True, "limit": 1, "offset": 0}, b"?offset=1"),
    "the next offset": ({"next_offset": 1}, b"?offset=1"),
    "a page": ({"pagination": {"page": 1, "total_pages": 2}}, b"?page=2"),
    "the next page": ({"next_page": 2}, b"?page=2"),
    "a total": ({"total": 2, "limit": 1}, b"?offset=1"),
    "another name": ({"hasMore": True}, b"?after=one"),
}  # fmt: skip


@pytest.mark.parametrize("case", FOLLOWED.values(), ids=FOLLOWED.keys())
def test_every_sign_of_a_next_page_is_followed(
    serve: Serve, models: Models, case: tuple[dict[str, Any], bytes]
) -> None:
    says, query = case
    server = serve(*parts(listing("one", **says), listing("two")))
    assert models(server, "--base-url", f"{server.url}?cursor=old&v=1", env={}) == (0, b"one\ntwo\n", "")
    first, second = queries(server)
    assert first == b"?cursor=old&v=1"
    assert second.replace(b"?cursor=old&v=1&", b"?").replace(b"?v=1&", b"?") == query


def test_a_link_header_is_followed(serve: Serve, models: Models) -> None:
    link = 'Link: <https://example.com/a?page=1>; rel="prev", <https://example.com/models?page=3>; rel="next"'
    server = serve((http("200 OK", ONE, link),), *parts(listing("two")))
    assert models(server) == (0, b"one\ntwo\n", "")
    assert queries(server) == [b"", b"?page=3"]


ENDS: list[dict[str, Any]] = [
    {"has_more": False, "next_page_token": "", "next": None, "total": 9},
    {"next": None, "previous": "/models?page=1", "count": 1},
    {"pagination": {"has_more": False, "next_cursor": None}},
    {"pagination": {"page": 1, "total_pages": 1, "total": 1}},
    {"links": {"next": None}, "meta": {"total": 1}},
    {"nextPageToken": "", "totalSize": 1},
    {"next": [], "total": "many", "page": True, "pagination": []},
]


@pytest.mark.parametrize("says", ENDS)
def test_a_complete_list_is_fetched_once(serve: Serve, models: Models, says: dict[str, Any]) -> None:
    server = serve(http("200 OK", listing("one", **says)))
    assert models(server) == (0, b"one\n", "")
    assert len(server.requests) == 1


def test_the_next_parameter_is_tried_if_one_is_refused(serve: Serve, models: Models) -> None:
    first, refusal = listing("one", has_more=True), (http("400 Bad Request", error_body("unknown: after")),)
    server = serve(*parts(first), refusal, *parts(listing("two", has_more=True), listing("three")))
    assert models(server) == (0, b"one\nthree\ntwo\n", "")
    assert queries(server) == [b"", b"?after=one", b"?after_id=one", b"?after_id=two"]


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        pytest.param(listing("one", has_more=True, last_id="one"), 3, id="the same part again"),
        pytest.param(listing(has_more=True), 1, id="nothing"),
        pytest.param(listing("one", next="https://example.com/v2/models"), 1, id="a URL without a query"),
        pytest.param(listing("one", next=True), 1, id="a mere yes"),
        pytest.param(listing("one", next_page_token="t"), 2, id="the first part again"),
        pytest.param(listing("one", total=500), 2, id="a total alone"),
    ],
)
def test_an_incomplete_list_is_status_8_and_is_not_printed(
    serve: Serve, models: Models, body: bytes, asked: int
) -> None:
    server = serve(http("200 OK", body))
    result = models(server)
    assert (result.status, result.stdout) == (8, b"")
    assert result.stderr.startswith(
        "smai: the list of models is cut off: the server says that there is more, but does not"
    )
    assert len(server.requests) == asked


def test_an_endless_number_of_pages_ends_at_the_limit(serve: Serve, models: Models) -> None:
    number = 0

    def more(connection: socket.socket) -> None:
        nonlocal number
        number += 1
        entry = {"id": f"m{number}", "padding": "x" * 4_000_000}
        connection.sendall(http("200 OK", json.dumps({"object": "list", "data": [entry], "has_more": True}).encode()))

    result = models(serve(more))
    assert result == (8, b"", "smai: the list of models is larger than 16777216 bytes; check --base-url\n")
    assert number == 5


def test_a_failed_page_is_retried_from_the_first_page(serve: Serve, models: Models) -> None:
    first = listing("one", has_more=True)
    server = serve(*parts(first), (http("503 Busy", b"", "Retry-After: 0"),), *parts(first, listing("two")))
    result = models(server)
    assert (result.status, result.stdout) == (0, b"one\ntwo\n")
    assert queries(server) == [b"", b"?after=one", b"", b"?after=one"]


def test_doctor_counts_the_models_of_all_pages(serve: Serve, environment: dict[str, str]) -> None:
    nothing_asked = ()  # the check of the connection
    server = serve(nothing_asked, *parts(listing("one", has_more=True), listing("gpt-4.1")))
    result = process.run(("doctor",), environment | reach(server))
    assert b"status 200, 2 models" in result.stdout
    assert b"gpt-4.1, the default, is listed" in result.stdout


# The request.


def test_the_request_is_a_get_with_the_key_and_nothing_else(serve: Serve, models: Models) -> None:
    server = serve(http("200 OK", ONE))
    models(server)
    (request,) = server.requests
    head = request.head.lower()
    assert request.head.startswith(b"GET /v1/models HTTP/1.1\r\n")
    assert b"\r\nauthorization: bearer " + KEY.encode() in head
    assert b"\r\naccept-encoding: identity" in head
    assert not [field for field in (b"content-", b"transfer-encoding", b"cookie") if b"\r\n" + field in head]
    assert request.body == b""


def test_the_key_goes_to_its_own_origin_only(serve: Serve, models: Models) -> None:
    server = serve(http("200 OK", ONE))
    elsewhere = {"SMAI_BASE_URL": "http://127.0.0.1:1/v1", "SMAI_API_KEY": KEY}
    assert models(None, "--base-url", server.url, env=elsewhere).status == 0
    assert b"authorization" not in server.requests[0].head.lower()


def test_the_query_of_the_base_url_is_kept(serve: Serve, models: Models) -> None:
    server = serve(http("200 OK", ONE))
    assert models(server, "--base-url", f"{server.url}/?api-version=1").status == 0
    assert server.requests[0].head.startswith(b"GET /v1/models?api-version=1 HTTP/1.1\r\n")


def test_models_does_not_read_stdin(serve: Serve, sh: Ask) -> None:
    result = sh(serve(http("200 OK", ONE)), "printf 'a line\\n' | (smai models; cat)")
    assert result == (0, b"one\na line\n", "")


def test_over_tls_one_connection_is_made_in_advance_and_used(serve: Serve, models: Models) -> None:
    used = []
    for _ in range(3):  # on a busy machine a connection may become too old to be reused
        server = serve(http("200 OK", ONE), tls=certificates().context)
        assert models(server) == (0, b"one\n", "")
        used.append((server.connections, len(server.requests)))
        if used[-1] == (1, 1):
            return
    pytest.fail(f"connections and requests: {used}")


def test_the_mock_lists_its_models_without_a_key(models: Models) -> None:
    assert models(None, "--mock") == (0, IDS, "")


# How it fails.


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "no API key for https://api.smai.ai; run"),
        (["--mock", "--base-url", "http://127.0.0.1:1"], "--mock and --base-url cannot be combined"),
        (["--base-url", "localhost:1/v1"], "does not begin with http:// or https://"),
        (["--key-file", "/nonexistent"], "the key file /nonexistent: No such file"),
        (["gpt-4.1"], "unexpected extra argument (gpt-4.1); see smai models --help"),
    ],
)
def test_usage_errors_are_status_2(models: Models, flags: list[str], words: str) -> None:
    result = models(None, *flags)
    assert (result.status, result.stdout) == (2, b"")
    assert words in result.stderr


@pytest.mark.parametrize(
    ("script", "flags", "status", "words"),
    [
        ({"status": 404}, [], 4, "does not exist (model_not_found) [request id req-mock]; check --base-url\n"),
        ({"status": 302}, [], 4, "does not follow redirects"),
        ({"status": 401}, [], 5, "Incorrect API key provided (invalid_api_key)"),
        ({"require_key": "sk-other"}, [], 5, "(invalid_api_key)"),
        ({"status": 429}, ["--retries", "0"], 6, "Rate limit reached"),
        ({"status": 501}, [], 6, "501 Not Implemented"),
        ({"status": 503, "retry_after": "3600"}, [], 6, "the server asks to wait 3600 s; try again then"),
    ],
)  # fmt: skip
def test_a_refusal_has_the_same_status_as_for_ask(
    smai: Smai, server: Server, script: dict[str, Any], flags: list[str], status: int, words: str
) -> None:
    mock = server(**script)
    result = fair(smai("models", "--base-url", mock.url, *flags))
    assert (result.status, result.stdout) == (status, b"")
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == len(mock.received) == 1


def test_a_refused_connection_is_status_3_after_the_retries(models: Models) -> None:
    result = models(None, "--base-url", "http://127.0.0.1:1/v1", "--retries", "1")
    assert (result.status, result.stdout) == (3, b"")
    notice, message = result.stderr.splitlines()
    assert notice.startswith("smai: could not connect to 127.0.0.1 port 1: Connection refused; try 2 of 2 in 0.")
    assert message == "smai: could not connect to 127.0.0.1 port 1: Connection refused; is the server running?"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<!doctype html><p>hello", "something that is not a list of models; check --base-url"),
        (b"hello", "something that is not a list of models; check --base-url"),
        (b'{"object": "chat.completion", "choices": []}', "JSON that is not a list of models: {"),
        (b'{"data": null}', "JSON that is not a list of models: {"),
        (b'{"data": {"id": "one"}}', "JSON that is not a list of models: {"),
        (ONE + ONE, "JSON that is not a list of models: {"),
        (b'["one"]', 'the server lists no model with an id: "one"'),
        (listing(""), 'the server lists no model with an id: {"id": ""'),
    ],
)
def test_an_answer_that_is_not_a_list_is_status_4_and_not_retried(
    serve: Serve, models: Models, body: bytes, words: str
) -> None:
    server = serve(http("200 OK", body))
    result = models(server)
    assert (result.status, result.stdout) == (4, b"")
    assert words in result.stderr
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("body", "status", "requests", "words"),
    [
        (error_body("no", "invalid_api_key"), 5, 1, "no (invalid_api_key); check the key from SMAI_API_KEY\n"),
        (error_body("no", "insufficient_quota"), 5, 1, "no (insufficient_quota); top up the account\n"),
        (b'[{"error": {"code": 429, "message": "slow down"}}]', 6, 2, "slow down (429); try again later\n"),
        (error_body("no", "model_not_found"), 4, 1, "no (model_not_found); check --base-url\n"),
        (b'{"detail": "Not here"}', 8, 2, "answered with an error: Not here; try again later\n"),
        (
            b'{"base_resp": {"status_code": 1004, "status_msg": "no"}}',
            5,
            1,
            "no (1004); check the key from SMAI_API_KEY\n",
        ),
    ],
)
def test_an_error_object_has_the_status_of_its_cause(
    serve: Serve, models: Models, body: bytes, status: int, requests: int, words: str
) -> None:
    server = serve(http("200 OK", body))
    result = models(server, "--retries", "1")
    assert (result.status, result.stdout) == (status, b"")
    assert result.stderr.endswith(words)
    assert len(server.requests) == requests


def test_login_does_not_store_a_key_that_an_error_object_refuses(serve: Serve, environment: dict[str, str]) -> None:
    server = serve(http("200 OK", error_body("no", "invalid_api_key")))
    result = fair(process.run(("login", "--base-url", server.url), environment, KEY.encode()))
    assert (result.status, result.stdout) == (5, b"")
    assert result.stderr.endswith("no (invalid_api_key); the key was not stored; check the key\n")


CUT: dict[str, list[Step]] = {
    "content-length": [length_head(len(ONE) + 9), ONE],
    "chunked": [HEAD, chunk(ONE)],
    "close": [OK, b"Connection: close\r\n\r\n", ONE[:-1]],
    "close before the first byte": [OK, b"Connection: close\r\n\r\n"],
    "reset": [HEAD, chunk(ONE[:9]), reset],
    "no answer": [reset],
    "nested too deep": [http("200 OK", b"[" * 100_000)],
}


@pytest.mark.parametrize("steps", CUT.values(), ids=CUT.keys())
def test_a_cut_list_is_status_8_after_the_retries_and_is_not_printed(
    serve: Serve, models: Models, steps: list[Step]
) -> None:
    server = serve(*steps)
    result = models(server, "--retries", "1")
    assert (result.status, result.stdout) == (8, b"")
    assert "billed" not in result.stderr
    assert (len(server.requests), len(result.stderr.splitlines())) == (2, 2)


def test_a_cut_list_is_fetched_again(serve: Serve, models: Models) -> None:
    server = serve((length_head(999), ONE), (reset,), (http("200 OK", ONE),))
    result = models(server)
    assert (result.status, result.stdout) == (0, b"one\n")
    first, second = result.stderr.splitlines()
    assert first.startswith("smai: the connection broke before the answer was complete: ")
    assert second.startswith("smai: the server dropped the request without an answer: ")


def test_a_request_to_a_busy_server_is_retried_after_the_requested_time(smai: Smai, server: Server) -> None:
    mock = server(status=429, fail_first=1, retry_after="0.1")
    result = smai("models", "--base-url", mock.url)
    assert (result.status, result.stdout) == (0, IDS)
    assert "; try 2 of 3 in 0.1 s" in result.stderr
    assert [request.method for request in mock.received] == ["GET", "GET"]


def test_an_endless_list_ends_at_the_limit_and_is_not_retried(serve: Serve, models: Models) -> None:
    server = serve(HEAD, forever(chunk(b"[" + b" " * 1_000_000)))
    result = models(server)
    assert result == (8, b"", "smai: the list of models is larger than 16777216 bytes; check --base-url\n")
    assert len(server.requests) == 1


# The clocks: each server would go on for longer than the process may run.


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("steps", "flags", "words"),
    [
        pytest.param([hold], ["--idle-timeout", "0.5"], "no answer began within 0.5 s", id="idle, no answer"),
        pytest.param(
            [HEAD, hold],
            ["--idle-timeout", "0.5"],
            "nothing arrived for 0.5 s; raise --idle-timeout",
            id="idle, no body",
        ),
        pytest.param(
            [HEAD, forever(chunk(b" "), every_s=0.05)],
            ["--idle-timeout", "0.5"],
            "arrived for 0.5 s",
            id="idle, dribbled",
        ),
        pytest.param([hold], ["--max-time", "3"], "the run took 3 s in all", id="max-time, no answer"),
        pytest.param([HEAD, chunk(b"["), hold], ["--max-time", "3"], "the run took 3 s in all", id="max-time, in it"),
    ],
)
def test_silence_is_status_7_and_not_retried(
    serve: Serve, models: Models, steps: list[Step], flags: list[str], words: str
) -> None:
    server = serve(*steps)
    result = models(server, *flags)
    assert (result.status, result.stdout) == (7, b"")
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == len(server.requests) == 1


def test_a_handshake_that_never_ends_is_a_connect_timeout(serve: Serve, models: Models) -> None:
    url = serve(hold).url.replace("http:", "https:")
    result = models(None, "--base-url", url, "--connect-timeout", "0.5", "--retries", "0")
    assert result == (7, b"", "smai: timed out: no connection within 0.5 s; raise --connect-timeout, or try again\n")


@pytest.mark.parametrize("tls", [None, certificates().context], ids=["http", "https"])
def test_the_connect_timeout_ends_when_the_request_is_sent(serve: Serve, models: Models, tls: Any) -> None:
    server = serve(pause(1.5), http("200 OK", ONE), tls=tls)
    assert models(server, "--connect-timeout", "1") == (0, b"one\n", "")


# What a shell sees.


def test_head_ends_a_long_list_silently_by_sigpipe(serve: Serve, sh: Ask) -> None:
    server = serve(http("200 OK", listing(*(f"model-{number:06}" for number in range(200_000)))))
    result = sh(server, "smai models | head -n 1; echo ${PIPESTATUS[0]}")
    assert result == (0, b"model-000000\n141\n", "")


def test_a_closed_stdout_ends_the_wait_for_a_silent_server(serve: Serve, start: Start) -> None:
    server = serve(hold)
    run = start(server, command=[process.SMAI, "models"])
    server.next_request()
    assert run.child.stdout
    run.child.stdout.close()
    assert run.child.wait(20) == -13


def test_a_full_disk_is_status_11(serve: Serve, sh: Ask) -> None:
    result = sh(serve(http("200 OK", ONE)), "smai models > /dev/full")
    assert (result.status, result.stdout) == (11, b"")
    assert result.stderr.startswith("smai: stdout: No space left on device; ")


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([http("401 Unauthorized", error_body(f"no such key {KEY}"), f"x-request-id: {KEY}")], id="401"),
        pytest.param([http("302 Found", b"", f"Location: https://x.example/{KEY}")], id="redirect"),
        pytest.param([http("200 OK", error_body(f"{KEY} is unknown"))], id="error object"),
        pytest.param([http("503 Busy", error_body(f"{KEY} waits"))], id="retries"),
        pytest.param([http("200 OK", f'{{"{KEY}": '.encode())], id="malformed"),
    ],
)
def test_a_key_that_the_server_repeats_is_not_shown(serve: Serve, models: Models, script: list[Script]) -> None:
    result = models(serve(*script), "--retries", "1")  # fair() looks for the key
    assert result.status > 0
    assert "..." in result.stderr


def test_a_list_needs_neither_home_nor_locale(serve: Serve, tmp_path: Path) -> None:
    env = {"PATH": os.defpath, **reach(serve(http("200 OK", listing("\u00e9"))))}
    done = subprocess.run([process.SMAI, "models"], env=env, cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\u00e9\n".encode(), b"")
    assert list(tmp_path.iterdir()) == []
