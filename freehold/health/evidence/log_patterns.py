"""Words that mean a sign: in engine logs, in findings, and in what people say of an incident.

Tables only, and the search through them. What a word means is a rule of ours on the source that each table names; what a sign
then says of the cause stands in catalog/data/health/evidence.yaml.
"""

import re
from collections.abc import Iterable, Iterator

from freehold.health.evidence.setting_patterns import LOG as _SET_WRONG

_Rules = tuple[tuple[str, str], ...]

# Source: messages of the CUDA runtime (cudaGetErrorString), torch, NCCL and errno, as quoted in vLLM and NCCL issues.
_LOG: _Rules = (
    (r"device-side assert", "log_assert"),
    (r"uncorrectable ECC error|ECCUncorrectable|ECC_UNCORRECTABLE", "log_ecc"),
    (r"uncorrectable NVLink|NVLINK_UNCORRECTABLE", "log_nvlink"),
    (r"illegal memory access|ILLEGAL_ADDRESS|IllegalAddress|misaligned address|MISALIGNED_ADDRESS", "log_illegal_access"),
    (r"CUDA out of memory|CUDA error: out of memory|cudaErrorMemoryAllocation|OutOfMemoryError|CUDA_ERROR_OUT_OF_MEMORY|CUBLAS_STATUS_ALLOC_FAILED", "log_gpu_memory_full"),
    (r"No available memory for the cache blocks|larger than the maximum number of tokens that can be stored in KV cache", "log_gpu_memory_full"),
    (r"KV cache.{0,80}larger than the available|Free memory on device .{0,80}less than desired", "log_gpu_memory_full"),
    (r"cudaMalloc\w*.{0,160}out of memory|unable to allocate \w* ?buffer|[Ff]ailed to allocate CUDA|NVML_ERROR_MEMORY|Not enough memory\. Please", "log_gpu_memory_full"),
    (r"[Dd]river/library version mismatch|LibRmVersionMismatch|LIB_RM_VERSION_MISMATCH", "library_mismatch"),
    (r"driver version is insufficient|driver on your system is too old|SYSTEM_DRIVER_MISMATCH|unsupported display driver|unsupported toolchain|InsufficientDriver|forward compatibility was attempted", "log_driver_old"),
    (r"SYSTEM_NOT_READY|system not yet initialized|[Ff]abric ?[Mm]anager", "fabric_manager"),
    (r"GPU is lost|fallen off the bus|GpuIsLost", "gpu_lost"),
    (r"NET/IB.{0,100}(error|status=\d)|ibv_\w+ failed|No route to host|Network is unreachable|transport retry|RETRY_EXC", "log_network"),
    (r"NCCL WARN .{0,60}Connect to .{0,60}failed|failure in name resolution|Max retries exceeded|Connection timed out|Errno (101|110|113)\b", "log_network"),
    (r"[Ww]atchdog caught collective|collective operation timeout|NCCL.{0,40}(timed out|timeout)|ncclRemoteError|waiting for clients|unhandled system error", "log_collective"),
    (r"nvls\.cc.{0,80}(Cuda failure|invalid argument)|NVLS.{0,60}(failed|unavailable)", "fabric_manager"),
    (r"Watchdog timeout \(|shared memory broadcast block|RPC call to \w+ timed out", "engine_frozen"),
    (r"No space left on device|ENOSPC|Errno 28\b|[Dd]isk quota exceeded|Errno 122\b", "log_disk_full"),
    (r"Input/output error|\bEIO\b|Read-only file system|Stale (NFS )?file handle|Transport endpoint is not connected", "log_storage"),
    (r"Remote I/O error|Structure needs cleaning|Errno (5|30|107|116|117|121)\b", "log_storage"),
    (r"Segmentation fault|core dumped|SIGSEGV|SIGABRT|GGML_ASSERT|terminate called|double free or corruption|free\(\): invalid|malloc\(\): |stack smashing", "engine_crashed"),
)  # fmt: skip
_LAST_RESORT: _Rules = (
    (
        r"Traceback \(most recent|unspecified launch failure|(Error|Exception)\b: |[Pp]anic",
        "log_exception",
    ),
)

# (which probe, what it says, the sign). Source: the words of gpud's and NVSentinel's checks, and of our own probes where a reason alone
# does not say it; the others' reasons stand in catalog/data/health/evidence_findings.yaml.
_FINDINGS: tuple[tuple[str, str, str], ...] = (
    ("gpu_xid", r"application error", "app_fault"),
    ("gpu_xid", r"repeats on this gpu", "app_repeats_same_gpu"),
    ("gpu_xid", r"unit xid", "engine_unit"),
    ("gpu_xid", r"ambiguous xid", "ambiguous"),
    ("gpu_xid", r"recovery action", "recovery_follows"),
    ("gpu_xid", r"off bus", "gpu_lost"),
    ("gpu_xid", r"init failed", "gpu_start_failed"),
    ("gpu_xid", r"pcie (fatal|error)", "aer_uncorrectable"),
    ("gpu_xid", r"memory xid", "memory_fatal"),
    ("gpu_xid", r"firmware xid.*\b(119|120|gsp)\b", "gsp"),
    ("gpu_xid", r"firmware xid", "firmware"),
    ("gpu_xid", r"driver xid", "driver_event"),
    ("gpu_xid", r"nvlink signal", "nvlink"),
    ("gpu_xid", r"nvlink peer", "nvlink_peer"),
    ("gpu_xid", r"nvlink (taken down|program)", "nvlink_software"),
    ("gpu_xid", r"link xid", "nvlink"),
    ("gpu_xid", r"nvlink non fatal", "nvlink_unclear"),
    ("gpu_xid", r"power xid", "power_cable"),
    ("gpu_xid", r"hardware xid", "gpu_hardware"),
    ("gpu_xid", r"configuration xid", "configuration_word"),
    ("gpu_xid", r"switch fatal", "switch_fatal"),
    ("gpu_xid", r"switch thermal", "thermal_all"),
    ("gpu_xid", r".", "unknown_xid"),
    ("gpu|nvml|dcgm|memory|ecc", r"remap.{0,12}fail", "row_remap_failure"),
    ("gpu|nvml|dcgm|memory|ecc", r"remap.{0,12}pend|page.{0,12}pend", "row_remap_pending"),
    ("gpu|nvml|dcgm|ecc", r"sram.{0,20}(thresh|exceed)", "sram_threshold"),
    ("gpu|nvml|dcgm|ecc", r"ecc.{0,20}(off|disabled)", "ecc_off"),
    ("gpu|nvml|dcgm|ecc", r"uncorrect|double.?bit|\bdbe\b|sram", "ecc_uncorrected"),
    ("gpu|nvml|dcgm|ecc", r"corrected|correctable|single.?bit|\bsbe\b", "ecc_corrected_outlier"),
    ("", r"lib\w*.{0,20}mismatch|driver/library|mismatch.{0,20}librar", "library_mismatch"),
    ("gpu|nvml|dcgm|driver", r"gpu.{0,8}lost|fallen off|off the bus|\blost\b", "gpu_lost"),
    ("gpu|nvml|dcgm", r"recovery.?action", "recovery_action"),
    ("gpu|nvml|dcgm", r"reset.?required|needs a reset", "reset_required"),
    ("gpu|nvml|dcgm|power", r"power.?brake|external power", "power_brake"),
    ("gpu|nvml|dcgm|therm|temp", r"(all|every).{0,12}gpus?.{0,40}(therm|hot|heat|temp)|node.?wide|inlet", "thermal_all"),
    ("gpu|nvml|dcgm|therm|temp", r"therm|overheat|temperature|margin|too hot", "thermal"),
    ("gpu|nvml|dcgm|pcie", r"width|lanes", "pcie_width"),
    ("gpu|nvml|dcgm|pcie", r"replay", "pcie_replay"),
    ("pcie", r"gen|speed|slow", "pcie_gen"),
    ("gpu|nvml|dcgm|nvlink", r"nvlink", "nvlink_counters"),
    ("gpu_power|power", r"limit|capped|below.{0,20}default", "power_capped"),
    ("gpu|nvml|dcgm|memory|process", r"residue|left.?over|orphan|zombie|no engine (runs|holds)", "gpu_memory_residue"),
    ("gpu_present|present|count", r"missing|absent|count|fewer|not seen|mismatch", "gpu_missing"),
    ("gpu|nvml|driver|dcgm", r"\bhung\b|hang|no answer|not answer|unresponsive|timed? ?out", "nvml_hung"),
    ("driver", r"not loaded|absent|no driver", "driver_missing"),
    ("driver", r"drift|lock|on.?disk|pending|differ", "driver_drift"),
    ("fabric", r".", "fabric_manager"),
    (r"\b(?:lock|drift|config)", r"drift|\block|differ", "lock_drift"),
    (r"\b(?:lock|drift|config)", r".", "configuration_word"),
    ("storage|disk|volume", r"throttl|cgroup|neighbour|neighbor|ticks.{0,12}(flat|normal)", "storage_throttled"),
    ("storage|disk|volume", r"user.?space|fuse", "storage_user_space"),
    ("storage|disk|volume", r"\bhung\b|hang|stuck|never end|timeouts?|d.state", "storage_hung"),
    ("storage|disk|volume", r"read.?only", "disk_read_only"),
    ("storage|disk|volume|smart", r"smart|spare|media|wear|critical.?warning", "disk_wear"),
    ("storage|disk|volume", r"i/?o.?error|read.?error|\beio\b|errors", "disk_error"),
    ("disk|storage|volume", r"full|space|inode", "disk_full"),
    ("storage|disk|volume", r"(slow|latency).{0,60}(device|disk)|(device|disk).{0,60}(slow|latency)", "storage_slow_device"),
    ("storage|disk|volume", r"slow|latency", "storage_slow"),
    ("rdma|infiniband|ib", r"link_?downed|overrun|integrity|rnr|fatal", "rdma_fatal"),
    ("rdma|infiniband|ib", r"ack", "rdma_ack_timeout"),
    ("rdma|infiniband|ib", r".", "rdma_warn"),
    ("network|peer|mesh", r"refused|process.{0,12}dead|agent|stopped", "peer_process_dead"),
    ("network|peer|mesh", r"unreach|gone|dead", "peer_unreachable"),
    ("network|link|nic|eth", r"speed|slower", "link_slow"),
    ("network|link|nic|eth", r"\bdown\b|flap|carrier", "link_down"),
    ("network|peer|mesh|link", r"retrans", "retransmits"),
    ("network|peer|mesh|link|packet", r"loss|lossy|lost", "packet_loss"),
    ("network|link|nic|eth", r"crc|damaged|errors", "link_errors"),
    ("network|link|nic|eth", r"drop", "link_drops"),
    ("network|link|nic|eth", r"missing|not there", "link_missing"),
    ("engine|replica|progress", r"stall|froze|no progress|not progress|\bhung\b|hang", "engine_frozen"),
    ("engine|replica|progress", r"dead|crash|exit", "engine_crashed"),
    ("memory|oom|host", r"oom", "oom_kill"),
    ("memory|host", r"pressure|short|swap|low", "memory_short"),
    ("clock|time|ntp", r".", "clock_wrong"),
    ("cpu|edac|mce", r"uncorrect|machine check|\bue\b", "cpu_error"),
)  # fmt: skip

# What people and other systems write into a context. Source: our own choice of plain words.
_CONTEXT: _Rules = (
    (r"\b(psu|power suppl\w+|pdu|ups|feed|breaker|rack power)\b.{0,60}(fail|fault|lost|trip|degrad|redundan|alarm)", "facility_word"),
    (r"\b(crac|chiller|cooling|coolant|inlet|air.?flow|ambient|water)\b.{0,60}(fail|fault|high|lost|alarm|hot|above|low|stop)", "facility_word"),
    (r"\bfans?\b.{0,40}(all|every|fail|fault|stop|alarm)", "facility_word"),
    (r"fabric.?manager.{0,60}(not|dead|fail|stop|inactive|mismatch|exited|down|differ|old|older)", "fabric_manager"),
    (r"driver.{0,40}(upgrad|updat|chang(?!ed_at)|install|roll)\w*", "driver_changed_recently"),
    (r"(engine|vllm|sglang|llama|image|cuda graph)\w*.{0,40}(upgrad|updat|chang(?!ed_at)|roll|deploy)\w*", "engine_changed_recently"),
    (r"\b(leak\w*|(memory|rss|resident).{0,40}(grows|growing|grew|climbs|climbing|rises|rising) (steadily|slowly|over|without|by|until))", "memory_leak"),
    (r"(symptom|fault|it|error).{0,30}only under load", "only_under_load"),
    (r"OOM ?Killed|killed by (the )?OOM|out.of.memory killer", "oom_kill"),
)  # fmt: skip


def log_signs(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the signs in an engine's log, each with the first line that has it.

    What is wrong with settings, files or packages counts where no fault of GPU, disk or network is named; a bare exception only where nothing else is.
    """
    text = tuple(_short(line) for line in lines)
    found = dict(_first_lines(text, _LOG))
    if not found.keys() - {"engine_crashed"}:
        found |= dict(list(_first_lines(text, _SET_WRONG))[:1])
    yield from found.items() if found else _first_lines(text, _LAST_RESORT)


_LINE_MOST = 2000
"""Characters of a line that are searched: its first and last thousand. Source: our own choice: an error's name stands at one end, and a hostile
line must cost no time."""


def _short(line: str) -> str:
    return line if len(line) <= _LINE_MOST else f"{line[: _LINE_MOST // 2]} {line[-_LINE_MOST // 2 :]}"


def _first_lines(lines: tuple[str, ...], rules: _Rules) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for words, sign in rules:
        line = next((line for line in lines if re.search(words, line)), None)
        if line is not None and sign not in seen:
            seen.add(sign)
            yield sign, line.strip()[:300]


def finding_sign(probe: str, words: str) -> str | None:
    """Return the sign (`thermal` has no GPUs to compare with yet) that a bad finding is; None: no rule knows it."""
    for where, what, sign in _FINDINGS:
        if re.search(where, probe, re.IGNORECASE) and re.search(what, words, re.IGNORECASE):
            return sign
    return None


def context_signs(text: str) -> Iterator[tuple[str, str]]:
    """Yield the signs in what somebody wrote of an incident, with the words that mean them."""
    for words, sign in _CONTEXT:
        if match := re.search(words, text, re.IGNORECASE | re.DOTALL):
            yield sign, match[0][:300]
