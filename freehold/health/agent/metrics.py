"""The agent's metrics: verdicts, how long probes and reading take. Labels are constants of the code, never a name or UUID.

All their names begin with `freehold_health_`, the process's own figures too: they are on one page with a gateway's, or with node_exporter's.

A component's label is its kind (`gpu`, `disk`, `engine`), and its verdict the worst of that kind: which one it is, `freehold
health` says. Nothing here serves them: they are text that goes with the agent's report and into a file.
"""

from collections import Counter
from collections.abc import Callable, Iterable

from freehold.core.findings import Finding, Verdict
from freehold.health.model.snapshot import IncidentReport, IncidentState, ReaderState
from freehold.telemetry.declared import AGENT
from freehold.telemetry.metrics import Metrics

RANKS = {verdict: rank for rank, verdict in enumerate(Verdict)}
"""0 not applicable, 1 healthy, 2 unknown, 3 degraded, 4 unhealthy: the order of `Verdict`, so that a higher one is worse."""
NAMESPACE = "freehold_health"
"""How all names begin. Source: telemetry/declared.py."""
READER_STATES = ("ok", "late", "failed", "waiting")


class HealthMetrics:
    """What the runner counts."""

    def __init__(self) -> None:
        self._metrics = Metrics(AGENT, namespace=NAMESPACE)
        self._verdicts = self._metrics.gauge("freehold_health_verdict")
        self._seconds = self._metrics.histogram("freehold_health_probe_seconds")
        self._findings = self._metrics.counter("freehold_health_findings_total")
        self._readers = self._metrics.gauge("freehold_health_reader_state")
        self._incidents = self._metrics.gauge("freehold_health_incidents")
        self._diagnosed = 0
        self._metrics.counter("freehold_health_diagnoses_total").read_from(lambda: {(): self._diagnosed})
        self._bugs = self._metrics.counter("freehold_health_bugs_total")

    def watch_log(self, dropped: Callable[[], int]) -> None:
        """Count by `dropped` how many log records were lost."""
        self._metrics.counter("freehold_health_log_dropped_total").read_from(lambda: {(): dropped()})

    def bug(self, where: str) -> None:
        """Count an exception that a guard caught."""
        self._bugs.add(where)

    def ran(self, probe: str, seconds: float) -> None:
        """Note how long a probe took."""
        self._seconds.observe(probe, value=seconds)

    def changed(self, finding: Finding) -> None:
        """Count a verdict that is believed from now on."""
        self._findings.add(finding.probe, finding.reason)

    def show(self, findings: Iterable[Finding], readers: Iterable[ReaderState]) -> None:
        """Take over what is believed now."""
        worst: dict[tuple[str, str], int] = {}
        for finding in findings:
            key = (finding.probe, finding.component.partition(":")[0])
            worst[key] = max(worst.get(key, 0), RANKS[finding.verdict])
        for gone in self._verdicts.cells.keys() - worst.keys():
            self._verdicts.forget(*gone)
        for key, rank in worst.items():
            self._verdicts.set(*key, to=rank)
        for reader in readers:
            for state in READER_STATES:
                self._readers.set(reader.name, state, to=float(reader.state == state))

    def show_incidents(self, incidents: Iterable[IncidentReport], diagnoses: int) -> None:
        """Take over which incidents go on, and how often any was diagnosed."""
        going_on = Counter(
            (one.hypothesis, str(one.action))
            for one in incidents
            if one.problem and one.state is not IncidentState.OVER
        )
        for gone in self._incidents.cells.keys() - going_on.keys():
            self._incidents.forget(*gone)
        for key, number in going_on.items():
            self._incidents.set(*key, to=float(number))
        self._diagnosed = diagnoses

    def text(self) -> bytes:
        """Return all of them in Prometheus' text format."""
        return self._metrics.render()[0]
