"""What a kernel line can report: the kinds of events, and one event. Nothing here parses (see `events`)."""

import re
from enum import StrEnum

import msgspec

from freehold.health.kernel_log.xid_judgement import XidJudgement, judge_xid


class Kind(StrEnum):
    """What a line reports. A kind says what was seen, not how bad it is: see `KernelEvent.is_trouble`."""

    XID = "xid"
    SXID = "sxid"
    RECOVERY_ACTION = "recovery_action"
    """XID 154: the driver's own verdict; `number` is the new code, 0 when it is taken back."""
    OFF_BUS = "off_bus"
    """The GPU fell off the bus, reported without an XID."""
    API_MISMATCH = "api_mismatch"
    """A program's driver library is of another version than the kernel module: it was refused."""
    GPU_INIT_FAILED = "gpu_init_failed"
    DRIVER_REFUSED = "driver_refused"
    """Another driver, the board's firmware or the kernel keeps the driver from a GPU."""
    DRIVER_MISFIT = "driver_misfit"
    """The module was built for another kernel."""
    FABRIC_MISFIT = "fabric_misfit"
    """The fabric manager was built for another driver."""
    RESET_REQUIRED = "reset_required"
    GPU_UUID = "gpu_uuid"
    """Says which UUID stands at which PCI address."""
    DRIVER_LOADED = "driver_loaded"
    AER_CORRECTED = "aer_corrected"
    AER_UNCORRECTED = "aer_uncorrected"
    AER_UNRECOVERED = "aer_unrecovered"
    """The kernel could not recover the device."""
    MEMORY_CORRECTED = "memory_corrected"
    """A corrected error of the host's memory or processor."""
    MEMORY_UNCORRECTED = "memory_uncorrected"
    HUNG_TASK = "hung_task"
    LOCKUP = "lockup"
    KERNEL_BUG = "kernel_bug"
    OOM_KILL = "oom_kill"
    DISK_ERROR = "disk_error"
    DISK_TIMEOUT = "disk_timeout"
    DISK_GONE = "disk_gone"
    FILE_SYSTEM_ERROR = "file_system_error"
    READ_ONLY = "read_only"
    """A file system made itself read-only."""
    NIC_FAILED = "nic_failed"
    """The card's own firmware or command interface is broken."""
    NIC_ERROR = "nic_error"
    """The card's firmware reports an error, not a fatal one."""
    NIC_TIMEOUT = "nic_timeout"
    """A transmit queue timed out."""
    TOO_HOT = "too_hot"
    """The machine stops for heat."""
    WARM = "warm"
    """A processor slows down for heat."""
    LINK_DOWN = "nic_link_down"
    """A network interface lost its link; `device` is its name."""
    LINK_UP = "nic_link_up"
    FILE_SERVER_SILENT = "server_silent"
    FILE_SERVER_BACK = "server_back"
    SHUTDOWN = "shutdown"
    """The node goes down on purpose."""
    CRASH = "crash"
    """A program crashed inside a GPU or tensor library."""


INFORMATIVE = frozenset(
    {
        Kind.GPU_UUID,
        Kind.DRIVER_LOADED,
        Kind.AER_CORRECTED,
        Kind.MEMORY_CORRECTED,
        Kind.WARM,
        Kind.LINK_DOWN,
        Kind.LINK_UP,
        Kind.FILE_SERVER_SILENT,
        Kind.FILE_SERVER_BACK,
        Kind.SHUTDOWN,
    }
)
"""Kinds that are not trouble on their own: corrected errors count only as a rate, links only by whether they come back."""


class KernelEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event of a kernel line."""

    kind: Kind
    device: str = ""
    """PCI address without function (`0000:9b:00`, see `pci_key`), block device or file system's device (`nvme0n1`), network
    interface where the line names one and no PCI address; empty: the line names none."""
    number: int | None = None
    """XID, SXid, or the new recovery action's code."""
    fields: dict[str, str] = {}
    """What else the line says. Of an XID: `pid`, `name` (absent when unknown), `gpc`, `tpc`, `sm`, `gpu_instance`, `fault_type`,
    `access`, `engine`, `caused_by`, `link`, `reg0` … `reg6`, `unit`, `severity`, `cross_containment`, `injected`,
    `word0` …; of a recovery action `from`, `to`, `from_words`, `to_words`; of an API mismatch `client` and `module` (versions) and,
    of newer drivers, `name` and `pid` of the program; the rest by kind."""
    at_s: float
    """Unix seconds."""
    sequence: int = 0
    """Of the kernel's record, or the line's place in a file."""
    text: str = ""
    """The line, at most `TEXT_MOST` characters of it."""

    @property
    def judgement(self) -> XidJudgement:
        """Return what the line of an XID means on its own; of other kinds it must not be asked."""
        assert self.number is not None, "an XID has a number"
        return judge_xid(self.number, self.fields)

    @property
    def is_trouble(self) -> bool:
        """Return whether it can mean that something is wrong.

        A verdict taken back, a corrected error, a switch's non-fatal note and an XID that is never a cause cannot.
        """
        if self.kind is Kind.XID and self.number is not None:
            return self.judgement.reason != "harmless_xid"
        if self.kind is Kind.RECOVERY_ACTION:
            return self.number != 0
        if self.kind is Kind.SXID:
            return self.fields.get("severity") != "non-fatal"
        return self.kind not in INFORMATIVE


TEXT_MOST = 1000
"""Characters of a line that an event keeps. Our own choice: the kernel's records have at most about 1,000."""

_PCI = re.compile(r"(?:([0-9a-fA-F]{4,8}):)?([0-9a-fA-F]{2}):([0-9a-fA-F]{2})(?:\.[0-7])?")


def pci_key(text: str) -> str:
    """Return a PCI address as events carry it: four digits of domain, lower case, no function; empty: it is not an address.

    `PCI:0000:9B:00`, `00000000:9b:00.0` and `9b:00.0` all give `0000:9b:00`.
    """
    match = _PCI.fullmatch(text.strip().removeprefix("PCI:"))
    if not match:
        return ""
    domain, bus, slot = match.groups()
    return f"{int(domain or '0', 16):04x}:{bus.lower()}:{slot.lower()}"
