"""Which device is under a path and what the kernel counts of it, from a tree of files that a test writes."""

from pathlib import Path

import pytest

from freehold.health.collectors.block_device import (
    Ticks,
    device_of,
    is_network,
    is_user_space,
    limits_of,
    mount_of,
    read_ticks_s,
    ticks_of,
    waited_s,
)
from freehold.health.model.view import State

MOUNTS = r"""22 27 0:21 / /proc rw - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 27 0:50 / /mnt/my\040models rw shared:7 - fuse.sshfs host:/m rw
41 27 259:1 / /mnt rw - xfs /dev/nvme0n1p1 rw
42 27 0:44 / /dev/shm rw - tmpfs tmpfs rw
43 27 0:31 /@data /data rw - btrfs /dev/sdb rw
44 27 0:60 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio
45 27 0:61 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
garbled
"""


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("/", "/dev/vda"),
        ("/mntx", "/dev/vda"),
        ("/mnt", "/dev/nvme0n1p1"),
        ("/mnt/a/b", "/dev/nvme0n1p1"),
        ("/mnt/my models/x", "host:/m"),
        ("/dev/shm/a", "tmpfs"),
    ],
)
def test_the_nearest_mount_is_found(path: str, source: str) -> None:
    mount = mount_of(path, MOUNTS)
    assert mount is not None
    assert mount.source == source


def test_a_later_mount_on_the_same_point_hides_the_earlier() -> None:
    mount = mount_of("/mnt/a", MOUNTS + "50 27 8:1 / /mnt rw - ext4 /dev/sda1 rw\n")
    assert mount is not None
    assert mount.source == "/dev/sda1"


def test_memory_and_user_space_file_systems_are_known() -> None:
    shm, models = mount_of("/dev/shm", MOUNTS), mount_of("/mnt/my models", MOUNTS)
    assert shm is not None
    assert models is not None
    assert shm.in_memory
    assert is_user_space(models.file_system)
    assert [is_user_space(name) for name in ("nfs4", "fuse", "fuseblk", "9p", "ext4", "fusectl", "xfs")] == [
        *(True, True, True, True),
        *(False, False, False),
    ]


@pytest.mark.parametrize(
    ("name", "network", "user_space"),
    [
        ("nfs", True, True),
        ("nfs4", True, True),
        ("cifs", True, True),
        ("smb3", True, True),
        ("ceph", True, True),
        ("lustre", True, True),
        ("fuse.sshfs", True, True),
        ("fuse.gcsfuse", True, True),
        ("fuse.bindfs", False, True),
        ("fuseblk", False, True),
        ("fuse", False, True),
        ("9p", False, True),
        ("virtiofs", False, True),
        ("nfsd", False, False),  # the server's own control files
        ("fusectl", False, False),
        ("ext4", False, False),
    ],
)
def test_storage_of_other_machines_is_known_by_its_type(name: str, network: bool, user_space: bool) -> None:  # noqa: FBT001
    assert (is_network(name), is_user_space(name)) == (network, user_space)


@pytest.mark.parametrize(
    ("mount_options", "super_options", "read_only"),
    [
        ("rw,relatime", "rw", ""),
        ("ro,relatime", "rw", "mount"),  # a bind mount
        ("ro,relatime", "ro", "mount"),
        ("rw,relatime", "ro,errors=remount-ro", "file_system"),  # ext4 after an error
        ("rw,noatime", "rw,emergency_ro", "file_system"),  # the same, seen on Linux 6.18
        ("rw,errors=ro", "rw,protocol=x", ""),
    ],
)
def test_why_a_volume_is_read_only(mount_options: str, super_options: str, read_only: str) -> None:
    line = f"36 35 98:0 / /m {mount_options} master:1 - ext4 /dev/root {super_options}\n"
    mount = mount_of("/m", line)
    assert mount is not None
    assert mount.read_only == read_only


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    disk = tmp_path / "sys/devices/pci/nvme0n1"
    write(disk / "dev", "259:0\n")
    write(disk / "queue/rotational", "0\n")
    write(disk / "nvme0n1p1/dev", "259:1\n")
    write(disk / "nvme0n1p1/partition", "1\n")
    write(
        disk / "nvme0n1p1/stat",
        " 253742 32058 7566370 880293 101699 103940 8060928 408300 3 82700 1317455 0 0 0 0 0 0\n",
    )
    mapped = tmp_path / "sys/devices/virtual/block/dm-0"
    write(mapped / "dev", "253:0\n")
    write(mapped / "queue/rotational", "0\n")
    (mapped / "slaves").mkdir()
    (mapped / "slaves/nvme0n1p1").symlink_to(disk / "nvme0n1p1")
    links = tmp_path / "sys/dev/block"
    links.mkdir(parents=True)
    (links / "259:1").symlink_to(disk / "nvme0n1p1")
    (links / "253:0").symlink_to(mapped)
    by_name = tmp_path / "sys/class/block"
    by_name.mkdir(parents=True)
    (by_name / "dm-0").symlink_to(mapped)
    return tmp_path


def test_a_partition_has_its_disk_below(root: Path) -> None:
    device = device_of("259:1", "/dev/nvme0n1p1", root)
    assert device is not None
    assert (device.name, device.rotational, device.below) == ("nvme0n1p1", False, ("259:0",))


def test_a_mapped_device_has_partition_and_disk_below(root: Path) -> None:
    device = device_of("253:0", "", root)
    assert device is not None
    assert set(device.below) == {"259:1", "259:0"}
    assert set(device.disks) == {"nvme0n1p1", "nvme0n1"}


def test_a_file_system_without_a_device_number_is_known_by_its_source(root: Path) -> None:
    device = device_of("0:31", "/dev/mapper/dm-0", root)
    assert device is not None
    assert (device.name, device.numbers) == ("dm-0", "253:0")
    (root / "sys/class/block/dm-0/dm").mkdir()
    (root / "sys/class/block/dm-0/dm/name").write_text("luks-7\n")
    mapped = device_of("0:31", "/dev/mapper/luks-7", root)
    assert mapped is not None
    assert (mapped.name, mapped.numbers) == ("dm-0", "253:0")
    assert device_of("0:31", "/dev/mapper/other", root) is None
    assert device_of("0:50", "host:/m", root) is None
    assert device_of("0:50", "overlay", root) is None


def test_ticks_are_what_the_device_counted_between_two_looks(root: Path) -> None:
    now = ticks_of("259:1", root)
    assert now == Ticks(reads=253742, read_s=880.293, in_flight=3, queue_s=1317.455)
    before = Ticks(reads=253740, read_s=880.133, in_flight=0, queue_s=1317.0)
    assert read_ticks_s(before, now).value == pytest.approx(0.08)


def test_no_read_gives_no_ticks_and_never_zero(root: Path) -> None:
    now = ticks_of("259:1", root)
    states = [read_ticks_s(now, now).state, read_ticks_s(None, now).state, read_ticks_s(now, None).state]
    assert states == [State.TRANSIENT, State.TRANSIENT, State.UNSUPPORTED]
    assert ticks_of("8:0", root) is None


def cgroups(root: Path) -> None:
    write(root / "proc/self/mountinfo", MOUNTS)
    write(root / "proc/7/cgroup", "7:blkio:/serving/engine\n0::/serving\n")


def test_limits_of_the_own_cgroup_and_those_above_are_found(root: Path) -> None:
    cgroups(root)
    v1 = root / "sys/fs/cgroup/blkio"
    write(v1 / "serving/engine/blkio.throttle.read_iops_device", "259:0 5\n8:0 7\n")
    write(v1 / "serving/blkio.throttle.read_bps_device", "259:0 1000000\n")
    v2 = root / "sys/fs/cgroup/unified"
    write(v2 / "serving/io.max", "259:1 rbps=max wbps=max riops=9 wiops=max\n8:0 riops=1\n")
    found = limits_of(7, ("259:1", "259:0"), root)
    assert [limit.split(" (")[0] for limit in found] == ["read_iops 5", "read_bps 1000000", "riops 9"]


def test_without_cgroups_there_are_no_limits(root: Path) -> None:
    assert limits_of(7, ("259:1",), root) == ()


def test_waiting_is_known_only_where_the_kernel_counts_it(root: Path) -> None:
    cgroups(root)
    stat = root / "sys/fs/cgroup/unified/serving/io.stat"
    write(stat, "259:0 rbytes=1 cost.usage=5\n")
    assert waited_s(7, ("259:0",), root) is None
    write(stat, "259:0 rbytes=1 cost.usage=5 cost.wait=2500000 cost.indebt=0\n")
    assert waited_s(7, ("259:0",), root) == 2.5
    assert waited_s(7, ("8:0",), root) is None
