"""What a reading measures, as far as diagnosis knows it; and a reading before and after an incident.

Readings of a live node are typed where they are read from a view (`view_changes`), those of an incident file where its text is parsed
(`incident_file.counters`), so nothing here looks at names. What a change then means stands in `counters` and `correlations`.
"""

from dataclasses import dataclass
from enum import StrEnum, auto

from freehold.health.model.view import State

Number = float | None
"""In the unit of the quantity; None: not known."""


class MeasuredQuantity(StrEnum):
    """What is measured; units are seconds, bytes, watts, degrees Celsius and per cent."""

    OTHER = auto()
    """Nothing that a rule knows."""
    # Of a GPU.
    TEMPERATURE = auto()
    THERMAL_MARGIN = auto()
    THERMAL_SLOWDOWN = auto()
    """A count, a time or a flag that rises while heat slows it down."""
    THROTTLE_BITS = auto()
    POWER_BRAKE = auto()
    HW_SLOWDOWN = auto()
    ECC_MODE = auto()
    ECC_CORRECTED = auto()
    ECC_UNCORRECTED = auto()
    """Since the driver was loaded."""
    ECC_AGGREGATE_UNCORRECTED = auto()
    """Ever."""
    SRAM_THRESHOLD = auto()
    ROW_REMAP_CORRECTED = auto()
    ROW_REMAP_UNCORRECTED = auto()
    ROW_REMAP_PENDING = auto()
    ROW_REMAP_FAILURE = auto()
    RECOVERY_ACTION = auto()
    LAST_XID = auto()
    GPU_MEMORY_TOTAL = auto()
    POWER = auto()
    POWER_LIMIT = auto()
    POWER_LIMIT_DEFAULT = auto()
    UTILISATION = auto()
    PCIE_GEN = auto()
    PCIE_GEN_MAX = auto()
    PCIE_WIDTH = auto()
    PCIE_WIDTH_MAX = auto()
    PCIE_REPLAYS = auto()
    PCIE_ERRORS = auto()
    """Uncorrected ones."""
    NVLINK_UP = auto()
    NVLINK_REPLAYS = auto()
    NVLINK_ERRORS = auto()
    FABRIC_REGISTERED = auto()
    GPU_COUNT = auto()
    # Of a disk or volume.
    READ_TIME = auto()
    DEVICE_TIME = auto()
    """Of one read, as the device counts it."""
    READ_PRESSURE = auto()
    THROTTLED_TIME = auto()
    READ_TIMEOUTS = auto()
    IO_ERRORS = auto()
    DISK_TOTAL = auto()
    DISK_FREE = auto()
    DISK_USED = auto()
    INODES_FREE = auto()
    DISK_WEAR = auto()
    """Sectors and blocks that wore out."""
    DISK_WARNING = auto()
    DISK_SPARE = auto()
    DISK_ENDURANCE_USED = auto()
    # Of an engine.
    PROGRESS = auto()
    """Whatever moves while it works: tokens, iterations."""
    WORK = auto()
    """CPU time, prompt tokens: it works although no token comes."""
    RUNNING = auto()
    # Of a network.
    LOSS_SHARE = auto()
    """0 to 1."""
    LOST = auto()
    SENT = auto()
    TCP_SENT = auto()
    TCP_RETRANSMITTED = auto()
    RDMA_COUNTER = auto()
    """One of catalog/data/health/rdma_counters.yaml, by the change's name."""
    LINK_ERRORS = auto()
    LINK_DOWNS = auto()
    LINK_STATE = auto()
    LINK_SPEED = auto()
    CARRIER_CHANGES = auto()
    # Of the host.
    CLOCK_OFFSET = auto()
    CLOCK_SYNCHRONISED = auto()
    MEMORY_TOTAL = auto()
    MEMORY_AVAILABLE = auto()
    MEMORY_CORRECTED = auto()
    MEMORY_UNCORRECTED = auto()
    OOM_KILLS = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingChange:
    """One reading before and after an incident."""

    component: str
    name: str
    """As the source calls it, for people: `ecc_volatile_uncorrected`, `DCGM_FI_DEV_ROW_REMAP_FAILURE`."""
    quantity: MeasuredQuantity = MeasuredQuantity.OTHER
    before: Number = None
    after: Number | State = None
    """A state where the reading itself failed in a way that is a sign."""
    siblings: tuple[tuple[Number, Number], ...] = ()
    """The same reading of the node's other GPUs, before and after."""
    source: str = "readings"
    written: tuple[str, str] = ("", "")
    """Before and after as the source writes them, where that is another unit."""

    @property
    def number(self) -> Number:
        """Return the value after; None: it is not known, or a state."""
        return None if isinstance(self.after, State) else self.after

    @property
    def rise(self) -> float:
        """Return how much it rose; without a value before, from zero."""
        return (self.number or 0.0) - (self.before or 0.0)

    @property
    def rises(self) -> bool:
        """Return whether it is higher than before; without a value before, than zero."""
        return self.rise > 0

    @property
    def shown(self) -> str:
        """Return name and value for people."""
        return f"{self.name} {self.written[1] or _text(self.after)}"

    @property
    def baseline(self) -> str:
        """Return the value before for people; empty: not known."""
        before = self.written[0] or ("" if self.before is None else _text(self.before))
        return f"before {before}" if before else ""


def _text(value: Number | State) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return f"{value:g}" if isinstance(value, float) else str(value)
