"""The NVML reader against our own libnvidia-ml.so.1: the real nvidia-ml-py in the real child process, values, errors and hangs.

The same checks run on the scripted reader that tests use instead, so that it may stand for the real one.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from freehold.core import clock
from freehold.health.agent.recording import load_recording
from freehold.health.collectors.nvml import NvmlOptions, NvmlReader
from freehold.health.collectors.nvml_process import Deadlines
from freehold.health.model.view import Gpu, Gpus, Reading, State, View
from healthy_node import DATA
from nvml_shim import H100, Scenario, build, uuid
from recordings import ScriptedReader
from waiting import until, wait_until

DEADLINES = Deadlines(call_s=0.6, init_s=5.0, sweep_s=20.0)
SLACK_S = 1.5
"""For a machine that is busy with other tests."""
POWER = "nvmlDeviceGetPowerUsage"


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="session")
def old_shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a library as old drivers have: without the calls that came later."""
    without = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetMemoryInfo_v2")
    return build(tmp_path_factory.mktemp("nvml-old"), without)


@pytest.fixture
def scenario(shim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scenario:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(shim))
    monkeypatch.setenv("NVML_SHIM_SCENARIO", str(tmp_path / "scenario"))
    return Scenario(tmp_path / "scenario", gpus=2)


def options(root: Path, **change: object) -> NvmlOptions:
    base = NvmlOptions(deadlines=DEADLINES, root=root, retry_s=0.0)
    return NvmlOptions(
        **{**{name: getattr(base, name) for name in ("deadlines", "root", "retry_s", "kill")}, **change}
    )  # type: ignore[arg-type]


def reading(work: Callable[[NvmlReader], Awaitable[None]], opts: NvmlOptions) -> None:
    async def run() -> None:
        reader = NvmlReader(opts)
        try:
            await work(reader)
        finally:
            await reader.close()
            await until(lambda: not reader.pids, what="the children to end")

    asyncio.run(run())


def gpu(gpus: Gpus, index: int) -> Gpu:
    return next(one for one in gpus.gpus if one.index == index)


def check_healthy_h100(gpus: Gpus) -> None:
    """Check what any reader says of an idle H100; the scripted one and the real one alike."""
    one = gpu(gpus, 0)
    assert gpus.state is State.OK
    assert (one.uuid, one.serial, one.pci) == (uuid(0), "0000000000001", "00000000:00:06.0")
    assert one.name == "NVIDIA H100 80GB HBM3"
    values = {name: reading.value for name, reading in one.readings.items()}
    assert values["power_w"] == pytest.approx(117.615)
    assert (values["temperature_c"], values["slowdown_threshold_c"]) == (50, 89)
    assert (values["pcie_gen"], values["pcie_width"], values["throttle_bits"]) == (5, 16, 1)
    assert values["memory_total_bytes"] == 85_520_809_984
    assert values["row_remap_banks_max"] == 2560
    assert values["energy_mj"] == 4_567_916
    assert one.readings["retired_pages_corrected"].state is State.UNSUPPORTED
    assert gpus.driver["driver_version"].value == "580.159.04"


def test_the_real_reader_reads_a_healthy_card(scenario: Scenario, tmp_path: Path) -> None:
    async def work(reader: NvmlReader) -> None:
        gpus = await reader.read()
        check_healthy_h100(gpus)
        one = gpu(gpus, 1).readings
        assert gpu(gpus, 1).uuid == uuid(1)
        assert (one["margin_c"].value, one["slowdown_tlimit_c"].value, one["memory_temp_c"].value) == (
            36,
            -2,
            39,
        )
        assert one["memory_reserved_bytes"].value == 500_000_000
        assert (one["sram_threshold_exceeded"].value, one["recovery_action"].value) == (0, 0)
        again = await reader.read()
        assert again == gpus, "constants are kept between sweeps"

    reading(work, options(tmp_path))


def test_the_scripted_reader_says_the_same() -> None:
    views = load_recording(DATA / "h100_idle.jsonl").views
    reader = ScriptedReader(views=views)
    view = asyncio.run(reader.read())
    assert view.gpus is not None
    check_healthy_h100(view.gpus)


def test_what_changes_is_read_anew_and_a_rise_is_seen(scenario: Scenario, tmp_path: Path) -> None:
    async def work(reader: NvmlReader) -> None:
        await reader.read()
        scenario.set("nvmlDeviceGetRemappedRows", "1 2 1 1")
        scenario.set("nvmlDeviceGetNvLinkState:0", 1)
        scenario.set("nvmlDeviceGetNvLinkState:1", 0)
        scenario.set("field:161:0", 3)
        scenario.set("field:161:1", 4)
        scenario.set("nvmlDeviceGetRetiredPages:1", 3)
        scenario.set("field:230", 2)
        readings = gpu(await reader.read(), 0).readings
        names = ("row_remap_corrected", "row_remap_uncorrected", "row_remap_pending", "row_remap_failure")
        assert [readings[name].value for name in names] == [1, 2, 1, 1]
        assert (readings["nvlink_up"].value, readings["nvlink_down"].value) == (1, "1")
        assert readings["nvlink_replay_errors"].value == 7
        assert readings["retired_pages_uncorrected"].value == 3
        assert readings["recovery_action"].value == 2

    reading(work, options(tmp_path))


@pytest.mark.parametrize(
    ("code", "state"),
    [(15, State.LOST), (16, State.RESET_REQUIRED), (4, State.DENIED), (27, State.TRANSIENT), (999, State.UNKNOWN), (3, State.UNSUPPORTED), (2, State.UNSUPPORTED)],
)  # fmt: skip
def test_each_error_of_one_call_is_its_state(
    scenario: Scenario, tmp_path: Path, code: int, state: State
) -> None:
    scenario.set(POWER, f"!{code}", gpu=1)
    scenario.set("field:194", f"!{code}", gpu=1)

    async def work(reader: NvmlReader) -> None:
        gpus = await reader.read()
        assert gpus.state is State.OK
        one = gpu(gpus, 1).readings
        assert (one["power_w"].state, one["power_w"].value) == (state, None)
        assert str(code) in one["power_w"].detail
        assert one["slowdown_tlimit_c"].state is state
        assert one["slowdown_tlimit_c"].value is None
        assert one["temperature_c"].value == 50
        assert gpu(gpus, 0).readings["power_w"].state is State.OK

    reading(work, options(tmp_path))


def test_a_lost_gpu_keeps_its_name(scenario: Scenario, tmp_path: Path) -> None:
    async def work(reader: NvmlReader) -> None:
        await reader.read()
        scenario.set("nvmlDeviceGetHandleByIndex", "!15", gpu=1)
        gpus = await reader.read()
        assert (gpus.state, gpu(gpus, 1).uuid, gpu(gpus, 1).serial) == (State.OK, uuid(1), "0000000000002")
        assert {one.state for one in gpu(gpus, 1).readings.values()} == {State.LOST}
        assert gpu(gpus, 0).readings["power_w"].state is State.OK

    reading(work, options(tmp_path))


def test_another_gpu_in_its_place_is_not_taken_for_it(scenario: Scenario, tmp_path: Path) -> None:
    async def work(reader: NvmlReader) -> None:
        await reader.read()
        for key, value in (
            ("UUID", uuid(8)),
            ("Serial", "9"),
            ("MaxClockInfo:1", 1755),
            ("Name", "NVIDIA A100"),
        ):
            scenario.set(f"nvmlDeviceGet{key}", value)
        first = gpu(await reader.read(), 0)
        assert (first.uuid, first.serial) == (uuid(8), "")
        assert "sm_clock_max_mhz" not in first.readings
        then = gpu(await reader.read(), 0)
        assert (then.serial, then.name, then.readings["sm_clock_max_mhz"].value) == ("9", "NVIDIA A100", 1755)

    reading(work, options(tmp_path))


def test_an_old_driver_lacks_calls_and_is_asked_the_older_way(
    old_shim: Path, scenario: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(old_shim))
    scenario.set("nvmlDeviceGetCurrentClocksThrottleReasons", 0x44)

    async def work(reader: NvmlReader) -> None:
        one = gpu(await reader.read(), 0).readings
        assert one["throttle_bits"].value == 0x44
        assert (one["memory_used_bytes"].value, one["memory_reserved_bytes"].state) == (
            503_316_480,
            State.UNSUPPORTED,
        )
        assert gpu(await reader.read(), 1).readings["throttle_bits"].state is State.UNSUPPORTED

    reading(work, options(tmp_path))


def test_a_blank_value_is_no_value(scenario: Scenario, tmp_path: Path) -> None:
    scenario.set("nvmlDeviceGetTotalEnergyConsumption", 0x7FFFFFFFFFFFFFF0)

    async def work(reader: NvmlReader) -> None:
        energy = gpu(await reader.read(), 0).readings["energy_mj"]
        assert (energy.state, energy.value) == (State.UNSUPPORTED, None)

    reading(work, options(tmp_path))


@pytest.mark.parametrize(
    ("code", "state"), [(18, State.MISMATCH), (9, State.ABSENT), (4, State.DENIED), (999, State.UNKNOWN)]
)
def test_a_library_that_refuses_and_then_works_again(
    scenario: Scenario, tmp_path: Path, code: int, state: State
) -> None:
    async def work(reader: NvmlReader) -> None:
        scenario.set("nvmlInit", f"!{code}", gpu="*")
        refused = await reader.read()
        assert (refused.state, refused.gpus) == (state, ())
        scenario.set("nvmlInit", 0, gpu="*")
        assert (await reader.read()).state is State.OK

    reading(work, options(tmp_path))


def test_after_a_mismatch_no_process_is_started_for_a_while(scenario: Scenario, tmp_path: Path) -> None:
    scenario.set("nvmlInit", "!18", gpu="*")

    async def work(reader: NvmlReader) -> None:
        assert (await reader.read()).state is State.MISMATCH
        scenario.set("nvmlInit", 0, gpu="*")
        assert (await reader.read()).state is State.MISMATCH
        await until(lambda: not reader.pids)

    reading(work, options(tmp_path, retry_s=600.0))


def test_no_library_at_all_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    if _has_nvml():
        pytest.skip("this machine has an NVIDIA driver")

    async def work(reader: NvmlReader) -> None:
        for _ in range(2):
            gpus = await reader.read()
            assert (gpus.state, gpus.gpus) == (State.ABSENT, ())
            assert "libnvidia-ml.so.1 was not found" in gpus.detail
        assert len(reader.pids) == 1

    reading(work, options(tmp_path))


def _has_nvml() -> bool:
    return Path("/proc/driver/nvidia/version").exists()


def test_a_hang_of_one_call_is_hung_within_the_deadline_and_names_the_call(
    scenario: Scenario, tmp_path: Path
) -> None:
    async def work(reader: NvmlReader) -> None:
        await reader.read()
        scenario.set(POWER, "hang", gpu=1)
        begin_s = clock.monotonic_s()
        gpus = await reader.read()
        took_s = clock.monotonic_s() - begin_s
        assert DEADLINES.call_s <= took_s < DEADLINES.call_s * 1.2 + SLACK_S
        assert gpus.state is State.HUNG
        assert f"{POWER} of GPU 1" in gpus.detail
        assert gpu(gpus, 0).readings["power_w"].value == pytest.approx(117.615), "read before the hang"
        assert {one.state for one in gpu(gpus, 1).readings.values()} == {State.HUNG}
        assert gpu(gpus, 1).uuid == uuid(1)
        scenario.set(POWER, 99_000, gpu=1)
        recovered = await reader.read()
        assert (recovered.state, gpu(recovered, 1).readings["power_w"].value) == (State.OK, 99.0)

    reading(work, options(tmp_path))


def test_a_hanging_start_names_itself(scenario: Scenario, tmp_path: Path) -> None:
    scenario.set("nvmlInit", "hang", gpu="*")

    async def work(reader: NvmlReader) -> None:
        gpus = await reader.read()
        assert (gpus.state, gpus.gpus) == (State.HUNG, ())
        assert gpus.detail.startswith("nvmlInit did not return")

    reading(work, options(tmp_path, deadlines=Deadlines(call_s=0.3, init_s=0.9, sweep_s=20.0)))


def test_slow_calls_are_not_hung(scenario: Scenario, tmp_path: Path) -> None:
    """A sweep far longer than a call's deadline, in which something always moves."""

    async def lift() -> None:
        for index in range(2):
            for key in (POWER, "nvmlDeviceGetPcieReplayCounter", "nvmlDeviceGetTemperature:0"):
                scenario.set(key, "hang", gpu=index)
        for index in range(2):
            for key in ("nvmlDeviceGetTemperature:0", POWER, "nvmlDeviceGetPcieReplayCounter"):
                await asyncio.sleep(0.4)
                scenario.set(key, H100[key], gpu=index)

    async def work(reader: NvmlReader) -> None:
        await reader.read()
        begin_s = clock.monotonic_s()
        lifting = asyncio.create_task(lift())
        gpus = await reader.read()
        await lifting
        assert gpus.state is State.OK, gpus.detail
        assert clock.monotonic_s() - begin_s > 1.5

    reading(work, options(tmp_path, deadlines=Deadlines(call_s=1.5, init_s=5.0, sweep_s=20.0)))


def alive(pid: int) -> bool:
    """Return whether the process runs; a zombie that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_of_processes_that_do_not_die_there_are_at_most_two(scenario: Scenario, tmp_path: Path) -> None:
    """A kill without effect stands for a process in the driver, which survives SIGKILL."""
    killed: list[int] = []

    async def work(reader: NvmlReader) -> None:
        await reader.read()
        scenario.set(POWER, "hang", gpu=1)
        for _ in range(4):
            gpus = await reader.read()
            assert gpus.state is State.HUNG
        assert "no further one is started" in gpus.detail
        assert all(str(pid) in gpus.detail for pid in killed)
        assert [one.uuid for one in gpus.gpus] == [uuid(0), uuid(1)]
        assert {one.state for one in gpu(gpus, 0).readings.values()} == {State.HUNG}
        assert len(set(killed)) == 2
        assert set(reader.pids) == set(killed)
        assert all(alive(pid) for pid in killed)
        scenario.set(POWER, 99_000, gpu=1)
        await until(lambda: len(reader.pids) == 0, what="the hung processes to come back and end")
        recovered = await reader.read()
        assert (recovered.state, gpu(recovered, 1).readings["power_w"].value) == (State.OK, 99.0)

    def no_kill(pid: int, _signal: int) -> None:
        killed.append(pid)

    reading(work, options(tmp_path, kill=no_kill))


FREEZER = Path("/sys/fs/cgroup/freezer")


@pytest.fixture
def freezer() -> Iterator[Path]:
    """Give a cgroup whose processes do not run and, frozen, do not even die of SIGKILL: state D, as in a wedged driver."""
    group = FREEZER / f"freehold-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as exc:
        pytest.skip(f"no version 1 freezer cgroup here: {exc}")
    yield group
    (group / "freezer.state").write_text("THAWED")
    wait_until(lambda: not (group / "cgroup.procs").read_text(), what="the cgroup to empty")
    group.rmdir()


def freeze(group: Path, pid: int) -> None:
    (group / "cgroup.procs").write_text(str(pid))
    (group / "freezer.state").write_text("FROZEN")
    wait_until(lambda: (group / "freezer.state").read_text().strip() == "FROZEN")


def state_letter(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_process_that_survives_sigkill_is_never_waited_for(
    scenario: Scenario, tmp_path: Path, freezer: Path
) -> None:
    """For real: the child in state D with a SIGKILL pending, one replacement, that one hung as well, then both let go."""

    async def work(reader: NvmlReader) -> None:
        await reader.read()
        (first,) = reader.pids
        freeze(freezer, first)
        hung = await reader.read()
        assert (hung.state, state_letter(first)) == (State.HUNG, "D")
        replaced = await reader.read()
        assert replaced.state is State.OK
        assert len(reader.pids) == 2
        (second,) = set(reader.pids) - {first}
        freeze(freezer, second)
        assert (await reader.read()).state is State.HUNG
        begin_s = clock.monotonic_s()
        refused = await reader.read()
        assert clock.monotonic_s() - begin_s < DEADLINES.call_s, "no third child, and no waiting"
        assert f"{first}, {second}" in refused.detail
        assert {state_letter(pid) for pid in reader.pids} == {"D"}
        (freezer / "freezer.state").write_text("THAWED")
        await until(lambda: not reader.pids, what="the killed processes to die")
        assert (await reader.read()).state is State.OK

    reading(work, options(tmp_path))


def test_a_dead_child_is_told_and_replaced(scenario: Scenario, tmp_path: Path) -> None:
    async def work(reader: NvmlReader) -> None:
        await reader.read()
        (pid,) = reader.pids
        os.kill(pid, 9)
        await until(lambda: not alive(pid))
        gpus = await reader.read()
        assert gpus.state is State.UNKNOWN
        assert str(pid) in gpus.detail
        assert [one.uuid for one in gpus.gpus] == [uuid(0), uuid(1)]
        assert (await reader.read()).state is State.OK

    reading(work, options(tmp_path))


def test_a_read_that_is_given_up_leaves_no_half_answer(scenario: Scenario, tmp_path: Path) -> None:
    async def work(reader: NvmlReader) -> None:
        await reader.read()
        scenario.set(POWER, "hang", gpu=0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await reader.read()
        scenario.set(POWER, 50_000, gpu=0)
        assert gpu(await reader.read(), 0).readings["power_w"].value == 50.0

    reading(work, options(tmp_path))


def memory_of(pid: int) -> tuple[int, str]:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]), Path(f"/proc/{pid}/maps").read_text()


def test_the_child_is_small_and_imports_nothing_of_ours(scenario: Scenario, tmp_path: Path) -> None:
    async def work(reader: NvmlReader) -> None:
        await reader.read()
        (pid,) = reader.pids
        rss_kb, maps = memory_of(pid)
        assert rss_kb < 24_000
        assert "libnvidia-ml.so.1" in maps
        assert "msgspec" not in maps

    reading(work, options(tmp_path))


def test_files_of_the_driver_and_the_bus_stand_beside_it(scenario: Scenario, tmp_path: Path) -> None:
    device = tmp_path / "sys/bus/pci/devices/0000:00:06.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x10de\n")
    (device / "class").write_text("0x030200\n")
    module = tmp_path / "sys/module/nvidia"
    module.mkdir(parents=True)
    (module / "version").write_text("580.159.04\n")

    async def work(reader: NvmlReader) -> None:
        gpus = await reader.read()
        assert gpus.pci_addresses == ("00000000:00:06.0",)
        assert gpus.driver["module_version"] == Reading(value="580.159.04")
        assert gpus.driver["disk_version"].state is State.ABSENT

    reading(work, options(tmp_path))


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    assert not [pid for pid in children.read_text().split() if _is_reader(pid)]


def _is_reader(pid: str) -> bool:
    try:
        return b"nvml_child" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_a_view_is_what_a_recording_holds(scenario: Scenario, tmp_path: Path) -> None:
    async def work(reader: NvmlReader) -> None:
        view = View(at_s=1.0, monotonic_s=1.0, gpus=await reader.read())
        assert msgspec.json.decode(msgspec.json.encode(view), type=View) == view

    reading(work, options(tmp_path))
