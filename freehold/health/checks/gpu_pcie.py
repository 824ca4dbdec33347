"""Has a GPU the PCIe link that it should have, and does the link repeat itself?

A narrow link is always a fault; a slow one only while the card works, for an idle link saves power in generation 1. Replays
are judged by what a healthy link's bit error rate allows. It reads no AER lines: those are in the kernel log.
"""

import math
from collections.abc import Iterable

from freehold.catalog.load_xids import pcie_replays
from freehold.core.findings import Action
from freehold.health.judge import rule_result as result
from freehold.health.judge.declaration import declared
from freehold.health.judge.gpus import GpuWindow, number
from freehold.health.judge.rule_result import RuleResult
from freehold.health.model.view import Gpu

DECLARED = declared(__name__)
LOADED_PERCENT = DECLARED.limit("loaded_percent")
LOADED_LOOKS = DECLARED.count("loaded_looks")
REPLAY_WINDOW_S = DECLARED.limit("replay_window_s")


def replays_allowed_per_minute(generation: int, lanes: int) -> int | None:
    """Return how many replays a minute a healthy link may have, or None for a generation that is not known."""
    known = pcie_replays().get(generation)
    return None if known is None else math.ceil(known.per_lane_per_minute * lanes)


def _is_slow(gpu: Gpu) -> bool:
    generation, most = number(gpu, "pcie_gen"), number(gpu, "pcie_gen_max")
    busy = number(gpu, "utilisation_percent")
    return (
        generation is not None
        and most is not None
        and busy is not None
        and busy >= LOADED_PERCENT
        and generation < most
    )


def _slow(gpu: GpuWindow) -> Iterable[RuleResult]:
    looks = [one for _, one in gpu.past][-LOADED_LOOKS:]
    if len(looks) < LOADED_LOOKS or not all(_is_slow(one) for one in looks):
        return
    yield result.degraded(
        "slow_link",
        f"Under load the PCIe link is generation {gpu.shown('pcie_gen')} of {gpu.shown('pcie_gen_max')}.",
        Action.INSPECT_HARDWARE,
        (
            gpu.evidence("pcie_gen", baseline=gpu.shown("pcie_gen_max")),
            gpu.evidence("utilisation_percent"),
        ),
    )


def _replays(gpu: GpuWindow) -> Iterable[RuleResult]:
    rise = gpu.rise("pcie_replays")
    generation, lanes = gpu.value("pcie_gen_max"), gpu.value("pcie_width")
    if rise is None or rise.seconds < REPLAY_WINDOW_S or generation is None or lanes is None:
        return
    allowed = replays_allowed_per_minute(int(generation), int(lanes))
    per_minute = rise.per_s * 60
    if allowed is None or per_minute <= allowed:
        return
    shown = f"+{rise.amount:g} in {rise.seconds:.0f} s"
    yield result.degraded(
        "replays",
        f"{per_minute:.0f} PCIe replays a minute; a healthy link of generation {generation:g} x{lanes:g} has at most {allowed}.",
        Action.INSPECT_HARDWARE,
        (gpu.evidence("pcie_replays", value=shown, baseline=f"{allowed} a minute"),),
    )


PROBE = DECLARED.gpu_probe(
    DECLARED.past_limits,
    _slow,
    _replays,
    first={
        f"replays_per_lane_minute_gen{generation}": (known.per_lane_per_minute, "DCGM: bit error rate 1e-12")
        for generation, known in pcie_replays().items()
    },
)
