"""Readers of host and links on a tree of files that a test writes."""

import asyncio
import os
from pathlib import Path

import pytest

from freehold.core.clock import slept_s, wall_s
from freehold.health.collectors.cgroup_limits import cpu_quota, memory_limit
from freehold.health.collectors.host import HostOptions, HostReader, Synchronised, ask_kernel_clock
from freehold.health.collectors.links import RdmaReader, read_interfaces, read_tcp
from freehold.health.collectors.network import NetworkReader
from freehold.health.model.view import Network, State


class Hands:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return 1_000_000.0 + self.now_s


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_memory_is_read_in_bytes_and_seconds(tmp_path: Path) -> None:
    write(
        tmp_path / "proc/meminfo",
        "MemTotal: 1000 kB\nMemAvailable: 250 kB\nSwapTotal: 80 kB\nSwapFree: 30 kB\n",
    )
    write(tmp_path / "proc/vmstat", "pgfault 1\noom_kill 3\n")
    write(
        tmp_path / "proc/pressure/memory",
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=500000\n",
    )
    memory = HostReader(HostOptions(root=tmp_path)).read().memory
    assert {name: reading.value for name, reading in memory.items() if not name.startswith("limit_")} == {
        "total_bytes": 1_024_000,
        "available_bytes": 256_000,
        "swap_used_bytes": 51_200,
        "pressure_some_s": 2.5,
        "pressure_full_s": 0.5,
        "oom_kills": 3,
    }


def test_what_is_not_there_is_no_number(tmp_path: Path) -> None:
    host = HostReader(HostOptions(root=tmp_path, ask_clock=lambda: None)).read()
    assert all(reading.value is None for reading in host.memory.values())
    assert host.memory["pressure_full_s"].state is State.UNSUPPORTED
    assert host.clock["synchronised"].state is State.UNSUPPORTED
    assert (host.blocked, host.edac) == ({}, {})


def test_the_clock_is_given_with_what_the_kernel_says(tmp_path: Path) -> None:
    said = Synchronised(synchronised=True, estimated_error_s=0.001, maximum_error_s=0.02)
    read = (
        HostReader(HostOptions(root=tmp_path, time=Hands(), slept_s=lambda: 0.0, ask_clock=lambda: said))
        .read()
        .clock
    )
    assert read["wall_minus_monotonic_s"].value == 1_000_000.0
    assert (read["synchronised"].value, read["maximum_error_s"].value) == (1, 0.02)


def test_a_machine_that_slept_and_woke_has_no_clock_that_jumped(tmp_path: Path) -> None:
    """The monotonic clock stands still in sleep and the wall clock goes on."""

    class Woken(Hands):
        def wall_s(self) -> float:
            return super().wall_s() + 8 * 3600

    options = HostOptions(root=tmp_path, time=Woken(), slept_s=lambda: 8 * 3600.0, ask_clock=lambda: None)
    assert HostReader(options).read().clock["wall_minus_monotonic_s"].value == 1_000_000.0
    assert 0 <= slept_s() < wall_s()


V2 = "22 1 0:61 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
V1 = "22 1 0:61 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n23 1 0:62 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"


def test_the_tightest_memory_limit_above_is_read_and_page_cache_counts_as_free(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/mountinfo", V2)
    write(tmp_path / "proc/self/cgroup", "0::/serving/freehold\n")
    group = tmp_path / "sys/fs/cgroup/serving"
    for folder, limit, used, cache in ((group, "1000", "900", 100), (group / "freehold", "max", "800", 100)):
        write(folder / "memory.max", f"{limit}\n")
        write(folder / "memory.current", f"{used}\n")
        write(folder / "memory.stat", f"anon 700\ninactive_file {cache}\nactive_file 50\n")
    write(group / "cpu.max", "150000 100000\n")
    write(group / "freehold/cpu.max", "max 100000\n")
    found = {name: reading.value for name, reading in memory_limit(tmp_path).items()}
    assert found == {"limit_bytes": 1000, "limit_available_bytes": 250}
    assert cpu_quota(tmp_path) == 1.5


def test_version_1_and_its_largest_number_for_no_limit(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/mountinfo", V1)
    write(tmp_path / "proc/self/cgroup", "4:memory:/docker/7\n3:cpu,cpuacct:/docker/7\n")
    top = tmp_path / "sys/fs/cgroup/memory"
    write(top / "memory.limit_in_bytes", "9223372036854771712\n")
    write(top / "memory.usage_in_bytes", "5\n")
    assert memory_limit(tmp_path)["limit_bytes"].state is State.UNSUPPORTED
    write(top / "memory.limit_in_bytes", "1000\n")
    write(top / "memory.usage_in_bytes", "980\n")
    write(top / "memory.stat", "inactive_file 1\ntotal_inactive_file 30\ntotal_active_file 10\n")
    assert memory_limit(tmp_path)["limit_available_bytes"].value == 60
    write(tmp_path / "sys/fs/cgroup/cpu/docker/7/cpu.cfs_quota_us", "-1\n")
    write(tmp_path / "sys/fs/cgroup/cpu/docker/7/cpu.cfs_period_us", "100000\n")
    assert cpu_quota(tmp_path) is None
    write(tmp_path / "sys/fs/cgroup/cpu/docker/7/cpu.cfs_quota_us", "50000\n")
    assert cpu_quota(tmp_path) == 0.5


def test_this_kernel_answers_adjtimex() -> None:
    said = ask_kernel_clock()
    assert said is not None
    assert said.estimated_error_s >= 0
    assert 0 <= said.maximum_error_s <= 3600


def process(root: Path, pid: int, stat: str, wchan: str = "0") -> None:
    write(root / f"proc/{pid}/stat", stat)
    write(root / f"proc/{pid}/wchan", wchan)


def test_blocked_processes_have_name_and_place_and_ours_are_left_out(tmp_path: Path) -> None:
    process(tmp_path, 7, "7 (nvidia-smi) D 1 7 7", "rwsem_down_write")
    process(tmp_path, 8, "8 (a (b) D) S 1 8 8")
    process(tmp_path, 9, "9 (freehold-disk) D 1 9 9", "submit_bio_wait")
    process(tmp_path, 10, "10 (x y) D 1 9 9")
    process(tmp_path, 11, "")
    assert HostReader(HostOptions(root=tmp_path)).read().blocked == {
        "7 nvidia-smi": "rwsem_down_write",
        "10 x y": "0",
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_another_users_process_is_not_taken_for_the_drivers(tmp_path: Path) -> None:
    process(tmp_path, 7, "7 (nvidia-smi) D 1 7 7", "kernel_clone")
    os.chown(tmp_path / "proc/7", 65534, 65534)
    assert HostReader(HostOptions(root=tmp_path)).read().blocked == {}


def test_processes_are_looked_at_seldom(tmp_path: Path) -> None:
    hands = Hands()
    reader = HostReader(HostOptions(root=tmp_path, time=hands, blocked_every_s=20))
    reader.read()
    process(tmp_path, 7, "7 (cp) D 1 7 7", "wait")
    hands.now_s += 19
    assert reader.read().blocked == {}
    hands.now_s += 2
    assert reader.read().blocked == {"7 cp": "wait"}


def test_memory_controllers_add_up(tmp_path: Path) -> None:
    for number, uncorrected in ((0, 1), (1, 2)):
        write(tmp_path / f"sys/devices/system/edac/mc/mc{number}/ue_count", f"{uncorrected}\n")
        write(tmp_path / f"sys/devices/system/edac/mc/mc{number}/ce_count", "10\n")
    write(tmp_path / "sys/devices/system/edac/mc/power/control", "auto\n")
    assert HostReader(HostOptions(root=tmp_path)).read().edac == {"ce_count": 20, "ue_count": 3}


def interface(root: Path, name: str, *, hardware: bool = True, **files: str) -> None:
    folder = root / "sys/class/net" / name
    write(folder / "operstate", files.pop("operstate", "up\n"))
    if hardware:
        (folder / "device").mkdir()
    for file, text in files.items():
        write(folder / file, text)


def test_interfaces_with_hardware_count_and_named_ones_always(tmp_path: Path) -> None:
    interface(
        tmp_path,
        "eth0",
        carrier="1\n",
        carrier_changes="2\n",
        carrier_up_count="1\n",
        speed="25000\n",
        flags="0x1003\n",
    )
    interface(tmp_path, "lo", hardware=False)
    interface(tmp_path, "vxlan0", hardware=False)
    write(tmp_path / "sys/class/net/eth0/statistics/rx_crc_errors", "4\n")
    (eth0, vxlan0) = read_interfaces(tmp_path, named=["vxlan0"])
    assert (eth0.name, eth0.operstate, eth0.wanted_up, vxlan0.name) == ("eth0", "up", True, "vxlan0")
    assert (eth0.carrier.value, eth0.carrier_changes.value, eth0.speed_mbit_s.value) == (1, 2, 25000)
    assert eth0.counters == {"rx_crc_errors": 4}
    assert vxlan0.carrier.state is State.UNSUPPORTED


def test_an_unknown_speed_is_no_number(tmp_path: Path) -> None:
    interface(tmp_path, "eth0", speed="-1\n", flags="0x1002\n")
    (eth0,) = read_interfaces(tmp_path)
    assert (eth0.speed_mbit_s.state, eth0.speed_mbit_s.value, eth0.wanted_up) == (
        State.UNSUPPORTED,
        None,
        False,
    )


def test_a_driver_that_refuses_to_tell_the_speed_of_a_link_that_is_up_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interface(tmp_path, "eth0", speed="", carrier="1\n")
    interface(tmp_path, "eth1", speed="", carrier="0\n")
    plain = Path.read_text

    def refuse(self: Path, encoding: str | None = None, errors: str | None = None) -> str:
        if self.name == "speed":
            raise OSError(22, "Invalid argument")
        return plain(self, encoding=encoding, errors=errors)

    monkeypatch.setattr(Path, "read_text", refuse)
    states = [each.speed_mbit_s.state for each in read_interfaces(tmp_path)]
    assert states == [State.UNSUPPORTED, State.TRANSIENT]


def test_tcp_counts_are_found_by_their_names(tmp_path: Path) -> None:
    assert read_tcp(tmp_path)[0].state is State.UNSUPPORTED
    write(tmp_path / "proc/net/snmp", "Ip: A\nIp: 1\nTcp: InSegs OutSegs RetransSegs\nTcp: 5 1000 7\n")
    retransmitted, sent = read_tcp(tmp_path)
    assert (retransmitted.value, sent.value) == (7, 1000)


COUNTERS = ("link_downed", "symbol_error", "rnr_nak_retry_err", "port_rcv_errors")


def rdma_port(root: Path, device: str = "mlx5_0", port: int = 1) -> Path:
    folder = root / "sys/class/infiniband" / device / "ports" / str(port)
    write(folder / "state", "4: ACTIVE\n")
    write(folder / "phys_state", "5: LinkUp\n")
    write(folder / "counters/link_downed", "0\n")
    write(folder / "counters/symbol_error", "12\n")
    write(folder / "hw_counters/rnr_nak_retry_err", "3\n")
    return folder


def test_rdma_ports_have_state_and_the_counters_that_exist(tmp_path: Path) -> None:
    rdma_port(tmp_path)
    rdma_port(tmp_path, "mlx5_1", 2)
    first, second = RdmaReader(tmp_path, counters=COUNTERS).read()
    assert (first.device, first.port, first.state, first.physical_state) == ("mlx5_0", 1, "ACTIVE", "LinkUp")
    assert first.counters == {"link_downed": 0, "symbol_error": 12, "rnr_nak_retry_err": 3}
    assert (second.device, second.port, second.denied) == ("mlx5_1", 2, ())


def test_what_a_link_was_is_remembered_for_longer_than_a_window(tmp_path: Path) -> None:
    net, rdma = tmp_path / "sys/class/net/eth0", tmp_path / "sys/class/infiniband/mlx5_0/ports/1"
    (net / "device").mkdir(parents=True)
    hands = Hands()
    reader = NetworkReader("a", root=tmp_path, clock=hands)

    def read(speed: str, state: str, phys_state: str) -> Network:
        write(net / "speed", speed)
        write(rdma / "state", state)
        write(rdma / "phys_state", phys_state)
        hands.now_s += 60.0
        return asyncio.run(reader.read())

    network = read("25000", "4: ACTIVE", "5: LinkUp")
    assert network.rdma[0].was_up
    for _ in range(3):
        network = read("10000", "1: DOWN", "2: Polling")
    assert (network.interfaces[0].speed_mbit_s.value, network.interfaces[0].fastest_mbit_s) == (10000, 25000)
    assert (network.rdma[0].state, network.rdma[0].was_up) == ("DOWN", True)


def test_without_rdma_there_are_no_ports(tmp_path: Path) -> None:
    assert RdmaReader(tmp_path, counters=COUNTERS).read() == ()


def test_a_refused_counter_is_left_alone_and_asked_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = rdma_port(tmp_path) / "counters/symbol_error"
    hands, asked = Hands(), []
    reader = RdmaReader(tmp_path, counters=COUNTERS, time=hands, every_s=5)
    plain = Path.read_text

    def refuse(self: Path, encoding: str | None = None, errors: str | None = None) -> str:
        if self == path:
            asked.append(hands.now_s)
            raise PermissionError(13, "Permission denied")
        return plain(self, encoding=encoding, errors=errors)

    monkeypatch.setattr(Path, "read_text", refuse)
    for _ in range(400):
        (port,) = reader.read()
        assert port.denied == ("symbol_error",)
        assert "symbol_error" not in port.counters
        hands.now_s += 5
    assert len(asked) == 3  # at once, after 600 s, and 1200 s after that
    monkeypatch.undo()
    hands.now_s += 86_400
    (port,) = reader.read()
    assert port.counters["symbol_error"] == 12
    assert port.denied == ()


def test_rdma_counters_are_not_read_more_often_than_asked(tmp_path: Path) -> None:
    path = rdma_port(tmp_path) / "counters/link_downed"
    hands = Hands()
    reader = RdmaReader(tmp_path, counters=COUNTERS, time=hands, every_s=5)
    reader.read()
    path.write_text("1\n")
    hands.now_s += 4
    assert reader.read()[0].counters["link_downed"] == 0
    hands.now_s += 2
    assert reader.read()[0].counters["link_downed"] == 1
