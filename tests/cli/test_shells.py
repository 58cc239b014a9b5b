"""Completion in bash, zsh and fish: each real shell in a terminal, with the file that smai ships."""

import contextlib
import json
import os
import pty
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from conftest import Smai
from process import SMAI, clean_environment

import smai_cli
from smai_cli.cli.group import smai as group
from smai_cli.cli.parsing.words import FILE_METAVARS

pytestmark = pytest.mark.thorough

FILES = Path(smai_cli.__file__).parent / "cli" / "shells"
HERE, THERE = "http://127.0.0.1:8080/v1", "http://127.0.0.1:9090/v1"
MODELS = {HERE: ["gpt-4.1", "gpt-4o", "llama3.2:1b", "llama3.2:3b", "org/model@2"], THERE: ["local-1"]}
CONFIG = f'base_url = "{HERE}"\n[profile.work]\nmodel = "x"\n[profile.home]\nbase_url = "{THERE}"\n'
LIMIT_S = 20
CLEAR, SHOW = "\x15", "\x1bs"  # ^U is the shells' own; Alt-S writes the command line to the file $LINE
READY = "ready> "
STYLE = r"\x1b\[[0-9;]*[A-Za-z]|\x1b\(B"
# How a shell is started, its files for smai, and its sequence for Alt-S.
SHELLS = {
    "bash": (
        ["--noprofile", "-i"],
        {".bashrc": 'PS1=\'ready> \'\nshow() { printf %s "$READLINE_LINE" > "$LINE"; }\nbind -x \'"\\es": show\'\n'},
        ".bashrc",
    ),
    "zsh": (
        ["-i"],
        {
            ".zshrc": "PS1='ready> '\nfpath=(~/functions $fpath)\nautoload -U compinit && compinit -u\n"
            'show() { print -rn -- "$BUFFER" > $LINE }\nzle -N show\nbindkey "\\es" show\n'
        },
        "functions/_smai",
    ),
    "fish": (
        ["-i"],
        {
            ".config/fish/config.fish": "function fish_prompt; echo -n 'ready> '; end\nset -g fish_greeting\n"
            "function show; commandline | string collect | read -z text; echo -n $text > $LINE; end\n"
            "bind \\es show\nset -g fish_autosuggestion_enabled 0\n"
        },
        ".config/fish/completions/smai.fish",
    ),
}


class Terminal:
    """A shell at a terminal; `type` sends keys, and what the shell has shown so far is in `shown`."""

    def __init__(self, command: list[str], home: Path) -> None:
        self._line = home / "line"
        self._fd, screen = pty.openpty()
        environment = clean_environment(home, TERM="xterm", LINE=str(self._line))
        # A session leader that opens a terminal is controlled by it, as a login shell is.
        opened = ["sh", "-c", 'tty=$1; shift; exec "$@" < "$tty" > "$tty" 2>&1', "sh", os.ttyname(screen), *command]
        self._shell = subprocess.Popen(opened, env=environment, cwd=home / "work", start_new_session=True)
        self.shown = ""
        self.wait_for(READY)
        os.close(screen)  # only after the shell has it open, or the terminal is gone

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def wait_for(self, text: str) -> None:
        """Wait until the shell has shown `text`."""
        until_s = time.monotonic() + LIMIT_S
        while text not in re.sub(STYLE, "", self.shown):
            assert time.monotonic() < until_s, f"{text!r} is not in {self.shown!r}"
            self._read()

    def line_after(self, keys: str) -> str:
        """Type `keys` on an empty command line; return the command line that results."""
        self._line.unlink(missing_ok=True)
        self.type(CLEAR + keys + SHOW)
        until_s = time.monotonic() + LIMIT_S
        while not (self._line.exists() and self._line.read_text()):
            assert time.monotonic() < until_s, self.shown
            self._read()
        return self._line.read_text().rstrip("\n")

    def close(self) -> None:
        os.close(self._fd)  # sends the shell a SIGHUP
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._shell.wait(2)
        self._shell.kill()
        self._shell.wait()

    def _read(self) -> None:
        if not select.select([self._fd], [], [], 0.05)[0]:
            return
        piece = os.read(self._fd, 65536).decode(errors="replace")
        if "\x1b[c" in piece or "\x1b[0c" in piece:  # newer fish asks which terminal this is, and waits
            self.type("\x1b[?1;2c")
        self.shown += piece


@pytest.fixture(params=list(SHELLS), scope="module")
def terminal(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """A terminal with bash, zsh or fish in it, in a folder with files, with profiles and lists of models at home."""
    name = request.param
    shell = shutil.which(name)
    if shell is None:
        pytest.skip(f"{name} is not installed")
    home = tmp_path_factory.mktemp(name)
    arguments, files, place = SHELLS[name]
    files = {".cache/smai/models.json": json.dumps(MODELS), ".config/smai/config.toml": CONFIG, **files}
    script = subprocess.run([SMAI, "completion", name], capture_output=True, text=True, check=True).stdout
    files[place] = files.get(place, "") + script
    files |= {"work/notes.txt": "", "work/my tape.sse": "", "work/folder/inside.json": ""}
    for path, content in files.items():
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text(content)
    opened = Terminal([shell, *(["--rcfile", str(home / place)] if name == "bash" else []), *arguments], home)
    with contextlib.closing(opened):
        yield opened


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("smai a", "smai ask "),
        ("smai completion z", "smai completion zsh "),
        ("smai ask --sch", "smai ask --schema "),
        ("smai ask --js", "smai ask --json"),
        ("smai ask --summary j", "smai ask --summary json "),
        ("smai ask --summary=j", "smai ask --summary=json "),
        ("smai ask --raw -m o", "smai ask --raw -m org/model@2 "),
        ("smai ask -m llama", "smai ask -m llama3.2:"),
        ("smai ask -m llama3.2:1", "smai ask -m llama3.2:1b "),
        ("smai ask --model=llama3.2:3", "smai ask --model=llama3.2:3b "),
        ("smai count -m gpt-4.", "smai count -m gpt-4.1 "),
        ("smai ask -p w", "smai ask -p work "),
        ("smai ask --profile=h", "smai ask --profile=home "),
        ("smai ask -p home -m l", "smai ask -p home -m local-1 "),
        ("smai ask 'two words' -p w", "smai ask 'two words' -p work "),
        ("SMAI_PROFILE=work smai a", "SMAI_PROFILE=work smai ask "),
        (f"{SMAI} a", f"{SMAI} ask "),
        ("smai decode no", "smai decode notes.txt "),
        ("smai batch no", "smai batch notes.txt "),
        ("smai batch --format o", "smai batch --format openai "),
        ("smai batch -o no", "smai batch -o notes.txt "),
        ("smai batch --drop", "smai batch --drop-stale "),
        ("smai count my", "smai count my\\ tape.sse "),
        ("smai ask --key-file no", "smai ask --key-file notes.txt "),
        ("smai ask --schema=no", "smai ask --schema=notes.txt "),
        ("smai ask -a folder/i", "smai ask -a folder/inside.json "),
        ("smai ask no", "smai ask no"),
        ("smai ask -m x", "smai ask -m x"),
        ("smai nothing", "smai nothing"),
    ],
)
def test_tab_completes_a_command_line(terminal: Terminal, typed: str, completed: str) -> None:
    assert terminal.line_after(f"{typed}\t") == completed


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("smai ", ["ask", "completion", "decode", "models"]),
        ("smai ask --js", ["--json", "--jsonl"]),
        ("smai ask -m ", MODELS[HERE]),
        ("smai ask -p ", ["work", "home"]),
        ("smai ask --messages ", ["notes.txt", "folder/"]),
    ],
)
def test_completion_offers_only_words_that_match(terminal: Terminal, typed: str, offered: list[str]) -> None:
    terminal.shown = ""
    terminal.type(f"{CLEAR}{typed}\t\t\t")  # one to complete what is common, and bash lists after two in a row
    for word in offered:
        terminal.wait_for(word)


@pytest.mark.parametrize("shell", SHELLS)
def test_smai_completion_prints_the_installed_file(smai: Smai, shell: str) -> None:
    assert smai("completion", shell) == (0, (FILES / f"smai.{shell}").read_bytes(), "")
    assert sorted(path.suffix for path in FILES.iterdir()) == [".bash", ".fish", ".zsh"]


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["bash", "--norc", "-c", 'eval "$(smai completion bash)"; complete -p smai'], "smai"),
        (["zsh", "-f", "-c", 'eval "$(smai completion zsh)"; print $_comps[smai]'], "_smai"),
        (["fish", "--no-config", "-c", "smai completion fish | source; complete -C 'smai as'"], "ask"),
    ],
)
def test_the_line_in_the_manual_works_in_a_shell_that_was_never_set_up(
    tmp_path: Path, command: list[str], shown: str
) -> None:
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    environment = clean_environment(tmp_path, PATH=f"{Path(SMAI).parent}{os.pathsep}{os.environ['PATH']}")
    result = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert shown in result.stdout


def test_an_unknown_shell_is_an_error_that_lists_the_supported_shells(smai: Smai) -> None:
    result = smai("completion", "tcsh")
    assert (result.status, result.stdout) == (2, b"")
    assert result.stderr.startswith("smai: ")
    assert all(shell in result.stderr for shell in SHELLS)


FILE_PARAMETERS = [
    pytest.param(name, param, id=f"{name} {param.name}")
    for name in group.list_commands(click.Context(group))
    for command in [group.get_command(click.Context(group), name)]
    if command
    for param in command.params
    if param.metavar in (*FILE_METAVARS, "[FILE]")
]


@pytest.mark.parametrize(("command", "param"), FILE_PARAMETERS)
def test_every_option_that_takes_a_file_completes_file_names(smai: Smai, command: str, param: click.Parameter) -> None:
    words = ["smai", command, *(param.opts[-1:] if isinstance(param, click.Option) else []), "no"]
    asked = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1), "_SMAI_COMPLETE": "bash_complete"}
    assert smai(env=asked) == (0, b"file,no\n", "")


@pytest.mark.parametrize(
    "arguments", [["ask", "-n", "--mock", "--messages", "{}", "hi"], ["count", "{}"], ["decode", "{}"]]
)
def test_a_file_error_is_a_message_of_smai_not_of_click(smai: Smai, tmp_path: Path, arguments: list[str]) -> None:
    for path, reason in ((tmp_path / "missing", "No such file"), (tmp_path, "directory")):
        result = smai(*(word.format(path) for word in arguments))
        assert (result.status, result.stdout) == (2, b"")
        assert result.stderr.startswith(f"smai: {path}: ")
        assert reason in result.stderr
        assert "--help" not in result.stderr
