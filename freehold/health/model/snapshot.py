"""The last state of a node by its agent: settled findings, incidents, and how reading went. Values only.

The file is replaced whole, so it is never read half written. A reader looks at `at_s`, since an agent that has died writes
nothing. Nothing here judges.
"""

from enum import StrEnum

import msgspec

from freehold.core.findings import Action, Evidence, Finding, Verdict, worst

FILE_NAME = "health.json"
"""In the state folder."""
METRICS_NAME = "health.prom"
"""The same folder: the agent's metrics in Prometheus' text format, as node_exporter's textfile collector reads them."""
PERIOD_S = 10.0
"""Between two snapshots at least. Source: our own choice: the time of a look at GPUs and disks; changes are sent sooner."""
STALE_PERIODS = 3
"""A snapshot older than this many periods says nothing of now. Source: our own choice, as `hysteresis.STALE_LOOKS`."""


class SettledFinding(msgspec.Struct, frozen=True, kw_only=True):
    """A finding after hysteresis."""

    finding: Finding
    since_s: float
    """Unix seconds since when the verdict is this one."""


class ReaderState(msgspec.Struct, frozen=True, kw_only=True):
    """How one reader is doing."""

    name: str
    state: str
    """`ok`, `late` (no answer within its deadline), `failed` (a mistake of our own), `waiting` (not read yet)."""
    detail: str = ""
    read_s: float = 0.0
    """Unix seconds of its last answer; 0: there was none."""
    took_s: float = 0.0
    """How long that took."""


class IncidentState(StrEnum):
    """Whether an incident still goes on."""

    OPEN = "open"  # something belonging to it came within the last three minutes
    STANDING = "standing"  # nothing new, but what was found wrong still is
    OVER = "over"


class FindingKey(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """Which finding, and what it says."""

    probe: str
    component: str
    reason: str


class GpuName(msgspec.Struct, frozen=True, kw_only=True):
    """What one GPU is called: by the kernel, by NVML, by its maker."""

    pci: str
    """As `kernel_log.events.pci_key` writes it."""
    uuid: str = ""
    serial: str = ""


class IncidentReport(msgspec.Struct, frozen=True, kw_only=True):
    """One incident of this node, and its cause as far as it is known now."""

    id: str
    """The same in the history's file."""
    state: IncidentState
    start_s: float
    """Unix seconds of the first that belongs to it, as the other times."""
    last_s: float
    """Of the last that came new."""
    over_s: float = 0.0
    """When it was over; 0: it is not."""
    at_start: bool = False
    """Found when the agent began to look: since when it is so is not known, and nothing that came later belongs to it."""
    apart: str = ""
    """What it is about, if that neither explains nor comes from anything else: then nothing else belongs to it."""
    events: int = 0
    """Kernel lines and findings that belong to it."""
    findings: tuple[FindingKey, ...] = ()
    """What was found wrong and still is."""
    problem: bool = False
    """Whether anything here points to a fault; what follows is empty before it was diagnosed."""
    hypothesis: str = ""
    component: str = ""
    confidence: float = 0.0
    action: Action = Action.NONE
    summary: str = ""
    what_would_change_it: str = ""
    caution: str = ""
    evidence: tuple[Evidence, ...] = ()
    """Strongest first, at most `open_incident.EVIDENCE_MOST`."""
    evidence_against: tuple[Evidence, ...] = ()
    left_out: int = 0
    """Entries of evidence, both ways, that are not here."""
    signature: str = ""
    revision: int = 0
    """How often it was written into the history's file."""
    set_healthy_by: str = ""
    """Who ended it by hand."""


class HealthSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one node at one moment."""

    at_s: float
    """Unix seconds."""
    node: str = ""
    pid: int = 0
    """The agent's; 0: a single look without an agent."""
    started_s: float = 0.0
    woke_s: float = 0.0
    """Unix seconds when the agent last went on after it had stood still itself, as when its machine is suspended; 0: it never did."""
    findings: tuple[SettledFinding, ...] = ()
    """Worst first, then by probe and component."""
    readers: tuple[ReaderState, ...] = ()
    incidents: tuple[IncidentReport, ...] = ()
    """Those that go on, newest first, then those that were over within the last hour."""
    set_healthy: tuple[FindingKey, ...] = ()
    """Bad findings as they were when an operator set them healthy: it opens no incident."""
    marked_s: float = 0.0
    """The last time that an operator set anything healthy, as far as the agent knows."""
    gpus: tuple[GpuName, ...] = ()
    """Every GPU that was ever read here, those that are lost among them."""
    boot: str = ""
    """The kernel's boot id; empty: not read."""
    log_read_s: float = 0.0
    """Until when the kernel's log was read, Unix seconds; 0: it was not."""
    log_sequence: int = -1
    """The number of the last of its records that was read in this boot."""

    @property
    def verdict(self) -> Verdict:
        """Return the worst verdict of all; of none at all UNKNOWN."""
        return worst(each.finding.verdict for each in self.findings)

    def is_stale(self, now_s: float) -> bool:
        """Return whether it is too old to speak for now."""
        return not -PERIOD_S <= now_s - self.at_s <= PERIOD_S * STALE_PERIODS


_DECODER = msgspec.json.Decoder(HealthSnapshot)
_ORDER = {verdict: index for index, verdict in enumerate(Verdict)}


def sorted_findings(found: list[SettledFinding]) -> tuple[SettledFinding, ...]:
    """Return the findings worst first, then by probe and component."""
    return tuple(
        sorted(found, key=lambda b: (-_ORDER[b.finding.verdict], b.finding.probe, b.finding.component))
    )


def encode(snapshot: HealthSnapshot) -> bytes:
    """Return it as one line of JSON, without the end of line."""
    return msgspec.json.encode(snapshot)


def decode(data: bytes) -> HealthSnapshot | None:
    """Return the snapshot; None for anything else."""
    try:
        return _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
