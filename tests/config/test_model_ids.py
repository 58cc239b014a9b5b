"""The list that `smai models` stores, and what a shell offers at a TAB after -m."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Server, Smai
from process import Result
from rawserver import KEY, Serve, http, reach

from smai_cli.config.model_ids import load_ids, store_ids
from smai_cli.mock.script import MODELS

pytest_plugins = ["rawserver"]
pytestmark = pytest.mark.preloaded

Tab = Callable[..., Result]
URL = "http://127.0.0.1:8080/v1"


@pytest.fixture
def folder(environment: dict[str, str]) -> Path:
    """Return the default folder of the cache."""
    return Path(environment["HOME"]) / ".cache" / "smai"


@pytest.fixture
def tab(smai: Smai) -> Tab:
    """`tab("smai ask -m gpt")` returns what bash, or another `shell`, offers there, without any request."""

    def run(line: str, shell: str = "bash", **env: str) -> Result:
        words = line.split(" ")
        word = words[-1] if shell == "fish" else str(len(words) - 1)
        asked = {"_SMAI_COMPLETE": f"{shell}_complete", "COMP_WORDS": line, "COMP_CWORD": word}
        return smai(env={"SMAI_BASE_URL": URL, **asked, **env})

    return run


def write_lists(folder: Path, lists: Any) -> None:
    folder.mkdir(parents=True)
    (folder / "models.json").write_text(json.dumps(lists))


# Storing the list.


def test_only_the_owner_can_read_the_cache(smai: Smai, server: Server, folder: Path) -> None:
    url = server().url
    assert smai("models", "--base-url", f"{url}/").status == 0
    file = folder / "models.json"
    assert json.loads(file.read_text()) == {url: list(MODELS)}
    modes = [path.stat().st_mode & 0o777 for path in (file, folder, folder.parent)]
    assert modes == [0o600, 0o700, 0o700]
    assert list(folder.iterdir()) == [file]


def test_models_with_json_stores_the_same_list(smai: Smai, server: Server, folder: Path) -> None:
    url = server().url
    assert smai("models", "--json", "--base-url", url).status == 0
    assert json.loads((folder / "models.json").read_text()) == {url: list(MODELS)}


def test_the_cache_is_in_xdg_cache_home_if_that_path_is_absolute(
    smai: Smai, server: Server, folder: Path, tmp_path: Path
) -> None:
    url = server().url
    smai("models", "--base-url", url, env={"XDG_CACHE_HOME": str(tmp_path / "a" / "b")})
    assert (tmp_path / "a" / "b" / "smai" / "models.json").exists()
    assert not folder.exists()
    smai("models", "--base-url", url, env={"XDG_CACHE_HOME": "relative"})
    assert (folder / "models.json").exists()


def test_each_server_has_its_own_list_and_a_new_list_replaces_the_old_one(
    smai: Smai, server: Server, folder: Path
) -> None:
    url = server().url
    write_lists(folder, {"https://x.example/v1": ["x"], url: ["old"]})
    smai("models", "--base-url", url)
    assert json.loads((folder / "models.json").read_text()) == {url: list(MODELS), "https://x.example/v1": ["x"]}


def test_the_cache_drops_the_servers_with_the_oldest_lists(tmp_path: Path) -> None:
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    for port in range(40):
        store_ids(f"http://127.0.0.1:{port}/v1", [f"m{port}"], environ)
    assert load_ids("http://127.0.0.1:39/v1", environ) == ["m39"]
    assert load_ids("http://127.0.0.1:8/v1", environ) == ["m8"]
    assert load_ids("http://127.0.0.1:7/v1", environ) == []


def test_a_list_that_is_too_large_is_not_stored(tmp_path: Path) -> None:
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    store_ids(URL, ["x" * 5_000_000], environ)
    assert (tmp_path / "smai" / "models.json").read_text() == "{}"


def test_the_cache_contains_no_secret(serve: Serve, smai: Smai, folder: Path) -> None:
    server = serve(http("200 OK", json.dumps([{"id": "one"}, {"id": f"echo-{KEY}"}]).encode()))
    url = server.url.replace("//", "//user:password@") + "?token=hidden"
    assert smai("models", "--base-url", url, env=reach(server)).status == 0
    assert json.loads((folder / "models.json").read_text()) == {server.url: ["one"]}


def test_a_mock_run_and_a_failed_run_store_no_model_ids(smai: Smai, server: Server, folder: Path) -> None:
    assert smai("models", "--mock").status == 0
    assert smai("models", "--base-url", server(status=401).url).status == 5
    assert not folder.parent.exists()


def _file_in_the_way(home: Path) -> None:
    (home / ".cache").write_text("")


def _folder_in_the_way(home: Path) -> None:
    (home / ".cache" / "smai" / "models.json" / "x").mkdir(parents=True)


def _broken(home: Path) -> None:
    (home / ".cache" / "smai").mkdir(parents=True)
    (home / ".cache" / "smai" / "models.json").write_bytes(b'{"\xff')


def _pipe(home: Path) -> None:
    (home / ".cache" / "smai").mkdir(parents=True)
    os.mkfifo(home / ".cache" / "smai" / "models.json")


def _dangling(home: Path) -> None:
    (home / ".cache").symlink_to("/nonexistent/smai")


def _read_only(home: Path) -> None:
    (home / ".cache").mkdir()
    (home / ".cache" / "smai").symlink_to("/proc/self")


@pytest.mark.parametrize("spoil", [_file_in_the_way, _folder_in_the_way, _broken, _pipe, _dangling, _read_only])
def test_an_unusable_cache_is_ignored(
    smai: Smai, server: Server, tab: Tab, environment: dict[str, str], spoil: Callable[[Path], None]
) -> None:
    spoil(Path(environment["HOME"]))
    assert tab("smai ask -m ") == (0, b"\n", "")
    url = server().url
    result = smai("models", "--base-url", url)
    assert result == (0, "".join(f"{model}\n" for model in MODELS).encode(), "")


@pytest.mark.parametrize("home", ["", "relative", "/nonexistent", "/proc"])
def test_without_a_home_no_model_ids_are_stored_and_nothing_is_reported(
    smai: Smai, server: Server, tab: Tab, home: str
) -> None:
    result = smai("models", "--base-url", server().url, env={"HOME": home})
    assert (result.status, result.stderr) == (0, "")
    assert not Path("/nonexistent").exists()
    assert tab("smai ask -m ", HOME=home) == (0, b"\n", "")


# Completion.


@pytest.mark.parametrize(
    ("shell", "offered"),
    [
        ("bash", b"plain,gpt-4.1\nplain,gpt-4o\n"),
        ("zsh", b"plain\ngpt-4.1\n_\nplain\ngpt-4o\n_\n"),
        ("fish", b"plain,gpt-4.1\nplain,gpt-4o\n"),
    ],
)
def test_completion_offers_the_model_ids_of_the_last_list(folder: Path, tab: Tab, shell: str, offered: bytes) -> None:
    write_lists(folder, {URL: ["gpt-4.1", "gpt-4o", "o3"]})
    assert tab("smai ask -m gpt", shell) == (0, offered, "")


@pytest.mark.parametrize("line", ["smai ask -m ", "smai ask --model ", "smai ask -s x --raw -m ", "smai ask hi -m "])
def test_completion_offers_every_model_id_before_the_first_letter(folder: Path, tab: Tab, line: str) -> None:
    write_lists(folder, {URL: ["b/b:1", "@a"]})
    assert tab(line) == (0, b"plain,b/b:1\nplain,@a\n", "")


def test_completion_uses_the_list_of_the_server_in_the_options_or_the_environment(folder: Path, tab: Tab) -> None:
    write_lists(folder, {URL: ["here"], "https://x.example/v1": ["there"], "https://api.smai.ai/v1": ["home"]})
    assert tab("smai ask -m ").stdout == b"plain,here\n"
    assert tab("smai ask --base-url https://u:p@x.example/v1/ -m ").stdout == b"plain,there\n"
    assert tab("smai ask --base-url=https://x.example/v1 -m ").stdout == b"plain,there\n"
    assert tab("smai ask -m ", SMAI_BASE_URL="").stdout == b"plain,home\n"
    assert tab("smai ask --base-url https://y.example -m ").stdout == b"\n"


@pytest.mark.parametrize("line", ["smai ask --base-url nonsense -m ", "smai ask --base-url https:// -m "])
def test_completion_on_an_invalid_command_line_offers_nothing(folder: Path, tab: Tab, line: str) -> None:
    write_lists(folder, {URL: ["here"]})
    assert tab(line) == (0, b"\n", "")


def test_an_id_with_special_shell_characters_is_not_offered(folder: Path, tab: Tab) -> None:
    ids = ["$(date)", "`date`", "a;b", "a b", "a\nb", "*", "-m", "~x", "a'b", "a\u202eb", "{a,b}", "good"]
    write_lists(folder, {URL: ids})
    assert tab("smai ask -m ") == (0, b"plain,good\n", "")


@pytest.mark.parametrize(
    "content",
    ["", "[]", "7", '"x"', f'{{"{URL}": 7}}', f'{{"{URL}": ["a", 7]}}', f'{{"{URL}": [', "[" * 100_000, "NaN"],
    ids=lambda content: content[:20],
)
def test_completion_offers_no_model_ids_from_a_broken_cache(folder: Path, tab: Tab, content: str) -> None:
    write_lists(folder, {})
    (folder / "models.json").write_text(content)
    assert tab("smai ask -m ") == (0, b"\n", "")


def test_completion_loads_no_http_library(folder: Path, smai: Smai) -> None:
    write_lists(folder, {URL: ["here"]})
    asked = {"_SMAI_COMPLETE": "bash_complete", "COMP_WORDS": "smai ask -m ", "COMP_CWORD": "3", "SMAI_BASE_URL": URL}
    result = smai(env={**asked, "PYTHONVERBOSE": "1"})
    assert result.stdout == b"plain,here\n"
    loaded = {line.split("'")[1] for line in result.stderr.splitlines() if line.startswith("import '")}
    assert "smai_cli.config.model_ids" in loaded
    assert not loaded & {"requests", "urllib3", "ssl", "smai_cli.http.exchange", "smai_cli.stream.models"}


def test_the_bash_function_completes_a_model_name(folder: Path, environment: dict[str, str], tmp_path: Path) -> None:
    write_lists(folder, {URL: ["gpt-4.1", "llama3.2:1b"]})
    script = """
        eval "$(smai completion bash)"
        function=$(complete -p smai | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        COMP_WORDS=(smai ask -m ll) COMP_CWORD=3
        $function smai ll -m
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    env = environment | {"SMAI_BASE_URL": URL}
    done = subprocess.run(["bash", "-c", script], env=env, cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"llama3.2:1b\n", b"")
