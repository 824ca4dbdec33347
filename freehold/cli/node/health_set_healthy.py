"""`freehold health set-healthy`: an operator says that this node, or one component of it, is well again.

A line in the history's file, with who and when: no fault from before it trips again, and new ones do. A running agent takes it
over by itself, and so does each one after it. What is measured is not talked away: a reading that is bad stays a finding.
"""

from collections.abc import Iterator
from pathlib import Path
from threading import Event

import click
import msgspec

from freehold.cli.node.health_table import BAD
from freehold.cli.terminal.agent_snapshot import asked
from freehold.cli.terminal.audited import record_act
from freehold.cli.terminal.output import UserMistakes, say_json
from freehold.cli.terminal.place import StackPlace, json_option, stack_options
from freehold.core.clock import monotonic_s, wall_s
from freehold.core.errors import Permanent, Temporary
from freehold.core.findings import Finding
from freehold.core.problems import Problem, nearest_hint
from freehold.fleet.control.client import NotRunning, ask
from freehold.fleet.control.peer import Peer
from freehold.health.agent.history_file import HistoryFile
from freehold.health.agent.state_files import read_snapshot
from freehold.health.incidents.history import FILE_NAME, Mark
from freehold.health.kernel_log.events import pci_key
from freehold.health.model.snapshot import GpuName, HealthSnapshot, IncidentState

REASON_MOST = 500
"""Characters of a reason. Source: our own choice: a sentence or two."""
TAKEN_OVER_S = 15.0
"""How long an agent is waited for: it looks at the file every 2 s, and some. Source: our own choice."""
_LOOK_S = 0.2  # short against what an agent takes, long against the cost of one look


@click.command("set-healthy", short_help="Say that this node, or a part of it, is well again.")
@click.argument("component", required=False, default="")
@click.option("--reason", metavar="TEXT", default="", help="Why; it is kept in the history.")
@stack_options
@json_option
def set_healthy(component: str, *, reason: str, stack: StackPlace, as_json: bool) -> int:
    """Say that COMPONENT (`gpu:UUID`, `disk:/path`, as `freehold health` names it), or the whole node, is well again.

    No fault from before now counts any more: none opens an incident again, and none makes a later one a repetition. New faults do.
    It is written into the history with your name. What is measured bad stays a finding until it is measured well.
    """
    state_path = stack.state_path
    snapshot = asked(state_path)
    running, known = snapshot is not None, snapshot or read_snapshot(state_path)
    if known is None and not (state_path / FILE_NAME).exists():
        raise Permanent(
            f"no agent has ever looked from here ({state_path})", hint="freehold up starts a stack with one"
        )
    mark = _written(state_path, _mark(component, reason, known))
    after = _taken_over(state_path, mark) if running else None
    _say(mark, after, running=running, as_json=as_json)
    return 0 if after is not None or not running else 1


def _mark(component: str, reason: str, known: HealthSnapshot | None) -> Mark:
    mine = _component(component, known) if component and known else component
    problems = [_unknown(component, known)] if mine is None and known else []
    if len(reason) > REASON_MOST:
        message = f"a reason has {REASON_MOST} characters at most, this one {len(reason)}"
        problems.append(Problem(where="--reason", message=message, hint="name a ticket"))
    if problems:
        raise UserMistakes(problems)
    mine = mine or ""
    found = [each for each in _bad(known) if mine in {"", each.component}]
    return Mark(
        set_healthy_s=wall_s(),
        subject=_subject(mine, known),
        component=mine,
        findings=tuple((each.probe, each.component, each.reason) for each in found),
        by=Peer.myself().who(),
        reason=reason,
    )


def _component(name: str, known: HealthSnapshot) -> str | None:
    """Return what findings call a component that may be named by a GPU's serial number or address; None: there is none."""
    for gpu in known.gpus:
        if (
            name.removeprefix("gpu:") in {gpu.uuid, gpu.serial}
            or pci_key(name.removeprefix("gpu:")) == gpu.pci
        ):
            return _gpu(gpu)
    return name if name in set(_components(known)) else None


def _gpu(gpu: GpuName) -> str:
    return f"gpu:{gpu.uuid or gpu.pci}"


def _components(known: HealthSnapshot) -> Iterator[str]:
    yield from (each.finding.component for each in known.findings)
    yield from (_gpu(gpu) for gpu in known.gpus)
    for one in known.incidents:
        yield from (one.component, *(key.component for key in one.findings))


def _unknown(name: str, known: HealthSnapshot) -> Problem:
    names = sorted(set(filter(None, _components(known))))
    hint = nearest_hint(name, names) or f"one of {', '.join(names[:8])}, or nothing for the whole node"
    return Problem(where="COMPONENT", message=f"there is no component {name!r} on this node", hint=hint)


def _bad(known: HealthSnapshot | None) -> list[Finding]:
    return [each.finding for each in (known.findings if known else ()) if each.finding.verdict in BAD]


def _subject(component: str, known: HealthSnapshot | None) -> str:
    """Return what the history calls a component: a GPU by its serial number."""
    serials = {_gpu(gpu): gpu.serial for gpu in (known.gpus if known else ()) if gpu.serial}
    return f"gpu:{serials[component]}" if component in serials else component


def _written(state_path: Path, mark: Mark) -> Mark:
    """Write the mark and return it as it was written: through the controller, which checks the role, or into the file where none runs."""
    asked_for = {"component": mark.component, "reason": mark.reason}
    try:
        for line in ask(state_path, {"op": "set_healthy", **asked_for, "mark": msgspec.to_builtins(mark)}):
            if "error" in line:
                raise Permanent(line["error"], hint=line.get("hint", ""))
            return msgspec.convert(line["mark"], Mark)
        raise Temporary("the controller's answer broke off")
    except NotRunning:
        pass
    try:
        HistoryFile(state_path / FILE_NAME).mark(mark)
    except OSError as exc:
        raise Permanent(f"cannot write {state_path / FILE_NAME}: {exc.strerror or exc}") from exc
    record_act(state_path, "set_healthy", **asked_for)
    return mark


def _taken_over(state_path: Path, mark: Mark) -> HealthSnapshot | None:
    """Return the agent's first snapshot after it has taken the mark over; None: it has not within the time."""
    ends_s = monotonic_s() + TAKEN_OVER_S
    while monotonic_s() < ends_s:
        snapshot = asked(state_path)
        if snapshot is not None and snapshot.marked_s >= mark.set_healthy_s:
            return snapshot
        Event().wait(_LOOK_S)
    return None


def _say(mark: Mark, after: HealthSnapshot | None, *, running: bool, as_json: bool) -> None:
    open_ids = [one.id for one in (after.incidents if after else ()) if one.state is not IncidentState.OVER]
    if as_json:
        say_json(
            {
                "component": mark.component,
                "subject": mark.subject,
                "set_healthy_s": mark.set_healthy_s,
                "by": mark.by,
                "reason": mark.reason,
                "taken_over": after is not None,
                "incidents_that_go_on": open_ids,
                "still_found": [list(parts) for parts in mark.findings],
            }
        )
        return
    click.echo(
        f"{mark.component or 'this node'}: set healthy by {mark.by}; nothing from before counts any more"
    )
    for probe, component, reason in mark.findings:
        click.echo(f"    {probe}  {component}: {reason} stays a finding until it is found well")
    if running and after is None:
        click.echo("the agent has not taken it over yet: freehold logs health shows why", err=True)
