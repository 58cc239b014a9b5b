"""`smai mock` for many requests: echoes, random faults, a rate limit, kept connections, pages and a log."""

import http.client
import json
import os
import resource
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from conftest import Smai, StartMock
from process import SMAI

pytestmark = [pytest.mark.preloaded, pytest.mark.thorough]

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
PROMPT = "Tell me:\n  à la carte, 木の本, 🦊!"
PARTS = [
    {"type": "text", "text": "Tell me:\n  à la "},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
    {"type": "text", "text": "carte, 木の本, 🦊!"},
]
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, {"messages": [{"role": "system", "content": "No."}, {"role": "user", "content": PROMPT}]}),
    "chat parts": (CHAT, {"messages": [{"role": "user", "content": "No."}, {"role": "user", "content": PARTS}]}),
    "chat, the user last but one": (
        CHAT,
        {"messages": [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": "No."}]},
    ),
    "responses text": (RESPONSES, {"input": PROMPT, "instructions": "No."}),
    "responses with messages": (RESPONSES, {"input": PROMPT, "messages": 5}),
    "responses items": (RESPONSES, {"input": [{"role": "user", "content": PROMPT}]}),
    "responses parts": (
        RESPONSES,
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": PROMPT}, {"type": "input_image"}]}]},
    ),
}


class Response(NamedTuple):
    """An answer as http.client returns it; `whole` is false for a body that was cut off."""

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool = True

    @property
    def events(self) -> list[dict[str, Any]]:
        lines = [line.removeprefix(b"data: ") for line in self.body.split(b"\n") if line.startswith(b"data: {")]
        return [json.loads(line) for line in lines]


def connect(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)


def ask(
    connection: http.client.HTTPConnection,
    path: str = CHAT,
    request: dict[str, Any] | None = None,
    *,
    stream: bool = True,
    headers: dict[str, str] | None = None,
) -> Response:
    request = request or {"messages": [{"role": "user", "content": "one two three four"}]}
    connection.request("POST", path, json.dumps({"model": "gpt-4.1", "stream": stream, **request}), headers or {})
    return answer_of(connection)


def answer_of(connection: http.client.HTTPConnection) -> Response:
    answer = connection.getresponse()
    body, whole = b"", True
    try:
        body = answer.read()
    except http.client.IncompleteRead as exc:
        body, whole = exc.partial, False
    return Response(answer.status, {name.lower(): value for name, value in answer.getheaders()}, body, whole)


def ask_on_new_connections(url: str, count: int) -> Iterator[Response]:
    for _ in range(count):
        with closing(connect(url)) as connection:
            yield ask(connection)


def outcomes(url: str, count: int) -> list[str]:
    return [
        str(answer.status) if answer.status != 200 else f"cut after {len(answer.body)}" if not answer.whole else "whole"
        for answer in ask_on_new_connections(url, count)
    ]


@pytest.mark.parametrize("asked", list(ASKED))
def test_echo_returns_the_text_of_the_last_user_message_streamed_or_not(start_mock: StartMock, asked: str) -> None:
    _, url = start_mock("--echo")
    path, request = ASKED[asked]
    with closing(connect(url)) as connection:
        streamed = ask(connection, path, {**request, "stream_options": {"include_usage": True}})
        whole = json.loads(ask(connection, path, request, stream=False).body)
    if path == CHAT:
        deltas = [event["choices"][0]["delta"].get("content") for event in streamed.events if event["choices"]]
        text, usage = whole["choices"][0]["message"]["content"], streamed.events[-1]["usage"]
        assert whole["usage"]["completion_tokens"] == len([delta for delta in deltas if delta])
    else:
        deltas = [event["delta"] for event in streamed.events if event["type"] == "response.output_text.delta"]
        text, usage = whole["output"][0]["content"][0]["text"], streamed.events[-1]["response"]["usage"]
        assert whole["usage"]["output_tokens"] == len(deltas)
    assert "".join(delta for delta in deltas if delta) == text == PROMPT
    assert len([delta for delta in deltas if delta]) > 4
    assert usage == whole["usage"]


def test_echo_returns_half_of_a_surrogate_pair(start_mock: StartMock) -> None:
    _, url = start_mock("--echo")
    with closing(connect(url)) as connection:
        answer = ask(connection, CHAT, {"messages": [{"role": "user", "content": "a \ud83e"}]})
    assert answer.events[2]["choices"][0]["delta"]["content"] == " "
    assert answer.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_smai_gets_its_prompt_back_from_an_echo(start_mock: StartMock, smai: Smai, api: str) -> None:
    _, url = start_mock("--echo")
    result = smai("ask", "--base-url", url, "--api", api, "-s", "No.", PROMPT)
    assert (result.status, result.stdout.decode()) == (0, f"{PROMPT}\n")


def test_the_same_seed_repeats_the_same_faults_and_another_seed_does_not(start_mock: StartMock) -> None:
    arguments = ("--flaky", "60%", "--reply", "a b c d e f g h", "--retry-after", "0")
    first, second, third = (outcomes(start_mock(*arguments, "--seed", seed)[1], 20) for seed in ("7", "7", "8"))
    assert first == second != third


def test_without_kinds_the_failures_are_429_503_and_cuts_in_equal_shares(start_mock: StartMock) -> None:
    _, url = start_mock("--flaky", "0.9")
    answers = list(ask_on_new_connections(url, 300))
    kinds = Counter(answer.status if answer.whole else "cut" for answer in answers)
    assert set(kinds) == {200, 429, 503, "cut"}
    assert all(60 <= kinds[kind] <= 120 for kind in (429, 503, "cut"))  # always the same, with the seed 0
    assert {answer.headers.get("retry-after") for answer in answers if answer.status == 429} == {"1"}
    assert {answer.headers.get("retry-after") for answer in answers if answer.status == 503} == {None}
    cuts = {len(answer.body) for answer in answers if not answer.whole}
    assert len(cuts) > 10, "in any place, before the text as well"


def test_each_kind_of_failure_has_its_own_share(start_mock: StartMock) -> None:
    _, url = start_mock("--flaky", "429=10%,500=0.2,cut=30%,error=40%")
    kinds = Counter(
        answer.status if answer.status != 200 else "error" if b"server_error" in answer.body else "cut"
        for answer in ask_on_new_connections(url, 100)
    )
    assert set(kinds) == {429, 500, "cut", "error"}
    assert kinds[429] < kinds[500] < kinds["error"]


def test_random_cuts_and_failures_also_apply_to_unstreamed_answers_and_the_list_of_models(
    start_mock: StartMock,
) -> None:
    _, url = start_mock("--flaky", "cut=1")
    with closing(connect(url)) as connection:
        assert not ask(connection, stream=False).whole
    with closing(connect(url)) as connection:
        connection.request("GET", "/v1/models")
        assert not answer_of(connection).whole
    _, url = start_mock("--flaky", "error=100%")
    with closing(connect(url)) as connection:
        assert ask(connection, stream=False).status == 500


MESSAGES = {"messages": [{"role": "user", "content": "hi"}]}
CALL: dict[str, Any] = {"tools": [{"function": {"name": "f"}}], "tool_choice": "required"}


@pytest.mark.parametrize("lie", ["tools", "usage"])
@pytest.mark.parametrize(
    ("path", "request_members"),
    [(CHAT, {**MESSAGES, **CALL}), (CHAT, {**MESSAGES, "n": 3}), (RESPONSES, {"input": "hi", **CALL})],
    ids=["call", "three choices", "call in the Responses API"],
)
def test_random_cuts_apply_to_every_kind_of_answer(
    start_mock: StartMock, path: str, request_members: dict[str, Any], lie: str
) -> None:
    _, url = start_mock("--flaky", "cut=1", "--delay", "0", "--lie", lie)
    for _ in range(20):
        with closing(connect(url)) as connection:
            assert not ask(connection, path, request_members).whole


def test_a_fault_after_0_deltas_comes_after_the_role_of_each_choice(start_mock: StartMock) -> None:
    _, url = start_mock("--cut-after", "0")
    with closing(connect(url)) as connection:
        events = ask(connection, CHAT, {**MESSAGES, "n": 2}).events
    assert [event["choices"][0]["index"] for event in events] == [0, 1]
    assert all(event["choices"][0]["delta"]["role"] for event in events)


def test_a_buffered_answer_has_the_deltas_before_its_fault(start_mock: StartMock) -> None:
    for fault, is_whole in (("--cut-after", False), ("--error-after", True)):
        _, url = start_mock(fault, "2", "--lie", "buffer", "--delay", "0", "--reply", "a b c")
        with closing(connect(url)) as connection:
            answer = ask(connection)
        assert (answer.whole, b'"content":" b"' in answer.body, b'"content":" c"' in answer.body) == (
            is_whole,
            True,
            False,
        )


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_a_tape_is_cut_between_its_events(start_mock: StartMock, tmp_path: Path, line_end: bytes) -> None:
    event = b"event: a" + line_end + b"data: 1" + 2 * line_end
    (tmp_path / "tape").write_bytes(event * 3)
    _, url = start_mock("--tape", str(tmp_path / "tape"), "--cut-after", "1")
    with closing(connect(url)) as connection:
        assert ask(connection)[2:] == (event, False)


def test_smai_reports_a_random_cut_as_a_broken_stream(start_mock: StartMock, smai: Smai) -> None:
    _, url = start_mock("--flaky", "cut=1")
    assert smai("ask", "--base-url", url, "--retries", "0", "hi").status == 8


def test_a_random_stall_lasts_until_the_client_disconnects_and_is_not_an_answer(
    start_mock: StartMock, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    mock, url = start_mock("--flaky", "stall=1", "--reply", "a b", "--max-requests", "1", "--log", str(log))
    for stream in (True, False):
        with closing(connect(url)) as connection:
            connection.request("POST", CHAT, json.dumps({"model": "m", "stream": stream, "messages": []}))
            connection.sock.shutdown(socket.SHUT_WR)
            assert not answer_of(connection).whole  # the mock closes after the client
    assert mock.poll() is None
    assert [line["outcome"] for line in read_log(log)] == ["stall", "stall"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--flaky", "2"], "'2' is not a share from 0 to 1, or from 0% to 100%"),
        (["--flaky", "nan"], "'nan' is not a share"),
        (["--flaky", "cut=60%,429=50%"], "'cut=60%,429=50%' is more than all requests"),
        (["--flaky", "cut=1%,cut=2%"], "cut is given twice"),
        (["--flaky", "200=1%"], "'200' is not an HTTP status from 300 to 599, nor cut, stall, error"),
        (["--flaky", "cut=1%,"], "'' is not an HTTP status"),
        (["--limit", "0"], "'0' is not a number of 0.001 or more"),
        (["--split", "0"], "--split: '0' is not a whole number of 1 or more"),
        (["--allow-origin", "*"], "'*' is not an origin, such as http://localhost:3000"),
        (["--allow-origin", "http://localhost:3000/"], "'http://localhost:3000/' is not an origin"),
        (["--echo", "--reply", "hi"], "--reply and --echo cannot be combined; choose one answer"),
        (["--echo", "--tape", "/dev/null"], "--tape and --echo cannot be combined; choose one answer"),
        (["--log", "no/such/folder"], "no/such/folder: No such file or directory; name a file that can be written"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_invalid_options_are_status_2_in_one_line(smai: Smai, arguments: list[str], words: str) -> None:
    result = smai("mock", *arguments)
    assert (result.status, result.stdout) == (2, b"")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_request_above_the_limit_gets_429_with_the_wait_in_seconds_and_milliseconds(start_mock: StartMock) -> None:
    _, url = start_mock("--limit", "0.004")
    with closing(connect(url)) as connection:
        assert ask(connection).status == 200
        refused = ask(connection)
    assert refused.status == 429
    seconds, milliseconds = int(refused.headers["retry-after"]), int(refused.headers["retry-after-ms"])
    assert 100_000 < milliseconds <= 250_000
    assert 0 <= seconds * 1000 - milliseconds < 1000
    error = json.loads(refused.body)["error"]
    assert (error["code"], error["type"]) == ("rate_limit_exceeded", "requests")
    assert "Limit 0.004" in error["message"]


def test_a_client_that_waits_as_long_as_requested_gets_an_answer(start_mock: StartMock) -> None:
    _, url = start_mock("--limit", "4")
    with closing(connect(url)) as connection:
        while (answer := ask(connection)).status == 200:
            pass
        assert answer.headers["retry-after"] == "1"
        time.sleep(int(answer.headers["retry-after-ms"]) / 1000)
        assert ask(connection).status == 200


def test_smai_gets_429_above_the_rate_limit(start_mock: StartMock, smai: Smai) -> None:
    _, url = start_mock("--limit", "0.001")
    assert smai("ask", "--base-url", url, "hi").status == 0
    assert smai("ask", "--base-url", url, "hi").status == 6


def test_one_connection_can_be_used_for_answers_errors_and_models(start_mock: StartMock, tmp_path: Path) -> None:
    log = tmp_path / "log"
    _, url = start_mock("--log", str(log), "--flaky", "503=50%")
    with closing(connect(url)) as connection:
        for number in range(30):
            ask(connection, [CHAT, RESPONSES][number % 2], {"messages": [], "input": ""}, stream=number % 3 > 0)
            connection.request("GET", "/v1/models" if number % 4 else "/v1/elsewhere")
            answer_of(connection)
    assert {line["connection"] for line in read_log(log)} == {1}
    assert [line["index"] for line in read_log(log)] == list(range(1, 61))


@pytest.mark.parametrize(
    "framing",
    [b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"Content-Length: x\r\n\r\n"],
    ids=["chunked", "no number"],
)
def test_the_rest_of_an_unreadable_body_is_not_another_request(start_mock: StartMock, framing: bytes) -> None:
    _, url = start_mock()
    with socket.create_connection(("127.0.0.1", int(urlsplit(url).port or 0)), timeout=30) as client:
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n" + framing)
        with client.makefile("rb") as answer:
            received = answer.read()
    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.count(b"HTTP/1.1 ") == 1


def test_hundreds_of_connections_at_once_are_served_and_kept_even_with_few_descriptors(
    environment: dict[str, str],
) -> None:
    few = ["sh", "-c", 'ulimit -S -n 64 && exec "$0" "$@"', SMAI, "mock", "--delay", "0", "--echo"]
    clients = 200
    with subprocess.Popen(few, stdout=subprocess.PIPE, env=environment) as mock, ExitStack() as stack:
        stack.callback(mock.kill)
        assert mock.stdout
        url = mock.stdout.readline().decode().strip()
        connections = [stack.enter_context(closing(connect(url))) for _ in range(clients)]
        for turn in range(2):
            for number, connection in enumerate(connections):
                body = {"model": "m", "messages": [{"role": "user", "content": f"{turn} {number}"}]}
                connection.request("POST", CHAT, json.dumps(body))
            texts = [
                json.loads(answer_of(connection).body)["choices"][0]["message"]["content"] for connection in connections
            ]
            assert texts == [f"{turn} {number}" for number in range(clients)]


@pytest.mark.nightly
def test_512_clients_at_once_are_answered_with_little_cpu_time(environment: dict[str, str]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip("the system gives too few descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    texts: list[bytes] = []

    def client(url: str) -> None:
        with closing(connect(url)) as connection:
            texts.extend(ask(connection).body[-14:] for _ in range(4))

    before_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    with subprocess.Popen([SMAI, "mock", "--delay", "0"], stdout=subprocess.PIPE, env=environment) as mock:
        assert mock.stdout
        url = mock.stdout.readline().decode().strip()
        threads = [threading.Thread(target=client, args=(url,)) for _ in range(512)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        mock.terminate()
    assert texts == [b"data: [DONE]\n\n"] * 2048
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before_s < 20


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_split_sends_the_same_answer_in_pieces_of_the_given_size(start_mock: StartMock, size: int) -> None:
    _, url = start_mock("--split", str(size), "--reply", PROMPT)
    with closing(connect(url)) as connection:
        connection.request("POST", CHAT, json.dumps({"model": "m", "messages": [], "stream": True}))
        answer = connection.getresponse()
        pieces = []
        while piece := answer.read1():  # a chunk of HTTP at most
            pieces.append(piece)
    assert {len(piece) for piece in pieces[:-1]} == {size}
    assert 1 <= len(pieces[-1]) <= size
    text = Response(200, {}, b"".join(pieces)).events
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in text) == PROMPT
    assert b"".join(pieces).endswith(b"data: [DONE]\n\n")


def test_each_piece_is_a_separate_write_even_for_unstreamed_answers(start_mock: StartMock) -> None:
    """With a pause before each write, a reader gets each write separately."""
    _, url = start_mock("--split", "40", "--delay", "20", "--reply", "hi")
    with closing(connect(url)) as connection:
        connection.request("POST", CHAT, json.dumps({"model": "m", "messages": []}))
        answer = connection.getresponse()
        pieces = []
        while piece := answer.read1():
            pieces.append(piece)
    assert len(pieces[0]) == 40
    assert json.loads(b"".join(pieces))["choices"][0]["message"]["content"] == "hi"


@pytest.mark.parametrize("size", ["1", "50", "100000"])
def test_a_cut_answer_in_pieces_is_reported_as_cut_off(start_mock: StartMock, smai: Smai, size: str) -> None:
    _, url = start_mock("--split", size, "--cut-after", "2", "--reply", "a b c")
    result = smai("ask", "--base-url", url, "hi")
    assert result.status == 8
    assert result.stdout in (b"a b\n", b"")  # a piece larger than the answer never fills


PAGE = "http://localhost:3000"


@pytest.mark.parametrize("origin", [PAGE, "null"])
def test_a_web_page_of_an_allowed_origin_may_send_requests_and_read_answers(start_mock: StartMock, origin: str) -> None:
    _, url = start_mock(
        "--allow-origin", PAGE.upper(), "--allow-origin", "null", "--require-key", "k", "--fail-first", "1"
    )
    with closing(connect(url)) as connection:
        connection.request("OPTIONS", CHAT, headers={"Origin": origin, "Access-Control-Request-Method": "POST"})
        preflight = answer_of(connection)
        assert (preflight.status, preflight.body) == (204, b"")
        assert preflight.headers["access-control-allow-origin"] == origin
        assert preflight.headers["access-control-allow-headers"] == "authorization, *"
        assert preflight.headers["access-control-allow-methods"] == "GET, POST"
        for status, key in ((503, "k"), (401, "x"), (200, "k")):
            answer = ask(connection, headers={"Origin": origin, "Authorization": f"Bearer {key}"})
            assert answer.status == status, "a preflight does not count as a request"
            assert answer.headers["access-control-allow-origin"] == origin
            assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize("origin", ["http://localhost:3001", "https://localhost:3000", "null", "*", None])
def test_web_pages_of_other_origins_get_no_cors_headers(start_mock: StartMock, origin: str | None) -> None:
    _, url = start_mock("--allow-origin", PAGE)
    headers = {"Origin": origin} if origin else {}
    with closing(connect(url)) as connection:
        answer = ask(connection, headers=headers)
        assert answer.status == 200
        connection.request("OPTIONS", CHAT, headers=headers)
        preflight = answer_of(connection)
    assert preflight.status == 501
    assert not [name for name in (*answer.headers, *preflight.headers) if name.startswith("access-control")]


def test_without_the_option_no_cors_header_is_sent(start_mock: StartMock) -> None:
    _, url = start_mock()
    with closing(connect(url)) as connection:
        answer = ask(connection, headers={"Origin": PAGE})
        connection.request("OPTIONS", CHAT, headers={"Origin": PAGE})
        preflight = answer_of(connection)
    assert (answer.status, preflight.status) == (200, 501)
    assert not [name for name in (*answer.headers, *preflight.headers) if name.startswith("access-control")]
    assert "vary" not in answer.headers


def read_log(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_the_log_has_a_line_for_each_request_when_its_answer_has_ended(start_mock: StartMock, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text('{"index": 0}\n')
    _, url = start_mock(
        "--log", str(log), "--fail-first", "1", "--cut-after", "1", "--require-key", "k", "--reply", "a b"
    )
    with closing(connect(url)) as connection:
        for key, stream in (("k", True), ("x", True), ("k", False), ("k", True)):
            ask(connection, stream=stream, headers={"Authorization": f"Bearer {key}"})
    kept, *lines = read_log(log)
    assert kept == {"index": 0}
    assert [(line["index"], line["status"], line["outcome"], line["prompt"]) for line in lines] == [
        (1, 503, "refused", None),
        (2, 401, "refused", None),
        (3, 200, "complete", "one two three four"),
        (4, 200, "cut", "one two three four"),
    ]
    assert {(line["method"], line["path"]) for line in lines} == {("POST", CHAT)}
    times = [line["time_s"] for line in lines]
    assert times == sorted(times)
    assert list(lines[0]) == ["index", "connection", "time_s", "method", "path", "prompt", "status", "outcome"]


def test_a_client_that_disconnects_is_logged(start_mock: StartMock, tmp_path: Path) -> None:
    log = tmp_path / "log"
    mock, url = start_mock("--log", str(log), "--delay", "1", "--reply", "a " * 1000, "--max-requests", "1")
    with socket.create_connection(("127.0.0.1", int(urlsplit(url).port or 0)), timeout=30) as client:
        body = b'{"model": "m", "messages": [], "stream": true}'
        client.sendall(b"POST %s HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (CHAT.encode(), len(body), body))
        client.recv(1)
    assert mock.wait(30) == 0
    assert [(line["status"], line["outcome"]) for line in read_log(log)] == [(200, "gone")]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no full device")
def test_a_log_that_cannot_be_written_ends_the_mock_with_status_11(start_mock: StartMock) -> None:
    mock, url = start_mock("--log", "/dev/full")
    with closing(connect(url)) as connection:
        ask(connection)
    assert mock.wait(30) == 11


def test_the_log_cannot_be_the_tape_file(smai: Smai, tmp_path: Path) -> None:
    tape = tmp_path / "tape.sse"
    tape.write_bytes(b"data: [DONE]\n\n")
    (tmp_path / "link").symlink_to(tape)
    result = smai("mock", "--tape", tape, "--log", tmp_path / "link")
    assert result.status == 2
    assert "--log and --tape are the same file" in result.stderr
    assert tape.read_bytes() == b"data: [DONE]\n\n"


def test_memory_does_not_grow_with_the_number_of_requests(start_mock: StartMock) -> None:
    mock, url = start_mock()
    big = {"messages": [], "metadata": {"bulk": "x" * 1_000_000}}
    with closing(connect(url)) as connection:
        for _ in range(100):
            ask(connection, CHAT, big)
        kilobytes = subprocess.run(["ps", "-o", "rss=", "-p", str(mock.pid)], capture_output=True, check=True).stdout
    assert int(kilobytes) < 80_000
