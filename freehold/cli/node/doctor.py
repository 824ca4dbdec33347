"""`freehold doctor`: is this machine ready to serve the models of freehold.yaml? Every check states how to fix it.

It starts nothing and changes nothing, except for a small file on each disk that it measures, which it removes. Exit codes:
0 ready, perhaps with warnings; 3 a check found a problem.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from freehold.cli.terminal.agent_snapshot import asked
from freehold.cli.terminal.check_table import show_checks
from freehold.cli.terminal.config import load_config
from freehold.cli.terminal.output import UserMistakes, say_json, styled
from freehold.cli.terminal.place import StackPlace, json_option, stack_options
from freehold.core.findings import Finding, Verdict
from freehold.fleet.control.state_dir import StateDir
from freehold.health.agent.one_shot import look_once
from freehold.health.model.snapshot import HealthSnapshot
from freehold.health.registry import all_probes
from freehold.stack.checks.check import Check, CheckResult
from freehold.stack.checks.gpus import gpu_checks
from freehold.stack.checks.machine import machine_checks, stack_checks
from freehold.stack.checks.tls import tls_checks
from freehold.stack.config import Config
from freehold.stack.health_settings import health_settings, looking_sources

_OF_VERDICT = {
    Verdict.HEALTHY: CheckResult.GOOD,
    Verdict.UNKNOWN: CheckResult.UNKNOWN,
    Verdict.DEGRADED: CheckResult.WARNING,
    Verdict.UNHEALTHY: CheckResult.PROBLEM,
}


@click.command("doctor")
@stack_options
@json_option
def command(stack: StackPlace, *, as_json: bool) -> int:
    """Say whether this machine is ready to serve, and how to make it so.

    Looks at the configuration, engines, memory, disk, ports, limits, clock, network and GPUs. Exit code: 0 ready, 3 a problem.
    """
    config, checks = _configuration(stack.config_path)
    checks += machine_checks()
    if config is not None:
        checks += stack_checks(config, stack.state_path)
        checks += tls_checks(config)
        checks += gpu_checks(config, StateDir(stack.state_path))
    checks += _node(config, stack.state_path, quiet=as_json)
    ready = all(check.found is not CheckResult.PROBLEM for check in checks)
    if as_json:
        say_json({"ready": ready, "checks": msgspec.to_builtins(checks)})
    else:
        _show(checks, ready=ready)
    return 0 if ready else 3


def _configuration(path: Path | None) -> tuple[Config | None, list[Check]]:
    """Return the configuration, or None if it has problems, and its checks."""
    try:
        config = load_config(path, overrides={})
    except UserMistakes as exc:
        return None, [
            Check(name="configuration", found=CheckResult.PROBLEM, said=f"{p.where}: {p.message}", fix=p.hint)
            for p in exc.problems
        ]
    return config, [Check(name="configuration", found=CheckResult.GOOD, said=f"{config.name} is valid")]


def _node(config: Config | None, state_path: Path, *, quiet: bool) -> list[Check]:
    """Return the health checks of this node: from the running agent, else from one check now."""
    snapshot = asked(state_path)
    if snapshot is None and config is not None:
        settings = health_settings(config)
        if not quiet:
            click.echo("Checking disks, network and GPUs, which takes some seconds.", err=True)
        with looking_sources(settings) as sources:
            looking = look_once(sources, all_probes(), node=settings.name, expected=settings.expected)
            snapshot = asyncio.run(looking)
    return list(_checks_of(snapshot)) if snapshot is not None else []


def _checks_of(snapshot: HealthSnapshot) -> Iterator[Check]:
    for each in snapshot.findings:
        finding = each.finding
        if finding.verdict is not Verdict.NOT_APPLICABLE:
            whole = ":" not in finding.component or finding.component.partition(":")[2] in finding.message
            said = finding.message if whole else f"{finding.component}: {finding.message}"
            found = _OF_VERDICT[finding.verdict]
            fix = "" if found is CheckResult.GOOD else _fix(finding)
            yield Check(name=finding.probe, found=found, said=said, fix=fix)


def _fix(finding: Finding) -> str:
    probe = all_probes().get(finding.probe)
    return probe.what_to_do(finding.reason) if probe is not None else ""


def _show(checks: list[Check], *, ready: bool) -> None:
    order = list(CheckResult)
    show_checks(sorted(checks, key=lambda check: -order.index(check.found)))
    problems = sum(check.found is CheckResult.PROBLEM for check in checks)
    what = "ready to serve" if ready else f"not ready: {problems} of {len(checks)} checks found a problem"
    click.echo(styled(what, bold=True, colour="green" if ready else "red"))
