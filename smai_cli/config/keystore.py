"""The file in which `smai login` keeps keys, and which many runs may write at once."""

import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from smai_cli.common.files import replace_file
from smai_cli.common.shortages import opening_failure
from smai_cli.config.keys import Secret, checked_key, read_private
from smai_cli.errors import UsageError

_LIMIT_BYTES = 16 * 1024 * 1024


class Kept(NamedTuple):
    """For what a key is kept: the profile, empty for none, and the origin."""

    profile: str
    origin: str


class KeyStore:
    """The file in which `smai login` keeps keys: one for each origin, without a profile and under each profile.

    Its JSON is `{profile: {origin: key}}`; without a profile the name is empty. What an older smai wrote for a
    profile, its one key as `{"origin": origin, "key": key}`, is read as well, and written as the others are.
    """

    def __init__(self, folder: str | None) -> None:
        self.path = None if folder is None else os.path.join(folder, "keys.json")

    def check(self) -> None:
        """Raise UsageError where no key can be kept."""
        if self.path is None:
            raise UsageError("no home directory to keep a key in", "set HOME or XDG_CONFIG_HOME, or use SMAI_API_KEY")
        self._read()

    def find(self, profiles: Iterable[str], origin: str) -> Secret | None:
        """Return the key for an origin of the first profile that has one. Raises UsageError for a file not in order."""
        stored = self._read()
        for name in profiles:
            if origin in (keys := stored.get(name, {})):
                return checked_key(str(keys[origin]), f"the key in {self.path}")
        return None

    def kept(self) -> list[Kept]:
        """Return for what keys are kept, those without a profile first. Raises UsageError for a file not in order."""
        return sorted(Kept(profile, origin) for profile, keys in self._read().items() for origin in keys)

    def put(self, profile: str | None, origin: str, key: Secret) -> str:
        """Keep a key, in place of the old one for that origin; return the path. Raises UsageError or OutputError."""
        self.check()
        with self._locked():
            stored = self._read()
            stored.setdefault(profile or "", {})[origin] = key.reveal()
            self._write(stored)
        return self.path or ""

    def remove(self, is_meant: Callable[[Kept], bool]) -> int:
        """Forget the keys that are meant; return how many there were. Raises UsageError or OutputError."""
        if self.path is None or not os.path.lexists(self.path):
            return 0
        with self._locked():
            stored = self._read()
            left = {
                profile: {origin: key for origin, key in keys.items() if not is_meant(Kept(profile, origin))}
                for profile, keys in stored.items()
            }
            removed = sum(map(len, stored.values())) - sum(map(len, left.values()))
            if removed:
                self._write({profile: keys for profile, keys in left.items() if keys})
        return removed

    def clean(self) -> bool:
        """Remove what a login left that was killed, for a key may be in it; return whether there was something.

        Raises OutputError.
        """
        if self.path is None or not os.path.lexists(self._new):
            return False
        with self._locked(), self._in_order():
            try:
                os.unlink(self._new)
            except FileNotFoundError:  # it was there for a moment, of a run that goes on
                return False
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
        from smai_cli.common.locks import open_locked, wait_for_lock  # for smai login and smai logout

        folder, name = os.path.split(self._real)
        path = os.path.join(folder, f".{name}.lock")
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with self._in_order():
            os.makedirs(folder, 0o700, exist_ok=True)
            lock = open_locked(path, lambda: os.open(path, flags, 0o600), lambda fd: wait_for_lock(fd, math.inf))
        try:
            yield
        finally:
            os.close(lock)

    @contextlib.contextmanager
    def _in_order(self) -> Iterator[None]:
        """Raise OutputError for an OSError."""
        try:
            yield
        except OSError as exc:
            raise opening_failure(str(self.path), exc, "check the folder; the keys are unchanged") from exc

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
        import json  # for those who have a file of keys

        try:
            stored = json.loads(data)
        except (ValueError, RecursionError) as exc:
            raise UsageError(f"{name} is not JSON", "remove it, and run smai login") from exc
        if not isinstance(stored, dict):
            return {}
        return {profile: _keys_in(entry) for profile, entry in stored.items() if isinstance(entry, dict)}

    def _write(self, stored: Mapping[str, object]) -> None:
        """Replace the file in one step, readable for its owner only from the beginning."""
        import json

        with self._in_order():
            replace_file(self._real, self._new, (json.dumps(stored, indent=1) + "\n").encode(), 0o600)


def _keys_in(entry: dict[str, object]) -> dict[str, object]:
    """Return the keys of a profile by their origins; an entry of one key has the two as its members."""
    return {str(entry["origin"]): entry["key"]} if {"origin", "key"} <= set(entry) else entry
