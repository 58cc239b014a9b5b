"""Where keys live: the environment, a file, a command, and the file that `smai login` writes."""

import os
import re
import stat
from collections.abc import Mapping

from smai_cli.errors import OutputError, UsageError
from smai_cli.files import replace_file

_KEY_LIMIT = 65536
_KEY_START = 8
# A person may have to type a passphrase; a job must not hang.
COMMAND_LIMIT_S = 60


class Secret:
    """A key that no message, repr or traceback shows; `reveal` is called only where it goes on the wire."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        """Return a placeholder."""
        return "Secret(...)"

    __str__ = __repr__

    def hidden_in(self, text: str) -> str:
        """Return `text` without the key, or what a cut left of it: a server may repeat it in its own words.

        A key too short to be a secret is left alone: local servers take any, and `o` is in many words.
        """
        start = self._value[:_KEY_START]
        at = text.find(start) if len(start) == _KEY_START else -1
        while at >= 0:
            end = at + _KEY_START
            while end < len(text) and self._value.startswith(text[at : end + 1]):
                end += 1
            text = f"{text[:at]}...{text[end:]}"
            at = text.find(start, at)
        return text

    def reveal(self) -> str:
        """Return the key itself."""
        return self._value


def checked_key(value: str, source: str) -> Secret:
    """Return the key in `value` without the white space around it; nothing of it is ever shown. Raises UsageError."""
    key = value.strip()
    if not key:
        raise UsageError(f"{source} is empty", "put the key there, alone")
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        raise UsageError(
            f"{source} holds a character that no key has (a line end, a space, or one outside ASCII)",
            "put the key there, alone",
        )
    return Secret(key)


def key_from_file(path: str, hint: str = "check --key-file") -> Secret:
    """Read a key from a file that nobody else can read, or from a pipe. Raises UsageError."""
    data = _read_private(path, f"others can read the key file {path}", f"the key file {path}", hint)
    return checked_key(data, f"the key file {path}")


def key_from_command(command: str | list[str], source: str) -> Secret:
    """Return the first line that a command prints, run without a shell; its stderr is shown. Raises UsageError."""
    import shlex  # noqa: PLC0415  # for those who have one
    import subprocess  # noqa: PLC0415

    try:
        words = shlex.split(command) if isinstance(command, str) else command
        done = subprocess.run(  # noqa: S603  # the user's own words, and no shell
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=COMMAND_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise UsageError(f"key_command took longer than {COMMAND_LIMIT_S} s", f"check {source}") from exc
    except OSError as exc:
        raise UsageError(f"key_command cannot be run: {exc.strerror}", f"check {source}") from exc
    except ValueError as exc:
        raise UsageError(f"key_command is no command: {exc}", f"check {source}") from exc
    if done.returncode:
        ended = f"died by signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
        raise UsageError(f"key_command failed: {ended}", f"check {source}")
    lines = done.stdout.decode("latin-1").splitlines()
    return checked_key(lines[0] if lines else "", "the output of key_command")


class KeyStore:
    """The file in which `smai login` keeps keys, each under a profile and bound to an origin.

    Its JSON is `{profile: {"origin": origin, "key": key}}`; without a profile the name is empty.
    """

    def __init__(self, folder: str | None) -> None:
        self.path = None if folder is None else os.path.join(folder, "keys.json")

    def check(self) -> None:
        """Raise UsageError where no key can be kept."""
        if self.path is None:
            raise UsageError("there is no home to keep a key in", "set HOME or XDG_CONFIG_HOME, or use SMAI_API_KEY")
        self._read()

    def find(self, profile: str | None, origin: str) -> Secret | None:
        """Return the key of a profile, or else of none, for an origin. Raises UsageError for a file not in order."""
        stored = self._read()
        for name in (profile or "", ""):
            entry = stored.get(name)
            if isinstance(entry, dict) and entry.get("origin") == origin:
                return checked_key(str(entry.get("key")), f"the key in {self.path}")
        return None

    def put(self, profile: str | None, origin: str, key: Secret) -> str:
        """Keep a key, in place of the profile's old one; return the path. Raises UsageError or OutputError."""
        self.check()
        self._write({**self._read(), profile or "": {"origin": origin, "key": key.reveal()}})
        return self.path or ""

    def remove(self, profile: str | None) -> bool:
        """Forget the key of a profile; return whether there was one. Raises UsageError or OutputError."""
        stored = self._read()
        if stored.pop(profile or "", None) is None:
            return False
        self._write(stored)
        return True

    def _read(self) -> dict[str, object]:
        if self.path is None or not os.path.lexists(self.path):
            return {}
        text = _read_private(
            self.path,
            f"others can read the file of keys {self.path}",
            f"the file of keys {self.path}",
            "smai login makes it anew once it is away",
        )
        import json  # noqa: PLC0415  # for those who have a file of keys

        try:
            stored = json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise UsageError(f"the file of keys {self.path} is not JSON", "remove it, and run smai login") from exc
        return stored if isinstance(stored, dict) else {}

    def _write(self, stored: Mapping[str, object]) -> None:
        """Replace the file in one step, readable for its owner only from the beginning."""
        import json  # noqa: PLC0415  # as above

        path = os.path.realpath(self.path or "")
        try:
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            replace_file(path, f"{path}.new", (json.dumps(stored, indent=1) + "\n").encode(), 0o600)
        except OSError as exc:
            raise OutputError(f"{self.path}: {exc.strerror}", "check the folder; the keys are as they were") from exc


def _read_private(path: str, open_to_others: str, name: str, hint: str) -> str:
    """Return what is in a file that nobody but its owner can use, or in a pipe, as Latin-1. Raises UsageError."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(mode) and mode & 0o077:
                raise UsageError(open_to_others, f"run chmod 600 {path}")
            return file.read(_KEY_LIMIT).decode("latin-1")
    except OSError as exc:
        raise UsageError(f"{name}: {exc.strerror}", hint) from exc
