"""`smai doctor`: check everything that a run needs, and print each result with the next step."""

import contextlib
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from smai_cli.cli.commands.doctor_probe import Target, failure_of_verdict, probe, skip, with_probe
from smai_cli.cli.lifecycle import Lifecycle
from smai_cli.cli.parsing.options import ServerOptions
from smai_cli.cli.parsing.server_options import UNUSABLE, server_options
from smai_cli.cli.parsing.shared_options import api_option, is_typed, model_option
from smai_cli.cli.server import choose_endpoint, read_headers, serving
from smai_cli.config.base_url import find_base_url, shown_url
from smai_cli.config.config_file import Value, missing_model_error
from smai_cli.config.endpoint import Endpoint, find_ca_file, find_endpoint
from smai_cli.config.key_source import find_key, foreign_key, foreign_key_hint, variable_of_smai
from smai_cli.config.places import CA_VARIABLES, DEFAULT_MODEL
from smai_cli.doctor.checks import (
    Check,
    CheckResult,
    Checks,
    Hop,
    NotNeededError,
    connect_hop,
    doubt_about_key,
    resolve_hop,
    server_hop,
    shake_hands,
    short_reason,
)
from smai_cli.doctor.setup import check_log, find_configuration, find_versions, is_log_named
from smai_cli.errors import SmaiError, UsageError
from smai_cli.http import tcp
from smai_cli.http.tls import ca_bundle, tls_context
from smai_cli.output.descriptors import Output

if TYPE_CHECKING:
    from smai_cli.http.exchange import Exchange
    from smai_cli.stream.models import Model

# A list of models arrives at once: a check does not need the ten minutes of an answer.
_IDLE_TIMEOUT_S = 30


class _DoctorCommand(click.Command):
    """A command for which a configuration that cannot be used is a finding, and not the end of the run."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for param in self.params:
            if param.name == "mock":
                param.callback = None
            elif param.name == "idle_timeout":
                param.default = _IDLE_TIMEOUT_S


@click.command(
    cls=_DoctorCommand,
    epilog="Manual: man smai-doctor. Exit status 0: no check has failed, or with --probe: the verdict is ok.",
)
@click.option("--json", "as_json", is_flag=True, help="Print each check as JSON on a line.")
@click.option(
    "--probe",
    "probes",
    is_flag=True,
    help="Also send up to 9 short requests, 300 tokens in all, to find out how the server ends its answers.",
)
@model_option("The model to look for, and to probe.", is_required=False)
@api_option("With --probe: the API to use, as in ask.")
@server_options
def doctor(*, as_json: bool, probes: bool, model: str | None, api: str, server: ServerOptions) -> int:
    """Check the settings, the key, the network and the server.

    Each check prints a line: ok, or what happened and what to do next. Only --probe costs money.
    """
    server = with_probe(server, probes=probes)
    deadline = server.clocks.deadline()
    if server.mock:
        choose_endpoint(server, deadline)  # raises where the command line contradicts itself

    life = Lifecycle(deadline)
    unusable = click.get_current_context().meta.get(UNUSABLE)
    output = Output()

    def report(check: Check) -> None:
        check = check._replace(detail=life.without_key(check.detail), hint=life.without_key(check.hint))
        output.show_lines([check.json() if as_json else check.text()])

    def work() -> None:
        with contextlib.ExitStack() as stack:
            mock = stack.enter_context(serving(None)) if server.mock else None
            checks = Checks(report)
            examination = _Examination(server, unusable, life, checks, mock)
            examination.typed_model = Value(model, "-m/--model") if model and is_typed("model") else None
            examination.probes = probes
            examination.make()
            failure = examination.probe(api, report) if probes else None
        if deadline.left_s() <= 0:
            raise deadline.error()
        if failure:
            raise failure
        if not examination.has_verdict:
            checks.end()

    return life.deliver(work)


class _Examination:
    """The checks of one run in their order; each leaves to the later ones what they need."""

    base_url: str
    endpoint: Endpoint
    hop: Hop
    ca_file: str | None = None
    reached: tcp.TcpConnection
    addresses: list[tcp.Address]
    models: "list[Model]"
    typed_model: Value | None = None
    probes = False
    has_verdict = False

    def __init__(
        self,
        options: ServerOptions,
        unusable: UsageError | None,
        life: Lifecycle,
        checks: Checks,
        mock: Endpoint | None,
    ) -> None:
        self._options, self._unusable, self._life, self._checks, self._mock = options, unusable, life, checks, mock
        self._settings = options.settings
        self._clocks = options.clocks.clocks(life.deadline)

    def make(self) -> None:
        """Make all checks. If the configuration is broken, its values are unknown, unless something overrides them."""
        environ, given = os.environ, self._options
        make = self._checks.make
        make("version", find_versions)
        make("configuration", self._configuration)
        in_environ = {} if self._settings.is_typed else environ  # a typed profile overrides the variables
        if is_log_named(environ, self._settings):
            make("log", lambda: check_log(environ, self._settings))
        url_is_given = self._mock or given.base_url or in_environ.get("SMAI_BASE_URL")
        make("base_url", self._find_base_url, *([] if url_is_given else ["configuration"]))
        key_is_given = self._mock or given.key_file or variable_of_smai(in_environ)
        make("key", self._find_key, "base_url", *([] if key_is_given else ["configuration"]))
        make("proxy", self._find_hop, "base_url")
        make("ca", self._find_ca, "base_url")
        make("dns", self._resolve, "proxy")
        make("tcp", self._connect, "dns")
        make("tls", self._shake_hands, "tcp", "ca")
        make("models", self._list_models, "key", "tls")
        is_model_given = self.typed_model or in_environ.get("SMAI_MODEL")
        self._model_needs = () if is_model_given else ("configuration",)
        make("model", self._find_model, "models", *self._model_needs)

    def probe(self, api: str, report: Callable[[Check], None]) -> SmaiError | None:
        """Probe the server, unless a check failed that it needs; return the failure that the verdict is.

        Without a verdict, the failed checks count.
        """
        obstacle = self._checks.find_obstacle("key", "tls", *self._model_needs)
        model = self._model
        if obstacle is None and model is None:
            obstacle = "no model is set"
        if obstacle or model is None:
            skip(obstacle or "", "chat" if api == "auto" else api, report)
            return None if self._checks.failures else missing_model_error(self._settings)
        target = Target(self.endpoint, model.value, api, self.ca_file)
        verdict = probe(target, self._options, self._life, report)
        self.has_verdict = verdict.is_good is not None
        return failure_of_verdict(verdict) if self.has_verdict or not self._checks.failures else None

    @property
    def _model(self) -> Value | None:
        """The model that a run would ask, and where it is named; None where the user has to name one."""
        found = self.typed_model or self._settings.find("model", os.environ, "SMAI_MODEL")
        return found or (None if self._settings.needs_model else Value(DEFAULT_MODEL, "default"))

    def _configuration(self) -> CheckResult:
        if self._unusable:
            raise self._unusable
        return find_configuration(self._settings)

    def _find_base_url(self) -> CheckResult:
        if self._mock:
            self.base_url, source = self._mock.base_url, "--mock"
        else:
            self.base_url, source = find_base_url(self._options.base_url, os.environ, self._settings)
            self._life.key = Endpoint(self.base_url).secrets
        return CheckResult(f"{shown_url(self.base_url)}, {_from(source)}")

    def _find_key(self) -> CheckResult:
        if self._mock:
            self.endpoint = self._mock
            return CheckResult("not set, and the test server needs none")
        given = self._options.base_url, self._options.key_file, os.environ, self._settings
        source = find_key(self.base_url, *given[1:])
        headers = read_headers(self._options.header, self._life.deadline)
        self.endpoint = find_endpoint(*given, self._life.deadline, headers=headers)
        self._life.key = self.endpoint.secrets
        foreign = foreign_key(self.base_url, os.environ) if source is None else ""
        if foreign and not self.endpoint.headers:
            hint = foreign_key_hint(self.base_url, os.environ, self._settings)
            return CheckResult(f"none for this server: {foreign}", hint)
        found = f"set, from {source.where}" if source else "not set, and requests are sent without one"
        if source and self.endpoint.key_header:
            found += f", in the header {self.endpoint.key_header}"
        if self.endpoint.headers:
            found += f", with the headers {', '.join(header.name for header in self.endpoint.headers)}"
        is_open = (source or self.endpoint.headers) and not (self.endpoint.is_tls or self.endpoint.is_loopback)
        hint = "allow_http sends it over plain http, where anyone on the network path can read it: use https"
        return CheckResult(found, hint if is_open else "")

    def _find_hop(self) -> CheckResult:
        from smai_cli.http.proxies import VARIABLES, proxy_for  # which proxy there is, requests decides

        endpoint = Endpoint(self.base_url)
        self.hop = server_hop(self.base_url)
        if proxy := proxy_for(endpoint):
            self.hop = Hop(proxy.host, proxy.port, proxy.scheme == "https", is_proxy=True)
            where = f"{proxy.host} port {proxy.port}, from {proxy.variable}"
            return CheckResult(f"{where}; dns, tcp and tls check only the proxy")
        named = any(value and name.lower() in VARIABLES for name, value in os.environ.items())
        if named and endpoint.is_loopback:
            return CheckResult("none, because a server on this machine is contacted directly")
        return CheckResult("none for this server, although the environment names one" if named else "none")

    def _find_ca(self) -> CheckResult:
        if not (self.hop.is_tls or self.base_url.startswith("https:")):
            raise NotNeededError("the server uses http")
        self.ca_file = find_ca_file(os.environ)
        name = next((name for name in CA_VARIABLES if os.environ.get(name)), "the package certifi")
        try:
            path, context = ca_bundle(self.ca_file), tls_context(self.ca_file)
        except OSError as exc:
            raise UsageError(
                f"the CA bundle {self.ca_file or name} cannot be used: {exc.strerror}", f"check {name}"
            ) from exc
        count = context.cert_store_stats()["x509_ca"]
        return CheckResult(f"{path}, from {name}" + (f", {count} certificate{'s' * (count > 1)}" if count else ""))

    def _resolve(self) -> CheckResult:
        self.addresses = resolve_hop(self.hop, self._clocks)
        shown = ", ".join(dict.fromkeys(address.host for address in self.addresses))
        is_one = shown == self.hop.host
        return CheckResult(f"{self.hop.title}{' is an address' if is_one else f': {shown}'}")

    def _connect(self) -> CheckResult:
        self.reached = connect_hop(self.hop, self.addresses, self._clocks)
        if not self.hop.is_tls:
            self.reached.connection.close()
        tried = [f"{address.host}: {short_reason(exc)}" for address, exc in self.reached.others]
        others = f"; before it {', '.join(tried)}" if tried else ""
        return CheckResult(
            f"{self.reached.address.host} port {self.hop.port}{' of the proxy' if self.hop.is_proxy else ''}{others}"
        )

    def _shake_hands(self) -> CheckResult:
        if self.hop.is_tls:
            return shake_hands(self.hop, self.reached.connection, self.ca_file, self._clocks)
        if self.hop.is_proxy:
            raise NotNeededError("the proxy does not use TLS; the check of the models covers the server")
        raise NotNeededError("the server uses http")

    def _list_models(self) -> CheckResult:
        from smai_cli.cli.commands.models import ask_for_list
        from smai_cli.http.exchange import Exchange
        from smai_cli.stream.models import PATH
        from smai_cli.stream.retries import Retries

        # As in a run: requests finds the bundle for an http server that an https proxy reaches.
        ca_file = self.ca_file if self.endpoint.is_tls else None
        begun_s = headed_s = 0.0

        def get(place: Endpoint) -> "Exchange":
            nonlocal begun_s, headed_s
            sent_s = time.monotonic()
            answer = Exchange(place, PATH, None, self._clocks, ca_file=ca_file).open()
            if not headed_s:  # the first page
                begun_s, headed_s = sent_s, time.monotonic()
            return answer

        retries = Retries(self._options.clocks.retries, self._life.say, self._life.deadline)
        self.models = ask_for_list(get, retries, self.endpoint).models
        count = "1 model" if len(self.models) == 1 else f"{len(self.models)} models"
        doubt = "" if self.probes else doubt_about_key(self.endpoint, self._clocks, ca_file)
        return CheckResult(f"status 200, {count}, headers after {headed_s - begun_s:.3f} s", doubt)

    def _find_model(self) -> CheckResult:
        if self._model is None:
            return CheckResult("not set, and the profile has no default", "name one with -m; smai models lists them")
        name, source = self._model
        setting = f"{name}, {_from(source)}"
        if any(model.is_called(name) for model in self.models):
            return CheckResult(f"{setting}, is listed")
        return CheckResult(f"{setting}, is not listed", "smai models lists the names; -m chooses one")


def _from(source: str) -> str:
    return "the default" if source == "default" else f"from {source}"
