"""What each reason of our own probes means as a sign of a cause: by its name, not by words in a message.

A reason that is not here (gpu_xid's, whose message names the number) and checks that are not ours go by their words
(`words.finding_sign`). What a sign says of the cause stands in catalog/data/health/evidence.yaml. Tables only.
"""

from collections.abc import Mapping
from types import MappingProxyType

_SIGNS: Mapping[str, Mapping[str, str]] = {
    "blocked_processes": {"blocked": "task_blocked", "nvidia_blocked": "nvidia_blocked"},
    "clock": dict.fromkeys(("jumped", "not_synchronised", "uncertain"), "clock_wrong"),
    "driver": {
        "mismatch": "library_mismatch",
        "not_loaded": "driver_missing",
        "not_as_locked": "driver_drift",
        "pending_upgrade": "driver_drift",
    },
    "engine_progress": {
        **dict.fromkeys(("stalled", "no_progress", "unresponsive", "canary_failed"), "engine_frozen"),
        "blocked": "task_blocked",
        "dead": "engine_crashed",
    },
    "gpu_memory": {
        "row_remap_failure": "row_remap_failure",
        "sram_threshold_exceeded": "sram_threshold",
        **dict.fromkeys(("uncorrectable_sram", "uncorrectable_ecc", "pages_growing"), "ecc_uncorrected"),
        **dict.fromkeys(("row_remap_pending", "page_retirement_pending"), "row_remap_pending"),
        **dict.fromkeys(("many_corrected_errors", "many_remapped_rows", "no_spare_rows"), "memory_early"),
        "too_many_retired_pages": "gpu_hardware",
        "corrected_errors_outlier": "ecc_corrected_outlier",
        "ecc_off": "ecc_off",
    },
    "gpu_nvlink": {
        **dict.fromkeys(("link_down", "failed_recoveries"), "nvlink"),
        **dict.fromkeys(
            ("recovery_errors", "replay_errors", "link_recoveries", "crc_errors"), "nvlink_counters"
        ),
        "no_links": "nvlink_unclear",
    },
    "gpu_pcie": {
        "narrow_link": "pcie_width",
        "slow_link": "pcie_gen",
        "replays": "pcie_replay",
        **dict.fromkeys(("fatal_errors", "non_fatal_errors"), "aer_uncorrectable"),
    },
    "gpu_power": {"capped": "power_capped", "busy_at_idle_power": "hung_kernel"},
    "gpu_present": {
        "hung": "nvml_hung",
        **dict.fromkeys(("missing", "gone", "not_in_driver"), "gpu_missing"),
        **dict.fromkeys(("off_the_bus", "lost"), "gpu_lost"),
        "no_driver": "driver_missing",
        "reset_required": "reset_required",
        "recovery_action": "recovery_action",
        "more_than_expected": "lock_drift",
    },
    "gpu_temperature": dict.fromkeys(("near_slowdown", "past_slowdown", "memory_hot"), "thermal"),
    "gpu_throttle": {
        **dict.fromkeys(("hw_thermal", "sw_thermal", "thermal"), "thermal"),
        "power_brake": "power_brake",
        "hw_slowdown": "hw_slowdown",
    },
    "network_loss": {
        **dict.fromkeys(
            ("lossy_out", "lossy_back", "lossy", "cut_out", "cut_back", "own_loss"), "packet_loss"
        ),
        **dict.fromkeys(("peer_stopped", "peer_down"), "peer_process_dead"),
        **dict.fromkeys(("mtu_black_hole", "peer_differs"), "configuration_word"),
        "peer_unreachable": "peer_unreachable",
        "own_link": "link_down",
    },
    "rdma": {
        **dict.fromkeys(("missing", "port_down", "port_flapping", "fatal_counter"), "rdma_fatal"),
        "high_counter": "rdma_warn",
        "ack_timeouts": "rdma_ack_timeout",
    },
    "storage_errors": {
        **dict.fromkeys(("io_error", "io_errors", "medium_error"), "disk_error"),
        **dict.fromkeys(("timeout", "timeouts"), "disk_timeout"),
        **dict.fromkeys(("smart_warning", "smart_spare", "smart_media_errors", "smart_sectors"), "disk_wear"),
        **dict.fromkeys(("smart_worn", "smart_wearing"), "disk_wear"),
        "device_gone": "disk_gone",
        "read_only": "disk_read_only",
        "file_system_error": "file_system_error",
    },
    "storage_latency": {
        "slow_disk": "storage_slow_device",
        **dict.fromkeys(("slow", "slow_busy", "slow_at_times"), "storage_slow"),
        **dict.fromkeys(
            ("slow_throttled", "slow_throttled_or_neighbour", "hung_throttled"), "storage_throttled"
        ),
        **dict.fromkeys(("slow_user_space", "hung_user_space"), "storage_user_space"),
        "hung": "storage_hung",
        **dict.fromkeys(("read_error", "read_errors"), "disk_error"),
    },
}
REASON_SIGNS: Mapping[tuple[str, str], str] = MappingProxyType(
    {(probe, reason): sign for probe, reasons in _SIGNS.items() for reason, sign in reasons.items()}
)
"""By probe and reason; `thermal` has no GPUs to compare with yet."""
