"""Turns the measured facts of an H100 into recordings: tests/h100/h100_*.jsonl are its committed results.

    python tests/health_facts.py ../shared/facts tests/h100

What a case did not read again (error counters, link, identity) is taken from the idle reading of the same card and
driver, and each file's head says so. Readings that neither has are left out, not made up.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from ruamel.yaml import YAML

from freehold.health.agent.recording import RecordingHead
from freehold.health.gpu_readings.nvml_answers import reading_of
from freehold.health.gpu_readings.table import FIELD, IDENTITY, READINGS, GpuReading, NvmlQuery
from freehold.health.model.view import Gpu, Gpus, Kernel, KernelLine, Reading, View
from recordings import record

BASE_S = 1_795_392_000.0
"""2026-11-23, the day of the measurement; the moment in the day was not noted."""
IN_CASES = {
    "power_w": "power_w",
    "temp_c": "temperature_c",
    "margin_c": "margin_c",
    "util_pct": "utilisation_percent",
    "clock_event_reasons": "throttle_bits",
    "sm_clock_mhz": "sm_clock_mhz",
    "memory_used_bytes": "memory_used_bytes",
    "energy_mj": "energy_mj",
}
FIELDS_IN_CASES = {
    "temp_shutdown_tlimit_c": "shutdown_tlimit_c",
    "temp_slowdown_tlimit_c": "slowdown_tlimit_c",
    "temp_mem_max_tlimit_c": "memory_max_tlimit_c",
    "temp_gpu_max_tlimit_c": "gpu_max_tlimit_c",
    "gpu_recovery_action": "recovery_action",
    "sw_power_cap_time_ns": "power_cap_ns",
    "field_269": "sw_thermal_ns",
    "field_270": "hw_thermal_ns",
    "field_271": "power_brake_ns",
    "memory_temp_c": "memory_temp_c",
}
CODES = {"NotSupported": 3, "InvalidArgument": 2}
NOT_IN_CASES = {"power_w", "memory_free_bytes"}
"""Idle values that would lie in a case: the first is read anew, the second is not."""


def facts(folder: Path, name: str) -> Mapping[str, Any]:
    """Return a facts file's content."""
    content: Mapping[str, Any] = YAML(typ="safe").load(folder / name)
    return content


def idle_gpu(readings: Mapping[str, Any]) -> Gpu:
    """Return the GPU that was read while idle, with all that the table names and the file has."""
    found = {row.name: reading for row in READINGS if (reading := _found(row, readings)) is not None}
    names = {name: str(found.pop(name).value) for name in IDENTITY}
    return Gpu(index=0, readings=found, **names)


def _found(row: GpuReading, readings: Mapping[str, Any]) -> Reading | None:
    for ask in row.asks:
        raw = readings.get(_key(ask, readings))
        if raw is not None and raw != "MISSING":
            return reading_of(row, _answer(ask, raw))
    return None


def _key(ask: NvmlQuery, readings: Mapping[str, Any]) -> str:
    if ask.call == FIELD or (ask.call == "nvmlDeviceGetMemoryInfo" and ask.args):
        return "not read"
    arguments = f"({', '.join(map(str, ask.args))})" if ask.args else ""
    # NvLinkState was asked of the first four links, each with the same answer.
    return f"{ask.call}(0)" if ask.call == "nvmlDeviceGetNvLinkState" else f"{ask.call}{arguments}"


def _answer(ask: NvmlQuery, raw: Any) -> list[Any]:
    if isinstance(raw, str) and raw.startswith("ERR "):
        error = re.match(r"ERR NVMLError_(\w+)", raw)
        return [CODES[error[1]] if error else 999, None]
    if isinstance(raw, list):
        return [0, [int(item) for item in raw]]
    return [0, raw]


def driver(readings: Mapping[str, Any], kernel_log: list[str]) -> dict[str, Reading]:
    """Return the driver's readings; the module's version stands in the kernel's own line."""
    loaded = re.search(r"Kernel Module for x86_64\s+([\d.]+)", "\n".join(kernel_log))
    assert loaded
    return {
        "driver_version": Reading(value=readings["driver"]),
        "cuda_version": Reading(value=readings["cuda"]),
        "nvml_version": Reading(value=readings["nvml"]),
        "module_version": Reading(value=loaded[1]),
    }


def case_readings(moment: Mapping[str, Any]) -> dict[str, Reading]:
    """Return the named readings of one moment of a case."""
    plain = {ours: Reading(value=moment[theirs]) for theirs, ours in IN_CASES.items()}
    fields = {ours: Reading(value=moment["nvml_fields"][theirs]) for theirs, ours in FIELDS_IN_CASES.items()}
    return {**plain, **fields}


def case_views(case: Mapping[str, Any], base: Gpus) -> Iterator[View]:
    """Yield a view per second; the kernel lines of the case stand in the last, for when they came was not noted."""
    moments = [case["before"], *case["during"], case["after"]]
    (gpu,) = base.gpus
    for second, moment in enumerate(moments):
        kept = {name: reading for name, reading in gpu.readings.items() if name not in NOT_IN_CASES}
        now = msgspec.structs.replace(gpu, readings={**kept, **case_readings(moment)})
        log = case["kernel_log"] if second == len(moments) - 1 else []
        yield _view(second, msgspec.structs.replace(base, gpus=(now,)), log)


def _view(second: int, gpus: Gpus, log: list[str]) -> View:
    at_s = BASE_S + second
    texts = [line.split("] ", 1)[-1] for line in log]
    lines = tuple(KernelLine(at_s=at_s, text=text, sequence=number) for number, text in enumerate(texts))
    return View(at_s=at_s, monotonic_s=100.0 + second, node="h100", gpus=gpus, kernel=Kernel(lines=lines))


def recordings(folder: Path) -> Iterator[tuple[str, RecordingHead, list[View]]]:
    """Yield name, head and views of each recording."""
    read = facts(folder, "h100_nvml_readings.yaml")
    gpus = Gpus(
        source="recording",
        driver=driver(read["readings"], read["kernel_log"]),
        gpus=(idle_gpu(read["readings"]),),
    )
    source = f"h100_nvml_readings.yaml, {read['source']}, {read['as_of']}"
    head = RecordingHead(node="h100", about="An idle NVIDIA H100 80GB HBM3.", source=source, truth="healthy")
    yield "h100_idle", head, [_view(0, gpus, [])]
    cases = facts(folder, "h100_gpu_cases.yaml")
    source = (
        f"h100_gpu_cases.yaml, {cases['source']}, {cases['as_of']}; what it did not read again "
        "(identity, errors, links) is h100_nvml_readings.yaml's, the same card and driver"
    )
    for name, case in cases["cases"].items():
        head = RecordingHead(node="h100", about=case["about"], source=source, truth=case["truth"])
        yield f"h100_{name}", head, list(case_views(case, gpus))


def main(source: str, target: str) -> None:
    """Write all recordings."""
    Path(target).mkdir(parents=True, exist_ok=True)
    for name, head, views in recordings(Path(source)):
        record(Path(target) / f"{name}.jsonl", views, head)


if __name__ == "__main__":
    main(*sys.argv[1:])
