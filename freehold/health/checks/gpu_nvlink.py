"""Are a GPU's NVLinks up, and free of errors?

How many links a card uses depends on the board: a card without bridges has none up and is not broken. So a link counts as down if
it was up before in the window, or if other GPUs of the same model have more. A card that has none at all while they do may
lack a bridge, and is only degraded. The check does not decode XID 74 registers: diagnosis does.
"""

from collections.abc import Iterable, Sequence

from freehold.core.findings import Action, Finding, Verdict
from freehold.health.judge.declaration import declared
from freehold.health.judge.gpu_limits import over_limits
from freehold.health.judge.gpus import REASONS, GpuWindow, judge_gpus, number
from freehold.health.judge.rule_result import RuleResult
from freehold.health.model.probe import Expected
from freehold.health.model.view import View

DECLARED = declared(__name__)


def _down(gpu: GpuWindow) -> Iterable[RuleResult]:
    up, before = gpu.value("nvlink_up"), max(gpu.values("nvlink_up"), default=0.0)
    usual = max([before, *_others(gpu)])
    if up is None or up >= usual:
        return
    shown = (gpu.evidence("nvlink_up", baseline=f"{usual:g}"), gpu.evidence("nvlink_down"))
    if before == 0:
        message = f"No NVLink is up where other GPUs of its kind have {usual:g}: it has no bridge, or all of them are down."
        yield RuleResult(
            verdict=Verdict.DEGRADED,
            reason="no_links",
            message=message,
            action=Action.CHECK_CABLE,
            evidence=shown,
        )
        return
    yield RuleResult(
        verdict=Verdict.UNHEALTHY,
        reason="link_down",
        message=f"{up:g} NVLinks are up where {usual:g} were or the other GPUs have; down: {gpu.shown('nvlink_down')}.",
        action=Action.INSPECT_HARDWARE,
        evidence=shown,
    )


def _others(gpu: GpuWindow) -> list[float]:
    """Return how many links are up on the node's other GPUs of the same model; another model has another number of them."""
    same = (other for other in gpu.siblings if other.name == gpu.gpu.name)
    return [value for other in same if (value := number(other, "nvlink_up")) is not None]


def _faults(gpu: GpuWindow) -> Iterable[RuleResult]:
    yield from _down(gpu)
    yield from over_limits(gpu, DECLARED.gpu.limits)


def check(views: Sequence[View], expected: Expected) -> Sequence[Finding]:
    """Return one finding per GPU."""
    return judge_gpus(PROBE.name, views, expected=expected, needs=DECLARED.gpu.needs, faults=_faults)


PROBE = DECLARED.probe(check, common=REASONS)
