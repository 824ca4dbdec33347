"""The name of every reading a GPU may have, with the NVML call and the DCGM exporter's fields behind it: one table.

A name ends in its unit; a count has none. Sources: the calls and field numbers are those of nvidia-ml-py 13.615.71
(NVML field 230 is the recovery action; **DCGM's** field 230 is the last XID, so numbers of the one never name the other);
DCGM's old names are those of dcgmlib/dcgm_fields.h, its new ones the table of renamed fields that DCGM's main branch has kept since
it renamed them. Nothing here calls anything: `nvml` and `dcgm` do. What it asks, not what it means:
thresholds are the probes'.
"""

from collections.abc import Mapping
from dataclasses import dataclass

FIELD = "nvmlDeviceGetFieldValues"
"""Asked once per sweep for all fields together."""
LINK_STATE = "nvmlDeviceGetNvLinkState"
"""Asked per link until the card says that it has no more."""
MIB_BYTES = 1024.0 * 1024.0
"""DCGM counts frame buffer in MiB. Source: dcgm_fields.h."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One way to ask NVML."""

    call: str
    """The function of nvidia-ml-py; `FIELD` with args (field,) or (field, scope); `LINK_STATE` and per-link fields run over all links."""
    args: tuple[int, ...] = ()
    """What follows the device's handle."""
    struct: str = ""
    """The ctypes structure that the caller must bring, filled by the call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReading:
    """One reading: where it comes from and how its raw value becomes the named one."""

    name: str
    asks: tuple[Ask, ...] = ()
    """Newest way first; the next is tried where one is missing or unsupported. Empty: NVML does not have it."""
    pick: int | str | None = None
    """Item of a list or field of a structure; `len` counts a list, None takes the value itself."""
    scale: float = 1.0
    """NVML's unit times this is ours; 1 keeps whole numbers whole."""
    dcgm: tuple[str, ...] = ()
    """The DCGM exporter's names for it, newest first; several that add up are joined by `+`."""
    dcgm_scale: float = 1.0
    constant: bool = False
    """It does not change while the driver is loaded; asked on the first sweep and now and then."""


def _call(call: str, *args: int, struct: str = "") -> tuple[Ask, ...]:
    return (Ask(call=call, args=args, struct=struct),)


def _field(*numbers: int) -> tuple[Ask, ...]:
    return tuple(Ask(call=FIELD, args=(number,)) for number in numbers)


def _per_link(number: int, *totals: int) -> tuple[Ask, ...]:
    """Return a field asked of every link, or else totals that the driver adds up itself."""
    return (Ask(call=FIELD, args=(number, PER_LINK)), *_field(*totals))


PER_LINK = -1
"""A scope that stands for every link in turn; our own mark, no NVML value."""

_MEMORY = (
    # nvmlMemory_v2 of nvidia-ml-py; the first version folds `reserved` into `used`.
    Ask(call="nvmlDeviceGetMemoryInfo", args=(0x02000028,)),
    Ask(call="nvmlDeviceGetMemoryInfo"),
)
_REMAP = _call("nvmlDeviceGetRemappedRows")
_HISTOGRAM = _call("nvmlDeviceGetRowRemapperHistogram")
_SRAM = _call("nvmlDeviceGetSramEccErrorStatus", struct="c_nvmlEccSramErrorStatus_v1_t")
_CLOCK_SM, _CLOCK_MEMORY = 1, 2
_CORRECTED, _UNCORRECTED, _VOLATILE, _AGGREGATE, _DRAM, _SRAM_PLACE = 0, 1, 0, 1, 2, 7
# NVML_CLOCK_*, NVML_MEMORY_ERROR_TYPE_*, NVML_VOLATILE_ECC, NVML_AGGREGATE_ECC, NVML_MEMORY_LOCATION_* of nvidia-ml-py.

_IDENTITY = (
    GpuReading(name="name", asks=_call("nvmlDeviceGetName"), constant=True),
    GpuReading(name="uuid", asks=_call("nvmlDeviceGetUUID")),
    GpuReading(name="serial", asks=_call("nvmlDeviceGetSerial"), constant=True),
    GpuReading(name="pci", asks=_call("nvmlDeviceGetPciInfo"), pick="busId", constant=True),
    GpuReading(name="vbios_version", asks=_call("nvmlDeviceGetVbiosVersion"), constant=True),
    GpuReading(name="inforom_version", asks=_call("nvmlDeviceGetInforomImageVersion"), constant=True),
    GpuReading(name="gsp_version", asks=_call("nvmlDeviceGetGspFirmwareVersion"), constant=True),
    GpuReading(name="mig_mode", asks=_call("nvmlDeviceGetMigMode"), pick=0, dcgm=("DCGM_FI_DEV_MIG_MODE",)),
    GpuReading(name="persistence_mode", asks=_call("nvmlDeviceGetPersistenceMode"), constant=True),
)
_THERMAL = (
    GpuReading(
        name="temperature_c",
        asks=_call("nvmlDeviceGetTemperature", 0),
        dcgm=("DCGM_FI_DEV_GPU_TEMP_CELSIUS", "DCGM_FI_DEV_GPU_TEMP"),
    ),
    GpuReading(
        name="margin_c",
        asks=_call("nvmlDeviceGetMarginTemperature"),
        dcgm=("DCGM_FI_DEV_GPU_TEMP_MARGIN_CELSIUS", "DCGM_FI_DEV_GPU_TEMP_LIMIT"),
    ),
    GpuReading(name="shutdown_tlimit_c", asks=_field(193)),
    GpuReading(name="slowdown_tlimit_c", asks=_field(194)),
    GpuReading(name="memory_max_tlimit_c", asks=_field(195)),
    GpuReading(name="gpu_max_tlimit_c", asks=_field(196)),
    GpuReading(
        name="slowdown_threshold_c",
        asks=_call("nvmlDeviceGetTemperatureThreshold", 1),
        dcgm=("DCGM_FI_DEV_GPU_TEMP_SLOWDOWN_CELSIUS", "DCGM_FI_DEV_SLOWDOWN_TEMP"),
        constant=True,
    ),
    GpuReading(
        name="memory_temp_c",
        asks=_field(82),
        dcgm=("DCGM_FI_DEV_MEMORY_TEMP_CELSIUS", "DCGM_FI_DEV_MEMORY_TEMP"),
    ),
    GpuReading(
        name="memory_max_threshold_c",
        asks=_call("nvmlDeviceGetTemperatureThreshold", 2),
        dcgm=("DCGM_FI_DEV_MEMORY_MAX_OP_TEMP_CELSIUS", "DCGM_FI_DEV_MEM_MAX_OP_TEMP"),
        constant=True,
    ),
)
_THROTTLE = (
    GpuReading(
        name="throttle_bits",
        asks=(
            *_call("nvmlDeviceGetCurrentClocksEventReasons"),
            *_call("nvmlDeviceGetCurrentClocksThrottleReasons"),
        ),
        dcgm=("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS"),
    ),
    # DCGM hands NVML's nanoseconds on: NVIDIA/dcgm-exporter pull request 589, and dcgm_fields.h since; older comments there and in
    # default-counters.csv say microseconds, and never were right.
    GpuReading(
        name="power_cap_ns",
        asks=_field(74),
        dcgm=("DCGM_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP_NS", "DCGM_FI_DEV_POWER_VIOLATION"),
    ),
    GpuReading(
        name="sw_thermal_ns",
        asks=_field(269),
        dcgm=("DCGM_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN_NS",),
    ),
    GpuReading(
        name="hw_thermal_ns",
        asks=_field(270),
        dcgm=("DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN_NS",),
    ),
    GpuReading(
        name="power_brake_ns",
        asks=_field(271),
        dcgm=("DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN_NS",),
    ),
    GpuReading(name="thermal_violation_ns", asks=_field(75), dcgm=("DCGM_FI_DEV_THERMAL_VIOLATION",)),
)


def _ecc(name: str, kind: int, counter: int, *, dcgm: str = "") -> GpuReading:
    return GpuReading(
        name=name,
        asks=_call("nvmlDeviceGetTotalEccErrors", kind, counter),
        dcgm=(dcgm,) if dcgm else (),
    )


def _ecc_at(place: str, kind: int, counter: int) -> GpuReading:
    name = f"ecc_{place}_{('volatile', 'aggregate')[counter]}_{('corrected', 'uncorrected')[kind]}"
    at = {"dram": _DRAM, "sram": _SRAM_PLACE}[place]
    # dcgm_fields.h: SBE and DBE, VOL and AGG, DEV for device memory and SRM for SRAM.
    word = f"{('SBE', 'DBE')[kind]}_{('VOL', 'AGG')[counter]}_{ {'dram': 'DEV', 'sram': 'SRM'}[place] }"
    return GpuReading(
        name=name,
        asks=_call("nvmlDeviceGetMemoryErrorCounter", kind, counter, at),
        dcgm=(f"DCGM_FI_DEV_ECC_{word}",),
    )


_ECC = (
    GpuReading(
        name="ecc_mode",
        asks=_call("nvmlDeviceGetEccMode"),
        pick=0,
        dcgm=("DCGM_FI_DEV_ECC_MODE", "DCGM_FI_DEV_ECC_CURRENT"),
    ),
    _ecc("ecc_volatile_corrected", _CORRECTED, _VOLATILE, dcgm="DCGM_FI_DEV_ECC_SBE_VOL_TOTAL"),
    _ecc("ecc_volatile_uncorrected", _UNCORRECTED, _VOLATILE, dcgm="DCGM_FI_DEV_ECC_DBE_VOL_TOTAL"),
    _ecc("ecc_aggregate_corrected", _CORRECTED, _AGGREGATE, dcgm="DCGM_FI_DEV_ECC_SBE_AGG_TOTAL"),
    _ecc("ecc_aggregate_uncorrected", _UNCORRECTED, _AGGREGATE, dcgm="DCGM_FI_DEV_ECC_DBE_AGG_TOTAL"),
    *(
        _ecc_at(place, kind, counter)
        for place in ("dram", "sram")
        for counter in (_VOLATILE, _AGGREGATE)
        for kind in (_CORRECTED, _UNCORRECTED)
    ),
    GpuReading(
        name="sram_threshold_exceeded",
        asks=_SRAM,
        pick="bThresholdExceeded",
        dcgm=("DCGM_FI_DEV_SRAM_EXCEEDED", "DCGM_FI_DEV_THRESHOLD_SRM"),
    ),
)
_REPAIR = (
    GpuReading(
        name="row_remap_corrected",
        asks=_REMAP,
        pick=0,
        dcgm=("DCGM_FI_DEV_ROW_REMAP_CORRECTABLE_TOTAL", "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS"),
    ),
    GpuReading(
        name="row_remap_uncorrected",
        asks=_REMAP,
        pick=1,
        dcgm=("DCGM_FI_DEV_ROW_REMAP_UNCORRECTABLE_TOTAL", "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS"),
    ),
    GpuReading(name="row_remap_pending", asks=_REMAP, pick=2, dcgm=("DCGM_FI_DEV_ROW_REMAP_PENDING",)),
    GpuReading(
        name="row_remap_failure",
        asks=_REMAP,
        pick=3,
        dcgm=("DCGM_FI_DEV_ROW_REMAP_FAILED", "DCGM_FI_DEV_ROW_REMAP_FAILURE"),
    ),
    *(
        GpuReading(
            name=f"row_remap_banks_{left}",
            asks=_HISTOGRAM,
            pick=left,
            dcgm=(
                f"DCGM_FI_DEV_BANK_REMAP_AVAIL_{left.upper()}",
                f"DCGM_FI_DEV_BANKS_REMAP_ROWS_AVAIL_{left.upper()}",
            ),
        )
        for left in ("max", "high", "partial", "low", "none")
    ),
    GpuReading(
        name="retired_pages_corrected",
        asks=_call("nvmlDeviceGetRetiredPages", 0),
        pick="len",
        dcgm=("DCGM_FI_DEV_PAGE_RETIRED_SBE_TOTAL", "DCGM_FI_DEV_RETIRED_SBE"),
    ),
    GpuReading(
        name="retired_pages_uncorrected",
        asks=_call("nvmlDeviceGetRetiredPages", 1),
        pick="len",
        dcgm=("DCGM_FI_DEV_PAGE_RETIRED_DBE_TOTAL", "DCGM_FI_DEV_RETIRED_DBE"),
    ),
    GpuReading(
        name="retired_pages_pending",
        asks=_call("nvmlDeviceGetRetiredPagesPendingStatus"),
        dcgm=("DCGM_FI_DEV_PAGE_RETIRED_PENDING", "DCGM_FI_DEV_RETIRED_PENDING"),
    ),
    GpuReading(name="recovery_action", asks=_field(230), dcgm=("DCGM_FI_DEV_GPU_RECOVERY_ACTION",)),
)
_LOAD = (
    GpuReading(
        name="memory_total_bytes",
        asks=_MEMORY,
        pick="total",
        dcgm=("DCGM_FI_DEV_FB_TOTAL",),
        dcgm_scale=MIB_BYTES,
    ),
    GpuReading(
        name="memory_used_bytes",
        asks=_MEMORY,
        pick="used",
        dcgm=("DCGM_FI_DEV_FB_USED",),
        dcgm_scale=MIB_BYTES,
    ),
    GpuReading(
        name="memory_free_bytes",
        asks=_MEMORY,
        pick="free",
        dcgm=("DCGM_FI_DEV_FB_FREE",),
        dcgm_scale=MIB_BYTES,
    ),
    GpuReading(
        name="memory_reserved_bytes",
        asks=_MEMORY[:1],
        pick="reserved",
        dcgm=("DCGM_FI_DEV_FB_RESERVED",),
        dcgm_scale=MIB_BYTES,
    ),
    GpuReading(
        name="power_w",
        asks=_call("nvmlDeviceGetPowerUsage"),
        scale=1e-3,
        dcgm=("DCGM_FI_DEV_BOARD_POWER_WATTS", "DCGM_FI_DEV_POWER_USAGE"),
    ),
    GpuReading(
        name="power_limit_w",
        asks=_call("nvmlDeviceGetEnforcedPowerLimit"),
        scale=1e-3,
        dcgm=("DCGM_FI_DEV_BOARD_POWER_LIMIT_ENFORCED_WATTS", "DCGM_FI_DEV_ENFORCED_POWER_LIMIT"),
    ),
    GpuReading(
        name="power_limit_default_w",
        asks=_call("nvmlDeviceGetPowerManagementDefaultLimit"),
        scale=1e-3,
        dcgm=("DCGM_FI_DEV_BOARD_POWER_LIMIT_DEFAULT_WATTS", "DCGM_FI_DEV_POWER_MGMT_LIMIT_DEF"),
        constant=True,
    ),
    GpuReading(
        name="energy_mj",
        asks=_call("nvmlDeviceGetTotalEnergyConsumption"),
        dcgm=("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",),
    ),
    GpuReading(
        name="utilisation_percent",
        asks=_call("nvmlDeviceGetUtilizationRates"),
        pick="gpu",
        dcgm=("DCGM_FI_DEV_GPU_UTIL_RATIO", "DCGM_FI_DEV_GPU_UTIL"),
    ),
    GpuReading(
        name="memory_utilisation_percent",
        asks=_call("nvmlDeviceGetUtilizationRates"),
        pick="memory",
        dcgm=("DCGM_FI_DEV_MEM_COPY_UTIL",),
    ),
    GpuReading(
        name="sm_clock_mhz",
        asks=_call("nvmlDeviceGetClockInfo", _CLOCK_SM),
        dcgm=("DCGM_FI_DEV_SM_CLOCK",),
    ),
    GpuReading(
        name="sm_clock_max_mhz",
        asks=_call("nvmlDeviceGetMaxClockInfo", _CLOCK_SM),
        dcgm=("DCGM_FI_DEV_MAX_SM_CLOCK",),
        constant=True,
    ),
    GpuReading(
        name="memory_clock_mhz",
        asks=_call("nvmlDeviceGetClockInfo", _CLOCK_MEMORY),
        dcgm=("DCGM_FI_DEV_MEM_CLOCK",),
    ),
    GpuReading(
        name="pstate",
        asks=_call("nvmlDeviceGetPerformanceState"),
        dcgm=("DCGM_FI_DEV_GPU_PSTATE", "DCGM_FI_DEV_PSTATE"),
    ),
)
_LINKS = (
    GpuReading(
        name="pcie_gen",
        asks=_call("nvmlDeviceGetCurrPcieLinkGeneration"),
        dcgm=("DCGM_FI_DEV_PCIE_LINK_GEN",),
    ),
    GpuReading(
        name="pcie_gen_max",
        asks=_call("nvmlDeviceGetMaxPcieLinkGeneration"),
        dcgm=("DCGM_FI_DEV_PCIE_MAX_LINK_GEN",),
        constant=True,
    ),
    GpuReading(
        name="pcie_width",
        asks=_call("nvmlDeviceGetCurrPcieLinkWidth"),
        dcgm=("DCGM_FI_DEV_PCIE_LINK_WIDTH",),
    ),
    GpuReading(
        name="pcie_width_max",
        asks=_call("nvmlDeviceGetMaxPcieLinkWidth"),
        dcgm=("DCGM_FI_DEV_PCIE_MAX_LINK_WIDTH",),
        constant=True,
    ),
    GpuReading(
        name="pcie_replays",
        asks=_call("nvmlDeviceGetPcieReplayCounter"),
        dcgm=("DCGM_FI_DEV_PCIE_REPLAY_TOTAL", "DCGM_FI_DEV_PCIE_REPLAY_COUNTER"),
    ),
    GpuReading(name="pcie_correctable_errors", asks=_field(173)),
    GpuReading(name="pcie_non_fatal_errors", asks=_field(179)),
    GpuReading(name="pcie_fatal_errors", asks=_field(180)),
    GpuReading(name="nvlink_up", asks=_call(LINK_STATE), pick="up"),
    GpuReading(name="nvlink_down", asks=_call(LINK_STATE), pick="down"),
    GpuReading(
        name="nvlink_replay_errors",
        asks=_per_link(161, 52),
        dcgm=(
            "DCGM_FI_DEV_NVLINK_REPLAY_TOTAL",
            "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_TOTAL",
            "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL",
        ),
    ),
    GpuReading(
        name="nvlink_recovery_errors",
        asks=_per_link(162, 59),
        dcgm=(
            "DCGM_FI_DEV_NVLINK_RECOVERY_TOTAL",
            "DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_TOTAL",
            "DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL",
        ),
    ),
    GpuReading(
        name="nvlink_crc_errors",
        asks=_per_link(163, 38),
        dcgm=(
            "DCGM_FI_DEV_NVLINK_CRC_ERROR_TOTAL",
            "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_TOTAL",
            "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL",
        ),
    ),
    # Blackwell's NVLink 5 counts its recoveries there and has none of the above.
    GpuReading(name="nvlink_link_recoveries", asks=_per_link(215)),
    GpuReading(name="nvlink_failed_recoveries", asks=_per_link(214)),
)

READINGS: tuple[GpuReading, ...] = (
    *_IDENTITY,
    *_THERMAL,
    *_THROTTLE,
    *_ECC,
    *_REPAIR,
    *_LOAD,
    *_LINKS,
)
"""All of them."""
BY_NAME: Mapping[str, GpuReading] = {reading.name: reading for reading in READINGS}
IDENTITY = ("name", "uuid", "serial", "pci")
"""Those that name the card: they stand in `Gpu`'s own fields, not among its readings."""

DRIVER_CALLS: Mapping[str, str] = {
    "driver_version": "nvmlSystemGetDriverVersion",
    "nvml_version": "nvmlSystemGetNVMLVersion",
    "cuda_version": "nvmlSystemGetCudaDriverVersion",
}
"""Readings of the driver as a whole; 13000 is CUDA 13.0."""
