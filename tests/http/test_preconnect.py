"""The TLS connection made in advance is used if it is good, and ignored otherwise."""

import socket
import ssl
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import trustme
from process import SMAI
from rawserver import (
    GOOD,
    HEAD,
    LAST_CHUNK,
    OUT,
    PLAIN_ANSWER,
    Ask,
    Request,
    Serve,
    certificates,
    chunk,
    http,
    reach,
    read_request,
)
from rawserver import tls_context as tls_context_of_server
from urllib3.util.ssl_ import ALPN_PROTOCOLS, create_urllib3_context

from smai_cli.http.preconnect import Preconnect, preconnect
from smai_cli.http.tls import tls_context

pytest_plugins = ["rawserver"]


def test_a_successful_run_makes_one_connection_and_one_request(serve: Serve, ask: Ask) -> None:
    server = serve(*PLAIN_ANSWER, tls=certificates().context)
    assert ask(server)[:2] == (0, OUT)
    assert (server.connections, len(server.requests)) == (1, 1)


def test_an_untrusted_certificate_is_reported_once(serve: Serve, ask: Ask) -> None:
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(stranger)
    server = serve(*PLAIN_ANSWER, tls=stranger)
    result = ask(server)
    assert (result.status, result.stdout) == (3, b"")
    assert "certificate verify failed" in result.stderr
    assert server.connections == 1


def test_a_certificate_for_another_name_is_refused(serve: Serve, ask: Ask, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("other.example").configure_cert(other)
    server = serve(*PLAIN_ANSWER, tls=other)
    result = ask(server, env={"SSL_CERT_FILE": str(tmp_path / "ca.pem")})
    assert (result.status, server.requests) == (3, [])
    assert "certificate verify failed" in result.stderr


def test_a_retry_makes_a_new_connection(serve: Serve, ask: Ask) -> None:
    busy = http("503 Service Unavailable", b"{}", "Retry-After: 0")
    server = serve((busy,), tuple(PLAIN_ANSWER), tls=certificates().context)
    assert ask(server)[:2] == (0, OUT)
    assert (server.connections, len(server.requests)) == (2, 2)


def closes_the_first(connection: socket.socket) -> Request:
    """Read a request, but only on the second connection; the first is closed as soon as it is made."""
    closes_the_first.count += 1  # type: ignore[attr-defined]
    if closes_the_first.count == 1:  # type: ignore[attr-defined]
        raise ConnectionError
    return read_request(connection)


def test_smai_reconnects_if_the_server_closed_the_connection_while_stdin_was_read(
    serve: Serve, environment: dict[str, str]
) -> None:
    closes_the_first.count = 0  # type: ignore[attr-defined]
    server = serve(*PLAIN_ANSWER, tls=certificates().context, reads=closes_the_first)
    env = environment | reach(server)
    with subprocess.Popen(
        [SMAI, "ask"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr
        # The notice comes after 3 s of waiting: by then the first connection was made, and closed.
        assert b"waiting for the prompt" in process.stderr.readline()
        out, err = process.communicate(b"hi")
    assert (process.returncode, out, err) == (0, OUT, b"")
    assert (server.connections, len(server.requests)) == (2, 1)


def test_an_invalid_command_line_sends_nothing(serve: Serve, environment: dict[str, str]) -> None:
    server = serve(*PLAIN_ANSWER, tls=certificates().context)
    env = environment | reach(server)
    for arguments in (["-n", " "], ["-n"], ["-s", b"\xff", "-n", "hi"], ["--raw", "--final", "hi"], ["-t", "9", "hi"]):
        done = subprocess.run(
            [SMAI, "ask", *arguments], env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        assert done.returncode == 2
    assert server.requests == []


@pytest.mark.parametrize(
    ("base_url", "environ"),
    [
        ("http://127.0.0.1:1/v1", {}),
        ("https://127.0.0.1:1/v1", {"https_proxy": "http://127.0.0.1:1"}),
        ("https://127.0.0.1:1/v1", {"ALL_PROXY": "socks5://127.0.0.1:1"}),
        ("https://127.0.0.1:1/v1", {"SSLKEYLOGFILE": "/dev/null"}),
    ],
)
def test_no_connection_in_advance_for_plain_http_or_if_the_environment_prevents_it(
    base_url: str, environ: Mapping[str, str]
) -> None:
    assert preconnect(base_url, None, 1.0, environ) is None


def test_the_tls_context_equals_that_of_urllib3() -> None:
    ours, theirs = tls_context(certificates().ca_file), create_urllib3_context()
    # urllib3 sets these two on each connection.
    theirs.load_verify_locations(certificates().ca_file)
    theirs.set_alpn_protocols(ALPN_PROTOCOLS)
    for name in (
        "check_hostname",
        "hostname_checks_common_name",
        "keylog_filename",
        "maximum_version",
        "minimum_version",
        "num_tickets",
        "options",
        "post_handshake_auth",
        "protocol",
        "security_level",
        "verify_flags",
        "verify_mode",
    ):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.get_ciphers() == theirs.get_ciphers()
    assert ours.get_ca_certs() == theirs.get_ca_certs()
    assert ALPN_PROTOCOLS == ["http/1.1"]


def test_alpn_asks_for_http_1_1(serve: Serve) -> None:
    context = tls_context_of_server()
    context.set_alpn_protocols(["h2", "http/1.1"])
    port = int(serve(*PLAIN_ANSWER, tls=context).url.rsplit(":", 1)[1].removesuffix("/v1"))
    preconnect = Preconnect("127.0.0.1", port, certificates().ca_file, 5.0)
    made = preconnect.take("127.0.0.1", port)
    assert made
    assert made.selected_alpn_protocol() == "http/1.1"
    preconnect.close()
    made.close()


def test_a_failed_connection_in_advance_returns_none() -> None:
    for ca_file in (None, "/nonexistent"):
        assert Preconnect("127.0.0.1", 1, ca_file, 1.0).take("127.0.0.1", 1) is None
    assert Preconnect("nosuch.invalid", 443, None, 1.0).take("nosuch.invalid", 443) is None


def test_the_connection_is_returned_once_and_only_for_its_host(serve: Serve) -> None:
    server = serve(HEAD, *map(chunk, GOOD), LAST_CHUNK, tls=certificates().context)
    port = int(server.url.rsplit(":", 1)[1].removesuffix("/v1"))
    preconnect = Preconnect("127.0.0.1", port, certificates().ca_file, 5.0)
    assert preconnect.take("127.0.0.1", port + 1) is None
    made = preconnect.take("127.0.0.1", port)
    assert made is not None
    assert made.version() in ("TLSv1.2", "TLSv1.3")
    preconnect.close()
    made.close()
    assert preconnect.take("127.0.0.1", port) is None


def test_importlib_is_loaded_before_a_second_thread_starts() -> None:
    """Otherwise the main thread, which imports it too, may get one that cannot import (CPython, issue 83065)."""
    script = """
import sys, threading
names = []
class Finder:
    def find_spec(self, name, path=None, target=None):
        if threading.current_thread() is not threading.main_thread():
            names.append(name)
sys.modules.pop("importlib", None)
import smai_cli.http.preconnect
sys.meta_path.insert(0, Finder())
def make():
    from smai_cli.http.tls import tls_context
    return tls_context(None)
thread = threading.Thread(target=make)
thread.start()
thread.join()
print("importlib.resources" in names, "importlib" in names)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True False\n", "")
