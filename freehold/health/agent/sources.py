"""From an agent's settings to the sources of its views: which readers apply on this node, how often each is read.

A part of which this node has nothing is still read, in its cheapest way: that there is no GPU is a reading, and no child
process is started to say so. It judges nothing and runs nothing.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from freehold.health.agent.messages import HealthSettings
from freehold.health.agent.runner import TICK_S, Source
from freehold.health.collectors.disks import DiskOptions, DiskReader
from freehold.health.collectors.driver_files import nvidia_pci_addresses
from freehold.health.collectors.engines import EnginesReader
from freehold.health.collectors.host import HostReader
from freehold.health.collectors.kernel_log import KernelLog
from freehold.health.collectors.network import NetworkReader
from freehold.health.collectors.nvml import NvmlReader
from freehold.health.model.snapshot import PERIOD_S
from freehold.health.model.view import Gpus, Kernel, State, Volume

KERNEL_LOOKBACK_S = 86_400.0
"""How far back the kernel's log is read at the start: the longest window of a probe on it, so that a restart forgets nothing."""
ENGINES_DEADLINE_S = 6.0
"""Of a look at all engines: several times the reader's own for each."""
GPUS_DEADLINE_S = 120.0
"""The NVML reader's own deadlines (loading and a sweep), and some. Source: `nvml_process.Deadlines`."""
_T = TypeVar("_T")


def sources_for(
    settings: HealthSettings, engines: EnginesReader | None = None, disk: DiskOptions | None = None
) -> list[Source]:
    """Return every source of this node's views; `engines` None: which engines there are is not known.

    `disk` says how disks are read where it is not as the agent does.
    """
    sources = [
        _kernel(KernelLog(lookback_s=KERNEL_LOOKBACK_S)),
        Source(part="host", read=_now(HostReader().read), close=_nothing),
        _volumes([DiskReader(path, _disk(settings, disk)) for path in settings.volumes]),
        _network(settings),
    ]
    if settings.gpu != "off":
        sources.append(_gpus(settings.gpu))
    if engines is not None:
        sources.append(_engines(engines))
    return sources


def _disk(settings: HealthSettings, disk: DiskOptions | None) -> DiskOptions:
    options = disk or DiskOptions()
    return options if settings.write else replace(options, write_interval_s=0.0)


def _now(read: Callable[[], _T]) -> Callable[[], Awaitable[_T]]:
    """Return a reading that never waits in the shape of one that may."""

    async def reading() -> _T:
        return read()

    return reading


async def _nothing() -> None:
    """Nothing to close."""


def _kernel(log: KernelLog) -> Source:
    return Source(
        part="kernel",
        read=_now(log.read),
        close=_now(log.close),
        period_s=TICK_S,
        late=Kernel(state=State.HUNG),
    )


def _engines(engines: EnginesReader) -> Source:
    return Source(
        part="engines",
        read=engines.read,
        close=engines.close,
        period_s=TICK_S,
        deadline_s=ENGINES_DEADLINE_S,
    )


def _volumes(readers: Sequence[DiskReader]) -> Source:
    def read() -> tuple[Volume, ...]:
        return tuple(reader.read() for reader in readers)

    def close() -> None:
        for reader in readers:
            reader.close()

    return Source(part="volumes", read=_now(read), close=_now(close))


def _network(settings: HealthSettings) -> Source:
    reader = NetworkReader(settings.name, settings.mesh, named=settings.expected.link_mbit_s)
    # A peer that is stopped is to be distinguished from a lossy one within 5 s: a look each tick. Without peers there is no hurry.
    period_s = TICK_S if settings.mesh is not None else PERIOD_S
    return Source(part="network", read=reader.read, close=reader.close, period_s=period_s)


def _gpus(how: str) -> Source:
    late = Gpus(state=State.HUNG, detail=f"the reader did not answer within {GPUS_DEADLINE_S:g} s")
    if how.startswith(("http://", "https://")):
        # Its parser is needed only here, and costs memory.
        from freehold.health.collectors.dcgm import DcgmReader  # noqa: PLC0415

        return Source(part="gpus", read=DcgmReader(url=how).read, close=_nothing, late=late)
    reader = GpusReader(always=how == "nvml")
    return Source(
        part="gpus",
        read=reader.read,
        close=reader.close,
        deadline_s=GPUS_DEADLINE_S,
        late=late,
    )


class GpusReader:
    """NVML where there is a GPU or its driver, and a look at the PCI bus where there is none.

    `always`: NVML in any case, as for a container that sees no PCI bus.
    """

    def __init__(self, *, always: bool) -> None:
        self._always = always
        self._nvml: NvmlReader | None = None

    async def read(self) -> Gpus:
        """Return the GPUs; state ABSENT and no address where there are none."""
        if self._nvml is None and not (self._always or _nvml_applies()):
            return Gpus(state=State.ABSENT, detail="no NVIDIA GPU on the PCI bus, and no driver of one")
        self._nvml = self._nvml or NvmlReader()
        return await self._nvml.read()

    async def close(self) -> None:
        """End the reader's child, if there is one."""
        if self._nvml is not None:
            await self._nvml.close()


def _nvml_applies() -> bool:
    marks = ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/dxg")  # the last: under Windows
    return bool(nvidia_pci_addresses()) or any(Path(mark).exists() for mark in marks)
