"""What an incident's events are signs of: kernel events by kind and XID class, and how often the same came before.

Numbers mean what catalog/data/health/xids.yaml says; here only the meaning of one event among others is decided: a switch that
sees a GPU fall off the bus is its witness, a program that fails on many units is no bad unit.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from freehold.catalog.load_evidence import EvidenceTable
from freehold.health.evidence.incident import BURST_S, IncidentEvent, NodeIncident, occurrences
from freehold.health.evidence.scoring import SeenSign, see
from freehold.health.kernel_log.xid_judgement import judge_xid

DAY_S = 86_400.0
"""How far back the same fault counts as a repetition, seconds. Source: NVSentinel, RepeatedXIDErrorOnSameGPU: 24 h."""
_FEW_PLACES = 2
"""On at most this many units a fault is the unit's. Source: our own choice: a bad program fails on many at once."""
_MANY_CORRECTED = 100
"""Corrected errors of one device in one incident that are worth reporting. Source: our own choice, above what sound nodes' logs hold."""
_REPEATED_APP = frozenset({13, 31})
"""Source: NVSentinel, WORKFLOW_XID_13 and WORKFLOW_XID_31."""
_MONITORS = (
    "nvidia-smi",
    "dcgm",
    "nv-hostengine",
    "gpud",
    "nvidia-persist",
    "freehold",
    "node_exporter",
    "nvtop",
)
"""Process names that only look. Source: gpud's fixture of XID 119; names of the usual exporters."""
_ENGINES = (
    "vllm",
    "python",
    "pt_main",
    "llama",
    "sglang",
    "trtllm",
    "triton",
    "ray",
    "xllamacpp",
    "ollama",
    "tgi",
)
"""Process names of inference engines, by their first letters. Source: their programs; Python runs most of them."""
_IO_TASKS = ("jbd2", "xfs", "kworker", "flush", "nfs", "dm-", "md", "btrfs", "ext4", "nvme")
"""Kernel threads that wait for disks. Source: thread names of the block layer and file systems."""

_KINDS = {
    "off_bus": "gpu_lost",
    "api_mismatch": "library_mismatch",
    "gpu_init_failed": "gpu_start_failed",
    "aer_uncorrected": "aer_uncorrectable",
    "aer_unrecovered": "aer_uncorrectable",
    "memory_uncorrected": "cpu_error",
    "lockup": "soft_lockup",
    "kernel_bug": "kernel_bug",
    "oom_kill": "oom_kill",
    "disk_error": "disk_error",
    "disk_timeout": "disk_timeout",
    "disk_gone": "disk_gone",
    "file_system_error": "file_system_error",
    "read_only": "disk_read_only",
    "nic_failed": "nic_fatal",
    "nic_error": "nic_error",
    "nic_timeout": "nic_timeout",
    "crash": "segfault",
    "driver_refused": "driver_blocked",
    "driver_misfit": "driver_missing",
    "fabric_misfit": "fabric_manager",
    "too_hot": "host_too_hot",
    "warm": "host_warm",
    "link_flaps": "link_down",
    "link_lost": "link_down",
}
_RATES = {"aer_corrected": "aer_corrected", "memory_corrected": "cpu_error_corrected"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PastFault:
    """Something that was diagnosed before, from the history."""

    at_s: float
    subject: str
    """GPU serial number, UUID or PCI address; a component where it is no GPU."""
    signature: str
    """`xid 13`, or a sign's name."""
    place: str = ""
    action: str = "none"
    hypothesis: str = "undetermined"
    node: str = ""
    incident: str = ""
    """Which incident it was, by the agent's own name for it; empty: not known."""
    revision: int = 0
    """Of several diagnoses of one incident the one with the highest number counts."""
    boot: str = ""
    """The kernel's boot id then: with another one now, the machine was started anew since."""


def event_signs(
    table: EvidenceTable, incident: NodeIncident, past: Sequence[PastFault] = ()
) -> list[SeenSign]:
    """Return what the incident's events say, and what it means that they came before."""
    found = [sign for event in incident.events for sign in _signs(table, event)]
    if any(item.sign.name == "gpu_lost" for item in found):
        found = [item for item in found if item.sign.name != "switch_fatal"]  # the switch only saw the GPU go
    found.extend(_recovery(table, incident.events))
    found.extend(_rates(table, incident.events))
    found.extend(_repeats(table, incident, past))
    return found


def _signs(table: EvidenceTable, event: IncidentEvent) -> Iterator[SeenSign]:
    if event.kind == "xid":
        yield from _xid(table, event)
    elif event.kind == "sxid":
        if event.fields.get("severity") == "fatal":
            yield _seen(table, "switch_fatal", event)
    elif event.kind == "recovery_action" or event.kind in _RATES:
        return  # only the last one counts, or how many there are: see `_recovery` and `_rates`
    elif event.kind == "hung_task":
        name = _hung_task(event)
        yield _seen(table, name, replace(event, component="driver") if name == "nvidia_blocked" else event)
    elif event.kind in table.signs:
        yield _seen(table, event.kind, event)
    elif event.kind in _KINDS:
        yield _seen(table, _KINDS[event.kind], event)


def _hung_task(event: IncidentEvent) -> str:
    name = event.fields.get("name", "")
    if name.startswith(("nvidia", "nv_", "nv-", "irq/nvidia")):
        return "nvidia_blocked"
    waits = "blocked in I/O wait" in event.text or name.startswith(_IO_TASKS)
    return "storage_hung" if waits else "task_blocked"


def _xid(table: EvidenceTable, event: IncidentEvent) -> Iterator[SeenSign]:
    assert event.number is not None, "an XID has a number"
    judgement = judge_xid(event.number, event.fields)
    if not judgement.sign:
        return
    seen = _seen(table, judgement.sign, event)
    yield replace(seen, value=f"XID {event.number} {judgement.fact.mnemonic}".strip())
    name = event.fields.get("name", "")
    if name.startswith(_MONITORS):
        yield replace(_seen(table, "monitor_pid", event), value=name, number=None)
    elif name.lower().startswith(_ENGINES) and judgement.sign in {"app_fault", "app_disputed"}:
        yield replace(_seen(table, "engine_pid", event), value=name, number=None)


def _seen(table: EvidenceTable, name: str, event: IncidentEvent) -> SeenSign:
    value = event.fields.get("value") or event.text[:200]
    place = ", ".join(f"{key} {event.fields[key]}" for key in ("gpc", "tpc") if key in event.fields)
    return see(
        table, name, component=event.component, value=value, source=event.source, at_s=event.at_s,
        number=event.number if event.kind == "xid" else None, place=place, baseline=event.fields.get("baseline", ""),
    )  # fmt: skip


def _recovery(table: EvidenceTable, events: Sequence[IncidentEvent]) -> Iterator[SeenSign]:
    """Yield the recovery action that each GPU's driver asked for last; one that was taken back is none."""
    last = {event.component: event for event in events if event.kind == "recovery_action"}
    led = {event.component for event in events if event.kind == "xid"}
    for event in last.values():
        if event.number:
            words = event.fields.get("to_words") or event.text[:200]
            name = "recovery_follows" if event.component in led else "recovery_action"
            yield replace(_seen(table, name, event), value=words, number=event.number)


def _rates(table: EvidenceTable, events: Iterable[IncidentEvent]) -> Iterator[SeenSign]:
    of_device: dict[tuple[str, str], list[IncidentEvent]] = {}
    for event in events:
        if event.kind in _RATES:
            of_device.setdefault((event.kind, event.component), []).append(event)
    for (kind, _), some in of_device.items():
        if len(some) >= _MANY_CORRECTED:
            yield replace(_seen(table, _RATES[kind], some[0]), value=f"{len(some)} lines")


def _repeats(table: EvidenceTable, incident: NodeIncident, past: Sequence[PastFault]) -> Iterator[SeenSign]:
    for number in sorted(_REPEATED_APP):
        lines = [event for event in incident.events if event.kind == "xid" and event.number == number]
        same = (one for one in past if one.signature == f"xid {number}")
        before = [one for one in same if 0 <= incident.start_s - one.at_s <= DAY_S]
        if lines:
            yield from _repeated(table, number, lines, before)


def _repeated(
    table: EvidenceTable, number: int, lines: list[IncidentEvent], before: list[PastFault]
) -> Iterator[SeenSign]:
    last = lines[-1]
    subjects = {event.component for event in lines} | {one.subject for one in before}
    times = occurrences(lines) + len(before)
    if len(subjects) > 1:
        yield replace(
            _seen(table, "app_repeats_elsewhere", last),
            value=f"XID {number} on {len(subjects)} GPUs",
            number=None,
        )
    elif times > 1:
        name = (
            "app_repeats_same_place" if number == 13 and _one_place(lines, before) else "app_repeats_same_gpu"
        )
        yield replace(_seen(table, name, last), value=f"XID {number}, {times} times", number=None)


def _one_place(lines: list[IncidentEvent], before: list[PastFault]) -> bool:
    """Return whether every occurrence names the same unit, and few others are named."""
    bursts = _places(lines) + [{one.place} for one in before if one.place]
    shared = set.intersection(*bursts) if bursts else set()
    return bool(shared - {""}) and len(set.union(*bursts)) <= _FEW_PLACES


def _places(lines: list[IncidentEvent]) -> list[set[str]]:
    """Return the units that each burst of lines names."""
    bursts: list[set[str]] = []
    last_s = -float("inf")
    for event in sorted(lines, key=lambda line: line.at_s):
        if event.at_s - last_s > BURST_S:
            bursts.append(set())
        last_s = event.at_s
        bursts[-1].add(
            ", ".join(f"{key} {event.fields[key]}" for key in ("gpc", "tpc") if key in event.fields)
        )
    return bursts
