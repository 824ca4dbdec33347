"""Does a GPU report its power, may it draw what it is built for, and does it draw what its load suggests?

High power is not a fault. A limit below the default was configured; a counter that stands still cannot be trusted. A
GPU that reports 100 % busy at idle power runs a kernel that does nothing: a hint at a hung kernel, which only an engine
without progress confirms. The check does not judge throttling: gpu_throttle does.
"""

from collections.abc import Iterable, Sequence

from freehold.core.findings import Action
from freehold.health.judge import rule_result as result
from freehold.health.judge.declaration import declared
from freehold.health.judge.gpus import GpuWindow
from freehold.health.judge.rule_result import RuleResult
from freehold.health.model.view import View

DECLARED = declared(__name__)
BUSY_PERCENT = DECLARED.limit("busy_percent")
IDLE_SHARE = DECLARED.limit("idle_share")
LOOKS_LEAST = DECLARED.count("looks_least")
STUCK_S = DECLARED.limit("stuck_s")


def _stuck(gpu: GpuWindow) -> Iterable[RuleResult]:
    energy = gpu.rise("energy_mj")
    power = gpu.value("power_w")
    if energy is None or energy.amount > 0 or energy.seconds < STUCK_S or not power:
        return
    yield result.degraded(
        "stuck",
        f"The energy counter has not moved for {energy.seconds:.0f} s at {power:g} W: its power reading cannot be believed.",
        Action.WATCH,
        (gpu.evidence("energy_mj", value=f"+0 in {energy.seconds:.0f} s"), gpu.evidence("power_w")),
    )


def _idle_but_busy(gpu: GpuWindow) -> bool:
    limit = gpu.value("power_limit_default_w") or gpu.value("power_limit_w")
    busy = gpu.values("utilisation_percent")[-LOOKS_LEAST:]
    power = gpu.values("power_w")[-LOOKS_LEAST:]
    if limit is None or min(len(busy), len(power)) < LOOKS_LEAST:
        return False
    return min(busy) >= BUSY_PERCENT and max(power) < limit * IDLE_SHARE


def _engines_move(views: Sequence[View]) -> bool:
    """Return whether an engine made tokens within the window: then the GPU works, lightly."""
    firsts: dict[str, float] = {}
    for view in views:
        for engine in view.engines or ():
            tokens = engine.tokens_total.value
            if isinstance(tokens, int | float) and tokens > firsts.setdefault(engine.replica, tokens):
                return True
    return False


def _busy_at_idle_power(gpu: GpuWindow) -> Iterable[RuleResult]:
    if not _idle_but_busy(gpu) or _engines_move(gpu.views):
        return
    yield result.degraded(
        "busy_at_idle_power",
        f"It says {gpu.shown('utilisation_percent')} % busy but draws {gpu.shown('power_w')} W: a kernel is resident that does no work.",
        Action.RESTART_ENGINE,
        (
            gpu.evidence("utilisation_percent"),
            gpu.evidence("power_w", baseline=f"over {IDLE_SHARE:.0%} of the limit when it works"),
            gpu.evidence("sm_clock_mhz"),
        ),
    )


PROBE = DECLARED.gpu_probe(DECLARED.past_limits, _stuck, _busy_at_idle_power)
