"""The file in which `smai login` stores keys; several runs may write it at once."""

import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping

from smai_cli.common.files import replace_file
from smai_cli.common.frozen import Frozen
from smai_cli.common.shortages import opening_failure
from smai_cli.config.keys import Secret, check_key, read_private
from smai_cli.errors import UsageError

_LIMIT_BYTES = 16 * 1024 * 1024


class StoredKey(Frozen):
    """What a stored key is for: the profile, empty for none, and the origin."""

    profile: str
    origin: str


class KeyStore:
    """The file in which `smai login` stores keys: one for each origin, without a profile and in each profile.

    Its JSON is `{profile: {origin: key}}`; without a profile the name is empty.
    """

    def __init__(self, folder: str | None) -> None:
        self.path = None if folder is None else os.path.join(folder, "keys.json")

    def check(self) -> None:
        """Raise UsageError if keys cannot be stored."""
        if self.path is None:
            raise UsageError("no home directory to store a key in", "set HOME or XDG_CONFIG_HOME, or use SMAI_API_KEY")
        self._read()

    def find(self, profiles: Iterable[str], origin: str) -> Secret | None:
        """Return the key for an origin in the first profile that has one, or None. Raises UsageError for a bad file."""
        stored = self._read()
        for name in profiles:
            if origin in (keys := stored.get(name, {})):
                return check_key(str(keys[origin]), f"the key in {self.path}")
        return None

    def stored_keys(self) -> list[StoredKey]:
        """Return what the stored keys are for, those without a profile first. Raises UsageError for a bad file."""
        stored = sorted((profile, origin) for profile, keys in self._read().items() for origin in keys)
        return [StoredKey(profile=profile, origin=origin) for profile, origin in stored]

    def put(self, profile: str | None, origin: str, key: Secret) -> str:
        """Store a key, replacing the one for that origin; return the path. Raises UsageError or OutputError."""
        self.check()
        with self._locked():
            stored = self._read()
            stored.setdefault(profile or "", {})[origin] = key.reveal()
            self._write(stored)
        return self.path or ""

    def remove(self, is_selected: Callable[[StoredKey], bool]) -> int:
        """Remove the keys for which `is_selected` is true; return their number. Raises UsageError or OutputError."""
        if self.path is None or not os.path.lexists(self.path):
            return 0
        with self._locked():
            stored = self._read()
            left = {
                profile: {
                    origin: key
                    for origin, key in keys.items()
                    if not is_selected(StoredKey(profile=profile, origin=origin))
                }
                for profile, keys in stored.items()
            }
            removed = sum(map(len, stored.values())) - sum(map(len, left.values()))
            if removed:
                self._write({profile: keys for profile, keys in left.items() if keys})
        return removed

    def clean(self) -> bool:
        """Remove the temporary file of a killed login, which may contain a key; return whether there was one.

        Raises OutputError.
        """
        if self.path is None or not os.path.lexists(self._new):
            return False
        with self._locked(), self._translate_errors():
            try:
                os.unlink(self._new)
            except FileNotFoundError:  # it was that of a running login
                return False
        return True

    @property
    def _real(self) -> str:
        """The path with symbolic links resolved, so that a link to the file is kept."""
        return os.path.realpath(self.path or "")

    @property
    def _new(self) -> str:
        return f"{self._real}.new"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Prevent other runs from writing. The lock is on a separate file, because the file of keys is replaced."""
        from smai_cli.common.locks import open_locked, wait_for_lock  # for smai login and smai logout

        folder, name = os.path.split(self._real)
        path = os.path.join(folder, f".{name}.lock")
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with self._translate_errors():
            os.makedirs(folder, 0o700, exist_ok=True)
            lock = open_locked(path, lambda: os.open(path, flags, 0o600), lambda fd: wait_for_lock(fd, math.inf))
        try:
            yield
        finally:
            os.close(lock)

    @contextlib.contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Raise OutputError for an OSError."""
        try:
            yield
        except OSError as exc:
            raise opening_failure(str(self.path), exc, "check the directory; the keys are unchanged") from exc

    def _read(self) -> dict[str, dict[str, object]]:
        if self.path is None or not os.path.lexists(self.path):
            return {}
        name = f"the file of keys {self.path}"
        try:
            data = read_private(self.path, f"others can read the file of keys {self.path}", _LIMIT_BYTES)
        except OSError as exc:
            raise UsageError(f"{name}: {exc.strerror}", "remove it; smai login creates a new one") from exc
        if len(data) > _LIMIT_BYTES:
            raise UsageError(f"{name} is larger than 16 MiB", "remove it, and run smai login")
        import json  # only with a file of keys

        try:
            stored = json.loads(data)
        except (ValueError, RecursionError) as exc:
            raise UsageError(f"{name} is not JSON", "remove it, and run smai login") from exc
        if not isinstance(stored, dict):
            return {}
        return {profile: keys for profile, keys in stored.items() if isinstance(keys, dict)}

    def _write(self, stored: Mapping[str, object]) -> None:
        """Replace the file atomically, readable only by its owner from the beginning."""
        import json

        with self._translate_errors():
            replace_file(self._real, self._new, (json.dumps(stored, indent=1) + "\n").encode(), 0o600)
