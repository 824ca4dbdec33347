"""What an engine uses: CPU and memory of a real process group, energy counters that turn over, and unknown as unknown."""

import asyncio
import os
from pathlib import Path

import pytest

from freehold.bench.measure import watch
from freehold.bench.measure.machine import this_machine
from freehold.bench.measure.watch import (
    GpuMeter,
    Watching,
    cpu_seconds,
    memory_bytes,
    package_joules,
    reading,
)
from freehold.health.model.view import Reading, State


def zone(root: Path, name: str, energy_uj: str, *, says: str = "", most_uj: str = "1000000") -> None:
    (root / name).mkdir()
    (root / name / "name").write_text(f"{says or 'package-' + name[-1]}\n")
    (root / name / "energy_uj").write_text(energy_uj)
    (root / name / "max_energy_range_uj").write_text(most_uj)


def test_packages_are_counted_and_their_parts_are_not(tmp_path: Path):
    zone(tmp_path, "intel-rapl:0", "500000")
    zone(tmp_path, "intel-rapl:1", "250000")
    zone(tmp_path, "intel-rapl:0:0", "400000", says="core")
    assert package_joules(tmp_path) == ((0.5, 1.0), (0.25, 1.0))


def test_no_joule_is_counted_twice(tmp_path: Path):
    """A laptop's or a small server's zones: the whole machine, and the package once more by another way."""
    zone(tmp_path, "intel-rapl:0", "500000")
    zone(tmp_path, "intel-rapl:1", "900000", says="psys")
    zone(tmp_path, "intel-rapl-mmio:0", "500000")
    assert package_joules(tmp_path) == ((0.5, 1.0),)


def test_half_of_the_packages_is_unknown(tmp_path: Path):
    zone(tmp_path, "intel-rapl:0", "500000")
    zone(tmp_path, "intel-rapl:1", "not allowed")
    assert package_joules(tmp_path) == ()


def test_a_counter_that_turns_over():
    assert watch._joules_since(((0.9, 1.0),), ((0.1, 1.0),)) == pytest.approx(0.2)
    assert watch._joules_since(((0.1, 1.0), (0.2, 1.0)), ((0.4, 1.0), (0.3, 1.0))) == pytest.approx(0.4)


def test_what_cannot_be_read_is_unknown(tmp_path: Path):
    zone(tmp_path, "intel-rapl:0", "not allowed")
    assert package_joules(tmp_path) == ()
    assert package_joules(tmp_path / "none") == ()
    assert watch._joules_since((), ()) is None
    assert Watching().resources.cpu_cores is None
    assert reading(None) is None
    assert reading(Reading(state=State.UNSUPPORTED)) is None
    assert reading(Reading(value=300.0)) == 300.0


def test_our_own_group_uses_time_and_memory():
    group = os.getpgid(0)
    assert (cpu_seconds(group) or 0) > 0
    assert (memory_bytes(group) or 0) > 1_000_000


def test_a_group_that_is_gone():
    assert cpu_seconds(2**22 + 1) is None
    assert memory_bytes(2**22 + 1) is None


def test_the_machine_says_what_it_is():
    async def asked() -> None:
        meter = GpuMeter()
        machine = await this_machine(meter)
        await meter.close()
        assert machine.cores == len(os.sched_getaffinity(0))
        assert machine.kernel
        assert machine.memory_bytes is None or machine.memory_bytes > 10**8
        assert await meter.watts() is None  # closed: it is asked no more

    asyncio.run(asked())


def test_watching_says_means_over_what_it_saw():
    seen = Watching(watched_s=10.0, cpu_s=15.0, memory_peak_bytes=5, gpu_watts=[100.0, 300.0], package_j=50.0)
    found = seen.resources
    assert (found.cpu_cores, found.gpu_watts, found.package_watts) == (1.5, 200.0, 5.0)
