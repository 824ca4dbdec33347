"""Does a GPU's memory lose bits, and can it still repair itself?

Uncorrectable errors and spent repairs are direct verdicts of the card on itself. Corrected errors are everyday; they count only if there are
very many, or far more than on the node's other GPUs. A reading that a card does not have is not zero. The check does
not read XIDs: gpu_xid does, and diagnosis combines them.
"""

from collections.abc import Iterable, Sequence
from statistics import median

from freehold.core.findings import Action, Finding, Verdict
from freehold.health.judge.declaration import declared
from freehold.health.judge.gpu_limits import over_limits
from freehold.health.judge.gpus import REASONS, GpuWindow, gpu_windows, judge_gpus
from freehold.health.judge.rule_result import RuleResult
from freehold.health.model.probe import Expected
from freehold.health.model.view import View

DECLARED = declared(__name__)
PAGES_GROWING = DECLARED.limit("pages_growing")
OUTLIER_FACTOR = DECLARED.limit("outlier_factor")
OUTLIER_LEAST = DECLARED.limit("outlier_least")


_DOUBLE_BIT = "retired_pages_uncorrected"


def _pages_growing(gpu: GpuWindow) -> Iterable[RuleResult]:
    pages, rise = gpu.value(_DOUBLE_BIT), gpu.rise(_DOUBLE_BIT)
    if pages is not None and pages > PAGES_GROWING and rise is not None and rise.amount > 0:
        yield RuleResult(
            verdict=Verdict.UNHEALTHY,
            reason="pages_growing",
            message=f"{pages:g} pages are retired for double-bit errors, {rise.amount:g} more within the window.",
            action=Action.REPLACE_HARDWARE,
            evidence=(gpu.evidence(_DOUBLE_BIT),),
        )


def _outlier(gpu: GpuWindow, others: Sequence[float]) -> Iterable[RuleResult]:
    rise = gpu.rise("ecc_volatile_corrected")
    if rise is None or rise.amount < OUTLIER_LEAST or not others:
        return
    usual = median(others)
    if rise.amount < usual * OUTLIER_FACTOR:
        return
    shown = f"+{rise.amount:g} in {rise.seconds:.0f} s"
    yield RuleResult(
        verdict=Verdict.DEGRADED,
        reason="corrected_errors_outlier",
        message=f"{rise.amount:g} corrected errors in {rise.seconds:.0f} s; the node's other GPUs have {usual:g}.",
        action=Action.WATCH,
        evidence=(gpu.evidence("ecc_volatile_corrected", value=shown, baseline=f"+{usual:g} on the others"),),
    )


def check(views: Sequence[View], expected: Expected) -> Sequence[Finding]:
    """Return one finding per GPU."""
    rises = {gpu.component: gpu.rise("ecc_volatile_corrected") for gpu in gpu_windows(views)}

    def faults(gpu: GpuWindow) -> Iterable[RuleResult]:
        others = [rise.amount for name, rise in rises.items() if name != gpu.component and rise is not None]
        yield from over_limits(gpu, DECLARED.gpu.limits)
        yield from _pages_growing(gpu)
        yield from _outlier(gpu, others)

    return judge_gpus(PROBE.name, views, expected=expected, needs=DECLARED.gpu.needs, faults=faults)


PROBE = DECLARED.probe(check, common=REASONS)
