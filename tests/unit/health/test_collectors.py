"""The driver's files under a root of our own, the exporter's text in old and new words, error codes, and recordings."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.problems import Problem
from freehold.health.agent.recording import RecordingHead, ViewRecorder, load_recording
from freehold.health.collectors.dcgm import gpus_of
from freehold.health.collectors.driver_files import driver_versions, long_address, nvidia_pci_addresses
from freehold.health.gpu_readings.nvml_answers import measured, program, reading_of, readings_of, state_of
from freehold.health.gpu_readings.table import BY_NAME, IDENTITY, READINGS
from freehold.health.model.view import Gpus, Host, Reading, State, View
from recordings import record, replay


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def pci(root: Path, address: str, vendor: str, kind: str) -> None:
    write(root / f"sys/bus/pci/devices/{address}/vendor", f"{vendor}\n")
    write(root / f"sys/bus/pci/devices/{address}/class", f"{kind}\n")


def test_gpus_on_the_bus_are_nvidias_display_and_3d_controllers(tmp_path: Path) -> None:
    pci(tmp_path, "0000:3b:00.0", "0x10de", "0x030200")
    pci(tmp_path, "0000:01:00.0", "0x10de", "0x030000")
    pci(tmp_path, "0000:01:00.1", "0x10de", "0x040300")  # the card's own sound
    pci(tmp_path, "0000:05:00.0", "0x10de", "0x068000")  # an NVSwitch
    pci(tmp_path, "0000:02:00.0", "0x1002", "0x030000")
    assert nvidia_pci_addresses(tmp_path) == ("00000000:01:00.0", "00000000:3b:00.0")
    assert nvidia_pci_addresses(tmp_path / "none") == ()
    assert long_address("0000:3B:00.0") == "00000000:3b:00.0"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("sys/module/nvidia/version", "580.159.04\n"),
        (
            "proc/driver/nvidia/version",
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build\nGCC version: gcc 12.2.0\n",
        ),
        (
            "proc/driver/nvidia/version",
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.159.04  Tue Nov 11 2025\n",
        ),
    ],
)
def test_the_running_modules_version(tmp_path: Path, file: str, text: str) -> None:
    write(tmp_path / file, text)
    assert driver_versions(tmp_path)["module_version"] == Reading(value="580.159.04")


def test_versions_on_disk(tmp_path: Path) -> None:
    folder = tmp_path / "usr/lib/x86_64-linux-gnu"
    assert driver_versions(tmp_path)["disk_version"].state is State.ABSENT
    for name in ("libcuda.so", "libcuda.so.1", "libcuda.so.580.159.04", "libnvidia-ml.so.580.159.04"):
        write(folder / name, "")
    assert driver_versions(tmp_path)["disk_version"].value == "580.159.04"
    write(tmp_path / "usr/lib64/libnvidia-ml.so.590.1.2", "")
    assert driver_versions(tmp_path)["disk_version"].value == "580.159.04,590.1.2"


LABELS = 'gpu="0",UUID="GPU-1",pci_bus_id="00000000:3B:00.0",device="nvidia0",modelName="NVIDIA H100 80GB HBM3",Hostname="n"'


def exporter(*lines: str, labels: str = LABELS) -> Gpus:
    text = "".join(
        f"# TYPE {name} gauge\n{name}{{{labels}}} {value}\n"
        for name, value in (line.split() for line in lines)
    )
    return gpus_of(text)


@pytest.mark.parametrize(
    "names",
    [
        ("DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_GPU_TEMP_LIMIT", "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_ROW_REMAP_FAILURE"),
        ("DCGM_FI_DEV_GPU_TEMP_CELSIUS", "DCGM_FI_DEV_GPU_TEMP_MARGIN_CELSIUS", "DCGM_FI_DEV_BOARD_POWER_WATTS", "DCGM_FI_DEV_ROW_REMAP_FAILED"),
    ],
)  # fmt: skip
def test_the_exporters_old_and_new_names(names: tuple[str, ...]) -> None:
    values = ("54", "26", "632.5", "1")
    gpus = exporter(*(f"{name} {value}" for name, value in zip(names, values, strict=True)))
    (gpu,) = gpus.gpus
    assert (gpus.source, gpus.state, gpu.index, gpu.uuid) == ("dcgm", State.OK, 0, "GPU-1")
    assert (gpu.pci, gpu.name) == ("00000000:3B:00.0", "NVIDIA H100 80GB HBM3")
    readings = {name: reading.value for name, reading in gpu.readings.items() if reading.state is State.OK}
    assert readings == {"temperature_c": 54, "margin_c": 26, "power_w": 632.5, "row_remap_failure": 1}


def test_dcgms_230_is_an_xid_and_no_recovery_action() -> None:
    (gpu,) = exporter("DCGM_FI_DEV_XID_ERRORS 79").gpus
    assert gpu.readings["recovery_action"].state is State.UNSUPPORTED
    (gpu,) = exporter("DCGM_FI_DEV_GPU_RECOVERY_ACTION 2").gpus
    assert gpu.readings["recovery_action"].value == 2


def test_the_exporters_units_blanks_and_counters() -> None:
    (gpu,) = exporter(
        "DCGM_FI_DEV_FB_USED 480",
        "DCGM_FI_DEV_ROW_REMAP_PENDING 9223372036854775794",
        "DCGM_FI_DEV_MEMORY_TEMP 140737488355330",
        "DCGM_FI_DEV_THERMAL_VIOLATION 12",
    ).gpus
    assert gpu.readings["memory_used_bytes"].value == 480 * 1024 * 1024
    assert gpu.readings["row_remap_pending"].state is State.UNSUPPORTED
    assert gpu.readings["memory_temp_c"].state is State.UNSUPPORTED
    counter = (
        f"# TYPE DCGM_FI_DEV_PCIE_REPLAY_COUNTER counter\nDCGM_FI_DEV_PCIE_REPLAY_COUNTER{{{LABELS}}} 7\n"
    )
    assert gpus_of(counter).gpus[0].readings["pcie_replays"].value == 7


def test_the_exporters_throttled_time_is_in_nanoseconds_whatever_its_comments_say() -> None:
    """NVIDIA/dcgm-exporter pull request 589: microseconds would make 2 ms of heat in a minute a GPU at a thirtieth of its speed."""
    (gpu,) = exporter(
        "DCGM_FI_DEV_THERMAL_VIOLATION 2000000",
        "DCGM_FI_DEV_POWER_VIOLATION 41485522560",
        "DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN_NS 7",
    ).gpus
    assert gpu.readings["thermal_violation_ns"].value == 2_000_000
    assert gpu.readings["power_cap_ns"].value == 41_485_522_560
    assert gpu.readings["hw_thermal_ns"].value == 7


def test_the_exporter_tells_errors_in_sram_from_those_in_device_memory() -> None:
    (gpu,) = exporter("DCGM_FI_DEV_ECC_DBE_VOL_SRM 1", "DCGM_FI_DEV_ECC_SBE_AGG_DEV 5").gpus
    assert gpu.readings["ecc_sram_volatile_uncorrected"].value == 1
    assert gpu.readings["ecc_dram_aggregate_corrected"].value == 5
    assert gpu.readings["ecc_dram_volatile_uncorrected"].state is State.UNSUPPORTED


def test_a_slice_of_a_gpu_is_not_the_gpu() -> None:
    whole = f"DCGM_FI_DEV_GPU_TEMP{{{LABELS}}} 50\n"
    part = f'DCGM_FI_DEV_GPU_TEMP{{{LABELS},GPU_I_ID="1",GPU_I_PROFILE="1g.10gb"}} 99\n'
    (gpu,) = gpus_of(whole + part).gpus
    assert gpu.readings["temperature_c"].value == 50


@pytest.mark.parametrize("text", ["", "up 1\n", "{{{", 'DCGM_FI_DEV_GPU_TEMP{gpu="x"} 1\n'])
def test_what_is_no_exporters_text_is_unknown(text: str) -> None:
    gpus = gpus_of(text)
    assert (gpus.state, gpus.gpus) == (State.UNKNOWN, ())


def test_the_table_of_readings() -> None:
    assert len(BY_NAME) == len(READINGS)
    assert set(IDENTITY) <= set(BY_NAME)
    fields = [name for reading in READINGS for name in reading.dcgm]
    assert len(set(fields)) == len(fields), "a field is two readings"
    assert "DCGM_FI_DEV_XID_ERRORS" not in fields
    steps = program()["steps"]
    asked = [str(step["asks"]) for step in steps]
    assert len(set(asked)) == len(asked), "a call is made twice"


@pytest.mark.parametrize("code", [3, 4, 9, 10, 12, 13, 15, 16, 18, 25, 27, 999, 12345])
def test_no_error_is_a_value(code: int) -> None:
    reading = state_of(code)
    assert reading.value is None
    assert reading.state is not State.OK
    assert str(code) in reading.detail


def test_raw_answers_become_readings() -> None:
    assert reading_of(BY_NAME["power_w"], [0, 117_615]).value == 117.615
    assert reading_of(BY_NAME["row_remap_pending"], [0, [1, 2, 3, 4]]).value == 3
    assert reading_of(BY_NAME["retired_pages_corrected"], [0, [4096, 8192]]).value == 2
    assert reading_of(BY_NAME["retired_pages_corrected"], [0, []]).value == 0
    assert reading_of(BY_NAME["nvlink_down"], [0, {"states": [1, 0, 1, 0]}]).value == "1,3"
    assert reading_of(BY_NAME["ecc_mode"], [0, []]).state is State.UNSUPPORTED
    assert reading_of(BY_NAME["memory_reserved_bytes"], [0, {"total": 1}]).state is State.UNSUPPORTED
    assert measured(9.3e18).state is State.UNSUPPORTED
    assert measured(float("nan")).state is State.UNSUPPORTED
    with pytest.raises(ValueError, match="zip"):
        readings_of([[0, 1]], full=True)


VIEWS = [
    View(at_s=float(n), monotonic_s=float(n), node="n", gpus=Gpus(), host=Host(edac={"mc0": n}))
    for n in range(3)
]


def test_a_recording_replays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    assert record(path, VIEWS, RecordingHead(node="n", truth="healthy")) == 3
    assert list(replay(path)) == VIEWS
    whole = load_recording(path)
    assert (whole.head.truth, whole.head.version, whole.problems) == ("healthy", 1, ())
    with path.open("wb") as file:
        recorder = ViewRecorder(file, RecordingHead(node="n"))
        for view in VIEWS:
            recorder.add(view)
            assert len(path.read_bytes().splitlines()) == view.at_s + 2, "each is in the file at once"
    assert list(replay(path)) == VIEWS


def problems_of(path: Path) -> list[str]:
    found: list[Problem] = []
    list(replay(path, found.append))
    return [f"{problem.where.rpartition('/')[2]} {problem.message}" for problem in found]


def test_every_line_that_cannot_be_read_is_told_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    record(path, VIEWS)
    lines = path.read_bytes().splitlines()
    broken = [*lines[:2], b"{", lines[3], b'{"at_s": 1}', b'{"at_s": 1, "monotonic_s": 1}', lines[2][:20]]
    path.write_bytes(b"\n".join(broken))
    told = problems_of(path)
    assert [line.split(" ", 1)[0] for line in told] == ["r.jsonl:3", "r.jsonl:5", "r.jsonl:6", "r.jsonl:7"]
    assert "older than the one before" in told[2]
    assert "not whole" in told[3]
    assert [view.at_s for view in replay(path)] == [0.0, 2.0, 1.0]


@given(
    st.lists(
        st.binary(max_size=60) | st.sampled_from([b'{"at_s":1,"monotonic_s":1}', b"[" * 9000]), max_size=6
    )
)
def test_any_bytes_are_read_or_told(lines: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.jsonl"
        path.write_bytes(b'{"format": "freehold-recording", "version": 1}\n' + b"\n".join(lines))
        found: list[Problem] = []
        views = list(replay(path, found.append))
    whole = b"\n".join(lines).split(b"\n")
    assert len(views) + len(found) >= sum(1 for line in whole if line.strip())


def test_a_view_of_a_later_freehold_nested_too_deep_is_told(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    record(path, VIEWS[:1])
    deep = b'{"at_s":1,"monotonic_s":1,"later":' + b"[" * 5000 + b"]" * 5000 + b"}\n"
    path.write_bytes(path.read_bytes() + deep)
    (problem,) = problems_of(path)
    assert "recursion" in problem


EXPOSITION = 'DCGM_FI_DEV_GPU_TEMP{gpu="0",UUID="GPU-1",a="x\\"y"} 50 123\n'


@given(
    st.lists(
        st.tuples(st.integers(0, len(EXPOSITION)), st.sampled_from(list('{}"=,\\ \n#0e+-x\x00é'))), max_size=6
    )
)
def test_any_damage_to_the_exporters_text_is_unknown_or_read(changes: list[tuple[int, str]]) -> None:
    text = list(EXPOSITION)
    for place, letter in changes:
        text.insert(place, letter)
    assert gpus_of("".join(text)).state in (State.OK, State.UNKNOWN)


def test_a_line_that_the_parser_runs_over_is_unknown() -> None:
    assert gpus_of('DCGM_FI_DEV_GPU_TEMP{gpu="0",').state is State.UNKNOWN


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no recording"),
        (b"\xff\xfe", "no recording"),
        (b"{}\n", "no recording's head"),
        (b'{"format": "freehold-recording", "version": 2}\n', "version 2 is not known"),
    ],
)
def test_what_is_no_recording_is_told(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(content)
    (problem,) = problems_of(path)
    assert words in problem
    assert list(replay(path)) == []
    assert "cannot be read" in problems_of(tmp_path / "none")[0]
