"""What the file system shows of the NVIDIA driver: the version that runs, the versions on disk, and the cards on the PCI bus.

These answer when NVML does not: a pending upgrade shows first on disk, a card that fell off the bus is missing from the driver but
was on the bus, and a library of another version than the kernel module is distinguished from a broken GPU. Only cached
files of /proc and /sys are read, none that asks the device itself, so nothing here can hang on a card. It loads no
library.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from freehold.health.collectors.kernel_files import text_of
from freehold.health.model.view import Gpus, Reading, State

_VERSION = re.compile(r"(\d{3,4}\.\d{1,3}(?:\.\d{1,3})?)")
"""`580.159.04`, `535.183`. Source: NVIDIA's driver version scheme as /proc/driver/nvidia/version prints it."""
_MODULE_LINE = re.compile(r"NVRM version:.*?" + _VERSION.pattern)
_LIBRARY_FOLDERS = (
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/lib",
    "usr/local/nvidia/lib64",
    "run/nvidia/driver/usr/lib/x86_64-linux-gnu",
)
"""Where packages, the container toolkit and the GPU operator put the driver's libraries (Debian, Red Hat, Kubernetes).

Not cuda/compat: its newer libcuda is meant to differ from the module."""
_LIBRARIES = ("libnvidia-ml.so.", "libcuda.so.")
_VENDOR = "0x10de"
"""NVIDIA. Source: the PCI ID repository."""
_CLASSES = ("0x0300", "0x0302")
"""VGA compatible and 3D controllers; the last two digits are the programming interface. Source: PCI Code and ID Assignment Specification."""


def with_files(gpus: Gpus, most: int, root: Path) -> Gpus:
    """Return the GPUs with the most that ever answered, and with what the file system shows of cards and driver."""
    return msgspec.structs.replace(
        gpus,
        most=most,
        driver={**gpus.driver, **driver_versions(root)},
        pci_addresses=nvidia_pci_addresses(root),
    )


def driver_versions(root: Path = Path("/")) -> dict[str, Reading]:
    """Return `module_version` (running) and `disk_version` (the library on disk; several are joined by a comma)."""
    return {"module_version": _module_version(root), "disk_version": _disk_version(root)}


def nvidia_pci_addresses(root: Path = Path("/")) -> tuple[str, ...]:
    """Return NVIDIA's display and 3D controllers on the bus, sorted, as NVML writes them: `00000000:00:06.0`."""
    devices = root / "sys/bus/pci/devices"
    try:
        found = sorted(
            device.name
            for device in devices.iterdir()
            if text_of(device / "vendor") == _VENDOR and text_of(device / "class")[:6] in _CLASSES
        )
    except OSError:
        return ()
    return tuple(long_address(name) for name in found)


def long_address(address: str) -> str:
    """Return a PCI address with the eight-digit domain that NVML uses, in lower case; `0000:3b:00.0` is the kernel's form."""
    domain, separator, rest = address.lower().partition(":")
    return f"{domain.zfill(8)}{separator}{rest}"


def _module_version(root: Path) -> Reading:
    """Return the loaded kernel module's version, from /sys or, where the module is built in, /proc."""
    found = _VERSION.fullmatch(text_of(root / "sys/module/nvidia/version"))
    found = found or _MODULE_LINE.search(text_of(root / "proc/driver/nvidia/version"))
    if found:
        return Reading(value=found[1])
    return Reading(state=State.ABSENT, detail="no NVIDIA kernel module is loaded")


def _disk_version(root: Path) -> Reading:
    versions = sorted(set(_library_versions(root)))
    if versions:
        return Reading(value=",".join(versions))
    return Reading(state=State.ABSENT, detail="no libnvidia-ml.so or libcuda.so with a version was found")


def _library_versions(root: Path) -> Iterable[str]:
    for folder in _LIBRARY_FOLDERS:
        for library in _LIBRARIES:
            for path in (root / folder).glob(f"{library}*"):
                found = _VERSION.fullmatch(path.name.removeprefix(library))
                if found:
                    yield found[1]
