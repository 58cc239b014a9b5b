"""smai-batch(1) against the real program: the members that it names, the commands that it shows."""

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import Server, Smai
from process import clean_environment, run
from test_docs import items, section, source_of

from smai_cli.batch.input.lines import MEMBERS
from smai_cli.mock.script import Script
from smai_cli.mock.server import Mock

pytestmark = pytest.mark.preloaded

PAGE = "smai-batch"
TOOLS = (
    {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": ""}}]},
)
MEDIA = (
    {"content": "I", "reasoning": "so", "citations": ["u"], "images": ["i"]},
    {"annotations": ["a"], "audio": {"id": "a"}},
)
QUESTIONS = '"Write a poem"\n{"id": "b", "prompt": "Write another", "lang": "en"}\n'
BODY = '{"body": {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}}'


def subsection(name: str) -> str:
    found = re.search(rf"^\.Ss {name}\n(.*?)(?=^\.S[sh] |\Z)", source_of(PAGE), re.MULTILINE | re.DOTALL)
    assert found, name
    return found[1]


def lists(name: str) -> list[list[str]]:
    """Return the lists of members in a subsection, each the names in it."""
    texts = subsection(name).split(".Bl -tag")[1:]
    return [[head.removeprefix("Cm ") for head, _ in items(text) if head.startswith("Cm ")] for text in texts]


def tape(path: Path, *deltas: dict[str, Any], reason: str = "stop") -> Path:
    """Write a stream with these deltas, which ends for `reason`."""
    reasons = [*(None for _ in deltas), reason]
    choices: list[dict[str, Any]] = [
        {"index": 0, "delta": delta, "finish_reason": why, "logprobs": {"content": []}}
        for delta, why in zip([*deltas, {}], reasons, strict=True)
    ]
    events = [json.dumps({"object": "chat.completion.chunk", "model": "m", "choices": [one]}) for one in choices]
    path.write_text("".join(f"data: {event}\n\n" for event in [*events, "[DONE]"]))
    return path


def merged(values: list[dict[str, Any]]) -> set[str]:
    return {name for value in values for name in value}


Results = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def every_result(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Results of every kind, in both forms: complete, cut, refused, withheld, with tools, doubled, not sent at all."""
    folder = tmp_path_factory.mktemp("results")
    environment = clean_environment(folder)
    found: Results = {"flat": [], "openai": []}
    many = [
        '"a"',
        '"a"',
        BODY,
        BODY,
        "nothing",
        '{"body": 1}',
        '{"prompt": "x", "index": 7}',
        f'{{"index": 7, {BODY[1:]}',
    ]
    runs: tuple[tuple[dict[str, Any], list[str]], ...] = (
        ({}, many),
        ({"finish_reason": "length"}, many[1:3]),
        ({"status": 400}, many[1:3]),
        ({"tape": tape(folder / "tools.sse", *TOOLS, reason="tool_calls").read_bytes()}, many[1:3]),
        ({"tape": tape(folder / "media.sse", *MEDIA).read_bytes()}, many[1:3]),
        ({"tape": tape(folder / "refusal.sse", {"content": "I"}, {"refusal": "no"}).read_bytes()}, many[1:3]),
    )
    for script, lines in runs:
        data = "".join(f"{line}\n" for line in lines).encode()
        with Mock(Script(**{"delay_s": 0.0, **script})) as mock:
            done = run(("batch", "-k", "--retries", "0", "--base-url", mock.url), environment, data)
        for result in map(json.loads, done.stdout.splitlines()):
            found["openai" if "response" in result else "flat"].append(result)
    return found


def test_the_page_names_exactly_the_members_of_a_result_in_order(
    every_result: Results,
) -> None:
    flat, error, openai = lists("Results")
    complete = every_result["flat"][0]
    assert [name for name in flat if name in complete] == list(complete)
    assert merged(every_result["flat"]) == set(flat)
    failed = [result["error"] for result in every_result["flat"] if result["error"]]
    assert all(list(one) == error for one in failed)

    complete = every_result["openai"][0]
    after = re.search(r"These are followed by (complete,.*?)as in\s+the\s+flat form", subsection("Results"), re.DOTALL)
    assert after
    shared = re.findall(r"[a-z_]+", after[1].replace(" and ", " "))
    assert [*openai, *(name for name in shared if name in complete)] == list(complete)
    assert merged(every_result["openai"]) == {*openai, *shared, "line"}
    assert merged([result["error"] or {} for result in every_result["openai"]]) == {"code", *error}


def test_a_result_has_a_null_error_exactly_if_it_is_complete(every_result: Results) -> None:
    for result in (one for form in every_result.values() for one in form):
        assert result["complete"] == (result["error"] is None) == (result["exit_status"] == 0)


def test_the_result_of_an_invalid_line_lacks_the_members_that_the_manual_names(every_result: Results) -> None:
    (result,) = [one for one in every_result["flat"] if one["exit_status"] == 2]
    flat = lists("Results")[0]
    lacking = flat[flat.index("finish_reason") : flat.index("elapsed_s") + 1]
    optional = {"tool_calls", "refusal", "reasoning", "logprobs", "annotations", "audio", "images", "extra", "copy"}
    assert set(flat) - set(result) == {*lacking, *optional, "line_digest", "line"}


def test_the_digest_of_a_result_is_that_of_the_body_in_the_dry_run(smai: Smai) -> None:
    result = json.loads(smai("batch", "--mock", stdin=b'"apple"').stdout)
    shown = smai("ask", "-n", "--no-stream", "--dry-run", "--mock", "apple")
    body = json.dumps(json.loads(shown.stdout)["body"], sort_keys=True, separators=(",", ":"))
    assert result["request"] == f"sha256:{hashlib.sha256(body.encode()).hexdigest()}"


def test_the_page_lists_exactly_the_members_of_a_line_that_are_sent() -> None:
    found = re.search(r"^\.Bd -filled.*?\n(.*?)^\.Ed", subsection("Input"), re.MULTILINE | re.DOTALL)
    assert found
    assert found[1].split() == sorted(MEMBERS)


def test_the_page_names_every_member_of_the_dry_run_and_of_the_json_summary(smai: Smai) -> None:
    shown = smai("batch", "--dry-run", "--mock", stdin=b'"a"\n')
    assert lists("Previewing a run") == [list(json.loads(shown.stdout))]
    done = smai("batch", "--summary", "json", "--mock", stdin=b'"a"\n')
    assert lists("Progress and summary") == [list(json.loads(done.stderr))]


def examples() -> list[str]:
    """Return the commands under EXAMPLES, as a shell gets them."""
    found = re.findall(
        r"^\.Dl \$ (.*)\n|^\.Bd -literal.*\n((?:(?!\.Ed).*\n)*)", section(PAGE, "EXAMPLES"), re.MULTILINE
    )
    return [(line or block).replace("\\e", "\\") for line, block in found]


@pytest.mark.parametrize("command", examples(), ids=lambda command: command.splitlines()[0][:50])
def test_every_example_of_the_page_runs(
    environment: dict[str, str], server: Server, tmp_path: Path, command: str
) -> None:
    for tool in ("jq", "make"):
        if shutil.which(tool) is None and tool in command:
            pytest.skip(f"{tool} is not installed")
    files = {"words": "apple\nbread\n", "questions.jsonl": QUESTIONS, "requests.jsonl": f"{BODY}\n"}
    for name, text in {**files, "answers.jsonl.partial": ""}.items():
        (tmp_path / name).write_text(text)
    mock = server(reply="Hello")
    here = command.replace("http://localhost:8000/v1", mock.url)
    if "\nmake" in here and shutil.which("make") is None:
        pytest.skip("make is not installed")
    done = subprocess.run(
        ["bash", "-uo", "pipefail", "-c", here],
        cwd=tmp_path,
        env=environment | {"SMAI_BASE_URL": mock.url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    if "-o" in command:
        whole = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
        assert [(one["index"], one["error"]) for one in whole] == [(1, None), (2, None)]
    elif "dry-run" in command:
        assert json.loads(done.stdout)["lines"] == 2
    elif "select(.error)" not in command:
        kept = tmp_path / "results.jsonl"
        assert b"Hello" in done.stdout + (kept.read_bytes() if kept.exists() else b"")
