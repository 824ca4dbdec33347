"""Views as the parts of an incident: kernel lines, readings before and after, engines.

The first view is before, the last one after. A reading that failed in the last view keeps its state, since that can be the sign. What
views hold beyond that (rates over time) is for probes, not for diagnosis.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from freehold.catalog.load_xids import rdma_counters
from freehold.health.evidence.quantity import MeasuredQuantity, ReadingChange
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
    changes: tuple[ReadingChange, ...] = ()
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


_PLACES = ("", "dram_", "sram_")
_GPU: Mapping[str, MeasuredQuantity] = {
    "temperature_c": MeasuredQuantity.TEMPERATURE,
    "margin_c": MeasuredQuantity.THERMAL_MARGIN,
    "throttle_bits": MeasuredQuantity.THROTTLE_BITS,
    "sw_thermal_ns": MeasuredQuantity.THERMAL_SLOWDOWN,
    "hw_thermal_ns": MeasuredQuantity.THERMAL_SLOWDOWN,
    "thermal_violation_ns": MeasuredQuantity.THERMAL_SLOWDOWN,
    "power_brake_ns": MeasuredQuantity.POWER_BRAKE,
    "ecc_mode": MeasuredQuantity.ECC_MODE,
    **{f"ecc_{place}{life}_corrected": MeasuredQuantity.ECC_CORRECTED for place in _PLACES for life in ("volatile", "aggregate")},
    **{f"ecc_{place}volatile_uncorrected": MeasuredQuantity.ECC_UNCORRECTED for place in _PLACES},
    **{f"ecc_{place}aggregate_uncorrected": MeasuredQuantity.ECC_AGGREGATE_UNCORRECTED for place in _PLACES},
    "sram_threshold_exceeded": MeasuredQuantity.SRAM_THRESHOLD,
    "row_remap_corrected": MeasuredQuantity.ROW_REMAP_CORRECTED,
    "row_remap_uncorrected": MeasuredQuantity.ROW_REMAP_UNCORRECTED,
    "retired_pages_uncorrected": MeasuredQuantity.ROW_REMAP_UNCORRECTED,
    "row_remap_pending": MeasuredQuantity.ROW_REMAP_PENDING,
    "row_remap_banks_none": MeasuredQuantity.ROW_REMAP_PENDING,
    "retired_pages_pending": MeasuredQuantity.ROW_REMAP_PENDING,
    "row_remap_failure": MeasuredQuantity.ROW_REMAP_FAILURE,
    "recovery_action": MeasuredQuantity.RECOVERY_ACTION,
    "memory_total_bytes": MeasuredQuantity.GPU_MEMORY_TOTAL,
    "power_w": MeasuredQuantity.POWER,
    "power_limit_w": MeasuredQuantity.POWER_LIMIT,
    "power_limit_default_w": MeasuredQuantity.POWER_LIMIT_DEFAULT,
    "utilisation_percent": MeasuredQuantity.UTILISATION,
    "pcie_gen": MeasuredQuantity.PCIE_GEN,
    "pcie_gen_max": MeasuredQuantity.PCIE_GEN_MAX,
    "pcie_width": MeasuredQuantity.PCIE_WIDTH,
    "pcie_width_max": MeasuredQuantity.PCIE_WIDTH_MAX,
    "pcie_replays": MeasuredQuantity.PCIE_REPLAYS,
    "pcie_non_fatal_errors": MeasuredQuantity.PCIE_ERRORS,
    "pcie_fatal_errors": MeasuredQuantity.PCIE_ERRORS,
    "nvlink_up": MeasuredQuantity.NVLINK_UP,
    "nvlink_replay_errors": MeasuredQuantity.NVLINK_REPLAYS,
    **{f"nvlink_{what}": MeasuredQuantity.NVLINK_ERRORS for what in ("down", "recovery_errors", "crc_errors", "link_recoveries", "failed_recoveries")},
}  # fmt: skip
"""Readings of a GPU by the names of `gpu_readings.table`."""
_SMART: Mapping[str, MeasuredQuantity] = {
    "critical_warning": MeasuredQuantity.DISK_WARNING,
    "media_errors": MeasuredQuantity.DISK_WEAR,
    "reallocated_sectors": MeasuredQuantity.DISK_WEAR,
    "pending_sectors": MeasuredQuantity.DISK_WEAR,
    "available_spare_pct": MeasuredQuantity.DISK_SPARE,
    "percentage_used_pct": MeasuredQuantity.DISK_ENDURANCE_USED,
}
"""Readings of a disk's SMART log by the names of `collectors.smart`."""
_HOST: Mapping[str, MeasuredQuantity] = {
    "total_bytes": MeasuredQuantity.MEMORY_TOTAL,
    "available_bytes": MeasuredQuantity.MEMORY_AVAILABLE,
    "oom_kills": MeasuredQuantity.OOM_KILLS,
    "wall_minus_monotonic_s": MeasuredQuantity.CLOCK_OFFSET,
    "synchronised": MeasuredQuantity.CLOCK_SYNCHRONISED,
    "ce_count": MeasuredQuantity.MEMORY_CORRECTED,
    "ue_count": MeasuredQuantity.MEMORY_UNCORRECTED,
}
"""Readings of memory, clock and kernel counters by the names of `collectors.host`."""
_SIGNS = frozenset({State.LOST, State.RESET_REQUIRED, State.MISMATCH, State.HUNG})
"""States of a reading that are evidence themselves; after any other the value is not known."""


def _changes(first: View, last: View, views: Sequence[View]) -> Iterator[ReadingChange]:
    yield from gpu_changes(first.gpus, last.gpus)
    before = {volume.path: volume for volume in first.volumes or ()}
    for volume in last.volumes or ():
        yield from _volume(before.get(volume.path, volume), volume, views)
    yield from _network(first.network, last.network, views)
    yield from _host(first.host or last.host, last.host)
    engines = {engine.replica: engine for engine in first.engines or ()}
    for engine in last.engines or ():
        yield from _progress(engines.get(engine.replica), engine)


def _value(reading: Reading | None) -> float | State | None:
    if reading is None:
        return None
    if reading.state in _SIGNS:
        return reading.state
    return float(reading.value) if isinstance(reading.value, int | float) else None


_Readings = Mapping[str, Reading]


def _pairs(
    component: str,
    before: _Readings,
    after: _Readings,
    quantities: Mapping[str, MeasuredQuantity],
    *,
    source: str,
) -> Iterator[ReadingChange]:
    for name, reading in after.items():
        now, old = _value(reading), _value(before.get(name))
        quantity = quantities.get(name, MeasuredQuantity.OTHER)
        if now is not None and (quantity is not MeasuredQuantity.OTHER or isinstance(now, State)):
            yield ReadingChange(
                component=component,
                name=name,
                quantity=quantity,
                before=None if isinstance(old, State) else old,
                after=now,
                source=source,
            )


def gpu_changes(first: Gpus | None, last: Gpus | None) -> Iterator[ReadingChange]:
    """Yield what the GPUs' readings were before and are after; each GPU is named by its index."""
    if last is None:
        return
    if last.state in {State.MISMATCH, State.HUNG, State.LOST}:
        yield ReadingChange(component="driver", name="nvml", after=last.state, source=last.source)
    old = {gpu.index: gpu.readings for gpu in first.gpus} if first else {}
    for gpu in last.gpus:
        yield from _pairs(f"gpu:{gpu.index}", old.get(gpu.index, {}), gpu.readings, _GPU, source=last.source)
    if first and first.gpus and len(last.gpus) < len(first.gpus):
        yield _counted(
            "gpu:",
            "gpu_count",
            MeasuredQuantity.GPU_COUNT,
            (len(first.gpus), len(last.gpus)),
            source=last.source,
        )


def _counted(
    component: str, name: str, quantity: MeasuredQuantity, counts: tuple[float | None, float], *, source: str
) -> ReadingChange:
    before, after = counts
    return ReadingChange(
        component=component,
        name=name,
        quantity=quantity,
        before=None if before is None else float(before),
        after=float(after),
        source=source,
    )


def _volume(old: Volume, new: Volume, views: Sequence[View]) -> Iterator[ReadingChange]:
    component = component_of(new)
    same = [volume for view in views for volume in view.volumes or () if volume.path == new.path]
    if (now := _middle(new.reads_s)) is not None:
        yield _counted(
            component,
            "probe_read_s",
            MeasuredQuantity.READ_TIME,
            (_middle(old.reads_s), now),
            source="own read",
        )
    timeouts, errors = sum(volume.timeouts for volume in same), sum(len(volume.errors) for volume in same)
    yield _counted(component, "timeouts", MeasuredQuantity.READ_TIMEOUTS, (0.0, timeouts), source="own read")
    yield _counted(component, "read_errors", MeasuredQuantity.IO_ERRORS, (0.0, errors), source="own read")
    named = {
        "device_ticks_s": MeasuredQuantity.DEVICE_TIME, "pressure_full_s": MeasuredQuantity.READ_PRESSURE, "throttled_s": MeasuredQuantity.THROTTLED_TIME,
        "total_bytes": MeasuredQuantity.DISK_TOTAL, "free_bytes": MeasuredQuantity.DISK_FREE, "free_inodes": MeasuredQuantity.INODES_FREE,
    }  # fmt: skip
    yield from _attributes(component, old, new, named, source="kernel")
    yield from _pairs(component, old.smart, new.smart, _SMART, source="smart")


def _attributes(
    component: str, old: object, new: object, named: Mapping[str, MeasuredQuantity], *, source: str
) -> Iterator[ReadingChange]:
    before, after = ({name: getattr(one, name) for name in named} for one in (old, new))
    return _pairs(component, before, after, named, source=source)


def _middle(values: Sequence[float]) -> float | None:
    return sorted(values)[len(values) // 2] if values else None


def _network(first: Network | None, last: Network | None, views: Sequence[View]) -> Iterator[ReadingChange]:
    if last is None:
        return
    for peer in last.peers:
        same = [p for view in views if view.network for p in view.network.peers if p.name == peer.name]
        lost = sum(p.lost_out + p.lost_back + p.lost_unknown for p in same)
        sent = sum(p.sent for p in same)
        yield _counted(f"peer:{peer.name}", "lost", MeasuredQuantity.LOST, (0.0, lost), source="mesh")
        yield _counted(f"peer:{peer.name}", "sent", MeasuredQuantity.SENT, (0.0, sent), source="mesh")
    old = first or last
    named = {
        "carrier": MeasuredQuantity.LINK_STATE, "carrier_changes": MeasuredQuantity.CARRIER_CHANGES, "speed_mbit_s": MeasuredQuantity.LINK_SPEED
    }  # fmt: skip
    links = {link.name: link for link in old.interfaces}
    for link in last.interfaces:
        yield from _attributes(f"link:{link.name}", links.get(link.name, link), link, named, source="sysfs")
    ports = {(port.device, port.port): port.counters for port in old.rdma}
    for port in last.rdma:
        before = ports.get((port.device, port.port), port.counters)
        for name in port.counters.keys() & rdma_counters().keys():
            pair = (before.get(name), port.counters[name])
            yield _counted(f"link:{port.device}", name, MeasuredQuantity.RDMA_COUNTER, pair, source="sysfs")


def _host(old: Host | None, new: Host | None) -> Iterator[ReadingChange]:
    if old is None or new is None:
        return
    yield from _pairs("memory", old.memory, new.memory, _HOST, source="/proc")
    yield from _pairs("clock", old.clock, new.clock, _HOST, source="adjtimex")
    for name in new.edac.keys() & _HOST.keys():
        yield _counted("memory", name, _HOST[name], (old.edac.get(name), new.edac[name]), source="edac")


def engine_end(engine: EngineView, at_s: float) -> EngineEnd:
    """Return what a view has of an engine's end or standstill."""
    log = (engine.exit_text,) if engine.exit_text else ()
    state = engine.process_state if engine.process_state in {"T", "D"} else ""
    return EngineEnd(replica=engine.replica, engine=engine.engine, log_tail=log, state=state, at_s=at_s)


def _progress(old: EngineView | None, new: EngineView) -> Iterator[ReadingChange]:
    named = {
        "tokens_total": MeasuredQuantity.PROGRESS,
        "running": MeasuredQuantity.RUNNING,
        "cpu_s": MeasuredQuantity.WORK,
    }
    component, source = f"engine:{new.replica}", "engine metrics"
    after = {name: getattr(new, name) for name in named}
    before = {name: getattr(old, name) for name in ("tokens_total", "cpu_s")} if old else {}
    yield from _pairs(component, before, after, named, source=source)
