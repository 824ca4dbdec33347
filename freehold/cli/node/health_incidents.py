"""Incidents of a running agent for people and scripts: two lines each above the findings, or whole as `health diagnose` prints a file's.

An incident that was not diagnosed yet, or in which nothing points to a fault, is not shown. Nothing here judges.
"""

from collections.abc import Iterator, Sequence

from freehold.cli.terminal.output import duration_text, styled
from freehold.cli.terminal.table import Row, paragraph, table
from freehold.core.findings import Action, Evidence
from freehold.core.plain_text import one_line
from freehold.health.model.snapshot import HealthSnapshot, IncidentReport, IncidentState


def shown(snapshot: HealthSnapshot) -> list[IncidentReport]:
    """Return the incidents to be shown, as they come: those that go on, then of those that are over the last."""
    found = [one for one in snapshot.incidents if one.problem and one.hypothesis]
    over = [one for one in found if one.state is IncidentState.OVER]
    return [*(one for one in found if one not in over), *over[:1]]


def goes_on(snapshot: HealthSnapshot) -> bool:
    """Return whether an incident goes on in which something points to a fault."""
    return any(one.state is not IncidentState.OVER for one in shown(snapshot))


def incident_lines(snapshot: HealthSnapshot, columns: int | None = None) -> list[str]:
    """Return two lines, or more on a narrow terminal, for each that goes on, and one for the last that is over."""
    found = shown(snapshot)
    rows = [_row(one, snapshot.at_s) for one in found if one.state is not IncidentState.OVER]
    over = [_over(one, snapshot.at_s) for one in found if one.state is IncidentState.OVER]
    lines = [styled(line, dim=True) for text in over for line in paragraph(text, columns)]
    return [*table(rows, columns), *lines]


def _row(one: IncidentReport, now_s: float) -> Row:
    cells = (styled("incident", colour="red", bold=True), one.hypothesis, one.component, one.summary)
    do = "" if one.action is Action.NONE else f"do: {one.action.replace('_', ' ')}"
    return Row(cells, ["; ".join(filter(None, (do, _since(one, now_s), _doubt(one))))])


def _over(one: IncidentReport, now_s: float) -> str:
    by = f", set healthy by {one.set_healthy_by}" if one.set_healthy_by else ""
    head = f"{one.hypothesis}  {one.component}".rstrip() + f"  {one.summary}"
    return f"last incident, over for {_age(now_s, one.over_s)}{by}: {head}"


def _since(one: IncidentReport, now_s: float) -> str:
    began = "was so when the agent began to look" if one.at_start else f"began {_age(now_s, one.start_s)} ago"
    return began if one.state is IncidentState.OPEN else f"{began}, nothing new for {_age(now_s, one.last_s)}"


def _doubt(one: IncidentReport) -> str:
    return f"would change it: {one.what_would_change_it}" if one.what_would_change_it else ""


def _age(now_s: float, then_s: float) -> str:
    return duration_text(max(0.0, now_s - then_s))


def incident_json(snapshot: HealthSnapshot) -> dict[str, object]:
    """Return what `health diagnose --json` prints of a running agent: the foremost at the top, and all of them below it."""
    reports = [_one(one, snapshot.node) for one in shown(snapshot)]
    return {**(reports[0] if reports else {"problem": False}), "incidents": reports, "ignored": []}


def _one(one: IncidentReport, node: str) -> dict[str, object]:
    return {
        "hypothesis": one.hypothesis,
        "component": one.component,
        "confidence": one.confidence,
        "action": one.action,
        "evidence": one.evidence,
        "evidence_against": one.evidence_against,
        "what_would_change_it": one.what_would_change_it,
        "problem": one.problem,
        "summary": one.summary,
        "caution": one.caution,
        "incident": {
            "node": node,
            "id": one.id,
            "state": one.state,
            "start_s": one.start_s,
            "end_s": one.over_s or one.last_s,
            "events": one.events,
            "set_healthy_by": one.set_healthy_by,
        },
    }


def whole_lines(snapshot: HealthSnapshot) -> list[str]:
    """Return all that is known of the incidents, as `health diagnose` shows a file's."""
    found = shown(snapshot)
    if not found:
        return ["no incident goes on, and none was over within the last hour"]
    return [line for one in found for line in _whole(one, snapshot.at_s)]


def _whole(one: IncidentReport, now_s: float) -> Iterator[str]:
    over = f"; over for {_age(now_s, one.over_s)}" if one.over_s else ""
    yield styled(f"{one.hypothesis}  {one.component}".rstrip() + f"  {one.confidence:.0%}", bold=True)
    yield f"  {one.summary}"
    yield f"  {_since(one, now_s)}{over}, {one.events} kernel lines and findings"
    yield f"  do: {one.action}"
    if one.caution:
        yield f"      {one.caution}"
    yield from evidence_lines("for", one.evidence)
    yield from evidence_lines("against", one.evidence_against)
    if one.left_out:
        yield f"  and {one.left_out} more"
    yield f"  what would change it: {one.what_would_change_it}"


def evidence_lines(title: str, entries: Sequence[Evidence]) -> Iterator[str]:
    """Yield a line for each entry, with what is normal behind it where that is known."""
    for entry in entries:
        normal = f" ({entry.baseline})" if entry.baseline else ""
        yield one_line(f"  {title}: {entry.what}: {entry.value}{normal}")
