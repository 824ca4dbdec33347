"""Are a GPU's NVLinks up, and free of errors?

How many links a card uses depends on the board: a card without bridges has none up and is not broken. So a link counts as down if
it was up before in the window, or if other GPUs of the same model have more. A card that has none at all while they do may
lack a bridge, and is only degraded. The check does not decode XID 74 registers: diagnosis does.
"""

from collections.abc import Iterable

from freehold.core.findings import Action
from freehold.health.judge import rule_result as result
from freehold.health.judge.declaration import declared
from freehold.health.judge.gpus import GpuWindow, number
from freehold.health.judge.rule_result import RuleResult

DECLARED = declared(__name__)


def _down(gpu: GpuWindow) -> Iterable[RuleResult]:
    up, before = gpu.value("nvlink_up"), max(gpu.values("nvlink_up"), default=0.0)
    usual = max([before, *_others(gpu)])
    if up is None or up >= usual:
        return
    shown = (gpu.evidence("nvlink_up", baseline=f"{usual:g}"), gpu.evidence("nvlink_down"))
    if before == 0:
        message = f"No NVLink is up where other GPUs of its kind have {usual:g}: it has no bridge, or all of them are down."
        yield result.degraded("no_links", message, Action.CHECK_CABLE, shown)
        return
    yield result.unhealthy(
        "link_down",
        f"{up:g} NVLinks are up where {usual:g} were or the other GPUs have; down: {gpu.shown('nvlink_down')}.",
        Action.INSPECT_HARDWARE,
        shown,
    )


def _others(gpu: GpuWindow) -> list[float]:
    """Return how many links are up on the node's other GPUs of the same model; another model has another number of them."""
    same = (other for other in gpu.siblings if other.name == gpu.gpu.name)
    return [value for other in same if (value := number(other, "nvlink_up")) is not None]


PROBE = DECLARED.gpu_probe(_down, DECLARED.past_limits)
