"""Every command of the README, and of some examples in the manual, runs, with a mock as the service."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from conftest import Config, Server
from test_docs import displays, section

from smai_cli.config.config_file import find_settings
from smai_cli.config.providers import PROVIDERS
from smai_cli.mock.script import POEM

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
# The commands in the table of servers count as well.
IN_TABLE = re.findall(r"\| `(smai .*)` \|$", README, re.MULTILINE)
SET_UP, COMMANDS = BLOCKS[:2], [*BLOCKS[2:], *IN_TABLE]
# The scripts in the examples of these pages, and the single commands in those of smai-ask(1).
PAGES = ("smai", "smai-ask", "smai-batch", "smai-count", "smai-decode", "smai-models")
EXAMPLES = [
    *(text for page in PAGES for text in displays(page, "EXAMPLES")),
    *re.findall(r"^\.Dl \$ (.*)$", section("smai-ask", "EXAMPLES"), re.MULTILINE),
]
# A crontab and a rule for make are not for a shell. Others need a password manager, a screen, a certain server, or the
# file of a run that has failed, or they show no answer.
NOT_RUN = r"MAILTO=|cat >Makefile|jq -r 'select\(\.error|.*pass show|import png|curl -sN|.*--dry-run|smai ask -v"


def test_each_of_the_first_two_code_blocks_needs_one_set_up_command() -> None:
    poem, tests = SET_UP
    for block in (poem, tests):
        assert block.startswith("python3 -m venv .venv && .venv/bin/pip install -q ")
        assert block.count("\n") == 1
    assert poem.endswith('.venv/bin/smai ask --mock "Write a poem"\n')
    assert ".venv/bin/pytest" in tests
    # The check runs these very blocks, on a clean clone.
    assert "readme_block 1" in (ROOT / ".ci" / "run").read_text()
    assert "readme_block 2" in (ROOT / ".ci" / "run").read_text()


def test_the_readme_is_short_and_begins_with_its_two_tables() -> None:
    assert len(README.split()) <= 1300
    tables = re.split(r"^\| 130, 141, 143 \|.*\n", README, maxsplit=1, flags=re.MULTILINE)
    assert "| the server ... | curl -f | llm" in tables[0]
    assert len(tables[0].split()) <= 450


def test_smai_exits_with_the_statuses_of_the_first_table_in_the_readme() -> None:
    measured = runpy.run_path(str(ROOT / "tests" / "benchmarks" / "exit_statuses.py"))
    statuses = measured["column"](measured["measure"](measured["SMAI_ONLY"]), "smai")
    assert statuses == measured["column"](measured["in_readme"](), "smai")
    assert len(statuses) == 6


@pytest.fixture
def project(tmp_path: Path, environment: dict[str, str]) -> Path:
    """A folder with the files that the commands read, under git."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "prompt.txt").write_text("Write a poem\n")
    for name in ("list.txt", "words"):
        (folder / name).write_text("one\ntwo\nthree\n")
    for name in ("log", "build.log", "error.log", "letter.txt", "report.txt"):
        (folder / name).write_text("it broke\n")
    (folder / "questions.jsonl").write_text('"Write a poem"\n{"id": "b", "prompt": "Write another"}\n')
    (folder / "screen.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "tools.json").write_text('[{"type": "function", "function": {"name": "weather"}}]')
    (folder / "person.json").write_text('{"type": "object", "required": ["name"]}')
    for name, secret in ((".smai-key", "sk-readme\n"), (".gateway-headers", "X-Team: one\n")):
        path = Path(environment["HOME"]) / name
        path.write_text(secret)
        path.chmod(0o600)
    subprocess.run("git init -q && git add . && echo more >> prompt.txt", shell=True, cwd=folder, check=True)
    return folder


@pytest.mark.parametrize(
    "block",
    [*COMMANDS, *(text for text in EXAMPLES if not re.match(NOT_RUN, text))],
    ids=lambda block: block.splitlines()[0][:50],
)
def test_every_command_in_the_readme_and_the_examples_runs(
    environment: dict[str, str], server: Server, project: Path, config: Config, block: str
) -> None:
    if block.startswith("parallel") and shutil.which("parallel") is None:
        pytest.skip("GNU parallel is not installed")
    reply = POEM
    if "--schema" in block:
        reply = '{"name": "Hello"}'
    elif " -x " in block:
        reply = "```python\nprint('Hello')\n```\n"
    mock = server(reply=reply, require_key="sk-readme" if "localhost" not in block else None)
    here = re.sub(r"http://localhost:\d+/v1|https://api\.smai\.ai/v1", mock.url, block)
    env = environment | {"SMAI_API_KEY": "sk-readme", "SMAI_BASE_URL": mock.url, "OPENAI_API_KEY": "sk-readme"}
    # The mock takes the place of the servers of the built-in profiles, too.
    built_in = set(re.findall(r"-p (\S+)", block)) & set(PROVIDERS)
    tables = [f'[profile.{name}]\nbase_url = "{mock.url}"\nkey_env = "OPENAI_API_KEY"\n' for name in built_in]
    config("".join(tables))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", here],
        cwd=project,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    delivered = done.stdout + b"".join(path.read_bytes() for path in project.iterdir() if path.is_file())
    # An answer is there, as itself or in JSON; a mock of the script's own repeats the question.
    shown = delivered.decode(errors="replace").replace("\\n", "\n")
    assert any(answer in shown for answer in (POEM, "Hello\n", '"text":"Write another"'))
    assert b"Traceback" not in done.stderr


def test_the_make_rule_creates_the_answers_and_updates_those_whose_prompts_changed(
    environment: dict[str, str], server: Server, project: Path
) -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    (block,) = [text for text in displays("smai-batch", "EXAMPLES") if "$@" in text]
    rule = re.search(r"<<'END'\n(.*?)^END$", block, re.MULTILINE | re.DOTALL)
    assert rule
    (project / "Makefile").write_text(rule[1])
    mock = server()
    env = environment | {"SMAI_BASE_URL": mock.url}
    questions = project / "questions.jsonl"
    for asked, text in ((2, questions.read_text()), (3, questions.read_text().replace("another", "a sonnet"))):
        questions.write_text(text)
        if asked > 2:  # the file times may be too coarse
            os.utime(project / "answers.jsonl", (0, 0))
        for _ in range(2):  # the second time there is nothing to do
            subprocess.run([make], cwd=project, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=True)
        answers = [json.loads(line) for line in (project / "answers.jsonl").read_text().splitlines()]
        assert [(one["index"], one["error"]) for one in answers] == [(1, None), (2, None)]
        assert len(mock.received) == asked


def test_every_configuration_in_the_manual_is_valid(tmp_path: Path) -> None:
    (tmp_path / "smai").mkdir()
    (tmp_path / "smai" / "config.toml").write_text("\n".join(displays("smai-config", "EXAMPLES")))
    found = find_settings({"XDG_CONFIG_HOME": str(tmp_path)}, "portkey")
    assert {"work", "local", "critic", "azure", "openrouter", "portkey"} <= set(found.profiles)
    assert [header.name for header in found.profile["headers"].value] == ["x-portkey-api-key", "x-portkey-provider"]


PICTURE = ROOT / "tests" / "picture" / "smai.svg"


def generated_picture() -> str:
    """Return what the generator draws of one line."""
    record = runpy.run_path(str(PICTURE.with_name("record.py")))
    screen = record["Screen"]()
    screen.put("$ smai\n", "prompt")
    return str(record["svg"](screen))


@pytest.mark.parametrize("picture", [PICTURE.read_text(encoding="utf-8"), generated_picture()], ids=["ours", "next"])
def test_the_whole_picture_is_visible_without_animation(picture: str) -> None:
    root = ET.fromstring(picture)
    texts = [element for element in root if element.tag.endswith("text")]
    style = next(element.text for element in root if element.tag.endswith("style")) or ""
    frames = re.compile(r"@keyframes \w+\{(?:[^{}]*\{[^{}]*\})*\}")
    still = [frames.sub("", style), *(f"{value}" for element in root.iter() for value in element.attrib.items())]
    # Not hidden, and not left hidden by an animation that has ended or never began.
    assert not re.search("opacity|visibility|display|clip|mask|transform|forwards|backwards|both", "\n".join(still))
    assert frames.findall(style) == ["@keyframes wait{from,to{opacity:0}}"]
    assert texts
    assert all(re.fullmatch(r"animation-duration:\d+\.\d\ds", text.attrib["style"]) for text in texts)


@pytest.mark.thorough
def test_the_picture_shows_real_runs_and_is_well_formed(tmp_path: Path) -> None:
    script = PICTURE.with_name("record.py")
    subprocess.run([sys.executable, script, tmp_path / "new.svg"], check=True)
    committed, new = (ET.parse(path) for path in (PICTURE, tmp_path / "new.svg"))
    for picture in (committed, new):
        shown = "".join(element.text or "" for element in picture.getroot() if element.tag.endswith("text"))
        assert POEM.splitlines()[0] in shown
        assert "exit status 8" in shown
        assert "160 characters; tokens: 3 in, 40 out (server)" in shown
    assert "tests/picture/smai.svg" in README


def test_the_cron_recipe_keeps_the_old_answer_and_mails_only_permanent_failures(
    environment: dict[str, str], server: Server, project: Path, config: Config
) -> None:
    (recipe,) = [block for block in COMMANDS if "smai.log" in block]
    (project / "answer.txt").write_text("old\n")
    log = project / "smai.log"
    for script, status, reason, is_mailed in (
        ({"cut_after": 1}, 8, "smai: the connection broke before", False),
        ({"status": 401}, 5, "smai: the server answered 401 Unauthorized", True),
    ):
        config(f'[profile.openai]\nbase_url = "{server(**script).url}"\n')
        done = subprocess.run(
            ["sh", "-c", recipe],
            cwd=project,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        assert done.returncode == status
        assert (project / "answer.txt").read_text() == "old\n"
        mail, logged = (done.stdout + done.stderr).decode(), log.read_text() if log.exists() else ""
        log.unlink(missing_ok=True)
        assert (reason in mail, reason in logged) == (is_mailed, not is_mailed)
        assert is_mailed or not mail
