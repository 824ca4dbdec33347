"""What facts on GPU and fabric faults are: XIDs, NVLink words, SXids, throttle bits, recovery actions, RDMA counters, PCIe replays.

One type per kind of fact. Nothing here reads files (see `load_xids`) or judges a node (see the probes).
"""

from dataclasses import dataclass
from enum import StrEnum

from freehold.core.findings import Action, Verdict


class XidClass(StrEnum):
    """Where a fault lies, before any other evidence is weighed."""

    APP = "app"
    """The program on the GPU, until the same device has it again."""
    UNIT = "unit"
    """A copy, video or optical-flow unit: the program first, the hardware if the same GPU has it again."""
    AMBIGUOUS = "ambiguous"
    """Sources point to opposite sides."""
    DRIVER = "driver"
    FIRMWARE = "firmware"
    MEMORY = "memory"
    """The GPU's own memory, DRAM or SRAM."""
    BUS = "bus"
    """PCIe: card, slot, riser or power."""
    LINK = "link"
    """NVLink or C2C."""
    POWER = "power"
    HARDWARE = "hardware"
    CONFIGURATION = "configuration"
    DISPLAY = "display"
    INFORMATION = "information"
    SYMPATHETIC = "sympathetic"
    """Comes with another fault and is never its cause."""
    VERDICT = "verdict"
    """Carries the driver's own recovery action."""
    UNKNOWN = "unknown"
    """Not in any catalogue, or a legacy number: kept, never acted on alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Xid:
    """One XID number: what each source says of it, and what Freehold makes of that."""

    number: int
    mnemonic: str
    """NVIDIA's name; empty where it has none that is used."""
    nvidia: str
    """NVIDIA's bucket, `immediate > investigatory`; empty: none given."""
    causes: str
    """Letters of the older cause matrix: H hardware, D driver, A application, M system memory, B bus, T thermal, F framebuffer."""
    gpud: str
    peers: str
    """k, m, I, Z: who calls it an application's (k, m) and who hardware (I, Z); see the file's head."""
    kind: XidClass
    action: Action
    """The first step."""
    repeated: Action
    """The step when the same device has it again within a day."""
    sign: str = ""
    """What diagnosis takes it for, a name of evidence.yaml; empty: it says nothing of a cause."""
    disagreement: str = ""
    """How sources contradict each other; empty: they do not."""
    note: str = ""

    @property
    def disputed(self) -> bool:
        """Return whether sources contradict each other on it."""
        return bool(self.disagreement)


@dataclass(frozen=True, slots=True, kw_only=True)
class XidClassRule:
    """What an XID of one class is on its own."""

    kind: XidClass
    reason: str
    """Of the finding that it gives."""
    verdict: Verdict | None
    """None: by the action of its row."""
    says: str
    """For the finding's message; empty: the row's note says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sxid:
    """One SXid number of an NVSwitch."""

    number: int
    name: str
    fatal: bool | None
    """What the catalogue says; the word in the line itself decides first. None: it depends."""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThrottleBit:
    """One reason for reduced clocks."""

    bit: int
    name: str
    hardware: bool
    """The hardware itself slowed down, as against software that obeys a limit."""
    normal: bool
    """Expected on a healthy busy or idle card."""
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryAction:
    """One of the driver's own recovery verdicts."""

    code: int
    name: str
    action: Action
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RdmaCounter:
    """How much of an RDMA counter is too much; a limit of 0 means any increase."""

    name: str
    fatal_per_s: float | None
    warn_per_s: float | None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PcieReplay:
    """How many replays a minute the PCIe specification's error rate allows."""

    generation: int
    per_lane_per_minute: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NvlinkBits:
    """Bits of one register of an XID 74 line, and what they lead to."""

    register: int
    bits: frozenset[int]
    times_per_day: int
    """How often the same link must show them."""
    leads_to: str
    """`hardware`, `signal_integrity` or `support`."""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nvlink5Rule:
    """What one unit's error in an XID 144 to 150 line means: a row of NVIDIA's decode sheet."""

    number: int
    """The XID."""
    subcode: str
    """The unit in words, before driver R575 `/` since."""
    v1: int
    """IntrInfo[9:0] before driver R575."""
    v2: int
    """IntrInfo[6:0] since."""
    down: frozenset[int]
    """IntrInfo[25:20]: why a link went down; 0 elsewhere."""
    promoted: bool | None
    """IntrInfo[10] or, since R575, IntrInfo[7]; None: not looked at."""
    status: frozenset[int] | None
    """The error status; None: any."""
    immediate: str
    """`RESET_GPU`, `IGNORE`, or `XID_154_EVAL`: what XID 154 asks for, and without one restart the program."""
    investigatory: str
    severity: str
    """`fatal`, `link fatal` or `non-fatal`."""
    blames: frozenset[str]
    """Of `HW`, `SW`, `FW`; empty: not applicable."""

    @property
    def is_fatal(self) -> bool:
        """Return whether the GPU or the link is lost until a reset."""
        return self.severity != "non-fatal"
