"""Readings of a live node become typed changes where they are read from its views; no name is looked at after that."""

from pathlib import Path

import msgspec
import pytest

from freehold.catalog.load_evidence import load_evidence
from freehold.health.collectors import smart
from freehold.health.evidence import log_patterns, view_changes
from freehold.health.evidence.correlations import together_signs, with_siblings
from freehold.health.evidence.counters import change_signs
from freehold.health.evidence.quantity import MeasuredQuantity
from freehold.health.evidence.view_changes import from_views
from freehold.health.gpu_readings.table import BY_NAME
from freehold.health.incident_file import counters
from freehold.health.model.view import EngineView, Gpu, Gpus, Host, Reading, State, View, Volume


def view(at_s: float, **parts: object) -> View:
    return View(at_s=at_s, monotonic_s=at_s, node="a", **parts)  # type: ignore[arg-type]


def signs(first: View, last: View) -> set[str]:
    changes = with_siblings(from_views([first, last]).changes)
    table = load_evidence()
    alone = change_signs(table, changes)
    return {seen.sign.name for seen in (*alone, *together_signs(table, changes, alone))}


def gpus(**readings: Reading | float) -> Gpus:
    values = {
        name: value if isinstance(value, Reading) else Reading(value=value)
        for name, value in readings.items()
    }
    return Gpus(gpus=(Gpu(index=0, readings=values),))


def test_every_typed_name_is_one_that_a_collector_reads() -> None:
    assert set(view_changes._GPU) <= set(BY_NAME)
    assert set(view_changes._SMART) <= {*smart._NVME.values(), *smart._ATA.values()}


@pytest.mark.parametrize(
    ("before", "after", "sign"),
    [
        ({"row_remap_failure": 0}, {"row_remap_failure": 1}, "row_remap_failure"),
        (
            {"ecc_sram_volatile_uncorrected": 0},
            {"ecc_sram_volatile_uncorrected": 2},
            "ecc_uncorrected",
        ),
        ({"throttle_bits": 4}, {"throttle_bits": 0x84}, "power_brake"),
        ({"nvlink_up": 18}, {"nvlink_up": 17}, "nvlink_counters"),
        ({"temperature_c": 40}, {"temperature_c": Reading(state=State.LOST)}, "gpu_lost"),
        ({"temperature_c": 40}, {"temperature_c": Reading(state=State.UNSUPPORTED)}, None),
        ({"sm_clock_mhz": 1980}, {"sm_clock_mhz": 345}, None),
    ],
)
def test_a_gpu(before: dict[str, float], after: dict[str, Reading | float], sign: str | None) -> None:
    found = signs(view(0.0, gpus=gpus(**before)), view(60.0, gpus=gpus(**after)))
    assert found == ({sign} if sign else set())


def test_disk_engine_and_host() -> None:
    slow = Volume(path="/m", reads_s=(0.3,), device_ticks_s=Reading(value=0.29))
    engine = EngineView(replica="r", engine="vllm", tokens_total=Reading(value=5), running=Reading(value=1))
    host = Host(memory={"oom_kills": Reading(value=2)}, clock={"synchronised": Reading(value=0)})
    first = view(
        0.0,
        volumes=(Volume(path="/m", reads_s=(0.0003,)),),
        engines=(engine,),
        host=Host(memory={"oom_kills": Reading(value=1)}),
    )
    assert signs(first, view(60.0, volumes=(slow,), engines=(engine,), host=host)) == {
        "storage_slow_device", "engine_frozen", "oom_kill", "clock_wrong",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("loader", "row"),
    [
        (log_patterns._PatternRow, {"sign": "x", "patern": "y"}),
        (counters._NameRow, {"of": "gpu", "name": "x", "quantity": "nonsense"}),
        (counters._NameRow, {"of": "gpu", "pattern": "x", "quantity": MeasuredQuantity.POWER}),
    ],
)
def test_a_row_of_the_data_with_a_slip_is_refused(loader: type[msgspec.Struct], row: dict[str, str]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(row, loader)


def test_nothing_of_evidence_searches_names() -> None:
    room = Path(view_changes.__file__).parent
    using = {path.stem for path in room.glob("*.py") if "import re\n" in path.read_text()}
    assert using <= {"log_patterns", "surroundings"}
