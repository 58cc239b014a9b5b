"""`smai doctor --probe`: a real process detects a server that misreports the ends of its answers."""

import json
import re
import signal
import subprocess
from collections.abc import Callable
from typing import Any, NamedTuple

import process
import pytest
from conftest import Server, Smai
from pumping import Pieces
from rawserver import DONE, KEY, STOP, Checkpoint, Serve, event, fair, hold, http, reach
from servers import SERVER_TAPES, ServerTape

from smai_cli.answer.meaning import HttpAnswer, http_error
from smai_cli.doctor.findings import judge_end, judge_error, judge_streaming, judge_tools, reports_limit, rows
from smai_cli.doctor.probe import REQUESTS, Prober, UserSettings
from smai_cli.doctor.recorder import ProbeAnswer
from smai_cli.errors import SmaiError
from smai_cli.mock.script import Script, count_usage
from smai_cli.mock.server import Mock, MockRefusal, ReceivedRequest
from smai_cli.stream.dialects import chat, responses
from smai_cli.stream.retries import Retries

pytest_plugins = ["rawserver"]
pytestmark = pytest.mark.preloaded

CHECKS = [
    "ends",
    "text",
    "limit_chat",
    "usage",
    "limit_responses",
    "streaming",
    "tools",
    "choices",
    "errors",
    "verdict",
]
MODELS = http("200 OK", json.dumps({"data": [{"id": "gpt-4.1"}]}).encode())
DONE_LINES = ["# The risk: with a gateway, an answer that was cut then looks complete.", 'accept = ["done"]']
CHAT_LINES = ["# The Responses API does not report that the token limit cut an answer.", 'api = "chat"']
RESPONSES_LINES = ["# The chat API does not report that the token limit cut an answer.", 'api = "responses"']


class ProbeReport(NamedTuple):
    """The output of a probe: the word and the text of each check by its name, and the lines for a profile."""

    status: int
    stderr: str
    words: dict[str, str]
    details: dict[str, str]
    lines: list[str]


def read(result: process.Result) -> ProbeReport:
    """Return the parsed output of a probe, after checking its format."""
    lines = fair(result).stdout.decode().splitlines()
    found = [re.fullmatch(r"(ok|no|unknown) +(\w+) +(.+)", line) for line in lines]
    checks = [match for match in found if match and match[2] in CHECKS]
    names = [match[2] for match in checks]
    verdict = max(at for at, match in enumerate(found) if match)
    return ProbeReport(
        result.status,
        result.stderr,
        dict(zip(names, [match[1] for match in checks], strict=True)),
        dict(zip(names, [match[3] for match in checks], strict=True)),
        lines[verdict + 1 :],
    )


Probe = Callable[..., ProbeReport]


@pytest.fixture
def probe(smai: Smai) -> Probe:
    """`probe(url, "--api", "chat")` runs `smai doctor --probe` against a server."""

    def run(url: str, *options: str, **more: Any) -> ProbeReport:
        return read(smai("doctor", "--probe", "--base-url", url, "--retries", "0", *options, **more))

    return run


def posts(mock: Mock) -> list[ReceivedRequest]:
    return [received for received in mock.received if received.method == "POST"]


# An honest server.


def test_the_mock_passes_every_check_of_the_probe(smai: Smai) -> None:
    probed = read(smai("doctor", "--probe", "--mock"))
    assert (probed.status, probed.stderr, probed.lines) == (0, "", [])
    assert {name: word for name, word in probed.words.items() if name != "streaming"} == dict.fromkeys(
        [name for name in CHECKS if name != "streaming"], "ok"
    )
    assert "smai can tell a complete answer from a truncated one on this server" in probed.details["verdict"]


def test_a_probe_sends_at_most_9_requests_and_300_tokens(probe: Probe, server: Server) -> None:
    mock = server()
    assert probe(mock.url).status == 0
    asked = [received.json for received in posts(mock)]
    assert len(asked) == len(mock.received) - 1 == 9
    answers = sum(
        max(body.get(name, 0) for name in ("max_tokens", "max_output_tokens")) * body.get("n", 1) for body in asked
    )
    prompts = sum(count_usage(Script(), body)["prompt_tokens"] for body in asked)
    tools = sum(len(json.dumps(body["tools"])) // 4 for body in asked if "tools" in body)
    assert answers + prompts + tools <= 300


def test_doctor_without_probe_sends_no_prompt(smai: Smai, server: Server) -> None:
    mock = server()
    assert smai("doctor", "--base-url", mock.url, "-m", "gpt-4o").status == 0
    assert [received.method for received in mock.received] == ["GET"]


def test_the_model_and_the_api_of_the_command_line_are_probed(probe: Probe, server: Server) -> None:
    mock = server()
    probed = probe(mock.url, "-m", "o3-pro")
    assert probed.status == 0
    assert "choices" not in probed.words  # the Responses API has no n
    assert posts(mock)[0].path == "/v1/responses"
    assert {received.json["model"] for received in posts(mock)} == {"o3-pro", "no-such-model"}
    assert probe(mock.url, "-m", "o3-pro", "--api", "chat").words["choices"] == "ok"


def test_a_probe_uses_all_settings_of_the_profile(smai: Smai, server: Server, config: Callable[[str], Any]) -> None:
    mock = server(finish_reason="finished")
    text = f'[profile.p]\nbase_url = "{mock.url}"\naccept = ["finished"]\neffort = "low"\n'
    text += "[profile.p.options]\nmax_tokens = 9\nseed = 3\n"
    config(text)
    probed = read(smai("doctor", "--probe", "-p", "p"))
    assert probed.words["ends"] == "ok"
    asked = [received.json for received in posts(mock)]
    assert {body["seed"] for body in asked} == {3}
    assert {body["reasoning_effort"] for body in asked if "messages" in body} == {"low"}
    assert 9 not in [body.get("max_tokens") for body in asked]


# Servers that misreport their answers.


@pytest.mark.parametrize(
    ("script", "check", "word", "detail", "status", "lines"),
    [
        ({"finish_reason": "none"}, "ends", "no", "with [DONE], but without finish_reason; accept = ", 8, DONE_LINES),
        ({"finish_reason": "finished"}, "ends", "no", "--accept finished accepts it", 8, ['accept = ["finished"]']),
        ({"finish_reason": "none", "done": False}, "ends", "no", "ended before finish_reason", 8, []),
        ({"cut_after": 0}, "ends", "no", "the connection broke", 8, []),
        ({"finish_reason": "content_filter"}, "ends", "unknown", "withheld", 8, []),
        ({"reply": "word " * 200}, "ends", "unknown", "used up the 64 tokens", 8, []),
        ({"lies": ["close"]}, "ends", "ok", "only the end of the connection marks the end of the body", 0, []),
        ({"done": False}, "ends", "ok", "no [DONE]; HTTP marks the end of the body", 0, []),
        ({"lies": ["limit"]}, "limit_chat", "no", "ends with stop, streamed or not", 8, RESPONSES_LINES),
        ({"lies": ["responses"]}, "limit_responses", "no", "a truncated answer ends with completed", 0, CHAT_LINES),
        ({"reply": "word " * 200, "lies": ["limit"]}, "limit_chat", "no", "ends with stop", 8, RESPONSES_LINES),
        ({"lies": ["limit", "responses"]}, "verdict", "no", "a truncated answer ends with stop", 8, []),
        ({"lies": ["usage"]}, "usage", "no", "no token counts arrive in a stream", 0, []),
        ({"lies": ["buffer"], "delay_s": 0.02}, "streaming", "no", "40 deltas at once: 100% of the text", 0, []),
        ({"reply": "7"}, "streaming", "unknown", "too few to know", 8, []),
        ({"lies": ["tools"]}, "tools", "no", "the reason is tool_calls, and no call arrives", 0, []),
        ({"lies": ["choices"]}, "choices", "no", "2 answers, 1 with a finish_reason", 0, []),
        ({"lies": ["numbers"]}, "text", "no", "arrive as JSON numbers", 0, []),
        ({"reply": "seven " * 20}, "text", "unknown", "did not answer with a digit", 0, []),
        ({"lies": ["errors"]}, "errors", "no", "HTTP status 200, and the server answered with an error", 0, []),
    ],
    ids=str,
)
def test_each_kind_of_false_report_is_detected(  # a row of the table
    probe: Probe,
    server: Server,
    script: dict[str, Any],
    check: str,
    word: str,
    detail: str,
    status: int,
    lines: list[str],
) -> None:
    if "lies" in script:
        script = {**script, "lies": frozenset(script["lies"])}
    probed = probe(server(**script).url)
    assert probed.words[check] == word, probed
    assert detail in probed.details[check]
    assert probed.status == status
    assert [line for line in probed.lines if line in lines] == lines
    if not lines:
        assert probed.lines == []
    assert (probed.words["verdict"] == "ok") == (status == 0)
    assert (probed.stderr == "") == (status == 0)


def test_the_verdict_depends_on_the_api_in_use(probe: Probe, server: Server) -> None:
    url = server(lies=frozenset({"responses"})).url
    probed = probe(url, "--api", "responses")
    assert (probed.status, probed.words["verdict"], probed.lines) == (8, "no", CHAT_LINES)
    long = server(reply="word " * 200, lies=frozenset({"responses"}))
    assert "used up the 64 tokens" in probe(long.url, "--api", "responses").details["ends"]


def test_the_mock_has_an_option_for_each_kind_of_false_report(start_mock: Any, smai: Smai, probe: Probe) -> None:
    _, url = start_mock("--lie", "tools", "--lie", "usage")
    probed = probe(url)
    assert [name for name, word in probed.words.items() if word == "no"] == ["usage", "tools"]
    assert "is not one of 'buffer', 'choices'" in smai("mock", "--lie", "about").stderr


# Servers that refuse, in part or altogether.


class RefusingMock(Mock):
    """A mock that refuses the requests for which `refuses` returns true."""

    def __init__(self, refuses: Callable[[dict[str, Any]], object], status: int = 400) -> None:
        super().__init__(Script(delay_s=0.0))
        self._refuses, self._status = refuses, status

    def check(self, received: ReceivedRequest) -> None:
        if self._refuses(received.json):
            message = "that is not supported here"
            raise MockRefusal(self._status, {"error": {"message": message, "type": "invalid_request_error"}})


@pytest.mark.parametrize(
    ("refuses", "status", "unknown"),
    [
        (lambda body: "n" in body, 400, ["choices"]),
        (lambda body: "tools" in body, 500, ["tools"]),  # as llama.cpp without a template (ggml-org/llama.cpp#10920)
        (lambda body: "input" in body, 404, ["limit_responses"]),
    ],
    ids=["n", "tools", "Responses API"],
)
def test_a_check_whose_request_is_refused_is_unknown(
    probe: Probe, refuses: Callable[[dict[str, Any]], object], status: int, unknown: list[str]
) -> None:
    with RefusingMock(refuses, status) as mock:
        probed = probe(mock.url)
    assert (probed.status, probed.lines) == (0, [])
    assert [name for name, word in probed.words.items() if word != "ok" and name != "streaming"] == unknown
    assert f"the server answered {status}" in probed.details[unknown[0]]


def test_a_server_that_refuses_a_limit_of_1_token_is_probed_with_16(probe: Probe) -> None:
    with RefusingMock(lambda body: body.get("max_tokens") == 1 and body["model"] != "no-such-model") as mock:
        probed = probe(mock.url)
        assert len(posts(mock)) <= 9
    assert (probed.status, probed.words["limit_chat"]) == (0, "ok")


def test_stream_options_and_the_name_of_the_limit_are_adapted_within_9_requests(probe: Probe) -> None:
    with RefusingMock(lambda body: "stream_options" in body) as mock:
        probe(mock.url)
        assert len(posts(mock)) <= 9


@pytest.mark.parametrize(("http_status", "status"), [(400, 4), (401, 5), (429, 6), (503, 6)])
def test_a_server_that_refuses_everything_gives_the_status_of_a_run(
    probe: Probe, server: Server, http_status: int, status: int
) -> None:
    mock = server(status=http_status)
    probed = probe(mock.url)
    assert (probed.status, set(probed.words.values())) == (status, {"unknown"})
    assert len(posts(mock)) <= 2


def test_a_server_without_a_list_of_models_is_probed_too(serve: Serve, environment: Any) -> None:
    body = json.dumps(
        {"choices": [{"index": 0, "message": {"content": "7"}, "finish_reason": "stop"}], "usage": {}}
    ).encode()
    server = serve((http("404 Not Found"),), (http("200 OK", body),))
    probed = read(process.run(("doctor", "--probe", "--retries", "0"), environment | reach(server)))
    assert (probed.words["ends"], probed.words["streaming"], probed.status) == ("ok", "no", 8)
    assert "finish_reason stop in an answer in one piece" in probed.details["ends"]
    assert "in one piece, although a stream was asked for" in probed.details["streaming"]


def test_a_server_that_closes_the_connection_gets_one_request_in_each_api(serve: Serve, environment: Any) -> None:
    server = serve((MODELS,), (b"",))
    probed = read(process.run(("doctor", "--probe", "--retries", "0"), environment | reach(server)))
    assert (probed.status, set(probed.words.values())) == (8, {"unknown"})
    assert len(server.requests) == 3


def test_a_probe_of_a_silent_server_ends_after_one_idle_timeout(serve: Serve, environment: Any) -> None:
    server = serve((MODELS,), (hold,))
    command = ("doctor", "--probe", "--retries", "0", "--idle-timeout", "0.2")
    probed = read(process.run(command, environment | reach(server)))
    assert (probed.status, set(probed.words.values())) == (7, {"unknown"})
    assert len(server.requests) == 2


def test_a_probe_ends_a_request_whose_token_limit_the_server_ignores(probe: Probe) -> None:
    tape = b'data: {"choices":[{"delta":{"content":"tea "}}]}\n\n' * 5000
    with Mock(Script(delay_s=0.0, tape=tape)) as mock:
        probed = probe(mock.url)
    assert probed.status == 8
    assert "streamed: the server ignored the limit of 1 token" in probed.details["limit_chat"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"<html>hi", 4),
        (b"hello", 4),
        (b'{"detail": "boom"}', 8),
        (b"[1, 2]", 8),
        (b"", 8),
        (b"data: {bad\n\n", 8),
        (b'data: {"error": {"message": "boom"}}\n\n', 8),
    ],
)
def test_a_response_that_is_not_an_answer_makes_every_check_unknown(
    serve: Serve, environment: Any, body: bytes, status: int
) -> None:
    server = serve((MODELS,), (http("200 OK", body),))
    probed = read(process.run(("doctor", "--probe", "--retries", "0"), environment | reach(server)))
    assert (probed.status, set(probed.words.values())) == (status, {"unknown"})
    assert "the probe got no answer to judge: " in probed.stderr
    assert len(server.requests) == 3


def test_max_time_ends_a_probe(serve: Serve, environment: Any) -> None:
    server = serve((MODELS,), (hold,))
    result = fair(process.run(("doctor", "--probe", "--max-time", "0.5"), environment | reach(server)))
    assert (result.status, result.stderr.count("timed out: the run took 0.5 s in all")) == (7, 1)


def test_an_unreachable_server_is_not_probed(smai: Smai) -> None:
    probed = read(smai("doctor", "--probe", "--base-url", "http://127.0.0.1:1/v1"))
    assert (probed.status, set(probed.words.values())) == (3, {"unknown"})
    assert probed.details["ends"] == "not checked, because tcp failed"


# The key, the form of the output, and the end of a run.


def test_the_key_goes_to_its_server_only(serve: Serve, environment: Any) -> None:
    other = serve(http("200 OK"))
    moved = http("307 Temporary Redirect", b"", f"Location: {other.url}/chat/completions")
    server = serve((MODELS,), (moved,))
    probed = read(process.run(("doctor", "--probe"), environment | reach(server)))
    assert (probed.status, other.requests) == (4, [])
    assert all(KEY.encode() in request.head for request in server.requests)


def test_json_has_one_object_for_each_check(smai: Smai, server: Server) -> None:
    mock = server(lies=frozenset({"limit"}))
    result = smai("doctor", "--probe", "--json", "--base-url", mock.url)
    objects = [json.loads(line) for line in result.stdout.splitlines()]
    found = {each["check"]: each for each in objects}
    assert [each["check"] for each in objects][-len(CHECKS) :] == CHECKS
    assert all(list(each) == ["check", "ok", "detail", "hint", "elapsed_s", "exit_status"] for each in objects)
    limit, verdict = found["limit_chat"], found["verdict"]
    assert (limit["ok"], limit["exit_status"], verdict["ok"], verdict["exit_status"]) == (False, 8, False, 8)
    assert verdict["hint"].splitlines() == RESPONSES_LINES


def test_api_without_probe_is_a_usage_error(smai: Smai) -> None:
    result = smai("doctor", "--mock", "--api", "chat")
    assert (result.status, result.stderr) == (2, "smai: --api without --probe; add --probe, or leave --api out\n")


def test_a_profile_without_a_model_is_not_probed(smai: Smai, server: Server, config: Callable[[str], Any]) -> None:
    mock = server()
    config(f'[profile.ollama]\nbase_url = "{mock.url}"\n')
    result = smai("doctor", "--probe", "-p", "ollama")
    assert (result.status, posts(mock)) == (2, [])
    assert "the profile ollama has no default model" in result.stderr


def test_ctrl_c_or_a_closed_stdout_ends_a_probe(serve: Serve, environment: Any) -> None:
    for end in ("signal", "reader"):
        seen = Checkpoint()
        server = serve((MODELS,), (seen,))
        command = [process.SMAI, "doctor", "--probe"]
        with subprocess.Popen(
            command, env=environment | reach(server), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as run:
            assert seen.begun.wait(20)
            assert run.stdout
            assert run.stderr
            if end == "signal":
                run.send_signal(signal.SIGINT)
            else:
                run.stdout.close()
            assert run.wait(20) == -(signal.SIGINT if end == "signal" else signal.SIGPIPE)
            assert run.stderr.read() == b""
        assert seen.gone.wait(20)


# The recorded endings of real servers.


def answer_of(api: str, name: str, *pieces: bytes, failure: SmaiError | None = None) -> ProbeAnswer:
    """Return what a probe records of a body that arrives in these pieces, as the answer to the request `name`."""

    def post(path: str, body: bytes) -> Pieces:
        assert path.startswith("/")
        assert body
        if failure:
            raise failure
        return Pieces(*pieces, is_framed=True)

    def retries(most: int) -> Retries:
        assert most >= 0
        return Retries(0, lambda _: None)

    settings = UserSettings(model="m", effort=None, accept=(), options={})
    return Prober(settings, post, {"chat": chat, "responses": responses}, retries).ask(name, api)


TAPES = [pytest.param(tape, id=tape.name) for tape in SERVER_TAPES if tape.http_status in (0, 9)]


@pytest.mark.parametrize("tape", TAPES)
def test_the_checks_judge_recorded_answers_correctly(tape: ServerTape) -> None:
    if tape.how == "well":
        assert judge_end([answer_of(tape.dialect, "ends", tape.bytes)]).is_good
    elif tape.how == "limit":
        assert reports_limit(answer_of(tape.dialect, "limit", tape.bytes)).is_good
    elif tape.name == "gcli2api-tool-call":
        finding = judge_tools([answer_of(tape.dialect, "tools", tape.bytes)])
        assert (finding.is_good, finding.detail) == (False, "a call arrives with stop, not with tool_calls")
    elif tape.how == "tool call":
        assert judge_tools([answer_of(tape.dialect, "tools", tape.bytes)]).is_good


@pytest.mark.parametrize(
    ("status", "body", "is_good"),
    [
        (404, b'{"error": {"code": "DeploymentNotFound", "message": "The API deployment does not exist."}}', True),
        (400, b'{"error": {"message": "The provided model identifier is invalid."}}', True),
        (404, b"404 page not found", False),
    ],
)
def test_an_error_for_an_unknown_model_has_to_mention_the_model(status: int, body: bytes, *, is_good: bool) -> None:
    failure = http_error(HttpAnswer(status, "", {}, body))
    assert judge_error([answer_of("chat", "errors", failure=failure)]).is_good is is_good


def test_a_stream_that_arrives_in_many_reads_counts_as_streamed() -> None:
    pieces = [event("tea ") for _ in range(10)]
    finding = judge_streaming([answer_of("chat", "streaming", *pieces, STOP, DONE)])
    assert finding.is_good
    assert finding.detail.startswith("10 deltas, ")
    assert "; 10% of the text in the first read" in finding.detail
    at_once = judge_streaming([answer_of("chat", "streaming", b"".join(pieces), STOP, DONE)])
    assert (at_once.is_good, at_once.detail.startswith("100% of the text in the first read")) == (None, True)


def test_every_request_is_part_of_a_check() -> None:
    assert {name for row in rows("chat") for name in row.requests} == set(REQUESTS)
