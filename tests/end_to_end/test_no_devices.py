"""A chroot or a container with an empty /dev: smai needs no device."""

import functools
import os
import subprocess
from pathlib import Path

import pytest
from conftest import Config, Server
from process import SMAI, Result

OUT = b"Hello\n"


def unshared() -> list[str]:
    """Return the command that runs a script in a mount namespace: as root, or as root of a user namespace."""
    return ["unshare", "-m" if os.geteuid() == 0 else "-rm", "sh", "-c"]


@functools.cache
def can_mount() -> bool:
    """Return whether this machine lets a test put an empty folder in place of /dev."""
    try:
        done = subprocess.run([*unshared(), "mount -t tmpfs none /dev"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return done.returncode == 0


def run_without_devices(line: str, environment: dict[str, str], stdin: bytes | None = b"") -> Result:
    """Run a line of sh with an empty /dev; `$smai` is smai, and stdin is an empty pipe."""
    if not can_mount():
        pytest.skip("no mount namespace of one's own")
    script = f"mount -t tmpfs none /dev && test ! -e /dev/null || exit 99; smai={SMAI}; {line}"
    done = subprocess.run([*unshared(), script], input=stdin, env=environment, capture_output=True, check=False)
    return Result(done.returncode, done.stdout, done.stderr.decode())


@pytest.mark.parametrize("closed", ["", "<&-", "2>&-", "<&- 2>&-"])
def test_a_closed_descriptor_does_not_need_the_null_device(
    server: Server, environment: dict[str, str], closed: str
) -> None:
    url = server(reply="Hello").url
    assert run_without_devices(f"$smai ask --base-url {url} hi {closed}", environment) == (0, OUT, "")


@pytest.mark.parametrize("closed", [">&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_stdout_is_status_11_and_nothing_is_sent(
    server: Server, environment: dict[str, str], closed: str
) -> None:
    mock = server(reply="Hello")
    result = run_without_devices(f"$smai ask --base-url {mock.url} hi {closed}", environment)
    says = "smai: stdout: Bad file descriptor; open it, for example with >/dev/null\n"
    assert result == (11, b"", "" if "2>&-" in closed else says)
    assert mock.received == []


def test_a_key_command_does_not_need_the_null_device(
    server: Server, environment: dict[str, str], config: Config
) -> None:
    mock = server(reply="Hello")
    config(f'base_url = "{mock.url}"\nkey_command = "sh -c \'cat; echo sk-of-a-command\'"\n')
    assert run_without_devices("$smai ask hi", environment, stdin=b"a prompt") == (0, OUT, "")
    assert mock.received[0].headers["authorization"] == "Bearer sk-of-a-command"


def test_a_configuration_that_is_a_pipe_is_reported_in_one_line(environment: dict[str, str], tmp_path: Path) -> None:
    environment["XDG_CONFIG_HOME"] = str(tmp_path)
    (tmp_path / "smai").mkdir()
    path = tmp_path / "smai" / "config.toml"
    os.mkfifo(path, 0o600)
    says = f"smai: {path}: it is not a regular file; check the configuration file\n"
    assert run_without_devices("$smai ask hi", environment) == (2, b"", says)
