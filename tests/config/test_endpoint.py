"""Where the request goes, and which key may go with it."""

import pytest
from conftest import Config, Server, Smai

from smai_cli.config.base_url import origin_of, shown_origin, shown_url
from smai_cli.config.endpoint import Endpoint, find_endpoint
from smai_cli.config.keys import Secret
from smai_cli.config.places import DEFAULT_BASE_URL
from smai_cli.errors import UsageError


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
        ("https://x.example/v1/chat/completions", "https://x.example/v1/chat/completions"),
        ("https://x.example/v1/chat/completions/", "https://x.example/v1/chat/completions"),
        ("https://x.example/v1/responses", "https://x.example/v1/chat/completions"),
        ("https://x.example/v1/responses//", "https://x.example/v1/chat/completions"),
        ("https://x.example/v1/chat/completions?api-version=3", "https://x.example/v1/chat/completions?api-version=3"),
        ("https://x.example/v1/responses/?a=/b#c", "https://x.example/v1/chat/completions?a=/b"),
        ("https://x.example/chat/completions", "https://x.example/chat/completions"),
        ("https://x.example/chat", "https://x.example/chat/chat/completions"),
        ("https://x.example/v1/models", "https://x.example/v1/chat/completions"),
        ("https://x.example/v1/models/?a=b", "https://x.example/v1/chat/completions?a=b"),
        ("https://x.example/v1/completions", "https://x.example/v1/chat/completions"),
        ("https://x.example/v1/chat/", "https://x.example/v1/chat/completions"),
        ("https://x.services.ai.azure.com/models", "https://x.services.ai.azure.com/models/chat/completions"),
        ("https://x.example/v1/myresponses", "https://x.example/v1/myresponses/chat/completions"),
        ("https://x.example/responses/v1", "https://x.example/responses/v1/chat/completions"),
    ],
)
def test_the_path_is_appended_to_the_base_url_once(base_url: str, url: str) -> None:
    endpoint = find_endpoint(base_url, None, {"SMAI_API_KEY": "sk-1"})
    assert endpoint.url("/chat/completions") == url


@pytest.mark.parametrize("end", ["/chat/completions", "/responses/"])
def test_the_url_of_a_request_is_accepted_as_a_base_url_everywhere(
    smai: Smai, server: Server, config: Config, end: str
) -> None:
    mock = server()
    whole = mock.url + end
    config(f'[profile.whole]\nbase_url = "{whole}"\n')
    sources = [(["--base-url", whole], {}), ([], {"SMAI_BASE_URL": whole}), (["-p", "whole"], {})]
    for words, env in sources:
        assert smai("ask", *words, "hi", env=env).status == 0
    assert smai("models", *sources[0][0]).status == 0
    assert [request.path for request in mock.received] == [*["/v1/chat/completions"] * 3, "/v1/models"]
    assert f'base_url = "{mock.url}"' in smai("config", "-p", "whole").stdout.decode()


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


@pytest.mark.parametrize(
    ("base_url", "shown"),
    [
        ("https://API.smai.ai:443/v1", "https://api.smai.ai"),
        ("https://api.smai.ai:80/v1", "https://api.smai.ai:80"),
        ("http://localhost:80", "http://localhost"),
        ("http://[::1]:11434/v1", "http://[::1]:11434"),
    ],
)
def test_an_origin_is_shown_without_the_default_port(base_url: str, shown: str) -> None:
    assert shown_origin(origin_of(base_url)) == shown


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "[::1]"])
def test_a_key_may_go_over_plain_http_to_this_machine(host: str) -> None:
    environ = {"SMAI_API_KEY": "sk-1", "SMAI_BASE_URL": f"http://{host}:1/v1"}
    assert find_endpoint(None, None, environ).is_loopback


@pytest.mark.parametrize(
    "host",
    [
        "192.168.0.1",
        "127.evil.example",
        "localhost.evil.example",
        "127.0.0.1.nip.example",
        "127.0.0.999",
        "127.0.0.\u0661",
        "127.\uff10.0.1",
        "\U0001d7cf27.0.0.1",
        "127.0.0.01",
        "127.1",
        "2130706433",
        "128.0.0.1",
        "0.0.0.0",
        "[::]",
        "[::2]",
        "[::ffff:127.0.0.1]",
        "[::1%25eth0]",
        "\uff4cocalhost",
        "localhost.",
        "smai.localhost",
    ],
)
def test_a_key_may_not_go_over_plain_http_to_another_machine(host: str) -> None:
    with pytest.raises(UsageError, match="never goes over plain http"):
        find_endpoint(None, None, {"SMAI_API_KEY": "sk-1", "SMAI_BASE_URL": f"http://{host}/v1"})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h/v1", "https://h/v1"),
        (
            "https://h:8/v1?api-key=S3&api-version=2024-10-21&S3#S3",
            "https://h:8/v1?api-key=...&api-version=2024-10-21&...",
        ),
        ("https://h/v1?empty=", "https://h/v1?empty="),
        ("http://u:S3/v1", "http://u:.../v1"),
        ("http://u:9S3/v1", "http://u:.../v1"),
        ("http://u:S3@h:1/v1", "http://h:1/v1"),
        ("http://u:S/3@h/v1", "http://u:.../...@h/v1"),
        ("http://u:S@S3@[::1]:1/v1", "http://[::1]:1/v1"),
        ("http://u:S3?S3@h", "http://u:...?..."),
        ("u:S3@h/v1", "h/v1"),
        ("u:S3", "u:..."),
        ("http:/u:S3/v1", "http:/u:.../v1"),
        ("localhost:11434/v1", "localhost:11434/v1"),
        ("https://h/@scope/v1", "https://h/...@scope/v1"),
    ],
)
def test_a_url_is_shown_without_what_may_be_a_secret_in_it(url: str, shown: str) -> None:
    assert shown_url(url) == shown


def test_the_values_of_a_query_are_hidden_encoded_and_decoded() -> None:
    secrets = Endpoint("https://h/v1?key=se%2Fcret+words&api-version=2024-10-21", Secret("sk-12345678")).secrets
    text = "a se%2Fcret+words b se/cret words c sk-12345678 d 2024-10-21 e se%2Fcret"
    assert secrets.hidden_in(text) == "a ... b ... c ... d 2024-10-21 e ..."


def test_a_short_key_is_hidden_after_bearer_and_as_a_separate_word_with_digits() -> None:
    assert Secret("ollama").hidden_in("ollama said: Bearer ollama, bearer  ollama") == (
        "ollama said: Bearer ..., bearer  ..."
    )
    assert Secret("hunter2").hidden_in("key 'hunter2', not hunter22, hunter2!") == "key '...', not hunter22, ...!"
    assert Secret("(.*)1").hidden_in("Bearer (.*)1 is no pattern") == "Bearer ... is no pattern"


def test_a_secret_is_hidden_in_every_string_format() -> None:
    endpoint = Endpoint("https://x", Secret("sk-1"))
    assert "sk-1" not in f"{endpoint} {endpoint!r} {endpoint.key} {[endpoint.key]}"


def test_an_invalid_host_name_is_reported(smai: Smai) -> None:
    for env in (
        {"SMAI_BASE_URL": "https://\u24a6.example/v1"},
        {"SMAI_BASE_URL": "https://smai.example/v1", "HTTPS_PROXY": "http://\u24a6.example"},
    ):
        result = smai("ask", "hi", env={"SMAI_API_KEY": "sk-1", **env})
        assert result.status == 2
        assert result.stderr == (
            "smai: the host of the URL is not a valid DNS name; check --base-url, and HTTPS_PROXY\n"
        )
