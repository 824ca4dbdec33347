"""Our own libnvidia-ml.so.1 for tests: built by the C compiler of the machine, driven by a scenario file (see shim.c)."""

import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("shim.c")

DRIVER = {
    "nvmlSystemGetDriverVersion": "580.159.04",
    "nvmlSystemGetNVMLVersion": "13.580.159.04",
    "nvmlSystemGetCudaDriverVersion": 13000,
}
"""The driver of the H100 that was read for shared/facts/h100_nvml_readings.yaml."""
H100: Mapping[str, int | str] = {
    "nvmlDeviceGetName": "NVIDIA H100 80GB HBM3",
    "nvmlDeviceGetVbiosVersion": "96.00.CF.00.01",
    "nvmlDeviceGetGspFirmwareVersion": "580.159.04",
    "nvmlDeviceGetMigMode": "0 0",
    "nvmlDeviceGetPersistenceMode": 1,
    "nvmlDeviceGetTemperature:0": 50,
    "nvmlDeviceGetMarginTemperature": 36,
    "nvmlDeviceGetTemperatureThreshold:1": 89,
    "nvmlDeviceGetTemperatureThreshold:2": 95,
    "field:193": -8,
    "field:194": -2,
    "field:195": 0,
    "field:196": 0,
    "field:82": 39,
    "nvmlDeviceGetCurrentClocksEventReasons": 1,
    "field:74": 0,
    "field:269": 0,
    "field:270": 0,
    "field:271": 0,
    "nvmlDeviceGetEccMode": "1 1",
    **{f"nvmlDeviceGetTotalEccErrors:{kind}:{counter}": 0 for kind in (0, 1) for counter in (0, 1)},
    **{
        f"nvmlDeviceGetMemoryErrorCounter:{kind}:{counter}:{place}": 0
        for kind in (0, 1)
        for counter in (0, 1)
        for place in (2, 7)
    },
    "nvmlDeviceGetSramEccErrorStatus": 0,
    "nvmlDeviceGetRemappedRows": "0 0 0 0",
    "nvmlDeviceGetRowRemapperHistogram": "2560 0 0 0 0",
    "field:230": 0,
    "nvmlDeviceGetMemoryInfo": "85520809984 85017493504 503316480",
    "nvmlDeviceGetMemoryInfo_v2": "85520809984 500000000 85017493504 3316480",
    "nvmlDeviceGetPowerUsage": 117615,
    "nvmlDeviceGetEnforcedPowerLimit": 700000,
    "nvmlDeviceGetPowerManagementDefaultLimit": 700000,
    "nvmlDeviceGetTotalEnergyConsumption": 4567916,
    "nvmlDeviceGetUtilizationRates": "0 0",
    "nvmlDeviceGetClockInfo:1": 345,
    "nvmlDeviceGetClockInfo:2": 2619,
    "nvmlDeviceGetMaxClockInfo:1": 1980,
    "nvmlDeviceGetPerformanceState": 0,
    "nvmlDeviceGetCurrPcieLinkGeneration": 5,
    "nvmlDeviceGetMaxPcieLinkGeneration": 5,
    "nvmlDeviceGetCurrPcieLinkWidth": 16,
    "nvmlDeviceGetMaxPcieLinkWidth": 16,
    "nvmlDeviceGetPcieReplayCounter": 0,
}
"""An idle H100, as its keys of the shim; the source is the same. What is not here the shim does not support."""


def uuid(index: int) -> str:
    """Return the made-up UUID of a scenario's GPU."""
    return f"GPU-00000000-0000-0000-0000-{index + 1:012d}"


class Scenario:
    """A scenario file that changes while a child reads it; a change is whole, never half."""

    def __init__(self, path: Path, gpus: int = 1) -> None:
        self.path = path
        self._lines: dict[tuple[str, str], int | str] = {}
        for key, value in DRIVER.items():
            self._lines["*", key] = value
        self._lines["*", "nvmlDeviceGetCount"] = gpus
        for index in range(gpus):
            own = {
                "nvmlDeviceGetUUID": uuid(index),
                "nvmlDeviceGetSerial": f"{index + 1:013d}",
                "nvmlDeviceGetPciInfo": f"00000000:00:{index + 6:02X}.0",
            }
            for key, value in {**H100, **own}.items():
                self._lines[str(index), key] = value
        self._write()

    def set(self, key: str, value: int | str | None, gpu: int | str = 0) -> None:
        """Change one value; None takes it away. `!15` is an error, `hang` a call that does not return."""
        if value is None:
            self._lines.pop((str(gpu), key), None)
        else:
            self._lines[str(gpu), key] = value
        self._write()

    def _write(self) -> None:
        lines = [f"{gpu} {key} {value}\n" for (gpu, key), value in self._lines.items()]
        fresh = self.path.with_suffix(".new")
        fresh.write_text("".join(lines))
        fresh.replace(self.path)


def build(folder: Path, without: Iterable[str] = ()) -> Path:
    """Compile libnvidia-ml.so.1 into the folder and return the folder; skip the test where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to build the NVML shim with")
    folder.mkdir(parents=True, exist_ok=True)
    flags = [f"-DWITHOUT_{name}" for name in without]
    library = folder / "libnvidia-ml.so.1"
    subprocess.run(
        [compiler, "-O1", "-shared", "-fPIC", *flags, "-o", str(library), str(SOURCE)], check=True, timeout=60
    )
    return folder
