"""`smai doctor --probe`: send the requests of the probe, and print a line for each check and the verdict."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import click

from smai_cli.apis import APIS, choose_api
from smai_cli.cli.lifecycle import Lifecycle
from smai_cli.cli.parsing.options import ServerOptions
from smai_cli.cli.parsing.shared_options import is_typed
from smai_cli.config.endpoint import Endpoint
from smai_cli.doctor.checks import Check, NotNeededError, ProbeLine
from smai_cli.errors import BrokenError, SmaiError, Status, UsageError

if TYPE_CHECKING:
    from smai_cli.doctor.findings import Finding, Row
    from smai_cli.doctor.probe import Prober
    from smai_cli.doctor.recorder import ProbeAnswer
    from smai_cli.doctor.verdict import Verdict
    from smai_cli.http.exchange import Exchange

# A model may have to be loaded before its first answer.
_IDLE_TIMEOUT_S = 120.0


class Target(NamedTuple):
    """What to probe: a model of a server, in the API that `api` (auto, chat, responses) chooses."""

    endpoint: Endpoint
    model: str
    api: str
    ca_file: str | None


def with_probe(server: ServerOptions, *, probes: bool) -> ServerOptions:
    """Return the options for a run that probes, or not: with a longer idle timeout, unless the user has set one.

    Raises UsageError for --api without --probe.
    """
    if not probes and is_typed("api"):
        raise UsageError("--api without --probe", "add --probe, or leave --api out")
    source = click.get_current_context().get_parameter_source("idle_timeout")
    if not probes or source is not click.core.ParameterSource.DEFAULT:
        return server
    return server.replaced(clocks=server.clocks.replaced(idle_timeout=_IDLE_TIMEOUT_S))


def probe(target: Target, server: ServerOptions, life: Lifecycle, report: Callable[[Check], None]) -> "Verdict":
    """Probe a server, and give each check to `report` as soon as it is made, the verdict last.

    Raises what `report` raises.
    """
    from smai_cli.doctor.findings import rows  # for few runs
    from smai_cli.doctor.verdict import judge  # as above

    api = choose_api(target.api, target.model, server.settings.value_of("responses_models", ())).name
    prober = _prober(target, server, life)
    for row in rows(api):
        report(_make(row, prober))
    verdict = judge(prober.answers, api)
    status = {True: Status.COMPLETE, False: Status.BROKEN, None: None}[verdict.is_good]
    report(ProbeLine("verdict", verdict.is_good, verdict.detail, "\n".join(verdict.lines), None, status))
    return verdict


def skip(reason: str, api: str, report: Callable[[Check], None]) -> None:
    """Report that no check of the probe was made, and why."""
    from smai_cli.doctor.findings import rows  # for few runs

    for name in [*(row.name for row in rows(api)), "verdict"]:
        report(ProbeLine(name, None, f"not checked, because {reason}"))


def failure_of_verdict(verdict: "Verdict") -> SmaiError | None:
    """Return the failure that the run ends with; None if smai can tell a complete answer from a cut one."""
    if verdict.is_good:
        return None
    if verdict.is_good is False:
        hint = "put the lines above into the profile" if verdict.lines else "use another server for what matters"
        return BrokenError("this server does not say reliably how its answers end", hint)
    error = next((cause.error for cause in verdict.causes if cause.error), None)
    if error is None:
        return BrokenError("the probe could not find out how this server ends its answers", "read the lines above")
    return error.replaced(what=f"the probe got no answer to judge: {error.describe()}")


def _make(row: "Row", prober: "Prober") -> ProbeLine:
    """Return the line of one check, after sending what it needs."""
    answers: list[ProbeAnswer] = []
    try:
        answers.extend(prober.ask(name, row.api) for name in row.requests)
    except NotNeededError as why:
        if not answers:
            return ProbeLine(row.name, None, f"not checked, because {why}")
    finding = row.judge(answers)
    elapsed_s = round(sum(answer.elapsed_s for answer in answers), 3)
    return ProbeLine(row.name, finding.is_good, finding.detail, finding.hint, elapsed_s, _status_of(finding))


def _status_of(finding: "Finding") -> int | None:
    """Return the exit status of a check: 0 for a good one, 8 for a bad one, else that of the failed request."""
    if finding.is_good is not None:
        return Status.COMPLETE if finding.is_good else Status.BROKEN
    return int(finding.error.status) if finding.error else None


def _prober(target: Target, server: ServerOptions, life: Lifecycle) -> "Prober":
    from smai_cli.answer.completeness import DONE_WORD  # as above
    from smai_cli.doctor.probe import Prober, UserSettings  # for few runs
    from smai_cli.http.exchange import Exchange  # as above
    from smai_cli.stream.retries import Retries  # as above

    clocks = server.clocks.clocks(life.deadline)
    endpoint = target.endpoint
    ca_file = target.ca_file if endpoint.is_tls else None  # requests finds what an https proxy needs

    def post(path: str, body: bytes) -> "Exchange":
        return Exchange(endpoint, path, body, clocks, ca_file=ca_file).open()

    def retries(most: int) -> Retries:
        return Retries(min(server.clocks.retries, most), life.say, life.deadline)

    value_of = server.settings.value_of
    profile = UserSettings(
        model=target.model,
        effort=value_of("effort"),
        # [DONE] alone proves nothing, also for a user who takes it.
        accept=tuple(word for word in value_of("accept", ()) if word.lower() != DONE_WORD),
        options=value_of("options", {}),
    )
    return Prober(profile, post, {api.name: api.load() for api in APIS}, retries)
