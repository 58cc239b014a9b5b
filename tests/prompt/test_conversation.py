"""`--chat`: whatever happens to a run, the file contains only complete turns that were delivered."""

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Server, Smai, assert_refused
from process import NO_BYTECODE, SMAI, Result, can_trace
from rawserver import DONE, GOOD, HEAD, HELLO, LAST_CHUNK, STOP, WORLD, Serve, Start, chunk, data, hold, until

from smai_cli.prompt.messages import parse_messages

pytest_plugins = ["rawserver"]
pytestmark = pytest.mark.preloaded
WHOLE = (HEAD, *map(chunk, GOOD), LAST_CHUNK)
BEFORE = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Grüße\n"}]


def turns(path: Path) -> Any:
    """Return the messages in the file; each line of it is one object with its end."""
    text = path.read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.removesuffix("\n").split("\n")]


@pytest.fixture
def chat(tmp_path: Path) -> Path:
    """A conversation of one turn, alone in its folder."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "chat.jsonl"
    path.write_text("".join(json.dumps(message) + "\n" for message in BEFORE))
    return path


def assert_alone(path: Path) -> None:
    """Check that the conversation is the only file in its folder."""
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_a_conversation_of_three_turns_is_json_lines_that_every_request_repeats(
    smai: Smai, server: Server, tmp_path: Path, api: str
) -> None:
    path = tmp_path / "new" / "chat.jsonl"
    path.parent.mkdir()
    mock = server(reply="Grüße\n\u2028 😀")
    for words in ("one", "two\nlines", "three"):
        assert smai("ask", "--base-url", mock.url, "--api", api, "--chat", path, words).status == 0
        assert_alone(path)
    answer = {"role": "assistant", "content": "Grüße\n\u2028 😀"}
    said = [{"role": "user", "content": words} for words in ("one", "two\nlines", "three")]
    whole = [said[0], answer, said[1], answer, said[2], answer]
    assert turns(path) == whole
    name = "messages" if api == "chat" else "input"
    assert [request.json[name] for request in mock.received] == [whole[:1], whole[:3], whole[:5]]


@pytest.mark.parametrize(
    ("api", "flags"),
    [
        ("chat", ["--final"]),
        ("chat", ["--raw"]),
        ("chat", ["--jsonl"]),
        ("chat", ["--no-stream"]),
        ("responses", ["--jsonl"]),
        ("responses", ["--no-stream", "--raw"]),
    ],
)
def test_every_mode_stores_the_same_turn(smai: Smai, server: Server, chat: Path, api: str, flags: list[str]) -> None:
    url = server(reply="An answer.").url
    assert smai("ask", "--base-url", url, "--api", api, "--chat", chat, *flags, "again").status == 0
    assert turns(chat) == [
        *BEFORE,
        {"role": "user", "content": "again"},
        {"role": "assistant", "content": "An answer."},
    ]
    assert_alone(chat)


def test_attachments_piped_text_and_the_system_text_are_stored_as_sent(
    smai: Smai, server: Server, tmp_path: Path
) -> None:
    path, image = tmp_path / "chat", tmp_path / "image"
    image.write_bytes(b"GIF89a")
    mock = server(reply="ok")
    smai("ask", "--base-url", mock.url, "--chat", path, "-s", "Be brief.", "-a", image, "what?", stdin=b"piped")
    smai("ask", "--base-url", mock.url, "--chat", path, "-s", "Be brief.", "and now?")
    first, second = (request.json["messages"] for request in mock.received)
    assert [message["role"] for message in first] == ["system", "user"]
    assert first[1]["content"][1] == {"type": "text", "text": "what?\n\npiped"}
    answer = {"role": "assistant", "content": "ok"}
    assert second == [*first, answer, {"role": "user", "content": "and now?"}]
    assert turns(path) == [*second, answer]


def test_another_system_text_than_the_first_is_refused(smai: Smai, server: Server, chat: Path) -> None:
    mock = server()
    before = chat.read_bytes()
    assert_refused(smai("ask", "--base-url", mock.url, "--chat", chat, "-s", "Be brief.", "x"), mock, "began without")
    assert chat.read_bytes() == before
    assert_alone(chat)


@pytest.mark.parametrize(
    ("script", "flags", "status"),
    [
        pytest.param({"cut_after": 2}, [], 8, id="cut"),
        pytest.param({"cut_after": 2}, ["--final", "--retries", "0"], 8, id="cut, final"),
        pytest.param({"error_after": 2}, [], 8, id="error event"),
        pytest.param({"done": False, "finish_reason": "none"}, [], 8, id="no ending"),
        pytest.param({"finish_reason": "length"}, [], 9, id="length"),
        pytest.param({"finish_reason": "length"}, ["--no-stream"], 9, id="length in one piece"),
        pytest.param({"cut_after": 2}, ["--api", "responses"], 8, id="cut, responses"),
        pytest.param({"finish_reason": "length"}, ["--api", "responses"], 9, id="length, responses"),
        pytest.param({"finish_reason": "content_filter"}, [], 10, id="withheld"),
        pytest.param({"status": 400}, [], 4, id="refused by the server"),
        pytest.param({"stall_after": 1}, ["--idle-timeout", "0.2"], 7, id="idle"),
    ],
)
def test_an_incomplete_answer_does_not_change_the_file(
    smai: Smai, server: Server, chat: Path, script: dict[str, Any], flags: list[str], status: int
) -> None:
    before = chat.read_bytes()
    result = smai("ask", "--base-url", server(**script).url, "--chat", chat, *flags, "again")
    assert result.status == status
    assert chat.read_bytes() == before
    assert_alone(chat)


def test_a_refusal_of_the_model_does_not_change_the_file(smai: Smai, server: Server, chat: Path) -> None:
    before = chat.read_bytes()
    tape = b'data: {"choices":[{"delta":{"refusal":"I will not"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    assert smai("ask", "--base-url", server(tape=tape).url, "--chat", chat, "again").status == 10
    assert chat.read_bytes() == before


def test_an_answer_that_does_not_match_the_schema_does_not_change_the_file(
    smai: Smai, server: Server, chat: Path
) -> None:
    before = chat.read_bytes()
    url = server(reply="no JSON").url
    assert smai("ask", "--base-url", url, "--chat", chat, "--json", "--final", "again").status == 8
    assert chat.read_bytes() == before


def test_an_answer_with_an_accepted_length_is_stored(smai: Smai, server: Server, chat: Path) -> None:
    url = server(reply="cut sho", finish_reason="length").url
    assert smai("ask", "--base-url", url, "--chat", chat, "--accept", "length", "again").status == 0
    assert turns(chat)[2:] == [{"role": "user", "content": "again"}, {"role": "assistant", "content": "cut sho"}]


def test_a_broken_attempt_is_not_stored(serve: Serve, start: Start, chat: Path) -> None:
    server = serve((HEAD, chunk(data('{"choices":[{"delta":{"content":"Broken"}}]}'))), WHOLE)
    assert start(server, "--chat", str(chat), "--final", "--summary", "none").end().status == 0
    assert len(server.requests) == 2
    assert turns(chat)[3:] == [{"role": "assistant", "content": "Hello world\n"}]


@pytest.mark.parametrize("interrupt", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_does_not_change_the_file_and_the_next_one_continues(
    serve: Serve, start: Start, chat: Path, interrupt: signal.Signals
) -> None:
    before = chat.read_bytes()
    server = serve((HEAD, chunk(HELLO), hold), WHOLE)
    run = start(server, "--chat", str(chat))
    assert run.out(6) == b"Hello "
    run.child.send_signal(interrupt)
    assert run.end().status == -interrupt
    assert chat.read_bytes() == before
    assert start(server, "--chat", str(chat)).end() == (0, b"Hello world\n", "")
    assert len(turns(chat)) == 4
    assert_alone(chat)


def test_an_answer_is_not_stored_if_stdout_was_closed(serve: Serve, start: Start, chat: Path) -> None:
    before = chat.read_bytes()
    gone = threading.Event()
    run = start(serve(HEAD, chunk(HELLO), until(gone), chunk(WORLD), chunk(STOP), chunk(DONE)), "--chat", str(chat))
    assert run.out(6) == b"Hello "
    assert run.child.stdout
    run.child.stdout.close()
    gone.set()
    assert run.child.wait() == -signal.SIGPIPE
    assert chat.read_bytes() == before
    assert_alone(chat)


CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"at": "Ülm"}'}}


@pytest.mark.parametrize(("text", "api"), [("", "chat"), ("Let me look.", "chat"), ("Let me look.", "responses")])
def test_tool_calls_are_stored_and_sent_in_the_next_request(
    smai: Smai, server: Server, chat: Path, text: str, api: str
) -> None:
    item = {"type": "function_call", "call_id": "c1", **CALL["function"]}  # type: ignore[dict-item]
    payloads: list[Any] = (
        [
            {
                "choices": [
                    {"delta": {"content": text, "tool_calls": [{"index": 0, **CALL}]}, "finish_reason": "tool_calls"}
                ]
            }
        ]
        if api == "chat"
        else [
            {"type": "response.output_text.delta", "delta": text},
            {"type": "response.output_item.done", "item": item},
            {"type": "response.completed", "response": {"status": "completed"}},
        ]
    )
    mock = server(tape="".join(f"data: {json.dumps(payload)}\n\n" for payload in payloads).encode())
    for _ in range(2):
        assert smai("ask", "--base-url", mock.url, "--api", api, "--chat", chat, "again").status == 0
    kept = {"role": "assistant", "content": text or None, "tool_calls": [CALL]}
    assert turns(chat)[3] == kept
    if api == "chat":
        assert mock.received[1].json["messages"][3] == kept
    else:
        assert mock.received[1].json["input"][-2] == item


@pytest.mark.parametrize("field", ["id", "name"])
def test_a_lone_surrogate_in_the_id_or_the_name_of_a_call_becomes_the_replacement_character(
    smai: Smai, server: Server, chat: Path, field: str
) -> None:
    call = json.dumps({"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}})
    call = call.replace({"id": '"c"', "name": '"f"'}[field], '"a\\ud800b"')
    tape = f'data: {{"choices":[{{"delta":{{"tool_calls":[{call}]}}}}]}}\n\n'.encode() + STOP + DONE
    assert smai("ask", "--base-url", server(tape=tape).url, "--chat", chat, "again").status == 0
    kept = turns(chat)[3]["tool_calls"][0]
    assert {"id": kept["id"], "name": kept["function"]["name"]}[field] == "a\ufffdb"


@pytest.mark.parametrize("arguments", [["\\ud83d", "\\ude00"], ["\\ud800"]])
def test_tool_calls_with_lone_surrogates_are_stored(
    smai: Smai, server: Server, chat: Path, arguments: list[str]
) -> None:
    call = '{"index":0,"id":"c","function":{"name":"f","arguments":"HERE"}}'
    events = [
        'data: {"choices":[{"delta":{"tool_calls":[' + call.replace("HERE", part) + "]}}]}\n\n" for part in arguments
    ]
    tape = "".join(events).encode() + STOP + DONE
    result = smai("ask", "--base-url", server(tape=tape).url, "--chat", chat, "again")
    assert result.status == 0, result
    assert turns(chat)[3]["tool_calls"][0]["id"] == "c"


# What the file may be.


def test_the_mode_of_the_file_and_a_symbolic_link_are_kept(smai: Smai, server: Server, chat: Path) -> None:
    link = chat.parent.parent / "link"
    link.symlink_to(chat)
    url = server(reply="ok").url
    for mode in (0o600, 0o666):
        chat.chmod(mode)
        assert smai("ask", "--base-url", url, "--chat", link, "again").status == 0
        assert stat.S_IMODE(chat.stat().st_mode) == mode
    assert link.is_symlink()
    assert len(turns(chat)) == 6
    assert_alone(chat)


def test_a_conversation_named_by_a_dangling_symbolic_link_is_created_at_its_target(
    smai: Smai, server: Server, tmp_path: Path
) -> None:
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to("target")
    assert smai("ask", "--base-url", server().url, "--chat", link, "hi").status == 0
    assert link.is_symlink()
    assert len(turns(target)) == 2


def test_a_name_that_is_not_utf_8_is_accepted(smai: Smai, server: Server, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9 \n"
    assert smai("ask", "--base-url", server().url, "--chat", path, "hi").status == 0
    assert len(turns(Path(os.fsdecode(path)))) == 2


@pytest.mark.parametrize(
    "before",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'{"role": "user", "content": "hi"}', id="last line without its end"),
        pytest.param(b'\xef\xbb\xbf{"role": "user", "content": "hi"}\r\n\r\n', id="BOM, CRLF and blank lines"),
        pytest.param(b'{\n  "role": "user",\n  "content": "hi"\n}\n', id="pretty-printed"),
        pytest.param(b'{"role": "user", "content": "hi", "name": "Ann", "x": 1.50}\n', id="other fields"),
    ],
)
def test_a_file_written_by_hand_is_continued_without_loss(
    smai: Smai, server: Server, tmp_path: Path, before: bytes
) -> None:
    path = tmp_path / "chat"
    path.write_bytes(before)
    mock = server(reply="ok")
    assert smai("ask", "--base-url", mock.url, "--chat", path, "again").status == 0
    assert len(mock.received[0].json["messages"]) == 1 + bool(before)
    assert before.removeprefix(b"\xef\xbb\xbf").rstrip() in path.read_bytes()
    assert len(parse_messages(path.read_text(), "chat")) == 2 + bool(before)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b'[{"role": "user", "content": "hi"}]\n', "is a JSON array", id="array"),
        pytest.param(b"[]", "is a JSON array", id="empty array"),
        pytest.param(b'{"role": "user", "content": "hi"}\n{"role": "u', "line 2: not JSON", id="cut"),
        pytest.param(b'{"role": "bot", "content": "hi"}\n', "line 1: role 'bot'", id="unknown role"),
        pytest.param(b"# notes\n", "line 1: not JSON", id="another file"),
        pytest.param(b"caf\xe9\n", "is not UTF-8", id="Latin-1"),
    ],
)
def test_a_file_that_is_not_a_conversation_is_refused_and_unchanged(
    smai: Smai, server: Server, chat: Path, content: bytes, words: str
) -> None:
    chat.write_bytes(content)
    mock = server()
    assert_refused(smai("ask", "--base-url", mock.url, "--chat", chat, "hi"), mock, str(chat), words)
    assert chat.read_bytes() == content
    assert_alone(chat)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(lambda path: path.mkdir(), "is not a regular file", id="folder"),
        pytest.param(os.mkfifo, "is not a regular file", id="FIFO"),
        pytest.param(lambda path: path.symlink_to("/dev/null"), "is not a regular file", id="device"),
        pytest.param(lambda path: path.symlink_to("/nonexistent/x"), "No such file", id="link into no folder"),
        pytest.param(lambda path: path.symlink_to(path), "ymbolic link", id="link to itself"),
        pytest.param(lambda path: path.symlink_to("/dev/stdout"), "is not a regular file", id="link to a pipe"),
    ],
)
def test_a_path_that_cannot_be_a_conversation_is_refused(
    smai: Smai, server: Server, tmp_path: Path, make: Any, words: str
) -> None:
    path = tmp_path / "chat"
    make(path)
    mock = server()
    assert_refused(smai("ask", "--base-url", mock.url, "--chat", path, "hi"), mock, str(path), words)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param("missing/chat", "No such file or directory", id="folder missing"),
        pytest.param("/dev/null/chat", "Not a directory", id="no folder"),
        pytest.param("x" * 300, "File name too long", id="too long"),
        pytest.param("", "--chat", id="empty name"),
    ],
)
def test_a_name_that_cannot_be_a_file_is_refused(
    smai: Smai, server: Server, tmp_path: Path, name: str, words: str
) -> None:
    mock = server()
    path = str(tmp_path / name) if name else ""
    assert_refused(smai("ask", "--base-url", mock.url, "--chat", path, "hi"), mock, path, words)


def as_ordinary_user() -> list[str]:
    """Return the prefix of a command that makes file modes apply to root too."""
    if os.geteuid():
        return []
    command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    if not shutil.which("setpriv") or subprocess.run([*command, "true"], check=False, capture_output=True).returncode:
        pytest.skip("root may write everywhere, and setpriv cannot forbid it")
    return command


@pytest.mark.parametrize("what", ["file", "folder", "unreadable"])
def test_a_file_or_a_folder_that_may_not_be_written_is_refused_before_the_request(
    server: Server, environment: dict[str, str], chat: Path, what: str
) -> None:
    mock = server()
    prefix = as_ordinary_user()
    before = chat.read_bytes()
    place, mode = {"file": (chat, 0o444), "folder": (chat.parent, 0o555), "unreadable": (chat, 0o200)}[what]
    place.chmod(mode)
    command = [*prefix, SMAI, "ask", "--base-url", mock.url, "--chat", str(chat), "hi"]
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    place.chmod(0o755)
    assert_refused(Result(done.returncode, done.stdout, done.stderr.decode()), mock, str(chat))
    assert chat.read_bytes() == before
    assert_alone(chat)


@pytest.mark.parametrize("flags", [["-s", "hi"], ["-s", "hi", "-n"]])
def test_a_system_text_equal_to_the_first_prompt_is_refused(
    smai: Smai, server: Server, chat: Path, flags: list[str]
) -> None:
    mock = server()
    before = chat.read_bytes()
    assert_refused(smai("ask", "--base-url", mock.url, "--chat", chat, *flags, "x"), mock, "began without")
    assert chat.read_bytes() == before


# Other programs change the file while the answer arrives.

NOTE = json.dumps({"role": "user", "content": "a note"}) + "\n"
TURN = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello world\n"}]


def change_during_answer(serve: Serve, start: Start, chat: Path, meddle: Any, *flags: str) -> Result:
    """Run a turn, and call `meddle` with the file when the first half of the answer has arrived."""
    go_on = threading.Event()
    server = serve(HEAD, chunk(HELLO), until(go_on), chunk(WORLD), chunk(STOP), chunk(DONE), LAST_CHUNK)
    run = start(server, "--chat", str(chat), *flags)
    assert run.out(6) == b"Hello "
    meddle(chat)
    go_on.set()
    return run.end()


def append_note(path: Path) -> None:
    with path.open("a") as file:
        file.write(NOTE)


def replace_with_note(path: Path) -> None:
    """Append as an editor does, by replacing the file."""
    path.with_name("new").write_text(path.read_text() + NOTE)
    path.with_name("new").rename(path)


@pytest.mark.parametrize("meddle", [append_note, replace_with_note])
def test_messages_appended_meanwhile_are_kept_before_the_turn(
    serve: Serve, start: Start, chat: Path, meddle: Any
) -> None:
    assert change_during_answer(serve, start, chat, meddle) == (0, b"world\n", "")
    assert turns(chat) == [*BEFORE, json.loads(NOTE), *TURN]
    assert_alone(chat)


def test_a_conversation_that_was_created_meanwhile_is_continued(serve: Serve, start: Start, chat: Path) -> None:
    chat.unlink()
    assert change_during_answer(serve, start, chat, append_note).status == 0
    assert turns(chat) == [json.loads(NOTE), *TURN]


@pytest.mark.parametrize(
    "meddle",
    [
        pytest.param(lambda path: path.write_text(NOTE), id="replaced"),
        pytest.param(lambda path: path.write_text(path.read_text().replace("hi", "ho")), id="changed in its place"),
        pytest.param(lambda path: path.write_text(""), id="emptied"),
        pytest.param(lambda path: path.unlink(), id="removed"),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), id="a folder now"),
        pytest.param(lambda path: (path.unlink(), path.symlink_to("/dev/null")), id="a link now"),
        pytest.param(lambda path: path.write_text(path.read_text() + '{"role": "us'), id="half a line after it"),
    ],
)
def test_a_file_changed_meanwhile_is_not_touched_and_the_turn_is_saved_separately(
    serve: Serve, start: Start, chat: Path, meddle: Any
) -> None:
    def look() -> tuple[int, bytes] | None:
        if not os.path.lexists(chat):
            return None
        return chat.lstat().st_ino, chat.read_bytes() if chat.is_file() else b""

    seen: list[Any] = []
    chat.chmod(0o600)

    def meddle_and_look(path: Path) -> None:
        meddle(path)
        seen.append(look())

    result = change_during_answer(serve, start, chat, meddle_and_look)
    beside = Path(f"{chat}.turn")
    line = f"smai: {chat} was changed by another program and is left unchanged; the turn is in {beside}\n"
    assert result == (11, b"world\n", line)
    assert look() == seen[0]
    assert (turns(beside), stat.S_IMODE(beside.stat().st_mode)) == (TURN, 0o600)
    assert sorted(path.name for path in chat.parent.iterdir()) == sorted(
        {beside.name, *([chat.name] if seen[0] is not None else [])}
    )


def test_a_second_separate_turn_is_appended_to_the_first(serve: Serve, start: Start, chat: Path) -> None:
    for _ in range(2):
        change_during_answer(serve, start, chat, lambda path: path.write_text(NOTE + path.read_text()))
    assert turns(Path(f"{chat}.turn")) == TURN * 2


def test_many_appended_lines_lose_neither_lines_nor_turns(server: Server, start: Start, chat: Path) -> None:
    url = server(reply="ok").url
    storm = subprocess.Popen(
        ["bash", "-c", f"while :; do echo '{NOTE.strip()}' >>'{chat}'; echo; sleep 0.001; done"], stdout=subprocess.PIPE
    )
    try:
        for _ in range(3):
            start(None, "--base-url", url, "--chat", str(chat)).end()
    finally:
        storm.kill()
        written = storm.communicate()[0].count(b"\n")
    beside = Path(f"{chat}.turn")
    whole = turns(chat) + (turns(beside) if beside.exists() else [])
    assert whole.count({"role": "assistant", "content": "ok"}) == 3
    assert written <= whole.count(json.loads(NOTE)) <= written + 1


# Failures of the disk.


def assert_not_stored(done: "subprocess.CompletedProcess[bytes]", chat: Path, before: bytes, words: bytes) -> None:
    """Check that the answer was delivered, but the turn not stored, and the file is unchanged."""
    assert (done.returncode, done.stdout) == (11, b"ok\n")
    assert done.stderr.startswith(b"smai: " + os.fsencode(chat))
    assert words in done.stderr
    assert b"the conversation is unchanged" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert chat.read_bytes() == before
    assert_alone(chat)


def test_a_limit_on_file_sizes_is_status_11_and_the_conversation_is_unchanged(
    server: Server, environment: dict[str, str], chat: Path
) -> None:
    with chat.open("a") as file:
        file.write(json.dumps({"role": "user", "content": "x" * 2000}) + "\n")
    before = chat.read_bytes()
    command = [SMAI, "ask", "--base-url", server(reply="ok").url, "--chat", str(chat), "hi"]
    limited = ["bash", "-c", 'ulimit -f 1; exec "$@"', "bash", *command]
    done = subprocess.run(
        limited, env=environment | NO_BYTECODE, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert_not_stored(done, chat, before, b"File too large")


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount 64 KiB of memory at `folder`."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_status_11_and_the_conversation_is_unchanged(
    server: Server, environment: dict[str, str], tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        chat = disk / "chat"
        chat.write_text(json.dumps({"role": "user", "content": "x" * 40_000}) + "\n")
        before = chat.read_bytes()
        command = [SMAI, "ask", "--base-url", server(reply="ok").url, "--chat", str(chat), "hi"]
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        assert_not_stored(done, chat, before, b"No space left on device")


# Two runs at once.


def test_two_runs_at_once_follow_one_another_and_the_second_says_that_it_waits(
    serve: Serve, start: Start, chat: Path
) -> None:
    go_on = threading.Event()
    server = serve((HEAD, chunk(HELLO), until(go_on), chunk(STOP), chunk(DONE), LAST_CHUNK), WHOLE)
    one = start(server, "--chat", str(chat))
    assert one.out(6) == b"Hello "
    other = start(server, "--chat", str(chat))
    assert other.err_line() == f"smai: waiting for another run that uses {chat}\n"
    assert len(server.requests) == 1
    go_on.set()
    assert one.end() == (0, b"\n", "")
    assert other.end() == (0, b"Hello world\n", "")
    first = [*BEFORE, {"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello "}]
    assert json.loads(server.requests[1].body)["messages"] == [*first, {"role": "user", "content": "hi"}]
    assert turns(chat) == [*first, {"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello world\n"}]
    assert_alone(chat)


def test_many_runs_at_once_lose_no_turn(server: Server, start: Start, chat: Path) -> None:
    url = server(reply="ok").url
    runs = [start(None, "--base-url", url, "--chat", str(chat)) for _ in range(4)]
    ends = [run.end() for run in runs]
    assert [end.status for end in ends] == [0] * 4
    waits = f"smai: waiting for another run that uses {chat}\n"
    assert {end.stderr for end in ends} <= {"", waits}  # once, although others may be first several times
    turn = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ok"}]
    assert turns(chat) == BEFORE + turn * 4
    assert_alone(chat)


def test_max_time_ends_the_wait_for_another_run_without_harming_it(serve: Serve, start: Start, chat: Path) -> None:
    go_on = threading.Event()
    server = serve(HEAD, chunk(HELLO), until(go_on), chunk(STOP), chunk(DONE), LAST_CHUNK)
    one = start(server, "--chat", str(chat))
    assert one.out(6) == b"Hello "
    assert start(server, "--chat", str(chat), "--max-time", "0.5").end().status == 7
    go_on.set()
    assert one.end().status == 0
    assert len(server.requests) == 1
    assert len(turns(chat)) == 4


def test_two_runs_in_one_pipe_follow_one_another(server: Server, environment: dict[str, str], chat: Path) -> None:
    line = '"$0" ask -n --base-url "$1" --chat "$2" one | "$0" ask --base-url "$1" --chat "$2" two'
    command = ["bash", "-c", line, SMAI, server(reply="ok").url, str(chat)]
    done = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=30)
    assert (done.stdout, done.stderr) == (b"ok\n", b"")
    assert [message["content"] for message in turns(chat)[2:]] == ["one", "ok", "two\n\nok\n", "ok"]
    assert_alone(chat)


# The file of -o and the conversation.


def test_a_failed_output_file_does_not_change_the_conversation(
    serve: Serve, start: Start, chat: Path, tmp_path: Path
) -> None:
    before = chat.read_bytes()
    out = tmp_path / "out"
    result = change_during_answer(serve, start, chat, lambda _: out.mkdir(), "-o", str(out))
    assert (result.status, result.stderr.count("\n")) == (11, 1)
    assert result.stderr.endswith(f"; the answer is in {out}.partial\n")
    assert (Path(f"{out}.partial").read_text(), chat.read_bytes()) == ("Hello world\n", before)
    assert_alone(chat)


def test_a_failed_conversation_does_not_change_the_output_file(
    serve: Serve, start: Start, chat: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.write_text("old")
    result = change_during_answer(serve, start, chat, lambda path: path.write_text(NOTE), "-o", str(out))
    assert (result.status, out.read_text(), Path(f"{out}.partial").read_text()) == (11, "old", "Hello world\n")
    assert turns(Path(f"{chat}.turn")) == TURN


def test_a_complete_answer_goes_into_both_files(smai: Smai, server: Server, chat: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert smai("ask", "--base-url", server(reply="ok").url, "--chat", chat, "-q", "-o", out, "x").status == 0
    assert (out.read_text(), len(turns(chat))) == ("ok\n", 4)


# Killed at any moment.


def test_a_run_ignores_the_temporary_files_of_a_killed_run(smai: Smai, server: Server, chat: Path) -> None:
    chat.with_name(f".{chat.name}.smai-new").write_text('{"role": "user", "content": "half a li')
    chat.with_name(f".{chat.name}.smai-lock").touch()
    assert smai("ask", "--base-url", server(reply="ok").url, "--chat", chat, "hi") == (0, b"ok\n", "")
    assert turns(chat) == [*BEFORE, {"role": "user", "content": "hi"}, {"role": "assistant", "content": "ok"}]
    assert_alone(chat)


def test_a_file_of_the_user_that_ends_in_lock_is_not_removed(smai: Smai, server: Server, chat: Path) -> None:
    lock = Path(f"{chat}.lock")
    lock.write_text("[[package]]\n")
    smai("ask", "--base-url", server(reply="ok").url, "--chat", chat, "hi")
    assert lock.read_text() == "[[package]]\n"


KILLED_IN = [
    pytest.param((hold,), 0, id="before the headers"),
    pytest.param((HEAD, hold), 0, id="before the first delta"),
    pytest.param((HEAD, chunk(HELLO), hold), 6, id="in the stream"),
    pytest.param((HEAD, chunk(HELLO), chunk(WORLD), hold), 12, id="after the last delta"),
]


@pytest.mark.parametrize(("steps", "count"), KILLED_IN)
def test_a_kill_during_the_answer_does_not_change_the_file(
    serve: Serve, start: Start, chat: Path, steps: Any, count: int
) -> None:
    server = serve(steps, WHOLE)
    second = chat.read_bytes() * 2
    chat.write_bytes(second)
    run = start(server, "--chat", str(chat))
    run.out(count)
    server.next_request()
    run.kill()
    assert chat.read_bytes() == second
    assert start(server, "--chat", str(chat)).end() == (0, b"Hello world\n", "")
    assert len(turns(chat)) == 6
    assert_alone(chat)


@pytest.mark.thorough
@pytest.mark.parametrize("call", ["openat", "unlink", "fchmod", "write", "fsync", "rename", "close"])
def test_a_kill_at_any_system_call_leaves_the_old_or_the_new_file(
    server: Server, environment: dict[str, str], chat: Path, call: str
) -> None:
    if not can_trace():
        pytest.skip("strace is not there, or may not trace")
    ask = ["ask", "--base-url", server(reply="ok").url, "--chat", str(chat), "hi"]
    second = chat.read_bytes() * 2
    turn = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ok"}]
    third = second + "".join(json.dumps(message) + "\n" for message in turn).encode()
    hidden = (chat.with_name(f".{chat.name}.smai-{kind}") for kind in ("new", "lock"))
    files = [str(path) for path in (chat.parent, chat, *hidden)]
    trace = ["strace", "-qq", "-o", os.devnull, *(option for file in files for option in ("-P", file))]
    seen = []
    # Each run is killed one call later than the previous one, and continues with its files; the last one is not killed.
    for number in range(1, 50):
        chat.write_bytes(second)
        command = [*trace, "-e", f"inject={call}:signal=SIGKILL:when={number}", SMAI, *ask]
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        seen.append(chat.read_bytes())
        assert seen[-1] in (second, third), number
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    assert len(seen) > 1
    assert seen == sorted(seen, key=len)
    assert (seen[0], seen[-1]) == (second, third)
    assert_alone(chat)
