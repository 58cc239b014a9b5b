"""`-a`: an image or a text, detected by its content, reaches the server completely, or nothing is sent."""

import base64
import os
import re
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import Server, Smai, assert_refused
from hypothesis import given
from hypothesis import strategies as st
from process import SMAI

from smai_cli.mock.server import Mock
from smai_cli.prompt.attachments import Attachment, content_with, read_attachment

pytestmark = pytest.mark.preloaded

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
IMAGES = [
    (PNG, "image/png"),
    (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\xff\xd9", "image/jpeg"),
    (b"GIF89a\x01\x00\x01\x00\x00;", "image/gif"),
    (b"GIF87a\x01\x00\x01\x00\x00;", "image/gif"),
    (b"RIFF\x0a\x0d\x00\x00WEBPVP8 ", "image/webp"),
]


def content(mock: Mock) -> Any:
    """Return the content of the last message of the one request that `mock` received."""
    (request,) = mock.received
    return request.json["messages"][-1]["content"]


def image_part(data: bytes, media_type: str = "image/png") -> dict[str, Any]:
    """Return the part for an image, as in the chat API's reference."""
    return {"type": "image_url", "image_url": {"url": f"data:{media_type};base64,{base64.b64encode(data).decode()}"}}


def test_images_are_recognised_by_their_content_and_not_by_their_names(
    smai: Smai, server: Server, tmp_path: Path
) -> None:
    flags: list[Any] = []
    for number, (data, _) in enumerate(IMAGES):
        path = tmp_path / f"{number}.txt"
        path.write_bytes(data)
        flags += ["-a", path]
    mock = server()
    assert smai("ask", "--base-url", mock.url, *flags, "What?").status == 0
    assert content(mock) == [*(image_part(*image) for image in IMAGES), {"type": "text", "text": "What?"}]


def test_an_image_in_a_pipe_is_attached_with_a_dash_and_is_not_a_prompt(smai: Smai, server: Server) -> None:
    mock = server()
    result = smai("ask", "--base-url", mock.url, "What?", stdin=PNG)
    assert result == (2, b"", "smai: stdin is an image, not a prompt; -a - attaches it\n")
    assert mock.received == []
    assert smai("ask", "--base-url", mock.url, "-a", "-", "What?", stdin=PNG).status == 0
    assert content(mock) == [image_part(PNG), {"type": "text", "text": "What?"}]


TEXTS = [
    pytest.param("a.png", b"no picture\n", "a.png:\n```\nno picture\n```", id="a text called PNG"),
    pytest.param("a.txt", b"no end", "a.txt:\n```\nno end\n```", id="no newline at its end"),
    pytest.param("a.md", b"```\ncode\n```\n", "a.md:\n````\n```\ncode\n```\n````", id="fences in it"),
    pytest.param("a.md", b"`````x` ``", "a.md:\n``````\n`````x` ``\n``````", id="longer fences in it"),
    pytest.param("a.txt", b"\xef\xbb\xbfb\xc3\xa4\r\n", "a.txt:\n```\nbä\r\n```", id="BOM and CRLF"),
    pytest.param("a.txt", "ä😀\n".encode("utf-16"), "a.txt:\n```\nä😀\n```", id="UTF-16"),
    pytest.param("a.txt", b"\xfe\xff\x00a\x00b", "a.txt:\n```\nab\n```", id="UTF-16, big end first"),
    pytest.param("a b\n'c.txt", b"x\n", "a b^J'c.txt:\n```\nx\n```", id="a name with spaces and a newline"),
    pytest.param("caf\udce9.txt", b"x\n", "caf\ufffd.txt:\n```\nx\n```", id="a name that is not UTF-8"),
    pytest.param("-", b"x\n", "-:\n```\nx\n```", id="a file called -"),
]


@pytest.mark.parametrize(("name", "data", "text"), TEXTS)
def test_an_attached_text_is_fenced_after_its_file_name(tmp_path: Path, name: str, data: bytes, text: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    assert content_with([read_attachment(str(path))], "Explain.") == f"{text}\n\nExplain."


def test_texts_of_every_kind_reach_the_server(smai: Smai, server: Server, tmp_path: Path) -> None:
    flags: list[Any] = []
    texts = []
    for number, case in enumerate(TEXTS):
        name, data, text = case.values
        assert isinstance(data, bytes)
        (tmp_path / str(number)).mkdir()
        path = tmp_path / str(number) / str(name)
        path.write_bytes(data)
        flags += ["-a", path]
        texts.append(str(text))
    mock = server()
    assert smai("ask", "--base-url", mock.url, *flags, "Explain.").status == 0
    assert content(mock) == "\n\n".join([*texts, "Explain."])


@given(st.text(alphabet="`~\n x") | st.text())
def test_the_fence_of_an_attached_text_does_not_occur_in_the_text(text: str) -> None:
    shown = content_with([Attachment("a", text)], "prompt")
    assert isinstance(shown, str)
    fence = shown.split("\n", 2)[1]
    assert re.fullmatch("`{3,}", fence)
    assert fence not in text
    assert shown.startswith(f"a:\n{fence}\n{text}")
    assert shown.endswith(f"\n{fence}\n\nprompt")


def test_several_files_precede_the_prompt_and_stdin_in_order(smai: Smai, server: Server, tmp_path: Path) -> None:
    for name, data in (("1", b"one\n"), ("2", PNG), ("3", b"three\n")):
        (tmp_path / name).write_bytes(data)
    mock = server()
    files = [argument for name in ("1", "2", "3", "1") for argument in ("-a", tmp_path / name)]
    assert smai("ask", "--base-url", mock.url, *files, "Compare", stdin=b"piped").status == 0
    one = {"type": "text", "text": "1:\n```\none\n```"}
    three = {"type": "text", "text": "3:\n```\nthree\n```"}
    assert content(mock) == [one, image_part(PNG), three, one, {"type": "text", "text": "Compare\n\npiped"}]


def test_texts_without_images_are_sent_as_a_string(smai: Smai, server: Server, tmp_path: Path) -> None:
    for name in ("1", "2"):
        (tmp_path / name).write_text(f"{name}\n")
    mock = server()
    assert smai("ask", "--base-url", mock.url, "-a", tmp_path / "1", "-a", tmp_path / "2", "Compare").status == 0
    assert content(mock) == "1:\n```\n1\n```\n\n2:\n```\n2\n```\n\nCompare"


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_ten_megabytes_of_image_arrive_byte_for_byte(smai: Smai, server: Server, tmp_path: Path, api: str) -> None:
    data = PNG + os.urandom(10_000_000)
    path = tmp_path / "large.png"
    path.write_bytes(data)
    mock = server(reply="ok")
    assert smai("ask", "--base-url", mock.url, "--api", api, "-a", path, "What?") == (0, b"ok\n", "")
    if api == "chat":
        assert content(mock) == [image_part(data), {"type": "text", "text": "What?"}]
    else:
        url = image_part(data)["image_url"]["url"]
        parts = [{"type": "input_image", "image_url": url}, {"type": "input_text", "text": "What?"}]
        assert mock.received[0].json["input"] == [{"role": "user", "content": parts}]


def test_eight_megabytes_of_prompt_arrive_completely(smai: Smai, server: Server) -> None:
    prompt = "0123456789 äöü\n" * 450_000
    mock = server(reply="ok")
    assert smai("ask", "--base-url", mock.url, stdin=prompt.encode()) == (0, b"ok\n", "")
    assert content(mock) == prompt


def test_a_fifo_and_a_process_substitution_are_accepted(
    smai: Smai, server: Server, tmp_path: Path, environment: dict[str, str]
) -> None:
    fifo = tmp_path / "fifo.png"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(PNG * 1000,))
    writer.start()
    mock = server()
    assert smai("ask", "--base-url", mock.url, "-a", fifo, "What?").status == 0
    writer.join()
    line = '"$0" ask --base-url "$1" -a <(printf "a\\nb\\n") "What?" </dev/null'
    subprocess.run(["bash", "-c", line, SMAI, mock.url], env=environment, check=True, capture_output=True)
    contents = [request.json["messages"][0]["content"] for request in mock.received]
    assert contents[0][0] == image_part(PNG * 1000)
    assert re.fullmatch(r"\d+:\n```\na\nb\n```\n\nWhat\?", contents[1])


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        pytest.param("f", b"", "is empty", id="empty"),
        pytest.param("f", b"\x7fELF\x02\x01\x01\x00\x00", "neither text nor an image", id="program"),
        pytest.param("f.png", b"\x89PNG\n\x1a\n", "neither text nor an image", id="a PNG that a transfer spoilt"),
        pytest.param("f", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "neither text nor an image", id="PDF"),
        pytest.param("f", b"caf\xe9", "neither text nor an image", id="Latin-1"),
        pytest.param("f", b"text\0text", "neither text nor an image", id="NUL"),
        pytest.param("f", "text".encode("utf-16-le"), "neither text nor an image", id="UTF-16 without a BOM"),
        pytest.param("f", b"\xff\xfea", "neither text nor an image", id="half of UTF-16"),
        pytest.param("f", "text".encode("utf-32"), "neither text nor an image", id="UTF-32"),
        pytest.param("f\n\x1b[2Jsmai: forged", b"\0", "neither text nor an image", id="a name that forges a line"),
        pytest.param("f", PNG + bytes(20 * 1024 * 1024), "larger than 20 MiB", id="too large an image"),
    ],
)
def test_an_unusable_file_is_refused_by_name(
    smai: Smai, server: Server, tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    mock = server()
    assert_refused(smai("ask", "--base-url", mock.url, "-a", path, "hi"), mock, f"{tmp_path}/f", words)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/nonexistent", "/nonexistent: No such file or directory"),
        ("/", "/: Is a directory"),
        ("/dev/null", "/dev/null is empty"),
        ("/dev/zero", "/dev/zero is larger than 20 MiB"),
        ("", "-a needs a file name"),
    ],
)
def test_a_path_that_is_not_a_file_is_refused(smai: Smai, server: Server, path: str, words: str) -> None:
    mock = server()
    assert_refused(smai("ask", "--base-url", mock.url, "-a", path, "hi"), mock, words)


def test_nothing_is_sent_if_one_of_several_files_is_unusable(smai: Smai, server: Server, tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(PNG)
    mock = server()
    files = ["-a", tmp_path / "good", "-a", tmp_path / "missing"]
    assert_refused(smai("ask", "--base-url", mock.url, *files, "hi"), mock, "missing: No such file")


@pytest.mark.parametrize("flags", [[], ["--messages", "-"]])
def test_an_attachment_without_a_prompt_is_refused(
    smai: Smai, server: Server, tmp_path: Path, flags: list[str]
) -> None:
    (tmp_path / "image").write_bytes(PNG)
    mock = server()
    data = b'{"role": "user", "content": "x"}' if flags else b""
    assert_refused(smai("ask", "--base-url", mock.url, *flags, "-a", tmp_path / "image", stdin=data), mock, "prompt")
