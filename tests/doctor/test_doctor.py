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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import process
import pytest
import trustme
from conftest import Config, Server, Smai
from process import PYTHON
from rawserver import KEY, Ask, RawServer, Request, Serve, certificates, error_body, fair, hold, http, reach, reads_once

pytest_plugins = ["rawserver"]
pytestmark = pytest.mark.preloaded

NAMES = ["version", "configuration", "base_url", "key", "proxy", "ca", "dns", "tcp", "tls", "models", "model"]
LIST = http("200 OK", json.dumps({"object": "list", "data": [{"id": "gpt-4.1"}, {"id": "other"}]}).encode())
NOWHERE = "http://127.0.0.1:1/v1"


class Report:
    """The output of `smai doctor`: `lines` by the name of the check, with the exit status and stderr."""

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


Doctor = Callable[..., Report]


@pytest.fixture
def doctor(environment: dict[str, str]) -> Doctor:
    """`doctor(server, "--retries", "0")` runs `smai doctor --retries 0` against `server`."""

    def run(server: RawServer | None, *flags: str, env: dict[str, str] | None = None) -> Report:
        return Report(fair(process.run(("doctor", *flags), environment | reach(server) | (env or {}))))

    return run


# The output when all checks succeed.


def test_every_check_of_the_test_server_is_ok(doctor: Doctor) -> None:
    report = doctor(None, "--mock")
    assert (report.status, report.stderr, report.failed, report.unchecked) == (0, "", [], ["ca", "tls"])
    assert re.search(r" smai \S+, Python 3\S+, requests \S+, urllib3 \S+, sseclient-py \S+, ", report.lines["version"])
    assert report.lines["models"].startswith("ok    models         status 200, 6 models, headers after 0.")
    assert re.search(r"  \d+\.\d{3} s$", report.lines["models"])
    assert report.lines["model"] == "ok    model          gpt-4.1, the default, is listed"


def test_json_has_the_same_fields_on_every_line(smai: Smai, server: Server) -> None:
    url = server(status=401).url
    result = smai("doctor", "--json", "--base-url", url)
    checks = [json.loads(line) for line in result.stdout.splitlines()]
    assert (result.status, [check["check"] for check in checks]) == (5, NAMES)
    for check in checks:
        assert list(check) == ["check", "ok", "detail", "hint", "elapsed_s", "exit_status"]
        made = check["ok"] is not None
        assert check["exit_status"] == ({True: 0, False: 5}[check["ok"]] if made else None)
        assert isinstance(check["elapsed_s"], float) == made
    models = checks[NAMES.index("models")]
    hint = f'no key was sent; use --key-file or "smai login --base-url {url}"'
    assert (models["ok"], models["hint"]) == (False, hint)
    assert models["detail"].startswith("the server answered 401 Unauthorized: ")
    assert checks[-1]["detail"] == "not checked, because models failed"


@pytest.mark.parametrize("is_public", [False, True])
def test_the_server_receives_only_requests_for_the_models_with_and_without_the_key(
    serve: Serve, doctor: Doctor, *, is_public: bool
) -> None:
    server = serve((LIST,), (LIST if is_public else http("401 Unauthorized", error_body("no key")),))
    report = doctor(server)
    assert (report.status, report.failed) == (0, [])
    assert report.lines["key"].startswith("ok    key            set, from SMAI_API_KEY")
    doubt = "; the key is unchecked: the server lists its models without a key too"
    assert (doubt in report.lines["models"]) is is_public
    assert all(request.head.startswith(b"GET /v1/models HTTP/1.1\r\n") for request in server.requests)
    assert [KEY.encode() in request.head for request in server.requests] == [True, False]
    assert ({request.body for request in server.requests}, server.connections) == ({b""}, 3)


def test_the_certificate_of_a_tls_server_is_described(serve: Serve, doctor: Doctor) -> None:
    report = doctor(serve(LIST, tls=certificates().context))
    assert (report.status, report.stderr, report.failed, report.unchecked) == (0, "", [], [])
    assert f"{certificates().ca_file}, from SSL_CERT_FILE, 1 certificate" in report.lines["ca"]
    assert re.search(r"TLSv1\.[23], certificate of 127\.0\.0\.1 by trustme.*, expires in \d+ days", report.lines["tls"])


def test_each_value_is_printed_with_its_source(serve: Serve, doctor: Doctor, config: Config, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(KEY)
    key.chmod(0o600)
    url = serve(LIST).url
    path = config(f'model = "other"\n[profile.p]\nbase_url = "{url}"\nkey_file = "{key}"\n')
    report = doctor(None, "-p", "p")
    assert report.status == 0
    assert report.lines["configuration"] == f"ok    configuration  {path}, profile p"
    assert report.lines["base_url"] == f"ok    base_url       {url}, from {path} [profile.p]"
    assert f"set, from key_file ({path} [profile.p])" in report.lines["key"]
    assert f"other, from {path}, is listed" in report.lines["model"]


def test_a_model_that_is_not_listed_is_a_note_and_not_a_failure(serve: Serve, doctor: Doctor) -> None:
    report = doctor(serve(LIST), env={"SMAI_MODEL": "mine"})
    assert (report.status, report.stderr, report.failed) == (0, "", [])
    assert "ok    model          mine, from SMAI_MODEL, is not listed; smai models lists" in report.lines["model"]


@pytest.mark.parametrize("listed", ["llama3.2:latest", "models/llama3.2"], ids=["Ollama", "Gemini"])
def test_a_model_is_listed_under_a_longer_name(serve: Serve, doctor: Doctor, listed: str) -> None:
    models = http("200 OK", json.dumps({"data": [{"id": listed}]}).encode())
    assert "llama3.2, from -m/--model, is listed" in doctor(serve(models), "-m", "llama3.2").lines["model"]


def test_a_certificate_that_expires_soon_is_a_note(serve: Serve, doctor: Doctor, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(days=3, hours=1)
    authority.issue_cert("127.0.0.1", not_after=soon).configure_cert(context)
    report = doctor(serve(LIST, tls=context), env={"SSL_CERT_FILE": str(tmp_path / "ca.pem")})
    assert (report.status, report.failed) == (0, [])
    assert re.search(r"expires in 3 days \([\d-]+\); the server needs a new certificate soon", report.lines["tls"])


# The output when a check fails.


def test_a_missing_key_is_status_2_and_the_connection_is_still_checked(doctor: Doctor) -> None:
    # A proxy, so that no test goes to the real server.
    report = doctor(None, env={"HTTPS_PROXY": "http://127.0.0.1:1"})
    assert (report.status, report.failed) == (2, ["key", "tcp"])
    assert report.lines["key"].startswith('FAIL  key: no API key for https://api.smai.ai; run "smai login" or')
    assert report.lines["models"] == "-     models: not checked, because key failed"
    assert re.fullmatch(r"smai: \d of \d+ checks failed; run .smai login. or set SMAI_API_KEY; .*\n", report.stderr)


@pytest.mark.parametrize(
    ("script", "flags", "status", "words"),
    [
        ({"require_key": "sk-other"}, [], 5, "401 Unauthorized: Incorrect API key provided"),
        ({"status": 404}, [], 4, "(model_not_found) [request id req-mock]; check --base-url"),
        ({"status": 503}, ["--retries", "0"], 6, "503 Service Unavailable"),
        ({"status": 503, "retry_after": "0"}, ["--retries", "1"], 6, "503 Service Unavailable"),
        ({"flaky": (("cut", 1.0),)}, ["--retries", "0"], 8, "it was cut, or is malformed HTTP; try again"),
    ],
)
def test_a_refused_request_has_the_exit_status_of_its_cause(
    doctor: Doctor, server: Server, script: dict[str, Any], flags: list[str], status: int, words: str
) -> None:
    mock = server(**script)
    report = doctor(None, *flags, env={"SMAI_BASE_URL": mock.url, "SMAI_API_KEY": KEY})
    assert (report.status, report.failed) == (status, ["models"])
    assert words in report.lines["models"]
    assert report.stderr.splitlines()[-1].startswith("smai: 1 of 8 checks failed; ")
    assert {(request.method, request.path) for request in mock.received} == {("GET", "/v1/models")}


def test_an_answer_that_is_not_a_list_of_models_is_status_4(serve: Serve, doctor: Doctor) -> None:
    report = doctor(serve(http("200 OK", b"<!doctype html>")))
    assert (report.status, report.failed) == (4, ["models"])
    assert report.lines["models"].endswith("something that is not a list of models; check --base-url")


def test_a_refused_connection_is_status_3(doctor: Doctor) -> None:
    report = doctor(None, "--base-url", NOWHERE)
    assert (report.status, report.failed, report.unchecked) == (3, ["tcp"], ["ca", "tls", "models", "model"])
    what = "could not connect to 127.0.0.1 port 1: Connection refused"
    assert report.lines["tcp"] == f"FAIL  tcp: {what}; is the server running?"
    assert report.stderr == "smai: 1 of 7 checks failed; is the server running?\n"


@pytest.mark.parametrize("host", ["nosuch.invalid", f"{'a' * 63}.{'b' * 63}.invalid", "caf\u00e9.invalid"])
def test_an_unknown_host_name_is_status_3(doctor: Doctor, host: str) -> None:
    report = doctor(None, "--base-url", f"https://{host}/v1")
    assert (report.status, report.failed) == (3, ["dns"])
    assert report.lines["dns"].startswith(f"FAIL  dns: could not resolve {host}: ")
    assert report.lines["tls"] == "-     tls: not checked, because dns failed"


def test_an_untrusted_certificate_is_status_3(serve: Serve, doctor: Doctor) -> None:
    server = serve(LIST, tls=certificates().context)
    report = doctor(server, env={"SSL_CERT_FILE": ""})
    assert (report.status, report.failed, server.requests) == (3, ["tls"], [])
    assert "certificate verify failed" in report.lines["tls"]
    assert report.lines["tls"].endswith("; check --base-url, or name the CA in SSL_CERT_FILE")
    assert "from the package certifi" in report.lines["ca"]


@pytest.mark.parametrize(
    ("name", "years", "words"),
    [
        (
            "127.0.0.1",
            (2020, 2021),
            "has expired; check the clock of this machine, or ask whoever runs the server for a new",
        ),
        (
            "127.0.0.1",
            (9998, 9999),
            "is not yet valid; check the clock of this machine, or ask whoever runs the server",
        ),
        ("other.test", (2020, 9999), "certificate is not valid for '127.0.0.1'; check --base-url"),
    ],
)
def test_the_advice_fits_what_is_wrong_with_a_certificate(
    serve: Serve, doctor: Doctor, tmp_path: Path, name: str, years: tuple[int, int], words: str
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    begin, end = (dt.datetime(year, 1, 1, tzinfo=dt.UTC) for year in years)
    authority.issue_cert(name, not_before=begin, not_after=end).configure_cert(context)
    report = doctor(serve(LIST, tls=context), env={"SSL_CERT_FILE": str(tmp_path / "ca.pem")})
    assert (report.status, report.failed) == (3, ["tls"])
    assert words in report.lines["tls"]


def test_ssl_cert_file_may_be_a_folder_of_certificates(serve: Serve, doctor: Doctor, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    certificate = Path(certificates().ca_file)
    (tmp_path / "ca.pem").write_bytes(certificate.read_bytes())
    subprocess.run(["openssl", "rehash", tmp_path], check=True, capture_output=True)
    report = doctor(serve(LIST, tls=certificates().context), env={"SSL_CERT_FILE": str(tmp_path)})
    assert (report.status, report.failed) == (0, [])


@pytest.mark.parametrize("content", [None, "nonsense"])
def test_an_unusable_ca_bundle_is_status_2(serve: Serve, doctor: Doctor, tmp_path: Path, content: str | None) -> None:
    bundle = tmp_path / "ca.pem"
    if content:
        bundle.write_text(content)
    report = doctor(serve(LIST, tls=certificates().context), env={"SSL_CERT_FILE": str(bundle)})
    assert (report.status, report.failed, report.unchecked) == (2, ["ca"], ["tls", "models", "model"])
    assert report.lines["ca"].startswith(f"FAIL  ca: the CA bundle {bundle} cannot be ")
    assert report.lines["ca"].endswith("; check SSL_CERT_FILE")


def test_a_server_that_answers_a_tls_handshake_with_http_is_reported(doctor: Doctor, server: Server) -> None:
    url = server().url
    report = doctor(None, "--base-url", url.replace("http:", "https:"))
    assert (report.status, report.failed) == (3, ["tls"])
    assert f"TLS failed: the server does not speak TLS; did you mean {url}?" in report.lines["tls"]


def test_a_failing_key_command_is_status_2(serve: Serve, doctor: Doctor, config: Config) -> None:
    server = serve(LIST)
    path = config(f'base_url = "{server.url}"\nkey_command = "false"\n')
    report = doctor(None)
    assert (report.status, report.failed, report.unchecked) == (2, ["key"], ["ca", "tls", "models", "model"])
    assert report.lines["key"] == f"FAIL  key: key_command failed: exit status 1; check {path}"
    assert server.requests == []


def test_a_key_never_goes_over_plain_http(doctor: Doctor) -> None:
    env = {"SMAI_BASE_URL": "http://host.invalid/v1", "SMAI_API_KEY": KEY}
    report = doctor(None, env=env)
    assert (report.status, report.failed) == (2, ["key", "dns"])
    assert "a key never goes over plain http to host.invalid; use https" in report.lines["key"]
    assert report.stderr.startswith("smai: 2 of 6 checks failed; use https, ")


def test_a_broken_configuration_is_status_2_and_skips_only_checks_that_depend_on_it(
    serve: Serve, doctor: Doctor, config: Config
) -> None:
    path = config("modle = 1\n")
    report = doctor(None)
    assert (report.status, report.failed, report.unchecked) == (2, ["configuration"], NAMES[2:])
    assert report.lines["configuration"].startswith(f"FAIL  configuration: {path}: unknown key modle; ")
    assert report.lines["models"] == "-     models: not checked, because configuration failed"
    report = doctor(serve(LIST))
    assert (report.status, report.failed, report.unchecked) == (2, ["configuration"], ["ca", "tls", "model"])


def test_an_unknown_profile_or_an_invalid_base_url_is_status_2(doctor: Doctor) -> None:
    report = doctor(None, "-p", "nope", "--base-url", "localhost:1")
    assert (report.status, report.failed) == (2, ["configuration", "base_url"])
    assert report.unchecked == NAMES[3:]
    assert report.stderr.startswith('smai: 2 of 3 checks failed; "smai config --profiles" lists the profiles')


# Proxies.


def test_with_a_proxy_only_the_connection_to_the_proxy_is_checked(serve: Serve, doctor: Doctor) -> None:
    proxy = serve(LIST)
    port = proxy.url.rsplit(":", 1)[1].removesuffix("/v1")
    env = {"http_proxy": f"http://joe:secret@127.0.0.1:{port}"}
    report = doctor(None, "--base-url", "http://example.invalid/v1", env=env)
    assert (report.status, report.stderr, report.failed, report.unchecked) == (0, "", [], ["ca", "tls"])
    assert report.lines["proxy"].endswith(
        f"127.0.0.1 port {port}, from http_proxy; dns, tcp and tls check only the proxy"
    )
    assert "the proxy 127.0.0.1 is an address" in report.lines["dns"]
    assert f"127.0.0.1 port {port} of the proxy" in report.lines["tcp"]
    assert "secret" not in report.text
    (request,) = proxy.requests
    assert request.head.startswith(b"GET http://example.invalid/v1/models HTTP/1.1\r\n")


def test_a_proxy_that_refuses_the_tunnel_is_status_3(serve: Serve, doctor: Doctor) -> None:
    proxy = serve(http("407 Proxy Authentication Required"), reads=reads_once)
    report = doctor(
        None,
        "--base-url",
        "https://example.invalid/v1",
        "--retries",
        "0",
        env={"https_proxy": proxy.url.removesuffix("/v1")},
    )
    assert (report.status, report.failed, report.unchecked) == (3, ["models"], ["tls", "model"])
    assert "could not connect through the proxy " in report.lines["models"]


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
            f"SOCKS proxy needs PySocks; {PYTHON} -m pip install PySocks",
        ),
    ],
)
def test_an_unreachable_or_invalid_proxy_is_status_3(
    doctor: Doctor, tmp_path: Path, proxy: str, failed: str, words: str
) -> None:
    # As if PySocks were not installed.
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['socks'] = None")
    env = {"ALL_PROXY": proxy, "PYTHONPATH": str(tmp_path)}
    report = doctor(None, "--base-url", "https://example.invalid/v1", env=env)
    assert (report.status, report.failed) == (3, [failed])
    assert words in report.lines[failed]
    assert "secret" not in report.text + report.stderr


def test_the_proxy_is_not_used_for_loopback_or_hosts_in_no_proxy(serve: Serve, doctor: Doctor) -> None:
    dead = dict.fromkeys(("http_proxy", "ALL_PROXY"), "http://127.0.0.1:1")
    report = doctor(serve(LIST), env=dead)
    assert (report.status, report.failed) == (0, [])
    assert report.lines["proxy"].endswith("none, because a server on this machine is contacted directly")
    report = doctor(None, "--base-url", "http://a.invalid/v1", env={**dead, "NO_PROXY": "invalid"})
    assert report.lines["proxy"].endswith("none for this server, although the environment names one")
    assert report.lines["dns"].startswith("FAIL  dns: could not resolve a.invalid: ")


# The clocks: each would wait for longer than the process may run.


def test_a_server_that_does_not_answer_is_status_7(serve: Serve, doctor: Doctor) -> None:
    report = doctor(serve(hold), "--idle-timeout", "0.5")
    assert (report.status, report.failed) == (7, ["models"])
    assert "timed out: no answer began within 0.5 s; raise --idle-timeout" in report.lines["models"]


def test_a_handshake_that_never_ends_is_status_7(serve: Serve, doctor: Doctor) -> None:
    def dribbles(connection: socket.socket) -> Request:
        while connection.recv(65536):  # the head of a record of the handshake, and never the rest
            connection.sendall(b"\x16\x03\x03\x40\x00")
        raise ConnectionResetError

    url = serve(hold, reads=dribbles).url.replace("http:", "https:")
    report = doctor(None, "--base-url", url, "--connect-timeout", "0.5")
    assert (report.status, report.failed) == (7, ["tls"])
    assert "timed out: 127.0.0.1 did not finish the TLS handshake within 0.5 s; " in report.lines["tls"]


@pytest.fixture
def unresponsive_url() -> Iterator[str]:
    """The base URL of a port that neither accepts nor refuses connections: its queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1))
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


def test_a_port_that_does_not_answer_is_status_7(doctor: Doctor, unresponsive_url: str) -> None:
    report = doctor(None, "--base-url", unresponsive_url, "--connect-timeout", "0.5")
    assert (report.status, report.failed) == (7, ["tcp"])
    assert re.search(r"timed out: 127\.0\.0\.1 port \d+ did not answer within 0\.5 s; ", report.lines["tcp"])


def test_a_name_server_that_does_not_answer_is_status_7(doctor: Doctor, tmp_path: Path) -> None:
    # A test cannot silence the name server of the machine: a process that sleeps replaces it.
    (tmp_path / "sitecustomize.py").write_text(
        "import socket, time\nsocket.getaddrinfo = lambda *_, **__: time.sleep(60)\n"
    )
    env = {"PYTHONPATH": str(tmp_path)}
    report = doctor(None, "--base-url", "http://host.example/v1", "--connect-timeout", "0.5", env=env)
    assert (report.status, report.failed) == (7, ["dns"])
    assert "timed out: no name server answered for host.example within 0.5 s; " in report.lines["dns"]


@pytest.mark.thorough
@pytest.mark.parametrize("connect_s", ["0", pytest.param("10", marks=pytest.mark.nightly)])
def test_max_time_ends_all_checks(serve: Serve, doctor: Doctor, connect_s: str) -> None:
    report = doctor(serve(hold), "--max-time", "4", "--connect-timeout", connect_s)
    assert (report.status, report.failed) == (7, ["models"])
    assert "timed out: the run took 4 s in all" in report.lines["models"]
    url = serve(hold, reads=lambda connection: Request(connection.recv(1, socket.MSG_PEEK), b"", 0)).url
    report = doctor(
        None,
        "--base-url",
        url.replace("http:", "https:"),
        "--max-time",
        "4",
        "--connect-timeout",
        connect_s,
    )
    assert (report.status, report.failed) == (7, ["tls"])
    assert "timed out: the run took 4 s in all" in report.lines["tls"]


def test_the_first_address_that_answers_is_used_and_the_failed_ones_are_printed(
    serve: Serve, doctor: Doctor, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import socket\nreal = socket.getaddrinfo\n"
        "def both(host, port, *more, **named):\n"
        "    return [(2, 1, 6, '', ('127.0.0.2', 1)), *real('127.0.0.1', port, *more, **named)]\n"
        "socket.getaddrinfo = both\n"
    )
    url = serve(LIST).url.replace("127.0.0.1", "localhost")
    report = doctor(None, "--base-url", url, env={"PYTHONPATH": str(tmp_path)})
    assert report.status == 0
    assert "localhost: 127.0.0.2, 127.0.0.1" in report.lines["dns"]
    assert re.search(r"127\.0\.0\.1 port \d+; before it 127\.0\.0\.2: Connection refused", report.lines["tcp"])


# What a shell sees.


def test_doctor_needs_no_home_no_locale_and_no_stdin(serve: Serve, tmp_path: Path) -> None:
    env = reach(serve(LIST))
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {process.SMAI} doctor <&-"], env=env, cwd=tmp_path, capture_output=True, check=False
    )
    report = Report(process.Result(done.returncode, done.stdout, done.stderr.decode()))
    assert (report.status, report.stderr, report.failed) == (0, "", [])
    assert report.lines["configuration"] == "ok    configuration  none: there is no home directory"
    assert os.listdir(tmp_path) == []


def test_doctor_does_not_read_stdin(sh: Ask) -> None:
    result = sh(None, "printf 'a line\\n' | (smai doctor --mock > /dev/null; cat)")
    assert result == (0, b"a line\n", "")


def test_each_check_is_printed_before_the_next_one_begins(serve: Serve, sh: Ask) -> None:
    result = sh(serve(hold), "smai doctor | head -n 3; echo ${PIPESTATUS[0]}")
    assert result.stdout.splitlines()[-1] == b"141"
    assert (len(result.stdout.splitlines()), result.stderr) == (4, "")


def test_a_full_disk_is_status_11(sh: Ask) -> None:
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
def test_a_key_that_the_server_repeats_is_not_printed(
    serve: Serve, environment: dict[str, str], answer: bytes, form: str
) -> None:
    flags = ["--retries", "1"] if form == "--retries" else ["--json", "--retries", "0"]
    result = process.run(("doctor", *flags), environment | reach(serve(answer)) | {"SMAI_MODEL": KEY})
    assert fair(result).status > 0  # fair() looks for the key
    assert "..." in result.stdout.decode()


def test_a_model_name_that_equals_the_key_is_hidden(serve: Serve, doctor: Doctor) -> None:
    assert "... from SMAI_MODEL" in doctor(serve(LIST), env={"SMAI_MODEL": KEY}).lines["model"].replace("...,", "...")


@pytest.mark.parametrize("flags", [["--mock", "--base-url", NOWHERE], ["--max-time", "x"], ["all"]])
def test_an_invalid_command_line_is_status_2_and_nothing_is_checked(smai: Smai, flags: list[str]) -> None:
    result = smai("doctor", *flags)
    assert (result.status, result.stdout, result.stderr.count("\n")) == (2, b"", 1)
