"""Is a GPU close to slowing itself down for heat? Judged by the card's own margin, never by a number of degrees of ours.

Cards differ by tens of degrees in what they bear; each reports its margin and the offset at which its hardware slows down. Without
a margin its own slowdown threshold is used. The check does not judge fans or the room; many cards at once only hint at them.
"""

from collections.abc import Iterable

from freehold.core.findings import Action, Verdict
from freehold.health.judge.declaration import declared
from freehold.health.judge.gpus import GpuWindow, number, whole_node
from freehold.health.judge.rule_result import RuleResult
from freehold.health.model.view import Gpu

DECLARED = declared(__name__)
MARGIN_LOW_C = DECLARED.limit("margin_low_c")
HEADROOM_LOW_C = DECLARED.limit("headroom_low_c")

_SHOWN = ("margin_c", "slowdown_tlimit_c", "temperature_c", "slowdown_threshold_c")


def _headroom_c(gpu: Gpu) -> tuple[float, float] | None:
    """Return how far it is from slowing down and from where that begins to matter, both °C; None where the card does not say."""
    margin, offset = number(gpu, "margin_c"), number(gpu, "slowdown_tlimit_c")
    if margin is not None and offset is not None:
        return margin - offset, MARGIN_LOW_C - offset
    temperature, threshold = number(gpu, "temperature_c"), number(gpu, "slowdown_threshold_c")
    if temperature is not None and threshold is not None:
        return threshold - temperature, HEADROOM_LOW_C
    # Neither offset nor threshold: only the margin's own zero can be judged.
    return None if margin is None else (margin + HEADROOM_LOW_C, HEADROOM_LOW_C)


def _too_hot(gpu: Gpu) -> bool:
    headroom = _headroom_c(gpu)
    return headroom is not None and headroom[0] <= max(headroom[1], 0.0)


def _core(gpu: GpuWindow) -> Iterable[RuleResult]:
    headroom = _headroom_c(gpu.gpu)
    if headroom is None or not _too_hot(gpu.gpu):
        return
    everywhere = whole_node(gpu, _too_hot)
    where = " So are all GPUs of the node: look at fans and inlet air." if everywhere else ""
    past = headroom[0] < 0
    yield RuleResult(
        Verdict.UNHEALTHY if past else Verdict.DEGRADED,
        "past_slowdown" if past else "near_slowdown",
        f"{headroom[0]:g} °C below its slowdown threshold, at {gpu.shown('temperature_c')} °C.{where}",
        Action.CHECK_FACILITY if everywhere else Action.INSPECT_HARDWARE if past else Action.WATCH,
        tuple(gpu.evidence(name) for name in _SHOWN),
    )


PROBE = DECLARED.gpu_probe(_core, DECLARED.past_limits)
