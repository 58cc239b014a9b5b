"""The file in which `smai login` keeps keys, and which many runs may write at once."""

import contextlib
import os
from collections.abc import Iterator, Mapping

from smai_cli.config.keys import Secret, checked_key, read_private
from smai_cli.errors import OutputError, UsageError
from smai_cli.files import replace_file

_LIMIT_BYTES = 16 * 1024 * 1024


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
        with self._locked():
            self._write({**self._read(), profile or "": {"origin": origin, "key": key.reveal()}})
        return self.path or ""

    def remove(self, profile: str | None) -> bool:
        """Forget the key of a profile; return whether there was one. Raises UsageError or OutputError.

        What a login left that was killed goes too: the key may be in it.
        """
        if self.path is None or not any(map(os.path.lexists, (self.path, self._new))):
            return False
        with self._locked():
            was_left = os.path.lexists(self._new)
            with self._in_order():
                if was_left:
                    os.unlink(self._new)
            stored = self._read()
            if stored.pop(profile or "", None) is None:
                return was_left
            self._write(stored)
        return True

    @property
    def _real(self) -> str:
        """The file itself: a symbolic link to it stays one."""
        return os.path.realpath(self.path or "")

    @property
    def _new(self) -> str:
        return f"{self._real}.new"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Let no other run write; the lock is on a file beside it that stays, because the keys are replaced."""
        import fcntl  # noqa: PLC0415  # for smai login and smai logout

        folder, name = os.path.split(self._real)
        with self._in_order():
            os.makedirs(folder, 0o700, exist_ok=True)
            path = os.path.join(folder, f".{name}.lock")
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        try:
            with self._in_order():
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    @contextlib.contextmanager
    def _in_order(self) -> Iterator[None]:
        """Raise OutputError for an OSError."""
        try:
            yield
        except OSError as exc:
            raise OutputError(f"{self.path}: {exc.strerror}", "check the folder; the keys are as they were") from exc

    def _read(self) -> dict[str, object]:
        if self.path is None or not os.path.lexists(self.path):
            return {}
        name = f"the file of keys {self.path}"
        try:
            data = read_private(self.path, f"others can read the file of keys {self.path}", _LIMIT_BYTES)
        except OSError as exc:
            raise UsageError(f"{name}: {exc.strerror}", "smai login makes it anew once it is away") from exc
        if len(data) > _LIMIT_BYTES:
            raise UsageError(f"{name} is larger than 16 MiB", "remove it, and run smai login")
        import json  # noqa: PLC0415  # for those who have a file of keys

        try:
            stored = json.loads(data)
        except (ValueError, RecursionError) as exc:
            raise UsageError(f"{name} is not JSON", "remove it, and run smai login") from exc
        return stored if isinstance(stored, dict) else {}

    def _write(self, stored: Mapping[str, object]) -> None:
        """Replace the file in one step, readable for its owner only from the beginning."""
        import json  # noqa: PLC0415  # as above

        with self._in_order():
            replace_file(self._real, self._new, (json.dumps(stored, indent=1) + "\n").encode(), 0o600)
