"""The plain form of an incident file as types, from which docs/incident.schema.json is made.

The reader takes more than this (aliases, maps for lists, numbers as text: docs/health-diagnosis.md); this is what to write. Nothing is
read with these types: `incident_file` reads, so that every mistake is told and not only the first.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from freehold.core.findings import Action, Verdict

Time = Annotated[float | str, Meta(description="Unix seconds, or ISO 8601 (without a zone: UTC)")]
Value = Annotated[
    float | str | bool | None,
    Meta(description="a number, a text with a unit, or a state such as `lost`; null: not known"),
]


class Line(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A kernel line with its time, where the line itself has none."""

    text: str
    at: Time | None = None
    facility: Annotated[int, Meta(description="of the record; only 0, the kernel itself, is believed")] = 0


class Gpu(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Which names mean the same GPU."""

    index: int | None = None
    pci: Annotated[str, Meta(description="`00000000:9b:00.0`, as kernel lines name it")] = ""
    uuid: str = ""
    serial: Annotated[str, Meta(description="by which the history knows it")] = ""


class Pair(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A counter of another GPU, as control."""

    before: Value = None
    after: Value = None


class Counter(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One reading before and after. Name where it belongs with one of the first keys."""

    name: Annotated[
        str,
        Meta(description="as NVML, DCGM, sysfs or Freehold calls it, unit last: `ecc_uncorrected_volatile`"),
    ]
    gpu: int | str | None = None
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
    siblings: Annotated[list[Value | Pair], Meta(description="the same on the node's other GPUs")] = []
    unit: str = ""
    source: str = ""


class FindingEntry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A probe's answer."""

    probe: str
    component: str = ""
    verdict: Verdict = Verdict.UNHEALTHY
    reason: str = ""
    message: str = ""
    at: Time | None = None


class EngineEntry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An engine: how it ended, or how it stands."""

    replica: str
    engine: Annotated[str, Meta(description="`vllm`, `llama-cpp`, …")] = ""
    exit_code: Annotated[int | None, Meta(description="negative: minus the signal; null: it runs")] = None
    signal: int | str | None = None
    log_tail: Annotated[list[str], Meta(description="its last lines")] = []
    state: Annotated[str, Meta(description="`progressing`, `idle`, `busy`, `stalled`, `dead`")] = ""
    tokens_before: float | None = None
    tokens_after: float | None = None
    running: Annotated[float | None, Meta(description="requests under way")] = None
    at: Time | None = None


class Operator(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a person did. `set_healthy` makes everything before its time no evidence any more."""

    action: str
    at: Time | None = None
    component: str = ""


class ContextEntry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is known around it. Other keys are allowed: their texts are searched for words such as a failed power supply."""

    lock_changed_at: Annotated[
        Time | dict[str, Time] | None,
        Meta(description="of everything, or of `driver`, `engine`, `configuration`"),
    ] = None
    drift: Annotated[list[str], Meta(description="what differs from the lock")] = []
    other_nodes: Annotated[
        list[str] | dict[str, Any], Meta(description="other nodes that show the same")
    ] = []
    operator: str | Operator | list[Operator] | None = None
    follows_workload: Annotated[
        bool | None, Meta(description="the fault moved to another GPU with the program")
    ] = None
    stays_with_gpu: Annotated[
        bool | None, Meta(description="the fault stayed with the GPU under another program")
    ] = None


class PastEntry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Something that was diagnosed before."""

    at: Time
    gpu: str = ""
    serial: str = ""
    component: str = ""
    xid: int | None = None
    signature: str = ""
    place: str = ""
    action: Action = Action.NONE


class IncidentFile(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An incident on one node. At least one of kernel, counters, findings, engines and views is there."""

    node: str = ""
    at: Annotated[
        Time | None, Meta(description="of the incident; kernel lines with seconds since boot end here")
    ] = None
    kernel: Annotated[
        list[str | Line], Meta(description="kernel lines as dmesg or journalctl -k prints them")
    ] = []
    gpus: list[Gpu] = []
    counters: list[Counter] = []
    findings: list[FindingEntry] = []
    engines: list[EngineEntry] = []
    context: ContextEntry | None = None
    history: list[PastEntry] = []
    views: Annotated[
        list[dict[str, Any]],
        Meta(description="what `freehold health record` wrote, first before, last after"),
    ] = []


def schema_text() -> str:
    """Return the JSON schema as it stands in docs/incident.schema.json."""
    schema = msgspec.json.schema(IncidentFile)
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Freehold incident file"}
    return msgspec.json.format(msgspec.json.encode({**dialect, **schema}), indent=2).decode() + "\n"
