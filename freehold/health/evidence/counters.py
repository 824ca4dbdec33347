"""What one reading before and after an incident is a sign of.

A value that is missing means nothing, and a count that was high before and did not move is history, not a sign. What a sign then means
for the cause stands in the catalog.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from freehold.catalog.load_evidence import EvidenceTable
from freehold.catalog.load_xids import rdma_counters, recovery_actions
from freehold.health.evidence.quantity import MeasuredQuantity, ReadingChange
from freehold.health.evidence.scoring import SeenSign, see
from freehold.health.model.view import State

_REPLAYS_MOST = 310.0
"""PCIe replays during an incident that the link's error rate allows. Source: DCGM: 31 a minute for generation 5 x16, ten minutes."""
_CORRECTED_LEAST = 100.0
"""Corrected errors below this mean nothing. Source: our own choice: a few are normal."""
_OUTLIER = 10.0
"""Times the other GPUs' most that makes an outlier. Source: our own choice on DCGM issue 313, which compares with siblings."""
_REMAPPED_MANY = 512.0
"""Uncorrectable remapped rows that want a look whatever else. Source: DCGM, AzNHC."""
_CARRIER_MOST = 2.0
"""Changes of carrier that are not flapping. Source: NVSentinel."""
_MANY = 1000.0
"""Corrected errors of memory, or damaged frames of a link, during an incident that are worth reporting. Source: our own choice, far above a sound
machine's; rasdaemon acts at 50 of one page in a day, NVSentinel at 10 damaged packets a second."""
_USED_MOST = 100.0
"""NVMe endurance used, per cent, at which the disk is past its life. Source: GCM: above 100 is critical."""
_SPARE_LEAST = 10.0
"""NVMe spare, per cent. Source: the usual threshold in the SMART log."""

STATES = {
    State.LOST: "gpu_lost",
    State.RESET_REQUIRED: "reset_required",
    State.MISMATCH: "library_mismatch",
    State.HUNG: "nvml_hung",
    State.ABSENT: "driver_missing",
}
"""States of a reading that are signs."""

_Rule = Callable[[ReadingChange], bool]


def _positive(change: ReadingChange) -> bool:
    return (change.number or 0.0) > 0


def _rises(change: ReadingChange) -> bool:
    """A count without a value before may be years old: it means nothing."""
    return change.before is not None and change.rises


def _falls(change: ReadingChange) -> bool:
    return change.before is not None and change.rise < 0


def _more_than(least: float) -> _Rule:
    return lambda change: change.before is not None and change.rise > least


def _outlier(change: ReadingChange) -> bool:
    others = [after - (before or 0.0) for before, after in change.siblings if after is not None]
    return bool(others) and change.rise >= _CORRECTED_LEAST and change.rise > _OUTLIER * max(*others, 1.0)


def _many_remapped(change: ReadingChange) -> bool:
    return (change.number or 0.0) >= _REMAPPED_MANY or _rises(change)


def _many(change: ReadingChange) -> bool:
    return change.before is not None and change.rise >= _MANY


def _worn(change: ReadingChange) -> bool:
    return change.number is not None and change.number < _SPARE_LEAST


_RULES: Mapping[MeasuredQuantity, tuple[_Rule, str]] = {
    MeasuredQuantity.ROW_REMAP_FAILURE: (_positive, "row_remap_failure"),
    MeasuredQuantity.ROW_REMAP_PENDING: (_positive, "row_remap_pending"),
    MeasuredQuantity.ROW_REMAP_UNCORRECTED: (_many_remapped, "ecc_uncorrected"),
    MeasuredQuantity.SRAM_THRESHOLD: (_positive, "sram_threshold"),
    MeasuredQuantity.ECC_MODE: (lambda change: change.number == 0 and change.before != 0, "ecc_off"),
    MeasuredQuantity.ECC_AGGREGATE_UNCORRECTED: (_rises, "ecc_uncorrected"),
    # It begins with the driver: what is there is recent even without a value before.
    MeasuredQuantity.ECC_UNCORRECTED: (lambda change: change.rises, "ecc_uncorrected"),
    MeasuredQuantity.ECC_CORRECTED: (_outlier, "ecc_corrected_outlier"),
    MeasuredQuantity.PCIE_ERRORS: (_rises, "aer_uncorrectable"),
    MeasuredQuantity.PCIE_REPLAYS: (_more_than(_REPLAYS_MOST), "pcie_replay"),
    MeasuredQuantity.PCIE_WIDTH: (_falls, "pcie_width"),
    MeasuredQuantity.NVLINK_REPLAYS: (_rises, "nvlink_counters"),
    MeasuredQuantity.NVLINK_ERRORS: (_rises, "nvlink_counters"),
    MeasuredQuantity.NVLINK_UP: (_falls, "nvlink_counters"),
    MeasuredQuantity.FABRIC_REGISTERED: (lambda change: change.number == 0, "fabric_manager"),
    MeasuredQuantity.GPU_MEMORY_TOTAL: (_falls, "memory_fatal"),
    MeasuredQuantity.GPU_COUNT: (_falls, "gpu_missing"),
    MeasuredQuantity.DISK_WEAR: (_rises, "disk_wear"),
    MeasuredQuantity.DISK_WARNING: (_positive, "disk_wear"),
    MeasuredQuantity.DISK_SPARE: (_worn, "disk_wear"),
    MeasuredQuantity.DISK_ENDURANCE_USED: (lambda change: (change.number or 0.0) >= _USED_MOST, "disk_wear"),
    MeasuredQuantity.IO_ERRORS: (_rises, "disk_error"),
    MeasuredQuantity.READ_TIMEOUTS: (_rises, "storage_hung"),
    MeasuredQuantity.LINK_DOWNS: (_rises, "link_down"),
    MeasuredQuantity.LINK_ERRORS: (_many, "link_errors"),
    MeasuredQuantity.LINK_STATE: (_falls, "link_down"),
    MeasuredQuantity.LINK_SPEED: (_falls, "link_slow"),
    MeasuredQuantity.CARRIER_CHANGES: (_more_than(_CARRIER_MOST), "link_down"),
    MeasuredQuantity.MEMORY_UNCORRECTED: (_rises, "cpu_error"),
    MeasuredQuantity.MEMORY_CORRECTED: (_many, "cpu_error_corrected"),
    MeasuredQuantity.OOM_KILLS: (_rises, "oom_kill"),
}


def change_signs(table: EvidenceTable, changes: Sequence[ReadingChange]) -> list[SeenSign]:
    """Return the signs in each change by itself. What several mean together: see `correlations`."""
    return [sign for change in changes for sign in _signs(table, change)]


def _signs(table: EvidenceTable, change: ReadingChange) -> Iterator[SeenSign]:
    if isinstance(change.after, State):
        if change.after in STATES:
            yield _seen(table, STATES[change.after], change)
    elif change.after is None:
        return
    elif change.quantity is MeasuredQuantity.RECOVERY_ACTION:
        if change.after > 0:
            yield _recovery(table, change, int(change.after))
    elif change.quantity is MeasuredQuantity.RDMA_COUNTER:
        yield from _rdma(table, change)
    elif change.quantity in _RULES:
        rule, sign = _RULES[change.quantity]
        if rule(change):
            yield _seen(table, sign, change)


def _recovery(table: EvidenceTable, change: ReadingChange, code: int) -> SeenSign:
    known = recovery_actions().get(code)
    value = change.shown if known is None else f"{code} {known.name}"
    return _seen(table, "recovery_action", change, number=code, value=value)


def _rdma(table: EvidenceTable, change: ReadingChange) -> Iterator[SeenSign]:
    """Yield what an RDMA counter means: limits are per second, so one that rose without a known time must rise by a minute's."""
    limit = rdma_counters()[change.name]
    if change.before is None:
        return
    sign = "rdma_ack_timeout" if "ack_timeout" in limit.name else "rdma_warn"
    if limit.fatal_per_s is not None and change.rise > limit.fatal_per_s * 60:
        yield _seen(table, "rdma_fatal" if sign == "rdma_warn" else sign, change)
    elif limit.warn_per_s is not None and change.rise > limit.warn_per_s * 60:
        yield _seen(table, sign, change)


def _seen(
    table: EvidenceTable, name: str, change: ReadingChange, *, number: int | None = None, value: str = ""
) -> SeenSign:
    return see(
        table, name, component=change.component, value=value or change.shown, source=change.source, baseline=change.baseline, number=number
    )  # fmt: skip
