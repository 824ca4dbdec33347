"""The incident file as types: what is read, and what docs/incident.schema.json is made of.

There is one way to write each thing. An unknown key is a mistake, because what it holds would be missed. Nothing here judges.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from freehold.core.findings import Action, Verdict

_YEARS_MOST_S = 1e11  # three thousand years: a larger number is not Unix seconds
_NUMBER_MOST = 1_000_000  # XIDs, signals, exit codes and counts of requests are smaller

Time = Annotated[
    Annotated[float, Meta(ge=-_YEARS_MOST_S, le=_YEARS_MOST_S)] | datetime,
    Meta(description="Unix seconds, or ISO 8601 (without a zone: UTC)"),
]
Value = Annotated[
    float | str | bool | None,
    Meta(description="a number, a text with a unit, or a state such as `lost`; null: not known"),
]
Count = Annotated[int, Meta(ge=-_NUMBER_MOST, le=_NUMBER_MOST)]
GpuId = Annotated[int | str, Meta(description="index, UUID, serial number or PCI address")]


class IncidentObject(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """An object of an incident file."""


class KernelEntry(IncidentObject):
    """A kernel line with its time, where the line itself has none."""

    text: str
    at: Time | None = None
    facility: Annotated[int, Meta(description="of the record; only 0, the kernel itself, is believed")] = 0


class XidEntry(IncidentObject):
    """An XID of which the kernel line is not at hand."""

    xid: Count
    at: Time | None = None
    gpu: GpuId = ""
    pid: str = ""
    name: Annotated[str, Meta(description="of the process")] = ""


class GpuNames(IncidentObject):
    """Which names mean the same GPU."""

    index: int | None = None
    pci: Annotated[str, Meta(description="`00000000:9b:00.0`, as kernel lines name it")] = ""
    uuid: str = ""
    serial: Annotated[str, Meta(description="by which the history knows it")] = ""


class SiblingEntry(IncidentObject):
    """A counter of another GPU, as control."""

    before: Value = None
    after: Value = None


class CounterEntry(IncidentObject):
    """One reading before and after, with one of the keys that name what it was read of."""

    name: Annotated[
        str,
        Meta(description="as NVML, DCGM, sysfs or Freehold calls it, unit last: `ecc_uncorrected_volatile`"),
    ]
    gpu: GpuId | None = None
    disk: str | None = None
    interface: str | None = None
    peer: str | None = None
    replica: str | None = None
    host: str | None = None
    component: Annotated[
        str | None, Meta(description="in full, instead of one of the keys before: `gpu:0`, `disk:/models`")
    ] = None
    before: Value = None
    after: Value = None
    siblings: Annotated[
        list[Value | SiblingEntry], Meta(description="the same on the node's other GPUs")
    ] = []
    unit: str = ""
    source: str = ""


class FindingEntry(IncidentObject):
    """A check's answer, of one of Freehold's probes or of another program."""

    probe: str
    component: str = ""
    verdict: Verdict = Verdict.UNHEALTHY
    reason: str = ""
    message: str = ""
    at: Time | None = None


class EngineEntry(IncidentObject):
    """An engine: how it ended, or its state."""

    replica: str
    engine: Annotated[str, Meta(description="`vllm`, `llama-cpp`, …")] = ""
    exit_code: Annotated[Count | None, Meta(description="negative: minus the signal; null: it runs")] = None
    signal: Annotated[Count | str | None, Meta(description="instead of `exit_code`: 9 or `SIGKILL`")] = None
    log_tail: Annotated[list[str], Meta(description="its last lines")] = []
    state: Annotated[
        str,
        Meta(description="`progressing`, `idle`, `busy`, `stalled`, `dead`, or the process's `T` or `D`"),
    ] = ""
    tokens_before: float | None = None
    tokens_after: float | None = None
    running: Annotated[float | None, Meta(description="requests under way")] = None
    at: Time | None = None


class OperatorEntry(IncidentObject):
    """What a person did. `set_healthy` makes everything before its time no evidence any more."""

    action: str
    at: Time | None = None
    component: str = ""


class ContextEntry(IncidentObject):
    """What is known around the incident."""

    lock_changed_at: Annotated[
        Time | dict[Literal["driver", "engine", "configuration"], Time] | None,
        Meta(description="of everything, or by what was changed"),
    ] = None
    drift: Annotated[list[str], Meta(description="what differs from the lock")] = []
    other_nodes: Annotated[list[str], Meta(description="other nodes that show the same")] = []
    operator: OperatorEntry | list[OperatorEntry] | None = None
    follows_workload: Annotated[
        bool | None, Meta(description="the fault moved to another GPU with the program")
    ] = None
    stays_with_gpu: Annotated[
        bool | None, Meta(description="the fault stayed with the GPU under another program")
    ] = None
    notes: Annotated[
        list[str],
        Meta(description="what else is known; searched for words such as a failed power supply"),
    ] = []


class PastEntry(IncidentObject):
    """An earlier diagnosis."""

    at: Time
    gpu: GpuId = ""
    serial: str = ""
    component: str = ""
    xid: Count | None = None
    signature: str = ""
    place: str = ""
    action: Action = Action.NONE


class IncidentFile(IncidentObject):
    """An incident on one node. At least one of kernel, xids, counters, findings, engines and views is there."""

    node: str = ""
    at: Annotated[
        Time | None, Meta(description="of the incident; kernel lines with seconds since boot end here")
    ] = None
    about: Annotated[str, Meta(description="a title; not read")] = ""
    kernel: Annotated[
        list[str | KernelEntry], Meta(description="kernel lines as dmesg or journalctl -k prints them")
    ] = []
    xids: list[XidEntry] = []
    gpus: list[GpuNames] = []
    counters: list[CounterEntry] = []
    findings: list[FindingEntry] = []
    engines: list[EngineEntry] = []
    context: ContextEntry | None = None
    history: list[PastEntry] = []
    views: Annotated[
        list[dict[str, Any]],
        Meta(description="what `freehold health record` wrote, first before, last after"),
    ] = []


EVIDENCE = ("kernel", "xids", "counters", "findings", "engines", "views", "context")
"""Keys of which a file has at least one."""


def seconds(when: float | datetime | None) -> float | None:
    """Return Unix seconds; None: there is no time."""
    if isinstance(when, datetime):
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    return when


def schema_text() -> str:
    """Return the JSON schema as it stands in docs/incident.schema.json."""
    schema = msgspec.json.schema(IncidentFile)
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Freehold incident file"}
    return msgspec.json.format(msgspec.json.encode({**dialect, **schema}), indent=2).decode() + "\n"
