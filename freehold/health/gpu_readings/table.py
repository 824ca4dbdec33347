"""The name of every reading a GPU may have, with the NVML call and the DCGM exporter's fields behind it: one table, table.yaml.

Nothing here calls anything: `nvml` and `dcgm` do. What is asked, not what it means: limits are the checks'.
"""

from collections.abc import Mapping

import msgspec

from freehold.core.own_files import read_own

FIELD = "nvmlDeviceGetFieldValues"
"""Asked once per sweep for all fields together."""
LINK_STATE = "nvmlDeviceGetNvLinkState"
"""Asked per link until the card says that it has no more."""
PER_LINK = -1
"""A scope that stands for every link in turn; our own mark, no NVML value."""


class NvmlQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way to ask NVML: a call, or a field."""

    call: str = FIELD
    """The function of nvidia-ml-py."""
    args: tuple[int, ...] = ()
    """What follows the device's handle."""
    struct: str = ""
    """The ctypes structure that the caller must bring, filled by the call."""
    field: int | None = None
    """Of `FIELD`, with `each_link` asked over all links."""
    each_link: bool = False

    @property
    def arguments(self) -> tuple[int, ...]:
        """Return what follows the device's handle: of a field its number, and the scope that stands for every link."""
        if self.field is None:
            return self.args
        return (self.field, PER_LINK) if self.each_link else (self.field,)


class GpuReading(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One reading: where it comes from and how its raw value becomes the named one."""

    name: str
    asks: tuple[NvmlQuery, ...] = ()
    """Newest way first; the next is tried where one is missing or unsupported. Empty: NVML does not have it."""
    pick: int | str | None = None
    """Item of a list or field of a structure; `len` counts a list, None takes the value itself."""
    scale: float = 1.0
    """NVML's unit times this is ours; 1 keeps whole numbers whole."""
    dcgm: tuple[str, ...] = ()
    """The DCGM exporter's names for it, newest first; several that add up are joined by `+`."""
    dcgm_scale: float = 1.0
    constant: bool = False
    """It does not change while the driver is loaded; asked on the first sweep and now and then."""


READINGS = read_own(__package__, "table.yaml", tuple[GpuReading, ...])
"""All of them."""
BY_NAME: Mapping[str, GpuReading] = {reading.name: reading for reading in READINGS}
IDENTITY = ("name", "uuid", "serial", "pci")
"""Those that name the card: they stand in `Gpu`'s own fields, not among its readings."""

DRIVER_CALLS: Mapping[str, str] = {
    "driver_version": "nvmlSystemGetDriverVersion",
    "nvml_version": "nvmlSystemGetNVMLVersion",
    "cuda_version": "nvmlSystemGetCudaDriverVersion",
}
"""Readings of the driver as a whole; 13000 is CUDA 13.0."""
