"""What several readings say only together: heat on one GPU or on all, a GPU busy without power, a slow disk and who is to blame.

Three witnesses name the cause of slow reads: our own read, the pressure that the kernel counts, and the device's own times.
A witness that was not heard is neither for nor against. Numbers stand here with their source; weights in the catalog.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from freehold.catalog.load_evidence import Evidence
from freehold.health.evidence.counters import number, plain
from freehold.health.evidence.incident import Change
from freehold.health.evidence.scoring import Seen, see

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
_SLOW_S, _VERY_SLOW_S, _TIMES_SLOWER = 0.02, 0.2, 10.0
"""Slow reads, seconds and against the baseline. Source: our own choice for NVMe; 0.2 to 0.7 ms measured when healthy."""
_TICKS_SHARE = 0.25
"""The device is to blame for slow reads if its own time is at least this share. Source: measured: 79 of 80 ms, 0 of 197 when throttled."""
_FULL = 0.01
"""Share of a disk that is free when it is full. Source: our own choice."""
_LOST_LEAST = 3.0
"""Lost probes in a minute that chance does not explain. Source: Poisson, false alarm 1e-4 at a loss of 1e-4."""
_LOSS_SHARE = 0.005
"""Loss that is always too much. Source: our own choice; normal is below 1e-4."""
_RETRANSMITTED = 0.02
"""Share of TCP segments sent again that is too much. Source: our own choice."""
_GAP_S = 1.0
"""A step of the clock that is a jump, seconds. Source: our own choice; NTP slews up to 0.128 s."""
_MEMORY_SHORT = 0.03
"""Share of memory left that is short. Source: our own choice."""
_REASONS = r"(event|throttle)_reasons(_(active|mask|bitmask|raw))?$|throttle_bits|clocks?_(event|throttle)(s|_mask)?$"
_BRAKE = r"power_brake|hw_brake"
_SLOWED = r"hw_slowdown(_active)?$"
_LIMIT = r"^(?!.*(def|max|min)).*(power.*limit|limit.*power)"
_DEFAULT_LIMIT = r"(power|mgmt).*(default.*limit|limit.*def)"
_WIDTH = r"^(?!max).*width(?!_max)$"
_GEN = r"^(?!.*max).*pcie.*gen(_(gpu)?current|eration)?$"
_LOADED = 50.0
"""Utilisation above which a link must run at full speed, per cent. Source: our own choice."""
_UTIL = r"^util(?!.*mem)"
_POWER = r"^power(_w|_usage\w*|_draw\w*|$)"
_OVER_IDLE = 2.0
"""A GPU that takes less than this times its idle power does nothing. Source: measured on an H100: 77 W idle, 124 W with a hung
kernel, 696 W under load."""
_CLEAN = re.compile(r"remap|replay|(ecc|dram|sram).*(err|unc|corr|dbe|sbe|total)")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Values:
    """All readings by component and plain name: before and after, as numbers."""

    table: Evidence
    by: dict[str, dict[str, tuple[float | None, float]]]
    raw: dict[tuple[str, str], Change]

    def find(self, component: str, words: str) -> tuple[str, float | None, float] | None:
        """Return the first reading of a component whose name matches."""
        for name, (before, after) in self.by[component].items():
            if re.search(words, name):
                return name, before, after
        return None

    def after(self, component: str, words: str) -> float | None:
        """Return its value after; None: not there."""
        found = self.find(component, words)
        return found[2] if found else None

    def rises(self, component: str, words: str) -> bool | None:
        """Return whether it rose; None: not there."""
        found = self.find(component, words)
        return found[2] > (found[1] or 0.0) if found else None

    def seen(self, sign: str, component: str, *, words: str, value: str = "") -> Seen:
        """Return a sign with the reading that decided it as its value."""
        found = self.find(component, words)
        if found is None:
            return see(self.table, sign, component=component, value=value, source="readings")
        change = self.raw[component, found[0]]
        before = "" if change.before is None else f"before {change.before}"
        shown = value or f"{change.name} {change.after}"
        return see(self.table, sign, component=component, value=shown, source=change.source, baseline=before)


def with_siblings(changes: Sequence[Change]) -> list[Change]:
    """Return the changes, each of a GPU with those of the node's other GPUs as control where none is given."""
    by_name: dict[str, list[Change]] = defaultdict(list)
    for change in changes:
        if change.component.startswith("gpu:"):
            by_name[plain(change.name)].append(change)
    return [
        change
        if change.siblings or not change.component.startswith("gpu:")
        else replace(change, siblings=_others(change, by_name[plain(change.name)]))
        for change in changes
    ]


def _others(
    change: Change, all_of_name: list[Change]
) -> tuple[tuple[float | str | None, float | str | None], ...]:
    return tuple((o.before, o.after) for o in all_of_name if o.component != change.component)


def together_signs(table: Evidence, changes: Sequence[Change], alone: Sequence[Seen] = ()) -> list[Seen]:
    """Return what the changes say together; `alone` is what they said one by one."""
    values = _values(table, changes)
    found = list(_heat(values, changes))
    for component in values.by:
        if component.startswith("gpu:"):
            found.extend(_gpu(values, component))
        elif component.startswith(("disk", "volume", "storage")):
            found.extend(_disk(values, component))
        elif component.startswith("engine"):
            found.extend(_engine(values, component))
        else:
            found.extend(_host_or_network(values, component))
    found.extend(_clean(values, [*alone, *found]))
    return found


def _values(table: Evidence, changes: Sequence[Change]) -> _Values:
    by: dict[str, dict[str, tuple[float | None, float]]] = defaultdict(dict)
    raw: dict[tuple[str, str], Change] = {}
    for change in changes:
        after = number(change.after)
        if after is not None:
            by[change.component][plain(change.name)] = (number(change.before), after)
            raw[change.component, plain(change.name)] = change
    return _Values(table=table, by=dict(by), raw=raw)


def _heat(values: _Values, changes: Sequence[Change]) -> Iterator[Seen]:
    hot = [
        change
        for change in changes
        if change.component.startswith("gpu:") and _is_hot(change, change.before, change.after)
    ]
    for change in hot:
        others = [_is_hot(change, before, after) for before, after in change.siblings]
        sign = (
            "thermal_all"
            if others and all(others)
            else "thermal_one"
            if others and not any(others)
            else "thermal_alone"
        )
        yield values.seen(sign, change.component, words=f"^{plain(change.name)}$")


def _is_hot(change: Change, before: float | str | None, after: float | str | None) -> bool:
    name, now, then = plain(change.name), number(after), number(before)
    if now is None:
        return False
    if re.search(_REASONS, name):
        return bool(int(now) & _HOT_BITS)
    if re.search(r"thermal.*(slow|viol|throttl|time|ns|us)|(slow|throttl).*therm", name):
        return now > (then or 0.0)
    if re.search(r"margin|temp_limit|tlimit$", name):
        return now < _SLOWDOWN_C
    if re.search(r"^temp(erature)?(_gpu|_core|_current)?(_c|_celsius)?$", name):
        others = sorted(filter(None, (number(sibling[1]) for sibling in change.siblings)))
        return bool(others) and now >= _HOT_C and now - others[len(others) // 2] >= _HOTTER_C
    return False


def _gpu(values: _Values, component: str) -> Iterator[Seen]:
    yield from _slowed(values, component)
    yield from _busy_without_power(values, component)
    yield from _link(values, component)
    limit, default = _power(values, component)[1], values.after(component, _DEFAULT_LIMIT)
    if limit and default and limit < _watts(default):
        yield values.seen("power_capped", component, words=_LIMIT)


def _slowed(values: _Values, component: str) -> Iterator[Seen]:
    bits = int(max(values.after(component, _REASONS) or 0.0, 0.0))
    if bits & _BRAKE_BIT:
        yield values.seen("power_brake", component, words=_REASONS)
    elif values.rises(component, _BRAKE):
        yield values.seen("power_brake", component, words=_BRAKE)
    elif bits & _SLOWDOWN_BIT and not bits & _HOT_BITS:
        yield values.seen("hw_slowdown", component, words=_REASONS)
    elif values.rises(component, _SLOWED) and not values.rises(component, r"thermal_slow"):
        yield values.seen("hw_slowdown", component, words=_SLOWED)


def _busy_without_power(values: _Values, component: str) -> Iterator[Seen]:
    util = _percent(values, component)
    power, limit = _power(values, component)
    if util is None or util < _BUSY or power is None:
        return
    if limit and power < _POWERLESS * limit:
        value = f"utilisation {util:g} %, {power:g} of {limit:g} W"
        yield values.seen("hung_kernel", component, words=_POWER, value=value)
    elif not limit and _no_more_than_idle(values, component):
        value = f"utilisation {util:g} %, {power:g} W, hardly more than idle"
        yield values.seen("hung_kernel", component, words=_POWER, value=value)


def _link(values: _Values, component: str) -> Iterator[Seen]:
    width, full = values.after(component, _WIDTH), values.after(component, r"width_max|max_.*width")
    if width and full and width < full:
        yield values.seen("pcie_width", component, words=_WIDTH)
    util, found = _percent(values, component), values.find(component, _GEN)
    best = values.after(component, r"gen_max|max_.*gen") or (found[1] if found else None)
    if util and util > _LOADED and found and best and found[2] < best:
        yield values.seen("pcie_gen", component, words=_GEN)


def _power(values: _Values, component: str) -> tuple[float | None, float | None]:
    power = values.after(component, _POWER)
    limit = values.after(component, _LIMIT)
    return (None if power is None else _watts(power)), (None if limit is None else _watts(limit))


def _percent(values: _Values, component: str) -> float | None:
    found = values.find(component, _UTIL)
    return None if found is None else found[2] * 100 if "ratio" in found[0] else found[2]


def _no_more_than_idle(values: _Values, component: str) -> bool:
    """Return whether a busy GPU draws hardly more than before, when it was idle."""
    util, power = values.find(component, _UTIL), values.find(component, _POWER)
    if util is None or power is None or util[1] is None or power[1] is None:
        return False
    return util[1] <= _IDLE and power[2] < _OVER_IDLE * power[1]


def _watts(value: float) -> float:
    """Return watts: NVML counts milliwatts, and no GPU draws 5,000 W."""
    return value / 1000 if value > 5000 else value


def _disk(values: _Values, component: str) -> Iterator[Seen]:
    latency = r"latency|^(own_)?(probe|read)s?(_|$)(?!.*(error|timeout|bytes|ops|total))|p99|p50"
    device = r"tick|device|await"
    throttled = r"throttl"
    found = values.find(component, rf"^(?!.*({device}|{throttled}|pressure|psi)).*({latency})")
    slow = _slow(*found) if found else None
    if values.rises(component, throttled):
        yield values.seen("storage_throttled", component, words=throttled)
    elif slow and found:
        yield values.seen(
            _witnesses(values, component, _seconds(found[0], found[2])), component, words=f"^{found[0]}$"
        )
    elif slow is None and (ticks := values.find(component, device)) and _slow(*ticks):
        yield values.seen("storage_slow_device", component, words=device)
    total, free = (
        values.after(component, r"total_bytes|size_bytes"),
        values.after(component, r"free_bytes|avail"),
    )
    used = values.after(component, r"used_(pct|percent)|use_percent")
    inodes = values.after(component, r"free_inodes")
    if (
        (free == 0 or inodes == 0)
        or (total and free is not None and free < _FULL * total)
        or (used or 0.0) >= 99
    ):
        yield values.seen(
            "disk_full", component, words=r"free_bytes|avail|used_(pct|percent)|use_percent|free_inodes"
        )


def _slow(name: str, before: float | None, after: float) -> bool:
    now, then = _seconds(name, after), _seconds(name, before) if before is not None else None
    return now >= _VERY_SLOW_S or (now >= _SLOW_S and (then is None or now >= _TIMES_SLOWER * then))


def _seconds(name: str, value: float) -> float:
    scale = (
        1e-3
        if re.search(r"_ms|msec|milli|await", name)
        else 1e-6
        if re.search(r"_us|usec|micro", name)
        else 1.0
    )
    return value * scale


def _witnesses(values: _Values, component: str, read_s: float) -> str:
    pressure = values.rises(component, r"pressure|psi|io_full")
    ticks = values.find(component, r"tick|device|await")
    device_slow = None if ticks is None else _seconds(ticks[0], ticks[2]) >= _TICKS_SHARE * read_s
    if device_slow:
        return "storage_slow_device"
    if device_slow is False:
        return "storage_user_space" if pressure is False else "storage_throttled"
    return "storage_user_space" if pressure is False else "storage_slow"


def _engine(values: _Values, component: str) -> Iterator[Seen]:
    progress = values.find(component, r"token|iteration|decode|progress")
    running = values.after(component, r"running|under_way|active_requests|requests_processing")
    if progress and running and progress[1] is not None and progress[2] <= progress[1]:
        busy = values.rises(component, r"prompt|prefill|cpu_s")
        if not busy:
            yield values.seen("engine_frozen", component, words=r"token|iteration|decode|progress")


def _host_or_network(values: _Values, component: str) -> Iterator[Seen]:
    yield from _loss(values, component)
    sent, again = values.find(component, r"tcp_sent|out_segs"), values.find(component, r"retrans")
    if sent and again and again[2] - (again[1] or 0) > _RETRANSMITTED * max(1.0, sent[2] - (sent[1] or 0)):
        yield values.seen("retransmits", component, words=r"retrans")
    clock = values.find(component, r"wall_minus_monotonic")
    if clock and clock[1] is not None and abs(clock[2] - clock[1]) > _GAP_S:
        yield values.seen("clock_wrong", component, words=r"wall_minus_monotonic")
    if values.after(component, r"synchroni[sz]ed$") == 0:
        yield values.seen("clock_wrong", component, words=r"synchroni[sz]ed$")
    total, left = (
        values.after(component, r"^(mem\w*_)?total_bytes"),
        values.after(component, r"available_bytes"),
    )
    if total and left is not None and left < _MEMORY_SHORT * total:
        yield values.seen("memory_short", component, words=r"available_bytes")


def _loss(values: _Values, component: str) -> Iterator[Seen]:
    loss = r"loss|lost"
    found = values.find(component, loss)
    if found is None:
        return
    name, before, after = found
    rise = after - (before or 0.0)
    sent = values.find(component, r"^(sent|probes)")
    probes = sent[2] - (sent[1] or 0.0) if sent else None
    if re.search(r"pct|percent|ratio|share|loss(?!.*(count|total|packets|probes))|rate", name):
        share = after / 100 if re.search(r"pct|percent", name) or after > 1 else after
    else:
        share = rise / probes if probes else (1.0 if rise >= _LOST_LEAST else 0.0)
        share = share if rise >= _LOST_LEAST else 0.0
    if share >= 0.99 and (probes or re.search(r"pct|percent|ratio|share", name)):
        yield values.seen("peer_unreachable", component, words=loss)
    elif share >= _LOSS_SHARE:
        yield values.seen("packet_loss", component, words=loss)


def _clean(values: _Values, found: Sequence[Seen]) -> Iterator[Seen]:
    """Yield, for GPUs whose error counters were read and gave no sign, that they are clean."""
    troubled = {item.component for item in found if item.sign.tier in {"memory", "bus"}}
    for component, readings in values.by.items():
        counters = [name for name in readings if _CLEAN.search(name) and "mode" not in name]
        moved = [name for name in counters if readings[name][1] > (readings[name][0] or 0.0)]
        if component.startswith("gpu:") and counters and not moved and component not in troubled:
            yield values.seen(
                "counters_clean",
                component,
                words=f"^{counters[0]}$",
                value=f"{len(counters)} counters did not move",
            )
