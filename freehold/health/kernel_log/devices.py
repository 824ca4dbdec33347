"""What kernel lines tell of disks, file systems and network cards.

Formats: the kernel's sources (block/blk-core.c, fs/buffer.c, drivers/nvme/host, drivers/scsi, drivers/ata, drivers/md, fs/ext4,
fs/xfs, fs/btrfs, drivers/net/ethernet/mellanox/mlx5/core/health.c, net/sched/sch_generic.c), also as they were worded in
older ones. What is normal on a sound machine is no event: an empty drive, a discard that a disk refuses. Nothing here
judges.
"""

import re

from freehold.health.kernel_log.kinds import Kind, Seen, pci_key

_IO_ERROR = re.compile(
    r"(?:(?:blk_update_request|print_req_error|end_request): )?"
    r"(I/O|critical medium|critical target|critical space allocation|timeout|recoverable transport|protection|device offline) error, "
    r"dev ([\w!-]+), sector (\d+)(?: op 0x[0-9a-f]+:\((\w+)\))?"
)
_NVME_STATUS = re.compile(
    r"(nvme\d+(?:c\d+)?n\d+): (.{1,40}?)\(0x[0-9a-f]+\) @ LBA \d+, .*\(sct 0x([23]) / sc 0x([0-9a-f]+)\)"
)
_MEDIA_STATUS = "2"  # NVMe base specification, status code type 2h: media and data integrity errors; 3h: path
_ATA_UNCORRECTABLE = re.compile(r"(ata\d+(?:\.\d+)?): error: \{ [^}]*\bUNC\b")
_BUFFER = re.compile(r"Buffer I/O error on dev(?:ice)? ([\w!-]+), logical block (\d+)")
_SENSE = re.compile(r"sd \S+: \[(\w+)\].* Sense Key : (Medium|Hardware) Error")
_ATA = re.compile(r"(ata\d+(?:\.\d+)?): failed command: (\S.*)")
_NVME_TIMEOUT = re.compile(
    r"nvme (nvme\d+): I/O (?:tag )?\d+ .*?(?:QID|qid) (\d+) timeout, (reset controller|aborting|disable controller)"
)
_NVME_DOWN = re.compile(r"nvme (nvme\d+): controller is down; will reset: (CSTS=\S+)")
_NVME_GONE = re.compile(
    r"nvme (nvme\d+): (Disabling device after reset failure|Removing after probe failure|Device not ready; aborting \w+)"
    r"|(?=(nvme\d+(?:c\d+)?n\d+): detected capacity change from [1-9]\d* to 0\b)"
)
_RAID_DEAD = re.compile(
    r"(megaraid_sas|mpt3sas_cm\d+|smartpqi|hpsa)\b.*(?:in FAULT state|fault_state\(0x[1-9a-f]|controller is offline)"
)
_POOL = re.compile(r"WARNING: Pool '([\w.-]+)' has encountered an uncorrectable I/O failure")
_JOURNAL = re.compile(
    r"JBD2: Detected IO errors while flushing file data on ([\w!-]+?)(?:-\d+)?$|Aborting journal on device ([\w!-]+?)(?:-\d+)?\."
)
_NO_PATH = re.compile(r"(?:block|nvme) (nvme\w+): no available path - failing I/O")
_INACCESSIBLE = re.compile(
    r"(nvidia|nvme|mlx5_core) ([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]): "
    r"(?:Unable to|[Cc]an't) change power state from D3cold to D0,? \(?(?:device|config space) inaccessible"
)
_LOST = {"nvidia": Kind.OFF_BUS, "nvme": Kind.DISK_GONE, "mlx5_core": Kind.NIC_FAILED}
_RAID = re.compile(r"md/\w+:\w+: Disk failure on (\w+), disabling device")
_DEVICE = r"([\w!-]+)"
_READ_ONLY = (
    re.compile(rf"(?:EXT[234]|F2FS)-fs \({_DEVICE}\): Remounting filesystem read-only"),
    re.compile(rf"BTRFS[\w ]* \(device {_DEVICE}[^)]*\).* forced readonly"),
)
_FILE_SYSTEM = (
    re.compile(rf"EXT[234]-fs error \(device {_DEVICE}\)"),
    re.compile(
        rf"EXT[234]-fs \({_DEVICE}\): (?:failed to convert unwritten|previous I/O error|.{{0,60}}potential data loss)"
    ),
    re.compile(
        rf"XFS \({_DEVICE}\): (?:[Mm]etadata (?:I/O error|[Cc]orruption)|Corruption|log I/O error|Filesystem has been shut|xfs_do_force_shutdown|I/O Error Detected)"
    ),
    re.compile(
        rf"BTRFS error \(device {_DEVICE}[^)]*\).*(?:errs: wr|parent transid verify failed|unable to fixup)"
    ),
    re.compile(rf"BTRFS warning \(device {_DEVICE}[^)]*\).* csum failed"),
)
_NORMAL_DEVICE = re.compile(r"(?:fd|sr)\d+")  # a floppy or optical drive without a medium fails every read
_OPTIONAL_OPERATIONS = frozenset({"DISCARD", "WRITE_ZEROES", "SECURE_ERASE", "WRITE_SAME"})
_MLX5 = re.compile(r"mlx5_core ([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])(?: \w+)?: (.*)", re.DOTALL)
_MLX5_FAILED = re.compile(
    r"timeout\. Will cause a leak of a command resource|device's health compromised|unrecoverable hardware error"
    r"|Fatal error \d+ detected"
)
_MLX5_ERROR = re.compile(
    r"synd 0x(?!0+:)[0-9a-f]+: .*|Port module event\[error\]: .*|High temperature on sensors.*"
)
_MLX5_HEALTH = re.compile(r"Health issue observed, (.*?), severity\((\d)\)")
_SEVERITY_CRITICAL = (
    2  # mlx5 health.c: 0 emergency, 1 alert, 2 critical, 3 error, 4 warning, 5 notice, 6 info
)
_SEVERITY_ERROR = 3  # the same list
_TRANSMIT = r"transmit queue (\d+) timed out"
_WATCHDOG_NEW = re.compile(rf"(\S+) (\S+) (\S+?)(?: \([^)]*\))?: NETDEV WATCHDOG: (?:CPU: \d+: )?{_TRANSMIT}")
_HANG = re.compile(
    r"(\w+) ([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])(?: (?!\()(\S+?))?(?: \([^)]*\))?: (?:\w+: )?(?:[\w.-]+: )?"
    r"(?:(TX timeout detected|Detected Tx Unit Hang|Detected Hardware Unit Hang)|(PF reset failed|PCIe link lost|[Ff]irmware fatal|[Ff]irmware is not responding|FATAL))"
)
_WATCHDOG_OLD = re.compile(rf"NETDEV WATCHDOG: (\S+) \((\S+)\): {_TRANSMIT}")


def disk_error(text: str) -> Seen | None:
    """Read a failed read or write of a block device; a refused optional command and an empty drive are none."""
    if match := _IO_ERROR.match(text):
        word, device, sector, operation = match.groups()
        if _NORMAL_DEVICE.fullmatch(device) or (
            word == "critical target" and operation in _OPTIONAL_OPERATIONS
        ):
            return None
        return Seen(
            Kind.DISK_ERROR,
            device,
            None,
            _present(sector=sector, operation=operation, what=word.removeprefix("critical ")),
        )
    if match := _BUFFER.match(text):
        return (
            None
            if _NORMAL_DEVICE.fullmatch(match[1])
            else Seen(Kind.DISK_ERROR, match[1], None, {"what": "buffer"})
        )
    return None


def disk_command(text: str) -> Seen | None:
    """Read a failed SCSI or ATA command that names the medium or the hardware."""
    if match := _SENSE.match(text):
        return Seen(Kind.DISK_ERROR, match[1], None, {"what": match[2].lower()})
    if match := _ATA_UNCORRECTABLE.match(text):
        return Seen(Kind.DISK_ERROR, match[1], None, {"what": "medium"})
    if match := _ATA.match(text):
        return Seen(Kind.DISK_ERROR, match[1], None, {"what": "ata", "operation": match[2]})
    return None


def nvme(text: str) -> Seen | None:
    """Read an NVMe command that timed out or met a bad medium or path, or a controller that is down or given up."""
    if match := _NVME_STATUS.match(text):
        what = "medium" if match[3] == _MEDIA_STATUS else "path"
        return Seen(
            Kind.DISK_ERROR, match[1], None, {"what": what, "operation": match[2], "status": match[4]}
        )
    if match := _NVME_TIMEOUT.match(text):
        return Seen(Kind.DISK_TIMEOUT, match[1], None, {"queue": match[2], "then": match[3]})
    if match := _NVME_DOWN.match(text):
        return Seen(Kind.DISK_TIMEOUT, match[1], None, {"then": "reset controller", "status": match[2]})
    match = _NVME_GONE.match(text) or _NO_PATH.match(text)
    return Seen(Kind.DISK_GONE, next(filter(None, match.groups()))) if match else None


def inaccessible(text: str) -> Seen | None:
    """Read that a GPU, disk or network card no longer answers on the bus when it is to wake."""
    match = _INACCESSIBLE.match(text)
    return Seen(_LOST[match[1]], pci_key(match[2]), None, {"by": "power state"}) if match else None


def raid(text: str) -> Seen | None:
    """Read a disk that software RAID threw out, a RAID controller that stopped, or a pool that lost its disks."""
    match = _RAID.match(text)
    if match:
        return Seen(Kind.DISK_GONE, match[1], None, {"by": "md"})
    match = _RAID_DEAD.match(text) or _POOL.match(text)
    return Seen(Kind.DISK_GONE, match[1], None, {"by": "controller or pool"}) if match else None


def file_system(text: str) -> Seen | None:
    """Read an error of a file system or its journal, or that it made itself read-only."""
    if match := _JOURNAL.match(text):
        return Seen(Kind.FILE_SYSTEM_ERROR, match[1] or match[2], None, {"file_system": "ext4"})
    for kind, patterns in ((Kind.READ_ONLY, _READ_ONLY), (Kind.FILE_SYSTEM_ERROR, _FILE_SYSTEM)):
        for pattern in patterns:
            if match := pattern.match(text):
                return Seen(
                    kind, match[1], None, {"file_system": text.partition(" ")[0].partition("-")[0].lower()}
                )
    return None


def mlx5(text: str) -> Seen | None:
    """Read an NVIDIA/Mellanox card whose firmware or command interface failed; notices and information are no event."""
    match = _MLX5.match(text)
    if not match:
        return None
    device, rest, address = pci_key(match[1]), match[2], {"address": match[1]}
    if failed := _MLX5_FAILED.search(rest):
        return Seen(Kind.NIC_FAILED, device, None, address | {"what": failed[0]})
    if error := _MLX5_ERROR.search(rest):
        return Seen(Kind.NIC_ERROR, device, None, address | {"what": error[0]})
    health = _MLX5_HEALTH.search(rest)
    if not health or int(health[2]) > _SEVERITY_ERROR:
        return None
    kind = Kind.NIC_FAILED if int(health[2]) <= _SEVERITY_CRITICAL else Kind.NIC_ERROR
    return Seen(kind, device, None, address | {"what": health[1], "severity": health[2]})


def transmit_timeout(text: str) -> Seen | None:
    """Read a network card's transmit queue that timed out, in the order of words before and since Linux 6.8."""
    if match := _WATCHDOG_NEW.match(text):
        driver, address, interface, queue = match.groups()
        fields = {"driver": driver, "interface": interface, "queue": queue}
        return Seen(Kind.NIC_TIMEOUT, pci_key(address) or interface, None, fields)
    if match := _WATCHDOG_OLD.match(text):
        fields = {"driver": match[2], "interface": match[1], "queue": match[3]}
        return Seen(Kind.NIC_TIMEOUT, match[1], None, fields)
    return None


def hang(text: str) -> Seen | None:
    """Read a network card that stopped sending, or that is gone for its driver."""
    match = _HANG.match(text)
    if not match:
        return None
    driver, address, interface, hung, failed = match.groups()
    kind = Kind.NIC_TIMEOUT if hung else Kind.NIC_FAILED
    fields = _present(driver=driver, interface=interface, address=address, what=hung or failed)
    return Seen(kind, pci_key(address), None, fields)


def _present(**fields: str | None) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value}
