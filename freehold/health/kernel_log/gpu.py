"""What the NVIDIA driver's and the NVSwitch driver's lines tell: XID, SXid, recovery action, off the bus, mismatch.

Every pattern is anchored at the line's start, so that a text that somebody else put into a line (a USB product name, a
process name) is never taken for the driver's. Formats: the driver's open source (nv.c, osinit.c), NVIDIA's Xid
catalogue, lines in NVSentinel's and gpud's tests. What an XID means is not for here (see the catalog).
"""

import re
from collections.abc import Iterator

from freehold.catalog.load_xids import sxids
from freehold.health.kernel_log.kinds import Kind, Seen, pci_key

_ADDRESS = r"(?:PCI:)?([0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}(?:\.[0-7])?)"
_XID = re.compile(rf"NVRM: Xid \({_ADDRESS}([^)]{{0,80}})\)[^:]{{0,40}}: (\d{{1,4}})(?!\d)(.*)", re.DOTALL)
_SXID = re.compile(rf"nvidia-nvswitch(\d+): SXid \({_ADDRESS}\): (\d{{1,6}})(?!\d), (.*)", re.DOTALL)
_SXID_SEVERITY = re.compile(r"(Fatal|Non-fatal), ?(.*)", re.DOTALL)
_OFF_BUS = re.compile(
    rf"NVRM: (?:The NVIDIA GPU {_ADDRESS}.{{0,200}}?fallen off the bus|GPU(?: at)? {_ADDRESS}: GPU has fallen off the bus)",
    re.DOTALL,
)
_BREAK = re.compile(r"[ \t]*(?:\n|#012)[ \t]*(?:NVRM:)?[ \t]*")
"""Where a record's lines meet: as the kernel keeps them, and as syslog escapes a newline."""
_MISMATCH = re.compile(
    r"NVRM: API mismatch: the client(?: '([^']{0,40})')?(?: \(pid (\d{1,10})\))?"
    r"(?: has the version (\d[\d.]*\d),(?: but(?: this kernel module has the version (\d[\d.]*\d))?)?|$)"
)
"""One sentence however it is broken: osapi.c of the open driver breaks it after `but`; a newer one names the client and its pid and
breaks before each `has the version` (both forms in the reports of tests/corpus/incidents/field_reports.yaml)."""
_UUID = re.compile(rf"NVRM: GPU at {_ADDRESS}: (GPU-[0-9a-fA-F-]{{8,40}})")
_LOADING = re.compile(r"NVRM: loading NVIDIA UNIX .*?Module\b.*?\s(\d+\.\d+(?:\.\d+)?)\s")
_INIT_FAILED = re.compile(rf"NVRM: (?:GPU {_ADDRESS}: )?(?:RmInitAdapter|rm_init_adapter) failed(.*)")
_PROBE_FAILED = re.compile(
    r"nvidia(?: ([0-9a-f:.]+))?: probe (?:of ([0-9a-f:.]+)|with driver nvidia) failed with error (-?\d+)"
)

_RECOVERY = re.compile(
    r", (?:pid=[^,]*, )?(?:name=[^,]*, )?GPU recovery action changed from 0x([0-9a-fA-F]+) \((.*?)\) to 0x([0-9a-fA-F]+) \((.*?)\)"
)
_GPU_INSTANCE = re.compile(r"GPU-I:(\d+)")
_PID = re.compile(r"\bpid='?([^',]{1,40})'?(?:, name=([^,]{1,64}))?")
_PLACE = re.compile(r"\(GPC (\d+), TPC (\d+)(?:, SM (\d+))?\)")
_FAULT = re.compile(
    r"MMU Fault: ENGINE (\S+) .*?faulted @ (\S+?)\.? .*?type (FAULT_\w+)(?: ACCESS_TYPE_(\w+))?"
)
_CAUSED = re.compile(r"caused by previous Xid (\d+)")
_NVLINK = re.compile(r"link (\d+)\(((?:0x[0-9a-fA-F]{1,8}, ){6}0x[0-9a-fA-F]{1,8})\)")
_NVLINK5 = re.compile(
    r", ([A-Z][A-Z0-9_/]{2,60}(?: Degraded)?)\s+(Nonfatal|Fatal)\s+XC ?(\d)\s+i ?(\d)\s+Link (-?\d+) [(\[]((?:0x[0-9a-fA-F]+ ?)+)[)\]]"
)
_NVLINK5_XIDS = range(144, 151)  # NVIDIA's Xid catalogue: NVLink 5 units SAW to MSE
_XID_RECOVERY = 154
"""GPU_RECOVERY_ACTION_CHANGED of NVIDIA's Xid catalogue."""
_UNKNOWN = "<unknown>"


def xid(text: str) -> Seen | None:
    """Read an XID; 154 becomes the driver's recovery action, also when that is back to none."""
    match = _XID.match(text)
    if not match:
        return None
    address, instance, number_text, rest = match.groups()
    number = int(number_text)
    if number == _XID_RECOVERY and (recovery := _RECOVERY.match(rest)):
        return _recovery(pci_key(address), recovery)
    fields = dict(_xid_fields(number, rest))
    if part := _GPU_INSTANCE.search(instance):
        fields["gpu_instance"] = part[1]
    return Seen(Kind.XID, pci_key(address), number, fields)


def _recovery(device: str, match: re.Match[str]) -> Seen:
    before, before_words, after, after_words = match.groups()
    fields = {
        "from": str(int(before, 16)),
        "from_words": before_words,
        "to": str(int(after, 16)),
        "to_words": after_words,
    }
    return Seen(Kind.RECOVERY_ACTION, device, int(after, 16), fields)


def _xid_fields(number: int, rest: str) -> Iterator[tuple[str, str]]:
    yield from _process(rest)
    if place := _PLACE.search(rest):
        yield from _named(("gpc", "tpc", "sm"), place)
    if fault := _FAULT.search(rest):
        yield from _named(("engine", "address", "fault_type", "access"), fault)
    if caused := _CAUSED.search(rest):
        yield "caused_by", caused[1]
    if nvlink := _NVLINK.search(rest):
        yield "link", nvlink[1]
        yield from ((f"reg{index}", word) for index, word in enumerate(nvlink[2].split(", ")))
    if number in _NVLINK5_XIDS and (nvlink5 := _NVLINK5.search(rest)):
        yield from _named(("unit", "severity", "cross_containment", "injected", "link"), nvlink5)
        yield from ((f"word{index}", word) for index, word in enumerate(nvlink5[6].split()))


def _process(rest: str) -> Iterator[tuple[str, str]]:
    match = _PID.search(rest)
    if match:
        yield from ((key, value) for key, value in _named(("pid", "name"), match) if value != _UNKNOWN)


def _named(names: tuple[str, ...], match: re.Match[str]) -> Iterator[tuple[str, str]]:
    return ((name, value) for name, value in zip(names, match.groups(), strict=False) if value is not None)


def sxid(text: str) -> Seen | None:
    """Read an SXid; without the word Fatal or Non-fatal, one that the catalog knows by its number.

    The lines `Severity …` and `Data …` that follow one only add registers: they are no event.
    """
    match = _SXID.match(text)
    if not match or match[4].startswith(("Severity ", "Data ")):
        return None
    number, severity = int(match[3]), _SXID_SEVERITY.match(match[4])
    known = sxids().get(number)
    if severity is None and known is None:
        return None
    word = severity[1].lower() if severity else "non-fatal" if known and known.fatal is False else "fatal"
    what = (severity[2] if severity else match[4]).strip()
    fields = {"switch": match[1], "severity": word, "what": what}
    if link := re.match(r"Link (\d+)", what):
        fields["link"] = link[1]
    return Seen(Kind.SXID, pci_key(match[2]), number, fields)


def off_bus(text: str) -> Seen | None:
    """Read that a GPU fell off the bus, told without an XID, in one line or in a folded record of three."""
    match = _OFF_BUS.match(text)
    return Seen(Kind.OFF_BUS, pci_key(match[1] or match[2])) if match else None


def api_mismatch(text: str) -> Seen | None:
    """Read that a program's library and the kernel module have different versions; what an unfolded line lacks is absent."""
    match = _MISMATCH.match(_BREAK.sub(" ", text))
    if match is None:
        return None
    return Seen(Kind.API_MISMATCH, "", None, dict(_named(("name", "pid", "client", "module"), match)))


def gpu_uuid(text: str) -> Seen | None:
    """Read which UUID stands at which address."""
    match = _UUID.match(text)
    return Seen(Kind.GPU_UUID, pci_key(match[1]), None, {"uuid": match[2]}) if match else None


def driver_loaded(text: str) -> Seen | None:
    """Read that the kernel module was loaded, and its version."""
    match = _LOADING.match(text)
    return Seen(Kind.DRIVER_LOADED, "", None, {"version": match[1]}) if match else None


def init_failed(text: str) -> Seen | None:
    """Read that the driver could not start a GPU."""
    if match := _INIT_FAILED.match(text):
        return Seen(Kind.GPU_INIT_FAILED, pci_key(match[1] or ""), None, {"code": match[2].strip(" !")})
    if match := _PROBE_FAILED.match(text):
        return Seen(Kind.GPU_INIT_FAILED, pci_key(match[1] or match[2] or ""), None, {"code": match[3]})
    return None
