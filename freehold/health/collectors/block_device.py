"""Which block device is under a volume, what the device counts, and which limits a cgroup sets on it.

Text of /proc and /sys alone, below a root that a test may replace; none of these files can hang. How long a cgroup made a
read wait is not known: cgroup v1 counts no such time, v2 only under io.cost with debug statistics (`cost.wait`), so limits are
evidence and not a measurement. Nothing here judges.
"""

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

from freehold.health.collectors.kernel_files import cgroup_folders, cgroup_paths, text_of, unescaped
from freehold.health.model.view import Reading, State

CHAIN_MOST = 8
"""Devices below one another (loop on dm on md …) that are followed; our own choice, more is a mistake."""
_MEMORY_ONLY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
_NETWORK = re.compile(
    r"^nfs\d?$|^cifs$|^smb3?$|^smbfs$|^ceph$|^lustre$|^beegfs$|^afs$|^gpfs$|^ocfs2$|^gfs2$|^pvfs2$|^orangefs$|^wekafs$"
    r"|^fuse\.(sshfs|s3fs|gcsfuse|goofys|geesefs|mount-s3|mountpoint-s3|rclone|glusterfs|ceph-fuse|juicefs|curlftpfs|davfs2?"
    r"|blobfuse2?|ossfs|alluxio.*|seaweedfs|moosefs|mfs|saunafs|quobyte.*)$"
)
"""Types of file systems that another machine answers. Source: linux/fs of the kernel, and the subtypes that these FUSE programs mount with."""
_USER_SPACE = re.compile(r"fuse(?!ctl)|^9p$|^virtiofs$")
_OWN_READ_ONLY = frozenset({"ro", "emergency_ro"})
"""Options of a super block. Source: proc_pid_mountinfo(5); the latter comes with `rw` when ext4
has given its journal up (seen on Linux 6.18)."""
_THROTTLES = ("read_bps", "read_iops", "write_bps", "write_iops")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """The mount that a path is on."""

    point: str
    file_system: str
    """`ext4`, `fuse.sshfs`, …"""
    source: str
    numbers: str
    """`MAJOR:MINOR` of its device; major 0: no block device of its own."""
    read_only: str = ""
    """`mount`: it was mounted so; `file_system`: the mount is not, the file system itself is; empty: it can be written."""

    @property
    def in_memory(self) -> bool:
        """Return whether there is no disk under it at all."""
        return self.file_system in _MEMORY_ONLY


def is_user_space(file_system: str) -> bool:
    """Return whether a file system of that type is answered by a process or over a network, not by a block device."""
    return bool(_USER_SPACE.search(file_system)) or is_network(file_system)


def is_network(file_system: str) -> bool:
    """Return whether a file system of that type is answered by another machine, as far as its name tells."""
    return bool(_NETWORK.search(file_system))


def mount_of(path: str, mountinfo: str) -> Mount | None:
    """Return the mount with the longest mount point above `path`, of equal ones the last; None: there is none.

    `mountinfo` is the text of /proc/self/mountinfo (proc_pid_mountinfo(5)).
    """
    best: Mount | None = None
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, ends = left.split(" "), right.split(" ")
        if len(fields) < 5 or len(ends) < 2:
            continue
        point = unescaped(fields[4])
        if _above(point, path) and (best is None or len(point) >= len(best.point)):
            best = Mount(
                point=point,
                file_system=ends[0],
                source=unescaped(ends[1]),
                numbers=fields[2],
                read_only=_read_only(fields[5:6], ends[2:3]),
            )
    return best


def _read_only(mount: list[str], file_system: list[str]) -> str:
    """Return which of the options (of the mount, of the file system's super block) say `ro`."""
    if any("ro" in options.split(",") for options in mount):
        return "mount"
    own = {option for options in file_system for option in options.split(",")}
    return "file_system" if own & _OWN_READ_ONLY else ""


def _above(point: str, path: str) -> bool:
    return point in {"/", path} or path.startswith(point + "/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A block device."""

    name: str
    """`nvme0n1p2`, `dm-0`, `loop0`."""
    numbers: str
    """`MAJOR:MINOR`."""
    rotational: bool | None
    """As the kernel says, which of a virtual disk often says yes; None: it says nothing."""
    below: tuple[str, ...] = ()
    """`MAJOR:MINOR` of the whole disk and of what is under it, itself left out."""
    disks: tuple[str, ...] = ()
    """The same devices by name: a volume of LVM, of mdraid or encrypted is only as well as what is under it."""


def device_of(numbers: str, source: str, root: Path) -> Device | None:
    """Return the block device `MAJOR:MINOR`, or of a file system without one that of its source; None: it has none."""
    folder = root / "sys/dev/block" / numbers
    if not folder.exists():
        found = re.fullmatch(r"/dev/(?:mapper/)?([\w.!-]+)", source)
        folder = root / "sys/class/block" / _kernel_name(found[1], root) if found else folder
        numbers = text_of(folder / "dev") if found else ""
    if not numbers or not folder.exists():
        return None
    real = folder.resolve()
    queue = real / "queue" if (real / "queue").exists() else real.parent / "queue"
    rotational = text_of(queue / "rotational")
    under = _under(real)
    below = ((each, text_of(each / "dev")) for each in under)
    return Device(
        name=real.name,
        numbers=numbers,
        rotational=rotational == "1" if rotational else None,
        below=tuple(found for _, found in below if found),
        disks=tuple(dict.fromkeys(each.name for each in under)),
    )


def _kernel_name(name: str, root: Path) -> str:
    """Return `dm-0` for what is called `vg-models` or `luks-…` below /dev/mapper."""
    named = (root / "sys/class/block").glob("dm-*")
    return next((device.name for device in named if text_of(device / "dm/name") == name), name)


def _under(folder: Path) -> list[Path]:
    """Return the folders of what is under a device: its whole disk, and what that is made of."""
    found: list[Path] = []
    todo = [folder]
    while todo and len(found) < CHAIN_MOST:
        here = todo.pop(0)
        if (here / "partition").exists():
            todo.append(here.parent)
        with contextlib.suppress(OSError):
            todo += [entry.resolve() for entry in (here / "slaves").iterdir()]
        if here != folder:
            found.append(here)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticks:
    """A device's own counts since it exists (kernel Documentation/block/stat.rst)."""

    reads: int
    read_s: float
    """Summed over reads, from the device's queue to its answer."""
    in_flight: int
    queue_s: float
    """Summed over everything that was under way; its growth per second is the mean length of the queue."""


def ticks_of(numbers: str, root: Path) -> Ticks | None:
    """Return the counts of the device `MAJOR:MINOR`; None: they cannot be read."""
    fields = text_of(root / "sys/dev/block" / numbers / "stat").split()
    if len(fields) < 11:
        return None
    return Ticks(
        reads=int(fields[0]),
        read_s=int(fields[3]) / 1000,
        in_flight=int(fields[8]),
        queue_s=int(fields[10]) / 1000,
    )


def read_ticks_s(before: Ticks | None, now: Ticks | None) -> Reading:
    """Return the mean seconds per read that ended between two looks; without such a read TRANSIENT, never 0."""
    if now is None:
        return Reading(state=State.UNSUPPORTED, detail="this volume has no block device of its own")
    if before is None:
        return Reading(state=State.TRANSIENT, detail="first look")
    reads = now.reads - before.reads
    if reads <= 0:
        return Reading(state=State.TRANSIENT, detail="no read ended")
    return Reading(value=max(0.0, now.read_s - before.read_s) / reads)


def limits_of(pid: int, devices: tuple[str, ...], root: Path) -> tuple[str, ...]:
    """Return the blkio limits that hold for a process on these devices, such as `read_iops 5 (blkio:/serving, 7:0)`.

    Those of its cgroup and of every one above, v1 and v2. Limits of other cgroups, the engine's for one, are not seen.
    """
    found: list[str] = []
    for version, path in cgroup_paths(root, str(pid), "blkio"):
        limits_in = _v1_limits if version == 1 else _v2_limits
        for group in cgroup_folders(root, path, version=version, controller="blkio"):
            found += limits_in(group, path, devices)
    return tuple(dict.fromkeys(found))


def waited_s(pid: int, devices: tuple[str, ...], root: Path) -> float | None:
    """Return how long io.cost has made the process's cgroup wait on these devices, ever; None: the kernel does not say."""
    groups = [path for version, path in cgroup_paths(root, str(pid), "") if version == 2]
    for group in (
        folder for path in groups for folder in cgroup_folders(root, path, version=2, controller="")[:1]
    ):
        for row in text_of(group / "io.stat").splitlines():
            found = re.search(r"cost\.wait=(\d+)", row)
            if row.split(" ")[0] in devices and found:
                return int(found[1]) / 1e6
    return None


def _v1_limits(group: Path, path: str, devices: tuple[str, ...]) -> list[str]:
    rows = [(name, text_of(group / f"blkio.throttle.{name}_device")) for name in _THROTTLES]
    return [
        f"{name} {value} (blkio:{path}, {device})"
        for name, text in rows
        for device, _, value in (line.partition(" ") for line in text.splitlines())
        if device in devices
    ]


def _v2_limits(group: Path, path: str, devices: tuple[str, ...]) -> list[str]:
    found = []
    for line in text_of(group / "io.max").splitlines():
        device, _, rest = line.partition(" ")
        set_here = [word.replace("=", " ") for word in rest.split() if not word.endswith("=max")]
        found += [f"{words} (io.max:{path}, {device})" for words in set_here if device in devices]
    return found
