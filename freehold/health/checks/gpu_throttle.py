"""Is a GPU held back by anything but its power limit? Judged by the driver's time counters, by single looks only without them.

A card at its power cap is working as it should. Slowing for heat or for the power supply's brake is not, and 0x8 shows for
a moment at any change of clocks, so that one look proves nothing. All GPUs of a node at once point to the room or the
power, one alone to its own cooling. It does not measure temperature: gpu_temperature does.
"""

from collections.abc import Iterable
from typing import NamedTuple

from freehold.core.findings import Action, Evidence, Verdict
from freehold.health.judge import rule_result as result
from freehold.health.judge.declaration import declared
from freehold.health.judge.gpus import GpuWindow, number, whole_node
from freehold.health.judge.rule_result import RuleResult
from freehold.health.model.view import Gpu

DECLARED = declared(__name__)
TIME_SHARE = DECLARED.limit("time_share")
TIME_SHARE_BAD = DECLARED.limit("time_share_bad")
LOOKS_SHARE = DECLARED.limit("looks_share")
LOOKS_LEAST = DECLARED.count("looks_least")
SLOW_CLOCK_SHARE = DECLARED.limit("slow_clock_share")
LOADED_PERCENT = DECLARED.limit("loaded_percent")

GPU_IDLE, HW_SLOWDOWN, SW_THERMAL, HW_THERMAL, POWER_BRAKE = 1, 8, 0x20, 0x40, 0x80
"""nvmlClocksEventReason* of nvidia-ml-py, the same values as nvmlClocksThrottleReason*; power cap (4), locked clocks (2) are normal."""
NANOSECONDS = 1e9
"""In a second."""


class _Throttle(NamedTuple):
    """One way in which a GPU is held back."""

    reason: str
    bit: int
    counter: str
    effect: str
    action: Action
    """What to do where one GPU has it."""


_THROTTLES = (
    _Throttle(
        "power_brake", POWER_BRAKE, "power_brake_ns", "braked by the power supply", Action.CHECK_FACILITY
    ),
    _Throttle(
        "hw_thermal", HW_THERMAL, "hw_thermal_ns", "slowed by its hardware for heat", Action.INSPECT_HARDWARE
    ),
    _Throttle("sw_thermal", SW_THERMAL, "sw_thermal_ns", "slowed by the driver for heat", Action.WATCH),
    _Throttle("thermal", 0, "thermal_violation_ns", "slowed for heat", Action.WATCH),
    _Throttle("hw_slowdown", HW_SLOWDOWN, "", "slowed by its hardware", Action.INSPECT_HARDWARE),
)


def _share(gpu: GpuWindow, kind: _Throttle) -> tuple[float, Evidence] | None:
    """Return the part of the window that it was held back so, with what shows it; None where it is not known."""
    rise = gpu.rise(kind.counter) if kind.counter else None
    if rise is not None and rise.seconds > 0:
        spent_s = rise.amount / NANOSECONDS
        shown = gpu.evidence(kind.counter, value=f"+{spent_s:.1f} s in {rise.seconds:.0f} s", baseline="+0 s")
        return spent_s / rise.seconds, shown
    bits = [int(value) for value in gpu.values("throttle_bits")]
    if not kind.bit or len(bits) < LOOKS_LEAST:
        return None
    held = sum(1 for value in bits if value & kind.bit)
    shown = gpu.evidence("throttle_bits", value=f"{kind.bit:#x} in {held} of {len(bits)} looks")
    # Scaled so that both kinds of share are judged by one bar.
    return held / len(bits) * TIME_SHARE / LOOKS_SHARE, shown


def _held(gpu: GpuWindow) -> Iterable[RuleResult]:
    return (found for kind in _THROTTLES for found in _held_by(gpu, kind))


def _held_by(gpu: GpuWindow, kind: _Throttle) -> Iterable[RuleResult]:
    share = _share(gpu, kind)
    if share is None or share[0] < TIME_SHARE:
        return
    everywhere = bool(kind.bit) and whole_node(
        gpu, lambda one: int(number(one, "throttle_bits") or 0) & kind.bit > 0
    )
    where = " So are all GPUs of the node: look at power, fans and inlet air." if everywhere else ""
    yield RuleResult(
        Verdict.UNHEALTHY if share[0] >= TIME_SHARE_BAD else Verdict.DEGRADED,
        kind.reason,
        f"The GPU was {kind.effect} ({share[1].value}).{where}",
        Action.CHECK_FACILITY if everywhere else kind.action,
        (share[1], gpu.evidence("temperature_c"), gpu.evidence("throttle_bits")),
    )


def _slow(gpu: GpuWindow) -> Iterable[RuleResult]:
    """Find a loaded GPU far below its clocks that no bit explains; the same in every one of the last looks."""
    looks = [one for _, one in gpu.past][-LOOKS_LEAST:]
    if len(looks) < LOOKS_LEAST or not all(_is_slow(one) for one in looks):
        return
    yield result.degraded(
        "slow_clock",
        f"Loaded, it runs at {gpu.shown('sm_clock_mhz')} of {gpu.shown('sm_clock_max_mhz')} MHz and gives no reason.",
        Action.WATCH,
        (
            gpu.evidence("sm_clock_mhz"),
            gpu.evidence("throttle_bits"),
            gpu.evidence("utilisation_percent"),
        ),
    )


def _is_slow(gpu: Gpu) -> bool:
    clock, most = number(gpu, "sm_clock_mhz"), number(gpu, "sm_clock_max_mhz")
    bits, busy = number(gpu, "throttle_bits"), number(gpu, "utilisation_percent")
    if clock is None or not most or bits is None or busy is None:
        return False
    explained = int(bits) & ~GPU_IDLE
    return not explained and busy >= LOADED_PERCENT and clock < most * SLOW_CLOCK_SHARE


PROBE = DECLARED.gpu_probe(_held, _slow)
