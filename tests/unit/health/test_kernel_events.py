"""Kernel lines read as events: every kind in its variants, and the traps of each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.health.kernel_log.events import (
    KernelEvent,
    Kind,
    fold_lines,
    pci_key,
    read_event,
    read_events,
    uuids,
)
from freehold.health.kernel_log.formats import parse_record
from freehold.health.kernel_log.kinds import INFORMATIVE
from freehold.health.model.view import KernelLine


def lines(*texts: str, facility: int = 0, step_s: float = 0.001) -> list[KernelLine]:
    return [
        KernelLine(at_s=1000.0 + index * step_s, text=text, sequence=index, facility=facility)
        for index, text in enumerate(texts)
    ]


def one(*texts: str) -> KernelEvent:
    (event,) = read_events(lines(*texts))
    return event


XIDS = [
    ("NVRM: Xid (PCI:0000:9b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.", 79, {}),
    ("NVRM: Xid (PCI:0000:9B:00): 79, GPU has fallen off the bus.", 79, {}),
    ("NVRM: Xid (0000:9b:00): 62, 0cb5(2d50) 8503b4e4 05f00000", 62, {}),
    ("NVRM: Xid (PCI:0000:9b:00.0): 46", 46, {}),
    ("NVRM: Xid (PCI:00000000:9b:00): 46", 46, {}),
    ("NVRM: Xid (PCI:0000:9b:00): 119, pid=4711, name=nvidia-smi, Timeout after 45s of waiting for RPC response from GPU0 GSP! Expected function 76 (GSP_RM_CONTROL) (0x20802a02 0x8).", 119, {"pid": "4711", "name": "nvidia-smi"}),
    ("NVRM: Xid (PCI:0000:9b:00): 119, pid='4711', name=nvidia-smi, Timeout waiting for RPC from GSP!", 119, {"pid": "4711", "name": "nvidia-smi"}),
    ("NVRM: Xid (PCI:0000:9b:00 GPU-I:05): 45, pid=12, name=python3, Ch 00000008", 45, {"pid": "12", "name": "python3", "gpu_instance": "05"}),
    ("NVRM: Xid (PCI:0000:9b:00): 45, pid=12, name=VLLM::EngineCor, channel 0x00000003, caused by previous Xid 149", 45, {"pid": "12", "name": "VLLM::EngineCor", "caused_by": "149"}),
    ("NVRM: Xid (PCI:0000:9b:00): 13, pid=7, name=python3, Graphics SM Warp Exception on (GPC 3, TPC 2, SM 1): Out Of Range Address", 13, {"pid": "7", "name": "python3", "gpc": "3", "tpc": "2", "sm": "1"}),
    ("NVRM: Xid (PCI:0000:9b:00): 13, Graphics Exception on (GPC 0, TPC 4): WIDTH CT Violation", 13, {"gpc": "0", "tpc": "4"}),
    ("NVRM: Xid (PCI:0000:9b:00): 31, pid=7, name=python3, channel 0x00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS GPC3 GPCCLIENT_T1_3 faulted @ 0x7f8a_1c000000. Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_READ", 31, {"pid": "7", "name": "python3", "engine": "GRAPHICS", "address": "0x7f8a_1c000000", "fault_type": "FAULT_PDE", "access": "VIRT_READ"}),
    ("NVRM: Xid (PCI:0000:9b:00): 31, pid=7, Ch 00000018, intr 10000000. MMU Fault: ENGINE CE2 HUBCLIENT_CE1 faulted @ 0x0_00000000. Fault is of type FAULT_PTE ACCESS_TYPE_VIRT_WRITE", 31, {"pid": "7", "engine": "CE2", "address": "0x0_00000000", "fault_type": "FAULT_PTE", "access": "VIRT_WRITE"}),
    ("NVRM: Xid (PCI:0000:9b:00): 74, pid='<unknown>', name=<unknown>, NVLink: fatal error detected on link 14(0x10000, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0)", 74, {"link": "14", "reg0": "0x10000", **{f"reg{n}": "0x0" for n in range(1, 7)}}),
    ("NVRM: Xid (PCI:0000:9b:00): 74, NVLink: fatal error detected on link 2(0x0, 0x0, 0x2000, 0x40000, 0x0, 0x0, 0x0)", 74, {"link": "2", "reg0": "0x0", "reg1": "0x0", "reg2": "0x2000", "reg3": "0x40000", "reg4": "0x0", "reg5": "0x0", "reg6": "0x0"}),
    ("NVRM: Xid (PCI:0000:9b:00): 149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 08 (0x004505c6 0x00000000 0x00000001)", 149, {"unit": "NETIR_LINK_EVT", "severity": "Fatal", "cross_containment": "0", "injected": "0", "link": "08", "word0": "0x004505c6", "word1": "0x00000000", "word2": "0x00000001"}),
    ("NVRM: Xid (PCI:0000:9b:00): 145, pid=9, name=python3, RLW_CTRL Nonfatal XC1 i0 Link -1 (0x00000004 0x80000000)", 145, {"pid": "9", "name": "python3", "unit": "RLW_CTRL", "severity": "Nonfatal", "cross_containment": "1", "injected": "0", "link": "-1", "word0": "0x00000004", "word1": "0x80000000"}),
    ("NVRM: Xid (PCI:0000:9b:00): 149, NETIR_LINK_EVT Fatal XC 1 i 0 Link 01 [0x0000000a]", 149, {"unit": "NETIR_LINK_EVT", "severity": "Fatal", "cross_containment": "1", "injected": "0", "link": "01", "word0": "0x0000000a"}),
    ("NVRM: Xid (PCI:0000:9b:00): 32, pid=2280636, name=train.3, Channel ID 0000000d intr0 00040000", 32, {"pid": "2280636", "name": "train.3"}),
    ("NVRM: Xid (PCI:0000:9b:00): 154 (", 154, {}),
    ("NVRM: Xid (PCI:0000:9b:00): 9999, something new", 9999, {}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "number", "fields"), XIDS)
def test_xid(text: str, number: int, fields: dict[str, str]) -> None:
    event = one(text)
    assert (event.kind, event.device, event.number) == (Kind.XID, "0000:9b:00", number)
    assert event.fields == fields
    assert event.is_trouble is (number != 45)


@pytest.mark.parametrize("words", ["GPU Reset Required", "PF FLR", "Node Reboot Required"])
def test_recovery_action_set_and_taken_back(words: str) -> None:
    event = one(
        f"NVRM: Xid (PCI:0000:01:00): 154, GPU recovery action changed from 0x0 (None) to 0x2 ({words})"
    )
    assert (event.kind, event.device, event.number) == (Kind.RECOVERY_ACTION, "0000:01:00", 2)
    assert event.fields == {"from": "0", "from_words": "None", "to": "2", "to_words": words}
    assert event.is_trouble
    back = one(
        f"NVRM: Xid (PCI:0000:01:00): 154, pid=1, GPU recovery action changed from 0x2 ({words}) to 0x0 (None)"
    )
    assert (back.kind, back.number, back.is_trouble) == (Kind.RECOVERY_ACTION, 0, False)


OTHERS = [
    ("nvidia-nvswitch1: SXid (PCI:0000:06:00.0): 20034, Fatal, Link 30 LTSSM Fault Up", Kind.SXID, "0000:06:00", {"severity": "fatal", "link": "30", "switch": "1", "what": "Link 30 LTSSM Fault Up"}),
    ("nvidia-nvswitch0: SXid (PCI:0000:c3:00.0): 20009, Non-fatal, Link 28 RX Short Error Rate", Kind.SXID, "0000:c3:00", {"severity": "non-fatal", "link": "28"}),
    ("nvidia-nvswitch3: SXid (PCI:0000:c5:00.0): 10003, Fatal, SOE error", Kind.SXID, "0000:c5:00", {"severity": "fatal", "what": "SOE error"}),
    ("nvidia-nvswitch3: SXid (PCI:0000:c5:00.0): 24007, sourcetrack timeout", Kind.SXID, "0000:c5:00", {"severity": "fatal"}),
    ("NVRM: GPU 0000:91:00.0: GPU has fallen off the bus.", Kind.OFF_BUS, "0000:91:00", {}),
    ("NVRM: GPU at 0000:91:00.0: GPU has fallen off the bus.", Kind.OFF_BUS, "0000:91:00", {}),
    ("NVRM: The NVIDIA GPU 0000:b3:00.0 (PCI ID: 10de:26b5) installed in this system has fallen off the bus and is not responding to commands.", Kind.OFF_BUS, "0000:b3:00", {}),
    ("NVRM: GPU at PCI:0000:91:00: GPU-b6c3b2be-c55b-d076-fa0e-d464e4c7e08b", Kind.GPU_UUID, "0000:91:00", {"uuid": "GPU-b6c3b2be-c55b-d076-fa0e-d464e4c7e08b"}),
    ("NVRM: loading NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024", Kind.DRIVER_LOADED, "", {"version": "550.54.15"}),
    ("NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  570.158.01  Release Build  (dvs-builder@U22)  Mon Jun  2 13:13:04 UTC 2025", Kind.DRIVER_LOADED, "", {"version": "570.158.01"}),
    ("NVRM: GPU 0000:b3:00.0: RmInitAdapter failed! (0x62:0xffff:2477)", Kind.GPU_INIT_FAILED, "0000:b3:00", {"code": "(0x62:0xffff:2477)"}),
    ("NVRM: rm_init_adapter failed, device minor number 0", Kind.GPU_INIT_FAILED, "", {}),
    ("nvidia: probe of 0000:b3:00.0 failed with error -1", Kind.GPU_INIT_FAILED, "0000:b3:00", {"code": "-1"}),
    ("nvidia 0000:02:00.0: probe with driver nvidia failed with error -1", Kind.GPU_INIT_FAILED, "0000:02:00", {"code": "-1"}),
    ("pcieport 0000:00:01.0: AER: Corrected error received: 0000:01:00.0", Kind.AER_CORRECTED, "0000:01:00", {"by": "port"}),
    ("pcieport 0000:00:01.0: AER: Multiple Corrected error received: 0000:01:00.0", Kind.AER_CORRECTED, "0000:01:00", {}),
    ("pcieport 0000:00:01.0: AER: Correctable error message received from 0000:01:00.0", Kind.AER_CORRECTED, "0000:01:00", {}),
    ("nvidia 0000:01:00.0: PCIe Bus Error: severity=Corrected, type=Physical Layer, (Receiver ID)", Kind.AER_CORRECTED, "0000:01:00", {"layer": "Physical Layer"}),
    ("pcieport 0000:00:01.0: AER: Uncorrected (Non-Fatal) error received: 0000:01:00.0", Kind.AER_UNCORRECTED, "0000:01:00", {"severity": "non-fatal"}),
    ("pcieport 0000:00:01.0: AER: Uncorrectable (Fatal) error message received from 0000:01:00.0", Kind.AER_UNCORRECTED, "0000:01:00", {"severity": "fatal"}),
    ("nvidia 0000:01:00.0: PCIe Bus Error: severity=Uncorrectable (Fatal), type=Transaction Layer, (Receiver ID)", Kind.AER_UNCORRECTED, "0000:01:00", {"severity": "fatal", "layer": "Transaction Layer"}),
    ("pcieport 0000:00:01.0: DPC: containment event, status:0x1f01 source:0x0000", Kind.AER_UNCORRECTED, "0000:00:01", {"by": "dpc"}),
    ("pcieport 0000:00:01.0: AER: can't recover (no error_detected callback)", Kind.AER_UNRECOVERED, "0000:00:01", {}),
    ("pcieport 0000:00:01.0: AER: device recovery failed", Kind.AER_UNRECOVERED, "0000:00:01", {}),
    ("[Hardware Error]: Corrected error, no action required.", Kind.MEMORY_CORRECTED, "", {}),
    ("mce: [Hardware Error]: Uncorrected, software containable error.", Kind.MEMORY_UNCORRECTED, "", {}),
    ("mce: Uncorrected hardware memory error in user-access at 3f00000000", Kind.MEMORY_UNCORRECTED, "", {}),
    ("Memory failure: 0x3f00000: recovery action for dirty LRU page: Recovered", Kind.MEMORY_UNCORRECTED, "", {}),
    ("nvidia 0000:9b:00.0: Unable to change power state from D3cold to D0, device inaccessible", Kind.OFF_BUS, "0000:9b:00", {}),
    ("nvme 0000:41:00.0: Unable to change power state from D3cold to D0, device inaccessible", Kind.DISK_GONE, "0000:41:00", {}),
    ("device offline error, dev sdb, sector 2048 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 0", Kind.DISK_ERROR, "sdb", {"what": "device offline"}),
    ("nvme0n1: I/O Cmd(0x2) @ LBA 123, 8 blocks, Unrecovered Read Error (sct 0x2 / sc 0x81) DNR", Kind.DISK_ERROR, "nvme0n1", {"what": "medium"}),
    ("ata1.00: error: { UNC }", Kind.DISK_ERROR, "ata1.00", {"what": "medium"}),
    ("mlx5_core 0000:86:00.0: poll_health:790:(pid 0): Fatal error 1 detected", Kind.NIC_FAILED, "0000:86:00", {}),
    ("mlx5_core 0000:86:00.0: print_health_info:394:(pid 0): synd 0x1: firmware internal error", Kind.NIC_ERROR, "0000:86:00", {}),
    ("mlx5_core 0000:86:00.0: Port module event[error]: module 0, Cable error, High Temperature", Kind.NIC_ERROR, "0000:86:00", {}),
    ("{1}[Hardware Error]: event severity: corrected", Kind.MEMORY_CORRECTED, "", {"severity": "corrected"}),
    ("{2}[Hardware Error]: event severity: fatal", Kind.MEMORY_UNCORRECTED, "", {"severity": "fatal"}),
    ("mce: [Hardware Error]: CPU 12: Machine Check: 0 Bank 7: 8c00004000010093", Kind.MEMORY_CORRECTED, "cpu12", {"bank": "7"}),
    ("mce: [Hardware Error]: CPU 12: Machine Check Exception: 5 Bank 1: bd80000000100134", Kind.MEMORY_UNCORRECTED, "cpu12", {"bank": "1"}),
    ("EDAC MC0: 1 CE memory read error on CPU_SrcID#0_MC#0_Chan#0_DIMM#0 (channel:0 slot:0 page:0x1 offset:0x0)", Kind.MEMORY_CORRECTED, "mc0", {}),
    ("EDAC skx MC3: 1 UE memory read error on unknown memory", Kind.MEMORY_UNCORRECTED, "mc3", {}),
    ("INFO: task kworker/u8:1:123 blocked for more than 120 seconds.", Kind.HUNG_TASK, "", {"name": "kworker/u8:1", "pid": "123", "for_s": "120"}),
    ("INFO: task nvidia-smi:4711 blocked for more than 241 seconds.", Kind.HUNG_TASK, "", {"name": "nvidia-smi", "pid": "4711", "for_s": "241"}),
    ("watchdog: BUG: soft lockup - CPU#3 stuck for 22s! [python3:1234]", Kind.LOCKUP, "cpu3", {"lockup": "soft", "name": "python3", "pid": "1234", "for_s": "22"}),
    ("NMI watchdog: BUG: soft lockup - CPU#3 stuck for 22s! [kworker/3:1:99]", Kind.LOCKUP, "cpu3", {"name": "kworker/3:1"}),
    ("watchdog: Watchdog detected hard LOCKUP on cpu 5", Kind.LOCKUP, "cpu5", {"lockup": "hard"}),
    ("rcu: INFO: rcu_sched detected stalls on CPUs/tasks:", Kind.LOCKUP, "", {"lockup": "rcu"}),
    ("rcu: INFO: rcu_preempt self-detected stall on CPU", Kind.LOCKUP, "", {"lockup": "rcu"}),
    ("Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b", Kind.KERNEL_BUG, "", {}),
    ("Kernel panic - not syncing: Fatal hardware error!", Kind.MEMORY_UNCORRECTED, "", {"by": "panic"}),
    ("Kernel panic - not syncing: Fatal machine check", Kind.MEMORY_UNCORRECTED, "", {"by": "panic"}),
    ("NMI: PCI system error (SERR) for reason b1 on CPU 0.", Kind.AER_UNCORRECTED, "", {"by": "serr"}),
    ("thermal thermal_zone0: x86_pkg_temp: critical temperature reached, shutting down", Kind.TOO_HOT, "", {}),
    ("ACPI: thermal: Critical temperature reached (105 C), shutting down", Kind.TOO_HOT, "", {}),
    ("mce: CPU12: Package temperature above threshold, cpu clock throttled (total events = 5125)", Kind.WARM, "cpu12", {}),
    ("mce: CPU3: Core temperature is above threshold, cpu clock is throttled (total events = 1)", Kind.WARM, "cpu3", {}),
    ("nvidia 0000:18:00.0: can't change power state from D3cold to D0 (config space inaccessible)", Kind.OFF_BUS, "0000:18:00", {}),
    ("nvme nvme1: Device not ready; aborting initialisation, CSTS=0x0", Kind.DISK_GONE, "nvme1", {}),
    ("nvme0n1: detected capacity change from 7501476528 to 0", Kind.DISK_GONE, "nvme0n1", {}),
    ("WARNING: Pool 'tank' has encountered an uncorrectable I/O failure and has been suspended.", Kind.DISK_GONE, "tank", {}),
    ("megaraid_sas 0000:4b:00.0: FW in FAULT state!!", Kind.DISK_GONE, "megaraid_sas", {}),
    ("Aborting journal on device nvme1n1p1-8.", Kind.FILE_SYSTEM_ERROR, "nvme1n1p1", {}),
    ("JBD2: Detected IO errors while flushing file data on sdc1-8", Kind.FILE_SYSTEM_ERROR, "sdc1", {}),
    ("mlx5_core 0000:86:00.0 ens1f0: TX timeout detected", Kind.NIC_TIMEOUT, "0000:86:00", {"interface": "ens1f0"}),
    ("ixgbe 0000:01:00.0 eth0: Detected Tx Unit Hang", Kind.NIC_TIMEOUT, "0000:01:00", {}),
    ("igb 0000:03:00.0 eno2: PCIe link lost", Kind.NIC_FAILED, "0000:03:00", {"interface": "eno2"}),
    ("bnxt_en 0000:41:00.0 eno1: Firmware fatal reset event, data1: 0x0, data2: 0x0", Kind.NIC_FAILED, "0000:41:00", {"interface": "eno1"}),
    ("i40e 0000:18:00.0: PF reset failed, -15", Kind.NIC_FAILED, "0000:18:00", {}),
    ("VLLM::EngineCor[9123]: segfault at 18 ip 00007f1c sp 00007ffe error 4 in libpython3.12.so.1.0[7f1c00000+200000]", Kind.CRASH, "", {"name": "VLLM::EngineCor"}),
    ("BUG: unable to handle page fault for address: ffffc90000e5d000", Kind.KERNEL_BUG, "", {}),
    ("oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/user.slice,task=python3,pid=99,uid=0", Kind.OOM_KILL, "", {"limit": "host", "name": "python3", "pid": "99"}),
    ("Memory cgroup out of memory: Killed process 99 (python3) total-vm:1kB, anon-rss:1kB", Kind.OOM_KILL, "", {"limit": "cgroup", "name": "python3", "pid": "99"}),
    ("Out of memory: Killed process 99 (VLLM::EngineCor) total-vm:1kB, anon-rss:1kB", Kind.OOM_KILL, "", {"limit": "host", "name": "VLLM::EngineCor"}),
    ("I/O error, dev nvme0n1, sector 145616 op 0x0:(READ) flags 0x80700 phys_seg 1 prio class 2", Kind.DISK_ERROR, "nvme0n1", {"operation": "READ", "sector": "145616"}),
    ("blk_update_request: I/O error, dev sda, sector 7 op 0x1:(WRITE) flags 0x0 phys_seg 1 prio class 0", Kind.DISK_ERROR, "sda", {"operation": "WRITE"}),
    ("print_req_error: I/O error, dev sdb, sector 2048", Kind.DISK_ERROR, "sdb", {}),
    ("blk_update_request: critical medium error, dev sdb, sector 2048 op 0x0:(READ) flags 0x0", Kind.DISK_ERROR, "sdb", {"what": "medium"}),
    ("Buffer I/O error on dev dm-0, logical block 5, async page read", Kind.DISK_ERROR, "dm-0", {"what": "buffer"}),
    ("Buffer I/O error on device sda1, logical block 5", Kind.DISK_ERROR, "sda1", {}),
    ("sd 0:0:0:0: [sda] tag#12 Sense Key : Medium Error [current] ", Kind.DISK_ERROR, "sda", {"what": "medium"}),
    ("ata1.00: failed command: READ FPDMA QUEUED", Kind.DISK_ERROR, "ata1.00", {}),
    ("nvme nvme0: I/O 23 QID 4 timeout, reset controller", Kind.DISK_TIMEOUT, "nvme0", {"then": "reset controller", "queue": "4"}),
    ("nvme nvme1: I/O tag 258 (1102) opcode 0x2 (I/O Cmd) QID 4 timeout, aborting req_op:READ(0) size:4096", Kind.DISK_TIMEOUT, "nvme1", {"then": "aborting"}),
    ("nvme nvme0: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS=0x10", Kind.DISK_TIMEOUT, "nvme0", {}),
    ("nvme nvme0: Disabling device after reset failure: -19", Kind.DISK_GONE, "nvme0", {}),
    ("nvme nvme0: Removing after probe failure status: -19", Kind.DISK_GONE, "nvme0", {}),
    ("block nvme0n1: no available path - failing I/O", Kind.DISK_GONE, "nvme0n1", {}),
    ("md/raid1:md0: Disk failure on sda1, disabling device.", Kind.DISK_GONE, "sda1", {"by": "md"}),
    ("EXT4-fs (nvme0n1p1): Remounting filesystem read-only", Kind.READ_ONLY, "nvme0n1p1", {"file_system": "ext4"}),
    ("BTRFS info (device sda1: state EA): forced readonly", Kind.READ_ONLY, "sda1", {"file_system": "btrfs"}),
    ("EXT4-fs error (device sda1): ext4_find_entry:1455: inode #2: comm ls: reading directory lblock 0", Kind.FILE_SYSTEM_ERROR, "sda1", {}),
    ("XFS (nvme1n1): Filesystem has been shut down due to log error (0x2).", Kind.FILE_SYSTEM_ERROR, "nvme1n1", {"file_system": "xfs"}),
    ('XFS (dm-3): metadata I/O error in "xfs_trans_read_buf_map" at daddr 0x8 len 8 error 5', Kind.FILE_SYSTEM_ERROR, "dm-3", {}),
    ("BTRFS error (device sda1): bdev /dev/sda1 errs: wr 1, rd 0, flush 0, corrupt 0, gen 0", Kind.FILE_SYSTEM_ERROR, "sda1", {}),
    ("mlx5_core 0000:86:00.0: wait_func:1151:(pid 19670): 2ERR_QP(0x50a) timeout. Will cause a leak of a command resource", Kind.NIC_FAILED, "0000:86:00", {}),
    ("mlx5_core 0000:86:00.0: poll_health:826:(pid 0): device's health compromised - reached miss count", Kind.NIC_FAILED, "0000:86:00", {}),
    ("mlx5_core 0000:86:00.0: print_health_info:424:(pid 0): Health issue observed, unrecoverable hardware error, severity(2) CRITICAL:", Kind.NIC_FAILED, "0000:86:00", {}),
    ("mlx5_core 0000:86:00.0 ens1: Health issue observed, firmware internal error, severity(3) ERROR:", Kind.NIC_ERROR, "0000:86:00", {"severity": "3"}),
    ("NETDEV WATCHDOG: eth0 (mlx5_core): transmit queue 3 timed out", Kind.NIC_TIMEOUT, "eth0", {"queue": "3", "driver": "mlx5_core", "interface": "eth0"}),
    ("mlx5_core 0000:86:00.0 ens1f0: NETDEV WATCHDOG: CPU: 3: transmit queue 5 timed out 5120 ms", Kind.NIC_TIMEOUT, "0000:86:00", {"queue": "5", "interface": "ens1f0"}),
    ("mlx5_core 0000:86:00.0 ens1f0 (unregistering): NETDEV WATCHDOG: CPU: 3: transmit queue 5 timed out 5120 ms", Kind.NIC_TIMEOUT, "0000:86:00", {"interface": "ens1f0"}),
    ("python3[123]: segfault at 7f79 ip 00007f7c sp 00007f7c error 4 in libnccl.so.2[7f7c7ac00000+1000]", Kind.CRASH, "", {"library": "libnccl.so.2", "pid": "123", "name": "python3"}),
    ("VLLM::EngineCor[9]: segfault at 0 ip 00007f8 sp 00007ff error 4 in libcuda.so.550.54.15[7f0000+1000] likely on CPU 3 (core 3, socket 0)", Kind.CRASH, "", {"library": "libcuda.so.550.54.15"}),
    ("pt_main_thread[9]: segfault at 0 ip 00007f8 sp 00007ff error 4 in libtorch_cuda.so[7f0000+1000]", Kind.CRASH, "", {"library": "libtorch_cuda.so"}),
    ("traps: python3[77] general protection fault ip:7f1 sp:7f2 error:0 in libcudart.so.12[7f+1000]", Kind.CRASH, "", {"pid": "77", "library": "libcudart.so.12"}),
    ("NVRM: GPU 0000:65:00.0 is already bound to nouveau.", Kind.DRIVER_REFUSED, "0000:65:00", {}),
    ("NVRM: The NVIDIA probe routine was not called for 1 device(s).", Kind.DRIVER_REFUSED, "", {}),
    ("NVRM: This PCI I/O region assigned to your NVIDIA device is invalid:", Kind.DRIVER_REFUSED, "", {}),
    ("NVRM: The NVIDIA GPU 0000:18:00.0 (PCI ID: 10de:2901)\nNVRM: installed in this system requires use of the NVIDIA open kernel modules.", Kind.DRIVER_REFUSED, "0000:18:00", {}),
    ("Loading of unsigned module is rejected", Kind.DRIVER_REFUSED, "", {}),
    ("nvidia: version magic '6.8.0-63-generic SMP ' should be '6.8.0-71-generic SMP '", Kind.DRIVER_MISFIT, "", {}),
    ("nvidia_drm: Unknown symbol drm_fbdev_generic_setup (err -2)", Kind.DRIVER_MISFIT, "", {}),
    ("nvidia-nvswitch: Version mismatch, kernel version 450.51.05 user version 450.51.06", Kind.FABRIC_MISFIT, "", {}),
    ("nvidia-nvswitch3: Version mismatch, kernel version 570.86.15 user version 565.57.01", Kind.FABRIC_MISFIT, "", {}),
    ("NVRM: nvAssertOkFailedNoLog: Assertion failed: Reset required [NV_ERR_RESET_REQUIRED] (0x00000062) returned from status @ kernel_channel.c:2874", Kind.RESET_REQUIRED, "", {}),
    ("NVRM: GPU0 nvAssertOkFailedNoLog: Assertion failed: Reset required [NV_ERR_RESET_REQUIRED]", Kind.RESET_REQUIRED, "", {}),
    ("mlx5_core 0000:98:00.0 ens3f0np0: Link down", Kind.LINK_DOWN, "ens3f0np0", {}),
    ("igb 0000:03:00.0 eno2: igb: eno2 NIC Link is Down", Kind.LINK_DOWN, "eno2", {}),
    ("bond0: (slave ens1f0): link status definitely down, disabling slave", Kind.LINK_DOWN, "ens1f0", {"bond": "bond0"}),
    ("bond0: now running without any active interface!", Kind.LINK_DOWN, "bond0", {"bond": "bond0"}),
    ("i40e 0000:18:00.0 eno1: NIC Link is Up, 10 Gbps Full Duplex, Flow Control: None", Kind.LINK_UP, "eno1", {}),
    ("bonding: bond0: link status definitely up for interface eth1, 10000 Mbps full duplex.", Kind.LINK_UP, "eth1", {}),
    ("mlx4_en: eth2: Link Up", Kind.LINK_UP, "eth2", {}),
    ("nfs: server nas01 not responding, still trying", Kind.FILE_SERVER_SILENT, "nas01", {}),
    ("Lustre: scratch-OST0003-osc-ffff: Connection to scratch-OST0003 (at 10.9.1.4@o2ib) was lost; in progress operations using this service will wait", Kind.FILE_SERVER_SILENT, "scratch-OST0003", {}),
    ("nfs: server nas01 OK", Kind.FILE_SERVER_BACK, "nas01", {}),
    ("Lustre: scratch-OST0003-osc-ffff: Connection restored to 10.9.1.4@o2ib (at 10.9.1.4@o2ib)", Kind.FILE_SERVER_BACK, "10.9.1.4@o2ib", {}),
    ("reboot: Restarting system", Kind.SHUTDOWN, "", {}),
    ("systemd-shutdown[1]: Syncing filesystems and block devices.", Kind.SHUTDOWN, "", {}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind", "device", "fields"), OTHERS)
def test_other_kinds(text: str, kind: Kind, device: str, fields: dict[str, str]) -> None:
    event = one(text)
    assert (event.kind, event.device) == (kind, device)
    assert fields.items() <= event.fields.items()
    harmless = kind in INFORMATIVE or (fields.get("severity") == "non-fatal" and kind is Kind.SXID)
    assert event.is_trouble is not harmless


def test_every_kind_has_two_variants():
    seen = [kind for _, kind, _, _ in OTHERS] + [Kind.XID] * len(XIDS) + [Kind.RECOVERY_ACTION] * 2
    few = {kind for kind in Kind if seen.count(kind) < 2} - {Kind.API_MISMATCH, Kind.NIC_ERROR, Kind.GPU_UUID}
    assert not few


OFF_BUS = (
    "NVRM: The NVIDIA GPU 0000:b3:00.0",
    "NVRM: (PCI ID: 10de:26b5) installed in this system has",
    "NVRM: fallen off the bus and is not responding to commands.",
)
MISMATCH = (
    "NVRM: API mismatch: the client has the version 550.54.15, but",
    "NVRM: this kernel module has the version 535.161.08.  Please",
    "NVRM: make sure that this kernel module and all NVIDIA driver",
    "NVRM: components have the same version.",
)


@pytest.mark.parametrize("between", [(), ("veth12: renamed from eth0",)])
def test_records_of_several_lines_are_folded_also_with_others_between(between: tuple[str, ...]) -> None:
    event, *rest = read_events(lines(OFF_BUS[0], *between, *OFF_BUS[1:]))
    assert (event.kind, event.device, rest) == (Kind.OFF_BUS, "0000:b3:00", [])
    folded = fold_lines(lines(*MISMATCH[:2], *between, *MISMATCH[2:], "NVRM: GPU 0000:b3:00.0: hello"))
    assert len(folded) == 2 + len(between)
    assert read_events(folded)[0].fields == {"client": "550.54.15", "module": "535.161.08"}


def test_a_record_in_one_with_newlines_reads_the_same():
    assert one("\n".join(OFF_BUS)).device == "0000:b3:00"
    assert one("\n".join(MISMATCH)).fields == {"client": "550.54.15", "module": "535.161.08"}


NAMED = (
    "NVRM: API mismatch: the client 'kwin_wayland' (pid 1005)",
    "NVRM: has the version 595.84, but this kernel module has",
    "NVRM: the version 595.80.  Please make sure that this",
    "NVRM: kernel module and all NVIDIA driver components",
    "NVRM: have the same version.",
)
"""Frogging-Family/nvidia-all issue 394; open-gpu-kernel-modules issue 829 has the same of driver 575.51.02."""
WHOLE = {"name": "kwin_wayland", "pid": "1005", "client": "595.84", "module": "595.80"}


@pytest.mark.parametrize(
    "texts",
    [
        NAMED,  # a record each
        ("\n".join(NAMED),),  # one record, as /dev/kmsg has it
        ("#012".join(NAMED),),  # as syslog writes that
        (" ".join(text.removeprefix("NVRM: " * bool(n)) for n, text in enumerate(NAMED)),),
    ],
)
def test_a_newer_drivers_mismatch_names_the_program(texts: tuple[str, ...]) -> None:
    event = one(*texts)
    assert (event.kind, event.fields, event.is_trouble) == (Kind.API_MISMATCH, WHOLE, True)


def test_a_newer_drivers_mismatch_with_others_between_and_one_after_the_other() -> None:
    other = tuple(text.replace("1005", "2").replace("kwin_wayland", "nvidia-smi") for text in NAMED)
    texts = [*NAMED[:2], "veth12: renamed from eth0", *NAMED[2:], *other, "NVRM: GPU 0000:b3:00.0: hello"]
    assert [event.fields["pid"] for event in read_events(lines(*texts))] == ["1005", "2"]


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        (MISMATCH[0], {"client": "550.54.15"}),
        (NAMED[0], {"name": "kwin_wayland", "pid": "1005"}),  # what follows was overwritten
        ("\n".join(NAMED[:2]), {"name": "kwin_wayland", "pid": "1005", "client": "595.84"}),
        (
            "NVRM: API mismatch: the client 'gnome-shell' has the version 595.58.03,\nNVRM: but this kernel module has the version 595.91.07",
            {"name": "gnome-shell", "client": "595.58.03", "module": "595.91.07"},
        ),
        ("NVRM: API mismatch: the client 'it is' well (pid 1005)", None),
        ("usb 1-1: Product: NVRM: API mismatch: the client has the version 1.2, but", None),
    ],
)
def test_parts_of_a_mismatch(text: str, fields: dict[str, str] | None) -> None:
    event = read_event(lines(text)[0])
    assert (None if event is None else event.fields) == fields


def test_the_kernels_own_record_of_a_mismatch_is_read_as_kmsg_escapes_it() -> None:
    data = b"4,1234,9424670,-;" + "\\x0a".join(NAMED).encode() + b"\n"
    record = parse_record(data)
    assert record is not None
    assert one(record.text).fields == WHOLE


def test_what_comes_much_later_is_not_folded():
    assert read_events(lines(*OFF_BUS, step_s=10)) == []


def test_two_gpus_fall_off_the_bus_one_after_the_other():
    second = (OFF_BUS[0].replace("b3", "c4"), *OFF_BUS[1:])
    assert [event.device for event in read_events(lines(*OFF_BUS, *second))] == ["0000:b3:00", "0000:c4:00"]


def test_two_lines_of_one_kill_are_one_event():
    texts = [text for text, kind, *_ in OTHERS if kind is Kind.OOM_KILL]
    assert [event.fields["name"] for event in read_events(lines(*texts))] == ["python3"]


def test_the_lines_that_follow_an_sxid_are_no_events() -> None:
    start = "nvidia-nvswitch0: SXid (PCI:0000:a9:00.0): 24007, "
    more = lines(start + "Severity 5 Engine instance 44", start + "Data {0x0, 0x1}", start[:-7] + "31, what?")
    assert read_events(more) == []


def test_user_space_is_never_believed():
    texts = [text for text, *_ in XIDS] + [text for text, *_ in OTHERS]
    assert read_events(lines(*texts, facility=1)) == []
    assert read_events(lines(*OFF_BUS, facility=3)) == []


@pytest.mark.parametrize("text", [text for text, *_ in (*XIDS, *OTHERS)])
@pytest.mark.parametrize("before", ["usb 1-1: Product: ", "audit: type=1400 comm="])
def test_a_text_inside_another_line_is_not_the_driver_s(text: str, before: str) -> None:
    assert all(not event.is_trouble for event in read_events(lines(before + text)))


def test_the_line_of_a_real_h100() -> None:
    """Driver 580.159.04, an illegal address made on purpose on a healthy card."""
    event = one(
        "NVRM: Xid (PCI:0000:00:06): 31, pid=705, name=python3, channel 0x0000000a, intr 00000000. MMU Fault: ENGINE GRAPHICS "
        "GPC1 GPCCLIENT_T1_4 faulted @ 0x87e9_67e00000. Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_WRITE"
    )
    assert (event.number, event.device) == (31, pci_key("00000000:00:06.0"))
    assert event.fields == {
        "pid": "705",
        "name": "python3",
        "engine": "GRAPHICS",
        "address": "0x87e9_67e00000",
        "fault_type": "FAULT_PDE",
        "access": "VIRT_WRITE",
    }


def test_uuids_by_address():
    events = read_events(lines("NVRM: GPU at PCI:0000:9B:00: GPU-b6c3b2be-c55b-d076-fa0e-d464e4c7e08b"))
    assert uuids(events) == {"0000:9b:00": "GPU-b6c3b2be-c55b-d076-fa0e-d464e4c7e08b"}


@pytest.mark.parametrize("text", ["PCI:0000:9B:00", "00000000:9b:00.0", "9b:00.0", " 0000:9b:00 "])
def test_one_address_has_one_key(text: str) -> None:
    assert pci_key(text) == "0000:9b:00"


@pytest.mark.parametrize("text", ["", "GPU-1", "0000:9b", "0000:9b:00.9", "zz:9b:00"])
def test_what_is_no_address_has_no_key(text: str) -> None:
    assert pci_key(text) == ""


PIECES = [text for text, *_ in (*XIDS, *OTHERS)] + [*OFF_BUS, *MISMATCH]


@st.composite
def spoilt(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(PIECES))
    at = draw(st.integers(0, len(text)))
    return text[:at] + draw(st.text(max_size=20)) + text[at + draw(st.integers(0, 12)) :]


@given(
    st.lists(
        st.one_of(st.text(max_size=200), spoilt(), st.binary(max_size=80).map(lambda b: b.decode("latin-1"))),
        max_size=8,
    )
)
def test_no_line_raises(texts: list[str]) -> None:
    for event in read_events(lines(*texts)):
        assert event.kind in Kind
        assert len(event.text) <= 1000
    folded = fold_lines(lines(*texts))
    assert fold_lines(folded) == folded
    for line in folded:
        read_event(line)
