"""Findings for people: a line each, worst first, and below a bad one what to do. No line is cut."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from freehold.cli.terminal.output import duration_text, styled
from freehold.cli.terminal.table import Row, paragraph, table
from freehold.core import plain_text
from freehold.core.events import ReplicaStatus
from freehold.core.findings import Action, Finding, Verdict
from freehold.health.model.snapshot import HealthSnapshot, SettledFinding
from freehold.health.registry import all_probes

_COLOURS = {
    Verdict.HEALTHY: "green",
    Verdict.DEGRADED: "yellow",
    Verdict.UNHEALTHY: "red",
    Verdict.UNKNOWN: "magenta",
}
BAD = frozenset({Verdict.DEGRADED, Verdict.UNHEALTHY})
"""The verdicts of a problem."""


Serving = Mapping[str, Sequence[str]]
"""Replicas by the component that they compute on, such as `gpu:GPU-…`."""
_NOBODY: Serving = MappingProxyType({})


def serving_on(replicas: Iterable[ReplicaStatus]) -> dict[str, list[str]]:
    """Return who is on which GPU; whoever is on an instance of a divided one is left out, since findings name whole ones."""
    found: dict[str, list[str]] = {}
    for replica in replicas:
        for gpu in replica.gpus or ():
            if gpu.uuid and not gpu.divided:
                found.setdefault(f"gpu:{gpu.uuid}", []).append(replica.id)
    return found


def lines_of(snapshot: HealthSnapshot, serving: Serving = _NOBODY, columns: int | None = None) -> list[str]:
    """Return the table's lines; probes that do not apply here are one line at the end. Bad ones name who is on that GPU."""
    here = [each for each in snapshot.findings if each.finding.verdict is not Verdict.NOT_APPLICABLE]
    lines = table([_row(each, snapshot, serving) for each in here], columns)
    absent = sorted(
        {each.finding.probe for each in snapshot.findings} - {each.finding.probe for each in here}
    )
    found = paragraph(f"not applicable: {', '.join(absent)}", columns) if absent else []
    return [*lines, *(styled(line, dim=True) for line in found)]


def one_line(finding: Finding) -> str:
    """Return a finding in one line."""
    verdict = styled(finding.verdict, colour=_COLOURS.get(finding.verdict))
    return f"{verdict}  {finding.probe}  {finding.component}: {plain_text.one_line(finding.message)} ({finding.reason})"


def _row(each: SettledFinding, snapshot: HealthSnapshot, serving: Serving) -> Row:
    finding, below = each.finding, []
    bad = finding.verdict in BAD
    verdict = styled(finding.verdict, colour=_COLOURS.get(finding.verdict), bold=bad)
    if bad:
        since = f" for {duration_text(max(0.0, snapshot.at_s - each.since_s))}" if snapshot.pid else ""
        below.append(f"{finding.reason}{since}: {_advice(finding)}")
        if on_it := serving.get(finding.component):
            below.append(f"on it: {', '.join(on_it)}")
    return Row((verdict, finding.probe, finding.component, plain_text.one_line(finding.message)), below)


def _advice(finding: Finding) -> str:
    """Return what to do: the action's word, and what the probe says of the reason."""
    probe = all_probes().get(finding.probe)
    meaning = probe.reasons.get(finding.reason, "") if probe else ""
    action = "" if finding.action is Action.NONE else finding.action.replace("_", " ")
    return "; ".join(filter(None, (action, meaning)))
