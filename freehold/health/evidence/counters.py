"""What readings before and after an incident are signs of, with the node's other GPUs as control.

A reading is known by its name as NVML, DCGM, sysfs or a probe calls it. A value that is missing says nothing, and a count that was
high before and did not move is history, not a sign. What a sign then says of the cause stands in the catalog.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from freehold.catalog.load_evidence import Evidence
from freehold.catalog.load_xids import rdma_counters, recovery_actions
from freehold.health.evidence.incident import Change, Number
from freehold.health.evidence.scoring import Seen, see

_NONSENSE = 1e18
"""Larger values are no readings. Source: DCGM's blank values are about 9.22e18 and have leaked as counts."""
_REPLAYS_MOST = 310.0
"""PCIe replays during an incident that the link's error rate allows. Source: DCGM: 31 a minute for generation 5 x16, ten minutes."""
_CORRECTED_LEAST = 100.0
"""Corrected errors below this say nothing. Source: our own choice: a few are normal."""
_OUTLIER = 10.0
"""Times the other GPUs' most that makes an outlier. Source: our own choice on DCGM issue 313, which compares with siblings."""
_REMAPPED_MANY = 512.0
"""Uncorrectable remapped rows that want a look whatever else. Source: DCGM, AzNHC."""
_CARRIER_MOST = 2.0
"""Changes of carrier that are no flapping. Source: NVSentinel."""
_MANY = 1000.0
"""Corrected errors of memory, or damaged frames of a link, during an incident that are worth a word. Source: our own choice, far above a sound
machine's; rasdaemon acts at 50 of one page in a day, NVSentinel at 10 damaged packets a second."""
_USED_MOST = 100.0
"""NVMe endurance used, per cent, at which the disk is past its life. Source: GCM: above 100 is critical."""
_SPARE_LEAST = 10.0
"""NVMe spare, per cent. Source: the usual threshold in the SMART log."""

_STATES = {
    "lost": "gpu_lost", "gpu_is_lost": "gpu_lost", "gpuislost": "gpu_lost", "reset_required": "reset_required",
    "mismatch": "library_mismatch", "librmversionmismatch": "library_mismatch", "lib_mismatch": "library_mismatch",
    "hung": "nvml_hung", "driver_absent": "driver_missing", "drivernotloaded": "driver_missing",
}  # fmt: skip
"""States of a reading that are signs. Source: freehold/health/model/view.py, and the names of NVML's errors."""

_Rule = Callable[["_Read"], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """One change as numbers."""

    before: float | None
    after: float
    others: tuple[tuple[float | None, float], ...]

    @property
    def rise(self) -> float:
        """Return how much it rose; without a value before, from zero."""
        return self.after - (self.before or 0.0)


def number(value: Number) -> float | None:
    """Return a reading as a number: also from text with a unit, `true`, hexadecimal; None where it is none."""
    if isinstance(value, str):
        return _text_number(value)
    if value is None or abs(value) > _NONSENSE or value != value:  # noqa: PLR0124 -- not a number
        return None
    return float(value)


def _text_number(text: str) -> float | None:
    word = re.sub(r"^\d: ?(?=[a-z])", "", text.strip().lower())  # sysfs of RDMA: `4: ACTIVE`
    if word in {"true", "yes", "on", "enabled", "active", "up", "linkup"}:
        return 1.0
    if word in {"false", "no", "off", "disabled", "inactive", "none", "down", "polling", "init"}:
        return 0.0
    if re.fullmatch(r"0x[0-9a-f]{1,16}", word):
        return float(int(word, 16))
    match = re.fullmatch(r"([-+]?\d{1,18}(?:\.\d{1,9})?)\s?[a-zµ%°/]{0,8}", word.replace(",", ""))
    return float(match[1]) if match else None


def plain(name: str) -> str:
    """Return a reading's name as the rules know it: lower case, words joined by `_`, no vendor's prefix."""
    word = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    word = re.sub(r"[^a-z0-9]+", "_", word.lower()).strip("_")
    return re.sub(
        r"^(dcgm_(fi|exp)_(dev_|prof_)?|nvml_(fi_dev_|device_get_)?|nvidia_smi_)?(nvidia_)?(gpu_(?!max_))?",
        "",
        word,
    )


def _positive(read: _Read) -> bool:
    return read.after > 0


def _rises(read: _Read) -> bool:
    """A count that nobody read before may be years old: it says nothing."""
    return read.before is not None and read.rise > 0


def _there(read: _Read) -> bool:
    """For counts that begin with the driver: what is there is recent even when nobody read it before."""
    return read.rise > 0


def _falls(read: _Read) -> bool:
    return read.before is not None and read.after < read.before


def _falsy(read: _Read) -> bool:
    return read.after == 0 and read.before != 0


def _replays(read: _Read) -> bool:
    return read.before is not None and read.rise > _REPLAYS_MOST


def _outlier(read: _Read) -> bool:
    most = max((after - (before or 0.0) for before, after in read.others), default=0.0)
    return bool(read.others) and read.rise >= _CORRECTED_LEAST and read.rise > _OUTLIER * max(most, 1.0)


def _many_remapped(read: _Read) -> bool:
    return read.after >= _REMAPPED_MANY or (read.before is not None and read.after > read.before)


def _flaps(read: _Read) -> bool:
    return read.before is not None and read.rise > _CARRIER_MOST


def _many(read: _Read) -> bool:
    return read.before is not None and read.rise >= _MANY


def _used_up(read: _Read) -> bool:
    return read.after >= _USED_MOST


def _worn(read: _Read) -> bool:
    return read.after < _SPARE_LEAST


# (the name, the rule, the sign), first match wins. Source: names of nvidia-ml-py, DCGM, sysfs and our own readers; what is too much
# stands above, each number with its source. "": a name that is understood and no sign.
_RULES: tuple[tuple[str, _Rule, str], ...] = (
    (r"\bfan", _rises, ""),
    (r"reallocated|pending_sector|offline_uncorr|reported_uncorr", _rises, "disk_wear"),
    (r"link_downed|link_down_events", _rises, "link_down"),
    (r"^(?!.*nvlink).*(crc_err|symbol_err|(rx|tx|receive|transmit)_err)", _many, "link_errors"),
    (r"remap.*(fail)", _positive, "row_remap_failure"),
    (r"remap.*pend|pending.*remap|retired.*pend", _positive, "row_remap_pending"),
    (r"remap.*_none$", _positive, "row_remap_pending"),
    (r"remap.*unc|unc\w*_remap|retired.*(dbe|double|unc)", _many_remapped, "ecc_uncorrected"),
    (r"remap|retired", _positive, ""),
    (r"sra?m.*thresh|thresh.*sra?m|sram_exceed", _positive, "sram_threshold"),
    (r"ecc_(mode|enabled|current)|ecc$", _falsy, "ecc_off"),
    (r"pcie.*(_fatal|non_fatal|uncorr)", _rises, "aer_uncorrectable"),
    (r"pcie.*corr", _rises, ""),
    (r"agg.*(unc|dbe)|(unc|dbe).*agg", _rises, "ecc_uncorrected"),
    (r"(ecc|sram|dram|memory_error).*(unc|dbe|double)|(unc\w*|dbe).*(ecc|error)", _there, "ecc_uncorrected"),
    (r"(ecc|sram|dram).*(corr|sbe|single)|corrected.*(ecc|error)", _outlier, "ecc_corrected_outlier"),
    (r"nvlink.*(err|crc|replay|recover|inactive|down)", _rises, "nvlink_counters"),
    (r"nvlink.*(state|up|active)", _falls, "nvlink_counters"),
    (r"replay", _replays, "pcie_replay"),
    (r"(width|gen)_max|max_.*(width|gen)", _rises, ""),
    (r"pcie.*width|link_width", _falls, "pcie_width"),
    (r"violation|throttle.*(power_cap|sw_power)|sw_power|power_cap|power_violation", _rises, ""),
    (r"(memory|fb)_total", _falls, "memory_fatal"),
    (r"(^|_)ue(_count)?$|ue_noinfo", _rises, "cpu_error"),
    (r"(^|_)ce(_count)?$", _many, "cpu_error_corrected"),
    (r"(^|_)(count|gpus|gpu_count|present|devices)$", _falls, "gpu_missing"),
    (r"oom", _rises, "oom_kill"),
    (r"critical_warning", _positive, "disk_wear"),
    (r"media_(and_data_integrity_)?errors", _rises, "disk_wear"),
    (r"avail(able)?_spare(_pct|_percent)?$", _worn, "disk_wear"),
    (r"percent(age)?_used", _used_up, "disk_wear"),
    (r"(io|read|write|disk)_errors?$|eio", _rises, "disk_error"),
    (r"(read_|io_|probe_)?time_?outs$", _rises, "storage_hung"),
    (r"carrier_changes", _flaps, "link_down"),
    (r"(^|_)(carrier|operstate|link_up|(link|port|phys|physical)_state)$|^state$", _falls, "link_down"),
    (r"(speed|link)_(mbit|mbps|gbit|speed).*|speed$|rate$", _falls, "link_slow"),
)  # fmt: skip


def change_signs(table: Evidence, changes: Sequence[Change]) -> list[Seen]:
    """Return what each change says by itself. What several say together: see `signs_together`."""
    return [sign for change in changes for sign in _signs(table, change)]


def _signs(table: Evidence, change: Change) -> Iterator[Seen]:
    name = plain(change.name)
    if isinstance(change.after, str) and (state := _state(change.after)):
        yield _seen(table, state, change)
        return
    if isinstance(change.after, str) and "recovery_action" in name and (code := _asked(change.after)):
        yield _recovery(table, change, code)
        return
    if "fabric" in name and isinstance(change.after, str):
        yield from _fabric(table, change)
        return
    after = number(change.after)
    if after is None:
        return
    read = _Read(before=number(change.before), after=after, others=tuple(_others(change)))
    if "recovery_action" in name:
        if after > 0:
            yield _recovery(table, change, int(after))
    elif name in rdma_counters():
        yield from _rdma(table, change, read)
    else:
        yield from _by_rule(table, change, name, read)


def _asked(text: str) -> int:
    """Return the recovery action that a word of nvidia-smi means (`Reset`, `Drain and Reset`); 0: none."""
    word = re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()
    names = {
        code: re.sub(r"[^a-z0-9]+", " ", known.name.lower()) for code, known in recovery_actions().items()
    }
    return next(
        (
            code
            for code, name in names.items()
            if word in {name, f"gpu {name}", name.removeprefix("gpu "), name.removeprefix("node ")}
        ),
        0,
    )


def _fabric(table: Evidence, change: Change) -> Iterator[Seen]:
    """Yield that a GPU is not registered with the NVLink fabric: states of nvidia-smi's `fabric.state`."""
    if re.search(r"not.?started|in.?progress|fail|not.?config", str(change.after), re.IGNORECASE):
        yield _seen(table, "fabric_manager", change)


def _state(text: str) -> str | None:
    word = re.sub(
        r"[^a-z_]", "", text.lower().replace(" ", "_").replace("nvmlerror_", "").replace("err!_", "")
    )
    return _STATES.get(word) or next(
        (sign for key, sign in _STATES.items() if len(key) > 4 and key in word), None
    )


def _others(change: Change) -> Iterator[tuple[float | None, float]]:
    for before, after in change.siblings:
        value = number(after)
        if value is not None:
            yield number(before), value


def _recovery(table: Evidence, change: Change, code: int) -> Seen:
    known = recovery_actions().get(code)
    seen = _seen(table, "recovery_action", change, number_=code)
    return seen if known is None else _named(seen, f"{code} {known.name}")


def _named(seen: Seen, value: str) -> Seen:
    return Seen(
        sign=seen.sign, component=seen.component, value=value, source=seen.source, at_s=seen.at_s,
        baseline=seen.baseline, number=seen.number, place=seen.place,
    )  # fmt: skip


def _rdma(table: Evidence, change: Change, read: _Read) -> Iterator[Seen]:
    """Yield what an RDMA counter says: limits are per second, so one that rose without a known time must rise by a minute's."""
    limit = rdma_counters()[plain(change.name)]
    if read.before is None:
        return
    sign = "rdma_ack_timeout" if "ack_timeout" in limit.name else "rdma_warn"
    if limit.fatal_per_s is not None and read.rise > limit.fatal_per_s * 60:
        yield _seen(table, "rdma_fatal" if sign == "rdma_warn" else sign, change)
    elif limit.warn_per_s is not None and read.rise > limit.warn_per_s * 60:
        yield _seen(table, sign, change)


def _by_rule(table: Evidence, change: Change, name: str, read: _Read) -> Iterator[Seen]:
    for words, rule, sign in _RULES:
        if re.search(words, name):
            if sign and rule(read):
                yield _seen(table, sign, change)
            return


def _seen(table: Evidence, name: str, change: Change, *, number_: int | None = None) -> Seen:
    before = "" if change.before is None else _text(change.before)
    return see(
        table, name, component=change.component, value=f"{change.name} {_text(change.after)}",
        source=change.source, baseline=before and f"before {before}", number=number_,
    )  # fmt: skip


def _text(value: Number) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
