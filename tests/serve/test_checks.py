"""The checks of the gateway, and their order. No refused request reaches the upstream server."""

import json

import pytest
from gateways import ALONE, CHAT, QUESTION, TOKEN, Answer, Client, Start, ask, request
from rawserver import HEAD, HELLO, Serve, chunk, hold, http

from smai_cli.serve.gateway import Gateway
from smai_cli.serve.limits import ClientLimits

pytest_plugins = ["rawserver", "gateways"]

GOOD = http("200 OK", b'{"good": true}', "Content-Type: application/json")
ALWAYS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


def fair(answer: Answer) -> Answer:
    """Return `answer` after checking the headers that every answer has."""
    assert {name: answer.headers.get(name) for name in ALWAYS} == ALWAYS
    assert not [name for name in answer.headers if name.startswith("access-control") or name == "set-cookie"]
    return answer


@pytest.fixture
def running(serve: Serve, gateway: Start) -> Gateway:
    return gateway(serve(GOOD).url)


def test_the_checks_run_in_their_order_and_a_request_that_passes_all_is_forwarded(serve: Serve, gateway: Start) -> None:
    server = serve(GOOD)
    port = (running := gateway(server.url)).port
    # Every line is wrong; each is corrected in turn, and then the next check refuses the request.
    wrong = {
        "host": "Host: evil.test",
        "origin": "Origin: http://evil.test",
        "site": "Sec-Fetch-Site: cross-site",
        "path": "/v1/nothing",
        "method": "GET",
        "token": "Authorization: Bearer wrong",
        "type": "Content-Type: text/plain",
        "length": "Transfer-Encoding: chunked",
        "size": "Content-Length: 67108865",
    }
    right = {
        "host": f"Host: 127.0.0.1:{port}",
        "origin": f"Origin: http://127.0.0.1:{port}",
        "site": "Sec-Fetch-Site: same-origin",
        "path": CHAT,
        "method": "POST",
        "token": f"Authorization: Bearer {TOKEN}",
        "type": "Content-Type: application/json",
        "length": "X: y",
        "size": f"Content-Length: {len(ALONE)}",
    }
    seen = []
    for mended in range(len(wrong) + 1):
        parts = {name: (right if at < mended else wrong)[name] for at, name in enumerate(wrong)}
        fields = [parts[name] for name in ("host", "origin", "site", "token", "type", "length", "size")]
        head = "\r\n".join([f"{parts['method']} {parts['path']} HTTP/1.1", *fields, "", ""])
        with Client(port) as client:
            client.send(head.encode() + (ALONE if mended == len(wrong) else b""))
            answer = fair(client.answer())
        seen.append((answer.status, answer.error["code"] if answer.status != 200 else "good"))
        assert len(server.requests) == (mended == len(wrong)), parts
    assert seen == [
        (403, "foreign_host"),
        (403, "foreign_origin"),
        (403, "cross_site"),
        (404, "not_found"),
        (405, "method_not_allowed"),
        (401, "invalid_api_key"),
        (415, "unsupported_media_type"),
        (411, "length_required"),
        (413, "request_too_large"),
        (200, "good"),
    ]
    assert running.streams.acquire(blocking=False)


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        pytest.param(["Host: 127.0.0.1:{port}"], 200, id="127.0.0.1"),
        # It may mean ::1, where another user can listen on the same port.
        pytest.param(["Host: localhost:{port}"], 403, id="localhost"),
        pytest.param([], 403, id="none"),
        pytest.param(["Host:"], 403, id="empty"),
        pytest.param(["Host: 127.0.0.1"], 403, id="without-the-port"),
        pytest.param(["Host: 127.0.0.1:1"], 403, id="another-port"),
        pytest.param(["Host: evil.test:{port}"], 403, id="rebinding"),
        pytest.param(["Host: localhost.:{port}"], 403, id="with-a-dot"),
        pytest.param(["Host: [::1]:{port}"], 403, id="ipv6"),
        pytest.param(["Host: 127.0.0.1:{port}@evil.test"], 403, id="user"),
        pytest.param(["Host: evil.test, 127.0.0.1:{port}"], 403, id="a-list"),
        pytest.param(["Host: 127.0.0.1:{port}", "Host: 127.0.0.1:{port}"], 403, id="twice"),
        pytest.param(["Host: 127.0.0.1:{port}", "hOST: evil.test"], 403, id="twice-and-foreign"),
        pytest.param(["X-Forwarded-Host: 127.0.0.1:{port}", "Host: evil.test"], 403, id="forwarded"),
    ],
)
@pytest.mark.parametrize("path", ["/", "/config.json", "/v1/models"])
def test_a_request_needs_exactly_one_host_header_that_names_this_server(
    running: Gateway, lines: list[str], status: int, path: str
) -> None:
    more = [line.format(port=running.port) for line in lines]
    assert fair(ask(running, "GET", path, None, *more, without=("host",))).status == status


def test_a_request_after_dns_rebinding_is_refused_although_its_origin_matches(running: Gateway) -> None:
    evil = f"evil.test:{running.port}"
    answer = ask(running, "POST", CHAT, QUESTION, f"Host: {evil}", f"Origin: http://{evil}", without=("host",))
    assert (answer.status, answer.error["code"]) == (403, "foreign_host")


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        pytest.param(["Origin: http://127.0.0.1:{port}"], 200, id="this-one"),
        pytest.param(["Origin: http://localhost:{port}"], 403, id="localhost"),
        pytest.param(["Origin: null"], 403, id="null"),
        pytest.param(["Origin:"], 403, id="empty"),
        pytest.param(["Origin: http://evil.test"], 403, id="foreign"),
        pytest.param(["Origin: https://127.0.0.1:{port}"], 403, id="another-scheme"),
        pytest.param(["Origin: http://127.0.0.1:1"], 403, id="another-port"),
        pytest.param(["Origin: http://127.0.0.1:{port}.evil.test"], 403, id="a-beginning"),
        pytest.param(["Origin: http://127.0.0.1:{port}", "Origin: http://127.0.0.1:{port}"], 403, id="twice"),
    ],
)
@pytest.mark.parametrize("path", ["/", "/v1/models"])
def test_a_request_is_refused_unless_its_origin_is_this_server(
    running: Gateway, lines: list[str], status: int, path: str
) -> None:
    more = [line.format(port=running.port) for line in lines]
    assert fair(ask(running, "GET", path, None, *more)).status == status


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["Sec-Fetch-Site: same-origin"], 200),
        (["Sec-Fetch-Site: none"], 200),
        (["Sec-Fetch-Site: same-site"], 403),
        (["Sec-Fetch-Site: cross-site"], 403),
        (["Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"], 403),
        (["Sec-Fetch-Site:"], 403),
    ],
)
def test_a_page_on_another_port_of_this_machine_is_refused(running: Gateway, lines: list[str], status: int) -> None:
    assert fair(ask(running, "GET", "/v1/models", None, *lines)).status == status
    assert ask(running, "GET", "/v1", None, *lines).status == (404 if status == 200 else 403)
    # A link from anywhere may lead to the page.
    assert fair(ask(running, "GET", "/", None, *lines)).status == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/page.js", 200),
        ("/sse.js", 200),
        ("/verdict.js", 200),
        ("/page.css", 200),
        ("/config.json", 200),
        ("/?x=y", 200),
        ("/index.html", 404),
        ("/favicon.ico", 404),
        ("//", 404),
        ("/../etc/passwd", 404),
        ("/..%2f..%2fetc%2fpasswd", 404),
        ("/page.js/../gateway.py", 404),
        ("/page%2Ejs", 404),
        ("/page.js%00", 404),
        ("/__init__.py", 404),
        ("page.js", 404),
        ("*", 404),
        ("/v1", 404),
        ("/v1/", 404),
        ("/v1/models", 200),
        ("/v1/models/", 404),
        ("/v1/models?limit=1", 404),
        ("/v1/%6dodels", 404),
        ("/v1/../v1/models", 404),
        ("//v1/models", 404),
        ("/v1/models/gpt-4.1", 404),
        ("/v1/embeddings", 404),
        ("/V1/models", 404),
        ("http://127.0.0.1:{port}/v1/models", 200),
        ("HTTP://127.0.0.1:{port}/page.js", 200),
        ("http://localhost:{port}/page.js", 403),
        ("http://127.0.0.1:{port}", 200),
        ("http://evil.test/v1/models", 403),
        ("http://127.0.0.1:{port}@evil.test/", 403),
        ("https://127.0.0.1:{port}/", 404),
    ],
)
def test_every_undocumented_path_is_refused(running: Gateway, path: str, status: int) -> None:
    answer = fair(ask(running, "GET", path.format(port=running.port), None))
    assert answer.status == status
    assert "passwd" not in answer.headers.get("content-type", "")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("OPTIONS", CHAT, "POST"),
        ("OPTIONS", "/v1/models", "GET"),
        ("OPTIONS", "/", "GET, HEAD"),
        ("OPTIONS", "*", "GET, HEAD, POST"),
        ("OPTIONS", "/nothing", "GET, HEAD, POST"),
        ("GET", CHAT, "POST"),
        ("HEAD", CHAT, "POST"),
        ("HEAD", "/v1/models", "GET"),
        ("POST", "/v1/models", "GET"),
        ("POST", "/", "GET, HEAD"),
        ("PUT", CHAT, "POST"),
        ("DELETE", "/page.js", "GET, HEAD"),
        ("TRACE", "/", "GET, HEAD"),
        ("CONNECT", "127.0.0.1:443", "GET, HEAD, POST"),
        ("get", "/", "GET, HEAD"),
    ],
)
def test_other_http_methods_and_foreign_pages_are_refused(
    running: Gateway, method: str, path: str, allowed: str
) -> None:
    lines = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization")
    answer = fair(ask(running, method, path, None, *lines))
    assert (answer.status, answer.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([], id="missing"),
        pytest.param(["Authorization:"], id="empty"),
        pytest.param(["Authorization: Bearer"], id="no-token"),
        pytest.param([f"Authorization: Bearer {TOKEN}x"], id="longer"),
        pytest.param([f"Authorization: Bearer {TOKEN[:-1]}"], id="shorter"),
        pytest.param([f"Authorization: Bearer {TOKEN.upper()}"], id="upper-case"),
        pytest.param([f"Authorization: Basic {TOKEN}"], id="another-scheme"),
        pytest.param([f"Authorization: {TOKEN}"], id="no-scheme"),
        pytest.param([f"Authorization: Bearer {TOKEN}, Bearer {TOKEN}"], id="a-list"),
        pytest.param([f"Authorization: Bearer {TOKEN}", f"Authorization: Bearer {TOKEN}"], id="twice"),
        pytest.param([f"Authorization: Bearer {TOKEN}", "Authorization: Bearer x"], id="next-to-another"),
        pytest.param(["Authorization: Bearer tök"], id="not-ascii"),
        pytest.param([f"Cookie: token={TOKEN}"], id="cookie"),
        pytest.param([f"X-Api-Key: {TOKEN}"], id="another-header"),
        pytest.param([f"Proxy-Authorization: Bearer {TOKEN}"], id="proxy"),
    ],
)
def test_a_request_without_the_token_is_not_forwarded(serve: Serve, gateway: Start, lines: list[str]) -> None:
    server = serve(GOOD)
    running = gateway(server.url)
    for method, path, body in (("POST", CHAT, QUESTION), ("GET", "/v1/models", None)):
        answer = fair(ask(running, method, path, body, *lines, without=("authorization",)))
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert answer.error["code"] == "invalid_api_key"
    assert server.connections == 0


def test_the_authorization_scheme_is_not_case_sensitive(running: Gateway) -> None:
    lines = [f"Authorization: bEARER {TOKEN}"]
    assert ask(running, "GET", "/v1/models", None, *lines, without=("authorization",)).status == 200


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["Content-Type: application/json"], 200),
        (["Content-Type: Application/JSON; charset=utf-8"], 200),
        ([], 415),
        (["Content-Type: text/plain"], 415),
        (["Content-Type: text/plain; x=application/json"], 415),
        (["Content-Type: application/x-www-form-urlencoded"], 415),
        (["Content-Type: application/jsonx"], 415),
        (["Content-Type: text/plain, application/json"], 415),
        (["Content-Type: application/json", "Content-Type: text/plain"], 415),
        (["Content-Type: application/json", "Content-Encoding: gzip"], 415),
        (["Content-Type: application/json", "Content-Encoding: identity"], 200),
    ],
)
def test_an_html_form_cannot_send_a_request(running: Gateway, lines: list[str], status: int) -> None:
    assert fair(ask(running, "POST", CHAT, QUESTION, *lines, without=("content-type",))).status == status


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([], 411),
        (["Transfer-Encoding: chunked"], 411),
        (["Transfer-Encoding: chunked", f"Content-Length: {len(QUESTION)}"], 411),
        (["Transfer-Encoding: identity", f"Content-Length: {len(QUESTION)}"], 411),
        ([f"Content-Length: {len(QUESTION)}", f"Content-Length: {len(QUESTION)}"], 411),
        ([f"Content-Length: {len(QUESTION)}", "Content-Length: 1"], 411),
        ([f"Content-Length: {len(QUESTION)}, {len(QUESTION)}"], 411),
        ([f"Content-Length: +{len(QUESTION)}"], 411),
        (["Content-Length: -1"], 411),
        (["Content-Length: 0x10"], 411),
        (["Content-Length: 1_0"], 411),
        (["Content-Length: \xb2"], 411),
        (["Content-Length:"], 411),
        ([f"Content-Length: 00{len(QUESTION)}"], 200),
        (["Content-Length: 67108865"], 413),
        (["Content-Length: " + "9" * 5000], 413),
    ],
)
def test_a_request_with_a_body_needs_one_valid_content_length(running: Gateway, lines: list[str], status: int) -> None:
    assert fair(ask(running, "POST", CHAT, QUESTION, *lines, without=("content-length",))).status == status


def test_a_body_of_64_mib_is_accepted_and_one_more_byte_is_refused(serve: Serve, gateway: Start) -> None:
    server = serve(GOOD)
    running = gateway(server.url)
    largest = b'"' + b"x" * (64 * 1024 * 1024 - 2) + b'"'
    assert ask(running, "POST", CHAT, largest).status == 200
    assert server.requests[0].body == largest
    # All of it is sent, and the answer is there nevertheless.
    assert ask(running, "POST", CHAT, largest + b" ").status == 413
    assert server.connections == 1


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"GET /\r\n\r\n", id="http-0.9"),
        pytest.param(b"GET  / HTTP/1.1\r\n\r\n", id="two-spaces"),
        pytest.param(b"GET /a b HTTP/1.1\r\n\r\n", id="space-in-the-target"),
        pytest.param(b"GET / http/1.1\r\n\r\n", id="lower-case"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\r\n", id="tls"),
        pytest.param(b"GET /\xe4 HTTP/1.1\r\n\r\n", id="not-ascii"),
        pytest.param(b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", id="space-before-the-colon"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n y\r\n\r\n", id="folded"),
        pytest.param(b"GET / HTTP/1.1\r\n Host: x\r\n\r\n", id="folded-first"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\rOrigin: y\r\n\r\n", id="bare-cr"),
        pytest.param(b"GET / HTTP/1.1\r\nX: \x00\r\n\r\n", id="nul"),
        pytest.param(b"GET / HTTP/1.1\r\nHost\r\n\r\n", id="no-colon"),
        pytest.param(b"GET / HTTP/1.1\r\n: x\r\n\r\n", id="no-name"),
    ],
)
def test_a_malformed_request_is_refused(running: Gateway, head: bytes) -> None:
    with Client(running.port) as client:
        client.send(head)
        answer = fair(client.answer())
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        assert client.is_closed()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        pytest.param(b"GET / HTTP/2.0\r\n\r\n", 505, id="http-2"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, id="preface"),
        pytest.param(b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\n\r\n", 414, id="long-line"),
        pytest.param(b"GET / HTTP/1.1\r\nX: " + b"x" * 20000 + b"\r\n\r\n", 431, id="long-field"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 101 + b"\r\n", 431, id="many-fields"),
        pytest.param(b"GET / HTTP/1.1\r\n" + (b"X: " + b"x" * 10000 + b"\r\n") * 7, 431, id="a-large-head"),
    ],
)
def test_a_flood_of_headers_ends_soon(running: Gateway, head: bytes, status: int) -> None:
    with Client(running.port) as client:
        client.send(head)
        assert fair(client.answer()).status == status


def test_headers_and_a_body_that_arrive_slowly_have_a_time_limit(serve: Serve, gateway: Start) -> None:
    server = serve(GOOD)
    running = gateway(server.url, limits=ClientLimits(head_s=0.2, body_s=0.2, linger_s=0.1))
    sent = request(running.port)
    for part in (sent[:20], sent[:-5]):
        with Client(running.port) as client:
            client.send(part)
            answer = fair(client.answer())
            assert (answer.status, answer.error["code"]) == (408, "timeout")
            assert client.is_closed()
    assert server.connections == 0


def test_an_idle_connection_is_closed(gateway: Start, serve: Serve) -> None:
    hasty = gateway(serve(GOOD).url, limits=ClientLimits(idle_s=0.1))
    with Client(hasty.port) as client:
        assert client.is_closed()
    with Client(hasty.port) as client:
        client.send(request(hasty.port, "GET", "/", None))
        assert client.answer().status == 200
        assert client.is_closed()


def test_connections_without_a_token_are_closed_for_new_ones(gateway: Start, serve: Serve) -> None:
    small = gateway(serve(GOOD).url, limits=ClientLimits(connections=3))
    held = [Client(small.port) for _ in range(3)]
    for client in held:
        client.send(request(small.port, "GET", "/", None, without=("authorization",)))
        assert client.answer().status == 200
    assert ask(small, "GET", "/", None).status == 200
    assert held[0].is_closed(), "the one that waited longest"
    held[1].send(request(small.port))
    assert held[1].answer().status == 200
    for client in held:
        client.close()


def test_connections_with_an_answer_are_not_closed_for_new_ones(gateway: Start, serve: Serve) -> None:
    small = gateway(serve(HEAD, chunk(HELLO), hold).url, limits=ClientLimits(connections=2))
    held = [Client(small.port) for _ in range(2)]
    for client in held:
        client.send(request(small.port))
        assert client.begun().read1(1000) == HELLO
    with Client(small.port) as client:
        assert client.is_closed()
    for client in held:
        client.close()


def test_sending_the_page_to_a_client_that_does_not_read_has_a_time_limit(gateway: Start, serve: Serve) -> None:
    lines: list[str] = []
    hasty = gateway(serve(GOOD).url, limits=ClientLimits(write_s=0.2), trace=lines.append)
    page = request(hasty.port, "GET", "/page.js", None, without=("authorization",))
    with Client(hasty.port) as client:
        client.send_until_full(page * 100)
        assert client.wait_for_reset()
    assert lines[-1].endswith(", not read by the client")


def test_the_body_is_requested_only_if_the_request_is_allowed(running: Gateway) -> None:
    expects = request(running.port, "POST", CHAT, QUESTION, "Expect: 100-continue").removesuffix(QUESTION)
    with Client(running.port) as client:
        client.send(expects)
        assert client.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(QUESTION)
        assert client.answer().status == 200
    with Client(running.port) as client:
        client.send(expects.replace(TOKEN.encode(), b"wrong"))
        assert client.answer().status == 401


def test_a_connection_is_kept_open_and_requests_may_be_pipelined(running: Gateway) -> None:
    page = request(running.port, "GET", "/page.js", None)
    with Client(running.port) as client:
        for _ in range(3):
            client.send(request(running.port))
            assert client.answer().body == b'{"good": true}'
        # Raw consecutive answers: the buffered reader of http.client would read too far.
        client.send(page + page + request(running.port, "GET", "/nothing", None, "Connection: close"))
        came = b"".join(iter(lambda: client.socket.recv(65536), b""))
    assert [part[:3] for part in came.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"404"]


def test_bytes_after_a_refused_body_are_not_a_request(serve: Serve, gateway: Start) -> None:
    server = serve(GOOD)
    running = gateway(server.url)
    smuggled = request(running.port)
    with Client(running.port) as client:
        client.send(request(running.port, "POST", CHAT, smuggled, without=("authorization",)))
        assert client.answer().status == 401
        assert client.is_closed()
    with Client(running.port) as client:
        client.send(request(running.port, "GET", "/", None, f"Content-Length: {len(smuggled)}") + smuggled)
        assert client.answer("GET").status == 200
        assert client.is_closed()
    assert server.connections == 0


def test_a_head_request_is_answered_without_a_body(running: Gateway) -> None:
    with Client(running.port) as client:
        client.send(request(running.port, "HEAD", "/page.css", None) * 2)
        head = client.socket.recv(65536)
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"Content-Length: " in head
        assert head.replace(b"\r\n\r\nHTTP/1.1 200", b"").endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("path", "lines", "status"),
    [(CHAT, [], 405), ("/nothing", [], 404), ("/", ["Origin: http://evil.test"], 403), ("/config.json", [], 405)],
)
def test_the_answer_to_a_refused_head_request_has_no_body(
    running: Gateway, path: str, lines: list[str], status: int
) -> None:
    with Client(running.port) as client:
        client.send(request(running.port, "HEAD", path, None, *lines, "Connection: close"))
        came = b"".join(iter(lambda: client.socket.recv(65536), b""))
    assert came.startswith(b"HTTP/1.1 %d " % status)
    assert came.endswith(b"\r\n\r\n")
    assert came.count(b"\r\n\r\n") == 1


def test_the_settings_of_the_page_need_the_token(running: Gateway) -> None:
    answer = fair(ask(running, "GET", "/config.json", None))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert json.loads(answer.body) == {"model": "m", "system": None, "server": ""}
    assert fair(ask(running, "GET", "/config.json", None, without=("authorization",))).status == 401
    assert fair(ask(running, "GET", "/config.json", None, "Sec-Fetch-Site: same-site")).status == 403


def test_static_files_have_their_types_and_no_secret(running: Gateway) -> None:
    types = {
        "/": "text/html; charset=utf-8",
        "/page.js": "text/javascript; charset=utf-8",
        "/sse.js": "text/javascript; charset=utf-8",
        "/verdict.js": "text/javascript; charset=utf-8",
        "/page.css": "text/css; charset=utf-8",
    }
    for path, kind in types.items():
        answer = fair(ask(running, "GET", path, None, without=("authorization",)))
        assert (answer.status, answer.headers["content-type"]) == (200, kind)
        assert TOKEN.encode() not in answer.body


def test_http_1_0_is_answered_and_its_connection_closed(running: Gateway) -> None:
    for path in ("/", "/v1/models"):
        old = request(running.port, "GET", path, None).replace(b"HTTP/1.1", b"HTTP/1.0")
        with Client(running.port) as client:
            client.send(old)
            answer = fair(client.answer())
            assert (answer.status, answer.is_cut, "transfer-encoding" in answer.headers) == (200, False, False)
            assert client.is_closed()
