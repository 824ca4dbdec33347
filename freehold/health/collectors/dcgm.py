"""Reads the GPUs from a DCGM exporter that runs anyway: an alternative to NVML where nothing may open the driver twice.

Only the exporter's text is read: fields by name, old and new (DCGM renamed many and keeps the old ones), never by number, for
DCGM's 230 is the last XID and NVML's 230 is the recovery action. A field that the exporter does not export is unsupported, not
zero: many counters are off by default. A remote exporter that does not answer shows nothing about the GPUs. This module never asks
NVML, and takes no XID from the exporter (which keeps only the last one).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from freehold.health.collectors.driver_files import with_files
from freehold.health.collectors.plain_http import BODY_BYTES_MOST, fetch
from freehold.health.gpu_readings.nvml_answers import answering, measured
from freehold.health.gpu_readings.table import IDENTITY, READINGS, GpuReading
from freehold.health.model.view import Gpu, Gpus, Reading, State

DEADLINE_S = 5.0
"""The exporter collects when asked or serves what it collected; Prometheus' own default for a scrape is 10 s. Our own choice."""
BLANKS_INT: Mapping[int, State] = {
    0x7FFFFFFFFFFFFFF0: State.UNKNOWN,
    0x7FFFFFFFFFFFFFF1: State.ABSENT,
    0x7FFFFFFFFFFFFFF2: State.UNSUPPORTED,
    0x7FFFFFFFFFFFFFF3: State.DENIED,
}
"""DCGM_INT64_BLANK, _NOT_FOUND, _NOT_SUPPORTED, _NOT_PERMISSIONED of dcgm_structs.h."""
BLANK_DOUBLE = 140737488355328.0
"""DCGM_FP64_BLANK of dcgm_structs.h (2^47); the three above it mean the same as the integers' three."""
_FP64 = (State.UNKNOWN, State.ABSENT, State.UNSUPPORTED, State.DENIED)
_MIG = ("GPU_I_ID", "GPU_I_PROFILE")
_DRIVER = ("DCGM_FI_DRIVER_VERSION", "driver_version")


class ExporterSample(NamedTuple):
    """One line of the exporter's text."""

    name: str
    labels: Mapping[str, str]
    value: float


def gpus_of(text: str) -> Gpus:
    """Return the GPUs of an exporter's text; a text without any DCGM field is UNKNOWN, not a node without GPUs."""
    try:
        samples = [sample for sample in _samples(text) if sample.labels.get("gpu", "").isdigit()]
    except (ValueError, IndexError) as exc:  # the parser runs over the end of some lines
        return _failed(State.UNKNOWN, f"the DCGM exporter's text cannot be read: {exc}")
    if not samples:
        return _failed(State.UNKNOWN, "the DCGM exporter shows no GPU")
    indices = sorted({int(sample.labels["gpu"]) for sample in samples})
    return Gpus(
        source="dcgm",
        driver=_driver(samples),
        gpus=tuple(_gpu(index, [s for s in samples if int(s.labels["gpu"]) == index]) for index in indices),
    )


def _samples(text: str) -> Iterable[ExporterSample]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("DCGM_"):
                yield ExporterSample(sample.name, sample.labels, sample.value)


def _failed(state: State, detail: str) -> Gpus:
    return Gpus(source="dcgm", state=state, detail=detail)


def _driver(samples: Iterable[ExporterSample]) -> dict[str, Reading]:
    for sample in samples:
        for label in _DRIVER:
            if sample.labels.get(label):
                return {"driver_version": Reading(value=sample.labels[label])}
    return {}


def _gpu(index: int, samples: Iterable[ExporterSample]) -> Gpu:
    """Return one GPU; lines of its MIG slices are left out, for they are parts of it."""
    whole = [sample for sample in samples if not any(sample.labels.get(label) for label in _MIG)]
    labels = whole[0].labels if whole else {}
    values = {sample.name: sample.value for sample in whole}
    return Gpu(
        index=index,
        uuid=labels.get("UUID", ""),
        pci=labels.get("pci_bus_id", ""),
        name=labels.get("modelName", ""),
        readings={
            row.name: _reading(row, values) for row in READINGS if row.name not in IDENTITY and row.dcgm
        },
    )


def _reading(row: GpuReading, values: Mapping[str, float]) -> Reading:
    for name in row.dcgm:
        # prometheus_client's parser follows OpenMetrics and may add _total to a counter's name.
        value = values.get(name, values.get(f"{name}_total"))
        if value is not None:
            return _value(value, row.dcgm_scale)
    return Reading(state=State.UNSUPPORTED, detail=f"the exporter does not export {row.dcgm[-1]}")


def _value(value: float, scale: float) -> Reading:
    blank = _blank(value)
    if blank is not None:
        return Reading(state=blank, detail=f"blank value {value:g}")
    return measured(int(value) if float(value).is_integer() else value, scale)


def _blank(value: float) -> State | None:
    """Return what a blank means, or None of a value; a float may have lost the integers' last digits, then it is unsupported."""
    if BLANK_DOUBLE <= value < BLANK_DOUBLE + len(_FP64):
        return _FP64[int(value - BLANK_DOUBLE)]
    if value < min(BLANKS_INT):
        return None
    return BLANKS_INT.get(int(value), State.UNSUPPORTED) if math.isfinite(value) else State.UNSUPPORTED


@dataclass(slots=True, kw_only=True)
class DcgmReader:
    """Asks an exporter at `http://host:port/metrics`."""

    url: str
    deadline_s: float = DEADLINE_S
    root: Path = Path("/")
    """Where /proc and /sys hang; a test brings its own."""
    _most: int = field(default=0, init=False)

    async def read(self) -> Gpus:
        """Return its reading, with the most GPUs that it ever showed and what the file system shows of cards and driver."""
        gpus = await self._asked()
        self._most = max(self._most, answering(gpus.gpus))
        return with_files(gpus, self._most, self.root)

    async def _asked(self) -> Gpus:
        """Return its reading; HUNG past the deadline, UNKNOWN where no exporter listens and for anything else than its text."""
        path = "" if urlsplit(self.url).path.strip("/") else "/metrics"
        try:
            answer = await fetch(self.url, path, deadline_s=self.deadline_s)
        except TimeoutError:
            return _failed(State.HUNG, f"{self.url} did not answer within {self.deadline_s:g} s")
        except ConnectionRefusedError:
            # Not ABSENT: that the exporter does not run shows nothing about the GPUs.
            return _failed(State.UNKNOWN, f"no exporter listens at {self.url}")
        except (OSError, ValueError) as exc:
            return _failed(State.UNKNOWN, f"{self.url}: {type(exc).__name__}: {exc}")
        if answer.status != 200:
            return _failed(State.UNKNOWN, f"{self.url} answered {answer.status}")
        if len(answer.body) >= BODY_BYTES_MOST:
            return _failed(State.UNKNOWN, f"{self.url} answered more than {BODY_BYTES_MOST} bytes")
        return gpus_of(answer.body.decode(errors="replace"))
