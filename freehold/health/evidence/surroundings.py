r"""The signs in engines' ends, logs and states, in findings, and in what people and other nodes report of an incident.

The engine file reads an exit code and the last lines \(`explain_exit`\); here each cause becomes a sign. Texts of findings and notes
count only where a pattern knows them.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from freehold.catalog.load_evidence import BY_WORDS, THERMAL, EvidenceTable
from freehold.core.findings import Finding, Verdict
from freehold.core.plain_text import one_line
from freehold.engines import all_engines
from freehold.engines.base import ExitCause, ExitKind
from freehold.engines.shared.exit_rules import explain_code
from freehold.health.evidence.log_patterns import finding_sign, log_signs, note_signs, state_signs
from freehold.health.evidence.scoring import SeenSign, see

_KINDS = {
    ExitKind.OUT_OF_MEMORY: "engine_memory",
    ExitKind.PORT_IN_USE: "engine_configuration",
    ExitKind.BAD_WEIGHTS: "engine_weights",
    ExitKind.BAD_OPTION: "engine_configuration",
    ExitKind.MISSING_PROGRAM: "engine_configuration",
    ExitKind.BAD_DRIVER: "engine_configuration",
    ExitKind.CRASHED: "engine_crashed",
    ExitKind.KILLED: "engine_killed",
}
_OF_LINES = frozenset({"engine_memory", "engine_configuration", "engine_weights"})
"""Ends that an engine's file reads out of its last lines, as `log_patterns.log_signs` does."""
_BAD = frozenset({Verdict.DEGRADED, Verdict.UNHEALTHY})
_BARE_CRASH = frozenset({"log_exception", "engine_crashed", "engine_killed"})
"""What an engine's end says by itself; any better reason replaces it. Source: our own choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineEnd:
    """What is known of one engine in an incident."""

    replica: str
    engine: str = ""
    exit_code: int | None = None
    """Negative: minus the signal. None: it runs, or it is not known."""
    log_tail: tuple[str, ...] = ()
    state: str = ""
    at_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is known around an incident."""

    changed: Mapping[str, float] = field(default_factory=dict)
    """What was changed (`driver`, `engine`, `configuration`, `versions`) to how long before the incident, seconds."""
    drift: tuple[str, ...] = ()
    """What differs from the lock."""
    same_on: tuple[str, ...] = ()
    """Other nodes that show the same."""
    operator: str = ""
    """What an operator did on it, shortly before; empty: nothing."""
    follows_workload: bool | None = None
    stays_with_gpu: bool | None = None
    notes: tuple[str, ...] = ()
    """What else is known, as people and other systems wrote it."""


CHANGED_S = 86_400.0
"""A change counts as recent for this long, seconds. Source: our own choice: a day."""


def engine_signs(table: EvidenceTable, engines: Sequence[EngineEnd]) -> list[SeenSign]:
    """Return the signs in engines' ends, logs and states."""
    return [sign for engine in engines for sign in _engine(table, engine)]


def _engine(table: EvidenceTable, engine: EngineEnd) -> list[SeenSign]:
    found: dict[str, SeenSign] = {}

    def add(name: str, value: str, source: str) -> None:
        at = {"component": f"engine:{engine.replica}", "at_s": engine.at_s}
        found.setdefault(name, see(table, name, value=value, source=source, **at))

    tail = tuple(map(one_line, engine.log_tail))
    for name, line in log_signs(tail):
        add(name, line, "engine log")
    for name in state_signs(engine.state):
        add(name, engine.state, "engine state")
    if engine.exit_code is not None:
        cause = explain(engine.engine, engine.exit_code, tail)
        crashed = cause.kind is ExitKind.UNKNOWN and engine.exit_code
        exit_sign = "engine_crashed" if crashed else _KINDS.get(cause.kind)
        # A cause that was read out of the same lines is no second witness.
        in_lines = any(
            seen.source.startswith("engine log") and name not in _BARE_CRASH for name, seen in found.items()
        )
        if exit_sign and not (in_lines and exit_sign in _OF_LINES):
            add(exit_sign, cause.summary, "engine exit")
    better = [seen for name, seen in found.items() if name not in _BARE_CRASH]
    return better or list(found.values())[:1]


def explain(engine: str, exit_code: int, log_tail: tuple[str, ...]) -> ExitCause:
    """Return why an engine ended, by its own file; for an unknown program, by the code alone."""
    known = all_engines().get(engine)
    if known is not None and known.managed:
        return known.explain_exit(exit_code, log_tail)
    return explain_code(exit_code) or ExitCause(
        kind=ExitKind.UNKNOWN, summary=f"it ended with exit code {exit_code}"
    )


def finding_signs(table: EvidenceTable, findings: Sequence[Finding]) -> list[SeenSign]:
    """Return the signs in findings; heat found on several GPUs is the room's, on one beside cool ones the GPU's."""
    hot = {f.component for f in findings if _rule(table, f) == THERMAL}
    cool = {
        f.component for f in findings if f.verdict is Verdict.HEALTHY and re.search("temp|therm", f.probe)
    } - hot
    found = [sign for finding in findings for sign in _finding(table, finding, hot, cool)]
    clean = [
        f
        for f in findings
        if f.verdict is Verdict.HEALTHY and re.search("gpu_(memory|pcie)|ecc|remap", f.probe)
    ]
    if clean and not found:
        found.append(_of_finding(table, "counters_clean", clean[0]))
    return found


def _rule(table: EvidenceTable, finding: Finding) -> str | None:
    """Return the sign of a bad finding: of one of our probes' by its reason, else by its text; None: it is not a sign."""
    if finding.verdict not in _BAD:
        return None
    own = table.findings.get((finding.probe, finding.reason), BY_WORDS)
    if own != BY_WORDS:
        return own or None
    words = f"{finding.probe} {finding.reason} {finding.message}".replace("_", " ")
    return finding_sign(finding.probe or finding.component, words)


def _finding(table: EvidenceTable, finding: Finding, hot: set[str], cool: set[str]) -> Iterator[SeenSign]:
    if finding.verdict not in _BAD:
        return
    name = _rule(table, finding)
    if name == THERMAL:
        name = (
            "thermal_one"
            if cool and len(hot) == 1
            else "thermal_all"
            if len(hot) > 1 and not cool
            else "thermal_alone"
        )
    yield _of_finding(table, name or "probe_degraded", finding)


def _of_finding(table: EvidenceTable, name: str, finding: Finding) -> SeenSign:
    what = finding.message or finding.reason
    source = f"probe {finding.probe}" if finding.probe else "finding"
    return see(table, name, component=finding.component, value=what, source=source, at_s=finding.at_s)


def around_signs(table: EvidenceTable, around: Surroundings) -> Iterator[SeenSign]:
    """Yield the signs in what is known around the incident."""

    def seen(name: str, value: str) -> SeenSign:
        return see(table, name, value=value, source="context")

    yield from _changed(table, around)
    for what in around.drift:
        yield seen(
            "driver_drift" if re.search("driver|cuda|nvidia", what, re.IGNORECASE) else "lock_drift", what
        )
    for name, words in (
        ("same_on_other_nodes", ", ".join(around.same_on)),
        ("operator_acted", around.operator),
    ):
        if words:
            yield seen(name, words)
    for name, said in (
        ("follows_workload", around.follows_workload),
        ("stays_with_gpu", around.stays_with_gpu),
    ):
        if said:
            yield seen(name, "by experiment")
    for text in around.notes:
        for name, words in note_signs(text):
            yield seen(name, words)


def _changed(table: EvidenceTable, around: Surroundings) -> Iterator[SeenSign]:
    for what, ago_s in sorted(around.changed.items()):
        if 0 <= ago_s <= CHANGED_S:
            name = f"{what}_changed_recently"
            value = f"{what} changed {ago_s / 3600:.1f} h before"
            yield see(
                table, name if name in table.signs else "changed_recently", value=value, source="context"
            )
