"""What became of links and file servers: many events of one device made the one thing that they mean.

A link that goes down once, and a file server that is slow for a while, are everyday: sound machines' logs have both. What counts is a link that
goes down again and again, a bond's member that stays away, a server that stays silent. Nothing here reads lines or weighs.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from freehold.health.evidence.incident import IncidentEvent

FLAPS_S = 3600.0
"""Changes of one link this near together are one flapping, seconds. Source: our own choice: gpud and NVSentinel name none."""
CHANGES_MOST = 2
"""Changes of a link that are no flapping. Source: NVSentinel, more than two carrier changes; gpud: down three times."""
AT_ONCE_S = 5.0
"""Lines of a card and of a bond about one change stand this near together, seconds. Source: our own choice: bonds poll each 0.1 s."""
STOPPING_S = 120.0
"""Links that go down this near to a shutdown go with it, seconds. Source: our own choice: systemd waits 90 s for a service."""
SILENT_S = 60.0
"""A file server is gone when the kernel reports it silent again after this long, seconds. Source: our own choice: an NFS client repeats itself each minute
or so (timeo 60 s, nfs(5))."""
_RAW = frozenset({"nic_link_down", "nic_link_up", "server_silent", "server_back", "shutdown", "gpu_uuid"})
"""Kinds of kernel lines that mean nothing until it is known what became of it; no sign has their names."""


def settled(events: Sequence[IncidentEvent]) -> list[IncidentEvent]:
    """Return the events with those of links and file servers replaced by what they come to, if anything.

    Lines that only name a thing or report a shutdown are left out.
    """
    raw = sorted((event for event in events if _is_raw(event)), key=IncidentEvent.order)
    stops = [event.at_s for event in raw if event.kind == "shutdown"]
    by_device: dict[str, list[IncidentEvent]] = defaultdict(list)
    for event in raw:
        by_device[event.component].append(event)
    found = [event for event in events if not _is_raw(event)]
    for some in by_device.values():
        if some[0].kind.startswith("nic_link"):
            found.extend(_link([event for event in some if not _stopping(event, stops)]))
        elif some[0].kind.startswith("server"):
            found.extend(_server(some))
    return found


def _is_raw(event: IncidentEvent) -> bool:
    return event.kind in _RAW and event.source == "kernel log"


def _stopping(event: IncidentEvent, stops: Iterable[float]) -> bool:
    return any(abs(event.at_s - stop_s) <= STOPPING_S for stop_s in stops)


def _link(events: list[IncidentEvent]) -> Iterable[IncidentEvent]:
    changes = _changes(events)
    if not changes:
        return
    last = changes[-1]
    recent = [event for event in changes if last.at_s - event.at_s <= FLAPS_S]
    downs = [event for event in recent if event.kind == "nic_link_down"]
    if len(downs) > 1 and len(recent) > CHANGES_MOST:
        value = f"{len(downs)} times down, {len(recent)} changes"
        yield replace(downs[-1], kind="link_flaps", fields={**downs[-1].fields, "value": value})
    elif last.kind == "nic_link_down":
        bonded = any("bond" in event.fields for event in events if abs(event.at_s - last.at_s) <= AT_ONCE_S)
        yield replace(last, kind="link_lost" if bonded else "link_stays_down")


def _changes(events: Iterable[IncidentEvent]) -> list[IncidentEvent]:
    """Return the events that change the link's state; what a bond says of the same change is none."""
    changes: list[IncidentEvent] = []
    for event in events:
        if not changes or changes[-1].kind != event.kind:
            changes.append(event)
    return changes


def _server(events: list[IncidentEvent]) -> Iterable[IncidentEvent]:
    back_s = max((event.at_s for event in events if event.kind == "server_back"), default=-float("inf"))
    silent = [event for event in events if event.kind == "server_silent" and event.at_s > back_s]
    if silent:
        gone = silent[-1].at_s - silent[0].at_s >= SILENT_S
        yield replace(silent[0], kind="file_server_gone" if gone else "file_server_silent")
