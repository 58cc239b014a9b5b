"""Locales whose encoding is not UTF-8: arguments arrive byte for byte, and files are found by their names."""

import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Server, Smai
from process import SMAI

pytestmark = pytest.mark.thorough

LOCALES = [
    ("ja_JP", "EUC-JP"),
    ("ko_KR", "EUC-KR"),
    ("zh_TW", "BIG5"),
    ("zh_CN", "GBK"),
    ("de_DE", "ISO-8859-15"),
]
NAME = "grün 日本語 한국어 繁體 😀"
# Every character of the first plane except surrogates, in arguments that are short enough (MAX_ARG_STRLEN).
PARTS = itertools.pairwise([0x80, 0x4080, 0x8080, 0xC080, 0xD800]), [(0xE000, 0x10000)]
PLANE = ["".join(map(chr, range(*part))) for part in itertools.chain(*PARTS)]


@pytest.fixture(scope="module", params=LOCALES, ids=lambda locale: locale[1])
def locale(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a locale, which is made for the tests."""
    language, encoding = request.param
    if not shutil.which("localedef"):
        pytest.skip("localedef is not there")
    folder = tmp_path_factory.mktemp("locales")
    # localedef prints many warnings, and fails if its sources are not installed.
    command = [
        "localedef",
        "--no-archive",
        "-c",
        "-i",
        language,
        "-f",
        encoding,
        str(folder / f"{language}.{encoding}"),
    ]
    subprocess.run(command, capture_output=True, check=False)
    environment = {"LOCPATH": str(folder), "LC_ALL": f"{language}.{encoding}"}
    look = [sys.executable, "-c", "import sys; print(sys.getfilesystemencoding())"]
    encoding_there = subprocess.run(look, env=environment, capture_output=True, check=True).stdout.strip()
    if encoding_there in (b"utf-8", b"ascii"):
        pytest.skip(f"there is no locale {environment['LC_ALL']}")
    return environment


def test_operands_and_options_arrive_byte_for_byte(smai: Smai, server: Server, locale: dict[str, str]) -> None:
    mock = server(reply=NAME)
    result = smai("ask", "--base-url", mock.url, "-n", "-s", NAME, *PLANE, env=locale | {"SMAI_MODEL": NAME})
    assert (result.status, result.stdout.decode(), result.stderr) == (0, f"{NAME}\n", "")
    (request,) = mock.received
    assert request.json["messages"] == [
        {"role": "system", "content": NAME},
        {"role": "user", "content": " ".join(PLANE)},
    ]
    assert request.json["model"] == NAME


def test_an_argument_that_is_not_utf_8_is_reported(smai: Smai, locale: dict[str, str]) -> None:
    result = smai("ask", "--mock", "-n", b"caf\xe9", env=locale)
    assert (result.status, result.stdout) == (2, b"")
    assert result.stderr == "smai: operand 1 is not UTF-8: byte 0xe9 at byte offset 3; convert it with iconv\n"


def test_file_names_are_read_and_written_byte_for_byte(
    smai: Smai, server: Server, locale: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / NAME
    folder.mkdir()
    (folder / NAME).write_text("text")
    mock = server(reply="ok")
    files = ["-a", folder / NAME, "-s", f"@{folder / NAME}", "--chat", folder / "日記", "--record", folder / "録音"]
    assert smai("ask", "--base-url", mock.url, "-n", *files, "-q", "-o", folder / "答え", "hi", env=locale).status == 0
    assert mock.received[0].json["messages"][0]["content"] == "text"
    assert mock.received[0].json["messages"][1]["content"].startswith(f"{NAME}:\n")
    assert sorted(path.name for path in folder.iterdir()) == sorted([NAME, "日記", "録音", "答え"])
    assert smai("decode", folder / "録音", env=locale) == (0, b"ok\n", "")
    missing = smai("decode", folder / "無い", env=locale)
    assert missing.stderr == f"smai: {folder}/無い: No such file or directory; name a file with a recorded stream\n"


def test_python_m_smai_cli_gets_operands_byte_for_byte(
    server: Server, environment: dict[str, str], locale: dict[str, str]
) -> None:
    mock = server(reply="ok")
    command = [sys.executable, "-m", "smai_cli", "ask", "--base-url", mock.url, "-n", NAME]
    done = subprocess.run(command, env=environment | locale, capture_output=True, check=True)
    assert (done.stdout, mock.received[0].json["messages"][0]["content"]) == (b"ok\n", NAME)


def test_nothing_is_sent_if_the_bytes_of_an_operand_are_unknown(
    server: Server, environment: dict[str, str], locale: dict[str, str]
) -> None:
    mock = server(reply="ok")
    hide = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]
    if not shutil.which("unshare") or subprocess.run([*hide, "true"], capture_output=True, check=False).returncode:
        pytest.skip("only root can hide /proc")
    command = [*hide, SMAI, "ask", "--base-url", mock.url, "-n"]
    done = subprocess.run([*command, NAME], env=environment | locale, capture_output=True, check=False)
    line = b"smai: operand 1 cannot be read exactly in this locale; use one in UTF-8, such as LC_ALL=C.UTF-8\n"
    assert (done.returncode, done.stdout, done.stderr, mock.received) == (2, b"", line, [])
    assert subprocess.run([*command, "hi"], env=environment | locale, check=False, capture_output=True).returncode == 0
