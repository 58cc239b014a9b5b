"""`smai doctor`: each line is ok or the next step, and the status is that of the first failure."""

import contextlib
import datetime as dt
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import process
import pytest
import trustme
from conftest import Config, Server, Smai
from rawserver import KEY, Ask, RawServer, Request, Serve, certificates, error_body, fair, hold, http, reach

pytest_plugins = ["rawserver"]
pytestmark = pytest.mark.preloaded

NAMES = ["version", "configuration", "base_url", "key", "proxy", "ca", "dns", "tcp", "tls", "models", "model"]
LIST = http("200 OK", json.dumps({"object": "list", "data": [{"id": "gpt-4.1"}, {"id": "other"}]}).encode())
NOWHERE = "http://127.0.0.1:1/v1"


class Traced:
    """What a run of `smai doctor` told: `lines` by the name of the check, beside status and stderr."""

    def __init__(self, result: process.Result) -> None:
        self.status, self.stderr = result.status, result.stderr
        self.text = result.stdout.decode()
        found = [re.match(r"(ok|FAIL|-) +(\w+)", line) for line in self.text.splitlines()]
        assert [match[2] for match in found if match] == NAMES, self.text
        self.marks = {match[2]: match[1] for match in found if match}
        self.lines = dict(zip(NAMES, self.text.splitlines(), strict=True))

    @property
    def failed(self) -> list[str]:
        return [name for name, mark in self.marks.items() if mark == "FAIL"]

    @property
    def unchecked(self) -> list[str]:
        return [name for name, mark in self.marks.items() if mark == "-"]


Doctor = Callable[..., Traced]


@pytest.fixture
def doctor(environment: dict[str, str]) -> Doctor:
    """`doctor(server, "--retries", "0")` runs `smai doctor --retries 0` against `server`."""

    def run(server: RawServer | None, *flags: str, env: dict[str, str] | None = None) -> Traced:
        return Traced(fair(process.run(("doctor", *flags), environment | reach(server) | (env or {}))))

    return run


# What is told when all is well.


def test_every_check_of_the_test_server_is_ok(doctor: Doctor) -> None:
    told = doctor(None, "--mock")
    assert (told.status, told.stderr, told.failed, told.unchecked) == (0, "", [], ["ca", "tls"])
    assert re.search(r" smai \S+, Python 3\S+, requests \S+, urllib3 \S+, sseclient-py \S+, ", told.lines["version"])
    assert told.lines["models"].startswith("ok    models         status 200, 6 models, headers after 0.")
    assert re.search(r"  \d+\.\d{3} s$", told.lines["models"])
    assert told.lines["model"] == "ok    model          gpt-4.1, from default, is listed"


def test_json_has_the_same_fields_on_every_line(smai: Smai, server: Server) -> None:
    result = smai("doctor", "--json", "--base-url", server(status=401).url)
    checks = [json.loads(line) for line in result.stdout.splitlines()]
    assert (result.status, [check["check"] for check in checks]) == (5, NAMES)
    for check in checks:
        assert list(check) == ["check", "ok", "detail", "hint", "elapsed_s", "exit_status"]
        made = check["ok"] is not None
        assert check["exit_status"] == ({True: 0, False: 5}[check["ok"]] if made else None)
        assert isinstance(check["elapsed_s"], float) == made
    models = checks[NAMES.index("models")]
    assert (models["ok"], models["hint"]) == (False, "no key was sent; use --key-file or smai login")
    assert models["detail"].startswith("the server answered 401 Unauthorized: ")
    assert checks[-1]["detail"] == "not checked, because models failed"


def test_nothing_but_a_get_of_the_models_reaches_the_server(serve: Serve, doctor: Doctor) -> None:
    server = serve(LIST)
    told = doctor(server)
    assert (told.status, told.failed) == (0, [])
    assert told.lines["key"].startswith("ok    key            set, from SMAI_API_KEY")
    (request,) = server.requests
    assert request.head.startswith(b"GET /v1/models HTTP/1.1\r\n")
    assert KEY.encode() in request.head
    assert (request.body, server.connections) == (b"", 2)


def test_over_tls_the_certificate_is_told(serve: Serve, doctor: Doctor) -> None:
    told = doctor(serve(LIST, tls=certificates().context))
    assert (told.status, told.stderr, told.failed, told.unchecked) == (0, "", [], [])
    assert f"{certificates().ca_file}, from SSL_CERT_FILE, 1 certificate" in told.lines["ca"]
    assert re.search(r"TLSv1\.[23], certificate of 127\.0\.0\.1 by trustme.*, expires in \d+ days", told.lines["tls"])


def test_each_value_is_told_with_its_source(serve: Serve, doctor: Doctor, config: Config, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(KEY)
    key.chmod(0o600)
    url = serve(LIST).url
    path = config(f'model = "other"\n[profile.p]\nbase_url = "{url}"\nkey_file = "{key}"\n')
    told = doctor(None, "-p", "p")
    assert told.status == 0
    assert told.lines["configuration"] == f"ok    configuration  {path}, profile p"
    assert told.lines["base_url"] == f"ok    base_url       {url}, from {path} [profile.p]"
    assert f"set, from key_file ({path} [profile.p])" in told.lines["key"]
    assert f"other, from {path}, is listed" in told.lines["model"]


def test_a_model_that_is_not_listed_is_a_note_and_no_failure(serve: Serve, doctor: Doctor) -> None:
    told = doctor(serve(LIST), env={"SMAI_MODEL": "mine"})
    assert (told.status, told.stderr, told.failed) == (0, "", [])
    assert "ok    model          mine, from SMAI_MODEL, is not listed; smai models prints" in told.lines["model"]


def test_a_certificate_that_expires_soon_is_a_note(serve: Serve, doctor: Doctor, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(days=3, hours=1)
    authority.issue_cert("127.0.0.1", not_after=soon).configure_cert(context)
    told = doctor(serve(LIST, tls=context), env={"SSL_CERT_FILE": str(tmp_path / "ca.pem")})
    assert (told.status, told.failed) == (0, [])
    assert re.search(r"expires in 3 days \([\d-]+\); the server needs a new certificate soon", told.lines["tls"])


# What is told when it is not.


def test_no_key_is_2_and_the_way_to_the_server_is_checked_all_the_same(doctor: Doctor) -> None:
    # A proxy, so that no test goes to the real server.
    told = doctor(None, env={"HTTPS_PROXY": "http://127.0.0.1:1"})
    assert (told.status, told.failed) == (2, ["key", "tcp"])
    assert told.lines["key"].startswith('FAIL  key: no API key for https://api.smai.ai; run "smai login" or')
    assert told.lines["models"] == "-     models: not checked, because key failed"
    assert re.fullmatch(r"smai: \d of \d+ checks failed; run .smai login. or set SMAI_API_KEY; .*\n", told.stderr)


@pytest.mark.parametrize(
    ("script", "flags", "status", "words"),
    [
        ({"require_key": "sk-other"}, [], 5, "401 Unauthorized: Incorrect API key provided"),
        ({"status": 404}, [], 4, "(model_not_found) [request id req-mock]; check --base-url"),
        ({"status": 503}, ["--retries", "0"], 6, "503 Service Unavailable"),
        ({"status": 503, "retry_after": "0"}, ["--retries", "1"], 6, "503 Service Unavailable"),
    ],
)
def test_what_the_server_refuses_has_its_status(
    doctor: Doctor, server: Server, script: dict[str, Any], flags: list[str], status: int, words: str
) -> None:
    mock = server(**script)
    told = doctor(None, *flags, env={"SMAI_BASE_URL": mock.url, "SMAI_API_KEY": KEY})
    assert (told.status, told.failed) == (status, ["models"])
    assert words in told.lines["models"]
    assert told.stderr.splitlines()[-1].startswith("smai: 1 of 8 checks failed; ")
    assert {(request.method, request.path) for request in mock.received} == {("GET", "/v1/models")}


def test_something_else_than_a_list_is_4(serve: Serve, doctor: Doctor) -> None:
    told = doctor(serve(http("200 OK", b"<!doctype html>")))
    assert (told.status, told.failed) == (4, ["models"])
    assert told.lines["models"].endswith("something that is not a list of models; check --base-url")


def test_a_refused_port_is_3(doctor: Doctor) -> None:
    told = doctor(None, "--base-url", NOWHERE)
    assert (told.status, told.failed, told.unchecked) == (3, ["tcp"], ["ca", "tls", "models", "model"])
    what = "could not connect to 127.0.0.1 port 1: Connection refused"
    assert told.lines["tcp"] == f"FAIL  tcp: {what}; is the server running?"
    assert told.stderr == "smai: 1 of 7 checks failed; is the server running?\n"


@pytest.mark.parametrize("host", ["nosuch.invalid", f"{'a' * 63}.{'b' * 63}.invalid", "caf\u00e9.invalid"])
def test_a_name_that_nobody_knows_is_3(doctor: Doctor, host: str) -> None:
    told = doctor(None, "--base-url", f"https://{host}/v1")
    assert (told.status, told.failed) == (3, ["dns"])
    assert told.lines["dns"].startswith(f"FAIL  dns: could not resolve {host}: ")
    assert told.lines["tls"] == "-     tls: not checked, because dns failed"


def test_a_certificate_that_nobody_vouches_for_is_3(serve: Serve, doctor: Doctor) -> None:
    server = serve(LIST, tls=certificates().context)
    told = doctor(server, env={"SSL_CERT_FILE": ""})
    assert (told.status, told.failed, server.requests) == (3, ["tls"], [])
    assert "certificate verify failed" in told.lines["tls"]
    assert told.lines["tls"].endswith("; check --base-url, or name the CA in SSL_CERT_FILE")
    assert "from the package certifi" in told.lines["ca"]


def test_a_folder_of_certificates_is_taken_as_a_run_takes_it(serve: Serve, doctor: Doctor, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    certificate = Path(certificates().ca_file)
    (tmp_path / "ca.pem").write_bytes(certificate.read_bytes())
    subprocess.run(["openssl", "rehash", tmp_path], check=True, capture_output=True)
    told = doctor(serve(LIST, tls=certificates().context), env={"SSL_CERT_FILE": str(tmp_path)})
    assert (told.status, told.failed) == (0, [])


@pytest.mark.parametrize("content", [None, "nonsense"])
def test_a_bundle_that_cannot_be_used_is_2(serve: Serve, doctor: Doctor, tmp_path: Path, content: str | None) -> None:
    bundle = tmp_path / "ca.pem"
    if content:
        bundle.write_text(content)
    told = doctor(serve(LIST, tls=certificates().context), env={"SSL_CERT_FILE": str(bundle)})
    assert (told.status, told.failed, told.unchecked) == (2, ["ca"], ["tls", "models", "model"])
    assert told.lines["ca"].startswith(f"FAIL  ca: the CA bundle {bundle} cannot be ")
    assert told.lines["ca"].endswith("; check SSL_CERT_FILE")


def test_a_server_that_answers_a_handshake_in_http_is_named(doctor: Doctor, server: Server) -> None:
    told = doctor(None, "--base-url", server().url.replace("http:", "https:"))
    assert (told.status, told.failed) == (3, ["tls"])
    assert "TLS failed: the server does not speak TLS; did you mean http://127.0.0.1:" in told.lines["tls"]


def test_a_key_command_that_fails_is_2(serve: Serve, doctor: Doctor, config: Config) -> None:
    server = serve(LIST)
    path = config(f'base_url = "{server.url}"\nkey_command = "false"\n')
    told = doctor(None)
    assert (told.status, told.failed, told.unchecked) == (2, ["key"], ["ca", "tls", "models", "model"])
    assert told.lines["key"] == f"FAIL  key: key_command failed: exit status 1; check {path}"
    assert server.requests == []


def test_a_key_never_goes_over_plain_http(doctor: Doctor) -> None:
    env = {"SMAI_BASE_URL": "http://host.invalid/v1", "SMAI_API_KEY": KEY}
    told = doctor(None, env=env)
    assert (told.status, told.failed) == (2, ["key", "dns"])
    assert "a key never goes over plain http to host.invalid; use https" in told.lines["key"]
    assert told.stderr.startswith("smai: 2 of 6 checks failed; use https, ")


def test_a_broken_configuration_is_2_and_hides_only_what_it_could_say(
    serve: Serve, doctor: Doctor, config: Config
) -> None:
    path = config("modle = 1\n")
    told = doctor(None)
    assert (told.status, told.failed, told.unchecked) == (2, ["configuration"], NAMES[2:])
    assert told.lines["configuration"].startswith(f"FAIL  configuration: {path}: unknown key modle; ")
    assert told.lines["models"] == "-     models: not checked, because configuration failed"
    told = doctor(serve(LIST))
    assert (told.status, told.failed, told.unchecked) == (2, ["configuration"], ["ca", "tls", "model"])


def test_a_profile_that_does_not_exist_and_a_bad_base_url_are_2(doctor: Doctor) -> None:
    told = doctor(None, "-p", "nope", "--base-url", "localhost:1")
    assert (told.status, told.failed) == (2, ["configuration", "base_url"])
    assert told.unchecked == NAMES[3:]
    assert told.stderr.startswith('smai: 2 of 3 checks failed; "smai config --profiles" lists the profiles')


# Proxies.


def test_through_a_proxy_the_way_ends_at_the_proxy(serve: Serve, doctor: Doctor) -> None:
    proxy = serve(LIST)
    port = proxy.url.rsplit(":", 1)[1].removesuffix("/v1")
    env = {"http_proxy": f"http://joe:secret@127.0.0.1:{port}"}
    told = doctor(None, "--base-url", "http://example.invalid/v1", env=env)
    assert (told.status, told.stderr, told.failed, told.unchecked) == (0, "", [], ["ca", "tls"])
    assert told.lines["proxy"].endswith(
        f"127.0.0.1 port {port}, from http_proxy; dns, tcp and tls check only the proxy"
    )
    assert "the proxy 127.0.0.1 is an address" in told.lines["dns"]
    assert f"127.0.0.1 port {port} of the proxy" in told.lines["tcp"]
    assert "secret" not in told.text
    (request,) = proxy.requests
    assert request.head.startswith(b"GET http://example.invalid/v1/models HTTP/1.1\r\n")


def test_a_proxy_that_refuses_the_tunnel_is_3(serve: Serve, doctor: Doctor) -> None:
    def reads_connect(connection: socket.socket) -> Request:
        return Request(connection.recv(65536), b"", 0)

    proxy = serve(http("407 Proxy Authentication Required"), reads=reads_connect)
    told = doctor(
        None,
        "--base-url",
        "https://example.invalid/v1",
        "--retries",
        "0",
        env={"https_proxy": proxy.url.removesuffix("/v1")},
    )
    assert (told.status, told.failed, told.unchecked) == (3, ["models"], ["tls", "model"])
    assert "could not connect through the proxy " in told.lines["models"]


@pytest.mark.parametrize(
    ("proxy", "failed", "words"),
    [
        ("http://joe:secret@127.0.0.1:1", "tcp", "could not connect to the proxy 127.0.0.1 port 1: Connection refused"),
        ("joe:secret@nosuch.invalid:1", "dns", "could not resolve the proxy nosuch.invalid: "),
        ("http://joe:secret@127.0.0.1:99999", "proxy", "the proxy is not a URL that smai can use"),
        ("nonsense://joe:secret@127.0.0.1", "proxy", "the proxy is not a URL that smai can use"),
        (
            "socks5://joe:secret@127.0.0.1",
            "proxy",
            f"SOCKS proxy needs PySocks; {sys.executable} -m pip install PySocks",
        ),
    ],
)
def test_a_proxy_that_does_not_answer_or_cannot_be_used_is_3(
    doctor: Doctor, tmp_path: Path, proxy: str, failed: str, words: str
) -> None:
    # As if PySocks were not installed.
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['socks'] = None")
    env = {"ALL_PROXY": proxy, "PYTHONPATH": str(tmp_path)}
    told = doctor(None, "--base-url", "https://example.invalid/v1", env=env)
    assert (told.status, told.failed) == (3, [failed])
    assert words in told.lines[failed]
    assert "secret" not in told.text + told.stderr


def test_a_server_on_this_machine_and_one_in_no_proxy_are_asked_past_it(serve: Serve, doctor: Doctor) -> None:
    dead = dict.fromkeys(("http_proxy", "ALL_PROXY"), "http://127.0.0.1:1")
    told = doctor(serve(LIST), env=dead)
    assert (told.status, told.failed) == (0, [])
    assert told.lines["proxy"].endswith("none, because a server on this machine is contacted directly")
    told = doctor(None, "--base-url", "http://a.invalid/v1", env={**dead, "NO_PROXY": "invalid"})
    assert told.lines["proxy"].endswith("none for this server, although the environment names one")
    assert told.lines["dns"].startswith("FAIL  dns: could not resolve a.invalid: ")


# The clocks: each would wait for longer than the process may run.


def test_a_server_that_does_not_answer_is_7(serve: Serve, doctor: Doctor) -> None:
    told = doctor(serve(hold), "--idle-timeout", "0.5")
    assert (told.status, told.failed) == (7, ["models"])
    assert "timed out: no answer began within 0.5 s; raise --idle-timeout" in told.lines["models"]


def test_a_handshake_that_never_ends_is_7(serve: Serve, doctor: Doctor) -> None:
    def dribbles(connection: socket.socket) -> Request:
        while connection.recv(65536):  # the head of a record of the handshake, and never the rest
            connection.sendall(b"\x16\x03\x03\x40\x00")
        raise ConnectionResetError

    url = serve(hold, reads=dribbles).url.replace("http:", "https:")
    told = doctor(None, "--base-url", url, "--connect-timeout", "0.5")
    assert (told.status, told.failed) == (7, ["tls"])
    assert "timed out: 127.0.0.1 did not finish the TLS handshake within 0.5 s; " in told.lines["tls"]


@pytest.fixture
def deaf_url() -> Iterator[str]:
    """The base URL of a port at which connections are neither taken nor refused: its queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1))
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


def test_a_port_that_swallows_connections_is_7(doctor: Doctor, deaf_url: str) -> None:
    told = doctor(None, "--base-url", deaf_url, "--connect-timeout", "0.5")
    assert (told.status, told.failed) == (7, ["tcp"])
    assert re.search(r"timed out: 127\.0\.0\.1 port \d+ did not answer within 0\.5 s; ", told.lines["tcp"])


def test_a_name_server_that_does_not_answer_is_7(doctor: Doctor, tmp_path: Path) -> None:
    # The machine's own name server is not a test's to silence: one that sleeps stands in for it.
    (tmp_path / "sitecustomize.py").write_text(
        "import socket, time\nsocket.getaddrinfo = lambda *_, **__: time.sleep(60)\n"
    )
    env = {"PYTHONPATH": str(tmp_path)}
    told = doctor(None, "--base-url", "http://host.example/v1", "--connect-timeout", "0.5", env=env)
    assert (told.status, told.failed) == (7, ["dns"])
    assert "timed out: no name server answered for host.example within 0.5 s; " in told.lines["dns"]


@pytest.mark.thorough
@pytest.mark.parametrize("connect_s", ["0", "10"])
def test_max_time_ends_the_whole_of_it(serve: Serve, doctor: Doctor, connect_s: str) -> None:
    told = doctor(serve(hold), "--max-time", "4", "--connect-timeout", connect_s)
    assert (told.status, told.failed) == (7, ["models"])
    assert "timed out: the run took 4 s in all" in told.lines["models"]
    url = serve(hold, reads=lambda connection: Request(connection.recv(1, socket.MSG_PEEK), b"", 0)).url
    told = doctor(
        None,
        "--base-url",
        url.replace("http:", "https:"),
        "--max-time",
        "4",
        "--connect-timeout",
        connect_s,
    )
    assert (told.status, told.failed) == (7, ["tls"])
    assert "timed out: the run took 4 s in all" in told.lines["tls"]


def test_the_first_address_that_answers_is_taken_and_the_others_are_told(
    serve: Serve, doctor: Doctor, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import socket\nreal = socket.getaddrinfo\n"
        "def both(host, port, *more, **named):\n"
        "    return [(2, 1, 6, '', ('127.0.0.2', 1)), *real('127.0.0.1', port, *more, **named)]\n"
        "socket.getaddrinfo = both\n"
    )
    url = serve(LIST).url.replace("127.0.0.1", "localhost")
    told = doctor(None, "--base-url", url, env={"PYTHONPATH": str(tmp_path)})
    assert told.status == 0
    assert "localhost: 127.0.0.2, 127.0.0.1" in told.lines["dns"]
    assert re.search(r"127\.0\.0\.1 port \d+; before it 127\.0\.0\.2: Connection refused", told.lines["tcp"])


# What a shell sees.


def test_it_needs_no_home_no_locale_and_no_stdin(serve: Serve, tmp_path: Path) -> None:
    env = reach(serve(LIST))
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {process.SMAI} doctor <&-"], env=env, cwd=tmp_path, capture_output=True, check=False
    )
    told = Traced(process.Result(done.returncode, done.stdout, done.stderr.decode()))
    assert (told.status, told.stderr, told.failed) == (0, "", [])
    assert told.lines["configuration"] == "ok    configuration  none: there is no home directory"
    assert os.listdir(tmp_path) == []


def test_stdin_is_left_alone(sh: Ask) -> None:
    result = sh(None, "printf 'a line\\n' | (smai doctor --mock > /dev/null; cat)")
    assert result == (0, b"a line\n", "")


def test_a_line_is_there_before_the_next_check_is_made(serve: Serve, sh: Ask) -> None:
    result = sh(serve(hold), "smai doctor | head -n 3; echo ${PIPESTATUS[0]}")
    assert result.stdout.splitlines()[-1] == b"141"
    assert (len(result.stdout.splitlines()), result.stderr) == (4, "")


def test_a_full_disk_is_11(sh: Ask) -> None:
    result = sh(None, "smai doctor --mock > /dev/full")
    assert (result.status, result.stdout) == (11, b"")
    assert result.stderr.startswith("smai: stdout: No space left on device; ")


@pytest.mark.parametrize(
    "answer",
    [
        http("401 Unauthorized", error_body(f"no such key {KEY}"), f"x-request-id: {KEY}"),
        http("302 Found", b"", f"Location: https://x.example/{KEY}"),
        http("503 Busy", error_body(f"{KEY} waits")),
        http("200 OK", f'{{"{KEY}": '.encode()),
    ],
)
@pytest.mark.parametrize("form", ["--retries", "--json"])
def test_a_server_that_repeats_the_key_does_not_bring_it_into_a_line(
    serve: Serve, environment: dict[str, str], answer: bytes, form: str
) -> None:
    flags = ["--retries", "1"] if form == "--retries" else ["--json", "--retries", "0"]
    result = process.run(("doctor", *flags), environment | reach(serve(answer)) | {"SMAI_MODEL": KEY})
    assert fair(result).status > 0  # fair() looks for the key
    assert "..." in result.stdout.decode()


def test_a_model_that_is_named_like_the_key_is_not_shown(serve: Serve, doctor: Doctor) -> None:
    assert "... from SMAI_MODEL" in doctor(serve(LIST), env={"SMAI_MODEL": KEY}).lines["model"].replace("...,", "...")


@pytest.mark.parametrize("flags", [["--mock", "--base-url", NOWHERE], ["--max-time", "x"], ["all"]])
def test_a_command_line_that_cannot_be_used_is_2_and_checks_nothing(smai: Smai, flags: list[str]) -> None:
    result = smai("doctor", *flags)
    assert (result.status, result.stdout, result.stderr.count("\n")) == (2, b"", 1)
