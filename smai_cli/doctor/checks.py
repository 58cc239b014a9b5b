"""The checks of `smai doctor`: how one is made and reported, and those of the connection: name, TCP, TLS.

A check returns a CheckResult, or raises the SmaiError that a run would end with: statuses and next steps are the same.
"""

import contextlib
import json
import math
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from smai_cli.common.clocks import Clocks, result_within
from smai_cli.common.shortages import failure_of
from smai_cli.common.text import escaped, on_a_line, one_line
from smai_cli.config.base_url import origin_parts
from smai_cli.config.endpoint import Endpoint
from smai_cli.errors import ClockError, ConnectError, SmaiError
from smai_cli.http import tcp
from smai_cli.http.tls import tls_context

_T = TypeVar("_T")
_TIMED = ("key", "dns", "tcp", "tls", "models")
# Certificates are renewed by machines weeks before they expire: one that is not has been forgotten.
_SOON_DAYS = 14
_DAY_S = 86400


class CheckResult(NamedTuple):
    """What a successful check found, and what to do nevertheless, if anything."""

    detail: str
    hint: str = ""


class NotNeededError(Exception):
    """The check does not apply; the text says why. Later checks are made."""


class Check(NamedTuple):
    """A check that was made: `ok` is None for one that was not, `exit_status` what a failure ends a run with."""

    name: str
    ok: bool | None
    detail: str
    hint: str = ""
    elapsed_s: float | None = None
    exit_status: int | None = None

    def text(self) -> str:
        """Return the check as one line of text."""
        rest = f"; {self.hint}" if self.hint else ""
        if self.ok is None:
            return on_a_line(f"-     {self.name}: {self.detail}")
        if not self.ok:
            return on_a_line(f"FAIL  {self.name}: {self.detail}{rest}")
        took = f"  {self.elapsed_s:.3f} s" if self.name in _TIMED else ""
        return on_a_line(f"ok    {self.name:13}  {self.detail}{rest}{took}")

    def json(self) -> str:
        """Return the check as one line of JSON."""
        fields = self._asdict()
        return escaped(json.dumps({"check": fields.pop("name"), **fields}, ensure_ascii=False))


class ProbeLine(Check):
    """A check of the probe, for which `ok` is None where the answer of the server did not say."""

    def text(self) -> str:
        """Return the check as one line of text; the hint of a verdict follows it, line for line."""
        word = {True: "ok", False: "no", None: "unknown"}[self.ok]
        is_verdict = self.name == "verdict"
        rest = f"; {self.hint}" if self.hint and not is_verdict else ""
        line = on_a_line(f"{word:7}  {self.name:15}  {self.detail}{rest}")
        lines = [on_a_line(text) for text in self.hint.splitlines()] if is_verdict else []
        return "\n".join([line, *lines])


class Checks:
    """Makes checks, and gives each to `report` as soon as it is made; `failures` are the errors of the failed ones."""

    def __init__(self, report: Callable[[Check], None]) -> None:
        self.failures: list[SmaiError] = []
        self._report = report
        self._made = 0
        self._blocked: dict[str, str] = {}

    def make(self, name: str, work: Callable[[], CheckResult], *needs: str) -> None:
        """Make the check that `work` is, unless one that it `needs` has failed. Raises what `report` raises."""
        reason = self.find_obstacle(*needs)
        if reason:
            self._blocked[name] = reason
            self._report(Check(name, None, f"not checked, because {reason}"))
            return
        begun_s = time.monotonic()
        try:
            detail, hint = work()
            made = Check(name, ok=True, detail=detail, hint=hint, exit_status=0)
        except NotNeededError as why:
            self._report(Check(name, None, f"not checked, because {why}"))
            return
        except SmaiError as exc:
            error = failure_of(exc) or exc
            self.failures.append(error)
            self._blocked[name] = f"{name} failed"
            made = Check(name, ok=False, detail=error.describe(), hint=error.hint, exit_status=int(error.status))
        self._made += 1
        self._report(made._replace(elapsed_s=round(time.monotonic() - begun_s, 3)))

    def find_obstacle(self, *needs: str) -> str | None:
        """Return why a check that needs others cannot be made; None if it can."""
        return next((self._blocked[need] for need in needs if need in self._blocked), None)

    def end(self) -> None:
        """Raise the failure that the run ends with, which is of the kind of the first, if a check has failed."""
        if self.failures:
            first = self.failures[0]
            raise first.replaced(what=f"{len(self.failures)} of {self._made} checks failed")


class Hop(NamedTuple):
    """Where the connection goes first: to the server, with the path of its base URL, or to a proxy."""

    host: str
    port: int
    is_tls: bool
    is_proxy: bool = False
    path: str = ""

    @property
    def hint(self) -> str:
        """What to check where it cannot be reached."""
        return "check HTTPS_PROXY and HTTP_PROXY" if self.is_proxy else "check the network or --base-url"

    @property
    def title(self) -> str:
        """The host, and that it is the proxy where it is."""
        return f"the proxy {self.host}" if self.is_proxy else self.host


def doubt_about_key(endpoint: Endpoint, clocks: Clocks, ca_file: str | None) -> str:
    """Return why a list of models does not show that the key is valid; empty if it does, or without a key.

    OpenRouter lists its models for any key and for none (charmbracelet/crush#997).
    """
    from smai_cli.http.exchange import Exchange  # after --help and usage errors
    from smai_cli.stream.models import PATH

    if endpoint.key is None:
        return ""
    try:
        Exchange(endpoint._replace(key=None), PATH, None, clocks, ca_file=ca_file).open().close()
    except SmaiError:
        return ""
    return "the key is unchecked: the server lists its models without a key too"


def server_hop(base_url: str) -> Hop:
    """Return where the server of a base URL is, which was checked before."""
    parts = urlsplit(base_url)
    scheme, host, port = origin_parts(parts)
    return Hop(host or "", port, scheme == "https", path=parts.path)


def resolve_hop(hop: Hop, clocks: Clocks) -> list[tcp.Address]:
    """Return the addresses of the host, at least one. Raises ConnectError or ClockError."""
    try:
        return _within(
            clocks,
            f"no name server answered for {hop.title}",
            lambda: tcp.resolve(hop.host, hop.port, tcp.Cancellation()),
        )
    except (OSError, ValueError) as exc:  # a name that IDNA does not know is a ValueError
        raise ConnectError(f"could not resolve {hop.title}: {short_reason(exc)}", hop.hint) from exc


def connect_hop(hop: Hop, addresses: list[tcp.Address], clocks: Clocks) -> tcp.TcpConnection:
    """Connect to the first address that answers. Raises ConnectError or ClockError."""
    to = f"{hop.title} port {hop.port}"
    end_s = time.monotonic() + _limit_s(clocks)
    try:
        return _within(clocks, f"{to} did not answer", lambda: tcp.connect(addresses, end_s, tcp.Cancellation()))
    except OSError as exc:
        is_refused = isinstance(exc, ConnectionRefusedError) and not hop.is_proxy
        hint = "is the server running?" if is_refused else hop.hint
        raise ConnectError(f"could not connect to {to}: {short_reason(exc)}", hint) from exc


def shake_hands(hop: Hop, plain: socket.socket, ca_file: str | None, clocks: Clocks) -> CheckResult:
    """Make a TLS handshake and close the connection; return what the certificate says.

    Raises ConnectError or ClockError.
    """
    import ssl  # not for http

    def shake() -> "tuple[str | None, dict[str, Any]]":
        plain.settimeout(None)  # the clock of _within counts: a socket timeout would restart with each byte
        name = hop.host.rstrip(".")
        with contextlib.closing(tls_context(ca_file).wrap_socket(plain, server_hostname=name)) as peer:
            return peer.version(), dict(peer.getpeercert() or {})

    try:
        protocol, certificate = _within(clocks, f"{hop.title} did not finish the TLS handshake", shake)
    except (OSError, ValueError) as exc:
        from smai_cli.http.failures import tls_error  # the words that a run has for it

        if isinstance(exc, (ssl.SSLError, ValueError)):
            raise tls_error(short_reason(exc), f"{hop.host} port {hop.port}", hop.path) from exc
        raise ConnectError(f"{hop.title} dropped the TLS handshake: {short_reason(exc)}", hop.hint) from exc
    expires_s = ssl.cert_time_to_seconds(certificate["notAfter"])
    days = int((expires_s - time.time()) // _DAY_S)
    until = time.strftime("%Y-%m-%d", time.gmtime(expires_s))
    whose, issuer = _subject(certificate), _name(certificate.get("issuer", ()))
    return CheckResult(
        f"{protocol}{' with the proxy' if hop.is_proxy else ''}, certificate of {whose} by {issuer}, "
        f"expires in {days} days ({until})",
        "the server needs a new certificate soon" if days < _SOON_DAYS else "",
    )


def _subject(certificate: dict[str, Any]) -> str:
    """Return whom a certificate is for: the first of its names, because those are what counts."""
    names = certificate.get("subjectAltName") or ()
    return one_line(str(names[0][1]), 100) if names else _name(certificate.get("subject", ()))


def _name(parts: Any) -> str:
    """Return the common name in a distinguished name, or else the organisation, or what there is."""
    fields = {key: value for part in parts for key, value in part}
    names = (fields.get("organizationName"), fields.get("commonName"), *fields.values(), "unknown")
    return one_line(str(next(name for name in names if name)), 100)


def _limit_s(clocks: Clocks) -> float:
    return max(0.0, min(clocks.connect_timeout_s or math.inf, clocks.deadline.left_s()))


def _within(clocks: Clocks, late: str, work: Callable[[], _T]) -> _T:
    """Return what `work` returns, or raise what it raises; a ClockError when the clock to connect runs out.

    Its thread is left alone then.
    """
    try:
        return result_within(_limit_s(clocks), work)
    except TimeoutError as failure:
        if failure.errno is not None:  # the kernel's own time limit is not one of the clocks
            raise
    if clocks.deadline.left_s() <= 0:
        raise clocks.deadline.error()
    raise ClockError(
        f"timed out: {late} within {clocks.connect_timeout_s:g} s",
        "check the network and its firewall, or raise --connect-timeout",
    )


def short_reason(exc: Exception) -> str:
    """Return the system's words."""
    return one_line((exc.strerror if isinstance(exc, OSError) else None) or str(exc) or type(exc).__name__, 200)
