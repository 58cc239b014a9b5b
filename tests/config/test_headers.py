"""Servers with gateways: extra headers, a key in another header, and a key over plain http."""

import json
import os
import re
import subprocess
import threading
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import Config, Server, Smai
from rawserver import CLOSE_HEAD, KEY, Ask, RawServer, Request, Serve, Start, data, error_body, http, payload, until

from smai_cli.common.clocks import Deadline
from smai_cli.config.config_file import find_settings
from smai_cli.config.endpoint import find_endpoint, keyless_endpoint
from smai_cli.config.headers import typed_headers
from smai_cli.errors import UsageError

pytest_plugins = ["rawserver"]
pytestmark = pytest.mark.preloaded

SECRET = "hs-5c1d8f02b7e94"
ANSWER = (CLOSE_HEAD, data(payload("Tea.", "stop")), data("[DONE]"))
LIST = http("200 OK", json.dumps({"object": "list", "data": [{"id": "gpt-4.1"}]}).encode())


def fields(request: Request) -> dict[str, str]:
    """Return the headers of a request, names in lower case."""
    lines = request.head.decode().split("\r\n")[1:]
    return {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}


def host(server: RawServer) -> str:
    return server.url.removesuffix("/v1")


def private(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


# The requests in the documentation of each server.


class DocumentedRequest(NamedTuple):
    """A curl request from the documentation, and the profile that sends the same; HOST is the server's host."""

    place: str
    headers: tuple[str, ...]
    profile: str


AZURE = f"""
base_url = "HOST/openai/v1"
key_header = "api-key"
key_command = "echo {KEY}"
"""
AZURE_DEPLOYMENT = f"""
base_url = "HOST/openai/deployments/my-gpt/?api-version=2024-10-21"
key_header = "api-key"
key_command = "echo {KEY}"
"""
PORTKEY = f"""
base_url = "HOST/v1"
headers = {{ x-portkey-api-key = "{SECRET}", x-portkey-provider = "@openai-prod" }}
"""
OPENROUTER = f"""
base_url = "HOST/api/v1"
key_command = "echo {KEY}"
[profile.p.headers]
HTTP-Referer = "https://app.example"
X-Title = "My App"
"""
CLOUDFLARE = f"""
base_url = "HOST/v1/account/gateway/compat"
key_command = "echo {KEY}"
headers = {{ cf-aig-authorization = "Bearer {SECRET}" }}
"""
HELICONE = f"""
base_url = "HOST/v1"
key_command = "echo {KEY}"
headers = {{ Helicone-Auth = "Bearer {SECRET}" }}
"""
DOCUMENTED = {
    # learn.microsoft.com/azure/ai-foundry/openai/reference, and its v1 preview.
    "Azure": DocumentedRequest("/openai/v1/chat/completions", (f"api-key: {KEY}",), AZURE),
    "Azure, a deployment": DocumentedRequest(
        "/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21", (f"api-key: {KEY}",), AZURE_DEPLOYMENT
    ),
    # portkey.ai/docs/api-reference/inference-api/headers
    "Portkey": DocumentedRequest(
        "/v1/chat/completions", (f"x-portkey-api-key: {SECRET}", "x-portkey-provider: @openai-prod"), PORTKEY
    ),
    # openrouter.ai/docs/api-reference/overview
    "OpenRouter": DocumentedRequest(
        "/api/v1/chat/completions",
        (f"Authorization: Bearer {KEY}", "HTTP-Referer: https://app.example", "X-Title: My App"),
        OPENROUTER,
    ),
    # developers.cloudflare.com/ai-gateway/configuration/authentication
    "Cloudflare AI Gateway": DocumentedRequest(
        "/v1/account/gateway/compat/chat/completions",
        (f"Authorization: Bearer {KEY}", f"cf-aig-authorization: Bearer {SECRET}"),
        CLOUDFLARE,
    ),
    # docs.helicone.ai/getting-started/integration-method/gateway
    "Helicone": DocumentedRequest(
        "/v1/chat/completions", (f"Authorization: Bearer {KEY}", f"Helicone-Auth: Bearer {SECRET}"), HELICONE
    ),
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_request_has_the_documented_headers_of_the_server(
    serve: Serve, ask: Ask, config: Config, name: str
) -> None:
    documented, server = DOCUMENTED[name], serve(*ANSWER)
    shown = [f"-H{header}" for header in ("Content-Type: application/json", *documented.headers)]
    body = '{"model": "gpt-4.1", "messages": [{"role": "user", "content": "hi"}]}'
    subprocess.run(
        ["curl", "-sS", host(server) + documented.place, *shown, "-d", body], check=True, capture_output=True
    )
    config("[profile.p]" + documented.profile.replace("HOST", host(server)))

    assert ask(None, "-p", "p") == (0, b"Tea.\n", "")

    theirs, ours = server.requests
    assert ours.head.split(b"\r\n")[0] == theirs.head.split(b"\r\n")[0]
    wanted, sent = fields(theirs), fields(ours)
    own = {"user-agent", "accept", "accept-encoding", "connection", "content-length"}
    assert set(sent) - own == set(wanted) - own
    assert {name: sent[name] for name in wanted if name not in own} == {
        name: value for name, value in wanted.items() if name not in own
    }


@pytest.mark.parametrize("command", ["models", "doctor", "login"])
def test_every_command_that_sends_requests_sends_the_headers(
    serve: Serve, smai: Smai, config: Config, command: str
) -> None:
    server = serve(LIST)
    config(f'base_url = "{server.url}"\nkey_header = "api-key"\nheaders = {{X-Team = "{SECRET}"}}\n')
    result = smai(command, "-H", "X-Typed: 1", stdin=KEY.encode(), env={"SMAI_BASE_URL": server.url})
    assert result.status == 0
    sent = fields(server.requests[-1])
    assert (sent["x-team"], sent["x-typed"]) == (SECRET, "1")
    assert sent.get("api-key") == (KEY if command == "login" else None)
    assert "authorization" not in sent
    assert SECRET not in result.stdout.decode() + result.stderr


# Which headers are sent.


def test_typed_headers_override_configured_ones_ignoring_case(
    serve: Serve, ask: Ask, config: Config, tmp_path: Path
) -> None:
    server = serve(*ANSWER)
    config(f'base_url = "{server.url}"\n[headers]\nX-A = "configured"\nX-B = "configured"\nUser-Agent = "me"\n')
    file = private(tmp_path / "h", "X-C:  caf\u00e9 \r\n\nx-b: file\n")
    assert ask(None, "-H", "x-a: typed: 1", "-H", f"@{file}").status == 0
    sent = fields(server.requests[0])
    assert [sent[f"x-{name}"] for name in "abc"] == ["typed: 1", "file", "caf\u00e9"]
    assert sent["user-agent"] == "me"
    assert server.requests[0].head.lower().count(b"x-a:") == 1


def test_headers_are_read_from_a_pipe(serve: Serve, start: Start) -> None:
    server = serve(*ANSWER)
    line = f"smai ask --base-url {server.url} -n -H @<(echo 'X-Key: {SECRET}') hi"
    assert start(None, command=["bash", "-c", line]).end().status == 0
    assert fields(server.requests[0])["x-key"] == SECRET


def test_a_header_of_a_profile_goes_to_no_other_origin(serve: Serve, ask: Ask, config: Config) -> None:
    home, other = serve(*ANSWER), serve(*ANSWER)
    config(f'[profile.p]\nbase_url = "{home.url}"\nkey_header = "api-key"\nheaders = {{X-Key = "{SECRET}"}}\n')
    assert ask(other, "-p", "p", "--base-url", other.url).status == 0
    assert ask(other, "-p", "p").status == 0  # by SMAI_BASE_URL
    for request in other.requests:
        assert SECRET.encode() not in request.head
        assert fields(request)["authorization"] == f"Bearer {KEY}"
    assert ask(None, "-p", "p").status == 0
    assert fields(home.requests[0])["x-key"] == SECRET


@pytest.mark.parametrize(
    ("base_url", "names"),
    [
        (None, ["X-Own"]),
        ("https://own.example:443/other", ["X-Own"]),
        ("https://top.example/v1", ["X-Top"]),
        ("https://own.example:444/v1", []),
        ("https://sub.own.example/v1", []),
        ("http://own.example/v1", []),
        ("https://api.smai.ai/v1", []),
    ],
)
def test_headers_belong_to_the_base_url_in_their_table(tmp_path: Path, base_url: str | None, names: list[str]) -> None:
    (tmp_path / "smai").mkdir()
    (tmp_path / "smai" / "config.toml").write_text(
        'base_url = "https://top.example/v1"\nheaders = {X-Top = "1"}\n'
        '[profile.p]\nbase_url = "https://own.example/v1"\nheaders = {X-Own = "1"}\n'
    )
    environ = {"XDG_CONFIG_HOME": str(tmp_path), "SMAI_API_KEY": "sk-1"}
    endpoint = find_endpoint(base_url, None, environ, find_settings(environ, "p"))
    assert [header.name for header in endpoint.headers] == names


def test_headers_do_not_follow_a_redirect(serve: Serve, ask: Ask) -> None:
    other = serve(*ANSWER)
    server = serve(http("307 Temporary Redirect", b"", f"Location: {other.url}/chat/completions"))
    assert ask(None, "--base-url", server.url, "-H", f"X-Key: {SECRET}").status == 4
    assert other.connections == 0


def test_a_connect_request_to_a_proxy_has_neither_headers_nor_key(serve: Serve, ask: Ask, config: Config) -> None:
    proxy = serve(http("407 Proxy Authentication Required"), reads=lambda peer: Request(peer.recv(65536), b"", 0))
    config(f'base_url = "https://x.invalid/v1"\nkey_header = "api-key"\nkey_command = "echo {KEY}"\n')
    env = {"https_proxy": host(proxy)}
    assert ask(None, "-H", f"X-Key: {SECRET}", "--retries", "0", env=env).status == 3
    head = proxy.requests[0].head
    assert head.startswith(b"CONNECT x.invalid:443")
    assert SECRET.encode() not in head
    assert KEY.encode() not in head


# Values that are not shown.


def test_the_value_of_a_header_is_in_no_output(
    serve: Serve, smai: Smai, config: Config, tmp_path: Path, environment: dict[str, str]
) -> None:
    file = private(tmp_path / "h", f"X-File: Bearer 1st-{SECRET}\n")
    echo = f"bad token 1st-{SECRET} and 2nd-{SECRET} and 3rd-{SECRET}"
    refuses = serve(http("401 Unauthorized", error_body(echo)))
    answers = serve(*ANSWER)
    options = ["-H", f"@{file}", "-H", f"X-Typed: 3rd-{SECRET}", "-p", "p"]
    tape = tmp_path / "tape"
    seen = []
    for server in (refuses, answers):
        config(f'[profile.p]\nbase_url = "{server.url}"\nheaders = {{X-Profile = "2nd-{SECRET}"}}\n').chmod(0o600)
        seen.append(smai("ask", "-v", "--summary", "json", "--record", tape, *options, "hi"))
        seen += [smai(*words, *options) for words in (("models", "-v"), ("doctor",))]
    seen += [smai("ask", look, *options, "hi") for look in ("--dry-run", "--curl")]
    seen.append(smai("config", "-p", "p"))
    assert [result.status for result in seen] == [5, 5, 5, 0, 4, 4, 0, 0, 0]
    output = "".join(result.stdout.decode() + result.stderr for result in seen)
    assert SECRET not in output
    assert "bad token ... and ... and ..." in output
    assert all(name in output for name in ("X-File", "X-Typed", "X-Profile"))
    assert SECRET not in tape.read_text()
    assert f"3rd-{SECRET}" in answers.requests[0].head.decode()
    kept = [path for path in Path(environment["HOME"]).rglob("*") if path.is_file() and path.name != "config.toml"]
    assert not [path for path in kept if SECRET in path.read_text()]


def test_ps_does_not_show_headers_from_a_file_or_a_profile(
    serve: Serve, start: Start, config: Config, tmp_path: Path
) -> None:
    seen = threading.Event()
    server = serve(until(seen), *ANSWER)
    config(f'[profile.p]\nbase_url = "{server.url}"\nheaders = {{X-Profile = "profile-{SECRET}"}}\n')
    file = private(tmp_path / "h", f"X-File: file-{SECRET}\n")
    child = start(None, "-p", "p", "-H", f"@{file}")
    sent = fields(server.next_request())
    assert (sent["x-profile"], sent["x-file"]) == (f"profile-{SECRET}", f"file-{SECRET}")
    listed = subprocess.run(["ps", "axeww", "-o", "args"], capture_output=True, check=True).stdout
    assert str(file).encode() in listed
    assert SECRET.encode() not in listed
    seen.set()
    assert child.end().status == 0


@pytest.mark.parametrize(
    ("value", "said", "shown"),
    [
        ("Bearer sk-abcdefgh", "no sk-abcdefgh, Bearer sk-other", "no ..., Bearer sk-other"),
        ("https://app.example", "https://api.example and app.example", "https://api.example and ..."),
        ("id=abcdef0123; path=/", "no abcdef0123", "no ..."),
        ('{"api_key": "sk-abcdefgh"}', "no sk-abcdefgh", "no ..."),
        ("openai", "openai is down", "openai is down"),
        ("My Application", "the application of My Application", "the application of ..."),
    ],
)
def test_secret_parts_of_a_header_are_hidden_if_a_server_repeats_them(value: str, said: str, shown: str) -> None:
    headers = typed_headers([f"X-A: {value}"], Deadline())
    settings = find_settings({}, None)
    assert keyless_endpoint("https://x.example", settings, headers).secrets.hidden_in(said) == shown
    assert value not in repr(headers)


def test_the_curl_command_reads_headers_from_their_source_and_sends_the_same(
    serve: Serve, smai: Smai, config: Config, tmp_path: Path, environment: dict[str, str]
) -> None:
    server = serve(*ANSWER)
    config(
        f'base_url = "{server.url}"\nkey_header = "api-key"\nkey_command = "echo {KEY}"\n'
        f'headers = {{X-Profile = "{SECRET}"}}\n'
    )
    file = private(tmp_path / "it's a file", f"X-File: file-{SECRET}\r\n\r\nX-More: 1\r\n")
    given = ["-H", f"@{file}", "-H", f"X-Typed: {SECRET} $HOME `id`"]
    command = smai("ask", "--curl", *given, "hi")
    assert command.status == 0
    assert command.stderr == (
        "smai: the command has the names of headers only; before it runs, set HEADER_X_TYPED, HEADER_X_PROFILE\n"
    )
    unset = subprocess.run(["sh", "-c", command.stdout], env=environment, capture_output=True, check=False)
    assert unset.returncode != 0
    assert server.connections == 0
    values = {"HEADER_X_TYPED": f"{SECRET} $HOME `id`", "HEADER_X_PROFILE": SECRET}
    subprocess.run(["sh", "-c", command.stdout], env=environment | values, capture_output=True, check=True)
    assert smai("ask", *given, "hi").status == 0
    theirs, ours = map(fields, server.requests)
    own = {"accept-encoding", "connection"}
    assert {name: value for name, value in ours.items() if name not in own} == theirs


def test_a_preview_names_the_source_of_each_header(smai: Smai, config: Config, tmp_path: Path) -> None:
    path = config('base_url = "https://x.example/v1"\n\nheaders = {X-Profile = "1"}\n')
    file = private(tmp_path / "h", "\nX-File: 1\n")
    shown = json.loads(smai("ask", "--dry-run", "-H", f"@{file}", "-H", "accept-Language: de", "hi").stdout)["headers"]
    assert shown["X-Profile"] == f"({path})"
    assert shown["X-File"] == f"({file}:2)"
    assert shown["accept-Language"] == "(-H number 2)"


def test_config_shows_the_names_of_headers_and_stays_a_configuration_file(smai: Smai, config: Config) -> None:
    path = config(
        '[profile.p]\nbase_url = "http://192.0.2.1/v1"\nallow_http = true\nkey_header = "api-key"\n'
        f'headers = {{X-Key = "{SECRET}"}}\n'
    )
    result = smai("config", "-p", "p")
    assert SECRET.encode() not in result.stdout
    assert re.search(
        rf'^# headers = {{"X-Key" = "..."}} +# {path} \[profile.p\]$'.encode(), result.stdout, re.MULTILINE
    )
    assert re.search(rb'^key_header = "api-key" ', result.stdout, re.MULTILINE)
    path.write_bytes(result.stdout)
    assert smai("config").status == 0


# Invalid headers.


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("authorization: Bearer x", "-H: smai sets the header authorization itself; give the key"),
        ("Host: x", "smai sets the header Host itself"),
        ("Content-Length: 1", "itself; leave it out"),
        ("Transfer-Encoding: chunked", "itself; leave it out"),
        ("Content-Type: text/plain", "itself; leave it out"),
        ("Accept: */*", "itself; leave it out"),
        ("Connection: close", "itself; leave it out"),
        ("Proxy-Authorization: x", "put user and password into HTTPS_PROXY"),
        ("hush-hush", "-H: a header without a colon"),
        ("hush hush: x", "is not a header name"),
        ("hush\u00e9: x", "is not a header name"),
        (": hush", "is not a header name"),
        ("X-A:  ", "the header X-A has no value; write 'Name: value', in quotes; is a variable empty?"),
        ("X-A: hush\r\nX-Evil: 1", "the value of the header X-A contains a line end"),
        ("X-A: hush\nX-Evil: 1", "contains a line end"),
        ("X-A: hush\x00", "contains a line end"),
        ("X-A: hush\u200b", "invisible character"),
        ("@", "-H @ needs a file name"),
        ("@-", "-H @- needs a file name"),
    ],
)
def test_an_invalid_header_is_one_line_that_does_not_show_it(header: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        typed_headers([header], Deadline())
    assert words in str(caught.value)
    assert "hush" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_header_given_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="-H number 2: the header x-a is given twice"):
        typed_headers(["X-A: 1", "x-a: 2"], Deadline())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["-H", "Authorization: hush"], "smai sets the header Authorization itself"),
        (["--mock", "-H", "X-A: hush"], "--mock and --header cannot be combined"),
        (["--base-url", "http://192.0.2.1/v1", "-H", "X-A: hush"], "a header of -H never goes over plain http to"),
    ],
)
@pytest.mark.parametrize("command", [("ask", "hi"), ("ask", "hi", "--curl"), ("models",)])
def test_an_invalid_header_is_status_2(smai: Smai, command: tuple[str], flags: list[str], words: str) -> None:
    if "--curl" in command and "--mock" in flags:
        return  # a preview works with --mock
    result = smai(*command, *flags)
    assert (result.status, result.stdout, result.stderr.count("\n")) == (2, b"", 1)
    assert words in result.stderr
    assert "hush" not in result.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "No such file"),
        ("", "is empty; put lines into it"),
        ("X-A: 1\nhush", ":2: a header without a colon"),
        ("X-A: 1\n X-B: hush\n", ":2: the text before the colon is not a header name"),
        ("X-A: a\rhush\n", ":1: the value of the header X-A contains a line end"),
        ("X-A: 1\nX-a: hush\n", ":2: the header X-a is given twice"),
        ("Host: hush\n", ":1: smai sets the header Host itself"),
    ],
)
def test_an_invalid_header_file_is_reported_with_the_line_number(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "h"
    if text is not None:
        private(path, text)
    with pytest.raises(UsageError) as caught:
        typed_headers([f"@{path}"], Deadline())
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_header_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = private(tmp_path / "h", "X-A: 1\n")
    path.chmod(0o640)
    with pytest.raises(UsageError, match=f"others can read the header file {path}; run chmod 600 {path}"):
        typed_headers([f"@{path}"], Deadline())


def test_max_time_ends_the_wait_for_headers_from_a_pipe(smai: Smai, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    result = smai("models", "--base-url", "http://127.0.0.1:1", "-H", f"@{tmp_path / 'pipe'}", "--max-time", "0.3")
    assert result.status == 7


def test_a_header_file_is_not_part_of_the_prompt_and_is_not_written(smai: Smai, tmp_path: Path) -> None:
    path = private(tmp_path / "h", f"X-A: {SECRET}\n")
    with path.open() as stdin:
        result = smai("ask", "-H", "@/dev/stdin", "hi", stdin=stdin)
    assert (result.status, "-H and stdin are the same file" in result.stderr) == (2, True)
    result = smai("ask", "-H", f"@{path}", "-o", path, "hi")
    assert (result.status, "are the same file" in result.stderr) == (2, True)
    assert path.read_text() == f"X-A: {SECRET}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('headers = "X-A: hush"\n', ": headers is not a table of strings"),
        ("[headers]\n\nX-A = 1\n", ": headers is not a table of strings"),
        ('[headers]\n\nHost = "hush"\n', ": smai sets the header Host itself; leave it out"),
        ('[headers]\n"X A" = "hush"\n', ": the text before the colon is not a header name"),
        ('[profile.p.headers]\n\nX-A = "hush\\n"\n', " [profile.p]: the value of the header X-A contains a line end"),
        ('[headers]\nX-A = ""\n', ": the header X-A has no value"),
        ('[headers]\nX-A = "1"\nx-a = "hush"\n', ": the header x-a is given twice"),
        ('key_header = "Authorization"\n', ": smai sets the header Authorization itself"),
        ('key_header = "a b"\n', ": the text before the colon is not a header name"),
        ('base_url = "http://x.example"\nallow_http = true\n', ": allow_http at the top would be for every server"),
        ("[profile.p]\nallow_http = true\n", " [profile.p]: allow_http without a base_url"),
        ('[profile.p]\nbase_url = "http://x"\nallow_http = 1\n', " [profile.p]: allow_http is not true or false"),
    ],
)
def test_a_mistake_in_the_configuration_names_its_table(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "smai").mkdir()
    (tmp_path / "smai" / "config.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        find_settings({"XDG_CONFIG_HOME": str(tmp_path)}, None)
    assert words in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_header_with_the_name_of_the_key_header_is_refused(smai: Smai, config: Config) -> None:
    config('base_url = "https://x.example/v1"\nkey_header = "api-key"\n')
    result = smai("ask", "-H", "Api-Key: 1", "hi")
    assert result[:2] == (2, b"")
    assert "the header api-key is reserved for the key" in result.stderr


# Plain http.


def through_proxy(proxy: RawServer) -> dict[str, str]:
    return {"http_proxy": host(proxy)}


LAN = f"""
[profile.lan]
base_url = "http://lan.invalid:8000/v1"
allow_http = true
key_command = "echo {KEY}"
headers = {{ X-Key = "{SECRET}" }}
[profile.strict]
base_url = "http://lan.invalid:8000/v1"
key_command = "echo {KEY}"
"""


def test_a_profile_lets_a_key_and_headers_go_over_plain_http_to_its_server(
    serve: Serve, ask: Ask, config: Config
) -> None:
    proxy = serve(*ANSWER)  # in place of the network
    config(LAN)
    assert ask(None, "-p", "lan", env=through_proxy(proxy)) == (0, b"Tea.\n", "")
    sent = fields(proxy.requests[0])
    assert (sent["authorization"], sent["x-key"]) == (f"Bearer {KEY}", SECRET)


@pytest.mark.parametrize(
    ("flags", "env"),
    [
        (["-p", "strict"], {}),
        (["-p", "lan", "--base-url", "http://lan.invalid:8001/v1"], {"SMAI_BASE_URL": "http://lan.invalid:8001"}),
        ([], {"SMAI_PROFILE": "lan", "SMAI_BASE_URL": "http://other.invalid:8000/v1"}),
    ],
)
def test_no_other_server_gets_a_key_over_plain_http(
    serve: Serve, ask: Ask, config: Config, flags: list[str], env: dict[str, str]
) -> None:
    proxy = serve(*ANSWER)
    config(LAN)
    result = ask(None, *flags, env={"SMAI_API_KEY": KEY, **env} | through_proxy(proxy))
    assert result[:2] == (2, b"")
    assert "a key never goes over plain http to" in result.stderr
    assert proxy.connections == 0


def test_doctor_warns_of_plain_http_and_of_headers_that_others_can_read(
    serve: Serve, smai: Smai, config: Config
) -> None:
    proxy = serve(LIST)
    path = config(LAN)
    path.chmod(0o644)
    result = smai("doctor", "--json", "-p", "lan", env=through_proxy(proxy))
    checks = {check["check"]: check for check in map(json.loads, result.stdout.decode().splitlines())}
    assert result.status == 0
    assert checks["key"]["ok"] is True
    assert "anyone on the network path can read it" in checks["key"]["hint"]
    assert checks["key"]["detail"].endswith(", with the headers X-Key")
    assert checks["configuration"]["hint"] == f"others can read it, and it has headers: run chmod 600 {path}"
    path.chmod(0o600)
    assert b"chmod" not in smai("doctor", "-p", "lan", env=through_proxy(proxy)).stdout


def test_login_stores_a_key_for_a_server_with_allow_http(serve: Serve, smai: Smai, config: Config) -> None:
    proxy = serve(LIST)
    config(LAN)
    assert smai("login", "-p", "strict", stdin=KEY.encode(), env=through_proxy(proxy)).status == 2
    assert smai("login", "-p", "lan", stdin=KEY.encode(), env=through_proxy(proxy)).status == 0
    assert fields(proxy.requests[0])["authorization"] == f"Bearer {KEY}"


# Other commands.


def test_tab_completes_the_header_option(smai: Smai) -> None:
    asked = {"COMP_WORDS": "smai models --he", "COMP_CWORD": "2", "_SMAI_COMPLETE": "bash_complete"}
    assert b"plain,--header" in smai(env=asked).stdout


def test_without_headers_their_module_is_not_loaded(smai: Smai, server: Server, config: Config) -> None:
    mock = server()
    config(f'base_url = "{mock.url}"\n')
    result = smai("ask", "hi", env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert result.status == 0
    assert "smai_cli.config.endpoint" in result.stderr
    assert "smai_cli.config.headers" not in result.stderr
