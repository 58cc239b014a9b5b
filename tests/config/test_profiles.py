"""The built-in profiles: the server, the request and the key."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Config, Server, Smai
from recordingproxy import RecordedRequest, RecordingProxy

from smai_cli.config.providers import PROVIDERS, Provider

pytestmark = pytest.mark.preloaded

KEY = "sk-profile-7d1c0a93b2e4"
HOSTED = [provider for provider in PROVIDERS.values() if provider.key_env]
LOCAL = [provider for provider in PROVIDERS.values() if not provider.key_env]
ALL_KEYS = {str(provider.key_env): f"{KEY}-{provider.name}" for provider in HOSTED}


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[RecordingProxy]:
    with RecordingProxy(tmp_path) as proxy:
        yield proxy


def only_request(proxy: RecordingProxy) -> RecordedRequest:
    (request,) = proxy.recorded
    return request


def has_key(request: RecordedRequest) -> bool:
    return any(KEY in value for value in request.headers.values())


# The table.


def test_each_built_in_profile_has_an_https_or_loopback_server_and_a_link_to_its_documentation() -> None:
    assert [provider.name for provider in HOSTED] == [
        "openai",
        "anthropic",
        "gemini",
        "groq",
        "mistral",
        "deepseek",
        "openrouter",
        "xai",
        "together",
        "fireworks",
        "cerebras",
    ]
    assert {provider.name: provider.base_url for provider in LOCAL} == {
        "ollama": "http://localhost:11434/v1",
        "lmstudio": "http://localhost:1234/v1",
        "llamacpp": "http://localhost:8080/v1",
        "vllm": "http://localhost:8000/v1",
    }
    for provider in HOSTED:
        assert provider.base_url.startswith("https://")
        assert provider.source.startswith("https://")
        assert re.fullmatch(r"[A-Z]+_API_KEY", str(provider.key_env))
    assert [provider.name for provider in PROVIDERS.values() if provider.model] == ["openai"]


def test_the_manual_page_lists_the_built_in_profiles() -> None:
    page = (Path(__file__).parents[2] / "man" / "smai-config.1").read_text()
    rows = re.findall(r"^\.It (\S+) Ta (?:Ev )?(\S+) Ta (\S+)$", page, re.MULTILINE)
    table = [(provider.name, provider.key_env or "none", provider.base_url) for provider in PROVIDERS.values()]
    assert rows == table


# The request.


@pytest.mark.parametrize("provider", HOSTED, ids=lambda provider: provider.name)
def test_a_profile_sends_its_own_key_to_its_own_server(smai: Smai, proxy: RecordingProxy, provider: Provider) -> None:
    model = [] if provider.model else ["-m", "the-model"]
    result = smai("ask", "-p", provider.name, *model, "hi", env=proxy.environment | ALL_KEYS)
    assert (result.status, result.stdout, result.stderr) == (0, b"Hi\n", "")
    request = only_request(proxy)
    host, _, path = provider.base_url.removeprefix("https://").partition("/")
    assert (request.server, request.headers["host"]) == (f"{host}:443", host)
    assert request.path == f"/{path}/chat/completions".replace("//", "/")
    assert request.headers["authorization"] == f"Bearer {KEY}-{provider.name}"
    assert request.body["model"] == (provider.model or "the-model")


@pytest.mark.parametrize("provider", HOSTED, ids=lambda provider: provider.name)
def test_nothing_is_sent_if_the_key_variable_of_a_profile_is_not_set(
    smai: Smai, proxy: RecordingProxy, provider: Provider
) -> None:
    others = {name: key for name, key in ALL_KEYS.items() if name != provider.key_env}
    for variable in ({}, {str(provider.key_env): " "}):
        env = proxy.environment | others | {"SMAI_API_KEY": KEY} | variable
        result = smai("ask", "-p", provider.name, "-m", "the-model", "hi", env=env)
        server = provider.base_url.partition("//")[2].partition("/")[0]
        assert result.stderr == (
            f'smai: no API key for https://{server}; run "smai login -p {provider.name}" or set {provider.key_env}; '
            "--mock needs no key\n"
        )
        assert (result.status, proxy.tunnels) == (2, [])


@pytest.mark.parametrize("provider", [*HOSTED, *LOCAL], ids=lambda provider: provider.name)
def test_a_base_url_that_overrides_the_profile_gets_no_key(smai: Smai, server: Server, provider: Provider) -> None:
    mock = server()
    env = ALL_KEYS | {"SMAI_API_KEY": KEY}
    result = smai("ask", "-p", provider.name, "-m", "the-model", "--base-url", mock.url, "hi", env=env)
    (received,) = mock.received
    assert (result.status, received.headers.get("authorization")) == (0, None)
    assert KEY not in f"{received.headers}"


@pytest.mark.parametrize("provider", LOCAL, ids=lambda provider: provider.name)
def test_a_local_server_is_asked_without_a_key(smai: Smai, provider: Provider) -> None:
    result = smai("ask", "-p", provider.name, "-m", "the-model", "--dry-run", "hi", env=ALL_KEYS)
    preview = json.loads(result.stdout)
    assert preview["url"] == f"{provider.base_url}/chat/completions"
    assert "Authorization" not in preview["headers"]


def test_no_key_of_another_provider_is_sent_to_the_default_server(smai: Smai, proxy: RecordingProxy) -> None:
    result = smai("ask", "hi", env=proxy.environment | ALL_KEYS)
    assert (result.status, proxy.tunnels) == (2, [])
    assert result.stderr == (
        'smai: no API key for https://api.smai.ai; run "smai login" or set SMAI_API_KEY; '
        'OPENAI_API_KEY is set: "smai ask -p openai" uses it; --mock needs no key\n'
    )
    env = proxy.environment | ALL_KEYS | {"SMAI_API_KEY": "sk-own-1234567890"}
    assert smai("ask", "hi", env=env).status == 0
    assert only_request(proxy).headers["authorization"] == "Bearer sk-own-1234567890"


def test_a_provider_used_without_its_profile_gets_no_key_and_the_message_names_the_profile(
    smai: Smai, proxy: RecordingProxy
) -> None:
    proxy.refuses = True
    result = smai("ask", "--base-url", "https://api.openai.com/v1", "hi", env=proxy.environment | ALL_KEYS)
    assert not has_key(only_request(proxy))
    assert result.status == 5
    assert result.stderr.endswith("; no key was sent; OPENAI_API_KEY is set: -p openai uses it\n")


# A table in the user's file.


@pytest.mark.parametrize(
    ("table", "server", "key", "model"),
    [
        ('model = "gpt-5"', "api.openai.com:443", f"{KEY}-openai", "gpt-5"),
        ("temperature = 0.5", "api.openai.com:443", f"{KEY}-openai", "gpt-4.1"),
        ('base_url = "https://api.openai.com/v2"', "api.openai.com:443", f"{KEY}-openai", "gpt-4.1"),
        ('base_url = "https://gateway.example/v1"', "gateway.example:443", None, "gpt-4.1"),
        ('base_url = "https://api.openai.com:8443/v1"', "api.openai.com:8443", None, "gpt-4.1"),
        ('base_url = "https://api.openai.com.example/v1"', "api.openai.com.example:443", None, "gpt-4.1"),
        ('key_env = "TEAM_KEY"', "api.openai.com:443", "sk-team-1234567890", "gpt-4.1"),
        (
            'base_url = "https://gateway.example/v1"\nkey_env = "TEAM_KEY"',
            "gateway.example:443",
            "sk-team-1234567890",
            "gpt-4.1",
        ),
        (
            'base_url = "https://gateway.example/v1"\nkey_env = "OPENAI_API_KEY"',
            "gateway.example:443",
            f"{KEY}-openai",
            "gpt-4.1",
        ),
        ('key_command = "echo sk-command-123456"', "api.openai.com:443", "sk-command-123456", "gpt-4.1"),
    ],
)
def test_a_table_overrides_the_built_in_profile_key_by_key(
    smai: Smai, proxy: RecordingProxy, config: Config, table: str, server: str, key: str | None, model: str
) -> None:
    config(f"[profile.openai]\n{table}\n")
    env = proxy.environment | ALL_KEYS | {"TEAM_KEY": "sk-team-1234567890"}
    assert smai("ask", "-p", "openai", "hi", env=env).status == 0
    request = only_request(proxy)
    assert (request.server, request.body["model"]) == (server, model)
    assert request.headers.get("authorization") == (f"Bearer {key}" if key else None)


def test_a_key_env_in_the_file_replaces_the_built_in_one_even_if_it_is_not_set(
    smai: Smai, proxy: RecordingProxy, config: Config
) -> None:
    config('[profile.openai]\nkey_env = "TEAM_KEY"\n')
    result = smai("ask", "-p", "openai", "hi", env=proxy.environment | ALL_KEYS)
    assert (result.status, proxy.tunnels) == (2, [])
    assert 'no API key for https://api.openai.com; run "smai login -p openai" or set TEAM_KEY' in result.stderr


def test_the_key_variable_of_a_profile_is_used_only_for_the_origin_of_that_profile(
    smai: Smai, server: Server, config: Config
) -> None:
    mock, other = server(), server()
    config(f'[profile.work]\nbase_url = "{mock.url}"\nkey_env = "WORK_KEY"\n')
    env = {"WORK_KEY": KEY}
    assert smai("ask", "-p", "work", "hi", env=env).status == 0
    assert smai("ask", "-p", "work", "--base-url", other.url, "hi", env=env).status == 0
    assert smai("ask", "--base-url", mock.url, "hi", env=env).status == 0
    sent = [request.headers.get("authorization") for request in (*mock.received, *other.received)]
    assert sent == [f"Bearer {KEY}", None, None]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f'key_env = "{KEY}"', "key_env is not the name of a variable in capital letters"),
        ('key_env = "gsk_0123456789"', "key_env is not the name of a variable in capital letters"),
        ('key_env = "SMAI_API_KEY"', "other than SMAI_API_KEY"),
        ('key_env = "OPENAI_API_KEY"', "OPENAI_API_KEY is not a key of the default service"),
        ('[profile.work]\nkey_env = "OPENAI_API_KEY"', "use the built-in profile openai"),
        (
            '[profile.work]\nbase_url = "https://API.smai.ai:443"\nkey_env = "GROQ_API_KEY"',
            "GROQ_API_KEY is not a key of the default service",
        ),
    ],
)
def test_a_key_env_that_contains_a_key_or_belongs_to_another_server_is_refused(
    smai: Smai, proxy: RecordingProxy, config: Config, text: str, words: str
) -> None:
    config(f"{text}\n")
    profile = ["-p", "work"] if "work" in text else []
    result = smai("ask", *profile, "hi", env=proxy.environment | ALL_KEYS)
    assert (result.status, proxy.tunnels) == (2, [])
    assert words in result.stderr
    assert KEY not in result.stderr
    assert "0123456789" not in result.stderr


# Precedence.


def test_a_typed_profile_takes_precedence_except_for_its_default_model(
    smai: Smai, proxy: RecordingProxy, config: Config
) -> None:
    config('base_url = "https://file.example/v1"\nmodel = "of-the-file"\n')
    env = proxy.environment | ALL_KEYS | {"SMAI_BASE_URL": "https://env.example/v1", "SMAI_API_KEY": "sk-env-123456"}
    assert smai("ask", "-p", "openai", "hi", env=env).status == 0
    assert smai("ask", "-p", "openai", "hi", env=env | {"SMAI_MODEL": "of-the-env"}).status == 0
    assert smai("ask", "-p", "groq", "hi", env=env).status == 0
    seen = [(request.server, request.body["model"], request.headers["authorization"]) for request in proxy.recorded]
    assert seen == [
        ("api.openai.com:443", "of-the-file", f"Bearer {KEY}-openai"),
        ("api.openai.com:443", "of-the-env", f"Bearer {KEY}-openai"),
        ("api.groq.com:443", "of-the-file", f"Bearer {KEY}-groq"),
    ]


def test_other_variables_take_precedence_over_a_profile_in_the_environment(smai: Smai, proxy: RecordingProxy) -> None:
    env = proxy.environment | ALL_KEYS | {"SMAI_PROFILE": "openai"}
    assert smai("ask", "hi", env=env).status == 0
    more = {"SMAI_BASE_URL": "https://env.example/v1", "SMAI_API_KEY": "sk-env-123456"}
    assert smai("ask", "hi", env=env | more).status == 0
    seen = [(request.server, request.headers["authorization"]) for request in proxy.recorded]
    assert seen == [("api.openai.com:443", f"Bearer {KEY}-openai"), ("env.example:443", "Bearer sk-env-123456")]


def test_a_key_of_smai_login_takes_precedence_over_the_variable(smai: Smai, proxy: RecordingProxy) -> None:
    env = proxy.environment | ALL_KEYS
    assert smai("login", "-p", "openai", stdin=b"sk-stored-1234567890", env=proxy.environment).status == 0
    assert smai("ask", "-p", "openai", "hi", env=env).status == 0
    assert smai("logout", "-p", "openai").status == 0
    assert smai("ask", "-p", "openai", "hi", env=env).status == 0
    assert [(request.path, request.headers["authorization"]) for request in proxy.recorded] == [
        ("/v1/models", "Bearer sk-stored-1234567890"),
        ("/v1/chat/completions", "Bearer sk-stored-1234567890"),
        ("/v1/chat/completions", f"Bearer {KEY}-openai"),
    ]


# The other commands.


@pytest.mark.parametrize("provider", HOSTED, ids=lambda provider: provider.name)
def test_models_and_doctor_use_the_server_and_the_key_of_the_profile(
    smai: Smai, proxy: RecordingProxy, provider: Provider
) -> None:
    env = proxy.environment | ALL_KEYS
    assert smai("models", "-p", provider.name, env=env) == (0, b"the-model\n", "")
    (request,) = proxy.recorded
    host, _, path = provider.base_url.removeprefix("https://").partition("/")
    assert (request.server, request.path) == (f"{host}:443", f"/{path}/models".replace("//", "/"))
    if provider.name == "anthropic":  # its list does not accept a Bearer key
        assert request.headers["x-api-key"] == f"{KEY}-anthropic"
        assert request.headers["anthropic-version"] == "2023-06-01"
        assert "authorization" not in request.headers
    else:
        assert request.headers["authorization"] == f"Bearer {KEY}-{provider.name}"
    result = smai("doctor", "--json", "-p", provider.name, env=env)
    checks = {check["check"]: check for check in map(json.loads, result.stdout.splitlines())}
    assert result.status == 0, result
    assert checks["base_url"]["detail"] == f"{provider.base_url}, from the built-in profile {provider.name}"
    assert checks["key"]["detail"].startswith(f"set, from {provider.key_env}")


def test_doctor_says_which_variable_is_missing(smai: Smai) -> None:
    result = smai("doctor", "-p", "groq", env={"HTTPS_PROXY": "http://127.0.0.1:1"})
    message = 'no API key for https://api.groq.com; run "smai login -p groq" or set GROQ_API_KEY; --mock needs no key'
    assert result.status == 2
    assert f"FAIL  key: {message}\n" in result.stdout.decode()


def test_batch_sends_each_line_to_the_server_of_the_profile(smai: Smai, proxy: RecordingProxy) -> None:
    env = proxy.environment | ALL_KEYS
    result = smai("batch", "-p", "mistral", "-m", "the-model", stdin=b'"one"\n"two"\n', env=env)
    assert result.status == 0, result
    seen = {(request.server, request.path, request.headers["authorization"]) for request in proxy.recorded}
    assert seen == {("api.mistral.ai:443", "/v1/chat/completions", f"Bearer {KEY}-mistral")}


def test_a_profile_without_a_default_model_requires_a_model_option(
    smai: Smai, proxy: RecordingProxy, tmp_path: Path
) -> None:
    env = proxy.environment | ALL_KEYS
    message = 'smai: the profile groq has no default model; name a model with -m; "smai models -p groq" lists them\n'
    for command in (["ask", "hi"], ["ask", "--dry-run", "hi"], ["serve"]):
        result = smai(command[0], "-p", "groq", *command[1:], env=env)
        assert (result.status, result.stdout, result.stderr) == (2, b"", message)
    lines = tmp_path / "lines"
    lines.write_text('{"prompt": "one", "model": "the-model"}\n"two"\n')
    result = smai("batch", "-p", "groq", lines, env=env)
    assert (result.status, proxy.tunnels) == (2, [])
    assert (
        result.stderr == "smai: line 2 names no model, and no option does; name one with -m; smai models lists them\n"
    )
    lines.write_text('{"prompt": "one", "model": "the-model"}\n')
    assert smai("batch", "-p", "groq", lines, env=env).status == 0
    assert only_request(proxy).body["model"] == "the-model"


def test_config_lists_every_profile_with_its_server_and_variable_and_no_key(smai: Smai, config: Config) -> None:
    path = config(
        '[profile.work]\nbase_url = "https://work.example/v1"\nkey_command = "echo key"\n'
        '[profile.team]\nbase_url = "https://team.example/v1?api-key=s3cret"\nkey_env = "TEAM_KEY"\n'
    )
    result = smai("config", "--profiles", env={"OPENAI_API_KEY": KEY, "TEAM_KEY": " "})
    rows = [re.split(" {2,}", line) for line in result.stdout.decode().splitlines()]
    assert rows[:4] == [
        ["work", "https://work.example/v1", "-", f"key from key_command ({path} [profile.work])"],
        ["team", "https://team.example/v1?api-key=...", "TEAM_KEY", "not set"],
        ["openai", "https://api.openai.com/v1", "OPENAI_API_KEY", "set"],
        ["anthropic", "https://api.anthropic.com/v1", "ANTHROPIC_API_KEY", "not set"],
    ]
    assert [row[0] for row in rows] == ["work", "team", *PROVIDERS]
    config('[profile.bad]\nbase_url = "nowhere"\n')
    first, second = smai("config", "--profiles").stdout.decode().splitlines()[:2]
    assert first.startswith("bad ")
    assert "the base URL nowhere does not begin with http:// or https://" in first
    assert second.startswith("openai ")
    assert rows[-1] == ["vllm", "http://localhost:8000/v1", "-", "no key"]
    assert KEY not in result.stdout.decode()


def test_the_shell_completes_the_built_in_profiles_and_the_words_of_effort(smai: Smai, config: Config) -> None:
    def complete(words: str, last: str) -> set[str]:
        env = {"_SMAI_COMPLETE": "bash_complete", "COMP_WORDS": f"smai {words} {last}", "COMP_CWORD": "3"}
        return {line.partition(",")[2] for line in smai(env=env).stdout.decode().splitlines()}

    config("[profile.oak]\n")
    assert complete("ask -p", "o") == {"oak", "openai", "openrouter", "ollama"}
    config("not TOML")
    assert complete("models -p", "g") == {"gemini", "groq"}
    assert complete("ask --effort", "") == {"none", "minimal", "low", "medium", "high", "xhigh"}


# Profiles that are roles.


def test_a_profile_sets_parameters_and_a_typed_option_overrides_them(
    smai: Smai, server: Server, config: Config
) -> None:
    mock = server(reply="ok")
    config(
        f'base_url = "{mock.url}"\n[profile.critic]\nsystem = "Be strict."\ntemperature = 0.1\nmax_tokens = 70\n'
        'top_p = 0.9\neffort = "xhigh"\noptions = {seed = 7, presence_penalty = 0.5, thinking = {type = "on"}}\n'
    )
    assert smai("ask", "-p", "critic", "hi").status == 0
    sent = {"temperature": 0.1, "max_tokens": 70, "top_p": 0.9, "reasoning_effort": "xhigh", "seed": 7}
    assert sent.items() <= mock.received[-1].json.items()
    assert mock.received[-1].json["thinking"] == {"type": "on"}
    typed = ["-t", "1", "--max-tokens", "5", "--effort", "low", "--seed", "8", "-O", "presence_penalty=0"]
    assert smai("ask", "-p", "critic", *typed, "-O", "thinking.budget=9", "hi").status == 0
    sent = {"temperature": 1, "max_tokens": 5, "top_p": 0.9, "reasoning_effort": "low", "seed": 8}
    assert sent.items() <= mock.received[-1].json.items()
    assert mock.received[-1].json["presence_penalty"] == 0
    assert mock.received[-1].json["thinking"] == {"type": "on", "budget": 9}
    lines = b'{"prompt": "one"}\n{"prompt": "two", "temperature": 2, "seed": 3, "presence_penalty": 1}\n'
    assert smai("batch", "-j", "1", "-p", "critic", stdin=lines).status == 0
    one, two = (request.json for request in mock.received[-2:])
    assert (one["temperature"], one["seed"], one["presence_penalty"]) == (0.1, 7, 0.5)
    assert (two["temperature"], two["seed"], two["presence_penalty"]) == (2, 3, 1)


@pytest.mark.parametrize("command", ["ask", "batch"])
def test_effort_accepts_any_word_except_none(smai: Smai, server: Server, command: str) -> None:
    mock = server()
    common = [command, "--base-url", mock.url]
    assert smai(*common, "--effort", "colossal", stdin=b'"hi"\n').status == 0
    assert mock.received[-1].json["reasoning_effort"] == "colossal"
    for blank in ("", " "):
        result = smai(*common, "--effort", blank, stdin=b'"hi"\n')
        assert (result.status, result.stderr.partition(";")[0]) == (2, "smai: --effort has an empty value")
    assert len(mock.received) == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("temperature = 2.5", "temperature is not a number from 0 to 2"),
        ("temperature = true", "temperature is not a number from 0 to 2"),
        ("top_p = nan", "top_p is not a number from 0 to 1"),
        ("max_tokens = 0", "max_tokens is not a whole number of 1 or more"),
        ("max_tokens = 1.5", "max_tokens is not a whole number of 1 or more"),
        ('effort = ""', "effort is not a string with text in it"),
        ("options = 3", "options is not a table of JSON values"),
        ("options = {stream = false}", "options is not a table of JSON values, without input, messages, model, stream"),
        ("options = {since = 2026-11-29}", "options is not a table of JSON values"),
        ("options = {bias = [inf]}", "options is not a table of JSON values"),
    ],
)
def test_an_invalid_parameter_is_refused_with_its_place(smai: Smai, config: Config, line: str, words: str) -> None:
    path = config(f"[profile.role]\n{line}\n")
    result = smai("ask", "-p", "role", "--mock", "hi")
    assert (result.status, result.stderr.count("\n")) == (2, 1)
    assert f"{path} [profile.role]: {words}" in result.stderr
