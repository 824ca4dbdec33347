"""GPU watts in a bench: two GPUs added up through the real NVML binding, and one that does not tell makes the sum unknown."""

import asyncio
from pathlib import Path

import pytest

from freehold.bench.analysis.results import Machine
from freehold.bench.measure.machine import this_machine
from freehold.bench.measure.watch import GpuMeter
from freehold.core.events import GpuId
from freehold.health.model.view import State
from nvml_shim import Scenario, build, uuid

POWER = "nvmlDeviceGetPowerUsage"


@pytest.fixture
def scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scenario:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(build(tmp_path)))
    monkeypatch.setenv("NVML_SHIM_SCENARIO", str(tmp_path / "scenario"))
    return Scenario(tmp_path / "scenario", gpus=2)


def metered() -> tuple[float | None, Machine, State]:
    async def read() -> tuple[float | None, Machine, State]:
        meter = GpuMeter()
        try:
            machine = await this_machine(meter)
            return await meter.watts(), machine, meter.last.state
        finally:
            await meter.close()

    return asyncio.run(read())


def test_all_gpus_together(scenario: Scenario) -> None:
    watts, machine, _ = metered()
    assert watts == pytest.approx(2 * 117.615)
    assert [gpu.name for gpu in machine.gpus] == ["NVIDIA H100 80GB HBM3"] * 2
    assert machine.gpu_driver


def test_one_that_does_not_tell_makes_the_sum_unknown(scenario: Scenario) -> None:
    scenario.set(POWER, "!3", gpu=1)
    watts, _, state = metered()
    assert watts is None
    assert state is State.OK


def test_only_the_gpus_of_the_engine_count(scenario: Scenario) -> None:
    scenario.set(POWER, 300_000, gpu=1)

    async def read(*gpus: GpuId) -> float | None:
        meter = GpuMeter()
        try:
            return await meter.watts(gpus)
        finally:
            await meter.close()

    assert asyncio.run(read(GpuId(index=1, uuid=uuid(1)))) == pytest.approx(300)
    assert asyncio.run(read(GpuId(index=0))) == pytest.approx(117.615)
    assert asyncio.run(read(GpuId(index=0, uuid=uuid(0)), GpuId(index=1, uuid=uuid(1)))) == pytest.approx(
        417.615
    )
    for unknown in (
        (),
        (GpuId(index=0, uuid="MIG-0"),),
        (GpuId(index=0, uuid=uuid(0)), GpuId(index=9, uuid=uuid(9))),
    ):
        assert asyncio.run(read(*unknown)) is None
