"""What kernel lines tell of the NVIDIA driver being kept from its GPUs, or from starting at all.

Formats: the driver's open source (nv.c, nv-pci.c, nvswitch), kernel/module. Every pattern is anchored at the line's start. A module
whose signature is missing only taints the kernel: that is no event. Nothing here judges.
"""

import re

from freehold.health.kernel_log.kinds import Kind, Seen, pci_key

_ADDRESS = r"((?:PCI:)?[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}(?:\.[0-7])?)"
_REFUSED = (
    re.compile(rf"NVRM: GPU {_ADDRESS} is already bound to"),
    re.compile(r"NVRM: The NVIDIA probe routine was not called for"),
    re.compile(r"NVRM: This PCI I/O region assigned to your NVIDIA device is invalid"),
    re.compile(
        rf"NVRM: The NVIDIA GPU {_ADDRESS}.{{0,120}}?installed in this system\s+(?:NVRM:\s+)?(?:requires|is not supported)",
        re.DOTALL,
    ),
    re.compile(r"Loading of (?:unsigned module|module with unavailable key) is rejected"),
    re.compile(r"nvidia[\w-]*: .*(?:Key was rejected|Required key not available)"),
)
"""Another driver, the firmware of the board, Secure Boot or the wrong flavour of the driver stands in the way."""
_MISFIT = re.compile(
    r"nvidia[\w-]*: (?:version magic '|disagrees about version of symbol|Unknown symbol |exports duplicate symbol )"
)
_FABRIC = re.compile(r"nvidia-nvswitch\d*: Version mismatch,")
_RESET = re.compile(r"NVRM: .{0,80}Reset required \[NV_ERR_RESET_REQUIRED\]")


def refused(text: str) -> Seen | None:
    """Read that something keeps the driver from a GPU, with its address where the line names it."""
    for pattern in _REFUSED:
        if match := pattern.match(text):
            return Seen(Kind.DRIVER_REFUSED, pci_key(match[1]) if match.lastindex else "")
    return None


def misfit(text: str) -> Seen | None:
    """Read that the module was built for another kernel, or the fabric manager for another driver; that a GPU waits for its reset."""
    if _MISFIT.match(text):
        return Seen(Kind.DRIVER_MISFIT)
    if _FABRIC.match(text):
        return Seen(Kind.FABRIC_MISFIT)
    return Seen(Kind.RESET_REQUIRED) if _RESET.match(text) else None
