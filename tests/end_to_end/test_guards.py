"""Small guards of the transport and the configuration, each seen from outside."""

import gzip
import json
import subprocess

import pytest
from process import SMAI
from rawserver import (
    HEAD,
    HELLO,
    OUT,
    PLAIN_ANSWER,
    Ask,
    Serve,
    certificates,
    chunk,
    error_body,
    hold,
    http,
    length_head,
    reach,
)

pytest_plugins = ["rawserver"]


def test_the_message_of_a_compressed_error_body_is_shown(serve: Serve, ask: Ask) -> None:
    body = gzip.compress(error_body("the account is closed"))
    result = ask(serve(http("403 Forbidden", body, "Content-Encoding: gzip")))
    assert result.status == 5
    assert "the account is closed" in result.stderr


@pytest.mark.parametrize("steps", [(HEAD, chunk(HELLO), b"zz\r\n"), (length_head(1000), HELLO)])
def test_a_broken_body_is_described_in_plain_words(serve: Serve, ask: Ask, steps: tuple[bytes, ...]) -> None:
    result = ask(serve(*steps))
    assert (result.status, result.stdout) == (8, b"Hello \n")
    assert "it was cut, or is malformed HTTP" in result.stderr


def test_a_103_early_hints_response_over_tls_is_skipped(serve: Serve, ask: Ask) -> None:
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    assert ask(serve(hint, *PLAIN_ANSWER, tls=certificates().context)) == (0, OUT, "")


def test_a_101_response_is_a_failure_without_further_waiting(serve: Serve, ask: Ask) -> None:
    result = ask(serve(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", hold))
    assert (result.status, result.stdout) == (4, b"")


def test_the_first_variable_for_certificates_decides_and_plain_http_needs_none(serve: Serve, ask: Ask) -> None:
    good = certificates().ca_file
    secure = serve(*PLAIN_ANSWER, tls=certificates().context)
    assert ask(secure, env={"REQUESTS_CA_BUNDLE": good, "SSL_CERT_FILE": "/nonexistent"}).status == 0
    assert ask(secure, env={"REQUESTS_CA_BUNDLE": "/nonexistent", "SSL_CERT_FILE": good}).status == 2
    assert ask(serve(*PLAIN_ANSWER), env={"REQUESTS_CA_BUNDLE": "/nonexistent"}).status == 0


def test_a_redirect_or_a_request_id_cannot_send_control_characters_to_the_terminal(serve: Serve, ask: Ask) -> None:
    moved = ask(serve(http("302 Found", b"", "Location: https://x.example/\x9b2J")))
    refused = ask(serve(http("404 No\x9b2J", b"", "request-id: r1\x9b")))
    assert (moved.status, refused.status) == (4, 4)
    assert "\x9b" not in moved.stderr + refused.stderr
    assert "[request id r1" in refused.stderr


def test_a_key_may_be_read_from_a_pipe(serve: Serve, environment: dict[str, str]) -> None:
    server = serve(*PLAIN_ANSWER)
    script = f'"{SMAI}" ask -n --key-file <(echo sk-through-a-pipe) hi'
    env = environment | reach(server) | {"SMAI_API_KEY": ""}
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, check=True)
    assert done.stdout == OUT
    assert b"Bearer sk-through-a-pipe" in server.requests[0].head


def test_an_untrusted_certificate_is_not_retried(serve: Serve, environment: dict[str, str]) -> None:
    server = serve(*PLAIN_ANSWER, tls=certificates().context)
    env = environment | {"SMAI_BASE_URL": server.url}
    done = subprocess.run([SMAI, "ask", "-n", "--summary", "json", "hi"], env=env, capture_output=True, check=False)
    message, summary = done.stderr.splitlines()
    assert done.returncode == 3
    assert b"certificate verify failed" in message
    assert json.loads(summary)["error"]["retryable"] is False
