"""Facts of the machine that a bench runs on, for its results file. It judges nothing; what cannot be read is unknown."""

import contextlib
import os
import platform
from pathlib import Path

from freehold.bench.analysis.results import GpuFact, Machine
from freehold.bench.measure.watch import GpuMeter
from freehold.health.model.view import State


async def this_machine(meter: GpuMeter) -> Machine:
    """Return what this machine is and how busy it was just now."""
    await meter.watts()
    gpus = meter.last
    driver = gpus.driver.get("driver_version")
    return Machine(
        cpu=_field(Path("/proc/cpuinfo"), "model name"),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=_kib(Path("/proc/meminfo"), "MemTotal"),
        kernel=platform.release(),
        gpus=tuple(GpuFact(name=gpu.name, uuid=gpu.uuid) for gpu in gpus.gpus)
        if gpus.state is State.OK
        else (),
        gpu_driver=str(driver.value) if driver is not None and driver.state is State.OK else "",
        load_before=_load(),
    )


def _field(path: Path, name: str) -> str:
    with contextlib.suppress(OSError):
        for line in path.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return ""


def _kib(path: Path, name: str) -> int | None:
    with contextlib.suppress(ValueError, IndexError):
        return int(_field(path, name).split()[0]) * 1024
    return None


def _load() -> float | None:
    with contextlib.suppress(OSError):
        return os.getloadavg()[0]
    return None
