"""The name of every reading a GPU may have, with the NVML call and the DCGM exporter's fields behind it: one table, table.yaml.

Nothing here calls anything: `nvml` and `dcgm` do. What is asked, not what it means: limits are the checks'.
"""

from collections.abc import Mapping
from importlib.resources import files

import msgspec

from freehold.core.places import read_tree

FIELD = "nvmlDeviceGetFieldValues"
"""Asked once per sweep for all fields together."""
LINK_STATE = "nvmlDeviceGetNvLinkState"
"""Asked per link until the card says that it has no more."""
PER_LINK = -1
"""A scope that stands for every link in turn; our own mark, no NVML value."""


class NvmlQuery(msgspec.Struct, frozen=True, kw_only=True):
    """One way to ask NVML."""

    call: str
    """The function of nvidia-ml-py; `FIELD` with args (field,) or (field, scope); `LINK_STATE` and per-link fields run over all links."""
    args: tuple[int, ...] = ()
    """What follows the device's handle."""
    struct: str = ""
    """The ctypes structure that the caller must bring, filled by the call."""


class GpuReading(msgspec.Struct, frozen=True, kw_only=True):
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


class _QueryRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way to ask as the file has it: a call, or a field."""

    call: str = FIELD
    args: tuple[int, ...] = ()
    struct: str = ""
    field: int | None = None
    each_link: bool = False

    def ask(self) -> NvmlQuery:
        """Return the call with its arguments."""
        scope = (PER_LINK,) if self.each_link else ()
        args = self.args if self.field is None else (self.field, *scope)
        return NvmlQuery(call=self.call, args=args, struct=self.struct)


class _ReadingRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One reading as the file has it."""

    name: str
    asks: tuple[_QueryRow, ...] = ()
    pick: int | str | None = None
    scale: float = 1.0
    dcgm: tuple[str, ...] = ()
    dcgm_scale: float = 1.0
    constant: bool = False

    def reading(self) -> GpuReading:
        """Return the reading."""
        plain = {name: getattr(self, name) for name in self.__struct_fields__ if name != "asks"}
        return GpuReading(asks=tuple(row.ask() for row in self.asks), **plain)


def _readings() -> tuple[GpuReading, ...]:
    """Return the table. The file is ours: one that is not as it must be raises when this is imported."""
    tree = read_tree((files(__package__) / "table.yaml").read_text("utf-8"), "table.yaml")
    assert not tree.mistakes, tree.mistakes
    return tuple(row.reading() for row in msgspec.convert(tree.data, tuple[_ReadingRow, ...]))


READINGS = _readings()
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
