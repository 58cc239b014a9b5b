"""Names of the same file: a run does not write a file that it also uses under another name, and changes nothing."""

import itertools
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import Config, Smai
from process import SMAI
from tapes import GOOD

pytestmark = [pytest.mark.preloaded, pytest.mark.thorough]

MESSAGE = json.dumps({"role": "user", "content": "hi"}) + "\n"


class Option(NamedTuple):
    """An option that takes a file: its name in messages, the text before the file name, whether it is written."""

    shown: str
    words: tuple[str, ...]
    prefix: str = ""
    writes: bool = False

    def typed(self, file: str) -> list[str]:
        """Return the words that name `file`."""
        return [*self.words, f"{self.prefix}{file}"]


OPTIONS = [
    Option("-o", ("-o",), writes=True),
    Option("--record", ("--record",), writes=True),
    Option("--chat", ("--chat",), writes=True),
    Option("--messages", ("--messages",)),
    Option("-a", ("-a",)),
    Option("-s", ("-s",), "@"),
    Option("--schema", ("--schema",)),
    Option("--key-file", ("--key-file",)),
]
# Options that exclude each other for another reason.
EXCLUDED = [{"--chat", "--messages"}]
PAIRS = [pair for pair in itertools.combinations(OPTIONS, 2) if {one.shown for one in pair} not in EXCLUDED]
WRITERS = [pair for pair in PAIRS if pair[0].writes or pair[1].writes]
READERS = [pair for pair in PAIRS if pair not in WRITERS]
Link = Callable[[Path, Path], object]
LINKS: dict[str, Link | None] = {
    "same name": None,
    "symbolic link": lambda link, file: link.symlink_to(file.name),
    "hard link": lambda link, file: link.hardlink_to(file),
}
every_link = pytest.mark.parametrize(
    "link", [pytest.param(name, marks=pytest.mark.nightly) if link else name for name, link in LINKS.items()]
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a file that every option could take."""
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    Path("file").write_text(MESSAGE)
    Path("file").chmod(0o600)
    return folder


def state() -> dict[str, bytes]:
    """Return the names in the folder, and what is in each file."""
    return {path.name: path.read_bytes() for path in Path().iterdir()}


@every_link
@pytest.mark.parametrize("pair", WRITERS, ids=lambda pair: f"{pair[0].shown} {pair[1].shown}")
def test_a_file_to_write_cannot_be_another_file_of_the_run(smai: Smai, pair: tuple[Option, Option], link: str) -> None:
    make, other = LINKS[link], "link" if LINKS[link] else "file"
    if make:
        make(Path(other), Path("file"))
    before = state()
    words = [*pair[0].typed(other), *pair[1].typed("file")]
    result = smai("ask", "-n", "--base-url", "http://127.0.0.1:9/v1", *words, "hi")
    assert (result.status, result.stdout, result.stderr.count("\n")) == (2, b"", 1)
    assert " are the same file, " in result.stderr
    assert all(f"{option.shown} " in result.stderr for option in pair)
    assert state() == before


@pytest.mark.parametrize("pair", WRITERS, ids=lambda pair: f"{pair[0].shown} {pair[1].shown}")
def test_two_names_of_a_new_file_are_recognised_by_its_folder(smai: Smai, pair: tuple[Option, Option]) -> None:
    Path("link").symlink_to(Path.cwd())
    words = [*pair[0].typed("new"), *pair[1].typed("link/new")]
    result = smai("ask", "-n", "--base-url", "http://127.0.0.1:9/v1", *words, "hi")
    assert (result.status, result.stderr.count("\n")) == (2, 1)
    assert " are the same file, " in result.stderr
    assert sorted(path.name for path in Path().iterdir()) == ["file", "link"]


@pytest.mark.parametrize("pair", READERS, ids=lambda pair: f"{pair[0].shown} {pair[1].shown}")
def test_a_file_may_be_read_twice(smai: Smai, pair: tuple[Option, Option]) -> None:
    words = [*pair[0].typed("file"), *pair[1].typed("file")]
    result = smai("ask", "-n", "--dry-run", "--base-url", "http://127.0.0.1:9/v1", *words, "hi")
    assert result.status == 0, result


@pytest.mark.parametrize("temporary", ["out.partial", ".talk.smai-lock", ".talk.smai-new", "talk.turn"])
@pytest.mark.parametrize("option", [*OPTIONS[:3], OPTIONS[4]], ids=lambda option: option.shown)
def test_temporary_files_of_smai_cannot_be_another_named_file(smai: Smai, option: Option, temporary: str) -> None:
    owner = ["-o", "out"] if temporary == "out.partial" else ["--chat", "talk"]
    if option.words == (owner[0],) or {option.shown, owner[0]} in EXCLUDED:
        return
    Path(temporary).write_text(MESSAGE)
    before = state()
    result = smai("ask", "-n", "--base-url", "http://127.0.0.1:9/v1", *owner, *option.typed(temporary), "hi")
    assert (result.status, result.stderr.count("\n")) == (2, 1), result
    assert f" {owner[0]} " in result.stderr
    assert option.shown in result.stderr
    assert state() == before


@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.shown)
def test_a_standard_stream_may_be_a_file_to_read_but_not_a_file_to_write(
    environment: dict[str, str], option: Option, stream: str
) -> None:
    number = {"stdin": "0<", "stdout": "1>>", "stderr": "2>>"}[stream]
    words = ["-n"] * (stream != "stdin") + ([] if option.writes else ["--dry-run"])
    command = [SMAI, "ask", *words, "--base-url", "http://127.0.0.1:9/v1", *option.typed("file"), "hi"]
    done = subprocess.run(
        ["bash", "-c", f'"$@" {number} file', "bash", *command],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if not option.writes and (option.shown, stream) != ("--key-file", "stdin"):  # which would be in the prompt
        assert done.returncode == 0, done
        return
    line = f"{option.shown} and {stream} are the same file, file; choose another one"
    if stream == "stderr":
        assert Path("file").read_text() == f"{MESSAGE}smai: {line}\n"
    else:
        assert (done.stderr.decode(), Path("file").read_text()) == (f"smai: {line}\n", MESSAGE)
    assert (done.returncode, done.stdout) == (2, b"")


@pytest.mark.parametrize("words", ["hi", "hi -", "--messages -"])
def test_a_key_is_not_part_of_the_prompt(environment: dict[str, str], words: str) -> None:
    line = f"smai ask --dry-run --key-file /dev/stdin {words} <file"
    done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, check=False, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "smai: --key-file and stdin are the same file, /dev/stdin; choose another one\n"
    line = line.replace(words, "-n hi")
    assert subprocess.run(["bash", "-c", line], env=environment, capture_output=True, check=False).returncode == 0


def test_stdout_may_be_appended_to_a_file_of_the_prompt(environment: dict[str, str]) -> None:
    for line in ("smai ask --mock <file >>file", "smai ask -n --mock -a file 'go on' >>file"):
        before = Path("file").read_text()
        subprocess.run(["bash", "-c", line], env=environment, check=True, stdin=subprocess.DEVNULL)
        assert Path("file").read_text().startswith(f"{before}Spring")


def test_with_q_stdout_may_be_the_tape(environment: dict[str, str]) -> None:
    line = "smai ask -n --mock -q -o out --record /dev/stdout hi >tape"
    subprocess.run(["bash", "-c", line], env=environment, check=True)
    assert Path("tape").read_bytes().endswith(b"data: [DONE]\n\n")
    assert Path("out").read_text().startswith("Spring")


@pytest.mark.parametrize("line", ["decode file >>file", "decode <file >>file", "decode --raw - <>file 1>&0"])
def test_decode_does_not_write_into_its_input_file(environment: dict[str, str], line: str) -> None:
    Path("file").write_bytes(GOOD)
    done = subprocess.run(["bash", "-c", f"smai {line}"], env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stdout, Path("file").read_bytes()) == (2, b"", GOOD)
    assert done.stderr.decode().startswith("smai: ")
    assert b" stdout are the same file" in done.stderr


@pytest.mark.parametrize("name", ["file", "link", "file.partial"])
def test_decode_does_not_replace_its_input_file(smai: Smai, name: str) -> None:
    Path("link").symlink_to("file")
    Path("file.partial").write_bytes(GOOD)
    Path("file").write_bytes(GOOD)
    result = smai("decode", "-o", "file", name)
    assert (result.status, result.stdout) == (2, b"")
    assert "the file to decode and " in result.stderr
    assert Path("file.partial").read_bytes() == Path("file").read_bytes() == GOOD


def test_devices_and_pipes_may_be_named_twice(smai: Smai) -> None:
    assert smai("ask", "-n", "--mock", "--record", "/dev/null", "--messages", "/dev/null", "hi").status == 2  # empty
    assert smai("ask", "-n", "--mock", "--record", "/dev/null", "hi", stdin=subprocess.DEVNULL).status == 0
    os.mkfifo("fifo")
    reader = os.open("fifo", os.O_RDONLY | os.O_NONBLOCK)
    assert smai("ask", "-n", "--mock", "--record", "fifo", "hi").status == 0
    assert os.read(reader, 5) == b"data:"
    os.close(reader)


KEY = "sk-clash-1234567890"


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.writes], ids=lambda option: option.shown)
def test_a_file_to_write_cannot_be_the_configuration_or_a_key_file(smai: Smai, config: Config, option: Option) -> None:
    Path("key").write_text(KEY)
    Path("key").chmod(0o600)
    settings = config(f'key_file = "{Path("key").absolute()}"\n')
    assert smai("login", "--no-check", stdin=KEY.encode()).status == 0
    files = {"key_file": Path("key").absolute(), "the configuration file": settings}
    files |= {"the file of keys": settings.parent / "keys.json", "SSL_CERT_FILE": Path("file").absolute()}
    before = {name: path.read_bytes() for name, path in files.items()}
    for name, path in files.items():
        Path("link").symlink_to(path)
        result = smai("ask", "-n", "--mock", *option.typed("link"), "hi", env={"SSL_CERT_FILE": "file"})
        assert result.status == 2, name
        assert f" and {name} are the same file" in result.stderr or f"{name} and " in result.stderr, result
        Path("link").unlink()
    assert {name: path.read_bytes() for name, path in files.items()} == before


RUN_LOG = json.dumps({"model": "m"}) + "\n"


@every_link
@pytest.mark.parametrize("option", [*OPTIONS[:4], *OPTIONS[6:]], ids=lambda option: option.shown)
def test_the_run_log_cannot_be_an_output_file_or_a_file_of_another_run(smai: Smai, option: Option, link: str) -> None:
    make, other = LINKS[link], "link" if LINKS[link] else "file"
    if make:
        make(Path(other), Path("file"))
    before = state()
    words = ["--base-url", "http://127.0.0.1:9/v1", *option.typed(other)]
    result = smai("ask", "-n", *words, "hi", env={"SMAI_LOG": "file"})
    assert (result.status, result.stdout) == (2, b"")
    assert result.stderr == f"smai: SMAI_LOG and {option.shown} are the same file, file; choose another one\n"
    assert state() == before


@pytest.mark.parametrize("name", ["out.partial", ".talk.smai-lock", "talk.turn"])
def test_the_run_log_cannot_be_a_temporary_file_of_smai(smai: Smai, name: str) -> None:
    result = smai("ask", "-n", "--mock", "-o", "out", "--chat", "talk", "hi", env={"SMAI_LOG": name})
    assert (result.status, result.stderr.count("\n"), sorted(state())) == (2, 1, ["file"])
    assert "SMAI_LOG and " in result.stderr


def test_the_run_log_cannot_be_the_configuration_or_the_key_file(smai: Smai, config: Config) -> None:
    settings = config('log = "config.toml"\n')
    assert smai("login", "--no-check", stdin=KEY.encode()).status == 0
    keys = settings.with_name("keys.json")
    before = keys.read_bytes()
    result = smai("ask", "-n", "--mock", "hi")
    assert (result.status, result.stderr.count("\n")) == (2, 1)
    assert f"log ({settings}) and the configuration file are the same file" in result.stderr
    assert smai("ask", "-n", "--mock", "hi", env={"SMAI_LOG": str(keys)}).status == 2
    assert keys.read_bytes() == before


@pytest.mark.parametrize("stream", ["1>>", "2>>"])
def test_the_run_log_cannot_be_stdout_or_stderr(environment: dict[str, str], stream: str) -> None:
    Path("file").write_text(RUN_LOG)
    line = f"smai ask -n --mock hi {stream} file"
    env = environment | {"SMAI_LOG": "file"}
    done = subprocess.run(["bash", "-c", line], env=env, capture_output=True, check=False)
    assert done.returncode == 2
    assert Path("file").read_text() in (
        RUN_LOG,
        f"{RUN_LOG}smai: SMAI_LOG and stderr are the same file, file; choose another one\n",
    )


@pytest.mark.parametrize("words", ["-q -o x -n >>file", "<file", "-n -a file", "-n -s @file"])
def test_the_run_log_may_be_part_of_the_prompt_and_may_be_stdout_with_q(
    environment: dict[str, str], words: str
) -> None:
    Path("file").write_text(RUN_LOG)
    done = subprocess.run(
        ["bash", "-c", f"smai ask --mock hi {words}"],
        env=environment | {"SMAI_LOG": "file"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert Path("file").read_text().startswith(RUN_LOG)
    assert Path("file").read_text().count("\n") == 2


def test_a_dry_run_leaves_the_run_log_unchanged(smai: Smai) -> None:
    result = smai("ask", "-n", "--mock", "--dry-run", "--messages", "file", "hi", env={"SMAI_LOG": "file"})
    assert (result.status, state()) == (0, {"file": MESSAGE.encode()})


@pytest.mark.parametrize(
    ("line", "status"),
    [
        *((f"smai ask -n --mock {option.shown} x hi", 2) for option in OPTIONS if option.shown in ("-o", "--chat")),
        ("smai ask -n --mock --record x hi", 11),
        ("smai ask -n --mock -a ../x --record ../y hi", 2),
        ("smai ask -n --curl --key-file x hi", 0),
        ("smai decode x", 2),
        ("smai decode -o y x", 2),
    ],
)
def test_a_relative_name_in_a_deleted_folder_is_reported_in_one_line(
    environment: dict[str, str], folder: Path, line: str, status: int
) -> None:
    gone = ["bash", "-c", f"rmdir {folder}/gone; {line}"]
    Path("gone").mkdir()
    done = subprocess.run(gone, cwd="gone", env=environment, capture_output=True, check=False, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (status, 1), done
    assert sorted(state()) == ["file"]
