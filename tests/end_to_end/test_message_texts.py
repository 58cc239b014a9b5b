"""Messages name the host, the port, the variable or the file, and what to do next."""

from pathlib import Path

import pytest
from conftest import Server, Smai
from process import PYTHON
from rawserver import Serve, certificates, http

pytest_plugins = ["rawserver"]
pytestmark = pytest.mark.preloaded


def test_a_refused_connection_names_the_host_and_the_port(smai: Smai, closed_port: int) -> None:
    url = f"http://127.0.0.1:{closed_port}/v1"
    for command in (["ask", "hi"], ["models"]):
        result = smai(command[0], "--base-url", url, "--retries", "0", *command[1:])
        what = f"could not connect to 127.0.0.1 port {closed_port}: Connection refused"
        assert (result.status, result.stderr) == (3, f"smai: {what}; is the server running?\n")


def test_a_name_that_does_not_resolve_is_named(smai: Smai) -> None:
    result = smai("ask", "--base-url", "http://nosuch.invalid/v1", "--retries", "0", "hi")
    assert result.status == 3
    assert result.stderr.startswith("smai: could not resolve nosuch.invalid: ")
    assert result.stderr.endswith("; check the network or --base-url\n")


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
def test_a_proxy_is_named_with_its_variable_and_without_its_password(
    smai: Smai, closed_port: int, variable: str
) -> None:
    env = {variable: f"http://joe:secret@127.0.0.1:{closed_port}"}
    result = smai("ask", "--base-url", "http://nosuch.invalid/v1", "--retries", "0", "hi", env=env)
    what = f"could not connect through the proxy 127.0.0.1 port {closed_port} of {variable}: Connection refused"
    assert (result.status, result.stderr) == (3, f"smai: {what}; check {variable}\n")


def test_a_proxy_that_requires_a_password_is_named(smai: Smai, serve: Serve) -> None:
    proxy = serve(http("407 Proxy Authentication Required"))
    place = proxy.url.removeprefix("http://").removesuffix("/v1")
    result = smai("ask", "--base-url", "http://nosuch.invalid/v1", "hi", env={"http_proxy": place})
    what = f"the proxy {place.replace(':', ' port ')} of http_proxy: it answered 407 Proxy Authentication Required"
    assert result.status == 3
    assert f"{what}; check the user and the password in http_proxy\n" in result.stderr


def test_a_socks_proxy_without_its_package_says_how_to_install_it(smai: Smai, tmp_path: Path, closed_port: int) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util, sys\n"
        "sys.modules['socks'] = None\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, package=None: None if name == 'socks' else find(name, package)\n"
    )
    env = {"PYTHONPATH": str(tmp_path), "ALL_PROXY": f"socks5://127.0.0.1:{closed_port}"}
    result = smai("ask", "--base-url", "http://nosuch.invalid/v1", "--retries", "0", "hi", env=env)
    assert result == (3, b"", f"smai: a SOCKS proxy needs PySocks; {PYTHON} -m pip install PySocks\n")


def test_an_untrusted_certificate_is_reported_without_source_line_numbers(smai: Smai, serve: Serve) -> None:
    server = serve(http("200 OK"), tls=certificates().context)
    result = smai("ask", "--base-url", server.url, "hi")
    assert result.status == 3
    assert result.stderr.startswith("smai: TLS failed: certificate verify failed: ")
    assert "_ssl.c" not in result.stderr


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("api.openai.com", "https://api.openai.com"),
        ("api.openai.com/v1", "https://api.openai.com/v1"),
        ("llm.example:8443/v1", "https://llm.example:8443/v1"),
        ("localhost:11434/v1", "http://localhost:11434/v1"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("gpu-box:8000/v1", "http://gpu-box:8000/v1"),
        ("ftp://llm.example/v1", "https://llm.example/v1"),
        ('"https://llm.example/v1"', "https://llm.example/v1"),
        ("'localhost:11434/v1'", "http://localhost:11434/v1"),
        ("https//llm.example/v1", "https://llm.example/v1"),
    ],
)
def test_the_hint_for_a_base_url_without_a_scheme_suggests_the_likely_one(smai: Smai, url: str, meant: str) -> None:
    result = smai("ask", "--base-url", url, "hi")
    what = f"the base URL {url} does not begin with http:// or https://"
    assert (result.status, result.stderr) == (2, f"smai: {what}; did you mean {meant}?\n")


FOREIGN = [
    pytest.param(
        b"<!doctype html><p>hi", "a web page, not from a chat API", "a web page, not an event stream", id="page"
    ),
    pytest.param(b"pong\n", "not from a chat API", "not an event stream", id="text"),
    pytest.param(
        b'{"models": []}',
        'JSON that is not from a chat API: {"models": []}',
        'JSON that is not from a chat API: {"models": []}',
        id="JSON",
    ),
]


@pytest.mark.parametrize(("body", "response", "tape"), FOREIGN)
def test_a_file_that_is_not_an_answer_is_named_correctly(
    smai: Smai, serve: Serve, body: bytes, response: str, tape: str
) -> None:
    asked = smai("ask", "--base-url", serve(http("200 OK", body)).url, "hi")
    assert (asked.status, asked.stderr) == (4, f"smai: the response is {response}; check --base-url\n")
    decoded = smai("decode", stdin=body)
    assert (decoded.status, decoded.stderr) == (4, f"smai: the input is {tape}; check where the input comes from\n")


def test_a_response_without_an_answer_says_what_to_check(smai: Smai, serve: Serve) -> None:
    for status in ("200 OK", "202 Accepted"):
        asked = smai("ask", "--base-url", serve(http(status)).url, "hi")
        assert (asked.status, asked.stderr) == (8, "smai: the response is empty; try again, or check --base-url\n")
    # Anthropic's own API has other events.
    body = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"hi"}}\n\n'
    asked = smai("ask", "--base-url", serve(http("200 OK", body)).url, "hi")
    what = "the stream ended before finish_reason; try again, or check the server"
    assert (asked.status, asked.stderr) == (8, f"smai: {what}\n")
    assert smai("decode", stdin=body) == (8, b"", f"smai: {what}\n")


@pytest.mark.parametrize(
    ("sent", "shown"),
    [(b"SSH-2.0-OpenSSH_9.2\r\n", "SSH-2.0-OpenSSH_9.2"), (b"HTTP/2 200\r\n", "HTTP/2"), (b"\r\n", "BadStatusLine")],
)
def test_a_server_that_does_not_speak_http_is_not_said_to_be_silent(
    smai: Smai, serve: Serve, sent: bytes, shown: str
) -> None:
    result = smai("ask", "--base-url", serve(sent).url, "hi")
    what = f"the server's answer is malformed HTTP: {shown}"
    assert result == (8, b"", f"smai: {what}; check --base-url, or try again later\n")


def test_an_empty_input_of_decode_is_reported_as_empty(smai: Smai, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    message = "smai: the input is empty; did the command before the pipe fail?\n"
    for mode in ([], ["--raw"], ["--final"], ["-x"]):
        assert smai("decode", *mode, stdin=b"") == (8, b"", message)
    assert smai("decode", tmp_path / "empty") == (8, b"", message)
    assert "ended before finish_reason" in smai("decode", stdin=b"\n").stderr


def test_the_mock_refuses_an_unknown_path_in_the_words_of_the_api(smai: Smai, server: Server) -> None:
    url = server().url
    result = smai("ask", "--base-url", f"{url}/v2", "hi")
    assert result.status == 4
    assert "404 Not Found: Invalid URL (POST /v1/v2/chat/completions)" in result.stderr
    assert "model_not_found" not in result.stderr
    assert "Invalid URL (GET /v1/v2/models)" in smai("models", "--base-url", f"{url}/v2").stderr


def test_a_stdin_that_another_program_is_reading_is_not_read(smai: Smai, server: Server, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("one\ntwo\n")
    with (tmp_path / "list").open("rb", buffering=0) as list_:
        list_.read(4)
        result = smai("ask", "--base-url", server().url, "hi", stdin=list_)
    notice = "stdin is being read by another program, so smai leaves it alone; use - to read it, -n to silence this"
    assert (result.status, result.stderr) == (0, f"smai: {notice}\n")
