"""What the kernel's own lines tell of the host: PCIe, memory, processors, tasks, out of memory, crashed programs.

Formats: the kernel's sources (drivers/pci/pcie/aer.c and err.c, drivers/edac, arch/x86/kernel/cpu/mce,
drivers/firmware/efi/cper.c, kernel/hung_task.c, kernel/watchdog.c, kernel/rcu, mm/oom_kill.c, arch/x86/mm/fault.c),
also as they were worded in older ones. Every pattern is anchored at the line's start. Nothing here judges.
"""

import re

from freehold.health.kernel_log.kinds import Kind, Seen, pci_key

_BDF = r"([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])"
_AER = re.compile(
    rf"\S+ {_BDF}: (?:AER: )?(?:Multiple )?(Correct\w+|Uncorrect\w+)(?: \((Non-Fatal|Fatal)\))? error "
    rf"(?:message )?received(?:(?:: | from ){_BDF})?"
)
_BUS_ERROR = re.compile(
    rf"\S+ {_BDF}: (?:AER: )?PCIe Bus Error: severity=(Correct\w+|Uncorrect\w+)(?: \((Non-Fatal|Fatal)\))?, type=([^,]+)"
)
_UNRECOVERED = re.compile(
    rf"\S+ {_BDF}: AER: (?:can't recover|[Dd]evice recovery failed|subordinate device reset failed)"
)
_DPC = re.compile(rf"\S+ {_BDF}: DPC: containment event")
_APEI = re.compile(r"(?:\{\d+\})?\[Hardware Error\]: event severity: (\w+)")
_MCE = re.compile(
    r"mce: \[Hardware Error\]: CPU (\d+): Machine Check(?: Exception)?: [0-9a-f]+ Bank (\d+): ([0-9a-f]{8,16})"
)
_MCE_UNCORRECTED = 1 << 61  # Intel SDM volume 3B, 15.3.2.2 (IA32_MCi_STATUS.UC); AMD's bit is the same
_MCE_AMD = re.compile(r"(?:mce: )?\[Hardware Error\]: (Uncorrected|Deferred|Corrected)\b")
_POISON = re.compile(r"mce: Uncorrected hardware memory error|Memory failure: 0x[0-9a-f]+: recovery action")
_FATAL_CHECK = re.compile(
    r"Kernel panic - not syncing: (?:Fatal|Uncorrected|Fatal local) (?:machine check|hardware error)",
    re.IGNORECASE,
)
_SERR = re.compile(r"NMI: (?:PCI system error \(SERR\)|IOCK error)")
_TOO_HOT = re.compile(
    r"(?:thermal thermal_zone\d+: .*|ACPI: thermal: |thermal: )[Cc]ritical temperature reached"
)
_WARM = re.compile(r"mce: CPU(\d+): (?:Core|Package) temperature (?:is )?above threshold")
_EDAC = re.compile(r"EDAC (?:\S+ )?MC(\d+): (?:\d+ )?(CE|UE) ")
_HUNG = re.compile(r"INFO: task (.+):(\d+) blocked (?:in I/O wait )?for more than (\d+) seconds")
_SOFT_LOCKUP = re.compile(
    r"(?:NMI )?(?:watchdog: )?BUG: soft lockup - CPU#(\d+) stuck for (\d+)s! \[(.+):(\d+)\]"
)
_HARD_LOCKUP = re.compile(r"(?:NMI )?watchdog: Watchdog detected hard LOCKUP on cpu (\d+)")
_RCU = re.compile(r"(?:rcu: )?INFO: rcu\w+ (?:self-detected stall|detected (?:expedited )?stalls)")
_BUG = re.compile(
    r"(Kernel panic - not syncing|BUG: unable to handle|BUG: kernel NULL pointer|Oops: |general protection fault, |kernel BUG at )"
)
_OOM = re.compile(r"oom-kill:constraint=(\w+).*?,task=(.*),pid=(\d+),uid=")
_KILLED = re.compile(
    r"(Memory cgroup out|Out) of memory(?: \([^)]*\))?: Kill(?:ed)? process (\d+) \((.+?)\)(?: |,|$)"
)
# A task's name has at most 15 characters (TASK_COMM_LEN), so a text with a longer beginning is another line.
_SEGFAULT = re.compile(r"(.{1,15}?)\[(\d+)\]: segfault at .* in ([^\[\s]+)\[")
_TRAP = re.compile(r"traps: (.{1,15}?)\[(\d+)\] .* in ([^\[\s]+)\[")
_GPU_LIBRARY = re.compile(
    r"(?:lib(?:nccl|cuda|cudart|cublas|cublasLt|cudnn\w*|nvinfer\w*|nvidia-\w[\w-]*|torch\w*|c10\w*|ggml[\w-]*|llama)"
    r"|xllamacpp[\w.-]*|_C|_moe_C|sgl_kernel\w*|flashinfer\w*)(?:\.abi3|\.cpython-[\w-]+)?\.so[\d.]*"
)


# Names of engines' processes, as the kernel cuts them.
_ENGINE = re.compile(r"VLLM|vllm|sglang|llama-|trtllm|tritonserver|pt_main_thread|ray::")


def heat(text: str) -> Seen | None:
    """Read that the machine is about to stop for heat, or that a processor slows down for it."""
    if _TOO_HOT.match(text):
        return Seen(Kind.TOO_HOT)
    match = _WARM.match(text)
    return Seen(Kind.WARM, f"cpu{match[1]}") if match else None


def aer(text: str) -> Seen | None:
    """Read a PCIe error that a port or device reports: corrected, uncorrected, or one that could not be recovered."""
    if _SERR.match(text):
        return Seen(Kind.AER_UNCORRECTED, "", None, {"by": "serr"})
    if match := _UNRECOVERED.match(text):
        return Seen(Kind.AER_UNRECOVERED, pci_key(match[1]))
    if match := _DPC.match(text):
        return Seen(Kind.AER_UNCORRECTED, pci_key(match[1]), None, {"severity": "contained", "by": "dpc"})
    if match := _AER.match(text):
        port, word, fatal, source = match.groups()
        return _aer_seen(source or port, word, fatal, {"by": "port"})
    if match := _BUS_ERROR.match(text):
        return _aer_seen(match[1], match[2], match[3], {"by": "device", "layer": match[4].strip()})
    return None


def _aer_seen(address: str, word: str, fatal: str | None, fields: dict[str, str]) -> Seen:
    if word.startswith("Correct"):
        return Seen(Kind.AER_CORRECTED, pci_key(address), None, {"severity": "corrected"} | fields)
    return Seen(
        Kind.AER_UNCORRECTED, pci_key(address), None, {"severity": (fatal or "uncorrected").lower()} | fields
    )


def memory(text: str) -> Seen | None:
    """Read an error of the host's memory or processors, corrected or not."""
    if _FATAL_CHECK.match(text):
        return Seen(Kind.MEMORY_UNCORRECTED, "", None, {"by": "panic"})
    if match := _APEI.match(text):
        bad = match[1] in {"fatal", "recoverable"}
        return Seen(_memory_kind(bad=bad), "", None, {"severity": match[1], "by": "apei"})
    if match := _MCE.match(text):
        bad = bool(int(match[3], 16) & _MCE_UNCORRECTED)
        return Seen(_memory_kind(bad=bad), f"cpu{match[1]}", None, {"bank": match[2], "by": "mce"})
    if match := _MCE_AMD.match(text):
        return Seen(
            _memory_kind(bad=match[1] != "Corrected"), "", None, {"by": "mce", "severity": match[1].lower()}
        )
    if _POISON.match(text):
        return Seen(Kind.MEMORY_UNCORRECTED, "", None, {"by": "poison"})
    if match := _EDAC.match(text):
        return Seen(_memory_kind(bad=match[2] == "UE"), f"mc{match[1]}", None, {"by": "edac"})
    return None


def _memory_kind(*, bad: bool) -> Kind:
    return Kind.MEMORY_UNCORRECTED if bad else Kind.MEMORY_CORRECTED


def task(text: str) -> Seen | None:
    """Read a task that hangs or a processor that is stuck."""
    if match := _HUNG.match(text):
        return Seen(Kind.HUNG_TASK, "", None, {"name": match[1], "pid": match[2], "for_s": match[3]})
    if match := _SOFT_LOCKUP.match(text):
        fields = {"lockup": "soft", "for_s": match[2], "name": match[3], "pid": match[4]}
        return Seen(Kind.LOCKUP, f"cpu{match[1]}", None, fields)
    if match := _HARD_LOCKUP.match(text):
        return Seen(Kind.LOCKUP, f"cpu{match[1]}", None, {"lockup": "hard"})
    return Seen(Kind.LOCKUP, "", None, {"lockup": "rcu"}) if _RCU.match(text) else None


def bug(text: str) -> Seen | None:
    """Read that the kernel itself failed."""
    match = _BUG.match(text)
    return Seen(Kind.KERNEL_BUG, "", None, {"what": match[1].strip(" ,:")}) if match else None


def oom(text: str) -> Seen | None:
    """Read whom the kernel killed for want of memory, and whether a cgroup's limit was the reason."""
    if match := _OOM.match(text):
        limited = "cgroup" if match[1] == "CONSTRAINT_MEMCG" else "host"
        return Seen(Kind.OOM_KILL, "", None, {"limit": limited, "name": match[2], "pid": match[3]})
    if match := _KILLED.match(text):
        limited = "cgroup" if match[1].startswith("Memory") else "host"
        return Seen(Kind.OOM_KILL, "", None, {"limit": limited, "name": match[3], "pid": match[2]})
    return None


def crash(text: str) -> Seen | None:
    """Read an engine that crashed, or a program inside a GPU, collective or tensor library; crashes elsewhere are not a node's affair."""
    match = _SEGFAULT.match(text) or _TRAP.match(text)
    if not match or not (_GPU_LIBRARY.fullmatch(match[3]) or _ENGINE.match(match[1])):
        return None
    return Seen(Kind.CRASH, "", None, {"name": match[1], "pid": match[2], "library": match[3]})
