"""Where the request goes, and which key may go with it."""

import pytest

from smai_cli.config import DEFAULT_BASE_URL, Endpoint, find_endpoint
from smai_cli.errors import UsageError
from smai_cli.keys import Secret


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("https://api.smai.ai/v1", "https://api.smai.ai/v1/chat/completions"),
        ("https://api.smai.ai/v1/", "https://api.smai.ai/v1/chat/completions"),
        ("http://localhost:8080", "http://localhost:8080/chat/completions"),
        ("https://x.example/v1?api-version=3", "https://x.example/v1/chat/completions?api-version=3"),
        ("http://[::1]:8080/v1", "http://[::1]:8080/v1/chat/completions"),
        ("http://me:pw@localhost:1/v1", "http://localhost:1/v1/chat/completions"),
        ("HTTP://LOCALHOST:1/v1", "http://localhost:1/v1/chat/completions"),
    ],
)
def test_the_path_goes_below_the_base_url(base_url: str, url: str) -> None:
    endpoint = find_endpoint(base_url, None, {"SMAI_API_KEY": "sk-1"})
    assert endpoint.url("/chat/completions") == url


@pytest.mark.parametrize(
    ("base_url", "home", "sent"),
    [
        (None, None, True),
        (DEFAULT_BASE_URL, None, True),
        ("https://API.smai.ai:443/other", None, True),
        ("https://api.smai.ai:8443/v1", None, False),
        ("https://api.smai.ai.evil.example/v1", None, False),
        ("https://other.example/v1", "https://other.example", True),
        (None, "https://other.example/v1", True),
        ("https://sub.other.example/v1", "https://other.example/v1", False),
    ],
)
def test_the_key_of_the_environment_belongs_to_one_origin(base_url: str | None, home: str | None, sent: bool) -> None:
    environ = {"SMAI_API_KEY": " sk-1\n"} | ({"SMAI_BASE_URL": home} if home else {})
    endpoint = find_endpoint(base_url, None, environ)
    assert (endpoint.key and endpoint.key.reveal()) == ("sk-1" if sent else None)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "[::1]"])
def test_a_key_may_go_over_plain_http_to_this_machine(host: str) -> None:
    environ = {"SMAI_API_KEY": "sk-1", "SMAI_BASE_URL": f"http://{host}:1/v1"}
    assert find_endpoint(None, None, environ).is_loopback


@pytest.mark.parametrize("host", ["192.168.0.1", "127.evil.example", "localhost.evil.example", "127.0.0.1.nip.example"])
def test_and_to_no_other(host: str) -> None:
    with pytest.raises(UsageError, match="never goes over plain http"):
        find_endpoint(None, None, {"SMAI_API_KEY": "sk-1", "SMAI_BASE_URL": f"http://{host}/v1"})


def test_a_secret_shows_in_no_form() -> None:
    endpoint = Endpoint("https://x", Secret("sk-1"))
    assert "sk-1" not in f"{endpoint} {endpoint!r} {endpoint.key} {[endpoint.key]}"
