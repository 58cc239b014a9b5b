"""`smai serve` as a process: its first line, its options, its end, and that it leaks nothing."""

import contextlib
import http.client as http_client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import process
import pytest
from conftest import Config, Server, Smai
from gateways import QUESTION, Client, request
from rawserver import (
    CLOSE_HEAD,
    DONE,
    HEAD,
    HELLO,
    KEY,
    LAST_CHUNK,
    OK,
    PATIENCE_S,
    PLAIN_ANSWER,
    Checkpoint,
    RunningProcess,
    Serve,
    Step,
    chunk,
    error_body,
    event,
    hold,
    http,
    reach,
)

from smai_cli.mock.script import POEM

if TYPE_CHECKING:  # it takes a second, in every process that collects the tests
    import openai

pytestmark = pytest.mark.thorough

pytest_plugins = ["rawserver", "gateways"]

URL = re.compile(r"http://127\.0\.0\.1:(\d+)/#token=([\w-]{43})\n")
MESSAGES: "list[openai.types.chat.ChatCompletionMessageParam]" = [{"role": "user", "content": "Write a poem"}]


class Served(RunningProcess):
    """A running smai serve; `port` and `token` are from its first line."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        super().__init__(child)
        assert child.stdout
        line = child.stdout.readline().decode()
        found = URL.fullmatch(line)
        assert found, line
        self.port, self.token = int(found[1]), found[2]
        self.base_url = f"http://127.0.0.1:{self.port}/v1"

    def request(self, *arguments: object) -> bytes:
        """Return a request with the token of this run."""
        made: bytes = request(self.port, *arguments)  # type: ignore[arg-type]
        return re.sub(rb"Bearer tok-\w+", b"Bearer " + self.token.encode(), made)


Run = Callable[..., Served]


@pytest.fixture
def served(environment: dict[str, str]) -> Iterator[Run]:
    """`served("--mock")` runs smai serve; `env` is put into its environment."""
    with contextlib.ExitStack() as stack:

        def run(*arguments: str, env: dict[str, str] | None = None, before: tuple[str, ...] = ()) -> Served:
            child = subprocess.Popen(
                [*before, process.SMAI, "serve", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment | (env or {}),
                start_new_session=True,
            )
            started = RunningProcess(child)
            stack.callback(started.kill)
            return Served(child)

        yield run


def test_serve_prints_only_the_url(served: Run) -> None:
    run = served("--mock")
    with Client(run.port) as client:
        client.send(run.request("GET", "/", None))
        assert client.answer().status == 200
    run.child.send_signal(signal.SIGTERM)
    assert run.end() == process.Result(-signal.SIGTERM, b"", "")


def test_every_run_has_its_own_token(served: Run) -> None:
    one, other = served("--mock"), served("--mock")
    assert one.token != other.token
    with Client(other.port) as client:
        client.send(one.request().replace(str(one.port).encode(), str(other.port).encode()))
        assert client.answer().status == 401


def test_a_port_can_be_chosen_and_a_taken_port_is_reported(served: Run, smai: Smai) -> None:
    run = served("--mock")
    result = smai("serve", "--mock", "--port", run.port)
    assert result == (2, b"", f"smai: port {run.port}: Address already in use; choose another --port\n")
    run.child.kill()
    run.child.wait()
    assert served("--mock", "--port", str(run.port)).port == run.port


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_serve_listens_only_on_this_machine(served: Run) -> None:
    run = served("--mock")
    listening = [line.split()[1] for line in Path(f"/proc/{run.child.pid}/net/tcp").read_text().splitlines()[1:]]
    port = f":{run.port:04X}"
    # In the order of bytes of this machine (proc_pid_net(5)).
    own = f"{int.from_bytes(socket.inet_aton('127.0.0.1'), sys.byteorder):08X}"
    assert {one.removesuffix(port) for one in listening if one.endswith(port)} == {own}


def test_the_page_gets_the_model_and_the_system_text(served: Run, tmp_path: Path, config: Config) -> None:
    text = tmp_path / "system.txt"
    text.write_text("Be terse.\n</script>")
    run = served("--mock", "-m", "m-1", "-s", f"@{text}")
    with Client(run.port) as client:
        client.send(run.request("GET", "/config.json", None))
        settings = {"model": "m-1", "system": "Be terse.\n</script>", "server": "the test server"}
        assert json.loads(client.answer().body) == settings
    config('[profile.x]\nmodel = "m-2"\nsystem = "From the file."\n')
    run = served("--mock", "-p", "x")
    with Client(run.port) as client:
        client.send(run.request("GET", "/config.json", None))
        assert json.loads(client.answer().body)["model"] == "m-2"
        client.send(run.request("GET", "/config.json", None))
        assert json.loads(client.answer().body)["system"] == "From the file."
    run = served("--base-url", "http://127.0.0.1:9/v1?api-key=secret")
    with Client(run.port) as client:
        client.send(run.request("GET", "/config.json", None))
        assert json.loads(client.answer().body)["server"] == "127.0.0.1:9"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--mock", "--base-url", "http://x.test/v1"], "--mock and --base-url cannot be combined"),
        (["--port", "70000", "--mock"], "--port"),
        (["--mock", "--host", "0.0.0.0"], "--host"),
        ([], "no API key"),
        (["--mock", "-s", "@nothing-there"], "nothing-there"),
        (["--key-file", "-", "-s", "@-", "--base-url", "http://127.0.0.1:9/v1"], "both read stdin"),
    ],
)
def test_a_server_that_cannot_start_is_reported_in_one_line(smai: Smai, arguments: list[str], said: str) -> None:
    result = smai("serve", *arguments)
    assert (result.status, result.stdout) == (2, b"")
    (line,) = result.stderr.splitlines()
    assert line.startswith("smai: ")
    assert said in line


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "before",
    [
        pytest.param([], id="before-the-head"),
        pytest.param([OK], id="in-the-head"),
        pytest.param([HEAD, chunk(HELLO)], id="in-silence"),
    ],
)
def test_a_signal_ends_every_request_to_the_server_and_then_the_process(
    serve: Serve, served: Run, before: list[Step], signum: signal.Signals
) -> None:
    seens = [Checkpoint() for _ in range(3)]
    server = serve(*((*before, seen) for seen in seens))
    run = served(env=reach(server))
    streams = HELLO in b"".join(step for step in before if isinstance(step, bytes))
    with contextlib.ExitStack() as stack:
        for seen in seens:
            client = stack.enter_context(Client(run.port))
            client.send(run.request())
            assert seen.begun.wait(PATIENCE_S)
            response = client.begun() if streams else None
        run.child.send_signal(signum)
        assert run.end() == process.Result(-signum, b"", "")
        assert all(seen.gone.wait(PATIENCE_S) for seen in seens)
        if response:
            with pytest.raises(http_client.IncompleteRead):
                response.read()


def test_verbose_knows_how_many_answers_and_tokens_were_requested(serve: Serve, served: Run) -> None:
    response = {"type": "response.completed", "response": {"status": "completed", "usage": {"output_tokens": 5}}}
    ended = b"data: " + json.dumps(response).encode() + b"\n\n"
    server = serve(*[tuple(PLAIN_ANSWER)] * 2, *[(HEAD, chunk(ended), LAST_CHUNK)] * 2)
    run = served("-v", env=reach(server))
    ends = []
    for path, members in [
        ("/v1/chat/completions", {"n": 1}),
        ("/v1/chat/completions", {"n": 2}),
        ("/v1/responses", {"max_output_tokens": 6}),
        ("/v1/responses", {"max_output_tokens": 5}),
    ]:
        with Client(run.port) as client:
            client.send(run.request("POST", path, json.dumps(members).encode()))
            client.answer()
        ends.append(run.err_line().split()[-1])
    assert ends == ["complete", "incomplete"] * 2


@pytest.mark.parametrize(
    ("status", "reason", "end"),
    [("200 OK", "stop", "complete"), ("200 OK", "length", "incomplete"), ("201", "stop", "complete")],
)
def test_verbose_judges_an_answer_even_if_the_client_leaves_at_its_end_as_the_sdks_do(
    serve: Serve, served: Run, status: str, reason: str, end: str
) -> None:
    head = HEAD.replace(b"200 OK", status.encode())
    run = served("-v", env=reach(serve(head, *map(chunk, (HELLO, event("", reason), DONE)), hold)))
    with Client(run.port) as client:
        client.send(run.request())
        with client.begun() as response:
            while b"[DONE]" not in response.readline():
                pass
    assert run.err_line().endswith(f", {end}\n")


def test_verbose_prints_a_line_for_each_request_without_any_secret(serve: Serve, served: Run) -> None:
    seen = Checkpoint()
    unsaid = [HEAD, *map(chunk, (HELLO, DONE)), LAST_CHUNK]
    server = serve(
        tuple(PLAIN_ANSWER),
        (http("401 No", error_body(f"bad key {KEY}"), f"x-request-id: {KEY}"),),
        (HEAD, chunk(HELLO)),
        tuple(unsaid),
        (CLOSE_HEAD, HELLO),
        (http("200 OK", b"{}"),),
        (http("200 OK", b'{"data": []}'),),
        (HEAD, chunk(HELLO), seen),
    )
    run = served("-v", env=reach(server))
    sent = [
        *[run.request()] * 6,
        run.request("GET", "/v1/models", None),
        run.request("GET", f"/{run.token}/{KEY}\x1b[31m".replace("\x1b", "%1b"), None),
        run.request("GET", f"/?token={run.token}", None),
        b"\x00\x01\r\n\r\n",
    ]
    lines = []
    for one in sent:
        with Client(run.port) as client:
            client.send(one)
            client.answer("GET")
        lines.append(run.err_line())
    with Client(run.port) as client:
        client.send(run.request())
        assert client.begun().read1(1000) == HELLO
    lines.append(run.err_line())
    run.child.terminate()
    assert run.end().stderr == ""
    output = [re.sub(r"^smai: \d+\.\d{3} s: | in \d+\.\d{3} s", "", line.rstrip("\n")) for line in lines]
    assert output[0] == "POST /v1/chat/completions: 200, 373 bytes, complete"
    assert re.fullmatch(r"POST /v1/chat/completions: 401, \d+ bytes, refused", output[1])
    assert output[2].endswith(", 125 bytes, cut")
    for incomplete in output[3:6]:
        assert re.fullmatch(r"POST /v1/chat/completions: 200, \d+ bytes, incomplete", incomplete)
    assert output[6] == "GET /v1/models: 200, 12 bytes, sent"
    assert re.fullmatch(r"GET /\.\.\..*: 404, .*, refused", output[7])
    assert re.fullmatch(r"GET /: 200, \d+ bytes, sent", output[8])
    assert re.fullmatch(r"a request that cannot be read: 400, .*, refused", output[9])
    assert output[10] == "POST /v1/chat/completions: 200, 125 bytes, stopped by the client"
    assert run.token[:8] not in "".join(lines)
    assert KEY[:8] not in "".join(lines)


def test_other_clients_need_no_key_but_the_token(server: Server, served: Run, smai: Smai) -> None:
    import openai

    mock = server(require_key=KEY)
    run = served(env={"SMAI_BASE_URL": mock.url, "SMAI_API_KEY": KEY})
    with openai.OpenAI(base_url=run.base_url, api_key=run.token, max_retries=0) as sdk:
        with sdk.chat.completions.create(
            model="gpt-4.1", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        ) as stream:
            chunks = list(stream)
        assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == POEM
        assert chunks[-1].usage
        whole = sdk.chat.completions.create(model="gpt-4.1", messages=MESSAGES)
        assert whole.choices[0].message.content == POEM
        assert sdk.responses.create(model="o3-mini", input="hi").output_text == POEM
        with sdk.responses.stream(model="o3-mini", input="hi") as events:
            assert events.get_final_response().output_text == POEM
        assert "gpt-4.1" in {model.id for model in sdk.models.list()}
        stranger = sdk.with_options(api_key="sk-wrong")
        with pytest.raises(openai.AuthenticationError) as refused:
            stranger.models.list()
        assert refused.value.code == "invalid_api_key"
    curl = ["curl", "-sN", f"{run.base_url}/chat/completions", "-H", "Content-Type: application/json"]
    body = json.dumps({"model": "gpt-4.1", "messages": MESSAGES, "stream": True})
    done = subprocess.run(
        [*curl, "-H", f"Authorization: Bearer {run.token}", "-d", body], capture_output=True, check=True
    )
    lines = [line.removeprefix(b"data: ") for line in done.stdout.splitlines() if line.startswith(b"data: {")]
    assert "".join(json.loads(line)["choices"][0]["delta"].get("content", "") for line in lines) == POEM
    asked = smai("ask", "-n", "hi", env={"SMAI_BASE_URL": run.base_url, "SMAI_API_KEY": run.token})
    assert (asked.status, asked.stdout.decode()) == (0, POEM)
    assert {got.headers["authorization"] for got in mock.received} == {f"Bearer {KEY}"}
    assert run.token not in str(mock.received)


def test_curl_detects_a_cut_and_an_early_refusal(serve: Serve, served: Run, tmp_path: Path) -> None:
    run = served(env=reach(serve(HEAD, chunk(HELLO))))
    curl = ["curl", "-sN", f"{run.base_url}/chat/completions", "-H", f"Authorization: Bearer {run.token}"]
    curl += ["-H", "Content-Type: application/json", "--data-binary", QUESTION.decode()]
    for more, status in (([], 18), (["-0"], 56)):
        done = subprocess.run([*curl, *more], capture_output=True, check=False)
        assert (done.returncode, done.stdout) == (status, HELLO)
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(100 << 20)
    done = subprocess.run([*curl[:-1], f"@{huge}", "-w", "%{http_code}"], capture_output=True, check=False)
    assert done.stdout.endswith(b"413")


FETCH = """
const [url, token] = process.argv.slice(1);
const headers = {"Content-Type": "application/json", Authorization: `Bearer ${token}`};
fetch(url, {method: "POST", headers, body: JSON.stringify({stream: true})}).then(async (answer) => {
  let text = "";
  const reader = answer.body.getReader();
  try {
    for (;;) {
      const {value, done} = await reader.read();
      if (done) break;
      text += new TextDecoder().decode(value);
    }
    console.log(JSON.stringify(["ended", text]));
  } catch (error) {
    console.log(JSON.stringify(["cut", text]));
  }
});
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
def test_fetch_in_node_detects_a_cut(serve: Serve, served: Run) -> None:
    run = served(env=reach(serve((HEAD, chunk(HELLO)), tuple(PLAIN_ANSWER))))
    command = ["node", "-e", FETCH, f"{run.base_url}/chat/completions", run.token]
    ends = [json.loads(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(2)]
    assert ends[0] == ["cut", HELLO.decode()]
    assert ends[1][0] == "ended"


# Leftovers.


def count_resources(pid: int) -> tuple[int, int]:
    """Return the threads and the descriptors of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^Threads:\s+(\d+)", status, re.MULTILINE)
    assert found
    return int(found[1]), len(os.listdir(f"/proc/{pid}/fd"))


def resident_kib(pid: int) -> int:
    found = re.search(r"^VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1])


def wait_until_released(pid: int, most: tuple[int, int]) -> tuple[int, int]:
    """Wait until the process has at most `most` threads and descriptors; return their numbers."""
    waits = threading.Event()
    for _ in range(int(PATIENCE_S / 0.05)):
        now = count_resources(pid)
        if now[0] <= most[0] and now[1] <= most[1]:
            return now
        waits.wait(0.05)
    raise AssertionError(f"{count_resources(pid)} is more than {most}")


def ask_in_turn(run: Served, count: int) -> None:
    """Request this many answers; a third is stopped and a third is cut."""
    for at in range(count):
        with Client(run.port) as client:
            client.send(run.request())
            response = client.begun()
            if at % 3 == 0:
                assert response.read1(1000) == HELLO  # and leave
            elif at % 3 == 1:
                with pytest.raises(http_client.IncompleteRead):
                    response.read()
            else:
                response.read()


def serves_in_turn(serve: Serve, count: int) -> dict[str, str]:
    scripts = [(HEAD, chunk(HELLO), hold), (HEAD, chunk(HELLO)), tuple(PLAIN_ANSWER)]
    return reach(serve(*(scripts * (count // 3 + 1))))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_idle_connections_cannot_use_up_the_descriptors(serve: Serve, served: Run) -> None:
    run = served(env=reach(serve(*PLAIN_ANSWER)), before=("sh", "-c", 'ulimit -n 24; exec "$@"', "sh"))
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(Client(run.port))
        with Client(run.port) as client:
            client.send(run.request())
            answer = client.answer()
            assert (answer.status, answer.is_cut) == (200, False)


def test_100_answers_leak_no_thread_and_no_descriptor(serve: Serve, served: Run) -> None:
    run = served(env=serves_in_turn(serve, 105))
    before = count_resources(run.child.pid)
    ask_in_turn(run, 105)
    wait_until_released(run.child.pid, before)


@pytest.mark.nightly
@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_in_an_hour_of_answers(serve: Serve, served: Run) -> None:
    run = served(env=serves_in_turn(serve, 903))
    before = count_resources(run.child.pid)
    ask_in_turn(run, 300)
    wait_until_released(run.child.pid, before)
    kib = resident_kib(run.child.pid)
    ask_in_turn(run, 600)
    wait_until_released(run.child.pid, before)
    assert resident_kib(run.child.pid) < kib + 4096


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_size_of_an_answer(serve: Serve, served: Run) -> None:
    piece = chunk(b"x" * 65536)

    def much(connection: object) -> None:
        for _ in range(4000):
            connection.sendall(piece)  # type: ignore[attr-defined]

    run = served(env=reach(serve(HEAD, much, LAST_CHUNK)))
    with Client(run.port) as client:
        client.send(run.request())
        response = client.begun()
        first = len(response.read(1 << 20))
        kib = resident_kib(run.child.pid)
        total = first
        while piece_read := response.read(1 << 20):
            total += len(piece_read)
    assert total == 4000 * 65536
    assert resident_kib(run.child.pid) < kib + 8192
