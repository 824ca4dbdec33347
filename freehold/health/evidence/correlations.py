"""What several readings mean only together: heat on one GPU or on all, a GPU busy without power, a slow disk and what slows it.

Three witnesses name the cause of slow reads: our own read, the pressure that the kernel counts, and the device's own times.
A witness without a reading is neither for nor against. Numbers stand here with their source; weights in the catalog.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from freehold.catalog.load_evidence import EvidenceTable
from freehold.health.evidence.quantity import MeasuredQuantity, Number, ReadingChange
from freehold.health.evidence.scoring import SeenSign, see

_HOT_BITS = 0x20 | 0x40  # nvmlClocksEventReasonSwThermalSlowdown, nvmlClocksThrottleReasonHwThermalSlowdown
_BRAKE_BIT = 0x80  # nvmlClocksThrottleReasonHwPowerBrakeSlowdown
_SLOWDOWN_BIT = 0x08  # nvmlClocksThrottleReasonHwSlowdown
_SLOWDOWN_C = -2.0
"""Thermal margin below which the hardware slows down, degrees. Source: NVSentinel ADR-042: H100, L40S, GB200."""
_HOTTER_C, _HOT_C = 15.0, 85.0
"""So much hotter than the other GPUs' median, and so hot, is hot. Source: our own choice; H100 slows down at 89."""
_BUSY, _IDLE = 95.0, 5.0
"""Utilisation, per cent. Source: our own choice; measured on an H100: 99 to 100 under load and with a hung kernel, 0 idle."""
_POWERLESS = 0.2
"""Share of the power limit below which a busy GPU does nothing. Source: measured on an H100: a hung kernel draws 124 W of 700."""
_OVER_IDLE = 2.0
"""A GPU that takes less than this times its idle power does nothing. Source: measured on an H100: 77 W idle, 124 W with a hung
kernel, 696 W under load."""
_LOADED = 50.0
"""Utilisation above which a link must run at full speed, per cent. Source: our own choice."""
_SLOW_S, _VERY_SLOW_S, _TIMES_SLOWER = 0.02, 0.2, 10.0
"""Slow reads, seconds and against the baseline. Source: our own choice for NVMe; 0.2 to 0.7 ms measured when healthy."""
_TICKS_SHARE = 0.25
"""The device is to blame for slow reads if its own time is at least this share. Source: measured: 79 of 80 ms, 0 of 197 when throttled."""
_FULL, _FULL_PERCENT = 0.01, 99.0
"""Share of a disk that is free, and per cent that is used, when it is full. Source: our own choice."""
_LOST_LEAST = 3.0
"""Lost datagrams in a minute that chance does not explain. Source: Poisson, false alarm 1e-4 at a loss of 1e-4."""
_LOSS_SHARE, _ALL_LOST = 0.005, 0.99
"""Loss that is always too much, and loss of everything. Source: our own choice; normal is below 1e-4."""
_RETRANSMITTED = 0.02
"""Share of TCP segments sent again that is too much. Source: our own choice."""
_GAP_S = 1.0
"""A step of the clock that is a jump, seconds. Source: our own choice; NTP slews up to 0.128 s."""
_MEMORY_SHORT = 0.03
"""Share of memory left that is short. Source: our own choice."""
ERROR_COUNTERS = frozenset(
    {
        MeasuredQuantity.ROW_REMAP_FAILURE,
        MeasuredQuantity.ROW_REMAP_PENDING,
        MeasuredQuantity.ROW_REMAP_UNCORRECTED,
        MeasuredQuantity.ROW_REMAP_CORRECTED,
        MeasuredQuantity.ECC_CORRECTED,
        MeasuredQuantity.ECC_UNCORRECTED,
        MeasuredQuantity.ECC_AGGREGATE_UNCORRECTED,
        MeasuredQuantity.PCIE_REPLAYS,
        MeasuredQuantity.NVLINK_REPLAYS,
    }
)
"""Counters of a GPU that speak for it where they were read and did not move. Source: our own choice: what a fault of the card moves."""
_GPU_TIERS = frozenset({"memory", "bus"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Readings:
    """The readings of one component."""

    table: EvidenceTable
    component: str
    by: dict[MeasuredQuantity, ReadingChange]
    """Of several of one quantity the first."""

    def change(self, quantity: MeasuredQuantity) -> ReadingChange | None:
        """Return a reading with a value; None: there is none."""
        return self.by.get(quantity)

    def after(self, quantity: MeasuredQuantity) -> Number:
        """Return its value after; None: there is none."""
        change = self.by.get(quantity)
        return change.number if change else None

    def rises(self, quantity: MeasuredQuantity) -> bool | None:
        """Return whether it rose; None: there is none."""
        change = self.by.get(quantity)
        return change.rises if change else None

    def seen(self, sign: str, *quantities: MeasuredQuantity, value: str = "") -> SeenSign:
        """Return a sign with the reading that decided it as its value: the first of these that there is."""
        change = next(self.by[quantity] for quantity in quantities if quantity in self.by)
        return _seen(self.table, sign, change, value)


def _seen(table: EvidenceTable, sign: str, change: ReadingChange, value: str = "") -> SeenSign:
    return see(
        table, sign, component=change.component, value=value or change.shown, source=change.source, baseline=change.baseline
    )  # fmt: skip


def with_siblings(changes: Sequence[ReadingChange]) -> list[ReadingChange]:
    """Return the changes, each of a GPU with those of the node's other GPUs as control where none is given."""
    same: dict[tuple[MeasuredQuantity, str], list[ReadingChange]] = defaultdict(list)
    for change in changes:
        if change.component.startswith("gpu:"):
            same[_kind(change)].append(change)
    return [
        change
        if change.siblings or not change.component.startswith("gpu:")
        else replace(change, siblings=_others(change, same[_kind(change)]))
        for change in changes
    ]


def _kind(change: ReadingChange) -> tuple[MeasuredQuantity, str]:
    return change.quantity, change.name


def _others(change: ReadingChange, same: list[ReadingChange]) -> tuple[tuple[Number, Number], ...]:
    return tuple((one.before, one.number) for one in same if one.component != change.component)


def together_signs(
    table: EvidenceTable, changes: Sequence[ReadingChange], alone: Sequence[SeenSign] = ()
) -> list[SeenSign]:
    """Return what the changes mean together; `alone` is what they meant one by one."""
    found = list(_heat(table, changes))
    every = _by_component(table, changes)
    for readings in every:
        kind = readings.component.partition(":")[0]
        found.extend(_OF_KIND.get(kind, _host_or_network)(readings))
    troubled = {item.component for item in (*alone, *found) if item.sign.tier in _GPU_TIERS}
    for component in dict.fromkeys(change.component for change in changes):
        if component.startswith("gpu:") and component not in troubled:
            found.extend(_clean(table, [change for change in changes if change.component == component]))
    return found


def _by_component(table: EvidenceTable, changes: Sequence[ReadingChange]) -> list[_Readings]:
    by: dict[str, dict[MeasuredQuantity, ReadingChange]] = defaultdict(dict)
    for change in changes:
        if change.number is not None:
            by[change.component].setdefault(change.quantity, change)
    return [_Readings(table=table, component=component, by=found) for component, found in by.items()]


def _heat(table: EvidenceTable, changes: Sequence[ReadingChange]) -> Iterator[SeenSign]:
    for change in changes:
        if not change.component.startswith("gpu:") or not _is_hot(change, change.before, change.number):
            continue
        others = [_is_hot(change, before, after) for before, after in change.siblings]
        one = "thermal_one" if others and not any(others) else "thermal_alone"
        yield _seen(table, "thermal_all" if others and all(others) else one, change)


def _is_hot(change: ReadingChange, before: Number, after: Number) -> bool:
    if after is None:
        return False
    if change.quantity is MeasuredQuantity.THROTTLE_BITS:
        return bool(int(after) & _HOT_BITS)
    if change.quantity is MeasuredQuantity.THERMAL_SLOWDOWN:
        return after > (before or 0.0)
    if change.quantity is MeasuredQuantity.THERMAL_MARGIN:
        return after < _SLOWDOWN_C
    if change.quantity is MeasuredQuantity.TEMPERATURE:
        others = sorted(sibling for _, sibling in change.siblings if sibling)
        return bool(others) and after >= _HOT_C and after - others[len(others) // 2] >= _HOTTER_C
    return False


def _gpu(gpu: _Readings) -> Iterator[SeenSign]:
    yield from _slowed(gpu)
    yield from _busy_without_power(gpu)
    yield from _link(gpu)
    limit, default = gpu.after(MeasuredQuantity.POWER_LIMIT), gpu.after(MeasuredQuantity.POWER_LIMIT_DEFAULT)
    if limit and default and limit < default:
        yield gpu.seen("power_capped", MeasuredQuantity.POWER_LIMIT)


def _slowed(gpu: _Readings) -> Iterator[SeenSign]:
    bits = int(max(gpu.after(MeasuredQuantity.THROTTLE_BITS) or 0.0, 0.0))
    if bits & _BRAKE_BIT:
        yield gpu.seen("power_brake", MeasuredQuantity.THROTTLE_BITS)
    elif gpu.rises(MeasuredQuantity.POWER_BRAKE):
        yield gpu.seen("power_brake", MeasuredQuantity.POWER_BRAKE)
    elif bits & _SLOWDOWN_BIT and not bits & _HOT_BITS:
        yield gpu.seen("hw_slowdown", MeasuredQuantity.THROTTLE_BITS)
    elif gpu.rises(MeasuredQuantity.HW_SLOWDOWN) and not gpu.rises(MeasuredQuantity.THERMAL_SLOWDOWN):
        yield gpu.seen("hw_slowdown", MeasuredQuantity.HW_SLOWDOWN)


def _busy_without_power(gpu: _Readings) -> Iterator[SeenSign]:
    busy, power = gpu.after(MeasuredQuantity.UTILISATION), gpu.after(MeasuredQuantity.POWER)
    limit = gpu.after(MeasuredQuantity.POWER_LIMIT)
    if busy is None or busy < _BUSY or power is None:
        return
    if limit and power < _POWERLESS * limit:
        value = f"utilisation {busy:g} %, {power:g} of {limit:g} W"
        yield gpu.seen("hung_kernel", MeasuredQuantity.POWER, value=value)
    elif not limit and _no_more_than_idle(gpu):
        value = f"utilisation {busy:g} %, {power:g} W, hardly more than idle"
        yield gpu.seen("hung_kernel", MeasuredQuantity.POWER, value=value)


def _no_more_than_idle(gpu: _Readings) -> bool:
    """Return whether a busy GPU draws hardly more than before, when it was idle."""
    busy, power = gpu.change(MeasuredQuantity.UTILISATION), gpu.change(MeasuredQuantity.POWER)
    if busy is None or power is None or busy.before is None or power.before is None:
        return False
    return busy.before <= _IDLE and (power.number or 0.0) < _OVER_IDLE * power.before


def _link(gpu: _Readings) -> Iterator[SeenSign]:
    width, full = gpu.after(MeasuredQuantity.PCIE_WIDTH), gpu.after(MeasuredQuantity.PCIE_WIDTH_MAX)
    if width and full and width < full:
        yield gpu.seen("pcie_width", MeasuredQuantity.PCIE_WIDTH)
    gen = gpu.change(MeasuredQuantity.PCIE_GEN)
    best = gpu.after(MeasuredQuantity.PCIE_GEN_MAX) or (gen.before if gen else None)
    if (
        (gpu.after(MeasuredQuantity.UTILISATION) or 0.0) > _LOADED
        and gen
        and best
        and (gen.number or 0.0) < best
    ):
        yield gpu.seen("pcie_gen", MeasuredQuantity.PCIE_GEN)


def _disk(disk: _Readings) -> Iterator[SeenSign]:
    read, device = disk.change(MeasuredQuantity.READ_TIME), disk.change(MeasuredQuantity.DEVICE_TIME)
    if disk.rises(MeasuredQuantity.THROTTLED_TIME):
        yield disk.seen("storage_throttled", MeasuredQuantity.THROTTLED_TIME)
    elif read and _is_slow(read):
        yield disk.seen(_witnesses(disk, read.number or 0.0), MeasuredQuantity.READ_TIME)
    elif read is None and device and _is_slow(device):
        yield disk.seen("storage_slow_device", MeasuredQuantity.DEVICE_TIME)
    total, free = disk.after(MeasuredQuantity.DISK_TOTAL), disk.after(MeasuredQuantity.DISK_FREE)
    none_left = free == 0 or disk.after(MeasuredQuantity.INODES_FREE) == 0
    almost = total and free is not None and free < _FULL * total
    if none_left or almost or (disk.after(MeasuredQuantity.DISK_USED) or 0.0) >= _FULL_PERCENT:
        yield disk.seen(
            "disk_full", MeasuredQuantity.DISK_FREE, MeasuredQuantity.DISK_USED, MeasuredQuantity.INODES_FREE
        )


def _is_slow(read: ReadingChange) -> bool:
    now_s, before_s = read.number or 0.0, read.before
    slower = before_s is None or now_s >= _TIMES_SLOWER * before_s
    return now_s >= _VERY_SLOW_S or (now_s >= _SLOW_S and slower)


def _witnesses(disk: _Readings, read_s: float) -> str:
    waits = disk.rises(MeasuredQuantity.READ_PRESSURE)
    device_s = disk.after(MeasuredQuantity.DEVICE_TIME)
    if device_s is not None and device_s >= _TICKS_SHARE * read_s:
        return "storage_slow_device"
    if waits is False:
        return "storage_user_space"
    return "storage_slow" if device_s is None else "storage_throttled"


def _engine(engine: _Readings) -> Iterator[SeenSign]:
    progress = engine.change(MeasuredQuantity.PROGRESS)
    stands = progress and progress.before is not None and not progress.rises
    if stands and engine.after(MeasuredQuantity.RUNNING) and not engine.rises(MeasuredQuantity.WORK):
        yield engine.seen("engine_frozen", MeasuredQuantity.PROGRESS)


def _host_or_network(part: _Readings) -> Iterator[SeenSign]:
    yield from _loss(part)
    sent, again = part.change(MeasuredQuantity.TCP_SENT), part.change(MeasuredQuantity.TCP_RETRANSMITTED)
    if sent and again and again.rise > _RETRANSMITTED * max(1.0, sent.rise):
        yield part.seen("retransmits", MeasuredQuantity.TCP_RETRANSMITTED)
    clock = part.change(MeasuredQuantity.CLOCK_OFFSET)
    if clock and clock.before is not None and abs(clock.rise) > _GAP_S:
        yield part.seen("clock_wrong", MeasuredQuantity.CLOCK_OFFSET)
    if part.after(MeasuredQuantity.CLOCK_SYNCHRONISED) == 0:
        yield part.seen("clock_wrong", MeasuredQuantity.CLOCK_SYNCHRONISED)
    total, left = part.after(MeasuredQuantity.MEMORY_TOTAL), part.after(MeasuredQuantity.MEMORY_AVAILABLE)
    if total and left is not None and left < _MEMORY_SHORT * total:
        yield part.seen("memory_short", MeasuredQuantity.MEMORY_AVAILABLE)


def _loss(part: _Readings) -> Iterator[SeenSign]:
    lost, sent = part.change(MeasuredQuantity.LOST), part.change(MeasuredQuantity.SENT)
    share = part.after(MeasuredQuantity.LOSS_SHARE) or 0.0
    known = share > 0 or (sent is not None and sent.rises)
    if lost and lost.rise >= _LOST_LEAST:
        share = max(share, lost.rise / sent.rise if sent and sent.rises else 1.0)
    if share >= _ALL_LOST and known:
        yield part.seen("peer_unreachable", MeasuredQuantity.LOSS_SHARE, MeasuredQuantity.LOST)
    elif share >= _LOSS_SHARE:
        yield part.seen("packet_loss", MeasuredQuantity.LOSS_SHARE, MeasuredQuantity.LOST)


_OF_KIND = {"gpu": _gpu, "disk": _disk, "volume": _disk, "storage": _disk, "engine": _engine}


def _clean(table: EvidenceTable, changes: Sequence[ReadingChange]) -> Iterator[SeenSign]:
    """Yield, for a GPU whose error counters were read and gave no sign, that they are clean."""
    counters = [one for one in changes if one.quantity in ERROR_COUNTERS and one.number is not None]
    if counters and not any(one.rises for one in counters):
        yield _seen(table, "counters_clean", counters[0], f"{len(counters)} counters did not move")
