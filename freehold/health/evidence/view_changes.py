"""A recording of views as the parts of an incident: kernel lines, readings before and after, engines.

The first view is before, the last one after. A reading that failed in the last view keeps its state, since that can be the sign. What
views hold beyond that (rates over time) is for probes, not for diagnosis.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from freehold.health.evidence.incident import Change, Number
from freehold.health.evidence.surroundings import EngineEnd
from freehold.health.judge.storage import component_of
from freehold.health.model.view import (
    EngineView,
    Gpus,
    Host,
    KernelLine,
    Network,
    Reading,
    State,
    View,
    Volume,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FromViews:
    """What a list of views holds."""

    node: str = ""
    at_s: float = 0.0
    lines: tuple[KernelLine, ...] = ()
    changes: tuple[Change, ...] = ()
    engines: tuple[EngineEnd, ...] = ()


def from_views(views: Sequence[View]) -> FromViews:
    """Return what views of one node hold, oldest first."""
    if not views:
        return FromViews()
    first, last = views[0], views[-1]
    return FromViews(
        node=last.node,
        at_s=last.at_s,
        lines=tuple(line for view in views if view.kernel for line in view.kernel.lines),
        changes=tuple(_changes(first, last, views)),
        engines=tuple(engine_end(engine, last.at_s) for engine in last.engines or ()),
    )


def _changes(first: View, last: View, views: Sequence[View]) -> Iterator[Change]:
    yield from gpu_changes(first.gpus, last.gpus)
    before = {volume.path: volume for volume in first.volumes or ()}
    for volume in last.volumes or ():
        yield from _volume(before.get(volume.path), volume, views)
    yield from _network(first.network, last.network, views)
    yield from _host(first.host, last.host)
    engines = {engine.replica: engine for engine in first.engines or ()}
    for engine in last.engines or ():
        yield from _progress(engines.get(engine.replica), engine)


def _value(reading: Reading | None) -> Number:
    if reading is None or reading.state in {
        State.UNSUPPORTED,
        State.UNKNOWN,
        State.TRANSIENT,
        State.DENIED,
        State.ABSENT,
    }:
        return None
    return reading.value if reading.state is State.OK else str(reading.state)


def _pairs(
    component: str, before: dict[str, Reading], after: dict[str, Reading], source: str
) -> Iterator[Change]:
    for name, reading in after.items():
        if (value := _value(reading)) is not None:
            old = _value(before.get(name))
            yield Change(component=component, name=name, before=old, after=value, source=source)


def gpu_changes(first: Gpus | None, last: Gpus | None) -> Iterator[Change]:
    """Yield what the GPUs' readings were before and are after; each GPU is named by its index."""
    if last is None:
        return
    if last.state in {State.MISMATCH, State.HUNG, State.LOST}:
        yield Change(component="driver", name="nvml", before=None, after=str(last.state), source=last.source)
    old = {gpu.index: gpu for gpu in first.gpus} if first else {}
    for gpu in last.gpus:
        before = old[gpu.index].readings if gpu.index in old else {}
        yield from _pairs(f"gpu:{gpu.index}", before, gpu.readings, last.source)
    if first and first.gpus and len(last.gpus) < len(first.gpus):
        yield Change(
            component="gpu:",
            name="gpu_count",
            before=len(first.gpus),
            after=len(last.gpus),
            source=last.source,
        )


def _volume(before: Volume | None, after: Volume, views: Sequence[View]) -> Iterator[Change]:
    component = component_of(after)
    same = [volume for view in views for volume in view.volumes or () if volume.path == after.path]
    old = before or after
    pairs = {
        "probe_read_s": (_middle(old.reads_s), _middle(after.reads_s)),
        "timeouts": (0.0, float(sum(volume.timeouts for volume in same))),
        "read_errors": (0.0, float(sum(len(volume.errors) for volume in same))),
    }
    for name, (was, now) in pairs.items():
        if now is not None:
            yield Change(component=component, name=name, before=was, after=now, source="own read")
    named = {
        "device_ticks_s": "device_ticks_s", "pressure_full_s": "pressure_full_s", "throttled_s": "throttled_s",
        "total_bytes": "total_bytes", "free_bytes": "free_bytes", "free_inodes": "free_inodes",
    }  # fmt: skip
    yield from _pairs(
        component, {k: getattr(old, k) for k in named}, {k: getattr(after, k) for k in named}, "kernel"
    )
    yield from _pairs(component, old.smart, after.smart, "smart")


def _middle(values: Sequence[float]) -> float | None:
    return sorted(values)[len(values) // 2] if values else None


def _network(first: Network | None, last: Network | None, views: Sequence[View]) -> Iterator[Change]:
    if last is None:
        return
    for peer in last.peers:
        same = [p for view in views if view.network for p in view.network.peers if p.name == peer.name]
        lost = sum(p.lost_out + p.lost_back + p.lost_unknown for p in same)
        yield Change(component=f"peer:{peer.name}", name="lost", before=0.0, after=float(lost), source="mesh")
        yield Change(
            component=f"peer:{peer.name}",
            name="sent",
            before=0.0,
            after=float(sum(p.sent for p in same)),
            source="mesh",
        )
    old = first or last
    links = {link.name: link for link in old.interfaces}
    for link in last.interfaces:
        was = links.get(link.name, link)
        readings = ("carrier", "carrier_changes", "speed_mbit_s")
        yield from _pairs(
            f"link:{link.name}",
            {k: getattr(was, k) for k in readings},
            {k: getattr(link, k) for k in readings},
            "sysfs",
        )
    ports = {(port.device, port.port): port for port in old.rdma}
    for port in last.rdma:
        before = ports.get((port.device, port.port), port).counters
        for name, count in port.counters.items():
            yield Change(
                component=f"link:{port.device}",
                name=name,
                before=before.get(name),
                after=count,
                source="sysfs",
            )


def _host(first: Host | None, last: Host | None) -> Iterator[Change]:
    if last is None:
        return
    old = first or last
    yield from _pairs("memory", old.memory, last.memory, "/proc")
    yield from _pairs("clock", old.clock, last.clock, "adjtimex")
    for name, count in last.edac.items():
        yield Change(component="memory", name=name, before=old.edac.get(name), after=count, source="edac")


def engine_end(engine: EngineView, at_s: float) -> EngineEnd:
    """Return what a view says of an engine's end or standstill."""
    log = (engine.exit_text,) if engine.exit_text else ()
    state = engine.process_state if engine.process_state in {"T", "D"} else ""
    return EngineEnd(replica=engine.replica, engine=engine.engine, log_tail=log, state=state, at_s=at_s)


def _progress(before: EngineView | None, after: EngineView) -> Iterator[Change]:
    component = f"engine:{after.replica}"
    old = {"tokens_total": before.tokens_total, "cpu_s": before.cpu_s} if before else {}
    new = {"tokens_total": after.tokens_total, "running": after.running, "cpu_s": after.cpu_s}
    yield from _pairs(component, old, new, "engine metrics")
