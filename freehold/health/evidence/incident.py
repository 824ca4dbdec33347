"""What happened on a node, cut into incidents: everything until three minutes without an event.

An event is one thing with a time: a kernel line that means something, a finding, an engine's end, an operator's hand, a
change of versions. A change is a counter before and after, with the other GPUs as control. Events that only follow another
one are set aside and kept. Nothing here says what an incident means: see `signs` and `diagnose`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from freehold.health.evidence.quantity import ReadingChange

SILENCE_S = 180.0
"""An incident ends with this much silence, seconds. Source: NVIDIA Fleet Intelligence, "XID Bursts"; NVSentinel the same."""
BURST_S = 15.0
"""Lines of one XID within this many seconds are one occurrence. Source: NVSentinel, XIDErrorSoloNoBurst: 15 s for XID 13."""
MEMORY_FATAL = 48
"""The XID next to which 43, 94 and 95 only follow. Source: NVIDIA Xid catalogue, WORKFLOW_XID_48."""
_AFTER_MEMORY = frozenset({43, 94, 95})
"""Source: NVIDIA Xid catalogue: 94 and 95 are sympathetic to 48; 43 is the process that lost its channel."""
_PREEMPTED = 45
"""Source: NVIDIA Xid catalogue: channels of a process that ends; alone it stays, with others it follows them."""
_CARRIER = 154
"""Source: NVIDIA Xid catalogue: 154 carries the recovery action of the error before it."""
_LEADERS = frozenset({"xid", "sxid", "gpu_lost", "off_bus"})


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentEvent:
    """One thing that happened."""

    at_s: float
    """Unix seconds, or seconds of any one clock within one incident."""
    kind: str
    """`xid`, a sign's name, `operator`, `recovery`."""
    component: str = ""
    number: int | None = None
    """Of an XID, SXid or recovery action."""
    text: str = ""
    source: str = "kernel log"
    fields: Mapping[str, str] = field(default_factory=dict)

    def order(self) -> tuple[float, str, str, int, str]:
        """Return what events are sorted by: time, and for simultaneous ones anything but the order they came in."""
        return (self.at_s, self.kind, self.component, self.number or 0, self.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeIncident:
    """What belongs together on one node."""

    node: str
    start_s: float
    end_s: float
    events: tuple[IncidentEvent, ...]
    """In order of time, without those that only follow."""
    followers: tuple[IncidentEvent, ...] = ()
    """Sympathetic events: shown, never a cause."""
    changes: tuple[ReadingChange, ...] = ()


def group(
    events: Iterable[IncidentEvent],
    *,
    node: str = "",
    changes: Sequence[ReadingChange] = (),
    silence_s: float = SILENCE_S,
) -> list[NodeIncident]:
    """Return the incidents of one node, oldest first; `changes` go to each. No event at all but changes: one incident."""
    unique: dict[tuple[Any, ...], IncidentEvent] = {}
    for event in events:
        unique.setdefault((*event.order(), *sorted(event.fields.items())), event)
    ordered = [unique[key] for key in sorted(unique)]
    if not ordered:
        return (
            [NodeIncident(node=node, start_s=0.0, end_s=0.0, events=(), changes=tuple(changes))]
            if changes
            else []
        )
    cuts = [0, *(i for i, event in enumerate(ordered) if i and event.at_s - ordered[i - 1].at_s > silence_s)]
    parts = [ordered[a:b] for a, b in zip(cuts, [*cuts[1:], len(ordered)], strict=True)]
    return [_incident(part, node, tuple(changes)) for part in parts]


def _incident(events: list[IncidentEvent], node: str, changes: tuple[ReadingChange, ...]) -> NodeIncident:
    follow = _followers(events)
    return NodeIncident(
        node=node,
        start_s=events[0].at_s,
        end_s=events[-1].at_s,
        events=tuple(event for event in events if event not in follow),
        followers=tuple(follow),
        changes=changes,
    )


def _followers(events: Sequence[IncidentEvent]) -> list[IncidentEvent]:
    """Return the events that only follow another: 45 with any other fault; 43, 94 and 95 next to 48 of the same GPU.

    154 stays: it names no cause, and `signs` reads its recovery action.
    """
    leads = [e for e in events if e.kind in _LEADERS and e.number not in {_PREEMPTED, _CARRIER}]
    dead = {e.component for e in leads if e.number == MEMORY_FATAL}
    return [
        event
        for event in events
        if event.kind == "xid"
        and (
            (event.number == _PREEMPTED and leads)
            or (event.number in _AFTER_MEMORY and event.component in dead)
        )
    ]


def occurrences(events: Iterable[IncidentEvent]) -> int:
    """Return how often something happened: events closer together than `BURST_S` count once."""
    times = sorted(event.at_s for event in events)
    return sum(1 for i, at_s in enumerate(times) if i == 0 or at_s - times[i - 1] > BURST_S)
